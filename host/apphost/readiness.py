"""Whether an application answers that it can do its work, asked once."""

from __future__ import annotations

import json
import time
from typing import Any

from .application import Application
from .http import NoAnswerError, get

ANSWER_SECONDS = 5


def ask(application: Application, connect: str = "", site: str = "") -> dict[str, Any]:
    """Ask for the application's health: `ok`, `status`, `release`, `milliseconds` or `error`.

    Args:
        connect: `address:port` of the web server, by HTTPS; the service's own socket if left out.
        site: its name; the first one that the application is described with if left out.
    """
    name = site or application.domain
    begun = time.monotonic()
    health = application.health
    where = connect or f"unix:{application.socket}"
    try:
        answer = get(where, health.path, deadline=ANSWER_SECONDS, name=name, tls=bool(connect))
    except NoAnswerError as error:
        return {"ok": False, "error": f"{connect or application.socket}: {error}"}
    good = answer.status == health.status
    return {
        "ok": good,
        "status": answer.status,
        "release": _member(answer.text, health.release_member),
        "milliseconds": round((time.monotonic() - begun) * 1000),
        **({} if good else {"error": answer.text[:500]}),
    }


def is_ready(application: Application, release: str) -> bool:
    """Whether the service answers as that release that it can work with its database."""
    # An answer that names no release says nothing about this one.
    answer = ask(application)
    return bool(answer["ok"]) and answer.get("release") == release


def _member(text: str, name: str) -> Any:
    """A member of a JSON object; None if there is none."""
    if not name:
        return None
    try:
        body = json.loads(text)
    except ValueError:
        return None
    return body.get(name) if isinstance(body, dict) else None


def fault(answer: dict[str, Any]) -> str:
    """What is wrong with an answer that is not good."""
    status = answer.get("status")
    return f"it answered {status}" if status else str(answer["error"])
