"""The quote calculator, as a browser without scripts sees it."""

from __future__ import annotations

import hashlib
from html.parser import HTMLParser

import pytest

GIVEN = {"plaza": "harbour-bridge", "class": "car", "at": "2026-11-23T08:15"}


class Elements(HTMLParser):
    """Collects every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def test_empty_form_asks_and_does_not_complain(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "fault" not in page.text
    assert 'id="answer"' not in page.text


def test_form_sends_back_to_the_page_what_the_api_takes(client):
    elements = Elements(client.get("/").text)
    [form] = elements.all("form")
    assert form["method"] == "get"
    assert form["action"] == "/#answer"
    fields = elements.all("select") + elements.all("input")
    assert {field["name"] for field in fields} == {"plaza", "class", "at"}


def test_answer_is_on_the_same_page_and_the_form_keeps_its_values(client):
    page = client.get("/", query_string=GIVEN)
    assert page.status_code == 200
    assert '<h2 id="amount" class="big">3.20 EUR</h2>' in page.text
    assert "Monday 23 November 2026, 08:15" in page.text
    elements = Elements(page.text)
    assert [o["value"] for o in elements.all("option") if "selected" in o] == ["harbour-bridge"]
    assert [i["value"] for i in elements.all("input") if "checked" in i] == ["car"]
    assert [i["value"] for i in elements.all("input") if i["name"] == "at"] == [GIVEN["at"]]


def test_only_the_tariff_that_applied_is_marked(client):
    assert client.get("/", query_string=GIVEN).text.count('class="applied"') == 1


def test_errors_stand_at_their_fields_and_are_tied_to_them(client):
    """A screen reader says the error with the field only if aria-describedby leads to it."""
    page = client.get("/", query_string={"plaza": "x", "at": "2026-03-29T99:00"})
    assert page.status_code == 400
    elements = Elements(page.text)
    faulty = [attributes for _, attributes in elements.found if "aria-invalid" in attributes]
    ids = {attributes.get("id") for _, attributes in elements.found}
    assert len(faulty) == 3
    for attributes in faulty:
        named = (attributes["aria-describedby"] or "").split()
        assert set(named) <= ids
        assert any(name.endswith("-fault") for name in named)


def test_what_a_visitor_types_is_escaped(client):
    page = client.get("/", query_string={"at": '"><script>alert(1)</script>'})
    assert "<script>" not in page.text


@pytest.mark.parametrize("path", ["/", "/?plaza=harbour-bridge&class=car", "/?at=x", "/api", "/no"])
def test_page_works_under_a_strict_content_security_policy(client, path):
    """nginx sends default-src 'self': nothing inline, nothing from elsewhere."""
    elements = Elements(client.get(path).text)
    assert not elements.all("script")
    assert not elements.all("style")
    for _, attributes in elements.found:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "action"):
            if name in attributes:
                assert attributes[name].startswith(("/", "#"))
                assert not attributes[name].startswith("//")


def test_everything_that_a_page_loads_is_there(client):
    """And its address changes with the content, so that caches may keep it."""
    elements = Elements(client.get("/").text)
    paths = [link["href"] for link in elements.all("link")]
    paths += [image["src"] for image in elements.all("img")]
    assert paths
    for path in paths:
        with client.get(path) as answer:
            assert answer.status_code == 200
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            digest = hashlib.sha256(answer.data).hexdigest()[:8]
        assert path.startswith(f"/static/{digest}/")


def test_every_label_names_a_field(client):
    elements = Elements(client.get("/").text)
    ids = {attributes.get("id") for _, attributes in elements.found}
    targets = [label["for"] for label in elements.all("label") if "for" in label]
    assert targets
    assert set(targets) <= ids


def test_unknown_page_offers_the_way_back_and_the_request(client):
    page = client.get("/no")
    assert page.status_code == 404
    assert 'href="/"' in page.text
    assert f"<code>{page.headers['X-Request-Id']}</code>" in page.text
