"""Every page, as everybody who may see it sees it: quiet console, no overflow, accessible."""

from __future__ import annotations

import re

import pytest
from browsing import DESKTOP, PHONE, accessibility, log_in, overflow
from flask import Flask
from playwright.sync_api import expect

PUBLIC = {
    "quote": "/",
    "answer": "/?plaza=harbour-bridge&class=car&at=2026-11-23T08:15",
    "faulty quote": "/?plaza=x",
    "api": "/api",
    "log-in": "/login",
    "log-in for a page": "/login?next=/passages",
    "problem": "/no-such-page",
}
PRIVATE = {
    "dashboard": "/dashboard",
    "dashboard of a plaza": "/dashboard?plaza=bay-crossing",
    "passages": "/passages",
    "filtered": "/passages?plaza=harbour-bridge&class=car&payment=card",
    "no passages": "/passages?plate=NOSUCH1",
    "faulty filters": "/passages?plate=!&since=2026-02-02&until=2026-02-01&lane=!",
    "passage": "/passages/1",
    "record": "/passages/new",
    "tariffs": "/tariffs",
    "ended tariffs": "/tariffs?ended=1",
    "new tariff": "/tariffs/new",
    "end of a tariff": "/tariffs/1/end",
}
EXPECTED = {"faulty quote": 400, "problem": 404, "faulty filters": 400}
# Only the application's own documents and files have no page to look at.
NOT_PAGES = re.compile(
    r"/(api/|api$|static/|healthz|readyz|version|metrics|dashboard/parts|passages/export|logout|login/device)"
)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_no_page_is_left_out(app: Flask):
    """A page added later is looked at too."""
    patterns = [re.sub(r"<[^>]*>", r"\\w+", rule.rule) for rule in app.url_map.iter_rules()]
    seen = [path.split("?")[0] for path in (PUBLIC | PRIVATE).values()]
    for pattern in patterns:
        if not NOT_PAGES.match(pattern):
            assert any(re.fullmatch(pattern, path) for path in seen), pattern


# Both widths and both sets of colours.
@pytest.mark.parametrize(
    ("viewport", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")], ids=["phone", "desktop"]
)
def test_every_page_fits_and_is_accessible(window, server, watched, viewport, scheme):
    """One window for all pages, since each log-in costs what a password's check costs."""
    faults: list[str] = []
    page = window(viewport=viewport, color_scheme=scheme).new_page()

    def look(name: str, path: str) -> None:
        watched.expected.clear()
        watched.expected.add(EXPECTED.get(name, 0))
        answer = page.goto(server.url + path)
        assert answer
        assert answer.status == EXPECTED.get(name, 200), name
        faults.extend(f"{name}: too wide: {each}" for each in overflow(page))
        faults.extend(f"{name}: {each}" for each in accessibility(page))
        expect(page.get_by_role("heading", level=1)).to_have_count(1)

    for name, path in PUBLIC.items():
        look(name, path)
    log_in(page, server, "ada")
    # Of what a stranger may see, one page with the menu of somebody who is logged in.
    for name, path in {"quote": "/", **PRIVATE}.items():
        look(name, path)
    assert not faults, "\n".join(faults)


def test_faults_would_be_found(page, server):
    """The tests above see nothing only because there is nothing."""
    page.goto(f"{server.url}/login")
    assert not accessibility(page)
    assert not overflow(page)
    page.evaluate(
        """() => {
          document.querySelector('label').remove();
          document.querySelector('h1').setAttribute('class', 'mark hint');
          const wide = document.createElement('pre');
          wide.textContent = 'x'.repeat(500);
          wide.setAttribute('class', 'number when');
          document.querySelector('main').append(wide);
        }"""
    )
    assert any(fault.startswith("label:") for fault in accessibility(page))
    assert overflow(page)


def test_page_violating_the_policy_would_be_found(page, server, watched):
    page.goto(f"{server.url}/login")
    page.evaluate(
        """() => {
          const image = document.createElement('img');
          image.src = 'https://elsewhere.example/x.png';
          image.setAttribute('style', 'color: red');
          document.body.append(image);
        }"""
    )
    expect(page.get_by_role("main")).to_be_visible()
    page.wait_for_function("() => document.images.length === 2")
    assert [fault for fault in watched.faults if "Content Security Policy" in fault]
    watched.faults.clear()


def test_empty_database_says_what_to_do(empty_server, window):
    """The first page that somebody sees after an installation."""
    page = window().new_page()
    page.goto(empty_server.url)
    expect(page.get_by_role("main")).to_contain_text("There are no plazas yet.")
    log_in(page, empty_server, "ada")
    expect(page.get_by_role("main")).to_contain_text("No passages yet today.")
    for path, words in {
        "/passages": "No passages have been recorded yet.",
        "/tariffs": "There is no plaza yet.",
        "/passages/new": "flask toll",
    }.items():
        page.goto(empty_server.url + path)
        expect(page.get_by_role("main")).to_contain_text(words)
        assert not accessibility(page)


def test_long_values_stay_inside(window, server, watched):
    """Names and plates of the longest kind, on the narrowest window."""
    watched.expected.add(422)
    page = window(viewport={"width": 320, "height": 640}).new_page()
    log_in(page, server, "anna")
    page.goto(f"{server.url}/passages/new")
    page.get_by_label("Plate").fill("W" * 16)
    page.get_by_label("Lane").fill("N-12345678")
    page.get_by_label("Plaza", exact=True).select_option(label="Glacier Tunnel")
    page.get_by_role("radio", name="Truck with trailer").check()
    page.get_by_role("radio", name="Invoice").check()
    page.get_by_role("button", name="Record and charge").click()
    page.wait_for_url(re.compile(r"/passages/\d+$"))
    assert not overflow(page)
    for path in ("/dashboard", f"/passages?plate={'W' * 16}", "/passages?plate=" + "x" * 500):
        watched.expected.add(400)
        page.goto(server.url + path)
        assert not overflow(page), path


def test_whole_log_in_works_with_the_keyboard(page, server):
    """Tab and Enter only; what has the focus is seen to have it."""
    page.goto(f"{server.url}/dashboard")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("victor")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Password")).to_be_focused()
    assert (
        page.get_by_label("Password").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    )
    page.keyboard.type("correct horse of victor")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/dashboard")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
