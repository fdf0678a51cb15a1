# Waits for whoever else installs packages. Sourced; whoever sources it has `say`.
# shellcheck shell=bash

# apt-get's DPkg::Lock::Timeout covers dpkg's two; for the lists' and the archives' it fails at once.
apt_locks=(/var/lib/apt/lists/lock /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/cache/apt/archives/lock)

# The first of apt's locks that is held, and the process that holds it.
apt_lock() {
  local path inode pid
  for path in "${apt_locks[@]}"; do
    inode=$(stat -c %i "$path" 2>/dev/null) || continue
    pid=$(awk -v end=":$inode" '
      $2 == "POSIX" && substr($6, length($6) - length(end) + 1) == end {print $5; exit}
    ' "${proc:-/proc}/locks" 2>/dev/null)
    if [[ -n $pid ]]; then
      echo "$path $pid"
      return
    fi
  done
}

# Waits until none is held; fails after so many seconds.
wait_for_apt() { # seconds (default: 300)
  local end=$((SECONDS + ${1:-300})) path pid who told=""
  while read -r path pid < <(apt_lock); do
    who="$(cat "${proc:-/proc}/$pid/comm" 2>/dev/null || echo "a process") (pid $pid), which holds $path"
    if ((SECONDS >= end)); then
      say "packages cannot be installed: after ${1:-300} s still waiting for $who. Let it end, and run again."
      return 1
    fi
    [[ $told == "$who" ]] || say "waiting for $who"
    told=$who
    sleep 1
  done
}
