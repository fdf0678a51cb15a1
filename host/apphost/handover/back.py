"""Back to what was live before: after a bad verdict, and after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from .. import records
from ..errors import FAILED, REFUSED
from ..systemd import SystemdError
from ..times import stamp
from . import cache, workers
from .commit import finish_commit
from .judge import JudgedBadError
from .service import Service
from .settings import Healthy
from .state import Result, State
from .suiting import UnsuitedError
from .switch import open_standby, stand_in, start_main


def reject(service: Service, state: State, bad: JudgedBadError) -> Result:
    """Have what was live before live again, and keep why."""
    stage = state.stage
    service.report(f"  {stage}: {bad}")
    failure = {"stage": stage, "answer": bad.answer, "journal": bad.journal, "fault": str(bad)}
    # The way back needs no room on the disk, and where there is none it has to do without records.
    with contextlib.suppress(OSError):
        if state.release != state.previous:
            verdict = {"verdict": records.BAD, "verdict_at": stamp(), "failure": failure}
            service.update_record(state.release, verdict)
    outcome = go_back(service, state)
    with contextlib.suppress(OSError):
        service.add_history("rolled back", state, records.BAD, stage=stage, fault=str(bad))
    if state.release:
        lines = [f"Release {state.release} was judged bad in stage {stage}: it {bad}."]
    else:
        lines = [f"The settings on disk were judged bad in stage {stage}: the service {bad}."]
    if bad.answer:
        lines.append(f"The last answer: {bad.answer}")
    lines.append(outcome)
    if bad.journal:
        lines.append(f"The end of its journal:\n{bad.journal}")
    return Result(
        True,
        "\n".join(lines),
        state.release,
        state.previous,
        records.BAD,
        stage,
        bad.answer,
        bad.journal,
        service.seconds,
        FAILED,
    )


def withdraw(service: Service, state: State, unsuited: UnsuitedError) -> Result:
    """End what no client has seen. The release is no worse than before."""
    stage = state.stage
    service.report(f"  {stage}: {unsuited}")
    outcome = go_back(service, state)
    with contextlib.suppress(OSError):
        service.add_history("rolled back", state, None, stage=stage, fault=str(unsuited))
    return Result(
        False,
        f"{unsuited} {outcome}",
        state.release,
        state.previous,
        stage=stage,
        seconds=service.seconds,
        code=REFUSED,
    )


def recover(service: Service, state: State) -> Result:
    """Bring what an interrupted handover left to a known state."""
    stage = state.stage
    if stage == "commit":
        finish_commit(service, state)
        msg = "An interrupted handover was healthy; it is recorded now."
        service.report(msg)
        return Result(True, msg, state.release, state.previous, records.HEALTHY, stage)
    service.report(f"A handover was interrupted in stage {stage}; going back")
    outcome = go_back(service, state)
    with contextlib.suppress(OSError):
        service.add_history("undone", state, None, stage=stage)
    msg = f"The handover was interrupted in stage {stage}. {outcome}"
    return Result(True, msg, state.release, state.previous, stage=stage, seconds=service.seconds)


def revert(service: Service, state: State) -> list[str]:
    """`current` and the settings as they were. Returns the files that differed."""
    service.point(state.previous)
    return service.revert_settings()


def go_back(service: Service, state: State) -> str:
    """Have what was live before live again, by a handover in the other direction if needed.

    Returns a sentence for the operator.
    """
    service.enter(state, "back")
    # It may have been started again by somebody else, with the settings that are reverted now.
    loaded = service.has_loaded_changes()
    stale = workers.with_loaded_changes(service)
    files = revert(service, state)
    service.systemd.reload()
    try:
        outcome = _serve_previous(service, state, loaded)
    except (JudgedBadError, SystemdError) as error:
        outcome = f"{_capitalised(_previous(state))} is back, but it {JudgedBadError.of(error)}"
    config = service.config
    service.systemd.stop(config.standby, config.standby_private)
    cache.renew_anyway(config.root, state.previous)
    go_back_to_workers(service, stale)
    service.leave()
    service.forget()
    return f"{outcome}{', with the settings of before' if files else ''}."


def go_back_to_workers(service: Service, stale: Sequence[str] = ()) -> None:
    """Have the live generation of workers run alone again; it was never stopped, as a rule.

    Args:
        stale: those of it that have loaded settings that are reverted now.
    """
    healthy = Healthy.read(service.config.healthy)
    try:
        workers.keep(service, healthy.generation if healthy else "")
        if healthy:
            workers.keep_timers(service)
        if stale:
            service.systemd.begin("restart", *stale)
    except SystemdError as error:
        service.report(f"  back: {error}")


def _serve_previous(service: Service, state: State, loaded: bool) -> str:
    """Have what is on disk again served; return what became of it."""
    config, systemd = service.config, service.systemd
    main = systemd.show(config.main)
    was_live = Healthy.read(config.healthy) is not None or state.previous is not None
    if not state.bridged and not was_live:
        systemd.stop(config.main, *config.sockets)
        return f"Nothing was live before, so {config.name} is stopped"
    if main.lives and main.invocation == state.invocation and not loaded:
        if state.serving:
            return f"{_capitalised(_previous(state))} is live as before"
        return f"It served no client; {_previous(state)} is live as before"
    standby = systemd.show(config.standby)
    if state.bridged and not (state.serving and standby.lives):
        try:
            stand_in(service, state, "back", state.previous or state.release)
            open_standby(service, state, state.previous or state.release)
            service.enter(state, "back")
        except (JudgedBadError, SystemdError) as error:
            service.report(f"  back: no standby: it {JudgedBadError.of(error)}")
            systemd.stop(config.standby)
    start_main(service, state, state.previous)
    return f"{_capitalised(_previous(state))} is live again"


def _previous(state: State) -> str:
    return f"release {state.previous}" if state.previous else "what was there before"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
