"""The OpenAPI document, and the page that shows it."""

from __future__ import annotations

import re

import pytest

from toll import problems

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def document(client):
    """The document."""
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json


def operations(document):
    """Yield each operation with its method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_operation_of_the_application_is_in_it(app, document):
    routes = {
        (method.lower(), re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("api.")
    }
    assert {(method, path) for method, path, _ in operations(document)} == routes
    assert document["openapi"].startswith("3.1.")


def test_it_says_who_may(app, document):
    for method, path, operation in operations(document):
        rule = next(
            rule
            for rule in app.url_map.iter_rules()
            if re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule) == path
            and method.upper() in rule.methods
        )
        access = app.view_functions[rule.endpoint].access
        if access == "public":
            assert operation["security"] == [], path
        else:
            role = "recorder" if method == "post" else "reader"
            assert operation["security"] == [{"BearerAuth": [role]}], path
            assert "401" in operation["responses"], path


def test_recording_needs_an_idempotency_key(document):
    for method, path, operation in operations(document):
        headers = [each for each in operation.get("parameters", []) if each["in"] == "header"]
        if method == "post":
            [header] = headers
            assert (header["name"], header["required"]) == ("Idempotency-Key", True), path
            assert "Idempotency-Replayed" in operation["responses"]["201"]["headers"]
            assert operation["requestBody"]["required"]
        else:
            assert not headers


def test_every_reference_leads_somewhere_and_every_model_is_used(document):
    text = str(document)
    used = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert used == set(document["components"]["schemas"])


def test_no_model_is_empty(document):
    """APIFlask shows an empty object in place of a schema that it cannot make."""
    for name, schema in document["components"]["schemas"].items():
        assert schema["type"] == "object", name
        assert schema["properties"], name
        assert schema["description"], name


def test_document_is_the_same_while_the_process_lives(client):
    answer = client.get("/api/v1/openapi.json")
    again = client.get("/api/v1/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_page_shows_every_operation_model_and_problem(client, document):
    page = client.get("/api")
    assert page.status_code == 200
    ids = set(re.findall(r'id="([^"]+)"', page.text))
    for _, path, operation in operations(document):
        assert operation["operationId"] in ids
        assert path in page.text
    for name in document["components"]["schemas"]:
        assert f"model-{name}" in ids
    for kind in problems.KINDS:
        assert kind.anchor in ids
        assert kind.type == f"/api#{kind.anchor}"
    # Every link within the page leads somewhere.
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= ids


def test_page_needs_nothing_from_elsewhere_and_nothing_inline(client):
    page = client.get("/api")
    assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert "<style" not in page.text
    assert not re.search(r"\sstyle=|\son\w+=", page.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith(("/", "#")), address
        assert not address.startswith("//")
    for sheet in re.findall(r'rel="stylesheet" href="([^"]+)"', page.text):
        with client.get(sheet) as answer:
            assert answer.status_code == 200
