"""`flask toll …`, as an operator and as the deployment use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from support import SECRET

from toll import Settings, create_app, schema
from toll.models import Passage
from toll.services import accounts, passages, tariffs

APP = Path(__file__).resolve().parents[1]
PASSWORD = "seven random words for anna"
one = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def toll(app):
    """Run a command; return its exit code, output and errors."""

    def run(*arguments: str, stdin: str | None = None, of: Flask = app) -> tuple[int, str, str]:
        result = of.test_cli_runner().invoke(args=["toll", *arguments], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


def test_users(toll, session):
    code, out, _ = toll("user", "create", "anna", "--role", "operator")
    assert code == 0
    password = out.split("shown this once: ")[1].strip()
    assert accounts.verify_password(session, "anna", password).role == "operator"

    code, out, _ = toll("user", "password", "anna", "--password-file", "-", stdin=PASSWORD + "\n")
    assert (code, out) == (0, "anna has another password.\n")
    session.rollback()
    assert accounts.verify_password(session, "anna", PASSWORD)
    assert re.match(r"anna +operator +\d{4}-\d\d-\d\d\n", toll("user", "list")[1])

    assert toll("user", "disable", "anna")[0] == 0
    session.rollback()
    assert accounts.verify_password(session, "anna", PASSWORD) is None
    assert "disabled" in toll("user", "list")[1]


def test_the_first_admin_is_made_once(toll, session, tmp_path):
    """The deployment runs it each time, and must not set a changed password back."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n# of the admin\n")
    create = ("user", "create", "admin", "--role", "admin", "--if-absent")
    code, out, _ = toll(*create, "--password-file", str(file))
    assert (code, out) == (0, "admin (admin) was created.\n")
    file.write_text("some other random words")
    code, out, _ = toll(*create, "--password-file", str(file))
    assert (code, out) == (0, "admin is there already.\n")
    assert accounts.verify_password(session, "admin", PASSWORD)
    # What programs read is no English.
    again = toll(*create, "--json", "--password-file", str(file))[1]
    assert json.loads(again) == {"changed": False}
    other = ("user", "create", "boss", "--role", "admin", "--if-absent", "--json")
    assert json.loads(toll(*other, "--password-file", str(file))[1]) == {"changed": True}
    code, out, error = toll(*other)
    assert (code, out) == (2, "")
    assert "--json needs --password-file" in error


@one
@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("user", "create", "anna", "--role", "admin", "--password-file", "-"), "x",
         "password has 1 characters. Take 12 to 200 characters."),
        (("user", "create", "Anna B", "--role", "admin"), None, "name 'Anna B' is not a name."),
        (("user", "password", "nobody"), None, "There is no user 'nobody'. There are: none"),
        (("user", "disable", "nobody"), None, "There is no user 'nobody'"),
        (("user", "logout", "nobody"), None, "There is no user 'nobody'"),
        (("user", "role", "nobody", "admin"), None, "There is no user 'nobody'"),
        (("user", "remove", "nobody", "--yes"), None, "There is no user 'nobody'"),
        (("key", "revoke", "nothing"), None, "name 'nothing' is not known."),
        (("key", "create", "a b", "--role", "reader"), None, "name 'a b' is not a name."),
        (("tariffs", "list", "--plaza", "moon"), None, "plaza 'moon' is not known."),
        (("downgrade", "9999", "--yes"), None, "cannot be brought to 9999"),
        (("backup", "/none/copy"), None, "/none/copy cannot be written"),
        (("restore", "/none/copy"), None, "/none/copy is not there"),
        (("plaza", "create", "x", "--name", "X", "--road", "R", "--time-zone", "Mars/Base",
          "--currency", "EUR"), None, "time_zone 'Mars/Base' is no time zone."),
    ],
)  # fmt: skip
def test_mistakes_are_answered_with_one_message(toll, arguments, stdin, words):
    code, out, err = toll(*arguments, stdin=stdin)
    assert code == 1
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_keys(toll, session):
    code, out, err = toll("key", "create", "lane-7", "--role", "recorder")
    assert code == 0
    assert "shown this once" in err
    # Standard output is the key and nothing else: a script can take it.
    assert accounts.find_key(session, out.strip()).name == "lane-7"
    _, listed, _ = toll("key", "list")
    assert out.strip()[:13] in listed
    assert out.strip() not in listed
    assert toll("key", "revoke", "lane-7")[0] == 0
    session.rollback()
    assert accounts.find_key(session, out.strip()) is None
    assert "revoked" in toll("key", "list")[1]


def test_tariffs_from_a_file(toll, session, tmp_path):
    file = tmp_path / "tariffs.csv"
    # Spreadsheets begin UTF-8 with a mark.
    file.write_text(
        "\ufeffplaza,class,name,amount,valid_from\nharbour-bridge,car,New,400,2030-01-01T00:00\n"
    )
    assert toll("tariffs", "import", str(file), "--dry-run")[1] == "1 tariffs would be created.\n"
    assert len(tariffs.list_tariffs(session, "harbour-bridge", "car")) == 1
    assert toll("tariffs", "import", str(file))[1] == "1 tariffs were created.\n"
    session.rollback()
    assert len(tariffs.list_tariffs(session, "harbour-bridge", "car")) == 2
    _, out, _ = toll("tariffs", "list", "--plaza", "harbour-bridge")
    assert "4.00 EUR  harbour-bridge car: New, from 2030-01-01T00:00" in out
    assert "3.20 EUR  Peak: Monday to Friday, 07:00\N{EN DASH}10:00" in out

    code, _, err = toll("tariffs", "import", str(file))
    assert code == 1
    assert err.startswith("line 2: valid_until overlaps the tariff New")
    assert "1 errors: nothing was imported" in err


@one
def test_a_file_that_is_not_text(toll, tmp_path):
    file = tmp_path / "tariffs.csv"
    file.write_bytes(b"plaza,class\xff\xfe\n")
    code, _, err = toll("tariffs", "import", str(file))
    assert code == 1
    assert "cannot be read as CSV" in err
    assert "Traceback" not in err


@one
def test_plazas_and_classes(toll):
    create = ("plaza", "create", "pass", "--name", "Pass", "--road", "H1")
    assert toll(*create, "--time-zone", "Asia/Kathmandu", "--currency", "NPR")[0] == 0
    assert re.search(r"^pass +NPR Asia/Kathmandu +Pass, H1$", toll("plaza", "list")[1], re.M)
    assert toll("class", "create", "road-train", "--name", "Road train")[0] == 0
    assert toll("class", "list")[1].splitlines()[-1].split() == ["road-train", "Road", "train"]


def test_the_demo_is_seeded_once(toll, session):
    code, out, _ = toll("demo", "seed", "--passages", "300")
    assert (code, out) == (0, "0 tariffs and 300 passages were made.\n")
    assert toll("demo", "seed", "--passages", "300")[1] == "0 tariffs and 0 passages were made.\n"
    assert passages.count(session, passages.PassageFilter()) == 300
    assert accounts.list_users(session) == [], "nobody is let in unasked"
    session.rollback()
    _, out, _ = toll("demo", "seed", "--users")
    for name in ("admin", "operator", "viewer"):
        password = re.search(rf"User {name}, password, shown this once: (\S+)", out)[1]
        assert accounts.verify_password(session, name, password).role == name


def test_the_demo_charges_as_recording_would(toll, session):
    toll("demo", "seed", "--passages", "200")
    for each in session.scalars(sa.select(Passage)):
        quote = tariffs.quote(session, each.plaza.code, each.vehicle_class.code, each.passed_at)
        assert (each.amount, each.tariff_name, each.window_id, each.tariff_id) == (
            quote.amount, quote.name, quote.window and quote.window.id, quote.tariff.id
        )  # fmt: skip


def test_a_database_from_nothing(empty_url, toll, tmp_path):
    """What a deployment does, in its order."""
    new = create_app(Settings(secret_key=SECRET, database_url=empty_url))
    assert toll("schema", of=new)[0] == 1
    code, out, _ = toll("migrate", of=new)
    assert code == 0
    assert out.startswith("0001 The first schema.\n")
    assert toll("migrate", of=new)[1] == f"The schema is {schema.head()} already.\n"
    code, out, _ = toll("schema", "--json", of=new)
    assert code == 0
    assert json.loads(out)["compatible"] is True
    assert toll("demo", "seed", "--passages", "10", of=new)[1].startswith("12 tariffs and 10")
    assert toll("backup", str(tmp_path / "copy"), of=new)[0] == 0
    before = json.loads(toll("counts", of=new)[1])
    assert before["schema"] == schema.head()
    assert (before["tables"]["tariffs"], before["tables"]["passages"]) == (12, 10)
    assert json.loads(toll("schema", "--code", of=new)[1]) == {
        "head": schema.head(),
        "known": schema.known_revisions(),
    }
    assert toll("prune", of=new)[1] == "0 idempotency keys were forgotten.\n"
    code, out, _ = toll("restore", str(tmp_path / "copy"), of=new)
    assert code == 0
    assert "What it replaced: " in out
    assert json.loads(toll("counts", of=new)[1]) == before
    code, _, _ = toll("downgrade", "base", stdin="n\n", of=new)
    assert code == 1
    undone = toll("downgrade", "base", "--yes", of=new)[1]
    assert undone.endswith("undone: 0001 The first schema.\n")
    assert toll("user", "list", of=new)[0] == 1


@one
def test_a_copy_comes_and_goes_through_pipes(app, toll):
    """The program that keeps copies reads and writes them as root, and the application does not."""
    runner = app.test_cli_runner()
    done = runner.invoke(args=["toll", "backup", "-"])
    assert done.exit_code == 0
    assert done.stdout_bytes.startswith(b"SQLite format 3\0")
    tariffs_before = json.loads(toll("counts")[1])["tables"]["tariffs"]
    done = runner.invoke(args=["toll", "restore", "-", "--no-keep"], input=done.stdout_bytes)
    assert (done.exit_code, done.stdout) == (0, "The copy is the database now.\n")
    assert json.loads(toll("counts")[1])["tables"]["tariffs"] == tariffs_before > 0


@one
def test_what_the_code_needs_is_known_without_a_database(toll, tmp_path):
    """A copy is judged before it replaces a database that may be past reading."""
    unreachable = create_app(
        Settings(secret_key=SECRET, database_url=f"sqlite:///{tmp_path}/none/toll.db")
    )
    code, out, _ = toll("schema", "--code", of=unreachable)
    assert (code, json.loads(out)["head"]) == (0, schema.head())


@one
def test_a_database_that_cannot_be_reached(toll, tmp_path):
    for url in (
        f"sqlite:///{tmp_path}/none/toll.db",
        f"postgresql://toll:hunter2@/toll?host={tmp_path}",
    ):
        unreachable = create_app(Settings(secret_key=SECRET, database_url=url))
        for arguments in (["migrate"], ["schema"], ["user", "list"]):
            code, _, err = toll(*arguments, of=unreachable)
            assert code == 1
            assert "The database cannot do it" in err
            assert "hunter2" not in err


@one
def test_as_a_program_on_a_host(database_url, tmp_path):
    """With nothing but systemd's environment, where only the state directory is writable."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "secret_key").write_text(SECRET)
    environment = {
        "PATH": os.environ["PATH"],
        "STATE_DIRECTORY": str(state),
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    flask = [sys.executable, "-m", "flask", "--app", "app", "toll"]
    for arguments, words in ((["migrate"], "0001 The first schema."), (["schema"], "good")):
        done = subprocess.run(
            [*flask, *arguments], cwd=APP, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    assert (state / "toll.db").exists()
