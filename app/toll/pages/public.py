"""The quote calculator, for everybody."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from toll.database import db
from toll.errors import FieldError, InvalidParameters
from toll.forms import sentence
from toll.models import Plaza, VehicleClass
from toll.security import public
from toll.services import tariffs, times
from toll.services.tariffs import Quote

blueprint = Blueprint("public", __name__)

FIELDS = ("plaza", "class", "at")
LABELS = {"plaza": "plaza", "class": "vehicle"}


@blueprint.get("/")
@public
def calculator() -> tuple[str, int]:
    """Show the form, and the quote below it once it is filled in."""
    plazas, classes = tariffs.list_plazas(db.session), tariffs.list_classes(db.session)
    result: Quote | None = None
    errors: dict[str, str] = {}
    if any(field in request.args for field in FIELDS):
        try:
            result = quote(plazas, classes)
        except InvalidParameters as error:
            errors = {each.field: sentence(each) for each in error.errors}
    given = {field: request.args.get(field, "") for field in FIELDS}
    if result and given["at"]:
        # The field knows only local times, whatever form the address had.
        given["at"] = result.at_local.strftime("%Y-%m-%dT%H:%M")
    elif "at" in errors:
        # It could not show anything else; the error does.
        given["at"] = ""
    page = render_template(
        "calculator.html",
        plazas=plazas,
        classes=classes,
        given=given,
        quote=result,
        amounts=amounts(result) if result else [],
        errors=errors,
    )
    return page, 400 if errors else 200


def quote(plazas: list[Plaza], classes: list[VehicleClass]) -> Quote:
    """Return the quote that the address asks for; raise InvalidParameters with every error."""
    errors: list[FieldError] = []
    known: dict[str, list[Plaza] | list[VehicleClass]] = {"plaza": plazas, "class": classes}
    for field, items in known.items():
        value = request.args.get(field, "")
        if value not in [item.code for item in items]:
            problem = "is not known" if value else f"the {LABELS[field]} is missing"
            errors.append(FieldError(field, value[:100] or None, problem, "Choose one"))
    plaza = next((each for each in plazas if each.code == request.args.get("plaza")), None)
    text = request.args.get("at", "").strip()
    at = None
    if text:
        try:
            at = times.parse(text, plaza.zone if plaza else None)
        except ValueError as error:
            problem, remedy = error.args
            errors.append(FieldError("at", text[:100], problem, remedy))
    if errors:
        raise InvalidParameters(errors)
    return tariffs.quote(db.session, request.args["plaza"], request.args["class"], at)


def amounts(result: Quote) -> list[tuple[str, str, int, bool]]:
    """Return what the tariff takes and when: name, hours, amount, and whether it applies."""
    windows = result.tariff.windows
    rows = [(each.name, each.hours, each.amount, each == result.window) for each in windows]
    hours = "At all other times" if windows else "At all times"
    return [*rows, (result.tariff.name, hours, result.tariff.amount, result.window is None)]
