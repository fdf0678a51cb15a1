"""Whether what was started is healthy: it comes up, answers as it should, and stays so."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ..errors import HostError
from ..http import NoAnswerError, get
from ..systemd import SystemdError, Unit
from .config import Check
from .service import Service

ANSWER_SECONDS = 10.0  # that one answer may take before it counts as bad
BAKE_FAULTS = 2  # bad answers while baking that end it; one may be an accident
# Workers that may end while baking before it is a crash loop, or one of each if there are more.
BAKE_DEATHS = 3
BODY_CHARACTERS = 500  # of an answer that are shown
POLL_SECONDS = 0.05  # between two looks at a unit
BAKE_INTERVAL_SECONDS = 0.2  # between two questions while baking, or longer if the settings say so
# systemd kills what does not stop in time; that may take a moment longer.
KILL_SECONDS = 10


class JudgedBadError(HostError):
    """A unit was judged bad.

    The message says why, as a predicate whose subject is the unit (`did not start within 60 s`).

    Attributes:
        answer: its last one.
        journal: the end of what it wrote.
    """

    def __init__(self, fault: str, answer: str = "", journal: str = "") -> None:
        super().__init__(fault)
        self.answer, self.journal = answer, journal

    @classmethod
    def of(cls, error: JudgedBadError | SystemdError | OSError) -> JudgedBadError:
        """What keeps a unit from being brought up is a reason to go back, as a verdict is."""
        if isinstance(error, JudgedBadError):
            return error
        return cls(f"could not be brought up: {error}")


def ask(path: Path, check: Check, release: str | None, timeout: float) -> tuple[str, str]:
    """Ask once, over a unix socket.

    Returns what is wrong, as a predicate, or nothing; and the answer, shortened.
    """
    try:
        got = get(f"unix:{path}", check.path, deadline=timeout, name=check.host, agent="handover")
    except NoAnswerError as error:
        return error.words, ""
    answer = f"{got.status} {got.text[:BODY_CHARACTERS]}".strip()
    if got.status != check.status:
        return f"answered {got.status}, not {check.status}", answer
    if check.release_member and release:
        try:
            named = json.loads(got.text)[check.release_member]
        except (ValueError, KeyError, TypeError):
            return f"did not name its release in the JSON member {check.release_member}", answer
        if named != release:
            return f"answered as release {named!r}, not {release!r}", answer
    return "", answer


def judge(
    service: Service,
    unit: str,
    path: Path,
    release: str | None,
    before: str,
    count: int | None = None,
) -> None:
    """Wait for a new run of a unit, and ask it. Raises JudgedBadError.

    Args:
        path: of the socket on which it is asked.
        before: InvocationID of the run that ends, which is not the one to be judged.
        count: good answers in a row that are wanted, unless what the settings say.
    """
    check = service.config.check
    invocation = _wait_until_active(service, unit, before)
    begun = time.monotonic()
    good, wanted = 0, count or check.count
    fault = answer = ""
    while True:
        left = check.time_limit - (time.monotonic() - begun)
        last = fault, answer
        fault, answer = ask(path, check, release, max(0.1, min(ANSWER_SECONDS, left)))
        good = 0 if fault else good + 1
        if left < ANSWER_SECONDS and fault and not answer and all(last):
            # A question that the time limit cut off says less than the answer before it.
            fault, answer = last
        if good >= wanted:
            return
        _check_alive(service, unit, service.systemd.show(unit), invocation, answer)
        if time.monotonic() - begun + check.interval > check.time_limit:
            fault = fault or f"gave {good} good answers of {wanted}"
            raise judged_bad(service, unit, f"{fault}, within {check.time_limit:g} s", answer)
        time.sleep(check.interval)


def _wait_until_active(service: Service, unit: str, before: str) -> str:
    """Wait for a new run of a unit; return its InvocationID."""
    config = service.config
    begun = time.monotonic()
    invocation = ""
    while True:
        shown = service.systemd.show(unit)
        waited = time.monotonic() - begun
        if shown.invocation == before:
            # The old run has not ended yet.
            if waited > config.stop_time_limit + KILL_SECONDS:
                fault = "was not started, because what ran before does not end"
                raise judged_bad(service, unit, fault)
        else:
            if not invocation:
                invocation, begun = shown.invocation, time.monotonic()
                waited = 0.0
            _check_alive(service, unit, shown, invocation)
            if shown.active == "active":
                return invocation
            if waited > config.start_time_limit:
                fault = f"did not start within {config.start_time_limit:g} s"
                raise judged_bad(service, unit, fault)
        time.sleep(POLL_SECONDS)


def _check_alive(
    service: Service, unit: str, shown: Unit, invocation: str, answer: str = ""
) -> None:
    # A release that the database does not suit says so itself, and may never be ready.
    service.question.check()
    if not shown.lives or shown.invocation != invocation:
        fault = "does not stay up" if shown.sub == "auto-restart" else "died"
        raise judged_bad(service, unit, fault, answer)


def judged_bad(service: Service, unit: str, fault: str, answer: str = "") -> JudgedBadError:
    """The verdict on a unit, with the end of its journal."""
    invocation = service.systemd.show(unit).invocation
    return JudgedBadError(fault, answer, service.systemd.journal(unit, invocation))


def bake(service: Service, release: str | None) -> None:
    """Ask the service for a while longer. Raises JudgedBadError."""
    config, systemd = service.config, service.systemd
    end = time.monotonic() + config.bake_time
    faults = 0
    # Where workers die, others answer meanwhile: bad answers alone do not tell.
    main = systemd.show(config.main).pid
    alive = systemd.workers(main)
    most, ended = len(alive), 0
    while time.monotonic() < end:
        time.sleep(max(BAKE_INTERVAL_SECONDS, config.check.interval))
        workers = systemd.workers(main)
        if workers:
            ended += len(alive - workers)
        else:
            # systemd starts a master that was killed again, which is one accident.
            ended += bool(alive)
            main = systemd.show(config.main).pid
        most, alive = max(most, len(workers)), workers
        if ended >= max(BAKE_DEATHS, most):
            fault = f"lost its workers: {ended} of its workers ended while baking"
            raise judged_bad(service, config.main, fault)
        fault, answer = ask(config.application.check_socket, config.check, release, ANSWER_SECONDS)
        faults += bool(fault)
        if faults >= BAKE_FAULTS:
            fault = f"{fault}, {faults} times while baking"
            raise judged_bad(service, config.main, fault, answer)


def wait_until_stopped(service: Service, unit: str) -> None:
    """Wait until a unit has ended, or should have."""
    end = time.monotonic() + service.config.stop_time_limit + KILL_SECONDS
    while not service.systemd.show(unit).stopped and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
