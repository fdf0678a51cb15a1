"""What an operator does, from log-in to export, and what is refused; with and without scripts."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from browsing import PHONE, log_in, password, record, send_log_in
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.usefixtures("watched")


@pytest.fixture(params=[True, False], ids=["scripts", "no scripts"])
def either_page(request: pytest.FixtureRequest, window) -> Page:
    """A page in a browser with scripts, and in one without."""
    return window(java_script_enabled=request.param).new_page()


def count_today(page: Page) -> int:
    """Return the dashboard's count."""
    text = page.locator(".stats > div", has_text="Passages").locator("dd").inner_text()
    return int(text.replace(",", ""))


def test_record_a_passage_and_see_it_on_the_dashboard(either_page, server):
    """The whole way of a working day, which must not need a script."""
    page = either_page
    log_in(page, server, "anna")
    before = count_today(page)

    page.get_by_role("link", name="Record", exact=True).click()
    record(page, "zz 77-42")
    page.wait_for_url(re.compile(r"/passages/\d+$"))
    main = page.get_by_role("main")
    expect(main).to_contain_text("The passage is recorded.")
    expect(main).to_contain_text("ZZ7742")
    expect(main).to_contain_text(re.compile(r"\d\.\d\d\sEUR"))
    expect(main).to_contain_text("by anna")

    page.get_by_role("link", name="Dashboard").click()
    latest = page.get_by_role("region", name="Latest passages").get_by_role("row").nth(1)
    expect(latest).to_contain_text("ZZ7742")
    # Midnight at the plaza may pass during the test, but not usually.
    assert count_today(page) in (before + 1, 1)


def test_dashboard_shows_by_itself_what_others_record(window, server):
    """Two people: one looks, the other records."""
    watching, recording = window().new_page(), window().new_page()
    log_in(watching, server, "victor")
    log_in(recording, server, "anna")
    expect(watching.get_by_role("status")).to_have_text("Updates by itself")
    expect(watching.get_by_role("link", name="Reload")).to_be_hidden()

    recording.goto(f"{server.url}/passages/new")
    record(recording, "LIVE42")
    recording.wait_for_url(re.compile(r"/passages/\d+$"))
    latest = watching.get_by_role("region", name="Latest passages").get_by_role("row").nth(1)
    expect(latest).to_contain_text("LIVE42")


def test_dashboard_can_be_paused(page, server):
    """What moves by itself must be stoppable, by WCAG 2.2.2."""
    log_in(page, server, "victor")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_have_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_have_text("Updates by itself")


def test_dashboard_says_when_the_session_has_ended(window, server, watched):
    """Numbers that stand still must not look like a quiet day."""
    watched.expected.add(401)
    context = window()
    page = context.new_page()
    log_in(page, server, "victor")
    expect(page.get_by_role("status")).to_have_text("Updates by itself")
    context.clear_cookies()
    expect(page.get_by_role("status")).to_contain_text("session has ended")
    page.get_by_role("link", name="Reload").click()
    page.wait_for_url("**/login?next=/dashboard")


def test_dashboard_without_scripts_offers_to_reload(window, server):
    page = window(java_script_enabled=False).new_page()
    log_in(page, server, "victor")
    expect(page.get_by_role("link", name="Reload")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()


def test_filter_and_export(either_page, server, tmp_path):
    """The file holds what the list shows: the same filters, the same number."""
    page = either_page
    log_in(page, server, "victor")
    page.get_by_role("link", name="Passages", exact=True).click()
    page.get_by_label("Plaza", exact=True).select_option(label="Bay Crossing")
    page.get_by_text("More filters").click()
    page.get_by_label("Paid by").select_option(label="Card")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/passages?*plaza=bay-crossing*")
    heading = page.get_by_role("heading", level=2).inner_text()
    count = int(re.match(r"([\d,]+) passages", heading)[1].replace(",", ""))
    assert count > 0
    assert "EUR" not in heading
    for row in page.get_by_role("row").all()[1:]:
        expect(row).to_contain_text("Bay Crossing")
        expect(row).to_contain_text("Card")

    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    file = Path(tmp_path, "passages.csv")
    download.value.save_as(file)
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == count
    assert {(row["plaza"], row["payment_method"]) for row in rows} == {("bay-crossing", "card")}


def test_older_passages_are_a_click_away_and_none_comes_twice(page, server):
    log_in(page, server, "victor")
    page.goto(f"{server.url}/passages")
    links = page.get_by_role("row").get_by_role("link")
    first = [link.get_attribute("href") for link in links.all()]
    page.get_by_role("link", name="Older").click()
    page.wait_for_url("**cursor=*")
    second = [link.get_attribute("href") for link in links.all()]
    assert len(first) == len(second) == 50
    assert not set(first) & set(second)
    page.get_by_role("link", name="Newest").click()
    page.wait_for_url("**/passages")


def test_form_sent_twice_charges_once(page, server):
    """A second click while the first request is under way sends the same form again."""
    log_in(page, server, "anna")
    page.goto(f"{server.url}/passages/new")
    # The request that the button makes, kept to be sent again as it was.
    with page.expect_request(lambda request: request.method == "POST") as sent:
        record(page, "TWICE1")
    page.wait_for_url(re.compile(r"/passages/\d+$"))
    again = page.request.post(
        sent.value.url,
        data=sent.value.post_data,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert again.url == page.url
    assert "charged once" in again.text()
    page.goto(f"{server.url}/passages?plate=TWICE1")
    expect(page.get_by_role("heading", level=2)).to_contain_text("1 passage ")


def test_errors_stand_at_their_fields_and_nothing_typed_is_lost(either_page, server, watched):
    watched.expected.add(422)
    page = either_page
    log_in(page, server, "anna")
    page.goto(f"{server.url}/passages/new")
    record(page, "?!", at="2099-01-01T10:00")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Plate: “?!” is not a plate.")
    expect(alert).to_contain_text("Time of passage: Is in the future.")
    expect(page.get_by_label("Plate")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Plate")).to_have_value("?!")
    expect(page.get_by_role("radio", name="Car or van")).to_be_checked()
    alert.get_by_role("link", name="Plate").click()
    page.get_by_label("Plate").fill("OK123")
    page.get_by_label("Time of passage").fill("")
    page.get_by_role("button", name="Record and charge").click()
    page.wait_for_url(re.compile(r"/passages/\d+$"))


def test_who_asks_for_a_page_gets_there_after_log_in(either_page, server):
    page = either_page
    page.goto(f"{server.url}/passages?plaza=harbour-bridge")
    page.wait_for_url(re.compile(r"/login\?next="))
    send_log_in(page, "victor", password("victor"))
    page.wait_for_url("**/passages?plaza=harbour-bridge")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    page.goto(f"{server.url}/passages")
    page.wait_for_url(re.compile(r"/login\?next="))


def test_viewer_cannot_record(page, server, watched):
    watched.expected.add(403)
    log_in(page, server, "victor")
    expect(page.get_by_role("link", name="Record", exact=True)).to_have_count(0)
    page.goto(f"{server.url}/passages/new")
    expect(page.get_by_role("heading", level=1)).to_have_text("Forbidden")
    expect(page.get_by_role("main")).to_contain_text("takes the role operator")


def test_wrong_password_and_then_too_many_of_them(either_page, server, watched):
    """Across two worker processes, which share nothing but files."""
    watched.expected |= {422, 429}
    page = either_page
    name = f"nobody-{id(page)}"
    page.goto(f"{server.url}/login")
    for _ in range(5):
        send_log_in(page, name, "a wrong password")
        expect(page.get_by_role("alert")).to_have_text(
            "Name or password is wrong. Check both, and try again."
        )
    send_log_in(page, name, "a wrong password")
    expect(page.get_by_role("alert")).to_have_text("Too many attempts. Try again in 10 minutes.")


def test_form_of_a_session_that_has_ended_is_refused(window, server, watched):
    """A form lies open in one tab while somebody logs out, and in again, in another."""
    watched.expected |= {400, 401}
    context = window()
    form, later, other = context.new_page(), context.new_page(), context.new_page()
    log_in(other, server, "anna")
    form.goto(f"{server.url}/passages/new")
    later.goto(f"{server.url}/passages/new")
    other.get_by_role("button", name="Log out").click()
    other.wait_for_url("**/login")
    record(form, "LOST1")
    expect(form.get_by_role("heading", level=1)).to_have_text("Unauthorized")
    log_in(other, server, "anna")
    record(later, "LOST1")
    expect(later.get_by_role("main")).to_contain_text("does not belong to your session")
    other.goto(f"{server.url}/passages?plate=LOST1")
    expect(other.get_by_role("main")).to_contain_text("No passages match these filters.")


def test_admin_makes_and_ends_a_tariff(either_page, server, watched):
    watched.expected.add(422)
    page = either_page
    log_in(page, server, "ada")
    page.get_by_role("link", name="Tariffs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tariffs")
    # Both runs of this test are on one database.
    year = 2090 + page.get_by_role("row", name="Jubilee").count()
    page.get_by_role("link", name="New tariff").click()
    first = page.get_by_role("region", name="Tariff", exact=True)
    first.get_by_label("Plaza", exact=True).select_option(label="Glacier Tunnel")
    first.get_by_label("Vehicle").select_option(label="Motorcycle")
    first.get_by_label("Name").fill("Jubilee")
    first.get_by_label("Amount").fill("7.125")
    first.get_by_label("Valid from").fill(f"{year}-01-01T00:00")
    first.get_by_label("Valid until").fill(f"{year}-02-01T00:00")
    windows = page.get_by_role("region", name="Peak windows")
    windows.get_by_label("Name").first.fill("Morning")
    windows.get_by_label("Amount").first.fill("9.50")
    windows.get_by_label("From").first.fill("06:00")
    windows.get_by_label("To", exact=True).first.fill("09:00")
    page.get_by_role("button", name="Create the tariff").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Amount: “7.125” has more digits than CHF.")
    expect(alert).to_contain_text("Window 1, Days: Choose at least one day.")
    first.get_by_label("Amount").fill("7.10")
    windows.get_by_role("checkbox", name="Monday").first.check()
    page.get_by_role("button", name="Create the tariff").click()
    page.wait_for_url("**/tariffs")
    row = page.get_by_role("row", name="Jubilee").last
    expect(row).to_contain_text("To come")
    expect(row).to_contain_text("Morning, Monday, 06:00\N{EN DASH}09:00: 9.50 CHF")
    row.get_by_role("link", name="End Jubilee").click()
    page.get_by_label("Ends").fill(f"{year}-01-15T00:00")
    page.get_by_role("button", name="End the tariff").click()
    page.wait_for_url("**/tariffs")
    expect(page.get_by_role("row", name="Jubilee").last).to_contain_text(f"until 15 Jan {year}")


def test_quote_on_a_phone(window, server):
    page = window(viewport=PHONE, java_script_enabled=False).new_page()
    page.goto(server.url)
    page.get_by_label("Plaza", exact=True).select_option(label="Harbour Bridge, Ring road R2")
    page.get_by_role("radio", name="Car or van").check()
    page.get_by_label("Time of passage").fill("2026-11-23T08:15")
    page.get_by_role("button", name="Show the toll").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("3.20 EUR")
