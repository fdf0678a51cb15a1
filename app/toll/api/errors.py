"""Pydantic's findings in this application's words: field, value, problem and remedy."""

from __future__ import annotations

from collections.abc import Iterable

from apiflask import HTTPError
from flask import Flask, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from toll.api import schemas
from toll.errors import VALUE_CHARACTERS, FieldError, MalformedRequest, cut, unknown_fields
from toll.problems import invalid_parameters, problem

# The remedy for a value that does not fit its field's pattern.
PATTERNS = {
    schemas.CODE: "Write a code of lower-case letters, digits and hyphens, such as harbour-bridge",
    schemas.LANE: "Write up to 10 letters, digits and hyphens, such as 3",
    schemas.PLATE: "Write 2 to 16 letters and digits, with spaces or hyphens as you like, such as "
    "AB-12-CD",
    schemas.CURSOR: "Take it as it is from `next` of the page before",
    schemas.LOCAL_OR_NOT: "Write it like 2026-05-04T08:15, local time at the plaza, or like "
    "2026-05-04T08:15Z",
    schemas.KEY: "Send one that is new for each request, such as a UUID, of up to 255 printable "
    "ASCII characters without spaces",
}


def init_app(app: Flask) -> None:
    """Answer what Pydantic refuses as everything else that is refused."""
    # APIFlask raises it; its own handler would answer in its own form.
    app.register_error_handler(HTTPError, refused)


def refused(error: HTTPError) -> Response:
    """Answer a request that APIFlask does not pass on."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return invalid_parameters(MalformedRequest(field_errors(cause)))
    return problem(error.status_code, str(error.message), str(error.message))


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return an error for each field that Pydantic found to be wrong."""
    model = getattr(schemas, error.title)
    return [_field_error(details, model) for details in error.errors(include_url=False)]


def _field_error(details: ErrorDetails, model: type[BaseModel]) -> FieldError:
    location, value = details["loc"], details["input"]
    field = _path(location)
    if details["type"] == "missing":
        return FieldError(field, None, "is missing", "Add it")
    if details["type"] == "extra_forbidden":
        # Inside a list it is a field of what is listed.
        names = _names(schemas.NewPassage if len(location) > 1 else model)
        [unknown] = unknown_fields([str(location[-1])], names)
        return FieldError(field, _shown(value), unknown.problem, unknown.remedy)
    problem, remedy = _words(details)
    return FieldError(field, _shown(value), problem, remedy)


def _words(details: ErrorDetails) -> tuple[str, str]:
    """Return the problem and the remedy."""
    context = details.get("ctx", {})
    match details["type"]:
        case "string_pattern_mismatch":
            return "does not have the right form", PATTERNS[context["pattern"]]
        case "string_type" | "string_unicode":
            return "is not a text", "Write a text in quotes, in Unicode without surrogates"
        case "literal_error":
            return "is none of the choices", f"Choose {context['expected']}"
        case "moment":
            return "is not a date and time with an offset", schemas.WRITE_MOMENT
        case "moment_exists":
            return "is not a date and time that exists", schemas.WRITE_MOMENT
        case "whole" | "greater_than_equal" | "less_than_equal":
            return "is not in range", f"Write a whole number from 1 to {schemas.PAGE_MOST}"
        case "too_short" | "too_long":
            number = context["actual_length"]
            return f"has {number} entries", f"Send 1 to {schemas.BATCH_MOST} at once"
        case "list_type":
            return "is not a list", "Write it in square brackets"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "is not an object", "Write names and values in braces"
    return f"cannot be used: {details['msg']}", "See its description at /api"


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _shown(value: object) -> str | None:
    return None if isinstance(value, dict | list) else cut(value)


def _path(location: Iterable[int | str]) -> str:
    """Return where a value stands, such as `passages[3].plate`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path[:VALUE_CHARACTERS] or "body"
