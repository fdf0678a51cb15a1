#!/usr/bin/python
"""Reads what the roles need to know about a host, in one process."""

from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Read what the roles need to know about a host
version_added: "0.1.0"
description:
  - Returns the fact C(wsgi_host), in one trip. It reads files and starts no program but C(systemctl) and,
    where packages are in an RPM database, C(rpm), and C(nft) where the role C(firewall) has been.
  - Roles do not call this. M(wsgi.host.preflight) does, once in a play.
  - Run it as root. Another user does not see which program holds a port.
  - Never changes anything, in check mode or out of it.
options:
  seal:
    description:
      - What to do about the seal, the record of how the last complete run left the host, which
        M(wsgi.host.seal) looks at and writes. Empty for nothing.
    type: dict
    default: {}
    suboptions:
      hours:
        description: Compare the host with the record, unless that is older. A record of something else is removed.
        type: float
      inputs:
        description: The hash of the run's input.
        type: str
        default: ""
      record:
        description: Record the state of the host, with this.
        type: dict
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Shows no differences.
  facts:
    support: full
    description: Returns facts of the host.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read what the host is
  wsgi.host.probe:

- name: Say how many processors it has
  ansible.builtin.debug:
    msg: "{{ ansible_facts['wsgi_host'].cpus }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: always
  type: dict
  contains:
    wsgi_host:
      description: What the host is, and what it has.
      type: dict
      returned: always
      contains:
        family:
          description: >-
            The family of systems that the host belongs to, as its file in C(families/) of this collection is
            called; C(ID) of C(/etc/os-release) if it belongs to none. Said by the control node.
          type: str
          sample: Debian
        family_file: {description: "That file, on the control node; empty if there is none.", type: str}
        distribution: {description: C(ID) of C(/etc/os-release)., type: str, sample: debian}
        distribution_like:
          description: Names in C(ID_LIKE) of C(/etc/os-release), the closest first.
          type: list
        distribution_version: {description: C(VERSION_ID) of C(/etc/os-release)., type: str, sample: "13"}
        pretty_name: {description: The distribution's name for people., type: str}
        architecture: {description: Machine as C(uname -m) says it., type: str, sample: x86_64}
        python:
          description: C(version), such as 3.13, and C(executable) of the interpreter that ran this.
          type: dict
        systemd:
          description: >-
            C(running), whether systemd is the system manager, and C(version), its major number, or 0 if it
            is not running.
          type: dict
        root: {description: Whether this ran as root., type: bool}
        cpus: {description: Processors that a process may be scheduled on., type: int}
        memory_mib: {description: Memory in MiB., type: int}
        selinux: {description: Whether SELinux is enabled., type: bool}
        ipv6: {description: Whether a socket can listen on an IPv6 address., type: bool}
        networks:
          description: >-
            The networks that the host is in itself, each with C(network), such as 192.0.2.0/24, and C(interface). Those of a link alone
            (fe80::/10) are left out.
          type: list
        packages: {description: Version of each installed package by name., type: dict}
        units:
          description: >-
            C(active), C(enabled) and C(state), systemd's word for it, of each service, socket and timer that
            systemd has loaded or that is enabled.
          type: dict
        apphost:
          description: Version of the package that M(wsgi.host.apphost) installs; empty if none is there.
          type: str
        trees:
          description: Names of the trees that M(wsgi.host.config_tree) has put in place.
          type: list
        foreign_files:
          description: Units and programs of the administrator's places that no such tree holds.
          type: list
        edited_files:
          description: >-
            Of the configuration that packages of nginx, HAProxy and Prometheus brought, the files that somebody
            edited or added, as long as no tree holds any of it. On Debian only.
          type: list
        renewals:
          description: >-
            Certificates that certbot renews there, by name, each with the C(plugins) that it needs and the
            C(webroots) that its challenges go to, as long as no tree is called C(certbot).
          type: dict
        journal_limits:
          description: Files outside of trees that say how much the journal may keep.
          type: list
        firewall:
          description: >-
            Of the role C(firewall), the SHA-256 of its C(rules) and of its C(units), empty where there is none, and whether its
            table is C(loaded); and whether C(ufw) is switched on.
          type: dict
        logins: {description: Names in C(/etc/passwd) whose shell is one., type: list}
        users: {description: Names in C(/etc/passwd)., type: list}
        groups: {description: Names in C(/etc/group)., type: list}
        listeners:
          description: >-
            TCP sockets that listen, each with C(protocol), C(address), C(port), C(program) and C(pid) of
            the first process that holds it, and the C(unit) that it belongs to. Program and unit are empty
            and the pid is 0 where they cannot be seen.
          type: list
        mounts:
          description: >-
            MiB that an unprivileged process may still write, by mount point. Network file systems are left
            out, since asking one whose server is gone blocks.
          type: dict
        noexec:
          description: Mount points of C(mounts) from which no program can be run.
          type: list
"""

import glob
import hashlib
import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import (
    environment,
    installation,
    seal,
)
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import renewals

# Of config_tree, about what it has put in place.
RECORDS = "/var/lib/config-tree"
# Where roles put what distributions leave to the administrator.
PLACES = (
    "/etc/systemd/system/*.service",
    "/etc/systemd/system/*.socket",
    "/etc/systemd/system/*.timer",
    "/usr/local/bin/*",
    "/usr/local/sbin/*",
    "/usr/local/libexec/*",
)
RENEWALS = "/etc/letsencrypt/renewal/*.conf"
# Shells that end at once: shells(5) does not name them.
NO_SHELL = frozenset({"nologin", "false", "true", "sync", "shutdown", "halt"})
DPKG_STATUS = "/var/lib/dpkg/status"
FIREWALL_RULES = "/etc/host-firewall/rules.nft"
FIREWALL_UNITS = (
    "/etc/systemd/system/host-firewall.service",
    "/etc/systemd/system/nftables.service.d/10-host-firewall.conf",
)
FIREWALL_TABLE = "table inet host_firewall"
UFW = "/etc/ufw/ufw.conf"
LISTENING = "0A"  # TCP_LISTEN in the kernel's include/net/tcp_states.h
UNIT_TYPES = "service,socket,timer"
UNIT_SUFFIXES = (".service", ".socket", ".timer")
UNIT_LINKS = ("/etc/systemd/system", "/run/systemd/system")
ACTIVE_STATES = frozenset({"active", "reloading"})
# File systems that hold nothing of a role's, or that block when their server is gone.
PASSED_OVER = re.compile(
    r"9p|autofs|binfmt_misc|bpf|ceph|cgroup2?|cifs|configfs|debugfs|devpts|efivarfs|fuse\..*|fusectl"
    r"|hugetlbfs|mqueue|nfs4?|nfsd|nsfs|proc|pstore|ramfs|rpc_pipefs|securityfs|selinuxfs|smb3"
    r"|squashfs|sysfs|tracefs"
)


def read(path: str) -> str:
    """A file's text, empty if there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def os_release(text: str) -> dict[str, str]:
    """The values of os-release(5), without their quotation marks."""
    pairs = (line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z_0-9]+=", line))
    return {key: value.strip().strip("\"'") for key, value in pairs}


def dpkg_packages(status: str) -> dict[str, str]:
    """Version by name of what the text of dpkg's status file calls installed."""
    packages = {}
    name = ""
    installed = False
    for line in status.splitlines():
        if line.startswith("Package: "):
            name, installed = line[9:], False
        elif line.startswith("Status: "):
            installed = line.endswith(" installed")
        elif installed and line.startswith("Version: "):
            packages[name] = line[9:]
    return packages


def shipped_files(status: str) -> dict[str, str]:
    """MD5 by path of the configuration files that packages brought, from dpkg's status file."""
    return dict(re.findall(r"^ (/\S+) ([0-9a-f]{32})(?: obsolete)?$", status, re.MULTILINE))


def recorded(records: str = RECORDS) -> tuple[list[str], set[str]]:
    """Names of config_tree's trees, and the files that they hold."""
    trees: list[str] = []
    files: set[str] = set()
    for path in sorted(glob.glob(f"{records}/*.json")):
        try:
            record = json.loads(read(path))
            files.update(*(record.get(part, {}) for part in ("files", "written", "applied")))
        except (ValueError, AttributeError, TypeError):
            # config_tree says so itself, with what to do.
            pass
        trees.append(os.path.basename(path).removesuffix(".json"))
    return trees, files


def foreign_files(ours: set[str], root: str = "") -> list[str]:
    """Units and programs that somebody else put where the roles put theirs."""
    found = []
    for pattern in PLACES:
        for path in glob.glob(root + pattern):
            # Links are how units are enabled.
            if os.path.isfile(path) and not os.path.islink(path) and path not in ours:
                found.append(path)
    return sorted(found)


def edited_files(
    shipped: dict[str, str], trees: Iterable[str], ours: set[str], root: str = ""
) -> list[str]:
    """What somebody wrote of a configuration before a role put its own in place.

    What else lies there afterwards was agreed to then, or is told by config_tree.
    """
    paths = []
    if "nginx" not in trees:
        main = f"{root}/etc/nginx/nginx.conf"
        # What lies in conf.d stays in use. No site of a host without nginx is served.
        if os.path.exists(main):
            paths += [main, *glob.glob(f"{root}/etc/nginx/sites-enabled/*")]
    if "monitoring" not in trees:
        paths += glob.glob(f"{root}/etc/prometheus/*.yml")
        paths += glob.glob(f"{root}/etc/default/prometheus*")
    if "haproxy" not in trees:
        paths.append(f"{root}/etc/haproxy/haproxy.cfg")
    found = []
    for path in paths:
        text = read(path)
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        # The package's site is a link to a file of the package.
        known = shipped.get(os.path.realpath(path)) or shipped.get(path)
        if text and path not in ours and digest != known:
            found.append(path)
    return sorted(found)


def journal_limits(ours: set[str], root: str = "") -> list[str]:
    """Where somebody has said how much the journal may keep."""
    paths = [f"{root}/etc/systemd/journald.conf"]
    paths += sorted(glob.glob(f"{root}/etc/systemd/journald.conf.d/*.conf"))
    said = re.compile(r"^\s*(SystemMaxUse|MaxRetentionSec)\s*=\s*\S", re.MULTILINE)
    return [path for path in paths if path not in ours and said.search(read(path))]


def firewall(root: str = "") -> dict[str, Any]:
    """What of the role firewall is there, and whether ufw decides what comes in."""
    rules = read(f"{root}{FIREWALL_RULES}")
    units = "".join(read(f"{root}{path}") for path in FIREWALL_UNITS)
    tables = Command("/usr/sbin/nft", "list", "tables").output() if rules else ""
    return {
        "rules": hashlib.sha256(rules.encode()).hexdigest() if rules else "",
        "units": hashlib.sha256(units.encode()).hexdigest() if units else "",
        "loaded": FIREWALL_TABLE in tables.splitlines(),
        "ufw": re.search(
            r"^ENABLED=[\"']?yes\b", read(f"{root}{UFW}"), re.MULTILINE | re.IGNORECASE
        )
        is not None,
    }


def rpm_packages(listed: str) -> dict[str, str]:
    """Version by name, from lines of `name version`."""
    return dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)


def enabled_units(roots: Iterable[str]) -> set[str]:
    """Units that start with another: the links below `<target>.wants` and its like in these places.

    `systemctl list-unit-files` goes by the same links and took 0.2 to 0.35 s where this took 1 ms.
    """
    return {
        os.path.basename(link)
        for root in roots
        for kind in ("wants", "requires", "upholds")
        for link in glob.glob(f"{root}/*.{kind}/*")
        if link.endswith(UNIT_SUFFIXES)
    }


def unit_states(listed: str, enabled: set[str]) -> dict[str, dict[str, Any]]:
    """Units by name, from `systemctl list-units` and the names of those that are enabled."""
    units = {}
    for line in listed.splitlines():
        columns = line.split(None, 4)
        if len(columns) >= 4 and columns[1] != "not-found":
            name = columns[0]
            units[name] = {
                "active": columns[2] in ACTIVE_STATES,
                "enabled": name in enabled,
                "state": columns[2],
            }
    for name in enabled - set(units):
        units[name] = {"active": False, "enabled": True, "state": "inactive"}
    return units


def socket_units(listed: str) -> dict[int, str]:
    """Socket unit by TCP port, from `systemctl list-sockets`: `[::]:5000 a.socket a.service`."""
    units = {}
    for line in listed.splitlines():
        columns = line.split()
        port = columns[0].rpartition(":")[2] if len(columns) >= 2 else ""
        if port.isdigit():
            units[int(port)] = columns[1]
    return units


def address(text: str) -> str:
    """An address of /proc/net/tcp, hexadecimal in the machine's order per 32 bits."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return str(ipaddress.ip_address(b"".join(words)))


def listening(table: str) -> list[tuple[str, int, str]]:
    """Address, port and inode of each socket that listens, from the text of /proc/net/tcp."""
    found = []
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 9 and columns[3] == LISTENING:
            host, port = columns[1].split(":")
            found.append((address(host), int(port, 16), columns[9]))
    return found


def holders(inodes: set[str], proc: str = "/proc") -> dict[str, int]:
    """First process, by its id, that holds each of these sockets: a master before its workers."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        if len(found) == len(inodes):
            break
        try:
            descriptors = os.listdir(f"{proc}/{pid}/fd")
        except OSError:  # the process has ended, or is not ours to look into
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{proc}/{pid}/fd/{descriptor}")
            except OSError:  # closed since it was listed; the others still count
                continue
            if (inode := wanted.get(target)) is not None:
                found.setdefault(inode, pid)
    return found


def unit_of(cgroup: str) -> str:
    """The unit of a process, from the text of its /proc/<pid>/cgroup."""
    names = re.findall(r"/([^/\n]+\.(?:service|scope))(?=/|$)", cgroup, re.MULTILINE)
    return names[-1] if names else ""


def free_mib(mounts: str) -> dict[str, int]:
    """MiB left for an unprivileged process by mount point, from the text of /proc/self/mounts."""
    free = {}
    for line in mounts.splitlines():
        columns = line.split()
        if len(columns) < 3 or PASSED_OVER.fullmatch(columns[2]):
            continue
        # The kernel writes a blank in a path as \040.
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), columns[1])
        try:
            state = os.statvfs(path)
        except OSError:
            continue
        if state.f_blocks and os.path.isdir(path):
            free[path] = state.f_bavail * state.f_frsize // 2**20
    return free


def noexec(mounts: str, points: Iterable[str]) -> list[str]:
    """Those of these mount points that are mounted with noexec, from /proc/self/mounts."""
    found: dict[str, bool] = {}
    for line in mounts.splitlines():
        columns = line.split()
        if len(columns) > 3:
            path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), columns[1])
            found[path] = "noexec" in columns[3].split(",")  # the last mount on a point counts
    return [path for path in points if found.get(path)]


def names(database: str) -> list[str]:
    """First column of a text such as /etc/passwd's."""
    return [line.split(":", 1)[0] for line in database.splitlines() if ":" in line]


def logins(passwd: str) -> list[str]:
    """Users of passwd(5) that have a shell. An empty one is /bin/sh."""
    rows = (line.split(":") for line in passwd.splitlines() if line.count(":") == 6)
    return [row[0] for row in rows if os.path.basename(row[6] or "/bin/sh") not in NO_SHELL]


def networks(routes: str, addresses: str) -> list[dict[str, str]]:
    """Networks by interface, from the texts of /proc/net/route and /proc/net/if_inet6."""
    found = []
    for line in routes.splitlines()[1:]:
        columns = line.split()
        # What a gateway leads to is somewhere else.
        if len(columns) > 7 and columns[2] == "00000000" and columns[7] != "00000000":
            network = f"{address(columns[1])}/{address(columns[7])}"
            found.append((columns[0], ipaddress.ip_network(network, strict=False)))
    for line in addresses.splitlines():
        columns = line.split()
        # The third is the length of the prefix, the fourth the scope: 00 is global.
        if len(columns) > 5 and columns[3] == "00":
            host = ipaddress.IPv6Address(bytes.fromhex(columns[0]))
            network = f"{host}/{int(columns[2], 16)}"
            found.append((columns[5], ipaddress.ip_network(network, strict=False)))
    return [{"interface": name, "network": str(each)} for name, each in dict.fromkeys(found)]


def has_ipv6() -> bool:
    """Whether a socket can listen on the loopback's IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as attempt:
            attempt.bind(("::1", 0))
    except OSError:
        return False
    return True


class Command:
    """A program that runs while the rest is read."""

    def __init__(self, *argv: str) -> None:
        self._process: subprocess.Popen[str] | None
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
            )
        except OSError:
            self._process = None

    def output(self) -> str:
        """What it wrote, once it has ended; empty if it is not installed."""
        return self._process.communicate()[0] if self._process else ""


def systemctl(verb: str, *arguments: str) -> Command:
    """`systemctl`, in the form that is made for programs."""
    return Command("systemctl", verb, "--no-legend", "--no-pager", "--plain", *arguments)


def systemd_version(packages: dict[str, str]) -> int:
    """Major version of systemd: of its package, or else as it says itself."""
    text = packages.get("systemd") or Command("systemctl", "--version").output()
    match = re.match(r"(?:\d+:|systemd )?(\d+)", text)
    return int(match.group(1)) if match else 0


def listeners() -> list[dict[str, Any]]:
    """Every TCP socket that listens, with the program and the unit behind it."""
    found = listening(read("/proc/net/tcp")) + listening(read("/proc/net/tcp6"))
    pids = holders({inode for _, _, inode in found})
    # systemd itself holds the sockets of socket units, and only it knows which unit one belongs to.
    sockets = socket_units(systemctl("list-sockets").output()) if 1 in pids.values() else {}
    described = []
    for host, port, inode in found:
        pid = pids.get(inode, 0)
        unit = sockets.get(port, "") if pid == 1 else unit_of(read(f"/proc/{pid}/cgroup"))
        described.append(
            {
                "protocol": "tcp",
                "address": host,
                "port": port,
                "program": read(f"/proc/{pid}/comm").strip(),
                "pid": pid,
                "unit": unit,
            }
        )
    return sorted(described, key=lambda one: (one["port"], one["address"]))


def renewals_of_others() -> dict[str, Any]:
    """How certbot renews what somebody obtained."""
    found = {}
    for path in sorted(glob.glob(RENEWALS)):
        name = os.path.basename(path).removesuffix(".conf")
        try:
            renewal = renewals.read(Path(path))
        except OSError:
            renewal = renewals.Renewal()
        webroots = sorted(set(renewal.webroots.values()))
        found[name] = {"plugins": renewal.plugins, "webroots": webroots}
    return found


def probe() -> dict[str, Any]:
    """The whole fact."""
    running = os.path.isdir("/run/systemd/system")
    if running:
        unit_list = systemctl("list-units", "--all", f"--type={UNIT_TYPES}")
    shipped = {}
    if os.path.exists(DPKG_STATUS):
        status = read(DPKG_STATUS)
        packages = dpkg_packages(status)
        if any(os.path.exists(path) for path in ("/etc/nginx", "/etc/haproxy", "/etc/prometheus")):
            shipped = shipped_files(status)
    else:
        packages = rpm_packages(
            Command("rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n").output()
        )
    release = os_release(read("/etc/os-release") or read("/usr/lib/os-release"))
    trees, ours = recorded()
    passwd = read("/etc/passwd")
    mounts = read("/proc/self/mounts")
    free = free_mib(mounts)
    memory = re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))
    return {
        "distribution": release.get("ID", "unknown"),
        "distribution_like": release.get("ID_LIKE", "").split(),
        "distribution_version": release.get("VERSION_ID", ""),
        "pretty_name": release.get("PRETTY_NAME", release.get("ID", "an unknown system")),
        "architecture": os.uname().machine,
        "python": {
            "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "executable": sys.executable,
        },
        "root": os.geteuid() == 0,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory.group(1)) // 1024 if memory else 0,
        "selinux": os.path.exists("/sys/fs/selinux/enforce"),
        "ipv6": has_ipv6(),
        "networks": networks(read("/proc/net/route"), read("/proc/net/if_inet6")),
        "packages": packages,
        "apphost": installation.installed(),
        "trees": trees,
        "foreign_files": foreign_files(ours),
        "edited_files": edited_files(shipped, trees, ours) if shipped else [],
        "renewals": {} if "certbot" in trees else renewals_of_others(),
        "journal_limits": journal_limits(ours),
        "firewall": firewall(),
        "users": names(passwd),
        "logins": logins(passwd),
        "groups": names(read("/etc/group")),
        "mounts": free,
        "noexec": noexec(mounts, free),
        "listeners": listeners(),
        "units": unit_states(unit_list.output(), enabled_units(UNIT_LINKS)) if running else {},
        "systemd": {
            "running": running,
            "version": systemd_version(packages) if running else 0,
        },
    }


def main() -> None:
    options = {
        "hours": {"type": "float"},
        "inputs": {"type": "str", "default": ""},
        "record": {"type": "dict"},
    }
    module = AnsibleModule(
        argument_spec={"seal": {"type": "dict", "default": {}, "options": options}},
        supports_check_mode=True,
    )
    wanted = module.params["seal"]
    seen = probe()
    result: dict[str, Any] = {}
    if wanted.get("record") is not None:
        if not module.check_mode:
            result["seal"] = {"broken": seal.write(Path("/"), seen, wanted["record"], time.time())}
    elif wanted.get("hours") is not None:
        found = seal.read(Path("/"))
        why = seal.broken(Path("/"), found, seen, wanted, time.time())
        kept = {name: found[name] for name in ("at", "sources", "notices") if found}
        result["seal"] = {**kept, "broken": why}
        if why and not module.check_mode:
            # The run that begins may fail half way.
            seal.remove(Path("/"))
    module.exit_json(changed=False, ansible_facts={"wsgi_host": seen}, **result)


if __name__ == "__main__":
    environment.apply()
    main()
