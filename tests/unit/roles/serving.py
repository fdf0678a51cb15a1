"""nginx with the role's configuration on this machine's loopback, and an application behind it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

from .ports import free_port
from .test_nginx import ERRORS, PLAIN, configuration, laid_out

NAME = PLAIN["domains"][0]


@dataclass(frozen=True)
class Asked:
    """A request that reached the application."""

    method: str
    path: str
    headers: Message


@dataclass
class Upstream:
    """The application: answers all requests as `answer` says, and keeps them."""

    socket: Path
    answer: Callable[[Asked], tuple[int, Mapping[str, str] | list[tuple[str, str]], str]]
    asked: list[Asked] = field(default_factory=list)
    server: ThreadingUnixStreamServer | None = None

    def start(self) -> None:
        """Listen, unless it does."""
        if self.server:
            return
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, self.headers)
                upstream.asked.append(asked)
                status, headers, body = upstream.answer(asked)
                content = body.encode()
                self.send_response(status)
                for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = reply

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        class Server(ThreadingUnixStreamServer):
            request_queue_size = 128
            daemon_threads = True

        self.socket.unlink(missing_ok=True)
        self.server = Server(str(self.socket), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@dataclass(frozen=True)
class Answer:
    """What a client got; headers by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def cache(self) -> str:
        """What the cache did."""
        return self.headers.get("cache-status", "")


@dataclass
class Serving:
    """A running nginx, its site and the application behind it."""

    directory: Path
    upstream: Upstream
    http: int
    process: subprocess.Popen[str]

    def ask(
        self,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        source: str = "127.0.0.1",
        body: str | None = None,
    ) -> Answer:
        """Ask nginx, on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.http, timeout=20, source_address=(source, 0)
        )
        try:
            sent = {"Host": NAME, **(headers or {})}
            connection.request(method, path, body=body, headers=sent)
            with connection.getresponse() as response:
                found = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, found, response.read().decode())
        finally:
            connection.close()

    def paths(self) -> list[str]:
        """What the application was asked for."""
        return [asked.path for asked in self.upstream.asked]

    def log(self) -> list[dict[str, Any]]:
        """What nginx has logged of requests."""
        lines = (self.directory / "log/access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def complaints(self) -> list[str]:
        """What the log of errors holds besides what single requests were refused for."""
        lines = (self.directory / "log/error.log").read_text().splitlines()
        return [line for line in lines if " [error] " not in line]


@contextmanager
def serving(
    directory: Path,
    program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    upstream: Upstream,
    packages: Mapping[str, str],
    site: Mapping[str, Any],
    errors: str = "",
    **variables: Any,
) -> Iterator[Serving]:
    """Run nginx for one site.

    Args:
        errors: where nginx sends what it says of requests, in place of the log.
    """
    port = free_port()
    text = configuration(
        "Debian",
        nginx_sites=[{**PLAIN, "upstream": f"unix:{upstream.socket}", **site}],
        nginx_http_port=port,
        nginx_https_port=free_port(),
        nginx_ipv6=False,
        nginx_worker_processes="1",
        nginx_worker_connections=512,
        nginx_open_files=1024,
        wsgi_host={"packages": packages},
        **variables,
    )
    pages = str(directory / "etc/nginx/pages")
    text = {dest: each.replace("/etc/nginx/pages", pages) for dest, each in text.items()}
    if errors:
        text = {dest: each.replace(ERRORS, errors) for dest, each in text.items()}
    path = laid_out(directory, text, program, certificate)
    upstream.start()
    process = subprocess.Popen(
        [program[0], "-p", path.parent, "-c", path, "-g", "daemon off;"],
        stderr=subprocess.PIPE,
        text=True,
    )
    made = Serving(directory, upstream, port, process)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 20).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.02)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
        upstream.stop()
