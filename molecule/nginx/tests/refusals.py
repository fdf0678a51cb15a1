"""Every way to get an answer that no application gave: raw requests, and what is right.

Also read by the offline tests, which try it with this machine's nginx.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from dataclasses import dataclass

SITE = "{site}"  # stands for a name of the site's
UNKNOWN = "unknown.example.net"
# More than one of nginx's buffers holds, and no more than comes in one piece.
LONG = "x" * 9_000


@dataclass(frozen=True)
class Refusal:
    """A request, byte by byte, and the statuses that nginx may answer it with."""

    name: str
    request: str
    statuses: tuple[int, ...]
    # Over TLS too; its opposite is plain HTTP sent to the port for TLS.
    tls: bool = True
    plain: bool = True


def get(path: str, *headers: str, host: str = SITE, method: str = "GET") -> str:
    """Return a request of HTTP/1.1, after which the connection ends."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""])


# 301: over plain HTTP the site leads to HTTPS, before it looks at anything but the request's form.
REFUSALS = (
    Refusal("null byte in the path", get("/%00"), (400,)),
    Refusal("broken escape", get("/%zz"), (400,)),
    Refusal("path out of the root", get("/../../etc/passwd"), (400,)),
    Refusal("no request line", "nonsense\r\n\r\n", (400,)),
    Refusal("control characters", "GET /\x01\x02 HTTP/1.1\r\nHost: {site}\r\n\r\n", (400,)),
    Refusal("binary", "\x16\x03\x01\x02\n\n", (400,), tls=False),
    Refusal("unknown method form", "g3t / HTTP/1.1\r\nHost: {site}\r\n\r\n", (400,)),
    Refusal("no host", "GET / HTTP/1.1\r\n\r\n", (400,)),
    Refusal("two hosts", get("/", "Host: other.example.org"), (400,)),
    Refusal("impossible host", get("/", host="a/b"), (400,)),
    Refusal("empty host", get("/", host=""), (400,)),
    Refusal("header without a colon", get("/", "nonsense"), (400, 301, 200, 502)),
    Refusal("null byte in a header", get("/", "X-A: a\x00b"), (400,)),
    Refusal("length that is none", get("/", "Content-Length: x", method="POST"), (400,)),
    Refusal(
        "two lengths", get("/", "Content-Length: 1", "Content-Length: 2", method="POST"), (400,)
    ),
    Refusal(
        "length and chunks",
        get("/", "Content-Length: 1", "Transfer-Encoding: chunked", method="POST"),
        (400,),
    ),
    Refusal(
        "unknown transfer encoding", get("/", "Transfer-Encoding: x", method="POST"), (400, 501)
    ),
    Refusal("length with a sign", get("/", "Content-Length: +1", method="POST"), (400,)),
    Refusal("length that is negative", get("/", "Content-Length: -1", method="POST"), (400,)),
    Refusal(
        "chunks twice",
        get("/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", method="POST"),
        (400,),
    ),
    Refusal(
        "chunks and another encoding",
        get("/", "Transfer-Encoding: chunked, identity", method="POST"),
        (400, 501),
    ),
    Refusal(
        "chunks before a colon with a space",
        get("/", "Transfer-Encoding : chunked", method="POST"),
        (400,),
    ),
    Refusal(
        "chunks of version 1.0",
        "POST / HTTP/1.0\r\nHost: {site}\r\nTransfer-Encoding: chunked\r\n\r\n",
        (400,),
    ),
    Refusal("folded header", get("/", "X-A: a\r\n b"), (400,)),
    Refusal("header that begins with a space", get("/", " X-A: a"), (400,)),
    Refusal("encoded path out of the root", get("/%2e%2e/%2e%2e/etc/passwd"), (400,)),
    Refusal("encoded slashes out of the root", get("/downloads/..%2f..%2f..%2fetc/passwd"), (400,)),
    Refusal("files out of their directory", get("/downloads/%2e%2e/secret"), (404, 301, 200, 502)),
    Refusal("files beside their directory", get("/downloads../secret"), (404, 301, 200, 502)),
    Refusal("64 KiB of headers", get("/", *[f"X-{n}: {'x' * 4000}" for n in range(17)]), (400,)),
    Refusal("long path", get("/" + LONG), (414,)),
    Refusal("long header", get("/", f"X-A: {LONG}"), (400,)),
    Refusal("many headers", get("/", *[f"X-{n}: {'x' * 900}" for n in range(60)]), (400,)),
    Refusal("unknown version", "GET / HTTP/7.1\r\nHost: {site}\r\n\r\n", (400, 505)),
    Refusal("trace", get("/", method="TRACE"), (405,)),
    Refusal("connect", get("/", method="CONNECT"), (400, 405)),
    Refusal(
        "connect to elsewhere",
        "CONNECT elsewhere.example.net:443 HTTP/1.1\r\nHost: {site}\r\n\r\n",
        (400, 405),
    ),
    Refusal("body too large", get("/", "Content-Length: 99999999999", method="POST"), (413, 301)),
    Refusal("expectation", get("/", "Expect: nonsense"), (417, 301, 200, 502)),
    Refusal("private path", get("/metrics"), (404, 301)),
    Refusal("missing file", get("/downloads/none"), (404, 301)),
    Refusal("directory", get("/downloads/"), (403, 301)),
    Refusal("post to a file", get("/downloads/report.csv", method="POST"), (405, 301)),
    Refusal("range past the end", get("/downloads/report.csv", "Range: bytes=99-"), (416, 301)),
    Refusal("precondition", get("/downloads/report.csv", 'If-Match: "no"'), (412, 301)),
    Refusal(
        "not modified",
        get("/downloads/report.csv", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"),
        (304, 200, 301),
    ),
    Refusal("internal page", get("/.unavailable.html"), (404, 301)),
    Refusal("missing challenge", get("/.well-known/acme-challenge/none"), (404, 200, 502)),
    # Of version 1.0, which knows no Host: the default server's.
    Refusal("version 1.0 without a host", "GET /%00 HTTP/1.0\r\n\r\n", (400,)),
    Refusal("malformed for an unknown name", get("/%00", host=UNKNOWN), (400,)),
    Refusal("trace for an unknown name", get("/", host=UNKNOWN, method="TRACE"), (405, 421)),
    Refusal("long path for an unknown name", get("/" + LONG, host=UNKNOWN), (414,)),
)


@dataclass
class Response:
    """What came back, as it came."""

    status: int | None  # None: the connection was closed without a byte
    headers: dict[str, list[str]]
    raw: bytes


def complete(data: bytes) -> bool:
    """Return whether the data are an answer with all of the body that it announces."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    return bool(end) and length is not None and len(body) >= int(length[1])


def exchange(connection: socket.socket, request: str, site: str) -> Response:
    """Send the bytes, and read until the other side closes or has answered."""
    data = b""
    with connection:
        # Whoever refuses early need not read the rest.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError):
            connection.sendall(request.replace(SITE, site).encode("latin-1"))
        # After a refusal nginx waits for the rest of the request, for seconds.
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while not complete(data) and (part := connection.recv(65536)):
                data += part
    head = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    if not head[0].startswith("HTTP/"):
        return Response(None, {}, data)
    headers: dict[str, list[str]] = {}
    for line in head[1:]:
        key, _, value = line.partition(":")
        headers.setdefault(key.lower(), []).append(value.strip())
    return Response(int(head[0].split()[1]), headers, data)


def faults(refusal: Refusal, answer: Response, expected: dict[str, str]) -> list[str]:
    """Return what is wrong with an answer; `expected` are the headers and their values."""
    if answer.status is None:
        return [f"{refusal.name}: no answer but {answer.raw[:80]!r}"]
    found = []
    if answer.status not in refusal.statuses:
        found.append(f"status {answer.status}")
    for name, value in expected.items():
        got = answer.headers.get(name.lower(), [])
        # nginx adds them twice when it notices late that it has no such part of a file.
        if got != [value] * (2 if answer.status == 416 else 1):
            found.append(f"{name} is {got} and not {value!r}")
    if UNKNOWN.encode() in answer.raw or b"elsewhere.example.net" in answer.raw:
        found.append("a name that a client made up is repeated")
    return [f"{refusal.name}, {answer.status}: {each}" for each in found]
