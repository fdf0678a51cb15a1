"""A host under test: what is done to it, under load, and what that comes to."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import re
import secrets
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import ledger
import variants
import yaml
from engine import CACHE
from hosts import CONTROL_PATHS, IDENTITY, USER, Hosts
from ledger import Reconciliation, Record, Summary
from sender import DIGITS, Plan

PROJECT = Path(__file__).parents[2]
FOLDER = CACHE / "releases"
SENDER = Path(__file__).with_name("sender.py")
ONHOST = Path(__file__).with_name("onhost.py")
UNPACK = (
    "import base64, sys, zlib; source = zlib.decompress(base64.b64decode(sys.argv.pop(1))); "
    "exec(compile(source, 'onhost', 'exec'))"
)
SSH = (
    *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
    *("-o", f"ControlPath={CONTROL_PATHS}/test-%h-%p"),
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
    *(
        "-i",
        str(IDENTITY),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "ConnectTimeout=10",
    ),
)
COMMAND = "/usr/local/sbin/toll-app"
FLASK = f"{COMMAND} flask"
# Requests a second: two systems, their control node and the sender may share two cores.
RATE = float(os.environ.get("RELEASES_RATE", "30"))
# Requests under way. Whoever measures has no limit: it would hide how many an outage meets.
AT_ONCE = int(os.environ.get("RELEASES_AT_ONCE", "0"))
# Before and after what is done, for the figures next to it.
STEADY_SECONDS = 4.0
SETTLE_SECONDS = 90.0


@dataclass
class Done:
    """What a program came to."""

    returncode: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Of a playbook: tasks that changed something."""
        return sum(int(count) for count in re.findall(r"\bchanged=(\d+)", self.output))


class Running:
    """A program that runs, with its output as it comes."""

    def __init__(self, command: list[str]) -> None:
        """Start it, in a session of its own so that all of it can be killed."""
        self.start = time.monotonic()
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(CONTROL_PATHS),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
                "PYTHONUNBUFFERED": "1",
            },
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, pattern: str, seconds: float = 600.0) -> bool:
        """Until a line of output matches, or the program has ended. Says whether one did."""
        end = time.monotonic() + seconds
        with self._news:
            while not any(re.search(pattern, line) for line in self.lines):
                if self._ended or not self._news.wait(max(end - time.monotonic(), 0.01)):
                    if self._ended or time.monotonic() >= end:
                        return any(re.search(pattern, line) for line in self.lines)
            return True

    def kill(self) -> None:
        """SIGKILL, to it and to everything that it started here."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, seconds: float = 1800.0) -> Done:
        """Until it has ended.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        code = self._process.wait(seconds)
        took = time.monotonic() - self.start
        self._reader.join(10)
        return Done(code, "".join(self.lines), took)


@dataclass
class Load:
    """What was sent while something was done.

    Attributes:
        start: when the first request was due, CLOCK_MONOTONIC.
        began: when what is tried began.
        ended: when it was over.
        records: all requests, when the load is over.
        reconciliation: the ledger next to the database.
    """

    start: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    records: list[Record] = field(default_factory=list)
    reconciliation: Reconciliation = field(default_factory=lambda: Reconciliation(0))
    sound: bool = False

    @property
    def summary(self) -> Summary:
        """Of the whole of it."""
        return ledger.summarize(self.records)

    @property
    def during(self) -> Summary:
        """Of what was due between the beginning and the end of what is tried."""
        return ledger.summarize(ledger.between(self.records, self.began, self.ended))

    @property
    def steady(self) -> Summary:
        """Of what was due before."""
        return ledger.summarize(ledger.between(self.records, self.start, self.began))

    @property
    def failed(self) -> list[str]:
        """A line for each request that failed; a slow answer is none."""
        return ledger.failed(self.records, self.began)

    @property
    def answered_by(self) -> set[str]:
        """The marks of the releases that answered."""
        return {record.release for record in self.records if record.release}


def playbook(inventory: Path, name: str, *arguments: str, **extra: Any) -> Running:
    """Start a playbook of the project, with extra variables."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    path = PROJECT / ("site.yml" if name == "site" else f"playbooks/{name}.yml")
    command = [program, f"--inventory={inventory}", str(path), *arguments]
    if extra:
        command += ["--extra-vars", json.dumps(extra)]
    return Running(command)


def described(**members: Any) -> dict[str, Any]:
    """Extra variables by which one run describes the application otherwise.

    Args:
        members: of the description; the scenario merges them into the host's.
    """
    return {"toll_settings": members}


def write_inventory(path: Path, hosts: Mapping[str, Mapping[str, Any]], **others: Any) -> None:
    """An inventory of these hosts: their variables by name.

    Args:
        others: further groups, each as `hosts`.
    """
    groups = {
        group: {"hosts": {name: dict(variables) for name, variables in members.items()}}
        for group, members in {"web": hosts, **others}.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(groups, sort_keys=True))


def host_variables(inventory: Path, name: str) -> dict[str, Any]:
    """All variables that an inventory has for a host, as they are written."""
    program = str(Path(sys.executable).with_name("ansible-inventory"))
    done = subprocess.run(
        [program, f"--inventory={inventory}", "--host", name],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
    )
    return dict(json.loads(done.stdout))


class Host:
    """One host, alone in an inventory of its own."""

    def __init__(self, name: str, variables: Mapping[str, Any], testhosts: Hosts) -> None:
        """Write its inventory.

        Args:
            name: in the inventory.
            variables: of the host, all of them.
            testhosts: where its container is.
        """
        self.name = name
        self.variables = {
            key: value for key, value in variables.items() if not key.startswith("molecule")
        }
        self.address = str(variables["ansible_host"])
        self.domain = str(variables["toll"]["domains"][0])
        self.testhosts = testhosts
        self.folder = FOLDER / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inventory = self.folder / "hosts.yml"
        write_inventory(self.inventory, {name: self.variables})
        self._key = ""

    # Reaching it

    def root(
        self, command: str, *, given: str = "", check: bool = True, timeout: float = 180.0
    ) -> str:
        """Run a command as root, over SSH; returns what it printed.

        Raises:
            AssertionError: it failed, and `check` says that it must not.
        """
        done = subprocess.run(
            [
                *("ssh", *SSH, f"{USER}@{self.address}"),
                f"sudo -n sh -c {shlex.quote(command)}",
            ],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{self.name}: {command[:200]}: {done.stdout}{done.stderr}"
        return done.stdout

    def onhost(self, command: str, **options: Any) -> Any:
        """Run a command of onhost.py; returns its result."""
        packed = base64.b64encode(zlib.compress(ONHOST.read_bytes())).decode()
        line = shlex.join(["python3", "-c", UNPACK, packed, command])
        return json.loads(self.root(line, given=json.dumps(options)))

    def state(self) -> dict[str, Any]:
        """What the host is like, from within."""
        return dict(self.onhost("state"))

    def ask(self, path: str = "/readyz", timeout: float = 10.0) -> tuple[int, str]:
        """One request as a client makes it, over HTTPS: status and body; status 0 without any."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection(self.domain, timeout=timeout, context=context)
        try:
            raw = socket.create_connection((self.address, 443), timeout)
            connection.sock = context.wrap_socket(raw, server_hostname=self.domain)
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    # Doing something to it

    def playbook(self, name: str, *arguments: str, **extra: Any) -> Running:
        """Start a playbook with extra variables."""
        return playbook(self.inventory, name, *arguments, **extra)

    def deploy(self, source: Path, *arguments: str, **extra: Any) -> Running:
        """Start playbooks/deploy.yml with a copy of the application."""
        return self.playbook("deploy", *arguments, **described(source=str(source)), **extra)

    def make(self, mark: str, variant: str = "marked", **given: Any) -> Path:
        """A release of its own: a copy of the application."""
        return variants.make(self.folder / "sources", mark, variant, **given)

    def handover(self, release: str = "", *arguments: str) -> Running:
        """Start the host's own command, over SSH."""
        line = shlex.join([COMMAND, "handover", *([release] if release else []), *arguments])
        return Running(
            [
                *("ssh", *SSH, f"{USER}@{self.address}"),
                f"sudo -n {line}",
            ]
        )

    def strike(self, stage: str, victim: str = "", **options: Any) -> Callable[[], dict[str, Any]]:
        """Wait in the background for a stage of a handover, and kill somebody then.

        Returns:
            A function that waits for it and gives what came of it.
        """
        found: dict[str, Any] = {}
        before = (self.onhost("read", path="/opt/toll-app/state/handover.json") or {}).get("id", "")

        def run() -> None:
            try:
                found.update(
                    self.onhost("strike", stage=stage, victim=victim, unlike=str(before), **options)
                )
            except Exception as error:
                found.update(reached=False, killed=[], stages=[], error=repr(error))

        thread = threading.Thread(target=run)
        thread.start()

        def result() -> dict[str, Any]:
            thread.join()
            return found

        return result

    def reboot(self) -> None:
        """Stop it in an orderly way and start it again."""
        self.testhosts.reboot(self.container)

    def power_cut(self) -> None:
        """Kill everything on it at once, and start it again."""
        self.testhosts.power_cut(self.container)

    @property
    def container(self) -> str:
        """The name of its container."""
        return str(self.variables["testhost_container"])

    # Load

    @cached_property
    def authority(self) -> Path:
        """What a client has to trust: the certificate in the file that nginx reads."""
        path = self.folder / "authority.pem"
        path.write_text(self.root(f"cat /etc/ssl/sites/{self.domain}/fullchain.pem"))
        return path

    def key(self) -> str:
        """An API key that may record passages; made on the host, once."""
        if not self._key:
            name = f"proof-{secrets.token_hex(3)}"
            said = self.root(f"{FLASK} toll key create {name} --role recorder")
            match = re.search(r"toll_[A-Za-z0-9]+_[A-Za-z0-9_-]+", said)
            assert match, f"no key in: {said}"
            self._key = match[0]
        return self._key

    def plan(self, **given: Any) -> Plan:
        """A run of the sender."""
        run = "".join(random.choices(DIGITS, k=3))
        return Plan(
            **{
                "address": self.address,
                "name": self.domain,
                "authority": str(self.authority),
                "api_key": self.key(),
                "ledger": str(self.folder / f"ledger-{run}.jsonl"),
                "run": run,
                "passed_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "rate": RATE,
                "at_once": AT_ONCE,
                **given,
            }
        )

    @contextmanager
    def under_load(self, steady: float = STEADY_SECONDS, **given: Any) -> Iterator[Load]:
        """Have requests sent from a while before the block until a while after it.

        What was not acknowledged is then sent again under its old key, as any client would, and
        the ledger is laid beside the database. All of it is in the load when the block is over.
        """
        plan = self.plan(**given)
        path = Path(plan.ledger)
        path.unlink(missing_ok=True)
        load = Load()
        # The demo's invented passages may have plates that look like this run's.
        earlier = self.onhost("stored", run=plan.run)["plates"].keys()
        process = start_sender(plan)
        try:
            # On a busy machine the sender itself takes a while to start.
            until_sent(process, path)
            load.start = time.monotonic()
            time.sleep(steady)
            load.began = time.monotonic()
            try:
                yield load
            finally:
                load.ended = time.monotonic()
            time.sleep(min(steady, STEADY_SECONDS) / 2)
        finally:
            process.terminate()
            code = process.wait(plan.time_limit + 30)
        assert code == 0, f"the sender ended with {code}"
        load.records = ledger.read(path)
        assert load.records, "nothing was sent"
        self.settle()
        open_ends = tuple(
            record.number for record in load.records if record.plate and not record.acknowledged
        )
        everything = list(load.records)
        if open_ends:
            again = Plan(**{**asdict(plan), "again": open_ends, "ledger": f"{path}.again"})
            Path(again.ledger).unlink(missing_ok=True)
            assert start_sender(again).wait(120) == 0
            everything += ledger.read(Path(again.ledger))
        found = self.onhost("stored", run=plan.run)
        load.sound = found["sound"] == "ok"
        stored = {own: times for own, times in found["plates"].items() if own not in earlier}
        load.reconciliation = ledger.reconcile(everything, stored)

    # Judging it

    def settle(self, seconds: float = SETTLE_SECONDS) -> dict[str, Any]:
        """Wait until no handover runs and the service answers; returns the state then.

        Raises:
            AssertionError: it does not come to that.
        """
        end = time.monotonic() + seconds
        while True:
            found = self.state()
            wrong = unsettled(found)
            status, body = self.ask()
            if status != 200:
                wrong = f"from outside /readyz is {status} {body[:200]}; {wrong}"
            if not wrong:
                return found
            assert time.monotonic() < end, f"{self.name}: {wrong}\n{self.journal()}"
            time.sleep(0.5)

    def journal(self, lines: int = 40) -> str:
        """The end of what the service and its handover said."""
        units = " ".join(f"-u toll-app{part}" for part in ("", "-standby", "-handover"))
        return self.root(f"journalctl --no-pager -n {lines} {units}", check=False)


def start_sender(plan: Plan) -> subprocess.Popen[str]:
    """Start the sender as a program of its own, so that nothing here keeps it waiting."""
    process = subprocess.Popen([sys.executable, str(SENDER)], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(plan)))
    process.stdin.close()
    return process


def until_sent(sender: subprocess.Popen[str], path: Path, seconds: float = 600.0) -> None:
    """Until the first request is in the ledger, answered or given up.

    Raises:
        AssertionError: none is, or the sender has ended.
    """
    end = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size):
        assert sender.poll() is None, f"the sender ended with {sender.returncode}"
        assert time.monotonic() < end, f"nothing was sent within {seconds:g} s"
        time.sleep(0.02)


def unsettled(found: Mapping[str, Any]) -> str:
    """Why a host is not at rest and healthy; empty when it is."""
    problems = []
    for unit in ("toll-app.service", "toll-app.socket", "nginx.service"):
        if found["units"][unit]["ActiveState"] != "active":
            problems.append(f"{unit} is {found['units'][unit]['ActiveState']}")
    for unit in ("toll-app-standby.service", "toll-app-handover.service"):
        if found["units"][unit]["ActiveState"] not in ("inactive", "failed"):
            problems.append(f"{unit} is {found['units'][unit]['ActiveState']}")
    if not found["workers"]:
        problems.append("there are no workers")
    for answer in found["answers"]:
        if answer["status"] != 200:
            problems.append(f"/readyz answered {answer['status']}: {answer['body'][:200]}")
        elif answer["release"] != found["current"]:
            problems.append(f"{answer['release']} answers, and current is {found['current']}")
    return "; ".join(dict.fromkeys(problems))
