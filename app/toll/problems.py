"""Errors: problem documents (RFC 9457) below /api/, pages elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from apiflask import HTTPError
from flask import Flask, Response, jsonify, make_response, render_template, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from toll.errors import FieldError, InvalidParameters
from toll.logs import request_id

__all__ = ["FieldError", "InvalidParameters", "MalformedRequest", "problem"]


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
KINDS = (MALFORMED, INVALID, CONFLICT)


class MalformedRequest(InvalidParameters):
    """A request does not have the form that its operation describes."""


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


def wants_document() -> bool:
    """Return whether the request is the API's."""
    return request.path.startswith("/api/")


def page(status: int, title: str, detail: str) -> Response:
    """Return a problem as a page."""
    text = render_template("problem.html", title=title, detail=detail, request_id=request_id())
    return make_response(text, status)


def init_app(app: Flask) -> None:
    """Answer every error in the form that the client asked in."""

    @app.errorhandler(InvalidParameters)
    def invalid_parameters(error: InvalidParameters) -> Response:
        kind = MALFORMED if isinstance(error, MalformedRequest) else INVALID
        if not wants_document():
            return page(400, kind.title, " ".join(str(each) for each in error.errors))
        return problem_of_kind(kind, f"{error}.", error.errors)

    # APIFlask raises it for what Pydantic refuses; its own handler would answer in its own form.
    @app.errorhandler(HTTPError)
    def refused_by_pydantic(error: HTTPError) -> Response:
        from toll.api.errors import field_errors

        cause = error.__cause__
        if isinstance(cause, ValidationError):
            return invalid_parameters(MalformedRequest(field_errors(cause)))
        return problem(error.status_code, str(error.message), str(error.message))

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
