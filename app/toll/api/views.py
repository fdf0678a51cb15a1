"""The operations of /api/v1."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from apiflask import APIBlueprint
from flask import Response, current_app, request, url_for
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from toll import exports, metrics, reads
from toll.api import schemas
from toll.api.auth import READER, RECORDER, auth, who
from toll.api.document import IDEMPOTENT, problems
from toll.database import db
from toll.errors import FieldError, InvalidParameters, cut
from toll.models import Passage, Tariff
from toll.problems import CONFLICT, MalformedRequest, problem_of_kind
from toll.security import public, requires_key
from toll.services import passages, revenue, tariffs, times
from toll.services.money import format_money

blueprint = APIBlueprint("api", __name__, url_prefix="/api/v1", tag="Toll")

IDEMPOTENCY_KEY = re.compile(schemas.KEY)

# What is the same for everybody. The web server in front may answer others with it for seconds, a
# few more while it asks again, and for a minute while nobody here answers; browsers ask each time.
# A quote says for when it holds.
FOR_EVERYBODY = "public, max-age=0, s-maxage=3, stale-while-revalidate=3, stale-if-error=60"

View = TypeVar("View", bound=Callable[..., Any])


def answer(document: Mapping[str, Any], status: int = 200) -> Response:
    """Return a JSON answer. The tests hold it against its schema, so that requests need not."""
    return current_app.response_class(
        current_app.json.dumps(document), status=status, mimetype="application/json"
    )


def answer_everybody(document: Mapping[str, Any]) -> Response:
    """Return a JSON answer that does not depend on who asks, and may be shared for a moment."""
    response = answer(document)
    response.headers["Cache-Control"] = FOR_EVERYBODY
    return response


def checked(view: View) -> View:
    """Refuse what no model sees: a name given twice, parameters where none are, no JSON."""
    takes_query = any(place == "query" for _, place in getattr(view, "_spec", {}).get("args", ()))
    takes_body = "body" in getattr(view, "_spec", {})

    @functools.wraps(view)
    def checking(*args: Any, **kwargs: Any) -> Any:
        if request.query_string:
            errors = [
                FieldError(name[:100], cut(values[1]), "is given twice", "Give it once")
                for name, values in request.args.lists()
                if len(values) > 1
            ]
            if not takes_query:
                errors += [
                    FieldError(name[:100], cut(value), "is not a parameter", "Leave it out")
                    for name, value in request.args.items()
                ]
            if errors:
                raise MalformedRequest(errors)
        if takes_body:
            _check_body()
        return view(*args, **kwargs)

    return checking  # type: ignore[return-value]


def _check_body() -> None:
    if not request.is_json:
        raise UnsupportedMediaType(
            f"The Content-Type is {request.content_type or 'missing'}. Send JSON as "
            f"application/json."
        )
    try:
        request.get_json()
    except (BadRequest, RecursionError) as error:
        raise MalformedRequest(
            [FieldError("body", None, "is not JSON", "Send one JSON object in UTF-8")]
        ) from error


def moment(at: datetime) -> str:
    """Return a moment as the API writes it."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def money(amount: int, currency: str) -> dict[str, Any]:
    """Return an amount as the API writes it."""
    return {
        "minor_units": amount,
        "currency": currency,
        "formatted": format_money(amount, currency),
    }


def shown_passage(passage: Passage) -> dict[str, Any]:
    """Return a passage as the API writes it."""
    return {
        "id": passage.id,
        "plaza": passage.plaza.code,
        "lane": passage.lane,
        "class": passage.vehicle_class.code,
        "plate": passage.plate,
        "passed_at": moment(passage.passed_at),
        "amount": money(passage.amount, passage.currency),
        "tariff": passage.tariff_name,
        "payment_method": passage.payment_method,
        "recorded_by": passage.recorded_by,
        "recorded_at": moment(passage.recorded_at),
    }


def shown_tariff(tariff: Tariff) -> dict[str, Any]:
    """Return a tariff as the API writes it."""
    return {
        "id": tariff.id,
        "plaza": tariff.plaza.code,
        "class": tariff.vehicle_class.code,
        "name": tariff.name,
        "amount": money(tariff.amount, tariff.currency),
        "valid_from": moment(tariff.valid_from),
        "valid_until": moment(tariff.valid_until) if tariff.valid_until else None,
        "windows": [
            {
                "name": window.name,
                "hours": window.hours,
                "amount": money(window.amount, tariff.currency),
            }
            for window in tariff.windows
        ],
    }


@blueprint.get("/plazas")
@public
@checked
@blueprint.output(schemas.Plazas)
@blueprint.doc(responses=problems(400, 503), operation_id="listPlazas")
def list_plazas() -> Response:
    """All plazas."""
    return answer_everybody(
        {
            "plazas": [
                {
                    "code": plaza.code,
                    "name": plaza.name,
                    "road": plaza.road,
                    "time_zone": plaza.time_zone,
                    "currency": plaza.currency,
                }
                for plaza in tariffs.list_plazas(db.session)
            ]
        }
    )


@blueprint.get("/classes")
@public
@checked
@blueprint.output(schemas.VehicleClasses)
@blueprint.doc(responses=problems(400, 503), operation_id="listClasses")
def list_classes() -> Response:
    """All vehicle classes."""
    return answer_everybody(
        {
            "classes": [
                {"code": each.code, "name": each.name} for each in tariffs.list_classes(db.session)
            ]
        }
    )


@blueprint.get("/tariffs")
@public
@checked
@blueprint.input(schemas.TariffQuery, location="query")
@blueprint.output(schemas.Tariffs)
@blueprint.doc(responses=problems(400, 422, 429, 503), operation_id="listTariffs")
@reads.limited(reads.LIST)
def list_tariffs(query_data: schemas.TariffQuery) -> Response:
    """Tariffs, past and future ones too unless a moment is given."""
    found = tariffs.list_tariffs(
        db.session, query_data.plaza, query_data.vehicle_class, query_data.at
    )
    return answer_everybody({"tariffs": [shown_tariff(tariff) for tariff in found]})


@blueprint.get("/quote")
@public
@checked
@blueprint.input(schemas.QuoteQuery, location="query")
@blueprint.output(schemas.Quote)
@blueprint.doc(responses=problems(400, 422, 503), operation_id="quote")
def quote(query_data: schemas.QuoteQuery) -> Response:
    """What a passage costs, at a moment or now."""
    at = None
    if query_data.at is not None:
        plaza = tariffs.get_plaza(db.session, query_data.plaza)
        try:
            at = times.parse(query_data.at, plaza.zone)
        except ValueError as error:
            problem, remedy = error.args
            raise InvalidParameters([FieldError("at", query_data.at, problem, remedy)]) from error
    found = tariffs.price(db.session, query_data.plaza, query_data.vehicle_class, at)
    return answer_everybody(
        {
            "plaza": found.plaza,
            "class": found.vehicle_class,
            "at": found.at_local.isoformat(timespec="seconds"),
            "tariff": {"id": found.tariff_id, "name": found.tariff, "window": found.window},
            "amount": money(found.amount, found.currency),
        }
    )


def which(query: schemas.PassageFilters) -> passages.PassageFilter:
    """Return the filter that the parameters are."""
    return passages.PassageFilter(
        plaza=query.plaza,
        vehicle_class=query.vehicle_class,
        plate=query.plate,
        payment_method=query.payment_method,
        since=query.since,
        until=query.until,
        lane=query.lane,
    )


@blueprint.get("/passages")
@requires_key
@blueprint.auth_required(auth, roles=[READER])
@checked
@blueprint.input(schemas.PassageQuery, location="query")
@blueprint.output(schemas.PassagesPage)
@blueprint.doc(responses=problems(400, 401, 422, 429, 503), operation_id="listPassages")
@reads.limited(reads.LIST)
def list_passages(query_data: schemas.PassageQuery) -> Response:
    """Passages, the latest first, by page."""
    page = passages.find(db.session, which(query_data), query_data.cursor, query_data.limit)
    return answer(
        {
            "passages": [shown_passage(passage) for passage in page.items],
            "next": page.next_cursor,
        }
    )


@blueprint.get("/passages.csv")
@requires_key
@blueprint.auth_required(auth, roles=[READER])
@checked
@blueprint.input(schemas.PassageFilters, location="query")
@blueprint.output({}, content_type="text/csv")
@blueprint.doc(responses=problems(400, 401, 422, 429, 503), operation_id="exportPassages")
@reads.limited(reads.REPORT)
def export_passages(query_data: schemas.PassageFilters) -> Response:
    """Passages as CSV, the latest first: all that match, up to 200,000, in one answer."""
    return exports.csv_response(passages.iterate(db.session, which(query_data)))


@blueprint.get("/passages/<int:passage_id>")
@requires_key
@blueprint.auth_required(auth, roles=[READER])
@checked
@blueprint.output(schemas.Passage)
@blueprint.doc(responses=problems(400, 401, 404, 503), operation_id="getPassage")
def get_passage(passage_id: int) -> Response:
    """One passage."""
    passage = passages.get(db.session, passage_id)
    if passage is None:
        raise NotFound(f"There is no passage {str(passage_id)[:20]}.")
    return answer(shown_passage(passage))


def idempotency(model: schemas.In) -> passages.Idempotency:
    """Return what makes this request known when it is repeated."""
    key = request.headers.get("Idempotency-Key", "")
    if not IDEMPOTENCY_KEY.fullmatch(key):
        problem = "does not have the right form" if key else "is missing"
        raise MalformedRequest(
            [
                FieldError(
                    "Idempotency-Key",
                    cut(key),
                    problem,
                    "Send a new one with each passage, such as a UUID: up to 255 printable ASCII "
                    "characters without spaces. Repeat it when you repeat the request",
                )
            ]
        )
    # The checked request, not its bytes: spaces and the order of names do not matter.
    body = f"{type(model).__name__} {model.model_dump_json()}"
    return passages.Idempotency(f"key:{who().id}", key, hashlib.sha256(body.encode()).hexdigest())


def new_passage(model: schemas.NewPassage) -> passages.NewPassage:
    """Return the passage to be recorded."""
    return passages.NewPassage(
        plaza=model.plaza,
        lane=model.lane,
        vehicle_class=model.vehicle_class,
        plate=model.plate,
        payment_method=model.payment_method,
        passed_at=model.passed_at,
    )


def created(response: Response, replayed: bool) -> Response:
    """Say whether this is the answer to a repeated request; its status is the same."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


@blueprint.post("/passages")
@requires_key
@blueprint.auth_required(auth, roles=[RECORDER])
@checked
@blueprint.input(schemas.NewPassage)
@blueprint.output(schemas.Passage, status_code=201)
@blueprint.doc(
    responses=problems(400, 401, 403, 409, 413, 415, 422, 503),
    operation_id="recordPassage",
    extensions=IDEMPOTENT,
)
def record_passage(json_data: schemas.NewPassage) -> Response:
    """Record a passage and charge it.

    Repeated with the same `Idempotency-Key` it answers what was recorded the first time, with
    `Idempotency-Replayed: true`: whoever got no answer can ask again, and nobody pays twice.
    """
    recorded = passages.record(
        db.session, new_passage(json_data), f"key:{who().name}", idempotency(json_data)
    )
    if not recorded.replayed:
        metrics.passage_recorded(recorded.passage)
    response = answer(shown_passage(recorded.passage), 201)
    response.headers["Location"] = url_for("api.get_passage", passage_id=recorded.passage.id)
    return created(response, recorded.replayed)


@blueprint.post("/passages/batch")
@requires_key
@blueprint.auth_required(auth, roles=[RECORDER])
@checked
@blueprint.input(schemas.NewPassages)
@blueprint.output(schemas.RecordedPassages, status_code=201)
@blueprint.doc(
    responses=problems(400, 401, 403, 409, 413, 415, 422, 503),
    operation_id="recordPassages",
    extensions=IDEMPOTENT,
)
def record_passages(json_data: schemas.NewPassages) -> Response:
    """Record several passages: all of them, or none if one is wrong.

    One `Idempotency-Key` is for the whole batch.
    """
    recorded = passages.record_batch(
        db.session,
        [new_passage(each) for each in json_data.passages],
        f"key:{who().name}",
        idempotency(json_data),
    )
    if not recorded.replayed:
        for passage in recorded.passages:
            metrics.passage_recorded(passage)
    response = answer({"passages": [shown_passage(passage) for passage in recorded.passages]}, 201)
    return created(response, recorded.replayed)


@blueprint.get("/revenue")
@requires_key
@blueprint.auth_required(auth, roles=[READER])
@checked
@blueprint.input(schemas.RevenueQuery, location="query")
@blueprint.output(schemas.Revenue)
@blueprint.doc(responses=problems(400, 401, 422, 429, 503), operation_id="revenue")
@reads.limited(reads.REPORT)
def get_revenue(query_data: schemas.RevenueQuery) -> Response:
    """Revenue by hour, day, plaza or class."""
    rows = revenue.by(db.session, query_data.group, which(query_data))
    return answer(
        {
            "group": query_data.group,
            "rows": [
                {
                    "key": row.key,
                    "passages": row.count,
                    "amount": money(row.amount, row.currency),
                }
                for row in rows
            ],
        }
    )


@blueprint.errorhandler(passages.IdempotencyConflict)
def conflict(error: passages.IdempotencyConflict) -> Response:
    """Refuse a key that was used for something else."""
    return problem_of_kind(
        CONFLICT,
        "This Idempotency-Key was used with another body, and nothing was recorded now.",
        [
            FieldError(
                "Idempotency-Key",
                cut(error.key),
                "was used with another body",
                "Send another key for another passage, or the first body again",
            )
        ],
    )
