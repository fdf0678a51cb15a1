"""The pages: the quote calculator, and what the API takes and answers."""

from __future__ import annotations

from flask import Blueprint, current_app, render_template, request, url_for

from toll.problems import FieldError, InvalidParameters
from toll.quotes import FIELDS, quote
from toll.tariffs import Quote

blueprint = Blueprint("pages", __name__)


@blueprint.app_template_global()
def static_url(name: str) -> str:
    """Return a static file's address, which differs for each release: caches may keep it."""
    release = current_app.extensions["toll.release"].id
    return url_for("static", filename=name, release=release)


@blueprint.get("/")
def calculator() -> tuple[str, int]:
    """Show the form, and the quote below it once it is filled in."""
    tariffs = current_app.extensions["toll.tariffs"]
    result: Quote | None = None
    errors: dict[str, FieldError] = {}
    if any(field in request.args for field in FIELDS):
        try:
            result = quote(tariffs, request.args)
        except InvalidParameters as error:
            errors = {each.field: each for each in error.errors}
    given = {field: request.args.get(field, "") for field in FIELDS}
    if result and given["at"]:
        # The field knows only local times, whatever form the address had.
        given["at"] = result.at.strftime("%Y-%m-%dT%H:%M")
    page = render_template(
        "calculator.html",
        tariffs=tariffs,
        given=given,
        quote=result,
        errors=errors,
    )
    return page, 400 if errors else 200


@blueprint.get("/api")
def api() -> str:
    """Show what the API takes and answers."""
    return render_template("api.html", tariffs=current_app.extensions["toll.tariffs"])
