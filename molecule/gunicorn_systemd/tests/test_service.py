"""What runs after a converge, asked from outside and from inside the application."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Service


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_units_run_and_start_at_boot(host: Host, service: Service, kind: str) -> None:
    unit = host.service(f"{service.name}.{kind}")
    assert unit.is_running
    assert unit.is_enabled


def test_nothing_else_listens(plain: Service, tuned: Service) -> None:
    """A port that nobody asked for is a way in."""
    found = {where for where in plain.client("ports") if not where.endswith(":22")}
    assert found == {*plain.told("bind"), *tuned.told("bind")}


def test_every_socket_answers(service: Service) -> None:
    for where in service.everywhere:
        assert service.ask(via=where).status == 200


def test_the_unix_socket_opens_for_one_group_only(host: Host, service: Service) -> None:
    """Who can open it speaks for every client."""
    socket = host.file(service.unix.removeprefix("unix:"))
    group = service.told("socket_group") or "www-data"
    assert (socket.mode, socket.user, socket.group) == (0o660, "root", group)
    assert service.ask(user=f"nobody:{group}").status == 200
    with pytest.raises(AssertionError, match="PermissionError"):
        service.ask(user="nobody")


def test_loopback_ports_are_not_reached_from_outside(
    host: Host, plain: Service, tuned: Service, address: str
) -> None:
    """And the public one is, although its service may connect to the host itself only."""
    port = tuned.told("bind")[0].rpartition(":")[2]
    assert tuned.ask(via=f"{address}:{port}").status == 200
    for where in (*plain.told("bind"), *tuned.told("bind")[1:]):
        with pytest.raises(AssertionError, match="ConnectionRefusedError"):
            plain.ask(via=f"{address}:{where.rpartition(':')[2]}")


# The promise, written out for the machines that this runs on.
DEFAULT_WORKERS = {1: 3, 2: 5, 3: 7, 4: 9, 6: 13, 8: 17, 12: 25, 16: 33, 32: 65}


def test_workers_are_as_many_as_wanted(service: Service, as_root: Callable[[str], str]) -> None:
    wanted = service.told("workers")
    if not isinstance(wanted, int):
        wanted = DEFAULT_WORKERS[int(as_root("nproc"))]
    assert service.workers == wanted
    assert len(service.children()) == wanted


def test_no_process_runs_as_root(host: Host, service: Service) -> None:
    """Nor with a way back to it: no capability, no new privileges, system calls filtered."""
    for pid in (service.master, *service.children()):
        assert host.file(f"/proc/{pid}").user == service.user
        status = dict(
            re.findall(r"^(\w+):\s+(.*)$", host.file(f"/proc/{pid}/status").content_string, re.M)
        )
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_the_user_cannot_log_in(host: Host, service: Service) -> None:
    user = host.user(service.user)
    assert user.shell.endswith("nologin")
    assert not host.file(user.home).exists
    assert user.uid < 1000


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/systemd/system/{}.service", 0o644),
        ("/etc/systemd/system/{}.socket", 0o644),
        ("/etc/{}", 0o755),
        ("/etc/{}/gunicorn.conf.py", 0o644),
        ("/etc/{}/environment", 0o600),
        ("/etc/{}/credentials", 0o700),
        ("/run/gunicorn", 0o755),
    ],
)
def test_files_belong_to_root(host: Host, service: Service, path: str, mode: int) -> None:
    """What root reads must not be the application's to write."""
    file = host.file(path.format(service.name))
    assert (file.mode, file.user, file.group) == (mode, "root", "root")


def test_state_is_the_applications_alone(host: Host, service: Service) -> None:
    for path in (f"/var/lib/{service.name}", f"/run/{service.name}"):
        directory = host.file(path)
        assert (directory.mode, directory.user) == (0o700, service.user)


def test_secrets_reach_the_application(plain: Service, tuned: Service) -> None:
    assert plain.ask("/secrets").json() == {}
    given, made = tuned.told("credentials")
    secrets = tuned.ask("/secrets").json()
    assert secrets[given["name"]] == given["value"]
    assert re.fullmatch(f"[0-9a-f]{{{2 * made['random_bytes']}}}", secrets[made["name"]])


def test_secrets_reach_nobody_else(
    host: Host, tuned: Service, as_root: Callable[[str], str]
) -> None:
    """Command lines, environments, unit files and the journal are where they are looked for."""
    places = [
        "/proc/[0-9]*/cmdline",
        "/proc/[0-9]*/environ",
        "/etc/systemd/**",
        "/run/systemd/**",
        "/run/log/**",
        "/var/log/**",
        "/var/lib/config-tree/**",
        "/tmp/**",
    ]
    directory = f"/etc/{tuned.name}/credentials"
    assert tuned.client("leaks", secrets=directory, places=[*places, f"{directory}/*"]) == [
        f"{directory}/{credential['name']}" for credential in tuned.told("credentials")
    ]
    for credential in tuned.told("credentials"):
        for folder in (directory, f"/run/credentials/{tuned.unit}"):
            path = f"{folder}/{credential['name']}"
            assert host.run(f"test -e {path}").rc == 0
            for user in ("nobody", "ops"):
                assert host.run(f"runuser -u {user} -- cat {path}").rc != 0


def test_environment_reaches_the_application(tuned: Service) -> None:
    """Character by character: quoting is systemd's, and a wrong one changes a password quietly."""
    found = tuned.ask("/environment").json()
    for name, value in tuned.told("environment").items():
        assert found[name] == str(value)


FORBIDDEN = (
    "write /usr",
    "write /etc",
    "write release",
    "run from /tmp",
    "run from state",
    "run from /dev/shm",
    "read /home",
    "read /root",
    "ptrace",
    "namespace",
    "mount",
    "chroot",
    "root",
    "nice",
    "host name",
    "raw socket",
    "kernel log",
    "kernel setting",
)


@pytest.fixture
def sandbox(service: Service, address: str) -> dict[str, Any]:
    """What the application could do when it tried."""
    gateway = address.rpartition(".")[0] + ".1"
    query = f"connect={gateway}:53&connect=127.0.0.1:22&connect={address}:22&write=/srv/tuned"
    found: dict[str, Any] = service.ask(f"/sandbox?{query}").json()
    return {
        name.replace(gateway, "outside").replace(address, "host"): v for name, v in found.items()
    }


def test_the_sandbox_is_in_force(service: Service, sandbox: dict[str, Any]) -> None:
    """A directive that the kernel ignores protects nobody, so the application tries."""
    assert [name for name in FORBIDDEN if sandbox[name] == "allowed"] == []
    assert sandbox["write state"] == "allowed"
    assert sandbox["write /tmp"] == "allowed"
    assert sandbox["/tmp"] == []
    assert sandbox["foreign processes"] == []
    assert not {"kmsg", "mem", "port", "sda", "loop0"} & set(sandbox["devices"])


def test_the_network_is_as_far_as_chosen(service: Service, sandbox: dict[str, Any]) -> None:
    assert sandbox["connect outside:53"] != "allowed"
    reachable = sandbox["connect 127.0.0.1:22"] == "allowed"
    assert reachable is (service.told("network") == "local")


def test_what_was_loosened_is_loose(service: Service, sandbox: dict[str, Any]) -> None:
    """And nothing is, where nobody loosened it."""
    loose = service.told("unit_options").get("MemoryDenyWriteExecute") is False
    assert (sandbox["write and execute"] == "allowed") is loose
    assert (sandbox["write /srv/tuned"] == "allowed") is (
        "/srv/tuned" in service.told("writable_paths")
    )


def test_exposure_is_low(service: Service, as_root: Callable[[str], str]) -> None:
    said = as_root(f"systemd-analyze security --no-pager {service.unit}")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= 1.5, said


def test_limits_are_in_force(host: Host, service: Service) -> None:
    shown = service.show("TasksMax", "MemoryMax", "OOMPolicy", unit=service.unit)
    assert int(shown["TasksMax"]) == service.told("tasks_max")
    assert shown["OOMPolicy"] == "continue"
    memory = str(service.told("memory_max"))
    total = int(host.file("/proc/meminfo").content_string.split()[1]) * 1024
    wanted = total * int(memory[:-1]) // 100 if memory.endswith("%") else int(memory[:-1]) << 20
    assert abs(int(shown["MemoryMax"]) - wanted) < 1 << 20
    limits = host.file(f"/proc/{service.master}/limits").content_string
    assert re.search(rf"^Max open files +{service.told('open_files')} ", limits, re.MULTILINE)
    assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE)


def test_the_journal_names_the_service(service: Service, as_root: Callable[[str], str]) -> None:
    """Searched by its identifier, with priorities that alerting can go by."""
    said = as_root(f"journalctl --no-pager --output=cat --identifier={service.name}")
    assert "Listening at: " in said
    assert service.unix in said
    assert not re.search(r"^<\d>", said, re.MULTILINE)
    info = as_root(
        f"journalctl --no-pager --output=cat --identifier={service.name} --priority=info..info"
    )
    assert "Listening at: " in info


def test_what_the_application_prints_is_in_the_journal(service: Service) -> None:
    """At once, not when a buffer is full."""
    service.ask("/print")
    service.wait(lambda: "printed by the application" in service.journal(), 5)


def test_requests_are_in_the_journal_only_when_wanted(service: Service) -> None:
    service.ask("/?mark=4711")
    if service.told("access_log"):
        service.wait(lambda: "answered 200 to GET /?mark=4711 HTTP/1.1" in service.journal(), 5)
    else:
        assert "4711" not in service.journal()


def test_only_those_in_front_say_that_it_was_https(service: Service) -> None:
    """Over the unix socket always; over TCP those that were named."""
    assert service.ask(X_Forwarded_Proto="https").json()["scheme"] == "https"
    via = service.everywhere[-1]
    expected = "https" if "127.0.0.1" in service.told("forwarded_allow_ips") else "http"
    assert service.ask(via=via, X_Forwarded_Proto="https").json()["scheme"] == expected
    # What nginx does not set counts nowhere.
    assert service.ask(X_Forwarded_Ssl="on").json()["scheme"] == "http"


def test_nobody_moves_the_application_by_a_header(service: Service) -> None:
    """gunicorn would believe the unix socket, and a client get round nginx's locations."""
    answer = service.client(
        "ask", to=service.unix, path="/", headers={"SCRIPT_NAME": "/x", "PATH_INFO": "/secrets"}
    )
    assert '"script": ""' in answer["body"]


def test_connections_stay_open_only_when_wanted(service: Service) -> None:
    """One that is closed just when nginx sends a POST is a 502."""
    headers = service.ask(Connection="keep-alive").headers
    assert (headers["connection"] == "keep-alive") is (service.told("keepalive_seconds") > 0)


def test_long_requests_are_refused(service: Service) -> None:
    limit = service.told("limit_request_line_bytes")
    assert service.ask("/?" + "x" * (limit - 100)).status == 200
    assert service.ask("/?" + "x" * limit).status >= 400
    assert (
        service.ask(X_Long="x" * (service.told("limit_request_field_size_bytes") + 10)).status
        >= 400
    )


def test_workers_are_replaced_without_a_lost_request(tuned: Service) -> None:
    """max_requests is small there; all workers are others afterwards."""
    before = set(tuned.children())
    with tuned.load("/", until=True) as load:
        tuned.wait(lambda: not before & set(tuned.children()), 120)
    assert load.bad == {}


def test_a_slow_request_does_not_hold_up_others(plain: Service) -> None:
    """Connections wait in the socket for any free thread, not in one worker.

    In one socket: from two that are ready, a worker may take one connection too many.
    """
    slow = plain.workers * plain.threads - 1
    with plain.load("/", seconds=4, to=[plain.unix]) as fast:
        plain.client("load", to=[plain.unix], path="/slow?seconds=1.5", clients=slow, seconds=1)
    assert fast.bad == {}
    assert fast.longest < 1
