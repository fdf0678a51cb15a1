#!/usr/bin/python3 -IBXutf8
"""Asks a service whether it is well, and starts it again when only that can help.

    <name>-health           what <name>-health.timer does every few seconds
    <name>-health --show    what it sees now and has done lately; changes nothing

Healthy is a good answer of the readiness path on the service's private socket, where no client
queues. Anything else is one of two:

    not ready    The process answers, and says that it cannot work, for instance because its
                 database is away, or it could not be started again, since its interpreter was
                 removed under it. A restart cannot help, so there is none: this is reported.
    dead         Nothing answers in time. After so many times in a row the service is started again,
                 through the handover: a standby has to be ready before the one that hangs is ended.

So a database that is slow or away never becomes a loop of restarts, even where it ties up every
thread of the service: no standby gets ready then, and what runs is left as it is. Each further
attempt waits twice as long, and after so many in an hour there are reports only.

Nothing is asked while a handover is under way, nor of a service that somebody has stopped. What
changes is told to the journal once. Exit code 0, with --show 1 where the service is not healthy.

The name is the program's own, the rest is in /etc/<name>/health.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

# The role puts there what this program shares with others.
sys.path.insert(0, "/usr/local/lib/" + Path(__file__).name)

import clean_environment
from http_over_socket import NoAnswerError, get

ETC = Path("/etc")
RUN = Path("/run")
HOUR = 3600.0
BODY_LIMIT = 300  # characters of an answer that are told
ERROR, WARNING, NOTICE = 3, 4, 5  # priorities of syslog(3)

HEALTHY, UNREADY, DEAD = "healthy", "not ready", "dead"
# Not looked at, since somebody else has it in hand.
STOPPED, STARTING, HANDOVER = "stopped", "starting", "in a handover"


@dataclass(frozen=True)
class Config:
    """What the role says. Times are in seconds."""

    name: str
    ready_path: str
    ready_status: int
    live_path: str
    host: str
    timeout: float
    failures: int
    interval: float
    restarts_per_hour: int
    python: str = ""

    @classmethod
    def read(cls, name: str) -> Config:
        data = json.loads((ETC / name / "health.json").read_text())
        known = {entry.name for entry in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})

    @property
    def socket(self) -> Path:
        return RUN / "gunicorn" / f"{self.name}-check.sock"

    @property
    def state(self) -> Path:
        return RUN / f"{self.name}-health" / "state.json"


@dataclass
class State:
    """What is remembered until the next boot. Times are seconds since the boot."""

    seen: str = HEALTHY
    since: float = 0.0
    failures: int = 0  # times in a row that nothing answered
    attempts: list[float] = field(default_factory=list)  # restarts of the last hour
    given_up: bool = False  # told that there are reports only

    @classmethod
    def read(cls, config: Config) -> State:
        try:
            data = json.loads(config.state.read_text())
            known = {entry.name for entry in fields(cls)}
            return cls(**{key: value for key, value in data.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls()

    def write(self, config: Config) -> None:
        config.state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = config.state.with_name(".state.json")
        temporary.write_text(json.dumps(asdict(self)))
        os.replace(temporary, config.state)


def ask(config: Config, path: str) -> tuple[int, str]:
    """The status and the body of an answer; status 0 and why, if there was none in time."""
    try:
        answer = get(
            f"unix:{config.socket}",
            path,
            deadline=config.timeout,
            name=config.host,
            agent=f"{config.name}-health",
        )
    except NoAnswerError as error:
        return 0, str(error)
    return answer.status, answer.text.strip()[:BODY_LIMIT]


def active(unit: str) -> str:
    """systemd's word for a unit: active, activating, deactivating, inactive, failed."""
    done = subprocess.run(
        ["systemctl", "show", "--property=ActiveState", "--value", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def hand_over(config: Config, reason: str) -> tuple[bool, str]:
    """Start the service again without losing a request; whether it went well, and what was said.

    In a unit of its own, since this one may do little.
    """
    done = subprocess.run(
        [
            *("systemd-run", "--quiet", "--collect", "--wait", "--pipe"),
            f"--unit={config.name}-health-restart",
            f"--description=Restart of {config.name}, which does not answer",
            *(f"/usr/local/sbin/{config.name}-handover", "--restart", "--json"),
            *("--by", f"{config.name}-health", "--reason", reason),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        said = str(json.loads(done.stdout)["msg"])
    except (ValueError, KeyError, TypeError):
        said = (done.stderr or done.stdout).strip()
    # The journal of a failure is in the journal.
    return done.returncode == 0, said.partition("\nThe end of its journal:")[0]


def tell(priority: int, text: str) -> None:
    """To the journal, with a priority that it reads."""
    print("\n".join(f"<{priority}>{line}" for line in text.splitlines()), flush=True)


def lacking(python: str) -> str:
    """What the next start would miss of the interpreter and its library; nothing if all is there.

    A process goes on without them, and fails wherever it imports what it has not imported so far.
    """
    interpreter = Path(os.path.realpath(python))
    if not os.access(interpreter, os.X_OK):
        return str(interpreter)
    libraries = [interpreter.parent.parent / lib / interpreter.name for lib in ("lib", "lib64")]
    # Where it is kept elsewhere, nothing is known of it.
    there = [library for library in libraries if library.is_dir()]
    # Of Debian's packages, the one beside the minimal one.
    if there and not any((library / "ctypes" / "__init__.py").exists() for library in there):
        return str(there[0] / "ctypes")
    return ""


def look(config: Config) -> tuple[str, str]:
    """How the service is, and what it said."""
    if active(f"{config.name}-handover.service") not in ("inactive", "failed"):
        return HANDOVER, ""
    main = active(f"{config.name}.service")
    if main in ("inactive", "failed"):
        return STOPPED, ""
    if main != "active":
        # systemd starts what has died, and ends what is being stopped.
        return STARTING, ""
    if config.python and (missing := lacking(config.python)):
        return UNREADY, (
            f"{missing} is not on this host any more, so it cannot be started again, and what it "
            f"has not loaded yet fails. Deploy its release again, for a Python of this host"
        )
    status, said = ask(config, config.ready_path)
    if status == config.ready_status:
        return HEALTHY, said
    ready = f"{config.ready_path} answered {status}: {said}" if status else said
    if not config.live_path:
        return (UNREADY if status else DEAD), f"{ready}" if status else f"no answer ({said})"
    alive, words = ask(config, config.live_path)
    if 200 <= alive < 300:
        return UNREADY, ready if status else f"{config.ready_path} gave no answer ({said})"
    how = f"answered {alive}" if alive else f"gave no answer ({words})"
    return DEAD, f"{config.live_path} {how}"


def pause(config: Config, attempts: Sequence[float]) -> float:
    """Seconds from the last attempt to the next: twice as long for each within the hour."""
    return config.interval * config.failures * 2 ** len(attempts) if attempts else 0.0


def run(config: Config) -> None:
    """Look once, and do what follows from it."""
    state, now = State.read(config), time.monotonic()
    state.attempts = [at for at in state.attempts if now - at < HOUR]
    seen, said = look(config)
    before, since = state.seen, state.since
    if seen != before:
        state.seen, state.since = seen, now
    if seen != DEAD:
        state.failures = 0
    if seen == HEALTHY and before in (UNREADY, DEAD):
        tell(NOTICE, f"{config.name} is healthy again, after {now - since:.0f} s.")
        state.given_up = False
    elif seen == UNREADY and before != UNREADY:
        tell(
            WARNING,
            f"{config.name} lives but is not ready: {said}. It is not restarted, which could not "
            f"help: look at what it depends on.",
        )
    elif seen == DEAD:
        state.failures += 1
        if before != DEAD:
            tell(WARNING, f"{config.name} does not answer: {said}.")
        if state.failures >= config.failures:
            # What is written before cannot be forgotten by dying meanwhile.
            state.write(config)
            restart(config, state, now, said)
    state.write(config)


def restart(config: Config, state: State, now: float, said: str) -> None:
    """Start it again, unless that was tried too often or a moment ago."""
    if len(state.attempts) >= config.restarts_per_hour:
        if not state.given_up:
            state.given_up = True
            tell(
                ERROR,
                f"{config.name} does not answer: {said}. It was restarted {len(state.attempts)} "
                f"times within an hour, and is left alone now. To try once more: "
                f"{config.name}-handover --restart",
            )
        return
    if state.attempts and now - state.attempts[-1] < pause(config, state.attempts):
        return
    state.attempts.append(now)
    state.write(config)
    times = f"{state.failures} times in a row"
    tell(ERROR, f"{config.name} does not answer, {times}: {said}. It is started again.")
    good, words = hand_over(config, f"does not answer, {times}")
    if good:
        took = time.monotonic() - state.since
        state.seen, state.since, state.failures = HEALTHY, time.monotonic(), 0
        state.given_up = False
        tell(NOTICE, f"{words} It had not answered for {took:.0f} s.")
    else:
        wait = pause(config, state.attempts)
        tell(ERROR, f"The restart did not help, and is tried again after {wait:.0f} s. {words}")


def show(config: Config) -> int:
    """Print what there is to see."""
    state, now = State.read(config), time.monotonic()
    seen, said = look(config)
    print(f"{config.name} is {seen}{f': {said}' if said else ''}")
    lately = [f"{(now - at) / 60:.0f} min ago" for at in state.attempts if now - at < HOUR]
    limit = config.restarts_per_hour
    print(f"restarts within the hour: {len(lately)} of {limit}{', '.join(['', *lately])}")
    return 0 if seen == HEALTHY else 1


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Ask a service, restart it if only that can help.")
    parser.add_argument("--show", action="store_true", help="say what it sees, change nothing")
    options = parser.parse_args(argv)
    name = Path(sys.argv[0]).name.removesuffix("-health")
    try:
        if os.geteuid() != 0:
            raise PermissionError("only root can ask on the private socket: use sudo")
        config = Config.read(name)
    except (OSError, ValueError, TypeError) as error:
        print(f"{name}-health: {error}", file=sys.stderr)
        return 2
    if options.show:
        return show(config)
    with contextlib.suppress(BrokenPipeError):
        run(config)
    return 0


if __name__ == "__main__":
    clean_environment.apply()
    sys.exit(main(sys.argv[1:]))
