# What setup-production.sh and setup-domain.sh share. They source it; it does nothing by itself.
# shellcheck shell=bash

# With CDPATH set, cd would say where it went.
unset CDPATH
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$project/setup/apt.sh"
program=$(basename "$0" .sh)

# The inventory of this server: what was chosen, kept from run to run. Its main.yml is the operator's.
inventory=/etc/toll-app-setup
choices=$inventory/group_vars/web/choices.yml
settings=$inventory/group_vars/web/main.yml
# Where both were before the group was called web.
before_web=$inventory/group_vars/toll_app
# Says that this server was looked at, and that what is on it now is the project's. Until a run has come to its end, it
# names the copy of what was there before.
taken=$inventory/taken-over
# The control environment, which nothing but these scripts uses.
state=/var/lib/toll-app-setup
venv=$state/venv
logs=/var/log/toll-app-setup
backups=/var/backups/toll-app-setup

os_release=/etc/os-release
proc=/proc
nginx=/etc/nginx
unit_file=/etc/systemd/system/toll-app.service
python=/usr/bin/python3
packages=(ca-certificates curl python3 python3-venv)
# MiB by place: packages and their archives, the control environment, two releases and certbot.
declare -A needed=([/usr]=200 [/var]=500 [/opt]=300)

log=/dev/null
explained=false
problems=()
step=0
steps=0

# --- Telling ----------------------------------------------------------------------------------------

# These are the person's; everything else goes to the log.
exec 3>&1 4>&2

say() {
  printf '%s\n' "$@" >&3
  printf '%s\n' "$@" >>"$log"
}

complain() {
  printf '%s\n' "" "$program: $1" "${@:2}" >&4
  printf '%s\n' "" "$program: $1" "${@:2}" >>"$log"
}

now() {
  local time=${EPOCHREALTIME/[.,]/}
  echo $((time / 1000))
}

seconds() { # since
  local ms=$(($(now) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# Stops before anything was changed.
refuse() {
  explained=true
  complain "$*"
  exit 2
}

# Stops in a step. What is there stays, and the same command goes on from it.
stop() {
  explained=true
  complain "$*" \
    "The whole log: $log. When that is mended, run the same command again: what is done already stays."
  exit 1
}

problem() {
  problems+=("$*")
}

# Every problem at once.
refuse_problems() {
  ((${#problems[@]})) || return 0
  local text
  printf -v text '\n  - %s' "${problems[@]}"
  refuse "nothing was changed, because of this:$text"
}

# Runs a command as a step of its own.
run_step() { # words, command...
  local start
  start=$(now)
  step=$((step + 1))
  printf 'step %d of %d: %s ...' "$step" "$steps" "$1" >&3
  printf '\n--- step %d of %d: %s\n' "$step" "$steps" "$1"
  "${@:2}"
  printf ' %s\n' "$(seconds "$start")" >&3
}

# Whether a person answers yes.
agrees() { # question
  local answer
  printf '%s [yes/no] ' "$1" >&3
  read -r answer || return 1
  [[ $answer == [yY] || $answer == [yY][eE][sS] ]]
}

ended() {
  local code=$?
  if ((code)) && [[ $explained == false ]]; then
    complain "a command failed (exit status $code). The end of the log, $log:" \
      "$(tail -n 15 "$log")" "Run the same command again: what is done already stays." \
      ${copy:+"Or bring back what served before: $copy/restore.sh"}
  fi
}

interrupted() {
  explained=true
  complain "interrupted. Run the same command again: what is done already stays." \
    ${copy:+"Or bring back what served before: $copy/restore.sh"}
  exit 130
}

# Of what a shell, sudo and PAM hand on, this says who somebody is, how packages are reached, and what
# opens the vault. Nothing else decides how a server is set up, or in which language programs speak.
inherited='^(HOME|USER|LOGNAME|TERM|SUDO_[A-Z]+|PIP_[A-Z_]+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE'
inherited+='|ANSIBLE_VAULT_[A-Z_]+|([a-z]+_proxy|[A-Z]+_PROXY))$'

clean_environment() {
  local variable
  while read -r variable; do
    # Some are the shell's own, and cannot be.
    [[ $variable =~ $inherited ]] || unset "$variable" 2>/dev/null || true
  done < <(compgen -e)
  umask 0022
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
}

# The log first, so that everything is in it; nobody but root reads it.
begin() {
  clean_environment
  check_root "$EUID"
  install -d -m 0700 "$logs"
  log=$logs/$program-$(date +%Y-%m-%dT%H-%M-%S).log
  (umask 0077 && : >>"$log")
  exec >>"$log" 2>&1
  find "$logs" -name "$program-*.log" -printf '%T@ %p\n' | sort -rn | tail -n +31 | cut -d' ' -f2- |
    xargs -r -d '\n' rm -f --
  trap ended EXIT
  trap interrupted INT TERM HUP
  # What is started keeps it open: also when this is killed, its Ansible runs alone.
  exec 9>/run/lock/toll-app-setup
  flock --nonblock 9 || refuse "another set-up is running on this server: wait until it has ended."
}

# --- Whether it can be done here ----------------------------------------------------------------------

check_root() { # user id
  (($1 == 0)) || refuse "this needs root: run it as \`sudo $0\`."
}

check_system() {
  # Not sourced: what it sets would become ours.
  value() { { sed -n "s/^$1=//p" "$os_release" 2>/dev/null || true; } | tr -d "\"'"; }
  local name
  name=$(value PRETTY_NAME)
  case $(value ID)-$(value VERSION_ID) in
    debian-12 | debian-13) ;;
    *) problem "this is ${name:-an unknown system}, and the script sets up Debian 12 and 13: use one of" \
      "them, or provision this server from a control node (docs/GETTING_STARTED.md, \"You have hosts\")." ;;
  esac
  case $(uname -m) in
    x86_64 | aarch64) ;;
    *) problem "the processor is $(uname -m), for which no release can be built: use x86_64 or aarch64." ;;
  esac
  [[ -d ${systemd_running:-/run/systemd/system} ]] ||
    problem "systemd does not run this system: boot it with systemd as its first process."
}

free_mib() { # path, there or not yet: MiB and mount point
  local path=$1
  while [[ ! -e $path ]]; do path=$(dirname "$path"); done
  df -Pm "$path" | awk 'NR == 2 {print $4, $6}'
}

check_disk() {
  local path free mount
  local -A wanted=() have=()
  for path in "${!needed[@]}"; do
    read -r free mount < <(free_mib "$path")
    wanted[$mount]=$((${wanted[$mount]:-0} + needed[$path]))
    have[$mount]=$free
  done
  for mount in "${!wanted[@]}"; do
    ((have[$mount] >= wanted[$mount])) ||
      problem "the file system $mount has ${have[$mount]} MiB free, and ${wanted[$mount]} MiB are needed:" \
        "remove what is not needed there, or enlarge it."
  done
}

# --- What is there already --------------------------------------------------------------------------

# The first process that listens on a TCP port, 0 for one that cannot be seen, nothing for none.
holder() { # port, addresses as /proc/net/tcp has them, a regular expression (default: all)
  local inodes pattern=() inode
  inodes=$(awk -v port="$(printf '%04X' "$1")" -v addresses="${2:-.}" '
    FNR > 1 && $4 == "0A" { split($2, at, ":"); if (at[2] == port && at[1] ~ addresses) print $10 }
  ' "$proc/net/tcp" "$proc/net/tcp6" 2>/dev/null || true)
  [[ -n $inodes ]] || return 0
  for inode in $inodes; do pattern+=(-o -lname "socket:\\[$inode\\]"); done
  # A process that ends meanwhile is no error.
  {
    find "$proc"/[0-9]*/fd -maxdepth 1 \( "${pattern[@]:1}" \) -printf '%h\n' 2>/dev/null || true
    echo /0/fd
  } | sed -E 's#.*/([0-9]+)/fd$#\1#' | sort -n | awk '$1 > 0 && !pid {pid = $1} END {print pid + 0}'
}

# On these addresses of IPv4 and IPv6 a listener keeps ours from 127.0.0.1.
loopback='^(0+|0100007F|0+FFFF0000(0+|0100007F))$'

unit_of() { # pid
  { sed -nE 's#.*/([^/]+\.(service|scope))(/.*)?$#\1#p' "$proc/$1/cgroup" 2>/dev/null || true; } | tail -n 1
}

socket_unit_of() { # port
  systemctl list-sockets --no-legend --plain 2>/dev/null |
    awk -v port=":$1" 'substr($1, length($1) - length(port) + 1) == port {unit = $2} END {print unit}'
}

program_of() { # pid
  cat "$proc/$1/comm" 2>/dev/null || echo "a process"
}

parent_of() { # pid
  awk '/^PPid:/ {print $2}' "$proc/$1/status" 2>/dev/null || true
}

described() { # pid: program, unit
  local unit
  if ((${1:-0} == 0)); then
    echo "a process that cannot be seen"
    return
  fi
  unit=$(unit_of "$1")
  printf '%s (pid %s%s)' "$(program_of "$1")" "$1" "${unit:+, $unit}"
}

# Whether systemd would start the process again: it is the main one of a service.
is_service() { # pid, unit
  [[ $2 == *.service && $(systemctl show --property=MainPID --value "$2" 2>/dev/null) == "$1" ]]
}

taken_by() { # port, pid
  local unit remedy
  if (($2 == 0)); then
    problem "port $1 is taken by $(described 0): look with \`ss -ltnp\`, and stop it."
    return
  fi
  if (($2 == 1)); then
    unit=$(socket_unit_of "$1")
    problem "port $1 is taken by ${unit:-a socket unit}: stop it with" \
      "\`systemctl disable --now ${unit:-UNIT}\`."
    return
  fi
  unit=$(unit_of "$2")
  if is_service "$2" "$unit"; then remedy="systemctl disable --now $unit"; else remedy="kill $2"; fi
  problem "port $1 is taken by $(described "$2"): stop it with \`$remedy\`, or let it use another port."
}

managed() { # file
  # As plugin_utils/rendering.py has it; files of other playbooks say it otherwise.
  head -n 5 "$1" 2>/dev/null | grep -q 'This file is managed by Ansible: '
}

found=()        # what a person is told
old_pid=""      # the process on port 5000
old_units=()    # units of our name that are not ours
copy=""         # where what is replaced is kept, by this run or by one that was cut off
old_nginx=false # nginx with a configuration that is not ours

# Without a domain of its own choices this script would undo the one that a control node has set up.
look_at_owner() {
  [[ -e $choices || -e $before_web/choices.yml ]] || ! managed "$unit_file" ||
    problem "toll-app was set up here from a control node: go on from there, or first copy the host's variables" \
      "from its inventory to $settings, and write its domains to $choices, as" \
      "\`setup_domains: [app.example.com]\`."
}

# Finds what somebody set up by hand and this project replaces, and what it cannot replace.
look_around() {
  [[ ! -s $taken || ! -e $(<"$taken")/restore.sh ]] || copy=$(<"$taken")
  look_at_owner
  look_at_application
  look_at_units
  [[ -e $taken ]] || look_at_nginx
  look_at_web_ports
}

look_at_application() {
  local pid unit
  pid=$(holder 5000 "$loopback")
  [[ -n $pid ]] || return 0
  if ((pid == 1)); then
    [[ $(socket_unit_of 5000) == toll-app.socket ]] || taken_by 5000 1
    return 0
  fi
  unit=$(unit_of "$pid")
  # Ours, or found by its name below.
  [[ $unit != toll-app.service && $unit != toll-app-standby.service ]] || return 0
  if ((pid == 0)) || [[ ! $(program_of "$pid") =~ ^(python|gunicorn|flask|uwsgi|uvicorn|waitress|hypercorn) ]]; then
    taken_by 5000 "$pid"
    return 0
  fi
  old_pid=$pid
  found+=("$(described "$pid") listens on port 5000, started as \`$(tr '\0' ' ' <"$proc/$pid/cmdline" |
    sed 's/ $//')\` in $(readlink "$proc/$pid/cwd"): it is stopped")
}

look_at_units() {
  local unit path
  for unit in toll-app.service toll-app.socket; do
    path=$(systemctl show --property=FragmentPath --value "$unit" 2>/dev/null || true)
    if [[ -n $path ]] && ! managed "$path"; then
      old_units+=("$unit")
      found+=("the unit $path was not written by this project: it is stopped and replaced")
    fi
  done
}

# Everything that nginx reads. Where it is not installed it serves nothing: then what a removed one left.
nginx_configuration() {
  local file
  if command -v nginx >/dev/null; then
    nginx -T -c "$nginx/nginx.conf"
    return
  fi
  for file in "$nginx/nginx.conf" "$nginx"/sites-enabled/* "$nginx"/conf.d/*.conf; do
    [[ ! -f $file ]] || printf '# configuration file %s:\n%s\n' "$file" "$(<"$file")"
  done
}

look_at_nginx() {
  local configuration file whose names sites=()
  [[ -e $nginx/nginx.conf ]] && ! managed "$nginx/nginx.conf" || return 0
  configuration=$(nginx_configuration 2>&1) || {
    problem "nginx does not take its own configuration ($(grep -m 1 -F '[emerg]' <<<"$configuration" ||
      tail -n 1 <<<"$configuration")), so nobody can tell what it serves: mend what \`nginx -t\` says, or remove" \
      "nginx and $nginx."
    return 0
  }
  while IFS=$'\t' read -r file whose names; do
    if [[ $whose == ours ]]; then
      [[ " ${sites[*]} " == *" ${file#"$nginx"/} "* ]] || sites+=("${file#"$nginx"/}")
    else
      problem "nginx serves ${names:-a site without a name }in $file, which is not this application's, and the" \
        "project writes the whole of nginx's configuration: move that site to another server, or remove it."
    fi
  done < <(awk -f "$project/setup/nginx_sites.awk" <<<"$configuration")
  old_nginx=true
  found+=("nginx has a configuration that is not this project's (${sites[*]:-no site}): it is replaced")
}

look_at_web_ports() {
  local port pid
  for port in 80 443; do
    pid=$(holder "$port")
    [[ -n $pid ]] || continue
    ((pid > 1)) && [[ $(program_of "$pid") == nginx ]] || taken_by "$port" "$pid"
  done
}

# Asks, or takes --yes.
agree_to_replace() { # --yes or nothing
  local line
  ((${#found[@]})) || return 0
  say "" "This server has something that the set-up replaces:"
  for line in "${found[@]}"; do say "  - $line"; done
  say "A copy of those files goes to $backups, with a script that brings them back." \
    "The application's own files and its data stay where they are."
  [[ $1 == --yes ]] && return 0
  if [[ ! -t 0 ]]; then
    refuse "nothing was changed: run it again with --yes if that is what you want."
  fi
  agrees "Go on?" || refuse "nothing was changed."
}

# --- Taking over ------------------------------------------------------------------------------------

# The copy of a run that was cut off has what this one does not find any more.
keep_copy() {
  local made
  if ((${#found[@]})); then
    made=$backups/$(date +%Y-%m-%dT%H-%M-%S)
    copy_to "$made"
    copy=${copy:-$made}
  fi
  printf %s "$copy" >"$taken"
}

# Copies what is replaced, and writes the script that brings it back.
copy_to() { # directory
  # On a server that was ours before, nginx goes on.
  local into=$1 unit path place services="toll-app.socket toll-app.service"
  # shellcheck disable=SC2016 # for the shell of the script that is written
  [[ -e $taken ]] || services='$(systemctl list-unit-files --no-legend "toll-app*" | cut -d" " -f1) nginx.service'
  place=$into/restore.sh
  install -d -m 0700 "$backups" "$into"
  printf '%s\n' "${found[@]}" >"$into/found.txt"
  cat >"$place" <<SCRIPT
#!/bin/bash
# Brings back what $program replaced, and stops what took its place.
set -uo pipefail
failed=0
systemctl disable --now $services
SCRIPT
  if [[ $old_nginx == true ]]; then
    cp -a "$nginx" "$into/nginx"
    # The place of units that were added to it as well, which are the project's.
    cat >>"$place" <<SCRIPT
rm -rf $(printf %q "$nginx") /etc/systemd/system/nginx.service.d
cp -a $(printf %q "$into/nginx") $(printf %q "$nginx")
SCRIPT
  fi
  # Ours lie where the administrator's do, whatever lay there before.
  [[ -e $taken ]] ||
    echo "rm -rf /etc/systemd/system/toll-app*" >>"$place"
  for unit in "${old_units[@]}"; do
    path=$(systemctl show --property=FragmentPath --value "$unit")
    cp -a "$path" "$into/$unit"
    echo "cp -a $(printf %q "$into/$unit") $(printf %q "$path")" >>"$place"
    if [[ -d /etc/systemd/system/$unit.d ]]; then
      cp -a "/etc/systemd/system/$unit.d" "$into/$unit.d"
      echo "cp -a $(printf %q "$into/$unit.d") /etc/systemd/system/" >>"$place"
    fi
  done
  echo "systemctl daemon-reload" >>"$place"
  for unit in "${old_units[@]}"; do
    if systemctl --quiet is-active "$unit"; then
      echo "systemctl enable --now $unit || systemctl start $unit || failed=1" >>"$place"
    fi
  done
  if [[ -n $old_pid ]]; then
    unit=$(unit_of "$old_pid")
    if is_service "$old_pid" "$unit"; then
      echo "systemctl enable --now $unit || failed=1" >>"$place"
    else
      echo "echo 'Start the application as it was started before: see found.txt beside this script.'" >>"$place"
    fi
  fi
  if [[ $old_nginx == true ]] && systemctl --quiet is-active nginx.service; then
    echo "systemctl enable --now nginx.service || failed=1" >>"$place"
  fi
  if [[ -e $taken ]]; then echo ": >$(printf %q "$taken")"; else echo "rm -f $(printf %q "$taken")"; fi >>"$place"
  # shellcheck disable=SC2016 # for the shell of the script that is written
  echo 'exit $failed' >>"$place"
  chmod 0700 "$place"
}

# Whether the application answers here that it is ready.
serves() {
  systemctl --quiet is-active toll-app.service &&
    curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null http://localhost:5000/readyz
}

# After a failed run: nobody has to do without what served before, unless the new one serves by now.
bring_back() {
  [[ -n $copy ]] || return 0
  if serves 2>/dev/null; then
    say "" "The new toll-app serves. $copy/restore.sh would bring back what served before."
  elif bash "$copy/restore.sh" </dev/null; then
    say "" "What served before was started again, with $copy/restore.sh."
    ! grep -q "^echo 'Start the application" "$copy/restore.sh" ||
      say "What was started by hand has to be started by hand again: see $copy/found.txt."
  else
    complain "What served before does not start any more: look at $copy, and at the log."
  fi
}

stop_old() {
  local unit pid end
  for unit in "${old_units[@]}"; do
    systemctl disable --now "$unit" || systemctl stop "$unit" ||
      stop "the unit $unit cannot be stopped: see \`systemctl status $unit\`."
    # A file of the distribution's would come back, and ours takes its place anyway.
    rm -rf "/etc/systemd/system/$unit" "/etc/systemd/system/$unit.d"
  done
  ((${#old_units[@]} == 0)) || systemctl daemon-reload
  [[ -n $old_pid ]] || return 0
  unit=$(unit_of "$old_pid")
  ! is_service "$old_pid" "$unit" || systemctl disable --now "$unit" || true
  end=$(($(now) + 20000))
  # A reloader or a master first, then what it leaves behind.
  while pid=$(holder 5000 "$loopback") && [[ -n $pid ]]; do
    (($(now) < end)) ||
      stop "port 5000 is still taken by $(described "$pid"): something starts it again, perhaps" \
        "$(described "$(parent_of "$pid")"); stop it there."
    # One that ends has closed its files before its socket is gone. `kill 0` would end this run, and 1 is systemd.
    ((pid < 2)) || kill "$pid" 2>/dev/null || true
    sleep 0.3
  done
}

# --- The control environment ------------------------------------------------------------------------

install_packages() {
  local missing
  # dpkg-query says nothing on standard output of a package that it has never seen.
  mapfile -t missing < <(comm -23 <(printf '%s\n' "${packages[@]}" | sort) \
    <(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
      sed -n 's/^installed //p' | sort))
  ((${#missing[@]})) || return 0
  export DEBIAN_FRONTEND=noninteractive
  wait_for_apt || stop "Debian's packages cannot be installed while another process does."
  apt-get --quiet --option DPkg::Lock::Timeout=300 --option APT::Update::Error-Mode=any \
    --option Acquire::Retries=1 --option Acquire::http::Timeout=20 --option Acquire::https::Timeout=20 update ||
    stop "Debian's package lists cannot be fetched ($(grep -E '^(E|W|Err):' "$log" | tail -n 1)): see that" \
      "this server reaches the mirror that /etc/apt names (network, name server, proxy)."
  wait_for_apt || stop "Debian's packages cannot be installed while another process does."
  apt-get --quiet --yes --no-install-recommends --option DPkg::Lock::Timeout=300 install "${missing[@]}" ||
    stop "the packages ${missing[*]} cannot be installed ($(grep '^E:' "$log" | tail -n 1)): set right what" \
      "apt says."
}

install_ansible() {
  local wanted lock=$project/requirements.txt
  wanted="$(sha256sum <"$lock" | cut -c1-64) $("$python" --version)"
  if [[ -e $venv/.complete && $(<"$venv/.complete") == "$wanted" ]]; then return 0; fi
  install -d -m 0700 "$state"
  rm -rf "$venv"
  "$python" -m venv "$venv" || stop "python3 -m venv failed: \`apt-get install --reinstall python3-venv\`."
  # pip is told of the index by its own configuration, /etc/pip.conf or PIP_INDEX_URL. Python compiles what
  # is used when it is used.
  if ! "$venv/bin/pip" --disable-pip-version-check --retries 1 --timeout 20 install --no-input \
    --no-compile --require-hashes --only-binary :all: --requirement "$lock"; then
    rm -rf "$venv"
    stop "Ansible cannot be fetched from the Python package index ($(grep -E '^ *(ERROR|WARNING):' "$log" |
      tail -n 1 | cut -c1-300)): see that this server reaches the index (network, name server); name" \
      "a proxy, an index or a certificate authority of your own in /etc/pip.conf."
  fi
  echo "$wanted" >"$venv/.complete"
}

prepare_control() {
  install_packages
  install_ansible
}

# --- Running ----------------------------------------------------------------------------------------

# Writes a file if it differs, in one step.
write() { # path, mode
  local new
  new=$(mktemp "$1.XXXXXX")
  cat >"$new"
  chmod "$2" "$new"
  if cmp --silent "$new" "$1"; then rm -f "$new"; else mv -f "$new" "$1"; fi
}

# Whether it is a name that a certificate can be for.
valid_name() {
  [[ $1 =~ ^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$ &&
    ! $1 =~ (^|\.)[0-9]+$ ]]
}

host_name() {
  local name
  name=$(hostname --fqdn 2>/dev/null || hostname)
  if [[ $name != localhost* ]] && valid_name "$name"; then echo "${name,,}"; else echo toll-app.internal; fi
}

# An older version of this project had a group of its own for toll-app, whose domains were a variable. What the operator
# wrote there is kept; a variable that is gone is named by the run that follows.
carry_over() {
  [[ -d $before_web && ! -e $choices ]] || return 0
  [[ ! -e $before_web/choices.yml ]] ||
    sed -E 's/^toll_app_(domains|default_site):/setup_\1:/' "$before_web/choices.yml" | write "$choices" 0600
  [[ ! -e $before_web/main.yml ]] || {
    default_settings
    printf '\n# From the settings of an older version.\n'
    grep -vE '^(---$|#|$)' "$before_web/main.yml" || true
  } | write "$settings" 0600
  install -d -m 0700 "$backups"
  mv "$before_web" "$backups/settings-$(date +%Y-%m-%dT%H-%M-%S)"
}

default_settings() {
  cat <<'YAML'
---
# Your settings of this server; nothing overwrites them. What an application can have: roles/application/README.md.
# Every variable, with its type, unit and reason: roles/<role>/README.md. Then run setup-production.sh again.
applications:
  toll-app:
    role: toll_app
    # Chosen by setup-domain.sh.
    domains: "{{ setup_domains }}"
    site:
      default: "{{ setup_default_site | default(false) }}"

    # Worker processes; CPU x 2 + 1 when unset.
    # web: {workers: 5}

    # Further settings of the application, as environment variables. Not for secrets.
    # environment: {}

    # Where copies of the data go besides this disk (docs/PRODUCTION_SETUP.md).
    # Needs rsync, a key in /root/.ssh, and `ssh copies@backup.example.com true` once.
    # backup:
    #   command: [/usr/bin/rsync, --archive, "{file}", "{record}", "copies@backup.example.com:toll-app/"]

# Who is told when something is wrong.
# monitoring_enabled: true
# monitoring_webhook_url: https://hooks.example.com/services/...
YAML
}

# The inventory: what is always so, what was chosen, and a place for the operator's own settings.
write_inventory() {
  local name
  name=$(host_name)
  install -d -m 0700 "$inventory" "$inventory/group_vars" "$inventory/group_vars/web"
  carry_over
  write "$inventory/hosts.yml" 0600 <<YAML
---
# Written by setup-production.sh: this server is its own control node.
web:
  hosts:
    $name:
      ansible_connection: local
      ansible_python_interpreter: $python
      # The script is root already, and sudo need not be there.
      ansible_become: false
YAML
  if [[ ! -e $choices ]]; then
    write "$choices" 0600 <<YAML
---
# Written by setup-production.sh. There is no domain yet: the site answers under every name and address,
# with a self-signed certificate. setup-domain.sh replaces this file.
setup_domains: [$name]
setup_default_site: true
certbot_obtain: false
# Nobody else may know the name.
monitoring_probe_address: 127.0.0.1:443
YAML
  fi
  [[ -e $settings ]] || default_settings | write "$settings" 0600
}

# Whether the operator has chosen to have it watched.
watched() {
  grep -qE '^monitoring_enabled: *(true|yes|on)( |$)' "$settings" 2>/dev/null
}

# The steps of a playbook for the person, without those of what is off.
steps_for() { # playbook
  local folder=$project/setup/steps
  cat "$folder/${1##*/}"
  if [[ ${1##*/} == site.yml ]] && watched; then grep -v '^---$' "$folder/monitoring.yml"; fi
}

# How many steps a playbook has for the person.
steps_of() { # playbook
  steps_for "$1" | grep -c '^- words:'
}

# Runs a playbook on this server; the person sees its steps, the log everything. Who types it wants all looked at.
run_playbook() { # playbook, arguments...
  local code=0 variable
  printf '\n--- %s\n' "$*"
  # Settings of somebody's shell are not this server's.
  for variable in "${!ANSIBLE_@}" "${!PYTHON@}"; do
    [[ $variable == ANSIBLE_VAULT_* ]] || unset "$variable"
  done
  steps_for "$1" >"$state/steps.yml"
  ANSIBLE_CONFIG=$project/ansible.cfg \
    ANSIBLE_HOME=$state/ansible \
    ANSIBLE_NOCOLOR=1 \
    ANSIBLE_CALLBACKS_ENABLED=wsgi.host.quick_forks,wsgi.host.halt,wsgi.host.progress \
    WSGI_PROGRESS_FD=3 \
    WSGI_PROGRESS_STEPS=$state/steps.yml \
    WSGI_PROGRESS_FIRST=$((step + 1)) \
    WSGI_PROGRESS_TOTAL=$steps \
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$project \
    "$venv/bin/ansible-playbook" --inventory "$inventory/hosts.yml" --diff "$project/$1" \
    --extra-vars application_seal_hours=0 "${@:2}" \
    </dev/null || code=$?
  step=$((step + $(steps_of "$1")))
  # Before its first task it has told the person nothing.
  ((code == 0)) || [[ $(tail -n 5 "$log") == *changed=* ]] || complain "$(tail -n 5 "$log")"
  return "$code"
}

# Tasks that changed something in the runs since the log began.
changes() {
  sed -nE 's/.* ok=[0-9]+ +changed=([0-9]+).*/\1/p' "$log" | awk '{sum += $1} END {print sum + 0}'
}

address() {
  hostname -I 2>/dev/null | awk '{print ($1 ~ /:/ ? "[" $1 "]" : $1)}'
}

summary() { # since
  local unit name changed release
  changed=$(changes)
  release=$(curl --silent --noproxy '*' --max-time 10 http://localhost:5000/readyz |
    "$python" -Ic 'import json, sys; print(json.load(sys.stdin)["release"])' || true)
  say ""
  if ((changed)); then say "Done in $(seconds "$1"); changed=$changed."; else
    say "Done in $(seconds "$1"); changed=0: everything was already as it should be."
  fi
  say "" "Running now:"
  local units=(toll-app.service toll-app.socket nginx.service certbot.timer toll-app-health.timer toll-app-backup.timer)
  watched && units+=(prometheus.service prometheus-alertmanager.service)
  for unit in "${units[@]}"; do
    name=$(systemctl is-active "$unit" || true)
    say "$(printf '  %-30s %s' "$unit" "$name")"
  done
  say "  release ${release:-unknown} answers at http://localhost:5000"
}
