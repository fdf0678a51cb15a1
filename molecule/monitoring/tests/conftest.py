"""What these tests share: questions to Prometheus on the host, and somebody who gets its alerts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import testinfra
from testinfra.host import Host

# What changes the hosts for those who come later (molecule/conftest.py).
STAGES = ("broken", "mended", "moved")

# They look back on purpose: at 5 minutes of answers, 10 of kills, 15 of restarts or refusals, at
# the budget that is gone.
LOOKING_BACK = {
    "SlowAnswers",
    "OutOfMemory",
    "UnitRestarts",
    "NotificationsFail",
    "ErrorBudgetBurnsFast",
    "ErrorBudgetBurnsSlowly",
}

# Seconds between two questions: twice what Prometheus takes between two measurements.
LONGEST_PAUSE = 4.0

# What is on every host.
GET = (
    "import sys, urllib.request as r;"
    'print(r.urlopen("http://127.0.0.1:9090/api/v1/" + sys.argv[1]).read().decode())'
)
# Writes down each alert, one a line, and refuses one kind, as a receiver does that knows no better.
RECEIVER = """
import http.server, json
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = any(a["labels"]["alertname"] == "BackupFailed" for a in body["alerts"])
        with open("/run/received", "a") as file:
            for alert in body["alerts"]:
                told = [self.path, alert["status"], alert["labels"]["alertname"]]
                file.write(json.dumps(told) + chr(10))
        self.send_response(400 if refused else 200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9199), Receiver).serve_forever()
"""


@dataclass
class Watched:
    """A host that watches itself."""

    host: Host

    def run(self, command: str) -> str:
        """What a command printed. Raises AssertionError where it fails."""
        result = self.host.run(command)
        assert result.rc == 0, f"{command}: {result.stderr or result.stdout}"
        return str(result.stdout)

    def ask(self, path: str) -> Any:
        """What Prometheus' API answers."""
        return json.loads(self.run(f"python3 -c '{GET}' '{path}'"))["data"]

    def value(self, query: str) -> float | None:
        """A query's first value; None where there is none."""
        result = self.ask(f"query?query={quote(query)}")["result"]
        return float(result[0]["value"][1]) if result else None

    def wait_for(self, query: str) -> float:
        """A query's first value, once there is one. Raises AssertionError when none comes."""
        return float(until(lambda: self.value(query), lambda value: value is not None))

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def received(self) -> set[tuple[str, ...]]:
        """Path, status and name of each alert that came to the receiver."""
        said = self.host.run("cat /run/received").stdout
        return {tuple(json.loads(line)) for line in said.splitlines()}


def until(what: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 300) -> Any:
    """The first good answer, asked for again and again. Raises AssertionError with the last one.

    Who does not answer at all, as Prometheus just after a reboot, may do so later. What takes long
    is asked for less and less often: each question costs the host more than a second of waiting.
    """
    end = time.monotonic() + seconds
    pause = 0.5
    while True:
        try:
            answer = what()
        except AssertionError as error:
            answer = error
        else:
            if good(answer):
                return answer
        assert time.monotonic() < end, f"after {seconds} s: {answer}"
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def alerts(watched: Watched) -> set[tuple[str, str]]:
    """Names and hosts of the alerts that fire.

    But for those about the host that watches itself, which is balanced too and broken by tests of
    its own.
    """
    return {
        (each["labels"]["alertname"], each["labels"].get("instance", ""))
        for each in watched.ask("alerts")["alerts"]
        if each["state"] == "firing" and "-watched:" not in each["labels"].get("proxy", "")
    }


def open_ports(host: Host) -> set[str]:
    """Ports that others than the host itself reach."""
    listening = host.run("ss -Hltn").stdout.splitlines()
    places = [line.split()[3] for line in listening]
    return {place.rpartition(":")[2] for place in places if not re.match(r"(127\.|\[::1\])", place)}


@pytest.fixture(scope="module")
def watched(host: Host) -> Watched:
    return Watched(host)


@pytest.fixture(scope="module")
def other(request: pytest.FixtureRequest) -> Callable[[str], Host]:
    """Another host of the scenario, by its name."""
    return lambda name: testinfra.get_host(
        f"ansible://{name}",
        ansible_inventory=request.config.getoption("ansible_inventory"),
        ssh_config=request.config.getoption("ssh_config"),
    )


@pytest.fixture(scope="module")
def receiver(watched: Watched) -> Iterator[None]:
    """Somebody listens at monitoring_webhook_url."""
    watched.run(f"rm -f /run/received; cat > /run/receiver.py <<'END'\n{RECEIVER}\nEND")
    watched.run("systemd-run --collect --unit=receiver python3 /run/receiver.py")
    yield
    watched.run("systemctl stop receiver.service")
