"""The page of `make fleet-watch`: who serves, and what a steady stream of requests comes to.

Requests are due at fixed times, whatever became of those before (open loop), each on a connection
of its own, to the balancers in turn. Like a browser with several addresses for a name, the client
goes to the next balancer where one does not take its connection; a request that was sent is not
sent again.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demos import LOOPBACK, DemoError, Site, say

PAGE = Path(__file__).with_name("watching.html")
PORT = 8400
# Requests a second. One address may ask for more by the default limits of the role nginx.
RATE = 8
PATH = "/"
SECONDS_SHOWN = 120
EVENTS_SHOWN = 12
# A balancer that says nothing for so long is away.
SILENCE_SECONDS = 4.0
AGAIN_SECONDS = 2.0
SLOW_SECONDS = 1.0
AT_ONCE = 32


class Fleet:
    """What is known of a fleet, for the page. Several threads may use it."""

    def __init__(self, members: Mapping[str, list[str]], sites: Mapping[str, Site]) -> None:
        """Know nothing yet.

        Args:
            members: host names by group.
            sites: how a client reaches the site through each balancer.
        """
        self.members = members
        self.sites = dict(sites)
        self._lock = threading.Lock()
        self._views: dict[str, tuple[float, dict[str, dict[str, str]]]] = {}
        self._seconds: deque[dict[str, float]] = deque(maxlen=SECONDS_SHOWN)
        self._totals = {"good": 0, "failed": 0, "slow": 0}
        self._events: deque[dict[str, str]] = deque(maxlen=EVENTS_SHOWN)
        self._states: dict[str, str] = {}

    def heard(self, balancer: str, line: str, now: float) -> None:
        """Take what `haproxy-servers --json` of a balancer has printed; other lines are ignored."""
        try:
            found = json.loads(line)
        except ValueError:
            return
        if found.get("failed"):
            return
        servers: dict[str, dict[str, str]] = {}
        for each in found["sites"].values():
            servers |= each
        with self._lock:
            self._views[balancer] = (now, servers)
            for name, server in servers.items():
                word = server["state"].split()[0]
                self._note(f"{balancer}: {name} is {word}", f"{balancer} {name}", word)

    def answered(self, due: float, seconds: float, error: str) -> None:
        """Take the end of a request.

        Args:
            due: when it was due, in seconds since 1970.
            seconds: from then to the end of its answer.
            error: what was wrong with it, else empty.
        """
        at = float(int(due))
        with self._lock:
            row = next((x for x in reversed(self._seconds) if x["at"] == at), None)
            if row is None:
                row = {"at": at, "good": 0, "failed": 0, "slowest": 0.0}
                self._seconds.append(row)
            row["failed" if error else "good"] += 1
            row["slowest"] = max(row["slowest"], round(seconds, 3))
            self._totals["failed" if error else "good"] += 1
            self._totals["slow"] += seconds > SLOW_SECONDS
            if error:
                self._events.appendleft({"at": clock(due), "what": f"failed: {error}"})

    def view(self, now: float) -> dict[str, Any]:
        """All of it, as the page reads it."""
        with self._lock:
            balancers = {}
            for name in self.members["balancers"]:
                heard, servers = self._views.get(name, (0.0, {}))
                there = now - heard < SILENCE_SECONDS
                if heard or name in self._states:
                    self._note(f"{name} is {'up' if there else 'away'}", name, str(there))
                balancers[name] = {"up": there, "servers": servers if there else {}}
            return {
                "balancers": balancers,
                "web": self.members["web"],
                "databases": self.members.get("databases", []),
                "seconds": sorted(self._seconds, key=lambda row: row["at"]),
                "totals": dict(self._totals),
                "events": list(self._events),
                "rate": RATE,
                "shown": SECONDS_SHOWN,
                "now": now,
            }

    def _note(self, words: str, about: str, state: str) -> None:
        """Tell of a state that is not as it was. The first one is no news."""
        if self._states.setdefault(about, state) != state:
            self._events.appendleft({"at": clock(time.time()), "what": words})
            self._states[about] = state


def clock(seconds: float) -> str:
    """A time of day for people."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def request(fleet: Fleet, number: int, due: float) -> None:
    """Make one request, and note what it came to."""
    sites = list(fleet.sites.values())
    order = sites[number % len(sites) :] + sites[: number % len(sites)]
    error = ""
    for site in order:
        try:
            status = site.ask(PATH).status
            error = "" if status == http.HTTPStatus.OK else f"{status}"
            break
        except ConnectionRefusedError as refused:
            # Nothing was sent.
            error = str(refused)
        except (OSError, http.client.HTTPException) as broken:
            error = f"{type(broken).__name__}: {broken}"
            break
    fleet.answered(due, time.time() - due, error)


def send(fleet: Fleet, stop: threading.Event) -> None:
    """Have a request made at each of its times."""
    begin = time.time()
    number = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while not stop.is_set():
            due = begin + number / RATE
            if (left := due - time.time()) > 0:
                time.sleep(left)
            pool.submit(request, fleet, number, due)
            number += 1


def listen(fleet: Fleet, balancer: str, argv: list[str], stop: threading.Event) -> None:
    """Read what a balancer says of its servers, for as long as it is there and when it is back."""
    while not stop.is_set():
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                fleet.heard(balancer, line, time.time())
                if stop.is_set():
                    process.terminate()
        stop.wait(AGAIN_SECONDS)


def handler(fleet: Fleet) -> type[BaseHTTPRequestHandler]:
    """What answers the page's requests."""

    class Handler(BaseHTTPRequestHandler):
        """`/` is the page, `/state` what it shows."""

        def do_GET(self) -> None:
            """Answer."""
            if self.path == "/":
                self._answer(PAGE.read_bytes(), "text/html; charset=utf-8")
            elif self.path == "/state":
                body = json.dumps(fleet.view(time.time())).encode()
                self._answer(body, "application/json")
            else:
                self.send_error(http.HTTPStatus.NOT_FOUND)

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(http.HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: the terminal is for people."""

    return Handler


def serve(fleet: Fleet, asking: Callable[[str], list[str]]) -> None:
    """Send requests and serve the page until Ctrl+C.

    Args:
        fleet: what is watched.
        asking: the command that prints what a balancer says of its servers, again and again.

    Raises:
        DemoError: the page's port is taken.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, PORT), handler(fleet))
    except OSError as error:
        raise DemoError(
            f"Port {PORT} of {LOOPBACK}: {error.strerror}. Stop what has it."
        ) from error
    server.daemon_threads = True
    stop = threading.Event()
    work = [threading.Thread(target=send, args=(fleet, stop), daemon=True)]
    work += [
        threading.Thread(target=listen, args=(fleet, name, asking(name), stop), daemon=True)
        for name in fleet.members["balancers"]
    ]
    for thread in work:
        thread.start()
    url = f"http://{LOOPBACK}:{PORT}/"
    say(f"{RATE} requests a second go through the balancers: {url} (Ctrl+C ends it)")
    try:
        server.serve_forever()
    finally:
        stop.set()
        server.server_close()
        for thread in work:
            thread.join(SILENCE_SECONDS)
        totals = fleet.view(time.time())["totals"]
        answered, failed = f"{totals['good']} answered", f"{totals['failed']} failed"
        say(f"\n{answered}, {failed}, {totals['slow']} took over {SLOW_SECONDS:g} s.")
