#!/usr/bin/python
"""Puts a firewall's rules in force for a while, and says whether a new connection got through."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Try a firewall's rules without being locked out
version_added: "0.1.0"
description:
  - Puts rules in force and has the host itself revert them later, by a timer of systemd. Then a new SSH connection is opened. If that
    does not get through, this waits until the host has reverted them, and fails.
  - To revert means to load O(kept), or O(without) if that file does not exist. Whoever writes the tried rules there makes them permanent.
  - The rules of a trial are below C(/run), so a reboot discards them.
  - Over connections other than SSH there is nothing to try; the rules are in force at once. If Ansible runs on the host itself,
    whoever started it over SSH has to be among O(networks).
options:
  rules:
    description: The rules, as C(nft --file) reads them. They replace a table of their own and no other.
    type: str
    required: true
  kept:
    description: The file with the permanent rules.
    type: path
    required: true
  without:
    description: Commands for nft that remove the table.
    type: str
    required: true
  seconds:
    description: Seconds after which the host reverts the rules.
    type: int
    required: true
  ports:
    description: The ports that the rules open for SSH, for the message.
    type: list
    elements: int
    default: []
  sources:
    description: The sources that may use SSH, as a person wrote them, for the message.
    type: list
    elements: str
    default: []
  networks:
    description: The networks that may use SSH. Connections that are not tried are checked against them.
    type: list
    elements: str
    default: []
  local:
    description: Filled in by the action. Says whether Ansible runs on the host itself.
    type: bool
    default: false
  since:
    description: Filled in by the action. Says whether this connection began later than that.
    type: int
    default: 0
attributes:
  check_mode:
    support: none
    description: Nothing is tried.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: try | Put the rules in force for a while, and come in by them
  wsgi.host.firewall:
    rules: "{{ lookup('wsgi.host.rendered', role_path ~ '/templates/rules.nft.j2') }}"
    kept: /etc/host-firewall/rules.nft
    without: table inet host_firewall; delete table inet host_firewall
    seconds: 60
"""

RETURN = r"""
client:
  description: The address that the host sees the connection come from; empty if it is not one of SSH.
  type: str
  returned: success
port:
  description: The port of the host that it came to.
  type: int
  returned: success
new:
  description: Whether the connection began after the rules were in force, and they still are.
  type: bool
  returned: success
"""

import ipaddress
import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment

NFT = "/usr/sbin/nft"
PLACE = "/run/host-firewall"
CANDIDATE = f"{PLACE}/candidate.nft"
REVERT = "host-firewall-revert"
# Newer versions of OpenSSH have a program of its own for each connection.
DAEMONS = frozenset({"sshd", "sshd-session"})


def parent_and_start(pid: int, proc: str = "/proc") -> tuple[int, int]:
    """A process's parent, and when it began, in ticks since the machine did."""
    with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as file:
        # The name before may have anything in it.
        fields = file.read().rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def session(pid: int, proc: str = "/proc") -> dict[str, Any]:
    """The SSH connection that a process belongs to: when it began, from where, and to which port.

    Commands of one connection have one daemon, however many there are. Nothing where it is not SSH.
    """
    told = {"client": "", "port": 0, "began": 0}
    while pid > 1:
        parent, _ = parent_and_start(pid, proc)
        if not told["client"]:
            # sudo keeps it from what it starts, and has it itself.
            with open(f"{proc}/{pid}/environ", "rb") as file:
                said = re.search(rb"(?:^|\0)SSH_CONNECTION=(\S+) \S+ \S+ (\d+)\0", file.read())
            if said:
                told |= {"client": said[1].decode(), "port": int(said[2])}
        try:
            with open(f"{proc}/{parent}/comm", encoding="utf-8") as file:
                name = file.read().strip()
        except OSError:
            break
        if name in DAEMONS:
            return {**told, "began": parent_and_start(parent, proc)[1]}
        pid = parent
    return told


def call(module: AnsibleModule, what: str, *argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        module.fail_json(msg=f"{what}: {(done.stderr or done.stdout).strip()}")


def forget_timer() -> None:
    """What an earlier trial has left: it would end this one."""
    units = [f"{REVERT}.timer", f"{REVERT}.service"]
    for verb in ("stop", "reset-failed"):
        subprocess.run(["systemctl", verb, *units], capture_output=True, check=False)


def is_trial() -> bool:
    """Whether the host has still to go back."""
    shown = ["systemctl", "is-active", "--quiet", f"{REVERT}.timer"]
    return subprocess.run(shown, capture_output=True, check=False).returncode == 0


def begin(module: AnsibleModule) -> None:
    """Put the rules in force, and have the host go back."""
    wanted = module.params
    os.makedirs(PLACE, mode=0o700, exist_ok=True)
    descriptor = os.open(CANDIDATE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(wanted["rules"])
    call(module, "nft does not take the rules", NFT, "--check", "--file", CANDIDATE)
    forget_timer()
    back = 'if [ -e "$1" ]; then exec "$0" --file "$1"; else exec "$0" "$2"; fi'
    call(
        module,
        "The host could not be told to go back, so nothing was changed",
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={REVERT}",
        "--description=Take the rules of the firewall back that nobody came in by",
        f"--on-active={wanted['seconds']}",
        "--timer-property=AccuracySec=1s",
        *("/bin/sh", "-c", back, NFT, wanted["kept"], wanted["without"]),
    )
    call(module, "nft did not load the rules", NFT, "--file", CANDIDATE)


def shut_out(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Why whoever runs Ansible on the host itself could not log in again, empty if they could."""
    if not found["client"]:
        return ""
    address = ipaddress.ip_address(found["client"])
    networks = map(ipaddress.ip_network, wanted["networks"])
    if found["port"] in wanted["ports"] and any(address in network for network in networks):
        return ""
    return (
        f"firewall_ssh_sources or firewall_ssh_ports would lock you out: you are logged in from "
        f"{found['client']} at port {found['port']}, and SSH is open to "
        f"{', '.join(wanted['sources'])} on {', '.join(map(str, wanted['ports']))}. Add what is "
        "missing. Nothing was changed."
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "rules": {"type": "str", "required": True},
            "kept": {"type": "path", "required": True},
            "without": {"type": "str", "required": True},
            "seconds": {"type": "int", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
            "networks": {"type": "list", "elements": "str", "default": []},
            "local": {"type": "bool", "default": False},
            "since": {"type": "int", "default": 0},
        }
    )
    since = module.params["since"]
    found = session(os.getpid())
    told = {"client": found["client"], "port": found["port"]}
    if since:
        # One that was under way while the host went back proves nothing.
        new = found["began"] > since and is_trial()
        module.exit_json(changed=False, new=new, **told)
    if module.params["local"]:
        if why := shut_out(found, module.params):
            module.fail_json(msg=why)
        told = {"client": "", "port": 0}
    begin(module)
    _, now = parent_and_start(os.getpid())
    module.exit_json(changed=True, new=False, since=now, **told)


if __name__ == "__main__":
    environment.apply()
    main()
