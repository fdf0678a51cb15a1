"""Requests at a constant rate, and WebSockets that listen, while something is done to a site."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import percentile
from sender import Answer, Connection, Refused, read_answer

TIME_LIMIT_SECONDS = 30.0
IDLE_SECONDS = 5.0
# Odd, so that all kinds of requests get their turn with a TLS handshake of their own.
FRESH_EVERY = 9


@dataclass(frozen=True)
class Request:
    """What to ask.

    Attributes:
        good: statuses of a good answer.
        key: what the request makes, if anything; an acknowledged one has to be there afterwards.
        holds: what the body of a good answer has in it.
    """

    method: str
    path: str
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    good: tuple[int, ...] = (200,)
    key: str = ""
    holds: str = ""


@dataclass(frozen=True)
class Sent:
    """A request and what came of it; times are those of CLOCK_MONOTONIC."""

    request: Request
    due: float
    done: float
    status: int
    body: str
    error: str

    @property
    def seconds(self) -> float:
        """From the time it was due, not from the time the sender came to it."""
        return self.done - self.due


@dataclass(frozen=True)
class Site:
    """Where to ask.

    Attributes:
        address: of the host.
        name: what the certificate and the Host header name.
        authority: PEM file of what to trust.
    """

    address: str
    name: str
    authority: Path

    def context(self) -> ssl.SSLContext:
        """What a client trusts."""
        return ssl.create_default_context(cafile=str(self.authority))

    def ask(self, request: Request, timeout: float = 60.0) -> tuple[int, str]:
        """Ask once; return status and body."""
        connection = http.client.HTTPSConnection(self.name, timeout=timeout, context=self.context())
        try:
            raw = socket.create_connection((self.address, 443), timeout)
            connection.sock = self.context().wrap_socket(raw, server_hostname=self.name)
            body = request.body.encode() if request.body else None
            connection.request(request.method, request.path, body, dict(request.headers))
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def need(self, request: Request, timeout: float = 60.0) -> str:
        """Ask once; return the body of the good answer that has to come.

        Raises:
            AssertionError: another one came.
        """
        status, body = self.ask(request, timeout)
        shown = f"{request.method} {request.path} was answered with {status}: {body[:500]}"
        assert status in request.good, shown
        assert request.holds in body, shown
        return body

    def json(self, request: Request) -> Any:
        """Ask once; return what is in the good answer that has to come."""
        return json.loads(self.need(request) or "null")


async def open_connection(site: Site) -> Connection:
    """Connect, with a TLS handshake."""
    reader, writer = await asyncio.open_connection(
        site.address, 443, ssl=site.context(), server_hostname=site.name
    )
    return Connection(reader, writer)


class Listener:
    """A client with a WebSocket, which connects again at once when it is closed.

    Attributes:
        codes: with which its connections were closed; 1006 is one without a closing frame.
        received: the texts that came.
        gaps: seconds from the end of each connection to the next one.
    """

    def __init__(self, site: Site, path: str) -> None:
        self.site = site
        self.path = path
        self.codes: list[int] = []
        self.received: list[str] = []
        self.gaps: list[float] = []
        self.refused = 0
        self.open = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._over = False

    async def run(self) -> None:
        """Listen until `stop`."""
        ended = 0.0
        while not self._over:
            try:
                reader, writer = await self._connect()
            except (OSError, EOFError, Refused):
                self.refused += 1
                await asyncio.sleep(0.1)
                continue
            if ended:
                self.gaps.append(time.monotonic() - ended)
            self._writer = writer
            self.open.set()
            try:
                code = await self._listen(reader, writer)
            except (OSError, EOFError):
                code = 1006
            ended = time.monotonic()
            self.open.clear()
            writer.transport.abort()
            if not self._over:
                self.codes.append(code)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = await open_connection(self.site)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {self.path} HTTP/1.1",
            f"Host: {self.site.name}",
            *("Upgrade: websocket", "Connection: Upgrade"),
            *(f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"),
        ]
        connection.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if " 101 " not in head.splitlines()[0]:
            connection.close()
            raise Refused(head.splitlines()[0])
        return connection.reader, connection.writer

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """Read frames; return the code of the closing one."""
        while True:
            first, second = await reader.readexactly(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", await reader.readexactly(8))
            content = await reader.readexactly(length)
            kind = first & 15
            if kind == 8:
                writer.write(frame(8, content))
                return int.from_bytes(content[:2], "big") if len(content) >= 2 else 1005
            if kind == 9:
                writer.write(frame(10, content))
            elif kind == 1:
                self.received.append(content.decode())

    def say(self, text: str) -> None:
        """Send a text to the server."""
        if self._writer and self.open.is_set():
            self._writer.write(frame(1, text.encode()))

    def stop(self) -> None:
        """Hang up."""
        self._over = True
        if self._writer:
            self._writer.transport.abort()


def frame(kind: int, content: bytes) -> bytes:
    """A frame as a client sends it, masked."""
    mask = os.urandom(4)
    length = (
        bytes([128 | len(content)])
        if len(content) < 126
        else bytes([128 | 126]) + struct.pack(">H", len(content))
    )
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
    return bytes([128 | kind]) + length + mask + masked


@dataclass
class Stream:
    """Requests of one kind, and at which rate they are sent, in requests a second."""

    make: Callable[[int], Request]
    rate: float
    sent: list[Sent] = field(default_factory=list)


class Load:
    """Sends streams of requests from the beginning of a block to its end, in a thread of its own.

    Each request is sent when it is due, also while earlier ones still wait, and its answer is timed
    from then. None is repeated.
    """

    def __init__(
        self, site: Site, streams: Sequence[Stream], listeners: Sequence[Listener] = ()
    ) -> None:
        self.site = site
        self.streams = streams
        self.listeners = listeners
        self._idle: list[Connection] = []
        self._over = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._problem:
            raise self._problem

    def _work(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as problem:
            self._problem = problem

    async def _all(self) -> None:
        listening = [asyncio.create_task(listener.run()) for listener in self.listeners]
        await asyncio.gather(*(listener.open.wait() for listener in self.listeners))
        await asyncio.gather(*(self._stream(stream) for stream in self.streams))
        # What was said last is heard.
        await asyncio.sleep(1 if listening else 0)
        for listener in self.listeners:
            listener.stop()
        await asyncio.gather(*listening)
        for connection in self._idle:
            connection.close()
        await asyncio.sleep(0.01)

    async def _stream(self, stream: Stream) -> None:
        start = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while not self._over.is_set():
            due = start + number / stream.rate
            await asyncio.sleep(min(max(due - time.monotonic(), 0), 0.5))
            if time.monotonic() < due:
                continue
            task = asyncio.create_task(self._one(stream, number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)

    async def _one(self, stream: Stream, number: int, due: float) -> None:
        request = stream.make(number)
        status, body, error = 0, "", ""
        try:
            async with asyncio.timeout(TIME_LIMIT_SECONDS):
                answer = await self._exchange(request, number % FRESH_EVERY == 0)
            status, body = answer.status, answer.body.decode(errors="replace")
            if status not in request.good or request.holds not in body:
                error = f"{status}: {body[:200]}"
        except TimeoutError:
            error = f"no answer within {TIME_LIMIT_SECONDS:g} s"
        except (OSError, EOFError, ValueError, Refused) as failure:
            error = f"{type(failure).__name__}: {failure}"
        stream.sent.append(Sent(request, due, time.monotonic(), status, body, error))

    async def _exchange(self, request: Request, fresh: bool) -> Answer:
        connection = (None if fresh else self._kept()) or await open_connection(self.site)
        headers = {"Host": self.site.name, **request.headers}
        content = request.body.encode()
        if content:
            headers["Content-Length"] = str(len(content))
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            connection.writer.write("\r\n".join([*lines, "", ""]).encode() + content)
            await connection.writer.drain()
            answer = await read_answer(connection.reader)
        except BaseException:
            connection.close()
            raise
        if fresh or answer.last:
            connection.close()
        else:
            connection.since = time.monotonic()
            self._idle.append(connection)
        return answer

    def _kept(self) -> Connection | None:
        """A connection that is open and was used lately, else None."""
        with contextlib.suppress(IndexError):
            while connection := self._idle.pop():
                if time.monotonic() - connection.since < IDLE_SECONDS:
                    return connection
                connection.close()
        return None


def figures(sent: Sequence[Sent]) -> dict[str, Any]:
    """Add up: how many were sent and failed, and times of answers in seconds."""
    times = [each.seconds for each in sent if each.status]
    return {
        "sent": len(sent),
        "failed": sum(1 for each in sent if each.error),
        "late": sum(1 for each in sent if not each.error and each.seconds > 1),
        "p50": percentile(times, 0.5) if times else 0.0,
        "p99": percentile(times, 0.99) if times else 0.0,
        "slowest": max(times, default=0.0),
    }
