"""What a start costs: a deploy, a rollback and each command wait for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support import SECRET

APP = Path(__file__).resolve().parents[1]
# Migrations, sessions of asyncio, and the database that is not used.
NOT_TO_SERVE = ("alembic", "mako", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql")
NOT_FOR_COMMANDS = (*NOT_TO_SERVE, "toll.serving", "toll.api", "toll.pages", "prometheus_client")
REQUESTS = """
import json, sys
from app import app
from toll.database import db

client = app.test_client()
before = set(sys.modules)
key = {"Authorization": f"Bearer {sys.argv[1]}", "Idempotency-Key": "1"}
passage = {
    "plaza": "harbour-bridge", "lane": "3", "class": "car", "plate": "AB-12-CD",
    "passed_at": "2026-05-04T07:15:00Z", "payment_method": "tag",
}
statuses = {
    path: client.get(path, headers=key).status_code
    for path in (
        "/", "/login", "/dashboard", "/api", "/api/v1/openapi.json", "/healthz", "/readyz",
        "/metrics", "/api/v1/quote?plaza=harbour-bridge&class=car", "/api/v1/passages",
        "/api/v1/passages.csv", "/api/v1/revenue?group=day", "/api/v1/quote?plaza=none",
    )
}
statuses["record"] = client.post("/api/v1/passages", json=passage, headers=key).status_code
form = {"name": "nobody", "password": "wrong"}
statuses["log in"] = client.post("/login", data=form).status_code
print(json.dumps([statuses, sorted(set(sys.modules) - before)]))
"""


def python(tmp_path: Path, *arguments: str, **environment: str) -> str:
    """Run Python beside the application; return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=APP,
        env={
            "TOLL_SECRET_KEY": SECRET,
            "TOLL_DATABASE_URL": f"sqlite:///{tmp_path}/toll.db",
            "TOLL_METRICS_DIRECTORY": str(tmp_path / "metrics"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def flask(tmp_path: Path, *arguments: str) -> str:
    return python(tmp_path, "-m", "flask", "--app", "app", "toll", *arguments)


def loaded(names: tuple[str, ...]) -> str:
    """Return a program's last line, which prints those of the modules that it has imported."""
    return f"print(json.dumps([each for each in {names!r} if each in sys.modules]))"


def test_the_application_imports_nothing_that_only_migrations_need(tmp_path):
    """Together these were a third of a start."""
    assert (
        json.loads(python(tmp_path, "-c", f"import json, sys, app; {loaded(NOT_TO_SERVE)}")) == []
    )


def test_a_command_imports_nothing_that_answers_requests(tmp_path):
    """A deploy asks `toll schema` several times. Flask itself imports what has commands for it."""
    program = (
        "import json, sys; from flask.cli import main\n"
        "sys.argv = ['flask', '--app', 'app', 'toll', 'schema', '--code']\n"
        f"try: main()\nexcept SystemExit: {loaded(NOT_FOR_COMMANDS)}"
    )
    code, imported = python(tmp_path, "-c", program).splitlines()
    assert json.loads(code)["head"]
    assert json.loads(imported) == []


def test_other_commands_of_flask_have_all_routes(tmp_path):
    assert "/api/v1/quote" in python(tmp_path, "-m", "flask", "--app", "app", "routes")


def test_requests_import_nothing(tmp_path):
    """Each worker would do it again after the fork, and fail when the interpreter was upgraded."""
    flask(tmp_path, "migrate")
    flask(tmp_path, "demo", "seed", "--passages", "20")
    key = flask(tmp_path, "key", "create", "lane", "--role", "recorder").strip()
    statuses, imported = json.loads(python(tmp_path, "-c", REQUESTS, key))
    assert statuses["record"] == 201
    assert max(statuses.values()) < 500
    # The test client needs two codecs, and Pydantic a module of its own for the document.
    others = ("encodings.", "stringprep", "pydantic._internal._dataclasses")
    assert [each for each in imported if not each.startswith(others)] == []


def test_garbage_is_collected_after_the_start(tmp_path):
    """It is not while the application is imported, and what that made is not looked at again."""
    program = "import gc, app; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    assert python(tmp_path, "-c", program).split() == ["True", "True"]
