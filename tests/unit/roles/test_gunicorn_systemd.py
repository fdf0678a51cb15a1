"""The role's units, settings and guards, rendered for every family and read by the programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from .preflight import Case, preflight
from .render import FACTS, FAMILIES, ROLES, evaluate, render

ROLE = "gunicorn_systemd"
FILES = " + ".join(f"__gunicorn_systemd_{kind}files" for kind in ("", "policy_", "credential_"))
SCENARIO = ROLES.parent / "molecule" / ROLE
NAME = "shop"
REQUIRED: dict[str, Any] = {
    "gunicorn_systemd_name": NAME,
    "gunicorn_systemd_directory": "/opt/shop/current/app",
    "gunicorn_systemd_python": "/opt/shop/current/bin/python",
    "gunicorn_systemd_wsgi_app": "app:app",
}


def everything_changed() -> dict[str, Any]:
    """What the Molecule scenario runs as `tuned`, under this module's name."""
    [play] = yaml.safe_load((SCENARIO / "converge.yml").read_text())
    [task] = [task for task in play["tasks"] if task["name"].endswith("everything changed")]
    return {
        **task["vars"],
        **REQUIRED,
        "gunicorn_systemd_release_root": "/opt/shop",
        "gunicorn_systemd_release": "9d3f",
    }


# All that means something to systemd.
WORD = "a b\"c'd%e$f\\g;"
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": REQUIRED,
    "everything-changed": everything_changed(),
    "unix-only": {
        **REQUIRED,
        "gunicorn_systemd_bind": [],
        "gunicorn_systemd_forwarded_allow_ips": [],
    },
    "network": {**REQUIRED, "gunicorn_systemd_network": "any"},
    "jobs": {
        **REQUIRED,
        "gunicorn_systemd_release_root": "/opt/shop",
        "gunicorn_systemd_background": [
            {
                "name": "mail",
                "command": ["python", "worker.py", WORD, "{instance}"],
                "count": 2,
                "alone": True,
            },
            {"name": "index", "command": ["bin/index"], "restart": "on-failure"},
        ],
        "gunicorn_systemd_timers": [
            {"name": "nightly", "command": ["python", WORD], "calendar": "*-*-* 03:00:00"},
            {
                "name": "often",
                "command": ["/bin/true"],
                "calendar": "hourly UTC",
                "catch_up": False,
                "jitter_seconds": 60,
                "time_limit_seconds": 30,
                "alert_after_hours": 3,
            },
        ],
    },
    "sync": {**REQUIRED, "gunicorn_systemd_worker_class": "sync"},
    "asgi": {**REQUIRED, "gunicorn_systemd_worker_class": "asgi"},
}


def files(family: str, variables: Mapping[str, Any]) -> dict[str, str]:
    """The files that the role's task would write, by path; secrets' contents among them."""
    entries = evaluate(ROLE, FILES, family, **variables)
    written = {}
    for entry in entries:
        for element in entry.get("each", [None]):
            more = {entry["as"]: element} if "as" in entry else {}
            if "template" in entry:
                text = render(ROLE, entry["template"], family, **variables, **more)
            else:
                text = str(entry.get("content", "random_bytes"))
            written[entry["dest"].format(**more)] = text
    return written


def stage(folder: Path, family: str, variables: Mapping[str, Any]) -> Path:
    """Write the files below a folder, as `wsgi.host.config_tree` does for its checks."""
    for dest, text in files(family, variables).items():
        path = folder / dest.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def check(folder: Path, family: str, variables: Mapping[str, Any]) -> list[str]:
    """Run the checks of the role's task on a staged tree; what each that failed said."""
    task = yaml.safe_load((ROLES / ROLE / "tasks" / "configure.yml").read_text())[0]
    said = []
    for entry in task["wsgi.host.config_tree"]["checks"]:
        argv = evaluate(ROLE, entry["argv"].strip("{} "), family, **variables)
        done = subprocess.run(
            [argument.replace("{stage}", str(folder)) for argument in argv],
            env={
                **os.environ,
                **{
                    key: value.replace("{stage}", str(folder))
                    for key, value in entry.get("environment", {}).items()
                },
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            said.append(done.stdout + done.stderr)
    return said


def unit(text: str) -> dict[str, dict[str, list[str]]]:
    """A unit file's directives by section, each with its values in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            directive, _, value = line.partition("=")
            section.setdefault(directive, []).append(value)
    return sections


def units(family: str, **variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The socket unit and the service unit."""
    written = files(family, {**REQUIRED, **variables})
    folder = "/etc/systemd/system"
    return unit(written[f"{folder}/{NAME}.socket"]), unit(written[f"{folder}/{NAME}.service"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_passes_the_checks_of_the_role(
    tmp_path: Path, family: str, variant: str
) -> None:
    """systemd ignores a line that it does not understand, and the sandbox has a hole."""
    assert check(stage(tmp_path, family, VARIANTS[variant]), family, VARIANTS[variant]) == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"gunicorn_systemd_unit_options": {"ProtectHome": "perhaps"}}, "perhaps"),
        ({"gunicorn_systemd_unit_options": {"ProtectHoem": True}}, "ProtectHoem"),
        ({"gunicorn_systemd_bind": ["127.0.0.1:99999"]}, "127.0.0.1:99999"),
        ({"__gunicorn_systemd_etc": '/etc/"""shop'}, "SyntaxError"),
    ],
    ids=["value", "directive", "address", "settings"],
)
def test_the_checks_refuse_what_systemd_or_python_would_not_take(
    tmp_path: Path, variables: dict[str, Any], said: str
) -> None:
    """A check that always passes is none."""
    variables = {**REQUIRED, **variables}
    if said == "SyntaxError":
        folder = stage(tmp_path, "Debian", REQUIRED)
        (folder / "etc/shop/gunicorn.conf.py").write_text("workers = \n")
        variables = REQUIRED
    else:
        folder = stage(tmp_path, "Debian", variables)
    [message] = check(folder, "Debian", variables)
    assert said in message


def test_units_of_others_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """A broken unit that the host has anyway is not what this role is about."""
    variables = {**REQUIRED, "gunicorn_systemd_after": ["workshop.service"]}
    folder = stage(tmp_path, "Debian", variables)
    (folder / "etc/systemd/system/workshop.service").write_text("[Service]\nExecStrat=/bin/true\n")
    assert check(folder, "Debian", variables) == []


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({}, "/opt/shop/current/app"),
        ({"gunicorn_systemd_release_root": "/opt/shop"}, "/opt/shop"),
    ],
)
def test_the_service_waits_for_the_file_system_of_the_application(
    variables: dict[str, Any], path: str
) -> None:
    """Before /opt is mounted it would find no release, and say that none was deployed."""
    _, service = units("Debian", **variables)
    assert service["Unit"]["RequiresMountsFor"] == [path]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gunicorn_takes_the_settings(tmp_path: Path, family: str, variant: str) -> None:
    """gunicorn ignores a setting that it does not know, so each is held against its own list."""
    variables = VARIANTS[variant]
    settings = stage(tmp_path, family, variables) / "etc" / NAME / "gunicorn.conf.py"
    (tmp_path / "app.py").write_text("def app(*_): ...\ndef create_app(): return app\n")
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--print-config", "--config", settings],
        cwd=tmp_path,
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    taken = dict(re.findall(r"^(\w+) += (.*)$", done.stdout, re.MULTILINE))
    names = re.findall(r"^([a-z_]+) = ", settings.read_text(), re.MULTILINE)
    assert "workers" in names
    assert set(names) <= set(taken)
    workers = evaluate(ROLE, "gunicorn_systemd_workers", family, **variables)
    assert taken["workers"] == str(workers)
    assert taken["control_socket_disable"] == "True"
    assert taken["forwarder_headers"] in ("['']", "[]")
    assert taken["worker_tmp_dir"] == str(tmp_path)


def test_workers_follow_the_processors() -> None:
    for cpus, workers in ((1, 3), (2, 5), (16, 33)):
        text = files("Debian", {**REQUIRED, "wsgi_host": {**FACTS["Debian"], "cpus": cpus}})
        assert f"\nworkers = {workers}\n" in text[f"/etc/{NAME}/gunicorn.conf.py"]


def test_a_host_of_any_size_passes_its_own_guards() -> None:
    """A default that another default forbids would refuse large hosts."""
    facts = {**FACTS["Debian"], "cpus": 256}
    most = evaluate(
        ROLE,
        "gunicorn_systemd_workers * (gunicorn_systemd_threads + 1)",
        "Debian",
        **REQUIRED,
        wsgi_host=facts,
    )
    assert most < evaluate(ROLE, "gunicorn_systemd_tasks_max", "Debian")


def test_a_worker_takes_no_more_than_it_can_serve() -> None:
    """Further connections wait in the sockets, and not behind one worker's slow requests."""
    text = files("Debian", {**REQUIRED, "gunicorn_systemd_threads": 7})
    assert "\nworker_connections = 7\n" in text[f"/etc/{NAME}/gunicorn.conf.py"]


@pytest.mark.parametrize(
    "value", ["", "a b", "it's", 'a"b', "$HOME", "`id`", "\\n", "100%", "ü #;="]
)
def test_the_environment_reaches_the_application_as_it_was_written(
    tmp_path: Path, value: str
) -> None:
    """systemd reads the file by the rules of a shell's double quotes."""
    text = files("Debian", {**REQUIRED, "gunicorn_systemd_environment": {"VALUE": value}})
    path = tmp_path / "environment"
    path.write_text(text[f"/etc/{NAME}/environment"])
    done = subprocess.run(
        ["/bin/sh", "-c", '. "$0"; printf %s "$VALUE"', path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == value


def test_secrets_are_in_their_own_files_only() -> None:
    """Whoever may read units and settings must not learn a secret."""
    written = files(
        "Debian",
        {
            **REQUIRED,
            "gunicorn_systemd_credentials": [
                {"name": "api_key", "value": "geheim"},
                {"name": "secret_key", "random_bytes": 32},
            ],
        },
    )
    assert written.pop(f"/etc/{NAME}/credentials/api_key") == "geheim"
    assert f"/etc/{NAME}/credentials/secret_key" in written
    assert "geheim" not in "".join(written.values())


def test_secret_files_are_root_only_and_kept_out_of_diffs() -> None:
    variables = {
        **REQUIRED,
        "gunicorn_systemd_credentials": [
            {"name": "a", "value": "x"},
            {"name": "b", "random_bytes": 32},
        ],
    }
    entries = evaluate(ROLE, "__gunicorn_systemd_credential_files", "Debian", **variables)
    assert [(entry["mode"], entry["secret"]) for entry in entries] == [("0600", True)] * 2
    assert entries[1]["random_bytes"] == 32


@pytest.mark.parametrize("family", FAMILIES)
def test_only_nginx_may_open_the_unix_socket(family: str) -> None:
    """Whoever can, speaks for every client: gunicorn believes what comes over it."""
    socket, _ = units(family)
    group = evaluate("nginx", "__nginx_user", family)
    assert socket["Socket"]["SocketGroup"] == [group]
    assert socket["Socket"]["SocketMode"] == ["0660"]


def test_the_socket_file_outlives_the_service() -> None:
    """A runtime directory goes with each stop of its service, and the socket with it."""
    socket, service = units("Debian")
    [path] = [item for item in socket["Socket"]["ListenStream"] if item.startswith("/")]
    assert path == f"/run/gunicorn/{NAME}.sock"
    for directory in service["Service"]["RuntimeDirectory"]:
        assert not path.startswith(f"/run/{directory}/")


def test_nothing_ever_closes_the_sockets() -> None:
    """A start limit or trigger limit does, of a service that keeps failing."""
    socket, service = units("Debian")
    assert socket["Socket"]["TriggerLimitIntervalSec"] == ["0"]
    assert service["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert service["Service"]["Restart"] == ["always"]


def test_requests_are_finished_before_systemd_kills() -> None:
    _, service = units("Debian", gunicorn_systemd_graceful_timeout_seconds=90)
    assert int(service["Service"]["TimeoutStopSec"][0]) > 90


def test_addresses_that_are_not_there_yet_can_be_bound() -> None:
    """A public address may come up after the sockets at boot; the loopback never does."""
    public, _ = units(
        "Debian", gunicorn_systemd_bind=["192.0.2.1:5000"], gunicorn_systemd_bind_public=True
    )
    assert public["Socket"]["FreeBind"] == ["yes"]
    assert "FreeBind" not in units("Debian")[0]["Socket"]


@pytest.mark.parametrize(
    ("network", "families", "denied"),
    [
        ("none", "AF_UNIX", ["any"]),
        ("local", "AF_UNIX AF_INET AF_INET6", ["any"]),
        ("any", "AF_UNIX AF_INET AF_INET6", None),
    ],
)
def test_the_network_is_as_far_as_it_was_chosen(
    network: str, families: str, denied: list[str] | None
) -> None:
    service = units("Debian", gunicorn_systemd_network=network)[1]["Service"]
    assert service["RestrictAddressFamilies"] == [families]
    assert service.get("IPAddressDeny") == denied
    assert ("PrivateNetwork" in service) is (network == "none")


@pytest.mark.parametrize("network", ["none", "local", "any"])
def test_exposure_is_low(tmp_path: Path, network: str) -> None:
    """At most 1.5 of 10, also for an application that needs the network."""
    folder = stage(tmp_path, "Debian", {**REQUIRED, "gunicorn_systemd_network": network})
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=15"),
            folder / "etc" / "systemd" / "system" / f"{NAME}.service",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_options_of_the_unit_come_last() -> None:
    """systemd goes by the last of several lines."""
    service = units(
        "Debian",
        gunicorn_systemd_unit_options={
            "MemoryDenyWriteExecute": False,
            "BindReadOnlyPaths": ["/srv/a", "/srv/b"],
        },
    )[1]["Service"]
    assert service["MemoryDenyWriteExecute"] == ["yes", "no"]
    assert service["BindReadOnlyPaths"] == ["/srv/a", "/srv/b"]


def test_nothing_but_the_handover_starts_or_stops_a_unit() -> None:
    """Somebody else's restart would be one without the judgement, later one without the standby."""
    for path in (ROLES / ROLE).rglob("*.yml"):
        text = path.read_text()
        acts = re.search(
            r"builtin\.(systemd_service|service)|systemctl[, ]+(re)?(start|load)", text
        )
        # The timer that asks the service is none of what serves.
        named = re.findall(r"systemd_service:\n +name: (.*)", text)
        timer = set(named) == {'"{{ __gunicorn_systemd_health_timer }}"'}
        # What is removed is stopped for good.
        assert path.name in ("handover.yml", "remove.yml") or timer or not acts, path


def test_the_standby_differs_where_it_has_to() -> None:
    """It runs another release beside the service: with the same settings and sandbox."""
    written = files("Debian", {**REQUIRED, "gunicorn_systemd_release_root": "/opt/shop"})
    folder = "/etc/systemd/system"
    main, standby = (
        unit(written[f"{folder}/{name}.service"]) for name in (NAME, f"{NAME}-standby")
    )
    assert standby["Service"]["Sockets"] == ["shop.socket shop-standby.socket"]
    assert standby["Service"]["ExecStart"] == [
        main["Service"]["ExecStart"][0].replace("/opt/shop/current/", "/run/shop-handover/release/")
    ]
    assert standby["Service"]["WorkingDirectory"] == ["-/run/shop-handover/release/app"]
    # Nothing starts it but the handover.
    assert "Install" not in standby
    assert standby["Service"]["Restart"] == ["no"]
    differing = {
        directive
        for directive in {**main["Service"], **standby["Service"]}
        if main["Service"].get(directive) != standby["Service"].get(directive)
    }
    assert differing == {
        *("Environment", "ExecStart", "ExecStartPre", "NoExecPaths", "Restart", "RestartSec"),
        *("RuntimeDirectory", "Sockets", "SyslogIdentifier", "WorkingDirectory"),
    }


def test_without_releases_the_standby_runs_what_is_there() -> None:
    written = files("Debian", REQUIRED)
    folder = "/etc/systemd/system"
    main, standby = (
        unit(written[f"{folder}/{name}.service"]) for name in (NAME, f"{NAME}-standby")
    )
    assert standby["Service"]["ExecStart"] == main["Service"]["ExecStart"]


@pytest.mark.parametrize("kind", ["check", "standby"])
def test_only_root_reaches_a_private_socket(kind: str) -> None:
    """Who can open it has its answers taken for the application's."""
    written = files("Debian", {**REQUIRED, "gunicorn_systemd_bind_public": True})
    socket = unit(written[f"/etc/systemd/system/{NAME}-{kind}.socket"])
    assert socket["Socket"]["ListenStream"] == [f"/run/gunicorn/{NAME}-{kind}.sock"]
    assert (socket["Socket"]["SocketGroup"], socket["Socket"]["SocketMode"]) == (["root"], ["0600"])
    assert socket["Socket"]["Service"] == [
        f"{NAME}.service" if kind == "check" else f"{NAME}-standby.service"
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_handover_puts_back_every_file_that_the_service_is_started_with(variant: str) -> None:
    """One that was forgotten would stay as it was judged bad. The command is no setting."""
    written = files("Debian", VARIANTS[variant])
    told = json.loads(written[f"/etc/{NAME}/handover.json"])
    assert sorted(told["settings"]) == sorted(set(written) - {f"/usr/local/sbin/{NAME}"})


def test_the_handover_is_told_what_the_variables_say() -> None:
    written = files(
        "Debian",
        {
            **REQUIRED,
            "gunicorn_systemd_release_root": "/opt/shop",
            "gunicorn_systemd_check_release_member": "release",
            "gunicorn_systemd_graceful_timeout_seconds": 20,
            "gunicorn_systemd_bake_seconds": 7,
        },
    )
    told = json.loads(written[f"/etc/{NAME}/handover.json"])
    assert (told["name"], told["release_root"]) == (NAME, "/opt/shop")
    assert (told["stop_time_limit"], told["bake_time"], told["start_time_limit"]) == (25, 7, 60)
    assert told["check"] == {
        **{"path": "/", "host": "localhost", "status": 200, "release_member": "release"},
        **{"count": 3, "interval": 0.1, "time_limit": 30},
    }


def test_what_was_interrupted_is_undone_before_the_service_starts() -> None:
    written = files("Debian", {**REQUIRED, "gunicorn_systemd_release_root": "/opt/shop"})
    boot = unit(written[f"/etc/systemd/system/{NAME}-handover-boot.service"])
    assert boot["Unit"]["Before"] == [f"{NAME}.service"]
    assert boot["Service"]["ExecStart"] == [f"/usr/local/sbin/{NAME} handover --boot"]
    assert boot["Install"]["WantedBy"] == ["multi-user.target"]


@pytest.mark.parametrize(
    ("units", "idle"),
    [
        ({}, ["shop.socket", "shop.service"]),
        (
            {
                "shop.socket": {"active": True, "enabled": True},
                "shop.service": {"active": True, "enabled": True},
            },
            [],
        ),
        (
            {
                "shop.socket": {"active": True, "enabled": True},
                "shop.service": {"active": True, "enabled": False},
            },
            ["shop.service"],
        ),
        (
            {
                "shop.socket": {"active": False, "enabled": True},
                "shop.service": {"active": True, "enabled": True},
            },
            ["shop.socket"],
        ),
    ],
    ids=["bare host", "running", "not enabled", "stopped"],
)
def test_units_that_do_not_run_are_noticed(units: dict[str, Any], idle: list[str]) -> None:
    """Green over a stopped service would be the worst answer."""
    facts = {**FACTS["Debian"], "units": units}
    found = evaluate(ROLE, "__gunicorn_systemd_idle_units", "Debian", **REQUIRED, wsgi_host=facts)
    assert found == idle


def test_selinux_admits_nginx_to_this_socket_and_no_other() -> None:
    path = f"/etc/{NAME}/{NAME}-socket.cil"
    policy = files("RedHat", REQUIRED)[path]
    labelled = re.findall(r'filecon "(\S+)"', policy)
    assert labelled == [rf"/run/gunicorn/{NAME}\.sock", rf"/var/run/gunicorn/{NAME}\.sock"]
    code = re.sub(r"^;.*$", "", policy, flags=re.MULTILINE)
    assert code.count("(") == code.count(")")
    assert path not in files("Debian", REQUIRED)


# --- Workers and timers ---------------------------------------------------------------------


def test_workers_and_timers_are_told_what_the_variables_say() -> None:
    """A process of a worker runs from a link of its own; a timer's run follows `current` once."""
    written = files("Debian", VARIANTS["jobs"])
    folder = "/etc/systemd/system"
    mail = unit(written[f"{folder}/{NAME}-worker-mail@.service"])
    word = '"a b\\"c\'d%%e$$f\\\\g;"'
    assert mail["Service"]["ExecStart"] == [
        f'/opt/shop/state/workers/%i/bin/python worker.py {word} "%i"'
    ]
    assert mail["Service"]["WorkingDirectory"] == ["/opt/shop/state/workers/%i/app"]
    assert mail["Service"]["KillMode"] == ["mixed"]
    assert mail["Service"]["TimeoutStopSec"] == ["60"]
    assert mail["Install"]["WantedBy"] == ["multi-user.target"]
    index = unit(written[f"{folder}/{NAME}-worker-index@.service"])
    assert index["Service"]["ExecStart"] == ["/opt/shop/state/workers/%i/app/bin/index"]
    assert index["Service"]["Restart"] == ["on-failure"]
    nightly = unit(written[f"{folder}/{NAME}-timer-nightly.service"])
    [command] = nightly["Service"]["ExecStart"]
    assert command.endswith(f" bin/python {word}")
    assert nightly["Service"]["ExecStopPost"] == [f"+/usr/local/sbin/{NAME} jobs --record nightly"]
    often = unit(written[f"{folder}/{NAME}-timer-often.timer"])["Timer"]
    assert (often["OnCalendar"], often["Persistent"]) == (["hourly UTC"], ["no"])
    assert often["RandomizedDelaySec"] == ["60"]
    for job in (mail, index, nightly):
        # What was interrupted by the end of the host is undone before they start.
        assert f"{NAME}-handover-boot.service" in job["Unit"]["After"][0].split()
    told = json.loads(written[f"/etc/{NAME}/handover.json"])
    assert told["workers"] == [
        {"name": "mail", "count": 2, "stop_seconds": 60, "alone": True},
        {"name": "index", "count": 1, "stop_seconds": 60, "alone": False},
    ]
    assert told["timers"] == ["nightly", "often"]
    assert told["alert_after_hours"] == {"often": 3}


def test_workers_and_timers_may_do_what_the_web_processes_may() -> None:
    """One that had more would be the way out of the sandbox."""
    more = {
        "gunicorn_systemd_credentials": [{"name": "key", "value": "x"}],
        "gunicorn_systemd_unit_options": {"ProtectClock": False},
        "gunicorn_systemd_writable_paths": ["/srv/files"],
    }
    written = files("Debian", {**VARIANTS["jobs"], **more})
    folder = f"/etc/systemd/system/{NAME}"
    own = {
        *("Type", "NotifyAccess", "Sockets", "WorkingDirectory", "ExecStartPre", "ExecStart"),
        *("ExecStopPost", "TimeoutStartSec", "Restart", "RestartSec", "KillMode", "TimeoutStopSec"),
        *("SyslogIdentifier", "RuntimeDirectory", "NoExecPaths"),
    }

    def sandbox(path: str) -> dict[str, list[str]]:
        service = unit(written[path])["Service"]
        return {key: value for key, value in service.items() if key not in own}

    web = sandbox(f"{folder}.service")
    assert len(web) > 30
    assert sandbox(f"{folder}-worker-mail@.service") == web
    assert sandbox(f"{folder}-timer-nightly.service") == web


def test_what_is_left_out_of_a_job_is_what_the_specification_says() -> None:
    spec = yaml.safe_load((ROLES / ROLE / "meta" / "argument_specs.yml").read_text())
    options = spec["argument_specs"]["main"]["options"]
    for variable, units in (("background", "worker"), ("timers", "timer")):
        inner = options[f"gunicorn_systemd_{variable}"]["options"]
        defaults = {name: each["default"] for name, each in inner.items() if "default" in each}
        one = {"gunicorn_systemd_" + variable: [{"name": "one", "command": ["true"]}]}
        [found] = evaluate(ROLE, f"__gunicorn_systemd_{units}_units", "Debian", **REQUIRED, **one)
        assert found == {"name": "one", "command": ["true"], **defaults}


# --- Guards ---------------------------------------------------------------------------------

GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "health-without-a-slash": (
        {"gunicorn_systemd_health_path": "healthz"},
        'gunicorn_systemd_health_path is "healthz", which is not a path',
    ),
    "health-restarts-what-is-well": (
        {"gunicorn_systemd_health_failures": 0},
        "gunicorn_systemd_health_failures is 0, which is less than 1",
    ),
    "health-restarts-below-none": (
        {"gunicorn_systemd_health_restarts": -1},
        "gunicorn_systemd_health_restarts is -1, which is negative",
    ),
    "group-of-root": (
        {"gunicorn_systemd_group": "root"},
        'gunicorn_systemd_group ("root") cannot be the application\'s own group',
    ),
    "group-with-a-space": (
        {"gunicorn_systemd_socket_group": "www data"},
        'gunicorn_systemd_socket_group is "www data", which cannot name a user or group',
    ),
    "directory-with-a-percent": (
        {"gunicorn_systemd_directory": "/srv/100%"},
        'gunicorn_systemd_directory ("/srv/100%") has a percent sign, which systemd would expand',
    ),
    "python-with-a-percent": (
        {"gunicorn_systemd_python": "/opt/%n/python"},
        'gunicorn_systemd_python ("/opt/%n/python") has a percent sign',
    ),
    "writable-path-with-a-percent": (
        {"gunicorn_systemd_writable_paths": ["/srv/%h"]},
        "gunicorn_systemd_writable_paths has a percent sign",
    ),
    "worker-with-a-slash": (
        {"gunicorn_systemd_background": [{"name": "a/b", "command": ["x"]}]},
        "gunicorn_systemd_background has a name that cannot be a unit's",
    ),
    "two-workers-of-a-name": (
        {"gunicorn_systemd_background": [{"name": "a", "command": ["x"]}] * 2},
        "gunicorn_systemd_background has a name twice",
    ),
    "two-timers-of-a-name": (
        {"gunicorn_systemd_timers": [{"name": "a", "command": ["x"], "calendar": "daily"}] * 2},
        "gunicorn_systemd_timers has a name twice",
    ),
    "timer-with-a-slash": (
        {"gunicorn_systemd_timers": [{"name": "/", "command": ["x"], "calendar": "daily"}]},
        "gunicorn_systemd_timers has a name that cannot be a unit's",
    ),
    "worker-that-is-a-shell-command": (
        {"gunicorn_systemd_background": [{"name": "a", "command": ["python worker.py"]}]},
        "gunicorn_systemd_background has a worker whose command does not start with a program",
    ),
    "worker-without-words": (
        {"gunicorn_systemd_background": [{"name": "a", "command": []}]},
        "gunicorn_systemd_background has a worker whose command does not start with a program",
    ),
    "timer-that-is-a-shell-command": (
        {"gunicorn_systemd_timers": [{"name": "a", "command": ["a b"], "calendar": "daily"}]},
        "gunicorn_systemd_timers has a timer whose command does not start with a program",
    ),
    "timer-of-a-zone": (
        {
            "gunicorn_systemd_timers": [
                {"name": "a", "command": ["x"], "calendar": "*-*-* 02:30 Europe/Berlin"}
            ]
        },
        "gunicorn_systemd_timers has a calendar with a time zone",
    ),
    "timer-at-no-time": (
        {"gunicorn_systemd_timers": [{"name": "a", "command": ["x"], "calendar": "at noon"}]},
        'gunicorn_systemd_timers[0].calendar is "at noon", which is not a calendar event',
    ),
    "no-worker-at-all": (
        {"gunicorn_systemd_background": [{"name": "a", "command": ["x"], "count": 0}]},
        "gunicorn_systemd_background[0].count is 0, which is less than 1",
    ),
    "application-with-a-semicolon": (
        {"gunicorn_systemd_wsgi_app": "app:app; import os"},
        'gunicorn_systemd_wsgi_app ("app:app; import os") does not name a WSGI or ASGI application',
    ),
    "bind-to-a-unix-socket": (
        {"gunicorn_systemd_bind": ["unix:/run/shop.sock"]},
        "gunicorn_systemd_bind names a unix socket: leave it out, /run/gunicorn/<name>.sock is",
    ),
    "bind-to-the-world": (
        {"gunicorn_systemd_bind": ["0.0.0.0:5000"]},
        "gunicorn_systemd_bind is not on the loopback, so others than this host's nginx would "
        "reach the application: use 127.0.0.1:<port>, or set gunicorn_systemd_bind_public: true",
    ),
    "bind-to-the-world-by-ipv6": (
        {"gunicorn_systemd_bind": ["[::]:5000"]},
        "gunicorn_systemd_bind is not on the loopback",
    ),
    "no-backlog": (
        {"gunicorn_systemd_backlog": 0},
        "gunicorn_systemd_backlog is 0, which is less than 1",
    ),
    "proxy-by-name": (
        {"gunicorn_systemd_forwarded_allow_ips": ["proxy.example.org"]},
        "gunicorn_systemd_forwarded_allow_ips names something that is not an address or a network",
    ),
    "anybody-a-proxy": (
        {"gunicorn_systemd_forwarded_allow_ips": ["*"]},
        "gunicorn_systemd_forwarded_allow_ips names something that is not an address or a network",
    ),
    "no-workers": (
        {"gunicorn_systemd_workers": 0},
        "gunicorn_systemd_workers is 0, which is less than 1: use 1 to 4096",
    ),
    "no-threads": (
        {"gunicorn_systemd_threads": 0, "gunicorn_systemd_worker_connections": 2},
        "gunicorn_systemd_threads is 0, which is less than 1",
    ),
    "idle-threads": (
        {"gunicorn_systemd_threads": 4, "gunicorn_systemd_worker_connections": 2},
        "gunicorn_systemd_worker_connections (2) leaves threads idle",
    ),
    "negative-requests": (
        {"gunicorn_systemd_max_requests_jitter": -1},
        "gunicorn_systemd_max_requests_jitter is -1, which is negative",
    ),
    "negative-timeout": (
        {"gunicorn_systemd_timeout_seconds": -1},
        "gunicorn_systemd_timeout_seconds is -1, which is negative",
    ),
    "no-grace": (
        {"gunicorn_systemd_graceful_timeout_seconds": 0},
        "gunicorn_systemd_graceful_timeout_seconds is 0, which is less than 1",
    ),
    "negative-delay": (
        {"gunicorn_systemd_restart_delay_seconds": -1},
        "gunicorn_systemd_restart_delay_seconds is -1, which is negative",
    ),
    "name-of-an-environment-variable": (
        {"gunicorn_systemd_environment": {"SHOP-MODE": "x"}},
        "gunicorn_systemd_environment has a name that cannot be an environment variable",
    ),
    "environment-of-gunicorn": (
        {"gunicorn_systemd_environment": {"GUNICORN_CMD_ARGS": "--reload"}},
        "gunicorn_systemd_environment has a name that systemd or gunicorn uses",
    ),
    "boolean-in-the-environment": (
        {"gunicorn_systemd_environment": {"DEBUG": True}},
        "gunicorn_systemd_environment has a value that is neither text nor a number: quote it",
    ),
    "list-in-the-environment": (
        {"gunicorn_systemd_environment": {"HOSTS": ["a", "b"]}},
        "gunicorn_systemd_environment has a value that is neither text nor a number",
    ),
    "lines-in-the-environment": (
        {"gunicorn_systemd_environment": {"KEY": "a\nLD_PRELOAD=/tmp/x"}},
        "gunicorn_systemd_environment has a value of several lines",
    ),
    "credential-twice": (
        {
            "gunicorn_systemd_credentials": [
                {"name": "key", "value": "secret-7f3a"},
                {"name": "key", "random_bytes": 32},
            ]
        },
        "gunicorn_systemd_credentials has a name twice",
    ),
    "credential-of-nothing": (
        {"gunicorn_systemd_credentials": [{"name": "key"}]},
        "gunicorn_systemd_credentials has an entry with neither value nor random_bytes,",
    ),
    "credential-of-both": (
        {
            "gunicorn_systemd_credentials": [
                {"name": "key", "value": "secret-7f3a", "random_bytes": 32}
            ]
        },
        "gunicorn_systemd_credentials has an entry with neither value nor random_bytes,",
    ),
    "empty-credential": (
        {"gunicorn_systemd_credentials": [{"name": "key", "value": ""}]},
        "gunicorn_systemd_credentials has an empty value",
    ),
    "weak-credential": (
        {"gunicorn_systemd_credentials": [{"name": "key", "random_bytes": 4}]},
        "gunicorn_systemd_credentials[0].random_bytes is 4, which is less than 16: use 16 to 1024",
    ),
    "memory-in-words": (
        {"gunicorn_systemd_memory_max": "512 megabytes"},
        'gunicorn_systemd_memory_max ("512 megabytes") is not an amount of memory: write it',
    ),
    "more-memory-than-there-is": (
        {"gunicorn_systemd_memory_max": "120%"},
        'gunicorn_systemd_memory_max ("120%") is not an amount of memory',
    ),
    "too-few-tasks": (
        {"gunicorn_systemd_workers": 40, "gunicorn_systemd_tasks_max": 100},
        "gunicorn_systemd_tasks_max (100) is less than the processes and threads of the workers",
    ),
    "too-few-files": (
        {"gunicorn_systemd_open_files": 20},
        "gunicorn_systemd_open_files is 20, which is less than 65",
    ),
    "after-no-unit": (
        {"gunicorn_systemd_after": ["postgresql"]},
        'gunicorn_systemd_after[0] is "postgresql", which is not the name of a unit: write it',
    ),
    "directive-in-small-letters": (
        {"gunicorn_systemd_unit_options": {"protecthome": True}},
        "gunicorn_systemd_unit_options has a name that is not a directive",
    ),
    "directive-of-the-role": (
        {"gunicorn_systemd_unit_options": {"TimeoutStopSec": 1}},
        "gunicorn_systemd_unit_options has a directive that the role sets from a variable",
    ),
    "lines-in-a-directive": (
        {"gunicorn_systemd_unit_options": {"Nice": "5\nExecStopPost=/bin/true"}},
        "gunicorn_systemd_unit_options has a value of several lines",
    ),
    "check-of-no-path": (
        {"gunicorn_systemd_check_path": "healthz"},
        'gunicorn_systemd_check_path is "healthz", which is not a path that can be asked for',
    ),
    "check-for-no-status": (
        {"gunicorn_systemd_check_status": 42},
        "gunicorn_systemd_check_status is 42, which is less than 200: use 200 to 599",
    ),
    "check-of-nothing": (
        {"gunicorn_systemd_check_count": 0},
        "gunicorn_systemd_check_count is 0, which is less than 1",
    ),
    "check-without-pause": (
        {"gunicorn_systemd_check_interval_seconds": 0.0},
        "gunicorn_systemd_check_interval_seconds is 0.0, which is less than 0.01",
    ),
    "check-that-cannot-end": (
        {"gunicorn_systemd_check_count": 100, "gunicorn_systemd_check_interval_seconds": 0.5},
        "gunicorn_systemd_check_time_limit_seconds (30) is too short for gunicorn_systemd_check",
    ),
    "no-time-to-start": (
        {"gunicorn_systemd_start_time_limit_seconds": 0},
        "gunicorn_systemd_start_time_limit_seconds is 0, which is less than 1",
    ),
    "baked-before-it-was-there": (
        {"gunicorn_systemd_bake_seconds": -1},
        "gunicorn_systemd_bake_seconds is -1, which is negative",
    ),
    "relative-root": (
        {"gunicorn_systemd_release_root": "/opt/shop/"},
        "is not the plain absolute path of a directory: write it as /opt/shop",
    ),
    "root-of-another": (
        {"gunicorn_systemd_release_root": "/srv/shop"},
        'gunicorn_systemd_release_root ("/srv/shop") does not contain gunicorn_systemd_directory',
    ),
    "release-elsewhere": (
        {"gunicorn_systemd_release_root": "/opt/shop", "gunicorn_systemd_release": "../9d3f"},
        'gunicorn_systemd_release ("../9d3f") cannot name a release',
    ),
    "check-without-time": (
        {"gunicorn_systemd_check_time_limit_seconds": 0},
        "gunicorn_systemd_check_time_limit_seconds is 0, which is less than 1",
    ),
}

# Of the wrong kind, so that rules that read it are not asked, or tied up with other variables.
ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "workers-without-releases": (
        {"gunicorn_systemd_background": [{"name": "mail", "command": ["x"]}]},
        "gunicorn_systemd_background has workers, which need a service with releases",
    ),
    "timers-without-releases": (
        {"gunicorn_systemd_timers": [{"name": "a", "command": ["x"], "calendar": "daily"}]},
        "gunicorn_systemd_timers has timers, which need a service with releases",
    ),
    "more-connections-than-open-files": (
        {"gunicorn_systemd_worker_connections": 1000, "gunicorn_systemd_open_files": 1000},
        "is too few for a worker's connections and its own files: raise it to",
    ),
    "a-short-random-credential": (
        {"gunicorn_systemd_credentials": [{"name": "key", "random_bytes": 4}]},
        "gunicorn_systemd_credentials[0].random_bytes is 4, which is less than 16",
    ),
    "health-all-the-time": (
        {"gunicorn_systemd_health_interval_seconds": 0},
        "gunicorn_systemd_health_interval_seconds is 0, which is less than 1: use 1 to 3600",
    ),
    "setting-that-is-code": (
        {"gunicorn_systemd_settings": {"import os; x": 1}},
        "gunicorn_systemd_settings has a name",
    ),
    "the-same-port-twice": (
        {"gunicorn_systemd_bind": ["127.0.0.1:5000", "127.0.0.1:5000"]},
        "gunicorn_systemd_bind names a port twice on the same address",
    ),
    "the-same-port-everywhere": (
        {
            "gunicorn_systemd_bind": ["127.0.0.1:5000", "0.0.0.0:5000"],
            "gunicorn_systemd_bind_public": True,
        },
        "gunicorn_systemd_bind names a port twice on the same address",
    ),
    "setting-of-the-role": (
        {"gunicorn_systemd_settings": {"bind": "0.0.0.0:80"}},
        "gunicorn_systemd_settings has a name that is not a setting of gunicorn, or that",
    ),
    "nothing-to-keep-alive": (
        {"gunicorn_systemd_keepalive_seconds": 5},
        "gunicorn_systemd_worker_connections (2) leaves threads idle, or no connection",
    ),
    "threads-of-sync": (
        {"gunicorn_systemd_worker_class": "sync", "gunicorn_systemd_threads": 2},
        "gunicorn_systemd_threads (2) is more than a worker of class sync has",
    ),
    "threads-of-asgi": (
        {"gunicorn_systemd_worker_class": "asgi", "gunicorn_systemd_threads": 4},
        "gunicorn_systemd_threads (4) is more than a worker of class asgi has, which is one",
    ),
    "name-with-capitals": (
        {"gunicorn_systemd_name": "Shop"},
        'gunicorn_systemd_name ("Shop") cannot name units, directories and a socket',
    ),
    "name-of-the-sockets": (
        {"gunicorn_systemd_name": "gunicorn"},
        'gunicorn_systemd_name ("gunicorn") is reserved for the directory of the sockets',
    ),
    "name-of-a-standby": (
        {"gunicorn_systemd_name": "shop-standby"},
        'gunicorn_systemd_name ("shop-standby") is reserved',
    ),
    "root": (
        {"gunicorn_systemd_user": "root"},
        'gunicorn_systemd_user ("root") cannot be the application\'s own user',
    ),
    "relative-directory": (
        {"gunicorn_systemd_directory": "srv/shop"},
        'gunicorn_systemd_directory is "srv/shop"',
    ),
    "python-with-a-space": (
        {"gunicorn_systemd_python": "/opt/my shop/python"},
        'gunicorn_systemd_python is "/opt/my shop/python"',
    ),
    "bind-without-port": (
        {"gunicorn_systemd_bind": ["127.0.0.1"]},
        'gunicorn_systemd_bind[0] is "127.0.0.1"',
    ),
    "unknown-class": (
        {"gunicorn_systemd_worker_class": "gevent"},
        "gunicorn_systemd_worker_class",
    ),
    "name-of-a-credential": (
        {"gunicorn_systemd_credentials": [{"name": "../key", "value": "secret-7f3a"}]},
        "gunicorn_systemd_credentials has a name that cannot be a file's",
    ),
    "release-of-nowhere": (
        {"gunicorn_systemd_release": "9d3f"},
        'gunicorn_systemd_release ("9d3f") names a release, but there is no directory of releases',
    ),
    "unknown-network": (
        {"gunicorn_systemd_network": "some"},
        "gunicorn_systemd_network",
    ),
    "typing-error": (
        {"gunicorn_systemd_treads": 4},
        "gunicorn_systemd_treads is not a variable of role gunicorn_systemd; did you mean "
        "gunicorn_systemd_threads?",
    ),
    "wrong-type": (
        {"gunicorn_systemd_workers": "many"},
        "gunicorn_systemd_workers",
    ),
    "no-name": (
        {"gunicorn_systemd_name": None},
        "gunicorn_systemd_name",
    ),
}

OTHER = {"protocol": "tcp", "address": "127.0.0.1", "port": 5000, "program": "flask", "pid": 42}
HOSTS: dict[str, tuple[Case, str]] = {
    "unsupported-system": (
        Case(REQUIRED, {"distribution": "alpine", "pretty_name": "Alpine Linux 3.22"}),
        "the host runs Alpine Linux 3.22 (family alpine); role gunicorn_systemd supports",
    ),
    "without-systemd": (
        Case(REQUIRED, {"systemd": {"running": False, "version": 0}}),
        "the host is not run by systemd",
    ),
    "old-systemd": (
        Case(REQUIRED, {"systemd": {"running": True, "version": 239}}),
        "systemd on the host is too old for credentials and for a part of the sandbox",
    ),
    "somebody-elses-unit": (
        Case(REQUIRED, {"foreign_files": [f"/etc/systemd/system/{NAME}.service"]}),
        "gunicorn_systemd_take_over (false) does not allow replacing what somebody else wrote for "
        f"a service of that name: /etc/systemd/system/{NAME}.service",
    ),
    "somebody-as-the-user": (
        Case({**REQUIRED, "gunicorn_systemd_user": "anna"}, {"logins": ["root", "anna"]}),
        'gunicorn_systemd_user ("anna") is a user who can log in on this host',
    ),
    "port-of-another-program": (
        Case(REQUIRED, {"listeners": [{**OTHER, "unit": "other.service"}]}),
        "gunicorn_systemd_bind needs port 5000, but flask (pid 42, other.service) listens",
    ),
    "port-of-another-socket-unit": (
        Case(
            REQUIRED,
            {"listeners": [{**OTHER, "program": "systemd", "pid": 1, "unit": "other.socket"}]},
        ),
        "gunicorn_systemd_bind needs port 5000, but systemd (pid 1, other.socket) listens on",
    ),
    "full-disk": (
        Case(REQUIRED, {"mounts": {"/": 20}}),
        "/etc and /var has 20 MiB free on the file system /; 60 MiB are needed",
    ),
}
GOOD: dict[str, Case] = {
    **{variant: Case(variables) for variant, variables in VARIANTS.items()},
    "ipv6": Case({**REQUIRED, "gunicorn_systemd_bind": ["127.0.0.1:5000", "[::1]:5000"]}),
    "factory": Case({**REQUIRED, "gunicorn_systemd_wsgi_app": "shop.wsgi:create_app('eu')"}),
    "its-own-port": Case(
        REQUIRED, {"listeners": [{**OTHER, "program": "systemd", "pid": 1, "unit": "shop.socket"}]}
    ),
}


def packs() -> dict[str, list[str]]:
    """Guards that can be tried together, by the first of them: no two set the same variable.

    preflight reports every problem at once, and a play for each guard would take a minute.
    """
    together: dict[str, list[str]] = {}
    for guard, (variables, _) in GUARDS.items():
        for names in together.values():
            if not any(set(variables) & set(GUARDS[name][0]) for name in names):
                names.append(guard)
                break
        else:
            together[guard] = [guard]
    return together


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What preflight says to each case."""
    cases = {name: Case({**REQUIRED, **variables}) for name, (variables, _) in ALONE.items()}
    cases |= {name: case for name, (case, _) in HOSTS.items()} | GOOD
    for first, names in packs().items():
        cases[first] = Case({**REQUIRED, **{k: v for n in names for k, v in GUARDS[n][0].items()}})
    answers = preflight(ROLE, cases)
    return answers | {name: answers[first] for first, names in packs().items() for name in names}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_health_check_is_told_what_the_variables_say(family: str, tmp_path: Path) -> None:
    """In units that systemd takes, with every member that the program knows."""
    told = {**REQUIRED, "gunicorn_systemd_health_path": "/healthz"}
    settings = json.loads(render(ROLE, "health.json.j2", family, **told))
    assert settings == {
        "name": NAME,
        "ready_path": "/",
        "ready_status": 200,
        "live_path": "/healthz",
        "host": "localhost",
        "timeout": 5,
        "failures": 3,
        "interval": 10,
        "restarts_per_hour": 3,
        "python": REQUIRED["gunicorn_systemd_python"],
    }
    for kind in ("service", "timer"):
        text = render(ROLE, f"health.{kind}.j2", family, **told)
        text = text.replace("/usr/local/sbin/shop", "/bin/true")
        (tmp_path / f"shop-health.{kind}").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
    )
    mine = [line for line in (done.stdout + done.stderr).splitlines() if "shop-health" in line]
    assert (done.returncode, mine) == (0, [])


@pytest.mark.parametrize("guard", [*GUARDS, *ALONE, *HOSTS])
def test_preflight_names_what_is_wrong(guard: str, said: dict[str, str]) -> None:
    """A bad value stops the run before anything is touched, and the message says what to do."""
    expected = (GUARDS | ALONE | HOSTS)[guard][1]
    assert expected in said[guard]
    assert "Nothing was changed on" in said[guard]
    assert "secret-7f3a" not in said[guard]


@pytest.mark.parametrize("case", GOOD)
def test_preflight_lets_good_variables_pass(case: str, said: dict[str, str]) -> None:
    """One that always complains would pass every test above."""
    assert said[case] == ""


def test_every_rule_has_a_case() -> None:
    """A guard that nobody saw refuse something may never do."""
    tasks = yaml.safe_load((ROLES / ROLE / "tasks" / "preflight.yml").read_text())
    problems = {rule["problem"].strip() for rule in tasks[0]["wsgi.host.preflight"]["rules"]}
    expected = " ".join(text for _, text in (GUARDS | ALONE | HOSTS).values())
    for problem in problems:
        assert problem[:20] in expected, problem
