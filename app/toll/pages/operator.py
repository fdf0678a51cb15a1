"""What is going on, and passages: to see, to filter, to export, to record."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_login import current_user
from werkzeug.wrappers import Response as BaseResponse

from toll import exports, metrics, reads
from toll.database import db
from toll.errors import FieldError, InvalidParameters
from toll.forms import PAYMENT_METHODS, FilterForm, PassageForm, choices, named
from toll.models import Plaza
from toll.pages import charts
from toll.security import requires
from toll.services import fields, revenue, tariffs, times
from toll.services import passages as service
from toll.services.passages import IdempotencyConflict, NewPassage, PassageFilter

blueprint = Blueprint("operator", __name__)

LATEST = 10
PER_PAGE = 50
# What PassageForm makes.
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)


@blueprint.get("/dashboard")
@requires("viewer")
@reads.limited(reads.LIST)
def dashboard() -> str:
    """Show today, and the latest passages."""
    return render_template("dashboard.html", **today())


@blueprint.get("/dashboard/parts")
@requires("viewer")
@reads.limited(reads.LIST)
def dashboard_parts() -> str:
    """Answer the parts of the dashboard that change, for its script."""
    return render_template("dashboard_live.html", **today())


def today() -> dict[str, Any]:
    """Return what the dashboard shows; 404 for a plaza that is not there."""
    plazas = tariffs.list_plazas(db.session)
    code = request.args.get("plaza")
    plaza = next((each for each in plazas if each.code == code), None)
    if code and plaza is None:
        abort(404, "There is no such plaza.")
    moment = datetime.now(UTC)
    found = revenue.today(db.session, moment, plaza.code if plaza else None)
    which = PassageFilter(plaza=plaza.code if plaza else None)
    return {
        "plazas": plazas,
        "plaza": plaza,
        "today": found,
        # Each plaza has an hour of its own.
        "hours": charts.hours(
            {each.hour: each.count for each in found.hours},
            moment.astimezone(plaza.zone).hour if plaza else None,
        ),
        "classes": charts.shares([(each.vehicle_class.name, each.count) for each in found.classes]),
        "items": service.find(db.session, which, limit=LATEST).items,
    }


@blueprint.get("/passages")
@requires("viewer")
@reads.limited(reads.LIST)
def passages() -> tuple[str, int]:
    """Show the passages that match the filters, newest first."""
    form, which = filters()
    page = total = None
    try:
        page = service.find(db.session, which, request.args.get("cursor"), PER_PAGE)
        total = service.total(db.session, which)
    except InvalidParameters as error:
        form.refuse(error.errors)
    body = render_template(
        "passages.html",
        form=form,
        given=given(),
        more=any(form[name].data for name in ("vehicle_class", "lane", "payment_method")),
        page=page,
        total=total,
    )
    return body, 400 if form.faulty else 200


@blueprint.get("/passages/export.csv")
@requires("viewer")
@reads.limited(reads.REPORT)
def export() -> Response | BaseResponse:
    """Answer the passages that match the filters as CSV."""
    form, which = filters()
    if not form.faulty:
        try:
            return exports.csv_response(service.iterate(db.session, which))
        except service.TooManyPassages:
            # The list has no fault to show: it has pages.
            raise
        except InvalidParameters as error:
            form.refuse(error.errors)
    # The page shows what is wrong with the filters.
    return redirect(url_for("operator.passages", **cast(dict[str, Any], given())), 303)


def given() -> dict[str, str]:
    """Return the filters in the address that say something."""
    names = [field.name for field in FilterForm()]
    return {name: request.args[name] for name in names if request.args.get(name)}


def filters() -> tuple[FilterForm, PassageFilter]:
    """Return the form with what the address says, and the filter that it means."""
    form = FilterForm(request.args)
    plazas = tariffs.list_plazas(db.session)
    form.plaza.choices = choices(named(plazas), "All plazas")
    form.vehicle_class.choices = choices(named(tariffs.list_classes(db.session)), "All vehicles")
    form.payment_method.choices = choices(PAYMENT_METHODS.items(), "All methods")
    form.validate()
    plaza = next((each for each in plazas if each.code == form.plaza.data), None)
    since = day(form, "since", plaza)
    until = day(form, "until", plaza)
    if since and until and until < since:
        form.until.errors = [*form.until.errors, "This day is before the first. Take a later one."]
        until = None
    return form, PassageFilter(
        plaza=form.plaza.data or None,
        vehicle_class=form.vehicle_class.data or None,
        plate=form.plate.data or None,
        payment_method=form.payment_method.data or None,
        lane=form.lane.data or None,
        since=begins(since, plaza),
        # Both days belong to it.
        until=begins(until + timedelta(days=1), plaza) if until else None,
    )


def day(form: FilterForm, name: str, plaza: Plaza | None) -> date | None:
    """Return the day in a field, or None; one that is wrong gets an error."""
    text = form[name].data
    if not text:
        return None
    try:
        found = fields.day(text)
        # The calendar's ends have no day before or after in another time zone.
        begins(found - timedelta(days=2), plaza)
        begins(found + timedelta(days=2), plaza)
    except (ValueError, OverflowError):
        error = FieldError(name, text[:100], "is not a day", "Write it like 2026-05-04")
        form.refuse([error])
        return None
    return found


def begins(day: date | None, plaza: Plaza | None) -> datetime | None:
    """Return when a day begins: on the plaza's clock, without one on that of UTC."""
    if day is None:
        return None
    return revenue.day_begins(day, plaza) if plaza else datetime.combine(day, time(0), UTC)


@blueprint.get("/passages/<int:passage_id>")
@requires("viewer")
def passage(passage_id: int) -> str:
    """Show one passage, and what it was charged."""
    found = service.get(db.session, passage_id)
    if found is None:
        abort(404, "There is no such passage.")
    return render_template("passage.html", passage=found)


@blueprint.get("/passages/new")
@requires("operator")
def record() -> str:
    """Show the form; whoever records one after the other keeps plaza and lane."""
    form = passage_form()
    form.plaza.data = request.args.get("plaza", "")
    form.lane.data = request.args.get("lane", "")[:20]
    return render_template("record.html", form=form)


@blueprint.post("/passages/new")
@requires("operator")
def send_record() -> BaseResponse:
    """Record and charge a passage, once however often the form is sent."""
    form = passage_form()
    if not TOKEN.fullmatch(form.token.data or ""):
        form.form_errors.append("A part of this form was missing. Send it again.")
        form.renew()
    elif form.validate():
        try:
            recorded = service.record(
                db.session,
                new_passage(form),
                f"user:{current_user.name}",
                (f"user:{current_user.id}", form.token.data, form_hash(form)),
            )
        except InvalidParameters as error:
            form.refuse(error.errors)
        except IdempotencyConflict:
            form.form_errors.append(
                "This form was sent before with other values, and those were recorded. "
                "If this is another passage, send it again."
            )
            form.renew()
        else:
            made = recorded.passage
            if recorded.replayed:
                flash("This form was sent twice. The passage was charged once.")
            else:
                flash("The passage is recorded.")
                metrics.passage_recorded(made)
            return redirect(url_for("operator.passage", passage_id=made.id), 303)
    return make_response(render_template("record.html", form=form), 422)


def passage_form() -> PassageForm:
    """Return the form with its choices."""
    form = PassageForm()
    form.plaza.choices = choices(named(tariffs.list_plazas(db.session)), "Choose a plaza")
    form.vehicle_class.choices = choices(named(tariffs.list_classes(db.session)))
    return form


def new_passage(form: PassageForm) -> NewPassage:
    """Return what the form says; raise InvalidParameters."""
    at = None
    if form.at.data:
        plaza = tariffs.get_plaza(db.session, form.plaza.data)
        try:
            at = times.parse(form.at.data, plaza.zone)
        except ValueError as error:
            problem, remedy = error.args
            raise InvalidParameters([FieldError("at", form.at.data, problem, remedy)]) from None
    return NewPassage(
        plaza=form.plaza.data,
        lane=form.lane.data,
        vehicle_class=form.vehicle_class.data,
        plate=form.plate.data,
        payment_method=form.payment_method.data,
        passed_at=at,
    )


def form_hash(form: PassageForm) -> str:
    """Return the hash of what was filled in: an empty time stays the same when sent again."""
    values = [field.data for field in form if field.name not in ("csrf_token", "token")]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
