"""The application's role: what it refuses, and what it tells the roles that it composes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .preflight import Case, preflight
from .render import FAMILIES, ROLES, evaluate

ROLE = "toll_app"
REQUIRED: dict[str, Any] = {"toll_app_domains": ["app.example.com"]}

# What is set, and what is said about it.
GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "no domain": ({"toll_app_domains": []}, "toll_app_domains"),
    "a domain twice": (
        {"toll_app_domains": ["a.example.com", "a.example.com"]},
        "names a domain twice",
    ),
    "a domain that is none": (
        {"toll_app_domains": ["https://app.example.com/"]},
        "toll_app_domains",
    ),
    "a short key": ({"toll_app_secret_key": "tiny-7f3a"}, "is shorter than 32 characters"),
    "a key for everybody": (
        {"toll_app_environment": {"TOLL_SECRET_KEY": "seen-7f3a"}},
        "every process on the host could read",
    ),
    "a word for a number": ({"toll_app_check_time_limit": "soon"}, "toll_app_check_time_limit"),
    "a typing error": ({"toll_app_domain": ["a.example.com"]}, "toll_app_domains"),
}
HOSTS: dict[str, tuple[Case, str]] = {
    "another system": (
        Case(REQUIRED, {"family": "alpine", "pretty_name": "Alpine Linux 3.22"}),
        "Alpine Linux 3.22",
    ),
    "no systemd": (Case(REQUIRED, {"systemd": {"running": False, "version": 0}}), "systemd"),
    "a full disk": (Case(REQUIRED, {"mounts": {"/": 20}}), "MiB"),
}
GOOD = {
    "the least": Case(REQUIRED),
    "a key": Case({**REQUIRED, "toll_app_secret_key": "k" * 32}),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What preflight says to each case."""
    cases = {name: Case({**REQUIRED, **variables}) for name, (variables, _) in GUARDS.items()}
    cases |= {name: case for name, (case, _) in HOSTS.items()} | GOOD
    return preflight(ROLE, cases, tmp_path_factory.mktemp("preflight"))


@pytest.mark.parametrize("guard", [*GUARDS, *HOSTS])
def test_preflight_names_what_is_wrong(guard: str, said: dict[str, str]) -> None:
    expected = (GUARDS | HOSTS)[guard][1]
    assert expected in said[guard]
    assert "Nothing was changed on" in said[guard]


@pytest.mark.parametrize("guard", ["a short key"])
def test_preflight_does_not_show_a_secret(guard: str, said: dict[str, str]) -> None:
    assert "7f3a" not in said[guard]


@pytest.mark.parametrize("case", GOOD)
def test_preflight_lets_good_variables_pass(case: str, said: dict[str, str]) -> None:
    """One that always complains would pass every test above."""
    assert said[case] == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_credential_is_the_vaults_or_made_by_the_host(family: str) -> None:
    own = evaluate(ROLE, "__toll_app_credentials", family, **REQUIRED)
    assert own == [{"name": "secret_key", "random": 32}]
    given = evaluate(
        ROLE, "__toll_app_credentials", family, **REQUIRED, toll_app_secret_key="k" * 32
    )
    assert given == [{"name": "secret_key", "value": "k" * 32}]


def test_the_three_roles_know_nothing_of_the_application() -> None:
    """They serve any WSGI application, so none of their files names this one."""
    for role in ("nginx", "certbot", "gunicorn_systemd"):
        for path in sorted((ROLES / role).rglob("*")):
            # Who maintains a role is not what it knows.
            if path.is_file() and path.suffix in (".yml", ".j2") and path.parent.name != "meta":
                text = path.read_text()
                assert "toll_app" not in text, path
                assert "toll-app" not in text, path


def test_every_stage_of_a_role_is_told_the_same() -> None:
    """A preflight that checks other values than those that are used afterwards checks nothing."""
    told: dict[str, list[Any]] = {}
    for task in yaml.safe_load((ROLES / ROLE / "tasks" / "main.yml").read_text()):
        if imported := task.get("ansible.builtin.import_role"):
            told.setdefault(imported["name"], []).append(task["vars"])
    assert set(told) == {"nginx", "certbot", "gunicorn_systemd"}
    for variables in told.values():
        assert len(variables) > 1
        assert all(each == variables[0] for each in variables)
