"""The record of a handover that was judged healthy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import database, records, releases
from ..times import stamp
from . import workers
from .plan import live_and_healthy
from .service import Service
from .settings import Healthy
from .state import Result, State


def commit(service: Service, state: State) -> Result:
    """Record it as healthy. Once begun, this is finished, also after an interruption."""
    service.enter(state, "commit")
    finish_commit(service, state)
    total = round(sum(service.seconds.values()), 1)
    msg = f"{live_and_healthy(state.release)}, after {total} s."
    return Result(
        *(True, msg, state.release, state.previous, records.HEALTHY, "commit"),
        seconds=service.seconds,
    )


def finish_commit(service: Service, state: State) -> None:
    """Do what is left of it; can be repeated."""
    config = service.config
    candidate = Healthy.read(config.candidate)
    if candidate is not None:
        main = service.systemd.show(config.main)
        replace(candidate, invocation=main.invocation).write(config.healthy)
    service.systemd.enable(config.enabled)
    workers.finish(service, state)
    service.mark_applied()
    database.note_served(config.application)
    facts: dict[str, Any] = {"verdict": records.HEALTHY, "verdict_at": stamp(), "failure": None}
    unknown = workers.unknown(service, state)
    facts["workers"] = [each.name for each in config.workers if each.name not in unknown]
    facts["workers_not_judged"] = unknown
    record = service.record(state.release)
    if state.release != state.previous or not record.get("activated_at"):
        facts |= {"activated_at": stamp(), "activated_by": state.by, "reason": state.reason}
    # Live again, it is not left any more, unless somebody has left it since this began.
    if str(record.get("excluded_at") or "") <= state.started_at:
        facts |= dict.fromkeys(records.LEFT)
    service.update_record(state.release, facts)
    if state.leaves and state.previous and state.previous != state.release:
        left = config.application, state.previous, state.by, state.reason
        releases.mark_left(*left, records.DECISION)
    service.add_history("handover", state, records.HEALTHY)
    service.forget()
