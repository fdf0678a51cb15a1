"""How the last run went, for `list` and for monitoring."""

from __future__ import annotations

import contextlib
import datetime
import sys
from typing import Any

from .. import files, prometheus, times
from ..prometheus import Metric
from .copies import STATE, Store


def progress(line: str) -> None:
    """Tell whoever is still there."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def read(store: Store) -> dict[str, Any]:
    """The `last_run` and the `last_success`; empty if nothing is known."""
    return files.read_json_if_possible(store.directory / STATE)


def keep(
    store: Store,
    at: datetime.datetime,
    ok: bool,
    facts: dict[str, Any],
    writable: bool = True,
) -> None:
    """Keep how a run went.

    Args:
        at: when it began.
        writable: whether the directory of copies is there. If not, nothing is written to it.
    """
    success = store.state().get("last_success")
    state = read(store) or ({"last_success": success} if success else {})
    state["last_run"] = {"at": times.written(at), "ok": ok, **facts}
    if ok:
        state["last_success"] = {"at": times.written(at), **facts}
        store.remember(last_success=state["last_success"])
    if writable:
        files.write_json(store.directory / STATE, state, 0o600)
    application = store.application
    if application.metrics.is_dir():
        path = application.metrics / f"{application.name}-backup.prom"
        try:
            files.write(path, prometheus.text(application.name, metrics(state)))
        except OSError as error:
            # The copy is good all the same; monitoring sees an old time, and says so.
            progress(f"{path} cannot be written: {error.strerror}")


def metrics(state: dict[str, Any]) -> list[Metric]:
    """What monitoring gets to know."""
    measured = [
        Metric(
            "app_backup_last_run_failed",
            "gauge",
            "1 if the last run left no good copy, or could not hand it on.",
            0 if state["last_run"]["ok"] else 1,
        )
    ]
    success = state.get("last_success")
    if success:
        began = int(times.parse(success["at"]).timestamp())
        measured += [
            Metric(
                "app_backup_last_success_timestamp_seconds",
                "gauge",
                "When the last good one began.",
                began,
            ),
            Metric(
                "app_backup_size_bytes", "gauge", "Size of the last good copy.", success["size"]
            ),
        ]
    return measured
