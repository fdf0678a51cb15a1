"""Before the service starts: nothing that was not judged goes live by a reboot."""

from __future__ import annotations

import contextlib

from ..files import read_json
from . import cache, workers
from .back import go_back_to_workers, recover, revert
from .commit import finish_commit
from .forward import hand_over
from .service import Service
from .state import State


def revert_unjudged(service: Service) -> bool:
    """Go back from a handover that was interrupted, and from settings that nobody has judged.

    Also on a host that did not boot: a handover may have been stopped, and a run of the playbook
    may have failed before it.

    Returns whether there was anything to go back from, or to complete.
    """
    state = State.read(service.config)
    if state is None:
        return _revert_unjudged_settings(service)
    units = (service.config.main, service.config.standby)
    if not all(service.systemd.show(unit).stopped for unit in units):
        # No boot: what the handover has started serves.
        recover(service, state)
        return True
    if state.stage == "commit":
        finish_commit(service, state)
        return True
    revert(service, state)
    cache.renew_anyway(service.config.root, state.previous)
    # The way back needs no room on the disk.
    with contextlib.suppress(OSError):
        service.add_history("undone", state, None, stage=state.stage)
    service.forget()
    service.report(f"Went back from a handover that was interrupted in stage {state.stage}")
    service.systemd.reload()
    go_back_to_workers(service)
    return True


def _revert_unjudged_settings(service: Service) -> bool:
    tree = read_json(service.config.tree) or {}
    loaded = service.has_loaded_changes() or bool(workers.with_loaded_changes(service))
    if not tree.get("pending") or not service.revert_settings():
        return False
    service.report("Reverted settings that no handover has judged")
    service.systemd.reload()
    if loaded:
        # Somebody else started it again meanwhile, so it runs with them.
        reason = "settings that nobody has judged were loaded"
        hand_over(service, None, "", "", reason, restart=True)
    return True
