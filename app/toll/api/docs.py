"""The page at /api: the OpenAPI document for people to read, made by the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from toll import problems
from toll.api.document import document
from toll.security import public

blueprint = Blueprint("docs", __name__)


@dataclass(frozen=True)
class Row:
    """A parameter, or a field of a body."""

    name: str
    kind: str
    required: bool
    description: str
    example: str | None
    place: str = ""


@dataclass(frozen=True)
class Answer:
    """What an operation may answer."""

    status: str
    description: str
    content: str | None
    model: str | None
    headers: list[str]


@dataclass(frozen=True)
class Operation:
    """One operation, as the page shows it."""

    anchor: str
    method: str
    path: str
    summary: str
    description: str
    role: str | None
    parameters: list[Row]
    body: str | None
    answers: list[Answer]
    example: str


def reference(schema: dict[str, Any]) -> str | None:
    """Return the name of the model that a schema refers to."""
    target = schema.get("$ref") or schema.get("items", {}).get("$ref")
    return target.rpartition("/")[2] if target else None


def kind(schema: dict[str, Any]) -> str:
    """Return a type in words."""
    if name := reference(schema):
        return f"list of {name}" if schema.get("type") == "array" else name
    if "enum" in schema:
        return " | ".join(str(each) for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    name = str(schema.get("type", "any"))
    if "format" in schema:
        name = str(schema["format"])
    if "minimum" in schema and "maximum" in schema:
        name += f" from {schema['minimum']} to {schema['maximum']}"
    return name


def example(schema: dict[str, Any], components: dict[str, Any]) -> Any:
    """Return an example of a model, out of its fields' examples."""
    if name := reference(schema):
        inner = example(components[name], components)
        return [inner] if schema.get("type") == "array" else inner
    if schema.get("examples"):
        return schema["examples"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], components)
    match schema.get("type"):
        case "object":
            return {
                name: example(field, components) for name, field in schema["properties"].items()
            }
        case "array":
            return [example(schema["items"], components)]
        case "integer":
            return schema.get("default", 1)
        case "null":
            return None
    if "enum" in schema:
        return schema["enum"][0]
    return "2026-05-04T07:15:00Z" if schema.get("format") == "date-time" else "…"


def fields(schema: dict[str, Any]) -> list[Row]:
    """Return a model's fields."""
    required = schema.get("required", [])
    return [
        Row(
            name,
            kind(field),
            name in required,
            field.get("description", ""),
            str(field["examples"][0]) if field.get("examples") else None,
        )
        for name, field in schema["properties"].items()
    ]


def operations(content: dict[str, Any]) -> Iterator[Operation]:
    """Yield the operations in the document's order."""
    components = content["components"]["schemas"]
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            parameters = [
                Row(
                    each["name"],
                    kind(each["schema"]),
                    each.get("required", False),
                    each["description"],
                    str(each["example"]) if "example" in each else None,
                    each["in"],
                )
                for each in operation.get("parameters", [])
            ]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            model = reference(body["schema"]) if body else None
            security = operation["security"]
            role = next(iter(security[0].values()))[0] if security else None
            yield Operation(
                anchor=operation["operationId"],
                method=method.upper(),
                path=path,
                summary=operation["summary"],
                description=operation.get("description", ""),
                role=role,
                parameters=parameters,
                body=model,
                answers=list(answers(operation)),
                example=command(method, path, parameters, role, model, components),
            )


def answers(operation: dict[str, Any]) -> Iterator[Answer]:
    """Yield what an operation may answer."""
    for status, response in operation["responses"].items():
        contents: dict[str | None, dict[str, Any]] = response.get("content") or {None: {}}
        content, media = next(iter(contents.items()))
        yield Answer(
            status,
            response["description"],
            content,
            reference(media.get("schema", {})),
            sorted(response.get("headers", {})),
        )


def command(
    method: str,
    path: str,
    parameters: list[Row],
    role: str | None,
    model: str | None,
    components: dict[str, Any],
) -> str:
    """Return a command that shows the operation."""
    query = "&".join(
        f"{each.name}={each.example}"
        for each in parameters
        if each.place == "query" and each.example and (each.required or method != "get")
    )
    for each in parameters:
        if each.place == "path":
            path = path.replace(f"{{{each.name}}}", "1")
    lines = ["curl" if method == "get" else f"curl --request {method.upper()}"]
    if role:
        lines.append('--header "Authorization: Bearer $TOLL_KEY"')
    if any(each.name == "Idempotency-Key" for each in parameters):
        lines.append('--header "Idempotency-Key: $(uuidgen)"')
    if model:
        body = json.dumps(example(components[model], components), ensure_ascii=False)
        lines.append(f"--json '{body}'")
    lines.append(f'"$TOLL_URL{path}{"?" if query else ""}{query}"')
    return " \\\n  ".join(lines)


@blueprint.get("/api")
@public
def page() -> str:
    """Show the document."""
    content, _ = document()
    shown = list(operations(content))
    models = {
        name: fields(schema) for name, schema in sorted(content["components"]["schemas"].items())
    }
    return render_template(
        "api.html", document=content, operations=shown, models=models, kinds=problems.KINDS
    )
