"""A handover from its beginning to its verdict."""

from __future__ import annotations

from .. import records
from ..errors import DONE, FAILED
from ..systemd import SystemdError
from ..times import stamp
from . import cache, workers
from .back import recover, reject, withdraw
from .commit import commit
from .judge import JudgedBadError, bake, wait_until_stopped
from .plan import Plan, live_and_healthy, make_plan
from .service import Service
from .settings import Healthy
from .state import Result, State
from .suiting import Question, UnsuitedError
from .switch import open_standby, stand_in, start_main


def hand_over(
    service: Service,
    release: str | None,
    request: str,
    by: str,
    reason: str,
    restart: bool = False,
    if_suits: bool = False,
    exclude: bool = False,
) -> Result:
    """Hand over, after recovering from what an earlier handover left. Raises RefusedError.

    Args:
        release: the current one if left out.
        request: names this handover; one of that name that was interrupted is not tried again.
        restart: start it again also where nothing has changed.
        if_suits: only if the release says that the database suits it.
        exclude: exclude the release that was live from future rollbacks.
    """
    interrupted = State.read(service.config)
    if interrupted is not None:
        meant = service.settings_meant(interrupted)
        result = recover(service, interrupted)
        if interrupted.id == request:
            result.code = DONE if result.stage == "commit" else FAILED
            return result
        # Whoever asks has written these, or found them as they were to be.
        service.write_settings(meant)
        if not service.has_its_tree():
            result.code = FAILED
            result.msg += " Settings that were written since were reverted too: write them again."
            return result
    plan = make_plan(service, release, restart)
    if not plan.reasons:
        enabled = service.systemd.enable(workers.at_boot(service.config, plan.generation))
        if not cache.is_there(service.config.root):
            cache.renew(service.config.root, plan.release)
        service.mark_applied()
        changed = enabled or interrupted is not None
        msg = f"{live_and_healthy(plan.release)}; nothing to do."
        return Result(changed, msg, plan.release, plan.previous, records.HEALTHY)
    if if_suits and plan.release is not None:
        service.question = Question(service.config.application, plan.release)
    if not plan.bridged:
        # What serves is stopped first then, so this is known before.
        service.question.check(wait=True)
    service.report(f"Handing over {plan.title} ({'; '.join(plan.reasons)})")
    workers.clean(service, plan.generation)
    generation = workers.new_generation(service, request)
    candidate = Healthy(plan.release, "", plan.settings, stamp(), generation)
    candidate.write(service.config.candidate)
    state = State(
        id=request,
        release=plan.release,
        previous=plan.previous,
        by=by,
        reason=reason,
        started_at=stamp(),
        stage="begin",
        bridged=plan.bridged,
        reopen=plan.reopen,
        invocation=plan.invocation,
        settings=plan.changed,
        generation=generation,
        leaves=exclude,
    )
    service.enter(state, "begin")
    try:
        _switch(service, state, plan)
    except UnsuitedError as error:
        return withdraw(service, state, error)
    except (JudgedBadError, SystemdError, OSError) as error:
        try:
            # The database may be why.
            service.question.check(wait=True)
        except UnsuitedError as unsuited:
            return withdraw(service, state, unsuited)
        # A full disk, or a process that has just gone, is no reason to stop half way.
        return reject(service, state, JudgedBadError.of(error))
    return commit(service, state)


def _switch(service: Service, state: State, plan: Plan) -> None:
    """All that may turn out bad."""
    config, systemd = service.config, service.systemd
    if plan.reload:
        healthy = Healthy.read(config.healthy)
        workers.keep_unit_files(service, healthy.settings if healthy else {})
        systemd.reload()
    if plan.bridged:
        stand_in(service, state, "standby", state.release)
    began = workers.start(service, state)
    if plan.bridged:
        # No client sees a release that the database does not suit, or whose workers do not start.
        service.question.check(wait=True)
        service.enter(state, "open")
        open_standby(service, state, state.release)
    service.enter(state, "main")
    if state.release is not None:
        service.point(state.release)
    start_main(service, state, state.release)
    cache.renew(config.root, state.release)
    if state.bridged:
        systemd.begin("stop", config.standby, config.standby_private)
    service.enter(state, "bake")
    bake(service, state.release)
    workers.judge_again(service, state, began)
    if state.bridged:
        # Meanwhile it has finished the requests that it had.
        wait_until_stopped(service, config.standby)
        # One that was killed is not missed, and would stay among the failed units.
        systemd.stop(config.standby)
