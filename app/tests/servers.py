"""The application under gunicorn, as real processes."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import SECRET

APP = Path(__file__).resolve().parents[1]
# What a host's service has, by the defaults of the role gunicorn_systemd, with fewer workers.
GUNICORN = (
    *(sys.executable, "-m", "gunicorn", "app:app", "--preload", "--worker-class", "gthread"),
    *("--threads", "2", "--worker-connections", "2", "--keep-alive", "0", "--no-control-socket"),
)
# The answers of any one of these come late on a busy machine, so nothing here hurries.
PATIENCE = 60


def free_address() -> str:
    """Return a free address on the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def environment(**variables: str) -> dict[str, str]:
    """Return this environment without anything that could tell toll-app what to do."""
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
            process.wait(PATIENCE)
        finally:
            # The reloader's child, or workers of a master that did not go.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


@dataclass(frozen=True)
class Answer:
    """An answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The document in it."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Service:
    """The application under gunicorn."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics_directory: Path

    def ask(self, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask once; with a body it is a POST. Names of headers have underscores for hyphens."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {name.replace("_", "-"): value for name, value in headers.items()}
            | ({} if body is None else {"Content-Type": "application/json"}),
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def workers(self) -> set[int]:
        """Return the workers' process ids."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(each) for each in path.read_text().split()}

    def wait(self, path: str = "/readyz") -> None:
        """Wait for the first good answer; fail with the log if there is none."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask(path).status == 200:
                    return
            time.sleep(0.05)
        pytest.fail(f"no good answer from {self.url}{path}; the log:\n{self.log.read_text()}")


@contextlib.contextmanager
def service(database_url: str, directory: Path, *options: str, **more: str) -> Iterator[Service]:
    """Run a production application on a database that is ready."""
    address = free_address()
    metrics_directory = directory / "metrics"
    variables = {
        "TOLL_ENVIRONMENT": "production",
        "TOLL_SECRET_KEY": SECRET,
        "TOLL_DATABASE_URL": database_url,
        "TOLL_METRICS_DIRECTORY": str(metrics_directory),
    }
    log = directory / "gunicorn.log"
    command = [*GUNICORN, "--bind", address, *options]
    with running(command, log, **variables, **more) as process:
        made = Service(f"http://{address}", process, log, metrics_directory)
        made.wait()
        yield made
    assert "Traceback" not in log.read_text()
