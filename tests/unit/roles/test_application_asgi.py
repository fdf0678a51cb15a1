"""ASGI applications: what their description means, and a real gunicorn that stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .described import problems, whole
from .test_gunicorn_systemd import NAME, REQUIRED, files

APPLICATION = """
import asyncio
import pathlib

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        pathlib.Path("started").open("a").write("x")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        pathlib.Path("events").open("a").write("stopped\\n")
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = {"type": ""}
        while message["type"] != "websocket.disconnect":
            message = await receive()
            await send({"type": "websocket.send", "text": "heard"})
        pathlib.Path("events").open("a").write(f"closed {message['code']}\\n")
    else:
        await receive()
        if scope["path"] == "/slow":
            await asyncio.sleep(2)
        body = b"done" if scope["path"] != "/client" else repr(scope["client"]).encode()
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})
        if scope["path"] == "/background":
            await asyncio.sleep(2)
            pathlib.Path("events").open("a").write("background\\n")
"""
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_asgi_takes_the_place_of_wsgi() -> None:
    """One line is enough: the class of the workers and their threads follow from it."""
    plain = whole({})
    assert (plain["wsgi"], plain["asgi"], plain["service"]["worker_class"]) == (
        *("app:app", "", "gthread"),
    )
    description = whole({"asgi": "shop:app"})
    assert description["wsgi"] == ""
    assert description["service"]["worker_class"] == "asgi"
    assert description["service"]["threads"] == 1


def test_a_release_is_asked_by_a_name_that_the_application_takes() -> None:
    """Django answers any other with 400, and would be judged bad unless it takes localhost too."""
    description = whole({"domains": ["shop.example.com", "www.example.com"]})
    assert description["service"]["check_host"] == "shop.example.com"
    description = whole({"web": {"check_host": "inside.example.com"}})
    assert description["service"]["check_host"] == "inside.example.com"


@pytest.mark.parametrize(
    ("own", "about", "said"),
    [
        ({"asgi": "shop:app"}, "asgi", None),
        ({"wsgi": "shop:app"}, "web.worker_class", None),
        ({"asgi": "a:b", "wsgi": "c:d"}, "asgi", "is set, and wsgi is c:d"),
        ({"wsgi": ""}, "asgi", "is empty, and wsgi too"),
        (
            {"asgi": "a:b", "web": {"worker_class": "gthread"}},
            "web.worker_class",
            "is gthread, which serves no ASGI application",
        ),
        (
            {"web": {"worker_class": "asgi"}},
            "web.worker_class",
            "is asgi, which serves no WSGI application",
        ),
    ],
)
def test_exactly_one_is_served(own: dict[str, object], about: str, said: str | None) -> None:
    found = problems(own, about)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


class Server:
    """A gunicorn with the settings of the role, on a socket that somebody else opened."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self.folder = folder
        variables = {
            **REQUIRED,
            "gunicorn_systemd_wsgi_app": "served:application",
            "gunicorn_systemd_worker_class": "asgi",
            "gunicorn_systemd_workers": 2,
            "gunicorn_systemd_graceful_timeout_seconds": 30,
            "gunicorn_systemd_backlog": 1234,
        }
        settings = folder / "gunicorn.conf.py"
        settings.write_text(files("Debian", variables)[f"/etc/{NAME}/gunicorn.conf.py"])
        (folder / "served.py").write_text(APPLICATION)
        # As systemd hands it over.
        start = f'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&{listener.fileno()}'
        command = [sys.executable, "-m", "gunicorn", "--config", str(settings)]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["/bin/bash", "-c", start, "start", *command],
                cwd=folder,
                env={**os.environ, "RUNTIME_DIRECTORY": str(folder)},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.path = listener.getsockname()

    def ask(self, request: bytes) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(15)
        client.connect(self.path)
        client.sendall(request)
        return client

    def answer(self, path: str, more: str = "") -> bytes:
        with self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()) as client:
            return b"".join(iter(lambda: client.recv(4096), b""))

    def stop(self) -> None:
        """As systemd does, which signals workers too."""
        os.killpg(self.process.pid, signal.SIGTERM)

    def events(self) -> list[str]:
        path = self.folder / "events"
        return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "sock"))
    listener.listen(1234)
    served = Server(tmp_path, listener)
    try:
        assert served.answer("/").startswith(b"HTTP/1.1 200"), (tmp_path / "log").read_text()
        # A worker that is still starting does not hear that it is to stop.
        end = time.monotonic() + 30
        while (tmp_path / "started").read_text() != "xx":
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield served
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(served.process.pid, signal.SIGKILL)
        served.process.wait()
        listener.close()


def opened(server: Server) -> socket.socket:
    client = server.ask(UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return client


def test_what_is_open_ends_in_order_when_the_service_stops(server: Server) -> None:
    """Clients are told to connect again at once; requests and background tasks are finished."""
    clients = [opened(server) for _ in range(6)]
    slow = server.ask(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert server.answer("/background").endswith(b"done")
    start = time.monotonic()
    server.stop()
    for client in clients:
        frame = client.recv(100)
        assert (frame[0], int.from_bytes(frame[2:4], "big")) == (0x88, 1012), frame
    assert time.monotonic() - start < 4
    # The client closes as well.
    for client in clients:
        client.sendall(b"\x88\x82\0\0\0\0\x03\xf4")
        assert client.recv(100) == b""
        client.close()
    assert slow.recv(4096).startswith(b"HTTP/1.1 200")
    slow.close()
    assert server.process.wait(15) == 0
    events = server.events()
    assert events.count("closed 1012") == 6
    assert events.count("background") == 1
    # Last of all in each worker.
    assert events.count("stopped") == 2
    assert events[-1] == "stopped"


def test_a_request_has_the_client_that_nginx_names(server: Server) -> None:
    """Over the unix socket there would be none, and applications answer nobody with 403."""
    named = server.answer("/client", "X-Forwarded-For: 192.0.2.7\r\n")
    assert named.endswith(b"\r\n\r\n('192.0.2.7', 0)"), named
    # The questions of the handover are the host's own.
    assert server.answer("/client").endswith(b"\r\n\r\n('127.0.0.1', 0)")


def test_a_client_that_does_not_answer_delays_the_stop_no_more_than_seconds(server: Server) -> None:
    """A phone that is out of reach would hold up each deploy for the whole graceful timeout."""
    client = opened(server)
    start = time.monotonic()
    server.stop()
    server.process.wait(40)
    assert time.monotonic() - start < 20
    client.close()


def test_the_queue_of_the_sockets_stays_as_long_as_systemd_made_it(server: Server) -> None:
    """An event loop calls listen() with a queue of 100; one more client would be refused."""
    shown = subprocess.run(
        ["ss", "-xlnH"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    [line] = [line for line in shown if server.path in line]
    assert re.search(r"LISTEN\s+\d+\s+1234\s", line), line


def test_nothing_follows_the_frame_that_closes(tmp_path: Path) -> None:
    """A client takes what comes after it for an error of the protocol."""
    text = files("Debian", {**REQUIRED, "gunicorn_systemd_worker_class": "asgi"})
    space: dict[str, object] = {}
    exec(text[f"/etc/{NAME}/gunicorn.conf.py"], space)
    sent: list[str] = []

    class Worker:
        nr_conns = 0

    async def run() -> None:
        told = asyncio.Event()

        async def application(scope: object, receive: object, send: object) -> None:
            await send({"type": "websocket.accept"})  # type: ignore[operator]
            await told.wait()
            await send({"type": "websocket.send", "text": "late"})  # type: ignore[operator]

        async def send(message: dict[str, str]) -> None:
            sent.append(message["type"])

        calls = space["Calls"](application, Worker)  # type: ignore[operator]
        task = asyncio.ensure_future(calls({"type": "websocket", "headers": []}, None, send))
        await asyncio.sleep(0)
        assert Worker.nr_conns == 1
        await calls.close_websockets()
        told.set()
        await task

    asyncio.run(run())
    assert sent == ["websocket.accept", "websocket.close"]
    assert Worker.nr_conns == 0
