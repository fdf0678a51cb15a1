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
from types import ModuleType
from typing import Any

import pytest
from conftest import PROJECT
from programs import load

PROGRAM = PROJECT / "roles/gunicorn_systemd/templates/health.py"
GOOD, AWAY, ALIVE, SILENT = (200, "ok"), (503, "database"), (200, ""), (0, "timed out")


class World:
    """A service whose answers and units are what a test says; time passes between two looks."""

    def __init__(self, module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module: Any = module
        self.answers: dict[str, tuple[int, str]] = {"/readyz": GOOD, "/healthz": ALIVE}
        self.units = {"shop.service": "active", "shop-handover.service": "inactive"}
        self.restart: Callable[[], bool] = lambda: True
        self.clock = 10000.0
        self.restarts: list[float] = []
        self.asked: list[str] = []
        self.settings: dict[str, Any] = {
            "name": "shop",
            "ready_path": "/readyz",
            "ready_status": 200,
            "live_path": "/healthz",
            "host": "localhost",
            "timeout": 5,
            "failures": 3,
            "interval": 10,
            "restarts_per_hour": 3,
        }
        self.told: list[tuple[int, str]] = []

        class Time:
            monotonic = staticmethod(lambda: self.clock)

        monkeypatch.setattr(module, "RUN", folder)
        monkeypatch.setattr(module, "time", Time)
        monkeypatch.setattr(module, "active", lambda unit: self.units[unit])
        monkeypatch.setattr(module, "ask", self.ask)
        monkeypatch.setattr(module, "hand_over", self.hand_over)
        monkeypatch.setattr(
            module, "tell", lambda priority, text: self.told.append((priority, text))
        )

    def ask(self, config: Any, path: str) -> tuple[int, str]:
        self.asked.append(path)
        return self.answers[path]

    def hand_over(self, config: Any, reason: str) -> tuple[bool, str]:
        self.restarts.append(self.clock)
        good = self.restart()
        return good, "live and healthy." if good else "was judged bad in stage standby."

    def look(self, times: int = 1) -> None:
        """As the timer does; each look is a program of its own."""
        for _ in range(times):
            self.module.run(self.module.Config(**self.settings))
            self.clock += 10

    def words(self) -> str:
        """What was told since the last question."""
        said = "\n".join(text for _, text in self.told)
        self.told.clear()
        return said


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(load(PROGRAM), tmp_path, monkeypatch)


def test_a_healthy_service_is_asked_and_nothing_is_told(world: World) -> None:
    world.look(100)
    assert world.asked == ["/readyz"] * 100
    assert (world.told, world.restarts) == ([], [])


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
    assert len(world.told) == 1
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
    said = world.words()
    assert "did not help, and is tried again after 60 s" in said
    assert said.count("is left alone now") == 1
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
    assert len(world.told) == 1
    said = world.words()
    assert f"is not ready: {tmp_path / 'python3.0'} is not on this host any more" in said
    assert "Deploy its release again" in said
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
    path = tmp_path / "shop-health" / "state.json"
    path.parent.mkdir()
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
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load(PROGRAM)
    monkeypatch.setattr(module, "RUN", tmp_path)
    (tmp_path / "gunicorn").mkdir()
    return module.Config("shop", "/readyz", 200, "/healthz", "shop.example", 0.3, 3, 10, 3)


def test_answers_are_read_from_the_private_socket(config: Any) -> None:
    module: Any = sys.modules[type(config).__module__]

    def answer(request: Any) -> None:
        assert request.headers["Host"] == "shop.example"
        request.send_response(503 if request.path == "/readyz" else 204)
        request.end_headers()
        if request.path == "/readyz":
            request.wfile.write(b"the database is away " * 100)

    with served(config.socket, answer):
        status, body = module.ask(config, "/readyz")
        assert (status, len(body)) == (503, module.BODY_LIMIT)
        assert module.ask(config, "/healthz") == (204, "")


def test_silence_and_nobody_are_no_answer(config: Any) -> None:
    module: Any = sys.modules[type(config).__module__]
    assert module.ask(config, "/readyz")[0] == 0
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(config.socket))
        hung.listen()
        assert module.ask(config, "/readyz") == (0, "no answer within 0.3 s")


@pytest.mark.parametrize(
    "length",
    ["Content-Length: 600", "Connection: close", "Connection: close\r\nContent-Length: 600"],
)
def test_an_answer_that_drips_is_none(config: Any, length: str) -> None:
    """Each byte comes in time; the whole would take half a minute, and hold up whoever waits."""
    module: Any = sys.modules[type(config).__module__]
    judge: Any = load(PROGRAM.with_name("handover.py"))

    sent: list[int] = []

    def drip(request: Any) -> None:
        request.wfile.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        with suppress(OSError):
            for number in range(600):
                request.wfile.write(b"x")
                sent.append(number)
                time.sleep(0.05)

    with served(config.socket, drip):
        assert module.ask(config, "/readyz") == (0, "no answer within 0.3 s")
        check = judge.Check(host="shop.example")
        assert judge.ask(config.socket, check, None, 0.3) == ("gave no answer within 0.3 s", "")
    assert 599 not in sent, "it was waited for to its end"


def test_words_for_the_journal_have_a_priority_on_each_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    load(PROGRAM).tell(3, "one\ntwo")
    assert re.findall(r"^<3>", capsys.readouterr().out, re.MULTILINE) == ["<3>", "<3>"]
