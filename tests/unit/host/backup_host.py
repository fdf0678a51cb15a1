"""A host whose application `shop` is played by a script, for the tests of copies."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, sandbox, stop, times
from apphost import http as http_client
from apphost.application import Application
from apphost.backup import copies, restore, settings
from apphost.backup.copies import Store

# `shopctl` of a release, `shop` of the host and `systemctl` in one: how they were called is kept in
# `calls`, and a file `broken-WORD` has the command of that name fail with what it holds.
PROGRAM = """#!{python}
import contextlib, json, os, shutil, sqlite3, sys
root, live = {root!r}, {live!r}
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
print(name, *words, file=open(root + "/calls", "a"))
verb = words[0]
with contextlib.suppress(FileNotFoundError):
    sys.exit(open(root + "/broken-" + verb).read())
if name == "shopctl" and verb == "backup":
    with contextlib.closing(sqlite3.connect(live)) as source:
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    with open(1, "wb", closefd=False) as copy:
        copy.write(open(live, "rb").read())
elif name == "shopctl" and verb == "restore":
    if "--no-keep" not in words:
        shutil.copy(live, live + ".replaced")
    open(live, "wb").write(sys.stdin.buffer.read())
elif verb == "schema":
    print(json.dumps({{"head": "2", "known": ["1", "2"]}}))
elif verb == "counts":
    with contextlib.closing(sqlite3.connect(live)) as base:
        count = base.execute("SELECT count(*) FROM orders").fetchone()[0]
    print(json.dumps({{"schema": "2", "tables": {{"orders": count, "schema_state": 1}}}}))
elif name != "systemctl":
    print(json.dumps({{"changed": False, "msg": "done"}}))
"""

DESCRIPTION: dict[str, Any] = {
    "health": {"path": "/readyz", "status": 200, "release_member": "release"},
    "database": {"kind": "sqlite", "file": "shop.db", "schema_table": "schema_state"},
    "commands": {
        "migrate": ["shopctl", "migrate"],
        "backup": ["shopctl", "backup"],
        "restore": ["shopctl", "restore"],
        "schema_code": ["shopctl", "schema", "--code"],
        "counts": ["shopctl", "counts"],
    },
}


class BackupHost:
    """A host with `shop` live as release r1, on schema 2, with three orders."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        self.application = Application("shop", root)
        self.description = DESCRIPTION
        # The playbook makes it.
        self.directory = root / "var/backups/shop"
        self.settings: dict[str, Any] = {}
        self.live = self.application.data / "shop.db"
        for path in (self.directory, self.application.data, self.application.releases / "r1"):
            path.mkdir(parents=True)
        self.application.current.symlink_to("releases/r1")
        self.shopctl = self.put_program(root / "release/shopctl")
        self.put_program(root / "bin/systemctl")
        self.put_program(self.application.command)
        monkeypatch.setenv("PATH", f"{root}/bin:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(sandbox, "run", self.run_in_release)
        monkeypatch.setattr(stop, "HANDOVER_SECONDS", 0)
        monkeypatch.setattr(copies, "LOCK_SECONDS", 0)
        self.serve(200, '{"release": "r1"}')
        self.clock = datetime.datetime(2026, 11, 25, 2, 30, tzinfo=datetime.UTC)
        monkeypatch.setattr(times, "now", self.tick)
        with self.database() as base:
            base.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT)")
            base.execute("CREATE TABLE schema_state (revision TEXT, works_with TEXT)")
            base.execute("INSERT INTO schema_state VALUES ('2', '[]')")
        self.order("A", "B", "C")

    def put_program(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"python": sys.executable, "root": str(self.root), "live": str(self.live)}
        path.write_text(PROGRAM.format(**values))
        path.chmod(0o755)
        return path

    def run_in_release(
        self, application: Application, words: Sequence[str], **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """In place of `sandbox.run`."""
        program = self.shopctl.parent / words[0]
        return subprocess.run([program, *words[1:]], check=False, **options)

    def serve(self, status: int, body: str) -> None:
        """Have the service answer its health check like this."""

        def get(connect: str, path: str, **_: Any) -> http_client.Answer:
            assert connect == f"unix:{self.application.socket}"
            assert path == self.description["health"]["path"]
            return http_client.Answer(status, body.encode(), False, {})

        self.monkeypatch.setattr(restore, "get", get)

    def tick(self) -> datetime.datetime:
        self.clock += datetime.timedelta(seconds=1)
        return self.clock

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.live)) as base, base:
            yield base

    def order(self, *customers: str) -> None:
        """Add orders to the database."""
        with self.database() as base:
            base.executemany(
                "INSERT INTO orders (customer) VALUES (?)", [(name,) for name in customers]
            )

    def customers(self) -> list[str]:
        """Of the orders in the database."""
        with self.database() as base:
            return [row[0] for row in base.execute("SELECT customer FROM orders ORDER BY id")]

    def configure(self, **values: Any) -> None:
        """Change /etc/shop/backup.json."""
        self.settings |= values

    def describe(self, **members: Any) -> None:
        """Change the description."""
        self.description = {**self.description, **members}

    def break_(self, verb: str, message: str = "it is broken") -> None:
        (self.root / f"broken-{verb}").write_text(message)

    def mend(self, verb: str) -> None:
        (self.root / f"broken-{verb}").unlink()

    def write_settings(self) -> None:
        etc = self.application.etc
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "application.json").write_text(json.dumps(self.description))
        (etc / "backup.json").write_text(json.dumps(self.settings))

    def store(self) -> Store:
        """The copies as the package sees them."""
        self.write_settings()
        application = Application("shop", self.root)
        return Store(application, settings.read(application))

    def call(self, *words: str, stdin: str = "") -> tuple[int, str]:
        """The exit code, and what the command prints on standard output."""
        self.write_settings()
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = cli.main("shop", words, self.root)
        return code, printed.getvalue()

    def run(self, *words: str, stdin: str = "") -> tuple[int, dict[str, Any]]:
        """The exit code and the answer, as Ansible gets them."""
        code, printed = self.call(*words, "--json", stdin=stdin)
        return code, json.loads(printed)

    def good(self, *words: str, stdin: str = "") -> dict[str, Any]:
        """The answer of a command that has to succeed."""
        code, answer = self.run(*words, stdin=stdin)
        assert code == 0, answer
        return answer

    def back_up(self) -> str:
        """The name of a new copy."""
        name: str = self.good("backup")["record"]["name"]
        return name

    def calls(self) -> list[str]:
        """What was called since the last question."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def stopped(self) -> bool:
        """Whether the service was stopped since the last question."""
        return any(line.startswith("systemctl stop") for line in self.calls())

    def files(self) -> set[str]:
        """What is in the directory of copies, without what is always there."""
        return {path.name for path in self.directory.iterdir()} - {".lock", "state.json"}

    def metrics(self) -> str:
        """What monitoring reads."""
        return (self.application.metrics / "shop-backup.prom").read_text()
