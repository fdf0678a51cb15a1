"""The two commands that people type in app/, and a start that must fail, as real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from servers import APP, PATIENCE, environment, free_address, running
from sqlalchemy.orm import Session

from toll import create_app, development
from toll.database import make_engine
from toll.services import accounts, passages

GUNICORN = [sys.executable, "-m", "gunicorn", "--config", "gunicorn_config.py", "app:app"]
DEVELOPMENT = [sys.executable, "app.py"]


@pytest.fixture
def address() -> str:
    """A free address on the loopback."""
    return free_address()


def answer(address: str, path: str, process: subprocess.Popen[bytes], log: Path) -> bytes:
    """Return the answer as soon as there is one, else fail with the log."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as response:
                return response.read()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"no answer from {address}; the log says:\n{log.read_text()}")


def workers(process: subprocess.Popen[bytes]) -> int:
    """Return how many children the process has."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return len(path.read_text().split())


def test_gunicorn_by_hand(address, tmp_path):
    """`gunicorn --config gunicorn_config.py app:app` works as written, without any setting."""
    log = tmp_path / "log"
    # Apart from the developer's own data, whose users it would give new passwords.
    state = {"HOME": str(tmp_path), "STATE_DIRECTORY": str(tmp_path)}
    # On one processor, whatever this machine has: two workers for it, and one more.
    one = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    with running([*one, *GUNICORN], log, TOLL_BIND=address, **state) as process:
        assert json.loads(answer(address, "/readyz", process, log))["status"] == "ok"
        expected = 3
        end = time.monotonic() + PATIENCE
        while workers(process) != expected and time.monotonic() < end:
            time.sleep(0.1)
        assert workers(process) == expected
        words = log.read_text()
        assert "TOLL_ENVIRONMENT is not set: running as development" in words
        assert "log in as admin with" in words
        # All workers know one demo.
        plazas = json.loads(answer(address, "/api/v1/plazas", process, log))["plazas"]
        assert len(plazas) == 3
        assert not list(tmp_path.rglob("*.ctl")), "a control socket is one more way to stop it"
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()


def test_gunicorn_listens_on_the_loopback_by_default():
    """Nothing but nginx should reach it, whatever the machine's firewall is."""
    script = "import gunicorn_config as c; print(c.bind, c.control_socket_disable)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=APP, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["127.0.0.1:5000", "True"]


def test_development_server(address, tmp_path):
    """`python3 app.py` works as written: a database with a demo in it, and a way to log in."""
    log = tmp_path / "log"
    # Apart from the developer's own data, whose users it would give new passwords.
    state = {"STATE_DIRECTORY": str(tmp_path)}
    with running(DEVELOPMENT, log, TOLL_BIND=address, **state) as process:
        assert b"Harbour Bridge" in answer(address, "/", process, log)
        words = log.read_text()
        assert "seeded: 12 tariffs, 4000 passages" in words
        passwords = dict(re.findall(r"log in as (\w+) with (\S+)", words))
    with Session(make_engine(f"sqlite:///{tmp_path}/toll.db")) as session:
        assert passages.count(session, passages.PassageFilter()) == 4000
        for name in ("admin", "operator"):
            assert accounts.verify_password(session, name, passwords[name]).role == name


def test_the_development_servers_passwords_are_not_for_production(settings):
    with pytest.raises(RuntimeError, match="This is for development"):
        development.prepare(create_app(settings))


@pytest.mark.parametrize("command", [GUNICORN, DEVELOPMENT], ids=["gunicorn", "development"])
def test_production_without_settings_does_not_start(command, address, tmp_path):
    """And ends, with the remedies as the last words, where a restart loop would hide them."""
    log = tmp_path / "log"
    with running(command, log, TOLL_BIND=address, TOLL_ENVIRONMENT="production") as process:
        assert process.wait(PATIENCE) != 0
    words = log.read_text()
    *_, secret, database = words.splitlines()
    assert "Set TOLL_SECRET_KEY" in secret
    assert "secrets.token_hex(32)" in secret
    assert "Set TOLL_DATABASE_URL" in database
