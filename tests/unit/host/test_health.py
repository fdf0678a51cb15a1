"""The health check of a service: what it takes for dead, what it does then, and what it tells."""

from __future__ import annotations

import http.server
import json
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, files, health
from apphost.application import Application
from apphost.handover import judge
from apphost.handover.config import Check

GOOD, AWAY, ALIVE, SILENT = (200, "ok"), (503, "database"), (200, ""), (0, "timed out")


class World:
    """A service whose answers and units are what a test says; time passes between two looks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.application = Application("shop", folder)
        self.answers: dict[str, tuple[int, str]] = {"/readyz": GOOD, "/healthz": ALIVE}
        self.units = {"shop.service": "active", "shop-handover.service": "inactive"}
        self.restart: Callable[[], bool] = lambda: True
        self.clock = 10000.0
        self.restarts: list[float] = []
        self.asked: list[str] = []
        self.settings: dict[str, Any] = {
            "ready_path": "/readyz",
            "ready_status": 200,
            "live_path": "/healthz",
            "host": "localhost",
            "timeout": 5,
            "failures": 3,
            "interval": 10,
            "restarts_per_hour": 3,
        }
        self.reported: list[tuple[int, str]] = []

        class Time:
            monotonic = staticmethod(lambda: self.clock)

        monkeypatch.setattr(health, "time", Time)
        monkeypatch.setattr(health, "active", lambda unit: self.units[unit])
        monkeypatch.setattr(health, "ask", self.ask)
        monkeypatch.setattr(health, "hand_over", self.hand_over)
        # It is written at each of hundreds of looks.
        monkeypatch.setattr(files.os, "fsync", lambda _descriptor: None)
        monkeypatch.setattr(
            health, "report", lambda priority, text: self.reported.append((priority, text))
        )

    def ask(self, config: health.Config, path: str) -> tuple[int, str]:
        self.asked.append(path)
        return self.answers[path]

    def hand_over(self, config: health.Config, reason: str) -> tuple[bool, str]:
        self.restarts.append(self.clock)
        good = self.restart()
        return good, "live and healthy." if good else "was judged bad in stage standby."

    def config(self) -> health.Config:
        """As the role writes it."""
        files.write_json(self.application.etc / "health.json", {"name": "shop", **self.settings})
        return health.Config.read(self.application)

    def look(self, times: int = 1) -> None:
        """As the timer does; each look is a program of its own."""
        for _ in range(times):
            health.watch(self.config())
            self.clock += 10

    def words(self) -> str:
        """What was reported since the last question."""
        text = "\n".join(line for _, line in self.reported)
        self.reported.clear()
        return text


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_healthy_service_is_asked_and_nothing_is_told(world: World) -> None:
    world.look(100)
    assert world.asked == ["/readyz"] * 100
    assert (world.reported, world.restarts) == ([], [])


def test_what_does_not_answer_is_restarted_after_some_times_in_a_row(world: World) -> None:
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.look(2)
    assert world.restarts == []
    assert "does not answer: /healthz gave no answer (timed out)" in world.words()
    world.look()
    assert len(world.restarts) == 1
    assert "3 times in a row" in world.words()
    world.answers = {"/readyz": GOOD, "/healthz": ALIVE}
    world.look(50)
    assert (len(world.restarts), world.words()) == (1, "")


def test_one_good_answer_in_between_starts_the_count_again(world: World) -> None:
    for _ in range(20):
        world.answers = {"/readyz": SILENT, "/healthz": SILENT}
        world.look(2)
        world.answers = {"/readyz": GOOD, "/healthz": ALIVE}
        world.look()
    assert world.restarts == []


@pytest.mark.parametrize("ready", [AWAY, SILENT, (500, "oops")])
def test_what_lives_but_is_not_ready_is_never_restarted(
    world: World, ready: tuple[int, str]
) -> None:
    """A database that is away for hours: one line when it goes, one when it is back."""
    world.answers["/readyz"] = ready
    world.look(864)
    assert world.restarts == []
    assert len(world.reported) == 1
    assert "is not ready" in world.words()
    world.answers["/readyz"] = GOOD
    world.look(3)
    assert "healthy again, after 8640 s" in world.words()


def test_a_database_that_ties_up_every_thread_makes_no_loop(world: World) -> None:
    """Even the path that asks nothing is silent then. No standby gets ready, and after three
    attempts, each later than the one before, there are reports only; the next hour likewise."""
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.restart = lambda: False
    world.look(360)
    waits = [round(b - a) for a, b in zip(world.restarts, world.restarts[1:], strict=False)]
    assert len(world.restarts) == 3
    assert waits == [60, 120]
    text = world.words()
    assert "did not help, and is tried again after 60 s" in text
    assert text.count("is left alone now") == 1
    world.look(720)
    assert len(world.restarts) <= 3 * 4


def test_restarts_that_help_are_limited_too(world: World) -> None:
    """A service that hangs every minute is a fault to be mended, not a rhythm."""
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.look(359)
    assert len(world.restarts) == 3


def test_it_is_told_each_time_that_a_service_is_left_alone(world: World) -> None:
    """Also where a restart in between has helped, so that it was never seen healthy."""
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.look(359)
    assert world.words().count("is left alone now") == 1
    world.look(2 * 360)
    assert world.words().count("is left alone now") > 1


def test_no_restarts_at_all_if_so_wished(world: World) -> None:
    world.settings["restarts_per_hour"] = 0
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.look(100)
    assert world.restarts == []
    assert "is left alone now" in world.words()


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        ("shop-handover.service", "activating"),
        ("shop.service", "inactive"),
        ("shop.service", "failed"),
        ("shop.service", "activating"),
        ("shop.service", "deactivating"),
    ],
)
def test_what_somebody_has_in_hand_is_not_even_asked(world: World, unit: str, state: str) -> None:
    """Asking would start a service that an operator has stopped: its socket does that."""
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.look(2)
    world.asked.clear()
    world.units[unit] = state
    world.look(20)
    assert (world.asked, world.restarts) == ([], [])
    # And what was counted before does not count any more.
    world.units = {"shop.service": "active", "shop-handover.service": "inactive"}
    world.look(2)
    assert world.restarts == []


def test_an_interpreter_that_is_gone_is_reported_whatever_the_service_answers(
    world: World, tmp_path: Path
) -> None:
    """An upgrade of the system removed it: one process answers well, another one 500, none would
    start again. So nothing is restarted, also where nothing answers any more."""
    python = tmp_path / "releases" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    world.settings["python"] = str(python)
    world.look(3)
    assert world.words() == ""
    python.unlink()
    python.symlink_to(tmp_path / "python3.0")
    world.look(20)
    assert len(world.reported) == 1
    text = world.words()
    assert f"is not ready: {tmp_path / 'python3.0'} is not on this host any more" in text
    assert "Deploy its release again" in text
    world.answers = {"/readyz": SILENT, "/healthz": SILENT}
    world.look(20)
    assert world.restarts == []


def test_a_part_of_the_interpreter_that_is_gone_is_reported(world: World, tmp_path: Path) -> None:
    """Debian has it in several packages."""
    python, library = tmp_path / "bin" / "python3.0", tmp_path / "lib" / "python3.0"
    (library / "ctypes").mkdir(parents=True)
    (library / "ctypes" / "__init__.py").touch()
    python.parent.mkdir()
    python.touch(mode=0o755)
    world.settings["python"] = str(python)
    world.look()
    assert world.words() == ""
    (library / "ctypes" / "__init__.py").unlink()
    world.look()
    assert f"is not ready: {library / 'ctypes'} is not on this host any more" in world.words()


def test_without_a_path_of_life_any_answer_is_one(world: World) -> None:
    world.settings["live_path"] = ""
    world.answers = {"/readyz": AWAY}
    world.look(20)
    assert world.restarts == []
    world.answers = {"/readyz": SILENT}
    world.look(3)
    assert len(world.restarts) == 1


def test_a_damaged_memory_is_no_reason_to_stop_looking(world: World, tmp_path: Path) -> None:
    path = tmp_path / "run" / "shop-health" / "state.json"
    path.parent.mkdir(parents=True)
    for content in ("", "[]", '{"attempts": 3, "other": 1', '{"unknown": 1}'):
        path.write_text(content)
        world.look()
    assert json.loads(path.read_text())["seen"] == "healthy"


# The question itself ------------------------------------------------------------------------------


@contextmanager
def served(path: Path, answer: Callable[[Any], None]) -> Iterator[None]:
    """A service on a unix socket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def address_string(self) -> str:
            return "test"

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def config(tmp_path: Path) -> health.Config:
    application = Application("shop", tmp_path)
    application.check_socket.parent.mkdir(parents=True)
    return health.Config(application, "/readyz", 200, "/healthz", "shop.example", 0.3, 3, 10, 3)


def test_answers_are_read_from_the_private_socket(config: health.Config) -> None:

    def answer(request: Any) -> None:
        assert request.headers["Host"] == "shop.example"
        request.send_response(503 if request.path == "/readyz" else 204)
        request.end_headers()
        if request.path == "/readyz":
            request.wfile.write(b"the database is away " * 100)

    with served(config.application.check_socket, answer):
        status, body = health.ask(config, "/readyz")
        assert (status, len(body)) == (503, health.BODY_CHARACTERS)
        assert health.ask(config, "/healthz") == (204, "")


def test_silence_and_nobody_are_no_answer(config: health.Config) -> None:
    assert health.ask(config, "/readyz")[0] == 0
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(config.application.check_socket))
        hung.listen()
        assert health.ask(config, "/readyz") == (0, "no answer within 0.3 s")


@pytest.mark.parametrize(
    "length",
    ["Content-Length: 600", "Connection: close", "Connection: close\r\nContent-Length: 600"],
)
def test_an_answer_that_drips_is_none(config: health.Config, length: str) -> None:
    """Each byte comes in time; the whole would take half a minute, and hold up whoever waits."""

    sent: list[int] = []

    def drip(request: Any) -> None:
        request.wfile.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        with suppress(OSError):
            for number in range(600):
                request.wfile.write(b"x")
                sent.append(number)
                time.sleep(0.05)

    with served(config.application.check_socket, drip):
        assert health.ask(config, "/readyz") == (0, "no answer within 0.3 s")
        check = Check(host="shop.example")
        assert judge.ask(config.application.check_socket, check, None, 0.3) == (
            "gave no answer within 0.3 s",
            "",
        )
    assert 599 not in sent, "it was waited for to its end"


def test_words_for_the_journal_have_a_priority_on_each_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    health.report(3, "one\ntwo")
    assert re.findall(r"^<3>", capsys.readouterr().out, re.MULTILINE) == ["<3>", "<3>"]


# The verb -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code", "word"), [(GOOD, 0, "healthy"), (AWAY, 1, "not ready")])
def test_it_shows_what_it_sees_and_changes_nothing(
    world: World,
    as_root: None,
    capsys: pytest.CaptureFixture[str],
    answer: tuple[int, str],
    code: int,
    word: str,
) -> None:
    world.answers["/readyz"] = answer
    world.config()
    assert cli.main("shop", ["health", "--json"], world.application.host) == code
    shown = json.loads(capsys.readouterr().out)
    assert (shown["health"], shown["restarts"], shown["changed"]) == (word, 0, False)
    assert answer[1] in shown["reason"]
    assert not (world.application.host / "run").exists()
    assert cli.main("shop", ["health"], world.application.host) == code
    text = "".join(capsys.readouterr())
    assert f"shop is {word}" in text
    assert "Restarts within the hour: 0 of 3" in text


def test_its_timer_prints_nothing_while_all_is_well(
    world: World, as_root: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line every ten seconds would fill a journal."""
    world.config()
    assert cli.main("shop", ["health", "--watch"], world.application.host) == 0
    assert capsys.readouterr() == ("", "")


def test_without_its_settings_it_is_refused(
    world: World, as_root: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main("shop", ["health"], world.application.host) == 2
    assert "etc/shop/health.json" in capsys.readouterr().err


def test_the_restart_is_a_handover_in_a_unit_of_its_own(
    config: health.Config, programs: Any
) -> None:
    """The unit of the health check may do little. The journal that is quoted is in the journal."""
    answer = {"changed": True, "msg": "Release 1 was judged bad.\nThe end of its journal:\nx"}
    (programs.folder / "answer").write_text(json.dumps(answer))
    note = 'printf \'%s\\n\' "$*" >> "$0.calls"'
    programs.put("systemd-run", f'#!/bin/sh\n{note}\ncat "$(dirname "$0")/answer"\nexit 1\n')
    assert health.hand_over(config, "is silent") == (False, "Release 1 was judged bad.")
    [call] = programs.calls("systemd-run")
    assert "--unit=shop-health-restart" in call
    wanted = f"{config.application.command} handover --restart --json --by shop-health"
    assert call.endswith(f"{wanted} --reason is silent")
