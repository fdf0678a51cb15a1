"""The Redis of an application: what its unit and settings say, and what follows for the service."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from .described import NAME, problems, whole
from .render import FAMILIES, evaluate, render

UNIT = f"{NAME}-redis.service"


def rendered(template: str, told: Any, family: str = "Debian") -> str:
    description = whole({"redis": told}, family)
    variables = {"__application_entry": description, "__application_name": NAME}
    return render("application", template, family, **variables)


def test_one_line_is_enough() -> None:
    """The application finds it, and starts after it; without it nothing changes."""
    with_it = whole({"redis": True, "environment": {"A": "1"}, "web": {"after": ["x.service"]}})
    url = f"unix:///run/{NAME}-redis/redis.sock?db=0"
    assert with_it["environment"] == {"REDIS_URL": url, "A": "1"}
    assert with_it["service"]["after"] == ["x.service", UNIT]
    for told in ({}, {"redis": False}, {"redis": {"enabled": False, "policy": "allkeys-lru"}}):
        without = whole(told)
        assert without["environment"] == {}
        assert UNIT not in without["service"]["after"]
    assert whole({"redis": {"policy": "allkeys-lru"}})["redis"]["enabled"]


def test_an_address_of_its_own_stays() -> None:
    own = {"REDIS_URL": "redis://cache.example.com/0"}
    assert whole({"redis": True, "environment": own})["environment"] == own


def test_nobody_else_reaches_it() -> None:
    settings = rendered("redis.conf.j2", True)
    unit = rendered("redis.service.j2", True)
    assert "\nport 0\n" in settings
    assert "\nunixsocketperm 700\n" in settings
    assert f"\nUser={NAME}\n" in unit
    assert "\nRuntimeDirectoryMode=0700\n" in unit
    assert "\nPrivateNetwork=yes\n" in unit


@pytest.mark.parametrize(("told", "line"), [(True, "yes"), ({"persistence": False}, "no")])
def test_what_it_holds_is_kept_or_not(told: Any, line: str) -> None:
    text = rendered("redis.conf.j2", told)
    assert f"\nappendonly {line}\n" in text
    assert f"\ndir /var/lib/{NAME}-redis\n" in text


def test_it_may_take_more_than_it_stores() -> None:
    """A rewrite of its file copies what changes meanwhile; the kernel would kill it there."""
    told = {"memory_max": "1G", "policy": "allkeys-lru"}
    assert "\nmaxmemory 1073741824\nmaxmemory-policy allkeys-lru\n" in rendered(
        "redis.conf.j2", told
    )
    assert "\nMemoryMax=2214592512\n" in rendered("redis.service.j2", told)


@pytest.mark.parametrize(
    ("told", "about", "said"),
    [
        (True, "redis.memory_max", None),
        ({"memory_max": "half"}, "redis.memory_max", "is not an amount of memory"),
        ({"memory_max": "4G"}, "redis.memory_max", "and the host has 2048 MiB"),
    ],
)
def test_its_memory_is_there(told: Any, about: str, said: str | None) -> None:
    found = problems({"redis": told}, about)
    assert bool(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    ("family", "distribution", "version", "package"),
    [
        ("Debian", "debian", "12", "redis-server"),
        ("Debian", "debian", "13", "valkey-server"),
        ("Debian", "ubuntu", "24.04", "redis-server"),
        ("RedHat", "rocky", "9.6", "redis"),
        ("RedHat", "rocky", "10.0", "valkey"),
        ("RedHat", "fedora", "42", "valkey"),
    ],
)
def test_the_distribution_has_the_package(
    family: str, distribution: str, version: str, package: str
) -> None:
    facts = {"distribution": distribution, "distribution_version": version}
    assert (
        evaluate("application", "__application_redis_package", family, wsgi_host=facts) == package
    )
    program = evaluate("application", "__application_redis_program", family, wsgi_host=facts)
    assert program in ("/usr/bin/redis-server", "/usr/bin/valkey-server")


@pytest.mark.parametrize("family", FAMILIES)
def test_systemd_takes_the_unit(tmp_path: Path, family: str) -> None:
    path = tmp_path / UNIT
    program = evaluate("application", "__application_redis_program", family)
    text = rendered("redis.service.j2", True, family)
    path.write_text(text.replace(program, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("other", ["redis", "timer", "worker", "timer-a"])
def test_its_units_are_no_other_application(other: str) -> None:
    """A deploy of shop stopped shop-timer-backup.timer, the backups of shop-timer."""
    entries: dict[str, dict[str, str]] = {"shop": {}, f"shop-{other}": {}, "shop-timers": {}}
    variables = {"__application_entries": entries, "__application_name": "shop"}
    assert evaluate("application", "__application_taken_names", "Debian", **variables) == [
        f"shop-{other}"
    ]
