"""`wsgi.host.judge`: against a real server on the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.modules import judge


class Service(ThreadingHTTPServer):
    """Answers with what `answers` holds, the last one for ever."""

    answers: list[tuple[int, str]]
    hosts: list[str]
    # An answer that comes when nobody waits for it any more.
    late: str | None = None
    ended: threading.Event


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["Host"])
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if body == self.server.late:
            self.server.ended.wait(30)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), Handler)
    server.hosts = []
    server.ended = threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


# Where the verdict comes with the end of the time.
BRIEFLY = {"time_limit_seconds": 1.0}


def ready(release: str) -> tuple[int, str]:
    return 200, json.dumps({"status": "ok", "release": release})


def ask(server: Service, **options: Any) -> dict[str, Any]:
    return judge.judge(
        {
            "connect": f"127.0.0.1:{server.server_address[1]}",
            "name": "app.example.com",
            "path": "/readyz",
            "tls": False,
            "status": 200,
            "json": {},
            "count": 1,
            "interval_seconds": 0.01,
            "time_limit_seconds": 30,
            **options,
        }
    )


def test_waits_until_the_named_release_answers(service: Service) -> None:
    service.answers = [(503, ""), ready("old"), ready("new")]
    result = ask(service, json={"release": "new"})
    assert "fault" not in result
    assert result["asked"] == 3
    assert service.hosts == ["app.example.com"] * 3


def test_good_answers_must_be_in_a_row(service: Service) -> None:
    service.answers = [ready("x"), (500, ""), ready("x"), ready("x")]
    assert ask(service, count=2)["asked"] == 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((503, "no database"), "answered 503, not 200"),
        (ready("old"), "answered with release 'old', not 'new'"),
        ((200, "<html>"), "did not answer with JSON"),
        ((200, "[]"), "did not answer with a JSON object"),
    ],
)
def test_bad_answer_is_described(service: Service, answer: tuple[int, str], message: str) -> None:
    service.answers = [answer]
    assert ask(service, json={"release": "new"}, **BRIEFLY)["fault"] == message


def test_a_question_that_is_cut_off_does_not_hide_the_answer_before_it(service: Service) -> None:
    service.answers = [(503, "no database"), (200, "late")]
    service.late = "late"
    result = ask(service, **BRIEFLY)
    assert (result["fault"], result["answer"]["body"]) == ("answered 503, not 200", "no database")
    assert len(service.hosts) == 2


def test_a_service_that_answers_no_more_is_late(service: Service) -> None:
    service.answers = [(200, "late")]
    service.late = "late"
    assert ask(service, **BRIEFLY)["fault"] == "gave no answer within 1 s"


def test_nobody_listens() -> None:
    server = Service(("127.0.0.1", 0), Handler)
    server.server_close()
    assert "Connection refused" in ask(server, **BRIEFLY)["fault"]


def test_missing_unix_socket(service: Service) -> None:
    assert "No such file" in ask(service, connect="unix:/nowhere.sock", **BRIEFLY)["fault"]
