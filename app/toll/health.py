"""Whether the process answers, whether it can do its work, and which release it is."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from flask import Blueprint, current_app

from toll.tariffs import TariffError, load_tariffs

blueprint = Blueprint("health", __name__)
logger = logging.getLogger(__name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    """Answer: the process lives."""
    return {"status": "ok", "release": current_app.extensions["toll.release"].id}


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, Any], int]:
    """Answer 200 if the next start would succeed too: the tariff table is there and valid."""
    release = current_app.extensions["toll.release"].id
    try:
        load_tariffs(current_app.extensions["toll.settings"].tariffs)
    except TariffError as error:
        logger.error("not ready: %s", error)
        # Which file and why is in the log, not in the answer, which anybody may read.
        return {"status": "unavailable", "release": release, "failed": ["tariffs"]}, 503
    return {"status": "ok", "release": release}, 200


@blueprint.get("/version")
def version() -> dict[str, Any]:
    """Answer what runs here."""
    release = asdict(current_app.extensions["toll.release"])
    return {"release": release.pop("id"), **release}
