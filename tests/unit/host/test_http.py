"""The one HTTP client of modules and commands: one deadline, whatever a server does."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.certificates import probing
from ansible_collections.wsgi.host.plugins.modules import judge as judge_module
from apphost import http, readiness
from apphost.application import Application
from apphost.backup import restore
from apphost.handover import judge
from apphost.handover.config import Check
from conftest import PROJECT

from .conftest import describe
from .test_package import MODULES, PACKAGE

LIMIT = 0.3
# Bytes: a hundredth of a second each, so no more than 30 within the limit, of 600 or so.
A_FEW = 200
# What is sent piece by piece before a server would fall silent for ever, were it waited for.
HEAD = "HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n"
FOREVER = "x" * 600


class Server:
    """Does with each connection what a test says, until the client is gone."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.act: Callable[[socket.socket], None] = lambda _: None
        self.dripped = 0  # bytes that were sent one by one
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.act(connection)

    def drip(self, *pieces: str) -> None:
        """Send the first pieces at once, the last byte by byte, each sooner than any timeout."""

        def act(connection: socket.socket) -> None:
            connection.recv(65536)
            for piece in pieces[:-1]:
                connection.sendall(piece.encode())
            for byte in pieces[-1].encode():
                connection.sendall(bytes([byte]))
                self.dripped += 1
                if self.ended.wait(0.01):
                    return

        self.act = act

    def send(self, text: str) -> None:
        def act(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(text.encode())

        self.act = act

    def hold(self) -> None:
        """Take the connection and say nothing."""

        def act(connection: socket.socket) -> None:
            connection.recv(65536)
            self.ended.wait(30)

        self.act = act


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    served = Server(listener)
    yield served
    served.ended.set()
    listener.close()


@pytest.fixture
def tcp() -> Iterator[Server]:
    served = Server(socket.create_server(("127.0.0.1", 0)))
    yield served
    served.ended.set()
    served.listener.close()


def at(server: Server) -> str:
    name = server.listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"


def test_a_service_is_asked_as_nginx_asks_it(server: Server, tcp: Server) -> None:
    """An application that sends plain HTTP to HTTPS would answer each question with a redirect."""
    heads: list[str] = []

    def act(connection: socket.socket) -> None:
        heads.append(connection.recv(65536).decode())
        connection.sendall(HEAD.replace("600", "2").encode() + b"ok")

    server.act = tcp.act = act
    http.get(at(server), deadline=5, name="shop.example")
    http.get(at(tcp), deadline=5)
    assert "\r\nHost: shop.example\r\n" in heads[0]
    assert "\r\nX-Forwarded-Proto: https\r\n" in heads[0]
    assert "X-Forwarded-Proto" not in heads[1]


DRIPS = {
    "status": ("HTTP/1.1 200 " + FOREVER,),
    "headers": ("HTTP/1.1 200 OK\r\n", "A: b\r\n" * 90),
    "more headers": ("HTTP/1.1 200 OK\r\nX: ", FOREVER),
    "body": (HEAD, FOREVER),
    "body without length": ("HTTP/1.1 200 OK\r\n\r\n", FOREVER),
    "chunks": ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n" * 100),
    "size of a chunk": ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0" * 600),
    "interim answers": ("HTTP/1.1 100 Continue\r\n\r\n" * 60,),
}


@pytest.mark.parametrize("pieces", DRIPS.values(), ids=DRIPS)
def test_a_drip_ends_with_the_deadline(server: Server, pieces: tuple[str, ...]) -> None:
    """Each byte comes in time; only the whole does not."""
    server.drip(*pieces)
    with pytest.raises(http.LateError, match=r"^no answer within 0\.3 s$"):
        http.get(at(server), deadline=LIMIT)
    assert server.dripped < A_FEW


def test_silence_and_a_full_queue_end_with_the_deadline(server: Server, tmp_path: Path) -> None:
    server.hold()
    with pytest.raises(http.LateError):
        http.get(at(server), deadline=LIMIT)
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as queued:
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        queued.connect(str(tmp_path / "full"))
        with pytest.raises(http.LateError):
            http.get(f"unix:{tmp_path}/full", deadline=LIMIT)


def test_a_handshake_that_drips_ends_with_the_deadline(tcp: Server) -> None:
    # A record of TLS that announces 16 KiB of a handshake, which then come byte by byte.
    tcp.drip("\x16\x03\x03\x40\x00", FOREVER)
    with pytest.raises(http.LateError):
        http.get(at(tcp), deadline=LIMIT, tls=True, name="app.example.com")
    assert tcp.dripped < A_FEW


def test_a_body_over_tls_that_drips_ends_with_the_deadline(tcp: Server, tmp_path: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=x", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    tcp.drip(HEAD, FOREVER)
    plain = tcp.act

    def act(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            plain(secure)

    tcp.act = act
    with pytest.raises(http.LateError):
        http.get(at(tcp), deadline=LIMIT, tls=True)
    assert tcp.dripped < A_FEW


def test_a_name_that_is_looked_up_for_ever_ends_with_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = threading.Event()

    def look_up(*_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if flags:
            raise socket.gaierror
        never.wait(30)
        return []

    monkeypatch.setattr(http.socket, "getaddrinfo", look_up)
    with pytest.raises(http.LateError):
        http.get("slow.example:80", deadline=LIMIT)
    never.set()


def test_a_redirect_is_an_answer_and_several_requests_share_a_deadline(server: Server) -> None:
    server.send("HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")
    deadline = http.Deadline(30)
    answer = http.get(at(server), deadline=deadline)
    assert (answer.status, answer.headers["location"], answer.body) == (302, "/other", b"")
    deadline._end = 0.0
    with pytest.raises(http.LateError, match="within 30 s"):
        http.get(at(server), deadline=deadline)


def test_no_more_of_a_body_is_read_than_asked_for(server: Server) -> None:
    server.send("HTTP/1.1 200 OK\r\n\r\n" + "y" * 5000)
    answer = http.get(at(server), deadline=30, limit=100)
    assert (answer.text, answer.cut) == ("y" * 100, True)
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + "y" * 100)
    assert not http.get(at(server), deadline=30, limit=100).cut


@pytest.mark.parametrize(
    "sent",
    [HEAD + "x", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "", "SSH-2\n"],
)
def test_half_an_answer_is_none(server: Server, sent: str) -> None:
    server.send(sent)
    with pytest.raises(http.NoAnswerError) as error:
        http.get(at(server), deadline=30)
    assert not isinstance(error.value, http.LateError)
    assert str(error.value)


def test_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(http.NoAnswerError, match=r"^No such file or directory$"):
        http.get(f"unix:{tmp_path}/none", deadline=30)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(http.NoAnswerError, match=r"^Connection refused$") as error:
        http.get(f"127.0.0.1:{port}", deadline=30)
    assert error.value.words == "could not be asked: Connection refused"


# Whoever asks, asks through it --------------------------------------------------------------------


def test_judge_keeps_its_time_limit(tcp: Server) -> None:
    tcp.drip(HEAD, FOREVER)
    limits = {
        "time_limit_seconds": LIMIT,
        "interval_seconds": 0.1,
        "count": 1,
        "status": 200,
        "json": {},
    }
    result = judge_module.judge(
        {"connect": at(tcp), "name": "app", "path": "/", "tls": False, **limits}
    )
    assert result["fault"] == "gave no answer within 0.3 s"
    assert tcp.dripped < A_FEW
    assert result["asked"] == 1


LATE = "no answer within 0.3 s"


@pytest.fixture
def served(application: Application, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A service whose answer drips, and verbs that have less patience than usual."""
    socket_ = application.socket
    socket_.parent.mkdir(parents=True)
    socket_.symlink_to(server.listener.getsockname())
    for module in (readiness, restore):
        monkeypatch.setattr(module, "ANSWER_SECONDS", LIMIT)
    server.drip(HEAD, FOREVER)
    return server


def test_status_gives_up_in_time(application: Application, served: Server) -> None:
    """`migrate` asks by it too."""
    assert readiness.ask(application) == {"ok": False, "error": f"{application.socket}: {LATE}"}
    assert served.dripped < A_FEW


def test_restore_gives_up_in_time(application: Application, served: Server) -> None:
    assert restore.ask(application, "x") == f"gave {LATE}"
    assert served.dripped < A_FEW


def test_handover_gives_up_in_time(application: Application, served: Server) -> None:
    assert judge.ask(application.socket, Check(), "x", LIMIT) == (f"gave {LATE}", "")
    assert served.dripped < A_FEW


def test_the_probe_of_a_certificate_has_one_deadline_for_all_redirects(
    tcp: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each redirect comes just in time; ten of them do not."""
    port = tcp.listener.getsockname()[1]
    monkeypatch.setattr(probing, "PROBE_TIMEOUT_SECONDS", LIMIT)
    monkeypatch.setattr(probing, "HTTP_PORT", port)
    again = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r"
    tcp.drip(again, "\n" + "z" * 3)
    seen: list[socket.socket] = []
    plain = tcp.act

    def act(connection: socket.socket) -> None:
        seen.append(connection)
        if not tcp.ended.wait(LIMIT / 4):
            plain(connection)

    tcp.act = act
    with pytest.raises(probing.NoAnswerError, match=r"no answer within 0\.3 s"):
        probing.fetch("127.0.0.1", "127.0.0.1", "/")
    assert len(seen) < probing.PROBE_REDIRECTS


def asking() -> list[Path]:
    """Everything that runs on hosts and is Python, but for the client itself."""
    plugins = PROJECT / "collections/ansible_collections/wsgi/host/plugins"
    # The package is listed by itself, not through the link to it.
    shared = [path for path in plugins.glob("module_utils/**/*.py") if "apphost" not in path.parts]
    return [*plugins.glob("modules/*.py"), *shared, *(set(MODULES) - {PACKAGE / "http.py"})]


@pytest.mark.parametrize("path", sorted(asking()), ids=lambda path: path.name)
def test_nobody_has_a_client_of_their_own(path: Path) -> None:
    """Six copies of one thing were mended in two; a seventh would not be mended at all."""
    own = r"\bhttp\.client|\burllib\.request|\bcreate_connection|\bcurl\b"
    # A handshake that looks at a certificate, over which nothing is asked.
    handshakes = (
        ["create_connection"]
        if path.parent.name == "certificates" and path.name == "served.py"
        else []
    )
    assert re.findall(own, path.read_text()) == handshakes


def test_it_is_json_that_programs_read(server: Server) -> None:
    body = json.dumps({"release": "é"})
    server.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}")
    assert json.loads(http.get(at(server), deadline=30).text) == {"release": "é"}


def test_a_host_asks_its_service_by_the_name_of_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore was taken back, and `status` told of drift, where only the name was refused."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    asked = Server(listener)
    heads: list[str] = []

    def act(connection: socket.socket) -> None:
        heads.append(connection.recv(65536).decode())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    asked.act = act
    shop = Application("shop", tmp_path)
    application = describe(shop, site={"domain": "shop.example"}, health={})
    monkeypatch.setattr(Application, "socket", tmp_path / "s")
    assert restore.ask(application, "x") == ""
    assert readiness.ask(application)["ok"]
    asked.ended.set()
    listener.close()
    assert len(heads) == 2
    assert all("\r\nHost: shop.example\r\n" in head for head in heads)
