"""A broken release that is not broken would prove nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import variants
from variants import Migration

# What each variant's program does when it is imported as gunicorn does, and asked for /readyz.
ASK = """
import json, os, sys, time
sys.path.insert(0, ".")
import app
def ask(path="/readyz"):
    found = {}
    def start(status, headers, *_):
        found["status"] = status
        found["release"] = dict(headers).get("X-Release", "")
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "seconds=0",
        "SERVER_NAME": "toll.test", "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https", "wsgi.input": sys.stdin.buffer, "wsgi.errors": sys.stderr,
    }
    found["body"] = b"".join(app.app(environ, start)).decode()
    return found
"""


# Stands for the application: what a variant needs of it, and quick to import.
STAND_IN = """
class App:
    def __init__(self):
        self.wsgi_app = self.answer

    def __call__(self, environ, start):
        return self.wsgi_app(environ, start)

    def answer(self, environ, start):
        start("200 OK", [("Content-Type", "application/json")])
        return [b'{"status": "ok", "release": "development"}']


app = App()
"""


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK + script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def answered(folder: Path, path: str = "/readyz") -> dict[str, Any]:
    done = run(folder, f"print(json.dumps(ask({path!r})))")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def made(tmp_path: Path):
    """Makes a variant called `r1` of something that stands for the application."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "app.py").write_text(STAND_IN)
    return lambda variant: variants.make(tmp_path, "r1", variant, app=app)


def test_a_marked_release_answers_as_itself(made):
    copy = made("marked")
    assert answered(copy, "/healthz")["status"] == "200 OK"
    assert answered(copy, "/healthz")["release"] == "r1"
    assert json.loads(answered(copy, "/proof/slow")["body"]) == {"slept": True}


def test_two_marks_are_two_releases(tmp_path):
    """Their files differ, so their ids will."""
    one, two = (variants.make(tmp_path, mark) for mark in ("r1", "r2"))
    assert (one / "mark").read_text() != (two / "mark").read_text()
    assert (one / "app.py").read_text() == (two / "app.py").read_text()


def test_the_application_itself_is_as_it_was(made):
    before = (variants.APP / "app.py").read_text()
    made("import_error")
    assert (variants.APP / "app.py").read_text() == before
    assert not (variants.APP / "variant.py").exists()


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("import_error", "ModuleNotFoundError"),
        ("exception_at_start", "this release cannot start"),
    ],
)
def test_it_cannot_be_imported(made, variant, said):
    done = run(made(variant), "")
    assert done.returncode != 0
    assert said in done.stderr


def test_it_is_never_ready(made):
    copy = made("never_ready")
    assert answered(copy)["status"].startswith("503")
    assert answered(copy, "/healthz")["status"] == "200 OK"


def test_it_goes_bad_after_a_while(made):
    copy = made("fails_in_the_bake")
    script = """
import variant
before = ask()["body"]
past = time.monotonic() + variant.GOOD_SECONDS + 1
variant.time.monotonic = lambda: past
print(json.dumps([before, ask()]))
"""
    done = run(copy, script)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert "gone bad" not in before
    assert after["status"].startswith("503")


def test_it_names_another_release(made):
    true = json.loads(answered(made("marked"), "/healthz")["body"])["release"]
    told = json.loads(answered(made("wrong_release"), "/healthz")["body"])["release"]
    assert re.fullmatch("[0-9a-f]{12}", told)
    assert told != true


@pytest.mark.parametrize("variant", ["slow_start", "never_answers", "takes_its_time"])
def test_it_waits(made, variant):
    """Its sleep is replaced by an exception that says how long it would have been."""
    patched = f"""
import time
def sleep(seconds):
    raise RuntimeError(f"slept {{seconds}}")
time.sleep = sleep
{ASK}
print(ask("/healthz"))
"""
    done = subprocess.run(
        [sys.executable, "-c", patched],
        cwd=made(variant),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode != 0
    assert f"slept {4 if variant == 'takes_its_time' else 3600}" in done.stderr


def test_workers_die(made):
    script = """
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run(made("workers_die"), script)
    assert done.stdout.splitlines()[-1] == "1"


def test_workers_die_later(made):
    script = """
child = os.fork()
if child == 0:
    print(ask("/healthz")["status"], flush=True)
    time.sleep(60)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run(made("workers_die_later"), script)
    assert done.stdout.splitlines()[-2:] == ["200 OK", "1"]


def test_it_is_bad_on_one_host_only(made):
    copy = made("bad_on_one_host")
    assert "503" not in answered(copy)["status"]
    variant = copy / "variant.py"
    variant.write_text(variant.read_text().replace("debian13", socket.gethostname()))
    assert answered(copy)["status"].startswith("503")


def test_every_variant_is_tried_here():
    """A new one needs a test that shows what is wrong with it."""
    tests = Path(__file__).read_text()
    assert [name for name in variants.names() if f'"{name}"' not in tests] == []


def test_the_newest_migration_is_found(tmp_path):
    (tmp_path / "0001_first.py").write_text('revision = "0001"\ndown_revision = None\n')
    assert variants.head(tmp_path) == "0001"
    (tmp_path / "0002_second.py").write_text(
        'revision: str = "0002"\ndown_revision: str | None = "0001"\n'
    )
    assert variants.head(tmp_path) == "0002"
    (tmp_path / "0003_beside.py").write_text('revision = "0003"\ndown_revision = "0001"\n')
    with pytest.raises(ValueError, match=r"0002.*0003"):
        variants.head(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "works_with", "fails"),
    [
        (Migration(), ("0001",), False),
        (Migration(works=False), (), False),
        (Migration(fails=True), ("0001",), True),
    ],
)
def test_a_migration_goes_on_from_the_newest(tmp_path, wanted, works_with, fails):
    folder = tmp_path / variants.MIGRATIONS
    folder.mkdir(parents=True)
    (folder / "0001_first.py").write_text('revision = "0001"\ndown_revision = None\n')
    revision = variants.migrate(tmp_path, "good-2", wanted)
    assert variants.head(folder) == revision
    text = (folder / f"{revision}.py").read_text()
    module: dict[str, Any] = {}
    exec(
        compile(text.replace("import sqlalchemy as sa\nfrom alembic import op", ""), "m", "exec"),
        module,
    )
    assert module["works_with"] == works_with
    done: list[str] = []

    class Op:
        def create_table(self, name: str, *_: object) -> None:
            done.append(name)

    class Sa:
        Integer = None

        def Column(self, *_: object, **__: object) -> None:
            """Nothing to do."""

    module.update(op=Op(), sa=Sa())
    if fails:
        with pytest.raises(RuntimeError, match="half way"):
            module["upgrade"]()
    else:
        module["upgrade"]()
    assert done == [f"proof_{revision}"]
