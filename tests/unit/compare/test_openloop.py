"""The sender of the open loop, against a server of its own on the loopback."""

from __future__ import annotations

import asyncio
from typing import Any

import openloop
import pytest
from openloop import Answer, Loop, Plan


@pytest.mark.parametrize(
    ("received", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345", Answer(200, False)),
        (b"HTTP/1.1 502 X\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n", Answer(502, True)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Answer(200, True)),
    ],
)
def test_an_answer_is_read_when_it_is_whole(received: bytes, answer: Answer | None) -> None:
    assert openloop.parse(received) == answer


@pytest.mark.parametrize("received", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_is_no_answer_or_has_no_end_is_an_error(received: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        openloop.parse(received)


def test_every_so_many_requests_record_a_passage_under_a_key_of_their_own() -> None:
    plan = Plan("127.0.0.1", 1, False, "/q", 1, 1, passages=3, api_key="secret", run="r")
    kinds = [openloop.render(plan, number).split()[0] for number in range(6)]
    assert kinds == [b"POST", b"GET", b"GET", b"POST", b"GET", b"GET"]
    assert b"Idempotency-Key: r-3\r\n" in openloop.render(plan, 3)
    assert "secret" not in repr(plan)


def send(answer: bytes, **given: Any) -> list[tuple[float, float, float, int, str]]:
    """Send to a server that gives each request this answer; none when it is empty."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if answer:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    async def run() -> list[tuple[float, float, float, int, str]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            loop = Loop(Plan("127.0.0.1", port, False, "/", 200, 0.1, **given))
            await loop.run()
        return loop.records

    return asyncio.run(run())


def test_every_request_is_recorded_once() -> None:
    records = send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert len(records) == 20
    assert {(status, error) for *_, status, error in records} == {(200, "")}


def test_connections_are_opened_before_and_used() -> None:
    """One that is opened while requests wait makes them wait longer."""
    opened = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    async def run() -> Loop:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            loop = Loop(Plan("127.0.0.1", port, False, "/", 200, 0.1, connections=30, idle=30))
            await loop.run()
        return loop

    loop = asyncio.run(run())
    assert [status for *_, status, _ in loop.records] == [200] * 20
    assert len(opened) == 30


def test_errors_are_no_good_answers() -> None:
    records = send(b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n")
    assert {(status, error) for *_, status, error in records} == {(502, "status 502")}


def test_what_is_never_answered_is_given_up() -> None:
    records = send(b"", time_limit=0.3)
    assert len(records) == 20
    assert all("no answer within 0.3 s" in error for *_, error in records)


def test_without_its_own_address_nothing_is_sent() -> None:
    """A host that reboots takes its network along: its address then leads elsewhere."""

    async def run() -> list[tuple[float, float, float, int, str]]:
        reached = []
        server = await asyncio.start_server(lambda r, w: reached.append(w), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            # Kept for documentation, so it is nobody's.
            loop = Loop(Plan("127.0.0.1", port, False, "/", 100, 0.05, source="192.0.2.1"))
            await loop.run()
        assert not reached
        return loop.records

    records = asyncio.run(run())
    assert len(records) == 5
    assert all(status == 0 and error for *_, status, error in records)


def test_what_is_refused_is_recorded() -> None:
    async def run() -> Loop:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        loop = Loop(Plan("127.0.0.1", port, False, "/", 100, 0.05))
        await loop.run()
        return loop

    loop = asyncio.run(run())
    assert len(loop.records) == 5
    assert all("ConnectionRefused" in error for *_, error in loop.records)
