"""A real HAProxy on the loopback with the role's configuration, hosts behind it, and clients.

A host is a thread: the PROXY protocol, TLS, and as much of HTTP as the tests need. It has an
address of its own among 127.0.0.0/8, since all hosts of a site have the same ports.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import unpacking
from .render import ROLES, render

TEMPLATES = ROLES / "haproxy" / "templates"
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PATIENCE = 60  # seconds until something that is going to happen is taken for missing


def until(what: Callable[[], Any], about: str) -> Any:
    """What a question answers once that is true. Raises AssertionError if it never is."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{about}: not within {PATIENCE} s")


# HAProxy itself -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program(unpacking.Program):
    """HAProxy: where it is, and where its libraries are."""

    def check(self, configuration: Path) -> tuple[int, str]:
        """What `haproxy -c` says: its exit status and its words."""
        done = subprocess.run(
            [self.path, "-c", "-f", configuration],
            check=False,
            capture_output=True,
            text=True,
            env=self.environment,
        )
        return done.returncode, done.stdout + done.stderr


def find_program() -> Program:
    """This machine's HAProxy, else unpacked from the distribution's packages.

    Raises OSError or CalledProcessError where neither is to be had.
    """
    found = unpacking.find_program("haproxy")
    return Program(found.path, found.libraries)


def lay_out(
    folder: Path, changes: Mapping[str, str], family: str = "Debian", **variables: Any
) -> Path:
    """Write the role's configuration with these texts replaced, and name its main file."""
    for template in sorted(TEMPLATES.glob("haproxy/*.j2")):
        text = render("haproxy", f"haproxy/{template.name}", family, **variables)
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / template.stem).write_text(text)
    return folder / "haproxy.cfg"


@dataclass
class Balancer:
    """HAProxy while it runs, as its unit runs it: a master with workers."""

    program: Program
    configuration: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, program: Program, configuration: Path) -> Balancer:
        folder = configuration.parent
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program.path, "-W", "-f", configuration, "-S", folder / "master.sock"],
                stdout=log,
                stderr=log,
                env=program.environment,
            )
        made = cls(program, configuration, process)
        try:
            until(lambda: process.poll() is not None or made.answers(), "HAProxy answers")
            assert process.poll() is None
        except AssertionError:
            made.stop()
            raise AssertionError((folder / "log").read_text()) from None
        return made

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)

    def answers(self) -> bool:
        try:
            return "Pid" in self.command("show info")
        except OSError:
            return False

    def command(self, words: str) -> str:
        """What the admin socket says to a command."""
        with socket.socket(socket.AF_UNIX) as to:
            to.connect(str(self.configuration.with_name("admin.sock")))
            to.sendall(words.encode() + b"\n")
            parts = []
            while part := to.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def states(self) -> dict[str, str]:
        """State of each server, by its backend and name."""
        lines = self.command("show stat").splitlines()
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        return {f"{row['pxname']}/{row['svname']}": row["status"] for row in rows}

    def wait_for(self, server: str, state: str) -> None:
        until(lambda: self.states()[server].startswith(state), f"{server} is {state}")

    def reload(self) -> None:
        """As `systemctl reload`: returns when the new worker answers."""

        def worker() -> str:
            try:
                info = self.command("show info")
            except OSError:
                return ""
            return next((line for line in info.splitlines() if line.startswith("Pid:")), "")

        before = worker()
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: worker() not in ("", before), "a new worker")

    def log(self) -> list[dict[str, Any]]:
        """The connections that have ended."""
        lines = self.configuration.with_name("log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, **wanted: Any) -> dict[str, Any]:
        """The first line of the log that has these values, once it is there."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.log() if wanted.items() <= line.items()), None)

        found: dict[str, Any] = until(find, f"a line of the log with {wanted}")
        return found


# Hosts behind it ----------------------------------------------------------------------------------


@dataclass
class Host:
    """An application host: what it was asked, and by whom it thinks it was.

    Attributes:
        ports: where it listens, each with its TLS or without.
        status: of its answers, to the health check as well.
        requests: client's address, method and path, without those of the health check.
        let_go: what requests for /wait wait for.
    """

    address: str
    ports: Mapping[int, ssl.SSLContext | None]
    status: int = 200
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    listening: list[socket.socket] = field(default_factory=list)

    def listen(self) -> None:
        for port, tls in self.ports.items():
            listening = socket.create_server((self.address, port))
            self.listening.append(listening)
            threading.Thread(target=self._accept, args=(listening, tls), daemon=True).start()

    def stop_listening(self) -> None:
        """As after the end of its web server: connections are refused."""
        for each in self.listening:
            each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.listening.clear()

    def _accept(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(accepted, tls), daemon=True).start()

    def _talk(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        try:
            with accepted:
                client = said_by_proxy(accepted)
                if tls is None:
                    self._answer(accepted, client)
                    return
                with tls.wrap_socket(accepted, server_side=True) as wrapped:
                    self._answer(wrapped, client)
        except OSError:
            pass  # The other side has gone.

    def _answer(self, connection: socket.socket, client: str) -> None:
        with connection.makefile("rb") as reading:
            while line := reading.readline():
                method, path, _ = line.decode("latin-1").split()
                headers = dict(
                    header.decode("latin-1").strip().lower().split(": ", 1)
                    for header in iter(reading.readline, b"\r\n")
                )
                if path == "/readyz":
                    self.checks.append(headers["host"])
                else:
                    self.requests.append((client, method, path))
                reading.read(int(headers.get("content-length", 0)))
                if path == "/die":
                    return
                if path == "/wait":
                    self.let_go.wait(PATIENCE)
                body = f"{self.address} {self.status}".encode()
                connection.sendall(
                    f"HTTP/1.1 {self.status} Said\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                if headers.get("connection") == "close":
                    return


def exactly(connection: socket.socket, length: int) -> bytes:
    read = b""
    while len(read) < length:
        part = connection.recv(length - len(read))
        if not part:
            raise ConnectionError("ended in the PROXY protocol's header")
        read += part
    return read


def said_by_proxy(connection: socket.socket) -> str:
    """The client's address by the PROXY protocol, version 2; empty where the proxy asks itself.

    https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, section 2.2
    """
    head = exactly(connection, 16)
    assert head[:12] == PROXY_SIGNATURE
    assert head[12] >> 4 == 2
    command, kind, length = head[12] & 15, head[13], struct.unpack("!H", head[14:])[0]
    addresses = exactly(connection, length)
    if command == 0:
        return ""
    assert kind == 0x11, "TCP over IPv4"
    return socket.inet_ntoa(addresses[:4])


# Certificates -------------------------------------------------------------------------------------


def certified(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for names that has signed itself, and what a host serves with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, whole = folder / f"{names[0]}.pem", folder / f"{names[0]}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    whole.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, whole)
    return pem, context


# Clients ------------------------------------------------------------------------------------------


class Client:
    """A connection to the balancer, over TLS if it names a site."""

    def __init__(self, port: int, name: str | None = None, source: str = "127.0.0.1") -> None:
        self.connection: socket.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0)
        )
        if name is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with contextlib.ExitStack() as refused:
                refused.callback(self.connection.close)
                self.connection = context.wrap_socket(
                    self.connection, server_hostname=name or None, do_handshake_on_connect=False
                )
                refused.callback(self.connection.close)
                self.connection.do_handshake()
                refused.pop_all()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, path: str, host: str, method: str = "GET", body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.connection.sendall(head.encode() + body)

    def ending(self) -> bytes:
        """What comes until the connection is closed, by whichever means."""
        read = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.connection.recv(4096):
                read += part
        return read

    def answer(self) -> str:
        """Body of the next answer, empty if the connection ends."""
        read = b""
        while b"\r\n\r\n" not in read:
            part = self.connection.recv(4096)
            if not part:
                return ""
            read += part
        head, _, body = read.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self.connection.recv(4096)
        return body.decode()

    def ask(self, path: str, host: str, method: str = "GET", body: bytes = b"") -> str:
        self.send(path, host, method, body)
        return self.answer()


def hello(name: str) -> bytes:
    """The first bytes of a TLS connection to a name, or to none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name or None).do_handshake()
    return outgoing.read()
