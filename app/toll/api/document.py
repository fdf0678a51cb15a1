"""The OpenAPI 3.1 document: what APIFlask cannot say by itself, and its address."""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask
from flask import Blueprint, Response, current_app, request

from toll.api import schemas
from toll.security import public

PROBLEM_TYPE = "application/problem+json"
DESCRIPTIONS = {
    400: "The request does not have the form that is described here.",
    401: "There is no API key, or none that is known.",
    403: "The API key's role does not allow it.",
    404: "There is no such thing.",
    409: "The Idempotency-Key was used with another body.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The caller has as many such requests under way as one may. Repeat it later.",
    503: "The database or the service is busy, or away. Repeat it later.",
    422: "The form is right, but what is asked for cannot be done: an unknown plaza, for instance.",
}
# Marks an operation for `complete`, which takes it out again.
IDEMPOTENT = {"x-idempotent": True}
# Answers of the same form may be of one size only: nothing larger is read.
BODY_BYTES = 1024 * 1024

blueprint = Blueprint("document", __name__)


def problems(*statuses: int) -> Any:
    """Return the problem documents that an operation may answer."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses
    }


def init_app(app: APIFlask) -> None:
    """Say what the document is about, and serve it."""
    app.config.update(
        OPENAPI_VERSION="3.1.0",
        AUTO_OPERATION_ID=False,
        AUTO_404_RESPONSE=False,
        AUTO_AUTH_ERROR_RESPONSE=False,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
        AUTO_OPERATION_SUMMARY=True,
        MAX_CONTENT_LENGTH=BODY_BYTES,
    )
    app.config["INFO"] = {
        "description": "Records passages at toll plazas and charges them by tariff. Amounts are "
        "whole numbers of a currency's smallest unit, never fractions. Times are RFC 3339 in UTC, "
        "but for quotes, which are on the clock at the plaza. What goes wrong is said in problem "
        "documents (RFC 9457).",
    }
    app.spec_processor(complete)
    app.register_blueprint(blueprint)


def complete(document: Any) -> Any:
    """Add what APIFlask has no words for."""
    components = document["components"]["schemas"]
    components["Problem"] = schemas.Problem.model_json_schema(
        ref_template="#/components/schemas/{model}"
    )
    components.update(components["Problem"].pop("$defs"))
    _name_once(document)
    document["paths"] = _in_order(document["paths"])
    for path in document["paths"].values():
        for operation in path.values():
            _complete_operation(operation)
    document["servers"] = [{"url": "/"}]
    return document


def _in_order(paths: dict[str, Any]) -> dict[str, Any]:
    """Return the paths in the order in which the source has them."""
    order = [
        view._spec["operation_id"]
        for view in current_app.view_functions.values()
        if hasattr(view, "_spec")
    ]

    def place(item: tuple[str, Any]) -> int:
        return min(order.index(operation["operationId"]) for operation in item[1].values())

    return dict(sorted(paths.items(), key=place))


def _complete_operation(operation: dict[str, Any]) -> None:
    # Nothing is asked for where nothing is said, and readers of the document should see that.
    operation.setdefault("security", [])
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        schema.pop("title", None)
        parameter["description"] = schema.pop("description", "The passage's id.")
        if examples := schema.pop("examples", None):
            parameter["example"] = examples[0]
    if operation.pop("x-idempotent", False):
        _complete_idempotent(operation)
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    responses = operation["responses"]
    if "401" in responses:
        responses["401"]["headers"] = {
            "WWW-Authenticate": {
                "description": "How to authenticate.",
                "schema": {"type": "string"},
            }
        }
    for status in {"429", "503"} & responses.keys():
        responses[status]["headers"] = {
            "Retry-After": {
                "description": "Seconds after which to repeat the request.",
                "schema": {"type": "string", "pattern": "^[0-9]+$"},
            }
        }
    content = responses.get("200", {}).get("content", {})
    if "text/csv" in content:
        content["text/csv"] = {"schema": {"type": "string"}}


def _complete_idempotent(operation: dict[str, Any]) -> None:
    operation.setdefault("parameters", []).append(
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": "New for each request, such as a UUID; the same when it is repeated.",
            "schema": {"type": "string", "pattern": schemas.KEY, "minLength": 1, "maxLength": 255},
            "example": "0b1f2f4e-6a5c-4c3e-9a38-0d6f6c1d7c11",
        }
    )
    headers = operation["responses"]["201"].setdefault("headers", {})
    headers["Idempotency-Replayed"] = {
        "description": "There, and true, if an earlier request recorded it.",
        "schema": {"type": "string", "enum": ["true"]},
    }
    if operation["operationId"] == "recordPassage":
        headers["Location"] = {
            "description": "The address of the passage.",
            "schema": {"type": "string"},
        }


def _name_once(document: dict[str, Any]) -> None:
    """Give a model that is a part of several others one name: `Amount`, not `Quote.Amount`."""
    components = document["components"]["schemas"]
    names = {}
    for name in [name for name in components if "." in name]:
        short = name.rpartition(".")[2]
        components[short] = components.pop(name)
        names[f"#/components/schemas/{name}"] = f"#/components/schemas/{short}"
    _rename(document, names)


def _rename(node: Any, names: dict[str, str]) -> None:
    if isinstance(node, dict):
        if node.get("$ref") in names:
            node["$ref"] = names[node["$ref"]]
        for value in node.values():
            _rename(value, names)
    elif isinstance(node, list):
        for value in node:
            _rename(value, names)


def document() -> tuple[dict[str, Any], str]:
    """Return the document, and its JSON; made once for each process."""
    app = current_app
    made = app.extensions.get("toll.document")
    if made is None:
        content = app.spec  # type: ignore[attr-defined]
        made = app.extensions["toll.document"] = (content, app.json.dumps(content))
    result: tuple[dict[str, Any], str] = made
    return result


@blueprint.get("/api/v1/openapi.json")
@public
def openapi() -> Response:
    """Answer the document."""
    response = Response(document()[1], mimetype="application/json")
    response.add_etag()
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response
