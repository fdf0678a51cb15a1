"""Errors: problem documents (RFC 9457) below /api/, pages elsewhere."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from flask import Flask, Response, g, jsonify, make_response, render_template, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from toll import reads
from toll.database import OutcomeUnknown, trouble
from toll.errors import FieldError, InvalidParameters, MalformedRequest
from toll.logs import request_id

__all__ = ["FieldError", "InvalidParameters", "MalformedRequest", "problem"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of problem that has a type of its own: its place on the page at /api."""

    anchor: str
    status: int
    title: str
    meaning: str

    @property
    def type(self) -> str:
        """The address that identifies it."""
        return f"/api#{self.anchor}"


MALFORMED = Kind(
    "malformed-request",
    400,
    "Malformed request",
    "The request does not have the form that is described here. `errors` names each field that is "
    "wrong, its value, the problem and the remedy.",
)
INVALID = Kind(
    "invalid-parameters",
    422,
    "Invalid parameters",
    "The request has the right form but asks for what cannot be done: an unknown plaza, a time "
    "without a tariff. `errors` names each field, its value, the problem and the remedy.",
)
CONFLICT = Kind(
    "idempotency-conflict",
    409,
    "Idempotency-Key used with another body",
    "The same key with the same body answers what was recorded the first time. With another body "
    "it is a mistake, and nothing is recorded. Send another key for another passage.",
)
BUSY = Kind(
    "busy",
    503,
    "Busy",
    "The database is busy or away, or more is being read than this service takes at once. Repeat "
    "the request after the seconds in `Retry-After`, with the same `Idempotency-Key` if it has "
    "one: what was recorded is not recorded again.",
)
UNKNOWN = Kind(
    "outcome-unknown",
    503,
    "Outcome unknown",
    "The database went away when it was about to confirm the request. It may have been carried "
    "out. Repeat it after the seconds in `Retry-After`, with the same `Idempotency-Key`: what was "
    "recorded is answered and not recorded again. Without a key, look first.",
)
LIMITED = Kind(
    "too-many-reads",
    429,
    "Too many reads at once",
    "You are reading as much at once as one caller may. Repeat the request after the seconds in "
    "`Retry-After`, or when your other requests are answered.",
)
KINDS = (MALFORMED, INVALID, CONFLICT, BUSY, UNKNOWN, LIMITED)


def problem(status: int, title: str, detail: str, **members: object) -> Response:
    """Return a problem document; its type is about:blank unless `members` has another."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    response = jsonify(document | members | {"request_id": request_id()})
    response.status_code = status
    response.mimetype = "application/problem+json"
    return response


def problem_of_kind(kind: Kind, detail: str, errors: list[FieldError] | None = None) -> Response:
    """Return a problem document of one of the application's own kinds."""
    return problem(
        kind.status,
        kind.title,
        detail,
        type=kind.type,
        errors=[asdict(error) for error in errors or []],
    )


def later(kind: Kind, detail: str, retry_after: int) -> Response:
    """Answer that the same request may succeed in some seconds, in the form that was asked for."""
    if wants_document():
        response = problem_of_kind(kind, detail)
    else:
        response = page(kind.status, kind.title, detail)
    response.headers["Retry-After"] = str(retry_after)
    return response


def wants_document() -> bool:
    """Return whether the request is the API's."""
    return request.path.startswith("/api/")


def page(status: int, title: str, detail: str) -> Response:
    """Return a problem as a page."""
    text = render_template("problem.html", title=title, detail=detail, request_id=request_id())
    return make_response(text, status)


def invalid_parameters(error: InvalidParameters) -> Response:
    """Answer each field that is wrong."""
    kind = MALFORMED if isinstance(error, MalformedRequest) else INVALID
    if not wants_document():
        return page(400, kind.title, " ".join(str(each) for each in error.errors))
    return problem_of_kind(kind, f"{error}.", error.errors)


def after_unknown(seconds: int) -> str:
    """Return what to do where nobody knows whether a request was carried out."""
    if request.headers.get("Idempotency-Key"):
        return (
            f"Send the same again in {seconds} seconds, with the same Idempotency-Key: it is not "
            f"carried out twice."
        )
    return f"Look in {seconds} seconds whether it was, before you send it again."


def init_app(app: Flask) -> None:
    """Answer every error in the form that the client asked in."""

    app.register_error_handler(InvalidParameters, invalid_parameters)

    @app.errorhandler(SQLAlchemyError)
    def database_error(error: SQLAlchemyError) -> Response:
        found = trouble(error)
        if found is None:
            raise error
        # The page must not ask it again who is logged in.
        g.database_trouble = True
        if isinstance(error, OutcomeUnknown):
            logger.error("answered 503, the outcome is unknown: %s", found.words)
            detail = f"This may have been carried out, or not. {after_unknown(found.retry_after)}"
            return later(UNKNOWN, detail, found.retry_after)
        if found.busy:
            logger.warning("answered 503, the database is busy: %s", found.words)
            detail = "The database is busy, or this takes too long."
        else:
            logger.error("answered 503, the database cannot be used: %s", found.words)
            detail = "The database cannot be reached at the moment."
        wait = found.retry_after
        detail += f" Send the same again in {wait} seconds"
        if request.method in ("GET", "HEAD"):
            return later(BUSY, f"{detail}, or ask for a shorter time.", wait)
        return later(BUSY, f"{detail}. What is sent twice is not recorded twice.", wait)

    @app.errorhandler(reads.Refused)
    def read_refused(error: reads.Refused) -> Response:
        return later(LIMITED if error.own else BUSY, str(error), error.retry_after)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status, detail = error.code or 500, error.description or ""
        if wants_document():
            response = problem(status, error.name, detail)
        else:
            response = page(status, error.name, detail)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response
