"""One HTTP request with one deadline, over a unix socket or TCP, with or without TLS.

Timeouts of Python's `http.client` begin anew with each byte: a server that drips its answer holds
up whoever asks. Here one deadline covers everything, from looking up a name to the last byte of the
body, and what is read of an answer is bounded.
"""

from __future__ import annotations

import errno
import http.client
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BODY_BYTES = 65536  # of a body are read, unless a caller wants fewer
# A unix socket whose queue is full refuses at once; it is tried again after so many seconds.
FULL_SECONDS = 0.02


class NoAnswerError(Exception):
    """The server gave no answer; the text is the reason alone."""

    @property
    def words(self) -> str:
        """The same as a predicate, for a sentence that begins with the server."""
        return f"could not be asked: {self}"


class LateError(NoAnswerError):
    """The whole answer was not there in time."""

    @property
    def words(self) -> str:
        return f"gave {self}"


class Deadline:
    """A moment by which all has to be done; may be shared by several requests."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, more than none. Raises LateError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> LateError:
        return LateError(f"no answer within {round(self.seconds, 2):g} s")


@dataclass(frozen=True)
class Answer:
    """What came back. A redirect is an answer like any other: nothing is followed.

    Attributes:
        body: its first bytes, as many as were asked for.
        cut: whether there was more.
        headers: by their names in lower case.
    """

    status: int
    body: bytes
    cut: bool
    headers: dict[str, str]

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def fault(self, status: int, members: Mapping[str, Any]) -> str:
        """What is wrong with it, as a predicate; empty if nothing is.

        Args:
            members: that its JSON object has to have, with their values.
        """
        if self.status != status:
            return f"answered {self.status}, not {status}"
        if not members:
            return ""
        try:
            found = json.loads(self.text)
        except ValueError:
            return "did not answer with JSON"
        if not isinstance(found, dict):
            return "did not answer with a JSON object"
        for key, value in members.items():
            if found.get(key) != value:
                return f"answered with {key} {found.get(key)!r}, not {value!r}"
        return ""


def get(
    connect: str,
    path: str = "/",
    *,
    deadline: Deadline | float,
    name: str = "localhost",
    host: str = "",
    tls: bool = False,
    agent: str = "wsgi.host",
    limit: int = BODY_BYTES,
) -> Answer:
    """Ask once, with GET.

    Args:
        connect: `unix:/path`, `address:port` or `[address]:port`. A name in place of an address is
            looked up.
        path: with the query.
        deadline: seconds, or a deadline that more than this request has to keep.
        name: of the site; what the handshake of TLS and the header `Host` name.
        host: another value of the header `Host`, such as one with a port.
        tls: speak TLS. The certificate is not verified.
        limit: bytes of the body that are read.

    Raises LateError when the time is over, NoAnswerError where there is no whole answer.
    """
    until = deadline if isinstance(deadline, Deadline) else Deadline(deadline)
    plain: socket.socket | None = None
    try:
        plain = _connected(connect, until)
        stream: socket.socket = plain
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            plain.settimeout(until.left())
            stream = context.wrap_socket(plain, server_hostname=name)
            plain = stream
        fields = [("Host", host or name), ("User-Agent", agent), ("Connection", "close")]
        if connect.startswith("unix:"):
            # As nginx asks there for its clients. A redirect to HTTPS would say nothing.
            fields.append(("X-Forwarded-Proto", "https"))
        return _asked(_Timed(stream, until), path, fields, limit)
    except (TimeoutError, socket.timeout):  # noqa: UP041, two things before Python 3.10
        raise until.late() from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # What a deadline has cut off may show as any of these.
        until.left()
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAnswerError(reason) from error
    finally:
        if plain is not None:
            plain.close()


def _connected(connect: str, until: Deadline) -> socket.socket:
    if connect.startswith("unix:"):
        return _connected_to_file(connect[len("unix:") :], until)
    address, _, port = connect.rpartition(":")
    failure: OSError = OSError(f"{connect} is no address with a port")
    for family, kind, protocol, _, place in _looked_up(address.strip("[]"), int(port), until):
        left = until.left()
        attempt = socket.socket(family, kind, protocol)
        try:
            attempt.settimeout(left)
            attempt.connect(place)
        except OSError as error:
            attempt.close()
            failure = error
        else:
            return attempt
    raise failure


def _connected_to_file(path: str, until: Deadline) -> socket.socket:
    while True:
        left = until.left()
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            attempt.settimeout(left)
            attempt.connect(path)
        except OSError as error:
            attempt.close()
            if error.errno != errno.EAGAIN:
                raise
            time.sleep(min(FULL_SECONDS, until.left()))
        else:
            return attempt


def _looked_up(name: str, port: int, until: Deadline) -> list[Any]:
    """Addresses of a name. What looks it up takes no time limit, so it is left behind when late."""
    try:
        numeric = socket.AI_NUMERICHOST
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=numeric)
    except socket.gaierror:
        pass
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(until.left())
    if not found:
        raise until.late()
    if isinstance(found[0], OSError):
        raise found[0]
    return list(found[0])


class _Timed:
    """As much of a socket as `http.client` uses, each step within what is left of the time."""

    def __init__(self, stream: socket.socket, until: Deadline) -> None:
        self._stream = stream
        self._until = until

    def sendall(self, data: bytes) -> None:
        # A socket's timeout is for the whole of it.
        self._stream.settimeout(self._until.left())
        self._stream.sendall(data)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._stream, self._until))

    def close(self) -> None:
        # The reader still needs it; `get` closes it.
        pass


class _Reader(io.RawIOBase):
    def __init__(self, stream: socket.socket, until: Deadline) -> None:
        self._stream = stream
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._stream.settimeout(self._until.left())
        return self._stream.recv_into(buffer)


def _asked(stream: _Timed, path: str, fields: Sequence[tuple[str, str]], limit: int) -> Answer:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = stream
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for key, value in fields:
        connection.putheader(key, value)
    connection.endheaders()
    with connection.getresponse() as response:
        body = response.read(limit + 1)
        if len(body) <= limit and response.length:
            raise http.client.HTTPException(
                f"the answer broke off after {len(body)} bytes of {len(body) + response.length}"
            )
        headers = {key.lower(): value for key, value in response.getheaders()}
        return Answer(response.status, body[:limit], len(body) > limit, headers)
