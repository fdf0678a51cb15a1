"""What strangers can write into the log of errors, by nginx and the program behind it."""

from __future__ import annotations

import base64
import importlib.util
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .render import render
from .serving import Serving, Upstream, serving
from .test_nginx import ERRORS, certificate, installed_version, nginx_program

__all__ = ["certificate", "installed_version", "nginx_program"]  # fixtures

SECRET = "hunter2"
FORGED = "2026/11/29 [emerg] 1#1 forged"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program, with the log of this test."""
    path = tmp_path / "nginx-errors"
    text = render("nginx", "libexec/nginx-errors.j2", "Debian")
    path.write_text(text.replace("/var/log/nginx", str(tmp_path / "log")))
    return path


@pytest.fixture
def module(program: Path) -> ModuleType:
    loader = SourceFileLoader("nginx_errors", str(program))
    spec = importlib.util.spec_from_loader("nginx_errors", loader)
    assert spec
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    return made


@pytest.fixture
def running(
    tmp_path: Path,
    program: Path,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    installed_version: dict[str, str],
) -> Iterator[Serving]:
    """A site whose application is away, with a path that asks for a password."""
    users = tmp_path / "users"
    users.write_text("anna:$apr1$molecule$rERHG6/TBQNEeVR5gYZjS1\n")
    path = str(tmp_path / "errors.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        # As systemd does: the socket is there first, and is what the program reads.
        writer = subprocess.Popen([sys.executable, "-ISB", program], stdin=channel.fileno())
        try:
            with serving(
                tmp_path,
                nginx_program,
                certificate,
                Upstream(tmp_path / "shop.sock", lambda _: (200, {}, "")),
                installed_version,
                {
                    "extra": (
                        "location /staff/ {\n    auth_basic staff;\n"
                        f"    auth_basic_user_file {users};\n}}\n"
                    ),
                },
                errors=ERRORS.replace("/run/nginx-errors.sock", path),
            ) as site:
                site.upstream.stop()
                yield site
        finally:
            writer.kill()
            writer.wait()


def user(name: str) -> dict[str, str]:
    """What somebody sends who says to be that."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:x".encode()).decode()}


def errors(site: Serving, count: int) -> list[str]:
    """The lines about requests. They come after the answers."""
    end = time.monotonic() + 20
    while True:
        lines = (site.directory / "log/error.log").read_text().splitlines()
        found = [line for line in lines if ", client: " in line]
        if len(found) >= count:
            assert lines == found
            return found
        assert time.monotonic() < end, lines
        time.sleep(0.02)


def test_a_query_stays_out_of_the_log_of_errors(running: Serving) -> None:
    """It names each request that failed, tokens of links and all; the log is copied and kept."""
    referer = {"Referer": f"https://other.example.org/from?token={SECRET} {SECRET}#{SECRET}"}
    assert running.ask(f"/reset?token={SECRET}", referer).status == 502
    assert running.ask(f'/a?b="{SECRET}&c={SECRET}').status == 502
    assert running.ask(f"/staff/?token={SECRET}", user("eve")).status == 401
    lines = errors(running, 3)
    assert SECRET not in "\n".join(lines)
    first, second, third = lines
    # What the log is for is there: when, why, whom, what, and where it went wrong.
    assert first.split()[2] == "[crit]" or first.split()[2] == "[error]"
    assert "failed (" in first
    assert 'request: "GET /reset? HTTP/1.1", upstream: "http://unix:' in first
    assert first.endswith('referrer: "https://other.example.org/from"')
    assert 'request: "GET /a? HTTP/1.1", upstream: ' in second
    assert 'user "eve" was not found in ' in third
    assert 'request: "GET /staff/? HTTP/1.1", host: ' in third


def test_no_client_can_forge_a_line_of_the_log_of_errors(running: Serving) -> None:
    """A user's name is decoded, so a line break in it would end the line."""
    name = user(f"eve\n{FORGED}\r\x1b[2J")
    assert running.ask("/staff/", name).status == 401
    assert running.ask("/", {"Referer": "https://a/\x1b[2J\xff"}).status == 502
    first, second = errors(running, 2)
    assert rf'user "eve\n{FORGED}\r\x1b[2J" was not found' in first
    assert second.endswith(r', referrer: "https://a/\x1b[2J\xff"')


def test_a_log_that_was_rotated_is_not_written_to(running: Serving) -> None:
    log = running.directory / "log/error.log"
    running.ask("/first")
    errors(running, 1)
    log.rename(log.with_suffix(".1"))
    running.ask("/second")
    time.sleep(
        0.3
    )  # The program waits for a log, and makes none that logrotate would stumble upon.
    assert not log.exists()
    log.touch()
    (line,) = errors(running, 1)
    assert "GET /second " in line


CASES: Mapping[str, tuple[str, str]] = {
    "cut off": (
        'x, request: "GET /a?b=hunter2',
        'x, request: "GET /a?',
    ),
    "of HTTP/0.9": (
        'x, request: "GET /a?b=hunter2", host: "h"',
        'x, request: "GET /a?", host: "h"',
    ),
    "with spaces": (
        'x, request: "GET /a?b=hunter2 hunter2 HTTP/1.0", upstream: "http://u/a?b=hunter2 hunter2"',
        'x, request: "GET /a? HTTP/1.0", upstream: "http://u/a?"',
    ),
    "with a user": (
        'x, request: "GET http://me:hunter2@h/a HTTP/1.1", host: "h"',
        'x, request: "GET http://h/a HTTP/1.1", host: "h"',
    ),
    "of nginx alone": (
        "signal 17 (SIGCHLD) received from 7",
        "signal 17 (SIGCHLD) received from 7",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_line_may_look_like(case: str, module: Any) -> None:
    """What this machine's nginx does not send, but another's may."""
    told, expected = CASES[case]
    assert module.line(f"<187>Nov  9 12:00:00 nginx: {told}\n".encode()) == f"{expected}\n"


@pytest.mark.parametrize("settings", [{"IDLE": 0.1}, {"LONGEST": 0}], ids=["idle", "an hour"])
def test_it_ends(settings: Mapping[str, float], program: Path, tmp_path: Path) -> None:
    """A host that is well has no process for it. What has arrived is written, or is left there."""
    log = tmp_path / "log/error.log"
    log.parent.mkdir()
    log.touch()
    text = program.read_text()
    for name, seconds in settings.items():
        text, changed = re.subn(rf"(?m)^{name}_SECONDS = \d+$", f"{name}_SECONDS = {seconds}", text)
        assert changed == 1
    program.write_text(text)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        for number in range(5):
            theirs.send(b"<187>Nov  9 12:00:00 nginx: %d" % number)
        subprocess.run(
            [sys.executable, "-ISB", program], stdin=ours.fileno(), check=True, timeout=20
        )
        ours.setblocking(False)
        if log.read_text():
            assert log.read_text() == "0\n1\n2\n3\n4\n"
        else:
            assert ours.recv(100).endswith(b" 0")
