"""An ASGI application that uses what a description can ask for: a queue, rows, files, WebSockets.

GET /                 its version
GET /built            what a step of the build has made
POST /jobs/NAME       puts a job into the queue of worker.py
PUT /uploads/NAME     keeps a file, and a row about it
GET /uploads          the rows, each with the content of its file
WebSocket /           sends back what it gets
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio

VERSION = "1"

STATE = Path(os.environ["STATE_DIRECTORY"])
UPLOADS = STATE / "uploads"
ROWS = STATE / "desk.db"
# A busy machine is late, which is no fault of the queue: by default the client gives up after 5 s.
QUEUE = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=60)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    await {"lifespan": live, "websocket": echo, "http": answer}[scope["type"]](scope, receive, send)


async def live(scope: Message, receive: Receive, send: Send) -> None:
    """Make what is to be there, once for each process."""
    await receive()
    UPLOADS.mkdir(exist_ok=True)
    with rows() as base:
        base.execute("CREATE TABLE IF NOT EXISTS uploads (name TEXT PRIMARY KEY)")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Send back each message, until the other side has enough."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def answer(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    status, text = await result(scope["method"], scope["path"], body)
    content = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def result(method: str, path: str, body: bytes) -> tuple[int, str]:
    """Status and text of an answer."""
    _, first, *rest = path.split("/")
    if (method, first) == ("POST", "jobs"):
        await QUEUE.rpush("jobs", rest[0])
        return 202, rest[0]
    if (method, first) == ("PUT", "uploads"):
        await asyncio.to_thread(keep, rest[0], body)
        return 201, rest[0]
    if first == "uploads":
        return 200, json.dumps(await asyncio.to_thread(kept))
    if first == "built":
        return 200, Path("built.txt").read_text()
    return 200, f"desk {VERSION}\n"


@contextlib.contextmanager
def rows() -> Any:
    """The database, with what was done in it kept."""
    with contextlib.closing(sqlite3.connect(ROWS, timeout=10)) as base, base:
        yield base


def keep(name: str, content: bytes) -> None:
    """The file first, so that each row has one."""
    (UPLOADS / name).write_bytes(content)
    with rows() as base:
        base.execute("INSERT OR REPLACE INTO uploads VALUES (?)", (name,))


def kept() -> dict[str, str]:
    """Content by name."""
    with rows() as base:
        names = [name for (name,) in base.execute("SELECT name FROM uploads ORDER BY name")]
    return {name: (UPLOADS / name).read_text() for name in names}
