"""What happened lately to an application on this host: deploys, requests, copies, alerts."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from typing import Any

from .. import times
from ..application import Application
from ..backup import copies, outcome, settings
from ..errors import HostError
from ..http import NoAnswerError, get
from . import traffic

DEPLOYS = 50
ALERTS_SECONDS = 2.0
ALERTS_BYTES = 1 << 20
# Prometheus of a host that watches itself, as the role `monitoring` sets it up.
PROMETHEUS = "127.0.0.1:9090"
LOGS = "var/log/nginx"
# Of a line of the history.
SHOWN = ("time", "event", "release", "previous", "by", "reason", "verdict", "stage", "settings")


def look(application: Application, prometheus: str = PROMETHEUS) -> dict[str, Any]:
    """All of it. A member is None where this host does not know."""
    described = application.settings.get("site") or {}
    names = [str(each) for each in described.get("domains", [])] or [application.domain]
    return {
        "at": times.stamp(),
        "deploys": deploys(application),
        "traffic": traffic.look(application.host / LOGS, names, times.now()),
        "copies": backups(application),
        "alerts": alerts(prometheus),
    }


def deploys(application: Application) -> list[dict[str, Any]]:
    """The last handovers, the newest first."""
    lines: deque[str] = deque(maxlen=DEPLOYS)
    with contextlib.suppress(OSError):
        with (application.state / "history.jsonl").open(encoding="utf-8", errors="replace") as log:
            lines.extend(log)
    found = []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("time"):
                found.append({key: entry.get(key) for key in SHOWN})
    return found


def backups(application: Application) -> dict[str, Any] | None:
    """How the last run went, and how many copies there are; None where none are made."""
    if os.geteuid() != 0:
        return None
    try:
        store = copies.Store(application, settings.read(application))
        known = store.records()
        state = outcome.read(store)
    except (HostError, OSError):
        return None
    if not known and not state:
        return None
    last, success = state.get("last_run") or {}, state.get("last_success") or {}
    return {
        "count": len(known),
        "bytes": sum(record["size"] for record in known),
        "last": {key: last.get(key) for key in ("at", "ok", "msg")} if last else None,
        "last_success_at": success.get("at"),
    }


def alerts(prometheus: str) -> list[dict[str, str]] | None:
    """What Prometheus of this host raises; None where there is none that answers."""
    try:
        answer = get(prometheus, "/api/v1/alerts", deadline=ALERTS_SECONDS, limit=ALERTS_BYTES)
        listed = json.loads(answer.text)["data"]["alerts"]
        return [
            {
                "name": str(each["labels"]["alertname"]),
                "severity": str(each["labels"].get("severity", "")),
                "state": str(each["state"]),
                "since": str(each.get("activeAt", "")),
                "summary": str((each.get("annotations") or {}).get("summary", "")),
            }
            for each in listed
            if each.get("state") == "firing"
        ]
    except (NoAnswerError, ValueError, KeyError, TypeError, AttributeError):
        return None
