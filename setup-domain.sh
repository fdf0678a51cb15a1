#!/bin/bash
# Puts the site that setup-production.sh made on its domain, with a certificate:
#   sudo ./setup-domain.sh app.example.com ops@example.com
# When no certificate can be had, the site goes on as before. The choice is kept for later runs.
set -euo pipefail
# shellcheck source=setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup/lib.sh"

usage() {
  cat <<TEXT
usage: sudo ./setup-domain.sh [NAME...] [EMAIL] [--staging] [--acme-url URL [--acme-ca FILE]] [--no-probe]
  NAME             what people type, the main one first; each leads to this server already
  EMAIL            where the certificate authority writes to
  --staging        Let's Encrypt's authority for trials: no tight limits, and browsers do not trust it
  --acme-url URL   the ACME directory of another authority
  --acme-ca FILE   PEM file with what signed that authority's own certificate, if it is a private one
  --no-probe       look first neither at the names, for a server that cannot reach its public address, nor at ufw
TEXT
}

wrong() {
  explained=true
  printf 'setup-domain: %s\n' "$*" >&4
  usage >&4
  exit 2
}

names=() email="" url="" authority="" probe=true note=""
while (($#)); do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --staging) url=https://acme-staging-v02.api.letsencrypt.org/directory ;;
    --acme-url | --acme-ca)
      (($# > 1)) || wrong "$1 needs a value."
      if [[ $1 == --acme-url ]]; then url=$2; else authority=$2; fi
      shift
      ;;
    --no-probe) probe=false ;;
    -*) wrong "there is no option $1." ;;
    *@*)
      [[ -z $email ]] || wrong "$email and $1 are two addresses."
      email=$1
      ;;
    *) names+=("$1") ;;
  esac
  shift
done

ask_for() { # what it is, example: sets `answer`
  [[ -t 0 ]] || wrong "there is no $1: add it to the command, such as $2."
  printf '%s, such as %s: ' "$1" "$2" >&3
  read -r answer || wrong "there is no $1."
}

ask_for_the_rest() {
  local answer
  if ((${#names[@]} == 0)); then
    ask_for "domain" app.example.com
    read -ra names <<<"$answer"
  fi
  if [[ -z $email ]]; then
    ask_for "e-mail address" ops@example.com
    email=$answer
  fi
}

# What only this script knows; the roles check the same again, and more.
check_choice() {
  local name
  ((${#names[@]})) || problem "there is no domain: write one such as app.example.com."
  for name in "${names[@]}"; do
    valid_name "$name" && [[ $name == *.* ]] ||
      problem "$name is not a domain: write the name alone, such as app.example.com."
  done
  [[ $email =~ ^[A-Za-z0-9.!#%+/=?^_{|}~-]+@[A-Za-z0-9.-]+\.[A-Za-z0-9-]+$ ]] ||
    problem "$email is not an e-mail address: write one such as ops@example.com."
  [[ -z $url || $url =~ ^https://[A-Za-z0-9.:/_~%-]+$ || $url =~ ^https://\[ ]] ||
    problem "$url is not the address of an ACME directory: it begins with https://."
  [[ -z $authority ]] || grep -q 'BEGIN CERTIFICATE' "$authority" 2>/dev/null ||
    problem "$authority holds no certificate: name a PEM file that is there."
}

check_server() {
  local unit
  check_choice
  # Asked about both, systemctl would say whether one of them is active.
  for unit in toll-app nginx; do
    if [[ ! -e $choices || ! -e $venv/.complete ]] || ! systemctl --quiet is-active "$unit"; then
      problem "$unit does not run on this server: run setup-production.sh first."
      break
    fi
  done
  if grep -qE '^(setup_(domains|default_site)|certbot_(obtain|email|directory_url|ca_file|probe)):' "$settings" 2>/dev/null; then
    problem "$settings sets setup_domains or certbot's variables, which this script is for: remove them" \
      "there, or edit them there and run setup-production.sh."
  fi
  if [[ -e $settings ]] && ! grep -qE '^[^#]*\{\{ *setup_domains\b' "$settings"; then
    problem "$settings does not use setup_domains, which this script sets: write" \
      "\`domains: \"{{ setup_domains }}\"\` for toll-app there, or edit its domains there and run setup-production.sh."
  fi
  look_at_firewall
  refuse_problems
}

# Requests of the server to itself pass a firewall that others do not. Who does not probe knows better.
look_at_firewall() {
  [[ $probe == true ]] && command -v ufw >/dev/null || return 0
  case $(ufw status verbose | port_80) in
    closed) problem "the firewall ufw lets nobody reach port 80: \`ufw allow 80,443/tcp\`." ;;
    denied) problem "a rule of the firewall ufw denies everybody port 80: find it with \`ufw status numbered\`, and delete it." ;;
    unknown)
      note="Whether the firewall ufw lets everybody reach port 80 cannot be told from its rules: see \`ufw status\`."
      ;;
  esac
}

# What ufw's rules make of port 80: open, closed, denied by one, or unknown where one may open it to some.
port_80() {
  awk '
    /^Status: / {active = $2 == "active"}
    /^Default: allow \(incoming\)/ {policy = "open"}
    match($0, / +(ALLOW|LIMIT|DENY|REJECT)( IN)?  +/) {
      rule = substr($0, RSTART, RLENGTH) ~ /DENY|REJECT/ ? "denied" : "open"
      to = substr($0, 1, RSTART - 1)
      everybody = substr($0, RSTART + RLENGTH) ~ /^Anywhere *(\(log(-all)?\) *)?(#.*)?$/
      if (to ~ / on [^ ]+$|\(v6\)/) everybody = 0
      sub(/ on [^ ]+$/, "", to)
      sub(/ \(.*/, "", to)
      if (to ~ /(^| )[0-9]+([,:][0-9]+)*(\/[a-z]+)?$/) {
        if (sub(/^[^ ]+ /, "", to)) everybody = 0
        if (!has_80(to)) next
      } else if (to != "Anywhere") everybody = 0
      # The first one decides.
      if (everybody && !decided) decided = rule
      if (!everybody && rule == "open") unknown = 1
    }
    function has_80(ports,  count, range, end, ends, i) {
      if (ports ~ /\/udp$/) return 0
      sub(/\/.*/, "", ports)
      count = split(ports, range, ",")
      for (i = 1; i <= count; i++) {
        ends = split(range[i], end, ":")
        if (end[1] + 0 <= 80 && 80 <= end[ends] + 0) return 1
      }
      return 0
    }
    END {
      if (!decided) decided = policy ? policy : "closed"
      print !active ? "open" : decided != "open" && unknown ? "unknown" : decided
    }
  '
}

choice() {
  local list
  printf -v list '%s, ' "${names[@]}"
  cat <<YAML
---
# Written by setup-domain.sh; run it again for another domain.
setup_domains: [${list%, }]
certbot_email: "$email"
${url:+certbot_directory_url: "$url"}
${authority:+certbot_ca_file: $inventory/acme-ca.pem}
$([[ $probe == true ]] || printf '%s\n' "certbot_probe: false" "monitoring_probe_address: 127.0.0.1:443")
YAML
}

# What the choice before this one knows.
restore_authority() {
  [[ -n $authority ]] || return 0
  rm -f "$inventory/acme-ca.pem"
  [[ ! -e $state/acme-ca.before ]] || mv "$state/acme-ca.before" "$inventory/acme-ca.pem"
}

# Through the site as it is: what fails here leaves it alone.
obtain() {
  if [[ -n $authority ]]; then
    [[ ! -e $inventory/acme-ca.pem ]] || cp -p "$inventory/acme-ca.pem" "$state/acme-ca.before"
    write "$inventory/acme-ca.pem" 0600 <"$authority"
  fi
  choice | sed '/^$/d' >"$state/choices.yml"
  if ! run_playbook playbooks/certificate.yml --extra-vars "@$state/choices.yml"; then
    restore_authority
    stop "there is no certificate for ${names[*]}. The site serves as before."
  fi
}

# Takes the choice over; when the site refuses it, everything goes back to the choice before.
change_site() {
  local before
  before=$(<"$choices")
  write "$choices" 0600 <"$state/choices.yml"
  if ! run_playbook site.yml; then
    write "$choices" 0600 <<<"$before"
    restore_authority
    say "" "The site could not be changed; it goes back to what it was."
    step=0 steps=$(steps_of site.yml)
    run_playbook site.yml || stop "the site could not be changed, and not be put back either."
    stop "the site could not be changed. It serves as before."
  fi
}

begin
start=$(now)
ask_for_the_rest
names=("${names[@],,}")
steps=$((1 + $(steps_of certificate.yml) + $(steps_of site.yml)))
run_step "Looking at the domain and this server" check_server
[[ -z $note ]] || say "$note"
obtain
change_site

summary "$start"
say "  the site: https://${names[0]}/" "" "What to do next:" \
  "  verify       curl https://${names[0]}/readyz" \
  "  renewal      by itself: systemctl list-timers certbot.timer" \
  "  more         docs/PRODUCTION_SETUP.md; the log of this run: $log"
