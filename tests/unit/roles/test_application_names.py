"""What an application cannot be called: it would take what is somebody else's on the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import trusted

from .describing import shop
from .preflight import Case, preflight
from .render import ROLES, evaluate

ROLE = "application"
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
# Of the applications that examples describe.
EXAMPLES = {"shop", "blog", "toll-app", "name"}
# Where an application has something under its own name, and what ends a name there.
PLACES = re.compile(
    r"/(?:etc|opt|run|usr/local/(?:lib|sbin)|var/(?:backups|cache|lib|log|spool|www))"
    r"/([a-z][a-z0-9-]*)(?=[\s/'\",:)\]]|$)",
    re.MULTILINE,
)
UNITS = re.compile(r"/etc/systemd/system/([a-z][a-z0-9-]*)\.(?:service|socket|timer)")
DIRECTORIES = re.compile(r"(?:Runtime|State|Logs|Cache|Configuration)Directory=([a-z0-9-]+)$", re.M)
OURS = "is a name that this project uses itself, for files, a unit or a directory of the host"
SYSTEMS = "is a name that systems use themselves, for a user, a group, a service or a directory"


def named(name: str) -> Case:
    return Case({"applications": {name: shop()["applications"]["shop"]}})


def names(variable: str) -> set[str]:
    return set(evaluate(ROLE, variable, "Debian", **trusted(shop())))


def files(*folders: str) -> list[Path]:
    """Files of all roles in folders of theirs."""
    return [
        path
        for folder in folders
        for path in sorted(ROLES.glob(f"*/{folder}/**/*"))
        if path.is_file()
    ]


def tasks(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every task, those in blocks included."""
    for task in listed:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part, []))


def trees() -> Iterator[tuple[str, Any]]:
    """The name of each tree of files that a role has, as it is written, and what it loops over."""
    for path in files("tasks", "handlers"):
        for task in tasks(yaml.safe_load(path.read_text()) or []):
            if told := task.get("wsgi.host.config_tree"):
                yield told["name"], task.get("loop", "")


def project_trees() -> set[str]:
    """Those that are not an application's."""
    found = {name for name, _ in trees() if NAME.fullmatch(name)}
    looped = [str(loop) for name, loop in trees() if not NAME.fullmatch(name)]
    return found | {each for loop in looped for each in re.findall(r"'([a-z][a-z0-9-]*)'", loop)}


def test_no_application_is_called_like_a_tree_of_a_role() -> None:
    """Each would remove the files of the other."""
    found = project_trees()
    assert {"nginx", "applications-journal", "monitoring-nginx", "postgresql-cluster"} <= found
    assert found - names("__application_project_names") == set()


def test_no_tree_of_a_role_is_called_like_a_part_of_an_application() -> None:
    suffixes = {name.rpartition("}}")[2] for name, _ in trees() if "}}-" in name}
    assert {"-health", "-backup", "-description"} <= suffixes
    assert [name for name in project_trees() if name.endswith(tuple(suffixes))] == []


def test_no_application_is_called_like_a_place_of_a_role() -> None:
    """A removal takes the directories of that name away, whoever has put something there."""
    found = set()
    for path in files("tasks", "handlers", "defaults", "vars", "templates"):
        text = path.read_text()
        found |= {each for form in (PLACES, UNITS, DIRECTORIES) for each in form.findall(text)}
    assert {"host-firewall", "certificates", "letsencrypt", "postgresql-archive"} <= found
    known = names("__application_project_names") | names("__application_system_names") | EXAMPLES
    assert {each for each in found if not each.startswith("systemd")} - known == set()


@pytest.mark.parametrize("file", ["passwd", "group"])
def test_no_application_is_called_like_a_user_or_group_of_debian(file: str) -> None:
    """It would run as that user, or with the rights of that group."""
    path = Path(f"/usr/share/base-passwd/{file}.master")
    if not path.is_file():
        pytest.skip("only Debian has the list")
    found = {line.split(":")[0] for line in path.read_text().splitlines()}
    assert {each for each in found if NAME.fullmatch(each)} - names(
        "__application_system_names"
    ) == set()


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What preflight says to each name."""
    every = names("__application_project_names") | names("__application_system_names")
    wanted = {*sorted(every)[::10], *TAKEN, *FREE}
    return preflight(ROLE, {name: named(name) for name in wanted})


TAKEN = {
    **dict.fromkeys(
        ("nginx", "monitoring", "postgresql", "certbot", "haproxy", "config-tree"), OURS
    ),
    **dict.fromkeys(("certificates", "host-firewall", "postgresql-pooler", "gunicorn"), OURS),
    **dict.fromkeys(("mail", "www-data", "backup", "redis", "postgres"), SYSTEMS),
    "systemd-network": SYSTEMS,
    # A group of that name has rights, a service is the system's, a directory would be removed.
    **dict.fromkeys(("sudo", "docker", "sshd", "cron", "ssl", "apt"), SYSTEMS),
}
FREE = ("shop", "mailer", "nginx-admin", "toll-app", "backups", "systemdoctor")


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_is_taken_is_refused(name: str, said: dict[str, str]) -> None:
    remedy = f"choose another name, for example {name}-app"
    assert f"applications.{name}.name {TAKEN[name]}: {remedy}" in said[name]
    assert "Nothing was changed on" in said[name]


def test_every_name_of_the_lists_is_refused(said: dict[str, str]) -> None:
    assert [name for name, text in said.items() if not text and name not in FREE] == []


@pytest.mark.parametrize("name", FREE)
def test_a_name_that_is_nobodys_passes(name: str, said: dict[str, str]) -> None:
    assert said[name] == ""
