# Reads nginx's configuration as `nginx -T` prints it. Prints of each server block, between tabs, its file, whether
# it may be replaced (`ours` or `other`), and its names. Ours are those that lead to the application, and those that
# hold nothing else: the distribution's own, and redirects to a name of ours.

/^# configuration file .*:$/ {
  file = substr($0, 22, length($0) - 22)
  place[++files_read] = file
  next
}

file != "" { content[file] = content[file] $0 "\n" }

END {
  for (f = 1; f <= files_read; f++) read_file(place[f])
  for (b = 1; b <= blocks; b++)
    if (leads[b] || leads_by_upstream(passes[b])) {
      ours[b] = 1
      know(names[b])
    }
  known["_"] = known["localhost"] = known["$host"] = known["$http_host"] = known["$server_name"] = 1
  for (b = 1; b <= blocks; b++)
    if (roots[b] && !others[b] && all_known(names[b] targets[b])) ours[b] = 1
  # A redirect may lead to another one, from a name of its own.
  do {
    more = 0
    for (b = 1; b <= blocks; b++)
      if (!ours[b] && !others[b] && !roots[b] && all_known(targets[b] (names_matter(targets[b]) ? names[b] : ""))) {
        ours[b] = more = 1
        know(names[b])
      }
  } while (more)
  for (b = 1; b <= blocks; b++) print files[b] "\t" (ours[b] ? "ours" : "other") "\t" names[b]
}

# nginx wants each block to end in the file in which it began.
function read_file(path,  token) {
  file = path
  text = content[file]
  words = depth = block = skipped = 0
  upstream = ""
  while (match(text, /^([ \t\r\n]+|#[^\n]*|"([^"\\]|\\.)*"|'([^'\\]|\\.)*'|[;{}]|([$][{][A-Za-z0-9_]*[}]|\\.|[^ \t\r\n;{}])+)/)) {
    token = substr(text, 1, RLENGTH)
    text = substr(text, RLENGTH + 1)
    if (token ~ /^[ \t\r\n#]/) continue
    if (token !~ /^[;{}]$/) {
      gsub(/^["']|["']$/, "", token)
      word[++words] = token
      continue
    }
    if (token == "{") begin_block()
    else if (token == ";") directive()
    else end_block()
    words = 0
  }
}

function begin_block() {
  # Whether what is within holds for all that the block around it is asked for.
  whole[++depth] = word[1] == "server" || word[1] == "if" && word[2] ~ /^\([$](http_)?host$/ || \
    word[1] == "location" && words == 2 && word[2] == "/"
  if (word[1] == "server" && words == 1) {
    files[block = ++blocks] = file
    block_depth = depth
  } else if (word[1] == "upstream") upstream = word[2]
  # What shows a file to a certificate authority is no site.
  else if (word[1] == "location" && word[words] ~ /acme-challenge/ && !skipped) skipped = depth
  else directive()
}

function end_block() {
  if (depth == skipped) skipped = 0
  if (depth == block_depth) block = 0
  upstream = ""
  depth--
}

function directive(  i, target, included) {
  if (upstream != "" && word[1] == "server" && is_ours(word[2])) our_upstream[upstream] = 1
  if (!block || skipped || word[1] == "listen") return
  # What it includes is a part of the block.
  if (word[1] == "include" && (included = included_by(word[2])) != "") {
    text = included text
    return
  }
  for (i = 2; i <= words; i++) {
    if (word[1] == "server_name") names[block] = names[block] word[i] " "
    if (word[1] ~ /_pass$/) passes[block] = passes[block] word[i] " "
    if (word[1] ~ /^(return|rewrite)$/ && word[i] ~ /:\/\//) target = host_of(word[i])
    if (word[1] == "set" && is_port(word[i]) || word[1] ~ /_pass$/ && is_ours(word[i])) leads[block] = 1
  }
  if (target != "") {
    targets[block] = targets[block] target " "
    # What leads somewhere from a part of itself is a site besides.
    for (i = block_depth; i <= depth; i++) if (!whole[i]) roots[block] = 1
  }
  else if (word[1] == "return") others[block] += word[2] !~ /^4/
  else if (word[1] == "root") {
    roots[block] = 1
    others[block] += word[2] !~ /^\/(var\/www|usr\/share\/nginx)\/html\/?$/
  }
  else if (word[1] ~ /^(index|try_files)$/) roots[block] = 1
  else others[block] += word[1] !~ /^(server_(name|tokens)|if|location|internal|error_page|charset|add_header|http2|(access|error)_log|ssl_.*)$/
}

# As nginx does, from the folder of its first file on.
function included_by(pattern,  f, found) {
  if (pattern !~ /^\//) {
    found = place[1]
    sub(/[^\/]*$/, "", found)
    pattern = found pattern
  }
  gsub(/[.+()$|]/, "[&]", pattern)
  gsub(/[*]/, "[^/]*", pattern)
  gsub(/[?]/, "[^/]", pattern)
  found = ""
  for (f = 1; f <= files_read; f++) if (place[f] ~ "^" pattern "$") found = found content[place[f]]
  return found
}

function is_port(text) {
  return text ~ /(^|[^0-9A-Za-z.-])(127[.][0-9.]+|0[.]0[.]0[.]0|localhost|\[::1\]):5000($|[^0-9])/
}

function is_ours(text) {
  return is_port(text) || text ~ /(^|[\/:])toll.?app/
}

# With a port that is not that of sites, it is a name of nobody's.
function host_of(url) {
  sub(/^[^:]*:\/\//, "", url)
  gsub(/[{}]/, "", url)
  match(url, /^[$]?[A-Za-z0-9_.-]*(:[0-9$][A-Za-z0-9_]*)?/)
  url = substr(url, 1, RLENGTH)
  sub(/:(80|443)$/, "", url)
  return url
}

function leads_by_upstream(urls,  count, url, i) {
  count = split(urls, url)
  for (i = 1; i <= count; i++) {
    sub(/^[a-z]+:\/\//, "", url[i])
    sub(/[\/:?].*/, "", url[i])
    if (url[i] in our_upstream) return 1
  }
  return 0
}

# A redirect to a name of ours that is written out is one from any name.
function names_matter(list) {
  return list == "" || list ~ /[$]|localhost/
}

function know(list,  count, name, i) {
  count = split(list, name)
  for (i = 1; i <= count; i++) known[name[i]] = 1
}

function all_known(list,  count, name, i) {
  count = split(list, name)
  for (i = 1; i <= count; i++) if (!(name[i] in known)) return 0
  return 1
}
