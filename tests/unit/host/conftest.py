"""An application `shop` on a host that is a folder, and programs that stand for the host's own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, records
from apphost.application import Application

# What the role writes about an application.
SETTINGS: dict[str, Any] = {
    "health": {
        "path": "/readyz",
        "live_path": "/healthz",
        "status": 200,
        "release_member": "release",
    },
    "database": {"kind": "sqlite", "file": "shop.db"},
    "commands": {
        "flask": ["python", "-m", "flask", "--app", "app"],
        "schema": ["shopctl", "schema"],
        "migrate": ["shopctl", "migrate"],
        "backup": ["shopctl", "backup"],
    },
}

# Runs the command at once, in the directory that it is given.
SYSTEMD_RUN = """#!/bin/sh
printf '%s\\n' "$*" >> "$0.calls"
limit=
while [ "$1" != -- ]; do
    case "$1" in
        --property=WorkingDirectory=*) cd "${1#*=*=}" ;;
        --property=RuntimeMaxSec=[1-9]*) limit="timeout ${1#*=*=}" ;;
    esac
    shift
done
shift
exec $limit "$@"
"""

# Answers from files beside it: `unit` for `cat`, `properties` for `show`.
SYSTEMCTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$0.calls"
here=$(dirname "$0")
case "$1" in
    cat) cat "$here/unit" ;;
    show) cat "$here/properties" 2>/dev/null || true ;;
esac
"""


def describe(application: Application, **members: Any) -> Application:
    """The application anew, with these members of its description in place of those it has."""
    path = application.etc / "application.json"
    settings = json.loads(path.read_text()) if path.exists() else SETTINGS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**settings, **members}))
    return Application(application.name, application.host)


class Programs:
    """A folder that comes first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def put(self, name: str, text: str) -> Path:
        """Put a script there."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def calls(self, name: str) -> list[str]:
        """How a program that notes its calls was called since the last question."""
        path = self.folder / f"{name}.calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """The application `shop`, with its description and nothing else."""
    made = Application("shop", tmp_path / "host")
    for path in (made.releases, made.state, made.data):
        path.mkdir(parents=True)
    return describe(made)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests counts as root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A `systemd-run` that runs commands at once, and a `systemctl` that knows one unit."""
    made = Programs(tmp_path / "programs")
    made.put("systemd-run", SYSTEMD_RUN)
    made.put("systemctl", SYSTEMCTL)
    (made.folder / "unit").write_text("[Service]\nUser=shop\n")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@contextmanager
def serving(path: Path, code: int, body: str) -> Iterator[list[str]]:
    """A service at a socket that always answers the same; yields the paths that it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

        def address_string(self) -> str:
            return "socket"

    path.parent.mkdir(parents=True, exist_ok=True)
    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


class Host:
    """A host with releases of the application, and its command."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def ship(self, name: str, verdict: str = "healthy", since: str = "", **record: Any) -> None:
        """Put a release there. Later ones get older files, so that nothing goes by their time."""
        path = self.application.releases / name
        (path / "bin").mkdir(parents=True)
        (path / "bin" / "python").symlink_to(sys.executable)
        (path / "app").mkdir()
        (path / "app" / "app.py").write_text("x")
        manifest = {
            "id": name,
            "content": name,
            "python": "3.13",
            "revision": "1234567890" * 4,
            "files": {"app/app.py": hashlib.sha256(b"x").hexdigest()},
        }
        (path / "manifest.json").write_text(json.dumps(manifest))
        facts = {"verdict": verdict, "activated_at": since or None, **record}
        records.update(self.application.state, name, facts)
        count = len(self.releases())
        os.utime(path, (1e9 - count, 1e9 - count))

    def go_live(self, name: str) -> None:
        """What a handover does."""
        self.application.current.unlink(missing_ok=True)
        self.application.current.symlink_to(f"releases/{name}")

    def record(self, name: str) -> dict[str, Any]:
        return records.read(self.application.state, name)

    def releases(self) -> set[str]:
        return {path.name for path in self.application.releases.iterdir()} - {".lock"}

    def lose_interpreter(self, name: str, why: str = "removed") -> Path:
        """Have a release link to an interpreter that is not there, or not complete."""
        link = self.application.releases / name / "bin" / "python"
        link.unlink()
        python = self.application.host / f"python-{name}"
        if why == "incomplete":
            python.write_text(
                "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ctypes'\" >&2; exit 1\n"
            )
            python.chmod(0o755)
        link.symlink_to(python)
        return python

    def call(self, *words: str) -> int:
        """Type the command; return its exit code."""
        return cli.main(self.application.name, words, self.application.host)

    def run(self, capsys: Any, *words: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the JSON object of the command."""
        code = self.call(*words, "--json")
        return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def host(application: Application, programs: Programs, as_root: None) -> Host:
    """Four healthy releases a, b, c, d, made live in this order, and e which was judged bad."""
    made = Host(application)
    for number, name in enumerate("abcd"):
        made.ship(name, since=f"2026-11-2{number}T00:00:00Z")
    made.ship("e", "bad", shipped_at="2026-11-24T00:00:00Z")
    made.go_live("d")
    return made
