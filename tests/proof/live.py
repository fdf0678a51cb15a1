"""Looks at a site over HTTPS while something is done to it: who answers, and how late."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PORT = 443
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Site:
    """A site on a test host, whose certificate nobody has signed.

    Attributes:
        address: of the host.
        domain: that is asked for.
        path: whose answer is a JSON object that names its release.
    """

    address: str
    domain: str
    path: str = "/readyz"

    def ask(self) -> str:
        """The release that answers. Raises OSError and http.client.HTTPException."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = http.client.HTTPConnection(self.address, PORT, timeout=PATIENCE_SECONDS)
        client.connect()
        # By its name: nginx has no certificate for an address.
        client.sock = context.wrap_socket(client.sock, server_hostname=self.domain)
        with contextlib.closing(client):
            client.request("GET", self.path, headers={"Host": self.domain})
            answer = client.getresponse()
            body = answer.read()
            if answer.status != http.client.OK:
                raise http.client.HTTPException(f"answered {answer.status}")
            return str(json.loads(body)["release"])


@dataclass
class Looks:
    """What was seen, in seconds.

    Attributes:
        seconds: that each answer took.
        other: after which another release answered first, since the beginning.
        failed: questions without a good answer.
    """

    seconds: list[float] = field(default_factory=list)
    other: float | None = None
    failed: int = 0


@contextlib.contextmanager
def looking(site: Site) -> Iterator[Looks]:
    """Ask twenty times a second until the block ends, each time over a connection of its own."""
    before, begun = site.ask(), time.monotonic()
    looks, over = Looks(), threading.Event()

    def look() -> None:
        asked = time.monotonic()
        try:
            release = site.ask()
        except (OSError, http.client.HTTPException):
            looks.failed += 1
            return
        looks.seconds.append(time.monotonic() - asked)
        if release != before and looks.other is None:
            looks.other = time.monotonic() - begun

    def keep_looking() -> None:
        threads = []
        while not over.wait(PAUSE_SECONDS):
            threads.append(threading.Thread(target=look))
            threads[-1].start()
        for thread in threads:
            thread.join()

    looker = threading.Thread(target=keep_looking)
    looker.start()
    try:
        yield looks
    finally:
        over.set()
        looker.join()


def until_live(site: Site, action: Callable[[], None]) -> tuple[float, float]:
    """Seconds until another release answers, and until the action is over.

    Raises SystemExit where none does, or a question stays without an answer.
    """
    begun = time.monotonic()
    with looking(site) as looks:
        action()
        end = time.monotonic() - begun
    if looks.other is None or looks.failed:
        raise SystemExit(f"{site.domain}: {looks.failed} failed, other release: {looks.other}")
    return looks.other, end
