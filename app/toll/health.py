"""Whether the process answers, whether it can do its work, and which release it is."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, current_app

from toll.database import AWAY_RETRY_SECONDS, db
from toll.schema import schema_status
from toll.security import public

blueprint = Blueprint("health", __name__)
logger = logging.getLogger(__name__)
RETRY = {"Retry-After": str(AWAY_RETRY_SECONDS)}


def init_app(app: Flask) -> None:
    """Register what systemd, the deploy and monitoring ask."""
    app.register_blueprint(blueprint)


@blueprint.get("/healthz")
@public
def healthz() -> dict[str, str]:
    """Answer: the process lives."""
    return {"status": "ok", "release": current_app.extensions["toll.release"].id}


@blueprint.get("/readyz")
@public
def readyz() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Answer 200 if the database is reached, its schema fits, and the interpreter is complete."""
    release = current_app.extensions["toll.release"].id
    unavailable = {"status": "unavailable", "release": release}
    # An upgrade of the system may remove it under the process, which then fails wherever this
    # worker imports something for the first time.
    if not os.path.exists(os.__file__):
        logger.error("not ready: %s is not on this host any more", os.__file__)
        return {**unavailable, "failed": ["interpreter"]}, 503, {}
    try:
        status = schema_status(db.engine)
    except sa.exc.SQLAlchemyError as error:
        # Which one and why is in the log, not in the answer, which anybody may read.
        logger.error("not ready: the database cannot be used: %s", reason(error))
        return {**unavailable, "failed": ["database"]}, 503, RETRY
    schema = {"head": status.head, "database": status.database}
    if not status.compatible:
        logger.error("not ready: %s", status.reason)
        return {**unavailable, "failed": ["schema"], "schema": schema}, 503, RETRY
    return {"status": "ok", "release": release, "schema": schema}, 200, {}


def reason(error: sa.exc.SQLAlchemyError) -> str:
    """Return the driver's words, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().replace("\n", "; ")


@blueprint.get("/version")
@public
def version() -> dict[str, Any]:
    """Answer what runs here."""
    release = asdict(current_app.extensions["toll.release"])
    return {"release": release.pop("id"), **release}
