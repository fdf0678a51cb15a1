"""Tariffs, for admins: what there is, a new one, the end of one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from flask import (
    Blueprint,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response
from wtforms import Field

from toll import reads
from toll.database import db
from toll.errors import FieldError, InvalidParameters
from toll.forms import EndTariffForm, TariffForm, choices, minor_units, named, sentence
from toll.models import DAYS, Plaza, Tariff
from toll.security import requires
from toll.services import fields, times
from toll.services import tariffs as service
from toll.services.tariffs import NewTariff, NewWindow

T = TypeVar("T")

blueprint = Blueprint("admin", __name__)


@blueprint.get("/tariffs")
@requires("admin")
@reads.limited(reads.LIST)
def tariffs() -> str:
    """Show what holds and what is to come, or what has ended, by plaza."""
    ended = "ended" in request.args
    now = datetime.now(UTC)
    groups: list[tuple[Plaza, list[Tariff]]] = [
        (plaza, []) for plaza in service.list_plazas(db.session)
    ]
    by_id = {plaza.id: listed for plaza, listed in groups}
    for tariff in service.list_tariffs(db.session):
        if (tariff.valid_until is not None and tariff.valid_until <= now) == ended:
            by_id[tariff.plaza_id].append(tariff)
    return render_template("tariffs.html", groups=groups, ended=ended, now=now)


@blueprint.get("/tariffs/new")
@requires("admin")
def new_tariff() -> str:
    """Show the form."""
    form = tariff_form()
    form.plaza.data = request.args.get("plaza", "")
    return render_template("tariff_new.html", form=form)


@blueprint.post("/tariffs/new")
@requires("admin")
def send_new_tariff() -> Response:
    """Make a tariff."""
    form = tariff_form()
    valid = form.validate()
    new = read_tariff(form)
    if valid and new and not form.faulty:
        try:
            made = service.create_tariff(db.session, new)
        except InvalidParameters as error:
            form.refuse(error.errors)
        else:
            flash(f"{made.name} for {made.vehicle_class.name} at {made.plaza.name} is made.")
            return redirect(url_for("admin.tariffs"), 303)
    return make_response(render_template("tariff_new.html", form=form), 422)


@blueprint.get("/tariffs/<int:tariff_id>/end")
@requires("admin")
def end_tariff(tariff_id: int) -> str:
    """Ask when the tariff ends."""
    tariff = find(tariff_id)
    return render_template("tariff_end.html", form=EndTariffForm(), tariff=tariff)


@blueprint.post("/tariffs/<int:tariff_id>/end")
@requires("admin")
def send_end_tariff(tariff_id: int) -> Response:
    """End the tariff."""
    tariff, form = find(tariff_id), EndTariffForm()
    if form.validate():
        at = datetime.now(UTC)
        if form.at.data:
            at = read(form.at, lambda text: times.parse(text, tariff.plaza.zone)) or at
        if not form.faulty:
            try:
                service.end_tariff(db.session, tariff, at)
            except InvalidParameters as error:
                form.refuse(error.errors)
            else:
                flash(f"{tariff.name} for {tariff.vehicle_class.name} has an end now.")
                return redirect(url_for("admin.tariffs"), 303)
    page = render_template("tariff_end.html", form=form, tariff=tariff)
    return make_response(page, 422)


def find(tariff_id: int) -> Tariff:
    """Return the tariff of that id, or answer 404."""
    tariff = db.session.get(Tariff, tariff_id) if 0 < tariff_id < 1 << 31 else None
    if tariff is None:
        abort(404, "There is no such tariff.")
    return tariff


def tariff_form() -> TariffForm:
    """Return the form with its choices."""
    form = TariffForm()
    form.plaza.choices = choices(named(service.list_plazas(db.session)), "Choose a plaza")
    form.vehicle_class.choices = choices(
        named(service.list_classes(db.session)), "Choose a vehicle"
    )
    return form


def read(field: Field, parse: Callable[[str], T]) -> T | None:
    """Return what a field holds, or None if it is empty; one that is wrong gets an error."""
    if not field.data:
        return None
    try:
        return parse(field.data)
    except ValueError as error:
        problem, remedy = error.args
        field.errors = [
            *field.errors,
            sentence(FieldError(field.name, field.data, problem, remedy)),
        ]
        return None


def read_tariff(form: TariffForm) -> NewTariff | None:
    """Return what the form says, or None with an error at each field that is wrong."""
    try:
        plaza = service.get_plaza(db.session, form.plaza.data)
    except InvalidParameters as error:
        if form.plaza.data:
            form.refuse(error.errors)
        # Without it there is neither a currency nor a clock.
        return None

    def amount(text: str) -> int:
        return minor_units(text, plaza.currency)

    def moment(text: str) -> datetime:
        return times.parse(text, plaza.zone)

    charged = read(form.amount, amount)
    begin = read(form.valid_from, moment)
    end = read(form.valid_until, moment)
    windows = []
    for entry in form.windows:
        each = entry.form
        if each.empty:
            continue
        for field in (each.name, each.amount, each.starts, each.ends):
            if not (field.data or "").strip():
                field.errors = ["Fill this in too, or leave the whole window empty."]
        days = [day for day in each.days.data or () if 0 <= day < len(DAYS)]
        if not days:
            each.days.errors = ["Choose at least one day."]
        starts, ends = read(each.starts, fields.clock), read(each.ends, fields.clock)
        costs = read(each.amount, amount)
        if starts is not None and ends is not None and costs is not None:
            windows.append(
                NewWindow(
                    name=each.name.data.strip(),
                    days=sum(1 << day for day in set(days)),
                    starts=starts,
                    ends=ends,
                    amount=costs,
                )
            )
    if charged is None or begin is None or form.faulty:
        return None
    return NewTariff(
        plaza=plaza.code,
        vehicle_class=form.vehicle_class.data,
        name=form.name.data.strip(),
        amount=charged,
        valid_from=begin,
        valid_until=end,
        windows=windows,
    )
