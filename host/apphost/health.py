"""Asks a service whether it is well; with --watch, restarts it when only that can help.

<name>-health.timer runs `<name> health --watch` every few seconds. Without --watch it shows what it
sees and has done lately, and changes nothing.

Healthy is a good answer of the readiness path on the service's private socket, where no client
queues. Anything else is one of two:

    not ready    The process answers, and says that it cannot work, for instance because its
                 database is away; or it could not be started again, since its interpreter was
                 removed under it. A restart cannot help, so there is none: this is reported.
    dead         Nothing answers in time. After a number of times in a row the service is restarted,
                 through the handover: a standby has to be ready before the process that hangs is
                 ended.

So a database that is slow or away never becomes a loop of restarts, even where it ties up every
thread of the service: no standby gets ready then, and what runs is left as it is. Each further
attempt waits twice as long, and after a number of attempts in an hour there are reports only.

Nothing is asked while a handover is under way, nor of a service that somebody has stopped. What
changes is reported to the journal once. Exit code 0: healthy, or with --watch in any case. 1: the
service is not healthy. 2: it could not be asked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import interpreter
from .answer import Answer
from .application import Application
from .errors import DONE, FAILED, RefusedError
from .files import known, read_json_if_possible, read_settings, write_json
from .http import NoAnswerError, get
from .systemd import properties

HOUR_SECONDS = 3600.0
BODY_CHARACTERS = 300  # of an answer that are shown
ERROR, WARNING, NOTICE = 3, 4, 5  # priorities of syslog(3)

HEALTHY, UNREADY, DEAD = "healthy", "not ready", "dead"
# Not asked, since somebody else has it in hand.
STOPPED, STARTING, HANDOVER = "stopped", "starting", "in a handover"


@dataclass(frozen=True)
class Config:
    """What the role gunicorn_systemd says, in /etc/<name>/health.json. Times are in seconds.

    Attributes:
        ready_path: says whether the service can do its work.
        live_path: says whether the process answers at all; empty if there is no such path.
        host: in the header of that name.
        timeout: for an answer.
        failures: times in a row without an answer until it is restarted.
        interval: between two looks.
        python: the interpreter that the service needs at its next start; empty if not known.
    """

    application: Application
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
    def read(cls, application: Application) -> Config:
        """What is on disk. Raises RefusedError where it is missing or cannot be used."""
        path = application.etc / "health.json"
        data = read_settings(path, f"the health check of {application.name} is not set up")
        try:
            return cls(**known(cls, {**data, "application": application}))
        except TypeError as error:
            raise RefusedError(f"{path} cannot be used ({error}): run the playbook") from error

    @property
    def name(self) -> str:
        """The application's name, with which those of its units begin."""
        return self.application.name

    @property
    def state(self) -> Path:
        """What is remembered from one look to the next."""
        return self.application.host / "run" / f"{self.name}-health" / "state.json"


@dataclass
class State:
    """What is remembered until the next boot. Times are seconds since the boot.

    Attributes:
        failures: times in a row that nothing answered.
        attempts: the restarts of the last hour.
        given_up: it was reported that there are reports only.
    """

    seen: str = HEALTHY
    since: float = 0.0
    failures: int = 0
    attempts: list[float] = field(default_factory=list)
    given_up: bool = False

    @classmethod
    def read(cls, config: Config) -> State:
        """What an earlier look has left, if that can be read."""
        return cls(**known(cls, read_json_if_possible(config.state)))

    def write(self, config: Config) -> None:
        """Remember it."""
        write_json(config.state, asdict(self), 0o600)

    def attempts_within_the_hour(self, now: float) -> list[float]:
        """When it was restarted."""
        return [at for at in self.attempts if now - at < HOUR_SECONDS]


def ask(config: Config, path: str) -> tuple[int, str]:
    """The status and the body of an answer; status 0 and why, if there was none in time."""
    try:
        answer = get(
            f"unix:{config.application.check_socket}",
            path,
            deadline=config.timeout,
            name=config.host,
            agent=f"{config.name}-health",
        )
    except NoAnswerError as error:
        return 0, str(error)
    return answer.status, answer.text.strip()[:BODY_CHARACTERS]


def active(unit: str) -> str:
    """systemd's word for a unit: active, activating, deactivating, inactive, failed."""
    return properties(unit, "ActiveState")["ActiveState"] or "unknown"


def hand_over(config: Config, reason: str) -> tuple[bool, str]:
    """Restart the service without losing a request; whether that went well, and the message.

    In a unit of its own, since this one may do little.
    """
    result = subprocess.run(
        [
            *("systemd-run", "--quiet", "--collect", "--wait", "--pipe"),
            f"--unit={config.name}-health-restart",
            f"--description=Restart of {config.name}, which does not answer",
            *(str(config.application.command), "handover", "--restart", "--json"),
            *("--by", f"{config.name}-health", "--reason", reason),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        msg = str(json.loads(result.stdout)["msg"])
    except (ValueError, KeyError, TypeError):
        msg = (result.stderr or result.stdout).strip()
    # The journal of a failure is in the journal.
    return result.returncode == 0, msg.partition("\nThe end of its journal:")[0]


def report(priority: int, text: str) -> None:
    """To the journal, with a priority that it reads."""
    print("\n".join(f"<{priority}>{line}" for line in text.splitlines()), flush=True)


def look(config: Config) -> tuple[str, str]:
    """How the service is, and why, or what it answered."""
    if active(f"{config.name}-handover.service") not in ("inactive", "failed"):
        return HANDOVER, ""
    main = active(config.application.unit)
    if main in ("inactive", "failed"):
        return STOPPED, ""
    if main != "active":
        # systemd starts what has died, and ends what is being stopped.
        return STARTING, ""
    if config.python and (missing := interpreter.lacking(config.python)):
        return UNREADY, (
            f"{missing} is not on this host any more, so it cannot be started again, and what it "
            f"has not loaded yet fails. Deploy its release again, for a Python of this host"
        )
    status, body = ask(config, config.ready_path)
    if status == config.ready_status:
        return HEALTHY, body
    if not config.live_path:
        if status:
            return UNREADY, f"{config.ready_path} answered {status}: {body}"
        return DEAD, f"no answer ({body})"
    live_status, live_body = ask(config, config.live_path)
    if 200 <= live_status < 300:
        how = f"answered {status}: {body}" if status else f"gave no answer ({body})"
        return UNREADY, f"{config.ready_path} {how}"
    how = f"answered {live_status}" if live_status else f"gave no answer ({live_body})"
    return DEAD, f"{config.live_path} {how}"


def pause_seconds(config: Config, attempts: Sequence[float]) -> float:
    """From the last attempt to the next: twice as long for each within the hour."""
    return config.interval * config.failures * 2 ** len(attempts) if attempts else 0.0


def watch(config: Config) -> None:
    """Look once, and do what follows from it."""
    state, now = State.read(config), time.monotonic()
    state.attempts = state.attempts_within_the_hour(now)
    seen, reason = look(config)
    before, since = state.seen, state.since
    if seen != before:
        state.seen, state.since = seen, now
    if seen != DEAD:
        state.failures = 0
    if seen == HEALTHY and before in (UNREADY, DEAD):
        report(NOTICE, f"{config.name} is healthy again, after {now - since:.0f} s.")
        state.given_up = False
    elif seen == UNREADY and before != UNREADY:
        report(
            WARNING,
            f"{config.name} lives but is not ready: {reason}. It is not restarted, which could not "
            f"help: look at what it depends on.",
        )
    elif seen == DEAD:
        state.failures += 1
        if before != DEAD:
            report(WARNING, f"{config.name} does not answer: {reason}.")
        if state.failures >= config.failures:
            # What is written before cannot be forgotten by dying meanwhile.
            state.write(config)
            restart(config, state, now, reason)
    state.write(config)


def restart(config: Config, state: State, now: float, reason: str) -> None:
    """Restart it, unless that was tried too often or a moment ago."""
    if len(state.attempts) >= config.restarts_per_hour:
        if not state.given_up:
            state.given_up = True
            report(
                ERROR,
                f"{config.name} does not answer: {reason}. It was restarted {len(state.attempts)} "
                f"times within an hour, and is left alone now. To try once more: "
                f"sudo {config.name} handover --restart",
            )
        return
    if state.attempts and now - state.attempts[-1] < pause_seconds(config, state.attempts):
        return
    state.attempts.append(now)
    state.write(config)
    times = f"{state.failures} times in a row"
    report(ERROR, f"{config.name} does not answer, {times}: {reason}. It is restarted.")
    good, msg = hand_over(config, f"does not answer, {times}")
    if good:
        took = time.monotonic() - state.since
        state.seen, state.since, state.failures = HEALTHY, time.monotonic(), 0
        state.given_up = False
        report(NOTICE, f"{msg} It had not answered for {took:.0f} s.")
    else:
        wait = pause_seconds(config, state.attempts)
        report(ERROR, f"The restart did not help, and is tried again after {wait:.0f} s. {msg}")


def show(config: Config) -> Answer:
    """What it sees, and has done lately."""
    state, now = State.read(config), time.monotonic()
    seen, reason = look(config)
    attempts = state.attempts_within_the_hour(now)
    ago = ", ".join(f"{(now - at) / 60:.0f} min ago" for at in attempts)
    msg = f"{config.name} is {seen}{f': {reason}' if reason else ''}"
    restarts = f"Restarts within the hour: {len(attempts)} of {config.restarts_per_hour}"
    return Answer(
        msg,
        facts={"health": seen, "reason": reason, "restarts": len(attempts)},
        text=f"{msg}\n{restarts}{f' ({ago})' if ago else ''}",
        code=DONE if seen == HEALTHY else FAILED,
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "--watch", action="store_true", help="restart the service if only that can help"
    )


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Do it."""
    if os.geteuid() != 0:
        raise RefusedError("Only root can ask on the private socket: use sudo")
    config = Config.read(application)
    if not options.watch:
        return show(config)
    with contextlib.suppress(BrokenPipeError):
        watch(config)
    # What there is to say is in the journal.
    return Answer("")
