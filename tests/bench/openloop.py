#!/usr/bin/env python3
"""An open loop: asks at a constant rate, whatever the answers take.

    openloop.py < plan.json > requests.jsonl

Each request is due at a time of its own and is timed from then, also when it left late, so that a
server that stalls cannot hide it by keeping the sender waiting ("coordinated omission"). No request
is repeated. Writes one JSON list per request: due, sent, done, status, error.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import ssl
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

# How often requests that have waited too long are looked for.
SWEEP_SECONDS = 0.25


@dataclass(frozen=True)
class Plan:
    """What to send, and where.

    Attributes:
        address: where to connect to.
        port: where to connect to.
        tls: whether over TLS; certificates are not what is measured, and not checked.
        path: what is asked for.
        rate: requests a second.
        seconds: for which requests are sent.
        passages: every how many requests record a passage instead, 0 for none.
        api_key: of a recorder.
        run: tells the idempotency keys of this run from others'.
        time_limit: seconds until a request is given up.
        source: address of this machine to come from; empty for any. While a host that reboots has
            no network, requests for it would otherwise go wherever the default route leads.
        connections: how many are opened before the first request is due. Clients of a site have
            theirs; opened during a stall, each costs a handshake and makes the stall longer.
        idle: seconds after which a connection that nobody used is not used again. Below every
            server's keepalive, so that no request meets a connection that is being closed.
    """

    address: str
    port: int
    tls: bool
    path: str
    rate: float
    seconds: float
    passages: int = 0
    api_key: str = field(default="", repr=False)
    run: str = ""
    time_limit: float = 10.0
    source: str = ""
    connections: int = 0
    idle: float = 1.5


def render(plan: Plan, number: int) -> bytes:
    """A request as it goes over the wire."""
    if plan.passages and number % plan.passages == 0:
        passage = {
            "plaza": "harbour-bridge",
            "lane": "3",
            "class": "car",
            "plate": "AB-12-CD",
            "passed_at": "2026-05-04T07:15:00Z",
            "payment_method": "tag",
        }
        body = json.dumps(passage).encode()
        lines = [
            "POST /api/v1/passages HTTP/1.1",
            "Host: bench.test",
            f"Authorization: Bearer {plan.api_key}",
            f"Idempotency-Key: {plan.run}-{number}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
    else:
        body = b""
        # Who has a cookie gets no answer that was kept for others.
        lines = [f"GET {plan.path} HTTP/1.1", "Host: bench.test", "Cookie: bench=1"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client(asyncio.Protocol):
    """A connection, with at most one request on it."""

    def __init__(self, loop: Loop) -> None:
        """Belong to a loop.

        Args:
            loop: hears what becomes of requests.
        """
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.request: Request | None = None
        self.received = b""
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the way out."""
        self.transport = cast(asyncio.Transport, transport)

    @property
    def open(self) -> bool:
        """Whether a request could be sent on it."""
        return self.transport is not None and not self.transport.is_closing()

    def send(self, request: Request) -> None:
        """Send a request."""
        assert self.transport is not None
        self.request = request
        request.client = self
        self.received = b""
        self.transport.write(render(self.loop.plan, request.number))

    def data_received(self, data: bytes) -> None:
        """Hand on an answer as soon as it is whole."""
        self.received += data
        try:
            answer = parse(self.received)
        except ValueError as error:
            self.end(0, str(error))
            return
        if answer is not None and self.request is not None:
            request, self.request = self.request, None
            wrong = "" if 200 <= answer.status < 300 else f"status {answer.status}"
            if answer.last:
                self.drop()
            else:
                self.since = time.monotonic()
                self.loop.idle.append(self)
            self.loop.finish(request, answer.status, wrong)

    def connection_lost(self, error: Exception | None) -> None:
        """A request that was under way has failed."""
        self.end(0, f"the connection ended: {error or 'closed by the server'}")

    def end(self, status: int, error: str) -> None:
        """Give up the connection and what is on it."""
        request, self.request = self.request, None
        self.drop()
        if request is not None:
            self.loop.finish(request, status, error)

    def drop(self) -> None:
        """Close it at once: a farewell over TLS would wait for the other side."""
        if self.transport is not None:
            self.transport.abort()


@dataclass(frozen=True)
class Answer:
    """The head of an answer that is whole. `last`: the server closes the connection after it."""

    status: int
    last: bool


def parse(received: bytes) -> Answer | None:
    """Read an answer with a Content-Length, None while it is not whole.

    Raises:
        ValueError: it is no answer, or one whose end nothing tells.
    """
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ValueError(f"not an answer: {first[:60]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip().lower()
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise ValueError("an answer without Content-Length")
    if len(body) < int(length):
        return None
    last = headers.get("connection") == "close" or version == "HTTP/1.0"
    return Answer(int(rest[:3]), last)


@dataclass(eq=False)
class Request:
    """One that is under way."""

    number: int
    due: float
    sent: float
    client: Client | None = None
    done: bool = False


class Loop:
    """Sends a plan's requests."""

    def __init__(self, plan: Plan) -> None:
        """Prepare.

        Args:
            plan: what to send.
        """
        self.plan = plan
        self.records: list[tuple[float, float, float, int, str]] = []
        self.idle: deque[Client] = deque()
        self._waiting: set[Request] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        if plan.tls:
            self._context = ssl.create_default_context()
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    def finish(self, request: Request, status: int, error: str) -> None:
        """Write down what became of a request, once."""
        if not request.done:
            request.done = True
            self._waiting.discard(request)
            now = time.monotonic()
            self.records.append((request.due, request.sent, now, status, error))

    def _kept(self) -> Client | None:
        """A connection that is open and was used lately, else None."""
        while self.idle:
            client = self.idle.pop()
            if client.open and time.monotonic() - client.since < self.plan.idle:
                return client
            client.drop()
        return None

    async def _open(self) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(self),
            self.plan.address,
            self.plan.port,
            ssl=self._context,
            local_addr=(self.plan.source, 0) if self.plan.source else None,
            server_hostname="bench.test" if self._context else None,
        )
        return client

    async def _connect(self, request: Request) -> None:
        try:
            client = await self._open()
        except OSError as error:
            self.finish(request, 0, f"{type(error).__name__}: {error}")
            return
        if request.done:
            client.drop()
        else:
            client.send(request)

    def _start(self, number: int, due: float) -> None:
        request = Request(number, due, time.monotonic())
        self._waiting.add(request)
        if client := self._kept():
            client.send(request)
        else:
            task = asyncio.create_task(self._connect(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _give_up(self) -> None:
        """End what has waited too long."""
        late = time.monotonic() - self.plan.time_limit
        for request in [each for each in self._waiting if each.sent < late]:
            self.finish(request, 0, f"no answer within {self.plan.time_limit:g} s")
            if request.client:
                request.client.request = None
                request.client.drop()

    async def run(self) -> None:
        """Send everything, and wait for what is under way.

        Raises:
            OSError: there is nobody to open connections to beforehand.
        """
        for _ in range(self.plan.connections):
            client = await self._open()
            client.since = time.monotonic()
            self.idle.append(client)
        start = time.monotonic()
        swept = start
        for number in range(int(self.plan.seconds * self.plan.rate)):
            due = start + number / self.plan.rate
            # Late or not, answers get their turn.
            await asyncio.sleep(max(due - time.monotonic(), 0))
            self._start(number, due)
            if due - swept > SWEEP_SECONDS:
                swept = due
                self._give_up()
        while self._waiting:
            await asyncio.sleep(SWEEP_SECONDS)
            self._give_up()
        for task in self._tasks:
            task.cancel()
        while self.idle:
            self.idle.pop().drop()
        # Dropped connections are gone after another turn of the loop.
        await asyncio.sleep(0.01)


def main() -> None:
    """Read the plan: on standard input, because a key has no place on a command line."""
    plan: dict[str, Any] = json.load(sys.stdin)
    loop = Loop(Plan(**plan))
    # Clients are on machines of their own: what serves them must not make them late.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    # A collection would make requests late, and nothing here lives long enough to need one.
    gc.disable()
    asyncio.run(loop.run())
    for record in loop.records:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
