"""A real Chromium against real gunicorn processes with a seeded database.

Every page that a test opens is watched: an error on the console, one of a script, a request that
fails or a violation of the content security policy fails the test that met it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

APP = Path(__file__).resolve().parents[2]
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    # The tests run as root in CI, where Chromium's own sandbox does not start.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
USERS = {"anna": "operator", "victor": "viewer", "ada": "admin"}


def password(name: str) -> str:
    """Return the password of one of the test's users."""
    return f"correct horse of {name}"


@dataclass
class Server:
    """The application as it is served."""

    url: str
    environment: dict[str, str]
    log: Path

    def flask(self, *arguments: str, stdin: str = "") -> str:
        """Run `flask toll …` beside the server, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "toll", *arguments],
            cwd=APP,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create_user(self, name: str, role: str) -> None:
        """Make a user with the test's password."""
        self.flask(
            "user", "create", name, "--role", role, "--password-file", "-", stdin=password(name)
        )


@contextlib.contextmanager
def serving(folder: Path, seed: bool = True, workers: int = 2) -> Iterator[Server]:
    """Serve a new database with gunicorn, as in production."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TOLL_", "GUNICORN_", "FLASK_", "WERKZEUG_", "CREDENTIALS_"))
    } | {
        "TOLL_ENVIRONMENT": "production",
        "TOLL_SECRET_KEY": "0123456789abcdef" * 4,
        "TOLL_DATABASE_URL": f"sqlite:///{folder}/toll.db",
        "TOLL_BIND": address,
        "PYTHONUNBUFFERED": "1",
    }
    server = Server(f"http://{address}", environment, folder / "log")
    server.flask("migrate")
    if seed:
        server.flask("demo", "seed")
    for name, role in USERS.items():
        server.create_user(name, role)
    command = ["-m", "gunicorn", "--config", "gunicorn_config.py", "--workers", str(workers)]
    with server.log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, "app:app"],
            cwd=APP,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{server.url}/readyz", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"no answer from {address}:\n{server.log.read_text()}")
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo: a week of passages, and one user of each role."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def empty_server(tmp_path: Path) -> Iterator[Server]:
    """A database that holds users and nothing else."""
    with serving(tmp_path, seed=False, workers=1) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright, with an empty profile."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=FLAGS,
            # What a wrapper or a profile of this machine says must not count.
            env={"HOME": home, "PATH": os.environ["PATH"], "TZ": "America/New_York"},
        )
        yield browser
        browser.close()


@dataclass
class Watched:
    """What went wrong in the pages of a test."""

    faults: list[str] = field(default_factory=list)
    # Statuses that the test provokes: the browser says so on the console.
    expected: set[int] = field(default_factory=set)

    def console(self, kind: str, text: str) -> None:
        """Take a message of the console."""
        if kind not in ("error", "warning"):
            return
        if any(
            f"the server responded with a status of {status} " in text for status in self.expected
        ):
            return
        self.faults.append(f"{kind}: {text}")


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def open_context(browser: Browser, watched: Watched) -> Iterator[Callable[..., BrowserContext]]:
    """Open a browser window of its own: no cookie is shared with another."""
    contexts: list[BrowserContext] = []

    def open_one(**options: object) -> BrowserContext:
        settings = {"viewport": DESKTOP, "timezone_id": "America/New_York", "locale": "en-GB"}
        context = browser.new_context(**(settings | options))  # type: ignore[arg-type]
        context.on("console", lambda message: watched.console(message.type, message.text))
        context.on("weberror", lambda error: watched.faults.append(str(error.error)))
        context.on(
            "requestfailed",
            lambda request: watched.faults.append(f"{request.url}: {request.failure}"),
        )
        contexts.append(context)
        return context

    yield open_one
    for context in contexts:
        context.close()
    assert not watched.faults


@pytest.fixture
def page(open_context: Callable[..., BrowserContext]) -> Page:
    """A window of a desktop."""
    return open_context().new_page()


def log_in(page: Page, server: Server, name: str) -> None:
    """Log in by the form, as a person does."""
    page.goto(f"{server.url}/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password(name))
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    page.wait_for_url("**/dashboard")
