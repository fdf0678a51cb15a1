"""The description of toll-app, held to the application that it is of."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import Any

import pytest

from .describing import toll_app
from .preflight import Case, preflight
from .render import ROLES, evaluate

ROLE = "toll_app"
SECRET = "hush-hush-7f3a"
# Reads commands, as words behind `flask toll`, and fails for one that is not there.
FOLLOW = """
import json, sys
import click
from toll import cli
for words in json.load(sys.stdin):
    command = cli.toll
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, words
"""


def described(**variables: Any) -> dict[str, Any]:
    of_a_host = {"inventory_hostname": "web1", "role_path": str(ROLES / ROLE)}
    found: dict[str, Any] = evaluate(
        ROLE, "toll_app_application", "Debian", **of_a_host, **variables
    )
    return found


def test_commands_that_the_host_runs_are_those_of_the_application() -> None:
    """A deploy would end at "No such command", after the copy of the database."""
    told = described(toll_app_admin_password=SECRET, toll_app_demo=True)["data"]
    start = [*told["commands"].pop("flask"), "toll"]
    commands = [*told["commands"].values(), *(seed["words"] for seed in told["seeds"])]
    assert [words[: len(start)] for words in commands] == [start] * len(commands)
    result = subprocess.run(
        [sys.executable, "-c", FOLLOW],
        cwd=ROLES.parent / "app",
        input=json.dumps([words[len(start) :] for words in commands]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_files_that_the_description_names_are_there() -> None:
    told = described()
    app = ROLES.parent / "app"
    assert (app / told["static"]).is_dir()
    assert (ROLES.parent / told["data"]["packaged"]).is_file()
    assert (app / f"{told['wsgi'].split(':')[0]}.py").is_file()


def test_nginx_asks_its_cache_for_what_the_application_shares() -> None:
    """A path that is missing here is slow; one too many makes its clients wait for each other."""
    views = ast.parse((ROLES.parent / "app/toll/api/views.py").read_text())
    shared = set()
    for view in (each for each in views.body if isinstance(each, ast.FunctionDef)):
        if "answer_everybody(" in ast.unparse(view) and view.decorator_list:
            route = view.decorator_list[0]
            assert isinstance(route, ast.Call)
            shared.add(f"/api/v1{ast.literal_eval(route.args[0])}")
    assert shared
    assert set(described()["site"]["cache"]["locations"]) == shared


def test_a_password_is_in_no_command() -> None:
    (admin,) = described(toll_app_admin_name="anna", toll_app_admin_password=SECRET)["data"][
        "seeds"
    ]
    assert (admin["name"], admin["key"], admin["stdin"]) == ("admin", "anna", SECRET)
    assert SECRET not in admin["words"]


# Reads names with passwords, and prints which of them the application makes a user of.
MAKE = """
import json, sys
from toll.services import accounts
told = [accounts._name_errors(n) + accounts._password_errors(p, n) for n, p in json.load(sys.stdin)]
print(json.dumps([not errors for errors in told]))
"""


def test_an_admin_that_the_application_refuses_is_refused_before() -> None:
    """On the host it would be, with the release shipped and the database migrated."""
    names = ["a", "0", "anna.b-c_d", "n" * 40, "n" * 41, "Anna", "anna@a.example", "-a", "_a", ".a"]
    admins = [(name, SECRET) for name in [*names, "\N{LATIN SMALL LETTER A WITH RING ABOVE}"]]
    admins += [("anna", (SECRET * 15)[:length]) for length in (11, 12, 200, 201)]
    admins += [("bridge", "Bridge" * times) for times in (2, 3, 4)] + [
        ("bridge-admin", "bridge-admin")
    ]
    result = subprocess.run(
        [sys.executable, "-c", MAKE],
        cwd=ROLES.parent / "app",
        input=json.dumps(admins),
        capture_output=True,
        text=True,
        check=True,
    )
    cases = {
        f"{name} {password}": Case(
            {**toll_app(), "toll_app_admin_name": name, "toll_app_admin_password": password}
        )
        for name, password in admins
    }
    said = preflight(ROLE, cases)
    assert [not said[case] for case in cases] == json.loads(result.stdout), said


@pytest.mark.parametrize(("password", "words"), [("", "make the first on web1"), (SECRET, "as ")])
def test_the_end_of_a_run_says_how_to_log_in(password: str, words: str) -> None:
    (note,) = described(toll_app_admin_password=password)["notes"]
    assert note.startswith("Log in: {address}login")
    assert words in note
    assert SECRET not in note
