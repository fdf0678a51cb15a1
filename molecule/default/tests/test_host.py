"""From the host's side: units, ports, processes, permissions, sandbox, journal, renewal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Site

UNITS = ["nginx.service", "toll-app.service", "toll-app.socket", "certbot.timer"]


@pytest.mark.parametrize("unit", UNITS)
def test_unit_runs_and_comes_back_after_a_reboot(host: Host, unit: str) -> None:
    """Running now proves nothing about the next boot."""
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_no_unit_has_failed(as_root: Callable[[str], str]) -> None:
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""


def listeners(output: str) -> set[tuple[str, int]]:
    """(address, port) of each listening TCP socket that `ss -H -tln` prints."""
    found = set()
    for line in output.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.add((address.strip("[]"), int(port)))
    return found


def test_open_ports_are_these_and_no_others(
    database_url: str, as_root: Callable[[str], str]
) -> None:
    """gunicorn is reached on the loopback only; everything else is nginx or SSH."""
    found = listeners(as_root("ss -H -tln"))
    public = {port for address, port in found if address in ("0.0.0.0", "::", "*")}
    assert public == {22, 80, 443}
    # Which was there before: see prepare.yml.
    postgresql = {5432} if database_url else set()
    local = {entry for entry in found if entry[1] not in public | postgresql}
    assert local == {("127.0.0.1", 5000)}


def processes(as_root: Callable[[str], str], unit: str) -> list[tuple[int, int, str]]:
    """(pid, parent, user) of each process in the unit's control group."""
    group = as_root(f"systemctl show --property ControlGroup --value {unit}").strip()
    found = []
    for line in as_root("ps -eo pid=,ppid=,user:32=,cgroup=").splitlines():
        pid, parent, user, control_group = line.split(maxsplit=3)
        if any(entry.endswith(group) for entry in control_group.split(",")):
            found.append((int(pid), int(parent), user))
    return found


# Twice the processors and one, written out for the machines that this runs on.
DEFAULT_WORKERS = {1: 3, 2: 5, 3: 7, 4: 9, 6: 13, 8: 17, 12: 25, 16: 33, 32: 65}


def test_process_tree(host: Host, as_root: Callable[[str], str]) -> None:
    """One master and the workers that were promised, none of them root, in place of one process."""
    master = int(as_root("systemctl show --property MainPID --value toll-app.service"))
    tree = processes(as_root, "toll-app.service")
    workers = [pid for pid, parent, _ in tree if parent == master]
    assert len(workers) == DEFAULT_WORKERS[int(as_root("nproc"))]
    assert {user for _, _, user in tree} == {"toll-app"}


def test_nginx_workers_are_not_root(as_root: Callable[[str], str]) -> None:
    users = sorted(user for _, _, user in processes(as_root, "nginx.service"))
    assert users.count("root") == 1
    assert len(users) > 1


def test_sandbox_is_in_force(as_root: Callable[[str], str]) -> None:
    """What the kernel says of the process, not what the unit file wishes."""
    master = as_root("systemctl show --property MainPID --value toll-app.service").strip()
    lines = as_root(f"cat /proc/{master}/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0


def test_exposure(host: Host, as_root: Callable[[str], str]) -> None:
    """systemd's own figure, 0 to 10, lower is better."""

    def exposure(unit: str) -> float:
        report = as_root(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        return float(report.split(":")[-1].split()[0])

    assert exposure("toll-app.service") <= 1.5
    assert exposure("nginx.service") < 4


def test_credentials_are_seen_by_nobody_else(
    host: Host, database_url: str, as_root: Callable[[str], str]
) -> None:
    """Not in a process list, an environment, a unit, the journal or a file that others read."""
    names = as_root("ls /etc/toll-app/credentials").split()
    database = ["database_url"] if database_url else []
    assert names == [*database, "secret_key"]
    for name in names:
        path = f"/etc/toll-app/credentials/{name}"
        assert len(as_root(f"cat {path}").strip()) >= 32
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
        # The pattern reaches grep through a file, so that the search does not find itself.
        found = as_root(
            f"grep -lsaF -f {path} "
            "/proc/[0-9]*/cmdline /proc/[0-9]*/environ /etc/systemd/system/* || true"
        )
        assert found.strip() == ""
        assert as_root(f"journalctl --no-pager | grep -cF -f {path} || true").strip() == "0"


def test_application_cannot_change_itself(as_root: Callable[[str], str]) -> None:
    """A release is immutable for the user that runs it, and its settings too."""
    found = as_root(
        "runuser -u toll-app -- find /opt/toll-app /etc/toll-app /etc/nginx -writable -not -type l "
        "2>/dev/null || true"
    )
    assert found.strip() == ""


def test_unix_socket_is_for_nginx_only(host: Host) -> None:
    socket = host.file("/run/gunicorn/toll-app.sock")
    assert socket.is_socket
    assert (socket.user, socket.mode) == ("root", 0o660)
    assert socket.group in host.user("www-data").groups


def test_journal_is_found_by_the_units_name(as_root: Callable[[str], str]) -> None:
    """What gunicorn itself says, not what systemd says of a unit whose description names it."""
    master = as_root("systemctl show --property MainPID --value toll-app.service").strip()
    lines = as_root("journalctl --no-pager -u toll-app --output=json").splitlines()
    said = [str(x["MESSAGE"]) for x in map(json.loads, lines) if x.get("_PID") == master]
    assert any(message.startswith("Listening at") for message in said), said[-5:]


def test_journal_is_kept_and_limited(host: Host, as_root: Callable[[str], str]) -> None:
    """On disk, or what was said before a crash is gone; with a limit, or it fills the disk."""
    assert host.file("/var/log/journal").is_directory
    said = as_root("journalctl --no-pager -b -u systemd-journald | grep -i 'max ' | tail -n 1")
    assert "/var/log/journal" in said
    assert "max 1.0G" in said or "max 1G" in said


def test_logs_of_nginx_are_rotated(site: Site, as_root: Callable[[str], str]) -> None:
    """By the distribution's rule, which a timer runs; and nginx goes on in the new file."""
    assert as_root("systemctl is-active logrotate.timer").strip() == "active"
    as_root("logrotate --force /etc/logrotate.d/nginx")
    identifier = site.get("/healthz").headers["x-request-id"]
    as_root(f"grep -q {identifier} /var/log/nginx/access.log")
    assert as_root("stat --format=%s /var/log/nginx/access.log.1").strip() != "0"


def test_exactly_one_renewal(as_root: Callable[[str], str]) -> None:
    """Two renewers run into each other's lock and ask the authority twice."""
    timers = as_root("systemctl list-timers --all --no-legend --plain --no-pager")
    assert len([line for line in timers.splitlines() if "certbot" in line]) == 1
    assert as_root("grep -rls certbot /etc/cron* /var/spool/cron || true").strip() == ""


def test_release_is_told_apart_by_its_manifest(as_root: Callable[[str], str]) -> None:
    manifest = json.loads(as_root("cat /opt/toll-app/current/manifest.json"))
    assert as_root("readlink /opt/toll-app/current").strip().endswith(manifest["id"])
    assert manifest["lock_sha256"]
