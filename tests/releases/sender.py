#!/usr/bin/env python3
"""An open-loop sender: asks toll-app at a constant rate, whatever the answers take.

    sender.py < plan.json

Half of the requests ask for a quote, half record a passage under an idempotency key of their own.
Each has a time at which it is due. It is sent then, also while earlier ones still wait, and its
answer is timed from then: a service that stalls cannot hide it by keeping the sender waiting
("coordinated omission"). No request is ever repeated behind the scenes, unless the plan says so.

Most requests share connections that are kept open; every ninth brings a TLS handshake of its own.
Each request is a line of the ledger (ledger.py) as soon as it is answered or given up. SIGTERM, or
the plan's number of seconds, ends the sending; what was sent is still waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any
from urllib.parse import urlencode

from ledger import Record

# Below nginx's keepalive_timeout, so that no request meets a connection that is just being closed.
IDLE_SECONDS = 5.0
# Odd, so that quotes and passages get their turn.
FRESH_EVERY = 9
# Until the next of several addresses is tried.
NEXT_ADDRESS_SECONDS = 0.5
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Plan:
    """What to send, and where.

    Attributes:
        address: where to connect to.
        others: further addresses of the same name. Connections begin with each in turn and go on
            to the next where none comes about, as a browser's do; what was sent is not sent again.
        name: what the certificate and the Host header name.
        authority: PEM file of the certificates to trust.
        api_key: of a recorder.
        ledger: file to append to.
        run: two or three of 0-9 and A-Z that tell this run's plates from others'.
        passed_at: when all passages are said to have happened, ISO 8601.
        rate: requests a second.
        seconds: after which no more are sent.
        time_limit: seconds until a request is given up.
        at_once: how many requests may be under way, 0 for any number. Beyond it the next one is
            sent when one of them has ended, and is timed from when it was due all the same. Where
            the machine has less time than the rate takes, the queue would grow until nobody is
            answered within the limit.
        port: where to connect to.
        plaza: code of the plaza.
        vehicle_class: code of the class.
        again: numbers to send once more, under their old keys, in place of new ones.
        resend: whether to send a request once more, at once, where a connection that was kept open
            ends without a byte of an answer. A server that closes an idle connection may do so
            while a request is on its way, so clients do that with what may be repeated: a GET, or
            what has an idempotency key (https://pkg.go.dev/net/http#Transport). The ledger has it.
    """

    address: str
    name: str
    authority: str
    api_key: str = field(repr=False)
    ledger: str
    run: str
    passed_at: str
    rate: float = 40.0
    seconds: float = 600.0
    time_limit: float = 30.0
    port: int = 443
    plaza: str = "harbour-bridge"
    vehicle_class: str = "car"
    again: tuple[int, ...] = ()
    others: tuple[str, ...] = ()
    resend: bool = False
    at_once: int = 0


def nonblocking() -> socket.socket:
    """A socket for the loop."""
    raw = socket.socket()
    raw.setblocking(False)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


def plate(run: str, number: int) -> str:
    """The plate of a request: no other passage in the database has it."""
    digits = ""
    for _ in range(5):
        number, digit = divmod(number, len(DIGITS))
        digits = DIGITS[digit] + digits
    return f"{run}{digits}"


def is_passage(number: int) -> bool:
    """Every other request records a passage."""
    return number % 2 == 1


def render(plan: Plan, number: int) -> bytes:
    """The request as it goes over the wire; the same number gives the same bytes."""
    if is_passage(number):
        passage = {
            "plaza": plan.plaza,
            "lane": str(number % 6 + 1),
            "class": plan.vehicle_class,
            "plate": plate(plan.run, number),
            "passed_at": plan.passed_at,
            "payment_method": "card",
        }
        body = json.dumps(passage).encode()
        lines = [
            "POST /api/v1/passages HTTP/1.1",
            f"Host: {plan.name}",
            f"Authorization: Bearer {plan.api_key}",
            f"Idempotency-Key: {plate(plan.run, number)}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
    else:
        body = b""
        query = urlencode({"plaza": plan.plaza, "class": plan.vehicle_class})
        lines = [f"GET /api/v1/quote?{query} HTTP/1.1", f"Host: {plan.name}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Refused(Exception):
    """The answer is not one of HTTP as nginx speaks it."""


@dataclass
class Answer:
    """What came back. `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    again: bool = False

    @property
    def last(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.headers.get("connection", "").lower() == "close"

    @property
    def replayed(self) -> bool:
        """Whether the service had done before what was asked for."""
        return self.headers.get("idempotency-replayed") == "true"


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer of HTTP/1.1.

    Raises:
        Refused: it is none.
        OSError, asyncio.IncompleteReadError: the connection ended before it did.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
        raise Refused(f"not an answer: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif rest[:3] not in ("204", "304"):
        body = await reader.read()
        headers["connection"] = "close"
    return Answer(int(rest[:3]), headers, body)


def problem(plan: Plan, number: int, answer: Answer) -> str:
    """Why an answer of 2xx is none all the same; empty when it is right."""
    try:
        content = json.loads(answer.body)
        if is_passage(number):
            right = content["plate"] == plate(plan.run, number) and "id" in content
        else:
            right = content["amount"] is not None
    except (ValueError, KeyError, TypeError):
        right = False
    return "" if right else f"wrong answer: {answer.body[:120]!r}"


@dataclass
class Connection:
    """A connection that is open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since: float = 0.0

    def close(self) -> None:
        """Drop it at once: a farewell over TLS would wait for the other side."""
        self.writer.transport.abort()


class Sender:
    """Sends a plan's requests."""

    def __init__(self, plan: Plan, ledger: IO[str]) -> None:
        """Prepare.

        Args:
            plan: what to send.
            ledger: where each request's line goes.
        """
        self.plan = plan
        self.stop = asyncio.Event()
        self._ledger = ledger
        self._context = ssl.create_default_context(cafile=plan.authority)
        self._idle: list[Connection] = []
        self._opened = 0

    async def _reach(self) -> socket.socket:
        """A connection over TCP to the first address that takes one."""
        addresses = (self.plan.address, *self.plan.others)
        self._opened += 1
        first = self._opened % len(addresses)
        loop = asyncio.get_running_loop()
        *before, last = addresses[first:] + addresses[:first]
        for address in before:
            raw = nonblocking()
            try:
                async with asyncio.timeout(NEXT_ADDRESS_SECONDS):
                    await loop.sock_connect(raw, (address, self.plan.port))
            except OSError:
                # TimeoutError is one as well.
                raw.close()
            else:
                return raw
        raw = nonblocking()
        try:
            await loop.sock_connect(raw, (last, self.plan.port))
        except BaseException:
            raw.close()
            raise
        return raw

    async def _open(self) -> Connection:
        raw = await self._reach()
        reader, writer = await asyncio.open_connection(
            sock=raw, ssl=self._context, server_hostname=self.plan.name
        )
        return Connection(reader, writer)

    def _kept(self) -> Connection | None:
        """A connection that is open and was used lately, else None."""
        while self._idle:
            connection = self._idle.pop()
            lately = time.monotonic() - connection.since < IDLE_SECONDS
            # As every HTTP client does, it looks whether the other side has ended it meanwhile.
            if lately and not connection.reader.at_eof():
                return connection
            connection.close()
        return None

    async def _exchange(self, number: int) -> Answer:
        fresh = number % FRESH_EVERY == 0
        kept = None if fresh else self._kept()
        try:
            return await self._ask(kept or await self._open(), number, last=fresh)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            begun = isinstance(error, asyncio.IncompleteReadError) and error.partial
            if kept is None or not self.plan.resend or begun:
                raise
        answer = await self._ask(await self._open(), number, last=False)
        answer.again = True
        return answer

    async def _ask(self, connection: Connection, number: int, last: bool) -> Answer:
        """Send a request and read its answer.

        Args:
            last: whether the connection is not to be kept.
        """
        try:
            connection.writer.write(render(self.plan, number))
            await connection.writer.drain()
            answer = await read_answer(connection.reader)
        except BaseException:
            connection.close()
            raise
        if last or answer.last:
            connection.close()
        else:
            connection.since = time.monotonic()
            self._idle.append(connection)
        return answer

    async def _one(self, number: int, due: float) -> None:
        sent = time.monotonic()
        status, error, by, again, replayed = 0, "", "", False, False
        try:
            async with asyncio.timeout(self.plan.time_limit):
                answer = await self._exchange(number)
            status, by = answer.status, answer.headers.get("x-release", "")
            again, replayed = answer.again, answer.replayed
            if 200 <= status < 300:
                error = problem(self.plan, number, answer)
            else:
                error = f"{status}: {answer.body[:120].decode(errors='replace')}"
        except TimeoutError:
            error = f"no answer within {self.plan.time_limit:g} s"
        except (OSError, EOFError, ValueError, Refused) as failure:
            error = f"{type(failure).__name__}: {failure}"
        done = time.monotonic()
        own = plate(self.plan.run, number) if is_passage(number) else ""
        record = Record(number, due, sent, done, status, error, own, by, again, replayed)
        self._ledger.write(json.dumps(asdict(record)) + "\n")
        self._ledger.flush()

    async def run(self) -> None:
        """Send until the plan's seconds are over or `stop` is set; wait for what is under way."""
        plan = self.plan
        start = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        numbers: Sequence[int] = plan.again or range(int(plan.seconds * plan.rate))
        for place, number in enumerate(numbers):
            due = start + place / plan.rate
            with contextlib.suppress(TimeoutError):
                # Late or not, others get their turn.
                await asyncio.wait_for(self.stop.wait(), max(due - time.monotonic(), 0))
            if self.stop.is_set():
                break
            task = asyncio.create_task(self._one(number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            while plan.at_once and len(tasks) >= plan.at_once:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*tasks)
        for connection in self._idle:
            connection.close()
        # Dropped connections are gone after another turn of the loop.
        await asyncio.sleep(0.01)


async def send(plan: Plan) -> None:
    """Send a plan's requests; SIGTERM ends it early."""
    # Appending, so that a ledger may go on after a pause.
    descriptor = os.open(plan.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a") as ledger:
        sender = Sender(plan, ledger)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, sender.stop.set)
        await sender.run()


def main() -> None:
    """Read the plan: on standard input, because a key has no place on a command line."""
    # Clients are on machines of their own: work on this one must not make them late.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    plan: dict[str, Any] = json.load(sys.stdin)
    for name in ("again", "others"):
        plan[name] = tuple(plan.get(name, ()))
    asyncio.run(send(Plan(**plan)))


if __name__ == "__main__":
    main()
