#!/bin/bash
# Sets this server up for toll-app in production, from a bare Debian 12 or 13, or brings it up to date:
#   sudo ./setup-production.sh [--yes]
# Run it as often as you like; a second run changes nothing. docs/PRODUCTION_SETUP.md tells the whole way.
set -euo pipefail
# shellcheck source=setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup/lib.sh"

usage() {
  cat <<TEXT
usage: sudo ./setup-production.sh [--yes]
Takes this server to toll-app in production: nginx with TLS, gunicorn under systemd, releases.
  --yes    replace what was set up by hand without asking; a copy is kept in $backups
TEXT
}

yes=""
for argument in "$@"; do
  case $argument in
    --yes | -y) yes=--yes ;;
    --help | -h) usage && exit 0 ;;
    *)
      printf 'setup-production: there is no option %s.\n' "$argument" >&2
      usage >&2
      exit 2
      ;;
  esac
done

check_server() {
  check_system
  check_disk
  look_around
  refuse_problems
}

begin
start=$(now)
steps=$((3 + $(steps_of site.yml)))
run_step "Looking at this server" check_server
agree_to_replace "$yes"
run_step "Installing Ansible for this server alone" prepare_control
write_inventory
# A person has just agreed to it, or did before a run that was cut off.
agreed=()
if [[ -e $taken || $old_nginx == true || -n ${old_units[*]} ]]; then
  agreed=(--extra-vars '{"nginx_take_over": true, "gunicorn_systemd_take_over": true}')
fi
keep_copy
run_step "Making room" stop_old
run_playbook site.yml "${agreed[@]}" || {
  bring_back
  stop "the set-up failed in the step above."
}
: >"$taken"

summary "$start"
name=$(sed -n 's/^setup_domains: \[\([^],]*\).*/\1/p' "$choices")
if grep -q '^setup_default_site: true' "$choices"; then
  site="https://$(address)/ or https://$name/ (self-signed: browsers warn, curl needs --insecure)"
  domain="  your domain  sudo ./setup-domain.sh app.example.com ops@example.com"
else
  site="https://$name/"
  domain="  the domain   sudo ./setup-domain.sh, for another one"
fi
say "  the site: $site" "" "What to do next:" \
  "  verify       sudo systemctl status toll-app; curl http://localhost:5000" \
  "  follow it    sudo journalctl -u toll-app -f" \
  "  first user   sudo toll-app flask toll user create NAME --role admin" \
  "$domain" \
  "  settings     edit $settings, then run this again" \
  "  more         docs/PRODUCTION_SETUP.md; the log of this run: $log"
[[ -z $copy ]] || say "  what was     $copy, and $copy/restore.sh brings it back"
