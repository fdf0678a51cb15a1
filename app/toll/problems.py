"""Errors: problem documents (RFC 9457) below /api/, pages elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from flask import Flask, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from toll.logs import request_id

INVALID_PARAMETERS = "/api#invalid-parameters"


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one parameter, and what to do."""

    field: str
    value: str | None
    problem: str
    remedy: str


class InvalidParameters(Exception):
    """A request's parameters cannot be used."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field} {error.problem}" for error in errors))
        self.errors = errors


def problem(status: int, title: str, detail: str, **members: object) -> Response:
    """Return a problem document; its type is about:blank unless `members` has another."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    response = jsonify(document | members | {"request_id": request_id()})
    response.status_code = status
    response.mimetype = "application/problem+json"
    return response


def init_app(app: Flask) -> None:
    """Answer every error in the form that the client asked in."""

    @app.errorhandler(InvalidParameters)
    def invalid_parameters(error: InvalidParameters) -> Response:
        return problem(
            400,
            "Invalid parameters",
            f"{error}.",
            type=INVALID_PARAMETERS,
            errors=[asdict(each) for each in error.errors],
        )

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status, detail = error.code or 500, error.description or ""
        if request.path.startswith("/api/"):
            response = problem(status, error.name, detail)
        else:
            page = render_template(
                "problem.html", title=error.name, detail=detail, request_id=request_id()
            )
            response = make_response(page, status)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response
