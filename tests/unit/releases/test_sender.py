"""The sender against a server of its own, over TLS: it must see what goes wrong, and not wait."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ledger
import pytest
import sender
from sender import Plan

NAME = "toll.test"


class Handler(BaseHTTPRequestHandler):
    """Answers as toll-app does, unless the server has something else in mind."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.answer(200, {"amount": 250, "currency": "EUR"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        self.server.passages.append((key, body, self.headers["Authorization"]))
        self.answer(201, {"id": len(self.server.passages), "plate": body["plate"]})

    def answer(self, status: int, content: Any) -> None:
        self.server.connections.add(self.client_address)
        if self.server.behave(self):
            return
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Release", "r1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Attributes: what it was sent; `behave` answers in place of the handler, and says whether."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.passages: list[tuple[str, dict[str, Any], str]] = []
        self.connections: set[Any] = set()
        self.behave: Callable[[Handler], bool] = lambda handler: False

    def handle_error(self, *_: object) -> None:
        """Clients that give up are part of the tests."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-addext"),
            *(f"subjectAltName=DNS:{NAME}", "-keyout", path.with_suffix(".key"), "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def server(certificate: Path) -> Iterator[Server]:
    with Server(certificate) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def plan(server: Server, certificate: Path, tmp_path: Path) -> Callable[..., Plan]:
    def make(**given: Any) -> Plan:
        values = {
            "address": "127.0.0.1",
            "port": server.server_port,
            "name": NAME,
            "authority": str(certificate),
            "api_key": "toll_abcdefgh_secret",
            "ledger": str(tmp_path / "ledger"),
            "run": "T1",
            "passed_at": "2026-01-01T12:00:00+00:00",
            "rate": 200.0,
            "seconds": 0.2,
            "time_limit": 5.0,
        }
        return Plan(**{**values, **given})

    return make


def send(plan: Plan) -> list[ledger.Record]:
    asyncio.run(sender.send(plan))
    return ledger.read(Path(plan.ledger))


def errors(records: Iterable[ledger.Record]) -> list[str]:
    """What failed, however slow the machine is."""
    return [record.error for record in records if record.error]


def test_half_are_passages_with_keys_of_their_own(server, plan):
    records = send(plan())
    assert len(records) == 40
    assert errors(records) == []
    keys = [key for key, _, _ in server.passages]
    assert len(keys) == len(set(keys)) == 20
    assert {body["plate"] for _, body, _ in server.passages} == set(keys)
    assert {authorization for _, _, authorization in server.passages} == {
        "Bearer toll_abcdefgh_secret"
    }
    assert {record.plate for record in records if record.acknowledged} == set(keys)
    assert {record.release for record in records} == {"r1"}


def test_connections_are_kept_and_some_are_new(server, plan):
    """Handshakes are part of the load, but not the whole of it."""
    records = send(plan())
    fresh = len([number for number in range(40) if number % sender.FRESH_EVERY == 0])
    assert fresh <= len(server.connections) < len(records)


def test_the_sender_does_not_wait_for_answers(server, plan):
    """The point of an open loop: while nothing is answered, the others are sent all the same."""
    everything = 40
    arrived = threading.Semaphore(0)
    go_on = threading.Event()

    def hold(handler: Handler) -> bool:
        arrived.release()
        go_on.wait(30)
        return False

    server.behave = hold

    def release() -> None:
        # Would never come to an end if the sender waited for an answer before the next request.
        for _ in range(everything):
            arrived.acquire(timeout=20)
        go_on.set()

    waiting = threading.Thread(target=release)
    waiting.start()
    records = send(plan(time_limit=20.0))
    waiting.join()
    assert len(records) == everything
    assert not [record for record in records if record.error]
    # All were answered at the end, and each is timed from its own beginning.
    assert records[0].seconds > records[-1].seconds
    assert records[0].done >= records[-1].sent


def test_no_more_are_under_way_than_the_plan_allows(server, plan):
    """Or they would wait for one another ever longer, where the machine has no time for them."""
    lock = threading.Lock()
    under_way: list[int] = [0]

    def slow(handler: Handler) -> bool:
        with lock:
            under_way.append(under_way[-1] + 1)
        time.sleep(0.05)
        with lock:
            under_way.append(under_way[-1] - 1)
        return False

    server.behave = slow
    records = send(plan(at_once=3))
    assert len(records) == 40
    assert errors(records) == []
    assert max(under_way) == 3
    # Whoever had to wait is timed from when it was due.
    assert records[-1].due < records[-1].sent
    assert records[-1].seconds > 0.3


@pytest.mark.parametrize("status", [302, 400, 409, 429, 500, 502, 503])
def test_anything_but_2xx_is_a_failure(server, plan, status):
    def refuse(handler: Handler) -> bool:
        handler.send_response(status)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"no")
        return True

    server.behave = refuse
    records = send(plan(seconds=0.05))
    assert ledger.summarize(records).failures == {f"{status}: no": 10}
    assert not any(record.acknowledged for record in records)


def test_a_connection_that_is_cut_is_a_failure(server, plan):
    """Also one that was kept open, and none is tried again behind the scenes."""

    def cut(handler: Handler) -> bool:
        handler.close_connection = True
        return True

    server.behave = cut
    records = send(plan(seconds=0.05))
    assert ledger.summarize(records).failed == 10
    assert len(server.passages) == 5
    assert {record.status for record in records} == {0}


def test_a_kept_connection_that_has_ended_is_replaced_once(server, plan):
    """As HTTP clients do with what may be repeated. A new one that is cut is a failure."""
    seen: set[tuple[str, int]] = set()

    def end_what_was_kept(handler: Handler) -> bool:
        kept = handler.client_address in seen
        seen.add(handler.client_address)
        handler.close_connection = kept
        return kept

    server.behave = end_what_was_kept
    records = send(plan(rate=50.0, resend=True))
    assert errors(records) == []
    assert any(record.again for record in records)
    assert len(seen) > 1
    strict = send(plan(rate=50.0, ledger=f"{plan().ledger}.strict"))
    assert errors(strict)
    assert not any(record.again for record in strict)

    def cut(handler: Handler) -> bool:
        handler.close_connection = True
        return True

    server.behave = cut
    new = send(plan(seconds=0.05, resend=True, ledger=f"{plan().ledger}.new"))
    assert ledger.summarize(new).failed == 10


def test_what_was_done_before_the_cut_is_in_the_ledger(server, plan):
    done: list[str] = []
    seen: set[tuple[str, int]] = set()

    def do_and_cut(handler: Handler) -> bool:
        key, kept = handler.headers["Idempotency-Key"], handler.client_address in seen
        seen.add(handler.client_address)
        if key in done:
            handler.send_response(201)
            handler.send_header("Idempotency-Replayed", "true")
            body = json.dumps({"id": 1, "plate": key}).encode()
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return True
        if key and kept and not done:
            done.append(key)
            handler.close_connection = True
            return True
        return False

    server.behave = do_and_cut
    records = send(plan(rate=20.0, seconds=0.4, resend=True))
    assert errors(records) == []
    assert [record.again for record in records if record.replayed] == [True]


def test_an_answer_that_is_cut_short_is_a_failure(server, plan):
    def cut(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half of it")
        handler.close_connection = True
        return True

    server.behave = cut
    assert ledger.summarize(send(plan(seconds=0.05))).failed == 10


def test_no_answer_is_a_failure(server, plan):
    go_on = threading.Event()

    def hold(handler: Handler) -> bool:
        go_on.wait(30)
        return False

    server.behave = hold
    records = send(plan(seconds=0.01, time_limit=0.3))
    go_on.set()
    assert ledger.summarize(records).failures == {"no answer within 0.3 s": 2}


def test_nobody_there_is_a_failure(server, plan, certificate):
    port = server.server_port
    server.shutdown()
    server.server_close()
    records = send(plan(port=port, seconds=0.05))
    assert ledger.summarize(records).failed == 10


def test_a_certificate_that_is_not_trusted_is_a_failure(plan, tmp_path):
    [first, *_] = Path("/etc/ssl/certs").glob("*.pem")
    records = send(plan(authority=str(first), seconds=0.05))
    assert ledger.summarize(records).failed == 10
    assert "CERTIFICATE_VERIFY_FAILED" in records[0].error


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"amount": null, "plate": "OTHER"}', b"[1]"])
def test_a_good_status_with_something_else_in_it_is_a_failure(server, plan, body):
    """An error page with 200 is what a broken proxy sends."""

    def answer(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    server.behave = answer
    records = send(plan(seconds=0.05))
    assert ledger.summarize(records).failed == 10
    assert not any(record.acknowledged for record in records)


def test_chunked_answers_are_read(server, plan):
    def answer(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in (b'{"amo', b'unt": 3}'):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")
        return True

    server.behave = lambda handler: handler.command == "GET" and answer(handler)
    assert errors(send(plan(seconds=0.05))) == []


def test_sent_again_is_the_same_request(server, plan):
    """Under the same key, so that it is recorded once."""
    records = send(plan(seconds=0.05))
    numbers = tuple(record.number for record in records if record.plate)
    send(plan(again=numbers))
    first, second = server.passages[: len(numbers)], server.passages[len(numbers) :]
    order = lambda sent: sent[0]  # noqa: E731
    assert sorted(first, key=order) == sorted(second, key=order)


def test_the_next_address_takes_over_where_one_refuses(server, plan, monkeypatch):
    """Nothing listens there. Whichever it begins with, each request is answered once."""
    # On a busy machine the one that answers may take longer, and be taken for one that hangs.
    monkeypatch.setattr(sender, "NEXT_ADDRESS_SECONDS", 60.0)
    records = send(plan(address="127.0.0.9", others=("127.0.0.1",)))
    assert len(records) == 40
    assert errors(records) == []
    keys = [key for key, _, _ in server.passages]
    assert len(keys) == len(set(keys)) == 20


def test_with_the_last_address_refusing_a_request_fails(plan):
    records = send(plan(address="127.0.0.9", others=("127.0.0.8",)))
    assert len(errors(records)) == 40


def test_told_to_stop_it_finishes_what_it_began(server, plan, tmp_path):
    """As a program, with its plan on standard input."""
    long = plan(seconds=600.0)
    program = Path(sender.__file__)
    process = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, text=True)
    arrived = threading.Event()

    def once(handler: Handler) -> bool:
        arrived.set()
        return False

    server.behave = once
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(long)))
    process.stdin.close()
    assert arrived.wait(30)
    process.terminate()
    assert process.wait(30) == 0
    records = ledger.read(Path(long.ledger))
    assert records
    assert errors(records) == []


def test_the_key_is_not_shown(plan):
    assert "secret" not in repr(plan())


def test_plates_are_unlike():
    plates = [sender.plate("AB", number) for number in range(0, 100_000, 7)]
    assert len(set(plates)) == len(plates)
    assert {len(own) for own in plates} == {7}
