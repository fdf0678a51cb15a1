"""The JSON API."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, request

from toll.problems import InvalidParameters
from toll.quotes import quote, unknown_fields

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.get("/quote")
def get_quote() -> dict[str, Any]:
    """Answer what a passage costs."""
    tariffs = current_app.extensions["toll.tariffs"]
    errors = unknown_fields(request.args)
    try:
        result = quote(tariffs, request.args)
    except InvalidParameters as error:
        errors += error.errors
    if errors:
        raise InvalidParameters(errors)
    plaza = result.plaza
    return {
        "plaza": {"id": plaza.id, "name": plaza.name, "time_zone": plaza.zone.key},
        "class": {"id": result.vehicle_class, "name": tariffs.classes[result.vehicle_class]},
        "at": result.at.isoformat(timespec="seconds"),
        "tariff": {"name": result.tariff.name, "hours": result.tariff.hours},
        "amount": {
            "minor_units": result.amount,
            "currency": plaza.currency,
            "formatted": result.formatted,
        },
    }
