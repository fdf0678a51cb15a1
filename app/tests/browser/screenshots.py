#!/usr/bin/env python3
"""Pictures of every page, on a desktop and a phone, light and dark, to be looked at.

    .venv/bin/python app/tests/browser/screenshots.py FOLDER [WORD...]

Without a word all pages are taken, else those whose name holds one. With `--docs` in place of a
folder the few that docs/screenshots/ shows are taken again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

APP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(APP), str(APP / "tests")]

from browsing import DESKTOP, PHONE, launch, record, send_log_in, serving  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from toll import schema  # noqa: E402
from toll.database import make_engine  # noqa: E402
from toll.services import demo  # noqa: E402

DOCS = APP.parent / "docs" / "screenshots"
PASSAGES = 4000
VIEWPORTS = {"desktop": DESKTOP, "phone": PHONE}
SCHEMES = ("light", "dark")
# What the documentation shows: page, viewport, scheme.
SHOWN = {
    ("dashboard", "desktop", "light"),
    ("dashboard", "phone", "dark"),
    ("answer", "phone", "light"),
    ("passages", "desktop", "dark"),
}


def pages(page: Page, url: str, take: Callable[[str], None]) -> None:
    """Open every page, and some in their unhappy states; `take` takes the picture."""
    public = {
        "quote": "/",
        "answer": "/?plaza=harbour-bridge&class=car&at=2026-11-23T08:15",
        "faulty-quote": "/?plaza=x&at=2026-03-29T99:00",
        "api": "/api",
        "problem": "/no-such-page",
        "log-in": "/login?next=/passages",
    }
    for name, path in public.items():
        page.goto(url + path)
        take(name)
    send_log_in(page, "ada", "a wrong password")
    page.get_by_role("alert").wait_for()
    take("faulty-log-in")
    send_log_in(page, "ada", "correct horse of ada")
    page.wait_for_url(f"{url}/passages")
    private = {
        "dashboard": "/dashboard",
        "dashboard-of-a-plaza": "/dashboard?plaza=bay-crossing",
        "passages": "/passages",
        "filtered": "/passages?plaza=harbour-bridge&class=car&payment=cash",
        "no-passages": "/passages?plate=NOSUCH1",
        "faulty-filters": "/passages?since=2026-11-24&until=2026-11-20&lane=!!",
        "record": "/passages/new",
        "tariffs": "/tariffs",
        "ended-tariffs": "/tariffs?ended=1",
        "new-tariff": "/tariffs/new",
        "end-of-a-tariff": "/tariffs/2/end",
    }
    for name, path in private.items():
        page.goto(url + path)
        take(name)
    page.goto(f"{url}/tariffs/new")
    page.locator("#windows-0-name").fill("Peak")
    page.locator("form[action='/tariffs/new']").evaluate("form => (form.noValidate = true)")
    page.get_by_role("button", name="Create the tariff").click()
    page.get_by_role("alert").wait_for()
    take("faulty-tariff")
    page.goto(f"{url}/passages/new")
    record(page, "?!", at="2099-01-01T10:00")
    page.get_by_role("alert").wait_for()
    take("faulty-record")
    page.get_by_label("Plate").fill("KA 12-34")
    page.get_by_label("Time of passage").fill("")
    page.get_by_role("button", name="Record and charge").click()
    page.get_by_role("link", name="Record another").wait_for()
    take("passage")


def main(arguments: list[str]) -> int:
    """Take the pictures."""
    docs = arguments[:1] == ["--docs"]
    if not arguments or (arguments[0].startswith("-") and not docs):
        print(__doc__, file=sys.stderr)
        return 2
    folder = DOCS if docs else Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        place = Path(name)
        url = f"sqlite:///{place}/toll.db"
        schema.migrate(url)
        engine = make_engine(url)
        with Session(engine) as s:
            demo.seed_tariffs(s)
        engine.dispose()
        browser = launch(playwright, place)
        with serving(url, place, PASSAGES) as service:
            for viewport, size in VIEWPORTS.items():
                for scheme in SCHEMES:
                    context = browser.new_context(
                        viewport=size, color_scheme=scheme, locale="en-GB"
                    )
                    page = context.new_page()

                    def take(
                        name: str, viewport: str = viewport, scheme: str = scheme, page: Page = page
                    ) -> None:
                        words = arguments[1:]
                        wanted = (
                            (name, viewport, scheme) in SHOWN
                            if docs
                            else not words or any(word in name for word in words)
                        )
                        if wanted:
                            file = folder / f"{name}-{viewport}-{scheme}.png"
                            page.screenshot(path=file, full_page=not docs)
                            print(file)

                    pages(page, service.url, take)
                    context.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
