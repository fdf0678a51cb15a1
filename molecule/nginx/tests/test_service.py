"""nginx as a service: what runs, what it may do, what listens, what lies on disk."""

from __future__ import annotations

import ipaddress
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Web
from testinfra.host import Host

SSH = 22
# Exposure that `systemd-analyze security` gives to the distribution's unit: 9.6.
EXPOSURE_LIMIT = 2.6


def master(as_root: Callable[[str], str]) -> int:
    return int(as_root("systemctl show --property MainPID --value nginx.service"))


def status(as_root: Callable[[str], str], pid: int) -> dict[str, str]:
    lines = as_root(f"cat /proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def workers(as_root: Callable[[str], str], title: str = "worker process") -> list[int]:
    """Processes of the master that are called so. Its loader of the cache ends by itself."""
    found = as_root(
        f"for one in $(grep -lsE '^PPid:[[:space:]]+{master(as_root)}$' /proc/[0-9]*/status); do"
        f" grep -qs '^nginx: {title}' ${{one%status}}cmdline && echo $one; done; true"
    )
    return [int(path.split("/")[2]) for path in found.split()]


def listening(as_root: Callable[[str], str]) -> set[tuple[str, int]]:
    """Address and port of everything on TCP that listens beyond the loopback."""
    found = set()
    for line in as_root("cat /proc/net/tcp /proc/net/tcp6").splitlines():
        words = line.split()
        if words[3] != "0A":
            continue
        text, port = words[1].split(":")
        parts = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
        address = ipaddress.ip_address(struct.pack(f"={len(parts)}I", *parts))
        if not address.is_loopback:
            found.add((str(address), int(port, 16)))
    return found


@pytest.mark.parametrize("unit", ["nginx.service", "logrotate.timer"])
def test_unit_runs_now_and_after_a_boot(host: Host, unit: str) -> None:
    """Running now proves nothing about the next boot; logs that are not rotated fill the disk."""
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_nothing_else_listens(variables: dict[str, Any], as_root: Callable[[str], str]) -> None:
    """A port that nobody meant to open is the one that is attacked."""
    ports = [variables["nginx_http_port"], variables["nginx_https_port"]]
    expected = {("0.0.0.0", port) for port in ports}
    if variables["nginx_ipv6"]:
        expected |= {("::", port) for port in ports}
    assert {item for item in listening(as_root) if item[1] != SSH} == expected


def test_workers_are_as_many_as_wanted_and_not_root(
    variables: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    """A worker speaks with the world; a hole in it must not be a hole in the host."""
    wanted = variables["nginx_worker_processes"]
    pids = workers(as_root)
    assert len(pids) == (int(as_root("nproc")) if wanted == "auto" else int(wanted))
    # What looks after the cache is no different.
    for pid in [*pids, *workers(as_root, "cache manager")]:
        found = status(as_root, pid)
        assert "0" not in found["Uid"].split()
        assert int(found["CapEff"], 16) == 0
        limits = as_root(f"cat /proc/{pid}/limits")
        assert re.search(rf"Max open files +{variables['nginx_open_files']} ", limits)


def test_the_sandbox_is_in_force(as_root: Callable[[str], str]) -> None:
    """systemd leaves a directive out that the kernel cannot do, and starts the service."""
    pid = master(as_root)
    found = status(as_root, pid)
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    # CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, NET_BIND_SERVICE and no other.
    assert int(found["CapBnd"], 16) == sum(1 << bit for bit in (0, 1, 5, 6, 7, 10))
    mounts = as_root(f"cat /proc/{pid}/mountinfo").splitlines()
    writable = {line.split()[4] for line in mounts if line.split()[5].split(",")[0] == "rw"}
    assert "/" not in writable
    assert {"/run", "/var/lib/nginx", "/var/log/nginx"} <= writable
    assert as_root(f"ls -A /proc/{pid}/root/tmp /proc/{pid}/root/home").split() == [
        f"/proc/{pid}/root/home:",
        f"/proc/{pid}/root/tmp:",
    ]


def test_the_exposure_is_low(as_root: Callable[[str], str]) -> None:
    said = as_root("systemd-analyze security --no-pager nginx.service")
    found = re.search(r"Overall exposure level for nginx.service: ([\d.]+)", said)
    assert found
    assert float(found[1]) <= EXPOSURE_LIMIT, said


def test_the_welcome_page_is_nowhere(as_root: Callable[[str], str]) -> None:
    """The package's own site must not come back with the next start."""
    assert "/var/www/html" not in as_root("nginx -T 2>/dev/null")


def test_files_belong_to_root_and_are_written_by_nobody_else(as_root: Callable[[str], str]) -> None:
    """Whoever can write nginx's configuration can read every key."""
    programs = " ".join(
        f"/usr/local/libexec/nginx-{verb}"
        for verb in ("start", "reload", "restart", "look", "errors", "handover")
    )
    places = f"/etc/nginx /etc/systemd/system/nginx.service.d {programs}"
    assert as_root(f"find {places} -not -user root") == ""
    # Workers read the users, which are in no other place of these.
    others = as_root(f"find {places} -not -group root").split()
    assert all(path.startswith("/etc/nginx/users/") for path in others)
    assert as_root(f"find {places} -not -type l -perm /022") == ""
    assert set(as_root(f"stat -c %a {programs}").split()) == {"755"}


def test_nothing_is_complained_about(as_root: Callable[[str], str]) -> None:
    """A warning at each start hides the one that matters; so does one in the log."""
    assert "[warn]" not in as_root("nginx -t 2>&1")
    invocation = as_root("systemctl show --property InvocationID --value nginx.service").strip()
    said = as_root(f"journalctl _SYSTEMD_INVOCATION_ID={invocation} --output cat --no-pager")
    said += as_root(f"grep ' {master(as_root)}#' /var/log/nginx/error.log || true")
    assert not re.search(r"\[(warn|emerg|alert|crit)\]|Unknown|Failed", said), said


def test_the_log_of_errors_has_no_query(web: Web, name: str, as_root: Callable[[str], str]) -> None:
    """Workers may send to the program that writes it, and it may write, in their sandboxes."""
    large = {"Content-Length": "999999999"}
    assert web.ask(name, "/large?token=hunter2", method="POST", headers=large).status == 413
    written = "grep -F 'request: \"POST /large? HTTP/1.1\"' /var/log/nginx/error.log || true"
    end = time.monotonic() + 20
    while not as_root(written):
        assert time.monotonic() < end, as_root("journalctl --unit nginx-errors.service")
        time.sleep(0.1)
    assert as_root("grep -c hunter2 /var/log/nginx/error.log || true").strip() == "0"
    assert as_root("stat -c %a:%G /var/log/nginx/error.log").strip() == "640:adm"


def test_the_bare_package_was_never_started(as_root: Callable[[str], str]) -> None:
    """Between its installation and our configuration it would have served its welcome page."""
    journal = as_root("journalctl --unit nginx.service --output cat --no-pager")
    first = next(line for line in journal.splitlines() if "Start" in line)
    assert "Starting" in first
    assert as_root("test ! -e /usr/sbin/policy-rc.d && echo gone").strip() == "gone"
