"""The two commands that people type in app/, and a start that must fail, as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1]
GUNICORN = [sys.executable, "-m", "gunicorn", "--config", "gunicorn_config.py", "app:app"]
DEVELOPMENT = [sys.executable, "app.py"]


@pytest.fixture
def address() -> str:
    """A free address on the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def environment(**variables: str) -> dict[str, str]:
    """This environment without anything that could tell toll-app what to do."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TOLL_", "GUNICORN_", "FLASK_", "WERKZEUG_", "CREDENTIALS_"))
    }
    return kept | {"PYTHONUNBUFFERED": "1"} | variables


@contextlib.contextmanager
def running(command: list[str], log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in app/, and end it with all its children."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=APP,
            env=environment(**variables),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # Not SIGINT: what a shell starts in the background ignores it, and so do its children.
        process.terminate()
        try:
            process.wait(10)
        finally:
            # The reloader's child, or workers of a master that did not go.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def answer(address: str, path: str, process: subprocess.Popen[bytes], log: Path) -> bytes:
    """Return the answer as soon as there is one; fail with the log after 20 seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as response:
                return response.read()
        except urllib.error.URLError:
            time.sleep(0.1)
    pytest.fail(f"no answer from {address}; the log says:\n{log.read_text()}")


def workers(process: subprocess.Popen[bytes]) -> int:
    """Return how many children the process has."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return len(path.read_text().split())


def test_gunicorn_by_hand(address, tmp_path):
    """`gunicorn --config gunicorn_config.py app:app` works as written, without any setting."""
    log = tmp_path / "log"
    with running(GUNICORN, log, TOLL_BIND=address, HOME=str(tmp_path)) as process:
        assert json.loads(answer(address, "/readyz", process, log))["status"] == "ok"
        expected = len(os.sched_getaffinity(0)) * 2 + 1
        end = time.monotonic() + 10
        while workers(process) != expected and time.monotonic() < end:
            time.sleep(0.1)
        assert workers(process) == expected
        assert "TOLL_ENVIRONMENT is not set: running as development" in log.read_text()
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
    """`python3 app.py` works as written, without any setting."""
    log = tmp_path / "log"
    with running(DEVELOPMENT, log, TOLL_BIND=address) as process:
        assert b"What a passage costs" in answer(address, "/", process, log)


@pytest.mark.parametrize("command", [GUNICORN, DEVELOPMENT], ids=["gunicorn", "development"])
def test_production_without_a_secret_does_not_start(command, address, tmp_path):
    """And ends, with the remedy as the last words, where a restart loop would hide them."""
    log = tmp_path / "log"
    with running(command, log, TOLL_BIND=address, TOLL_ENVIRONMENT="production") as process:
        assert process.wait(20) != 0
    words = log.read_text()
    assert "Set TOLL_SECRET_KEY" in words
    assert "secrets.token_hex(32)" in words.splitlines()[-1]
