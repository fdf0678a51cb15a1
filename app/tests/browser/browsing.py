"""How the tests of this folder use a browser and the application that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright
from servers import Service, service
from sqlalchemy.orm import Session

from toll.database import make_engine
from toll.services import accounts, demo

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    # The tests run as root in CI, where Chromium's own sandbox does not start.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
USERS = {"anna": "operator", "victor": "viewer", "ada": "admin"}


def password(name: str) -> str:
    """Return the password of one of the tests' users."""
    return f"correct horse of {name}"


@contextmanager
def serving(database_url: str, directory: Path, passages: int = 0) -> Iterator[Service]:
    """Serve a database with gunicorn, as in production, with one user of each role."""
    engine = make_engine(database_url)
    with Session(engine) as s:
        if passages:
            demo.seed_passages(s, passages)
        for name, role in USERS.items():
            accounts.create_user(s, name, password(name), role)
    engine.dispose()
    with service(database_url, directory, "--workers", "2") as served:
        yield served


def launch(playwright: Playwright, home: Path) -> Browser:
    """Start Debian's Chromium with an empty profile."""
    return playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=FLAGS,
        # What a profile or a wrapper of this machine says must not count; and the browser stands
        # in another time zone than the plazas.
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TZ": "America/New_York"},
    )


@dataclass
class Watched:
    """What went wrong in the pages of a test.

    Attributes:
        faults: words of the console, of scripts and of requests that failed.
        expected: statuses that the test provokes, which the browser reports on the console.
    """

    faults: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def watch(self, context: BrowserContext) -> None:
        """Watch every page of a window."""
        context.on("console", self._console)
        context.on("weberror", lambda error: self.faults.append(f"script: {error.error}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        words = (f"the server responded with a status of {status} " for status in self.expected)
        if not any(each in message.text for each in words):
            self.faults.append(f"{message.type}: {message.text}")


def log_in(page: Page, service: Service, name: str, word: str | None = None) -> None:
    """Log in by the form, as a person does."""
    page.goto(f"{service.url}/login")
    send_log_in(page, name, word or password(name))
    page.wait_for_url("**/dashboard")


def send_log_in(page: Page, name: str, word: str) -> None:
    """Fill in and send the form of the page that is open."""
    main = page.get_by_role("main")
    main.get_by_label("Name").fill(name)
    main.get_by_label("Password").fill(word)
    main.get_by_role("button", name="Log in").click()


def record(page: Page, plate: str, plaza: str = "Harbour Bridge", at: str = "") -> None:
    """Fill in and send the form for a passage, which is open."""
    page.get_by_label("Plaza", exact=True).select_option(label=plaza)
    page.get_by_label("Lane").fill("3")
    page.get_by_label("Plate").fill(plate)
    page.get_by_role("radio", name="Car or van").check()
    page.get_by_role("radio", name="Tag").check()
    page.get_by_label("Time of passage").fill(at)
    page.get_by_role("button", name="Record and charge").click()


def accessibility(page: Page) -> list[str]:
    """Return what axe finds wrong with a page by WCAG 2.2 A and AA, and by its best practices."""
    # The page's policy lets no script in but the application's; a debugger may.
    page.evaluate(Path(AXE_FILE_PATH).read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}, "resultTypes": ["violations"]}
    found: Any = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']]}"
        for each in found["violations"]
    ]


def overflow(page: Page) -> list[str]:
    """Return what makes a page wider than its window, if it is."""
    found: Any = page.evaluate(
        """() => {
          const wide = document.documentElement.scrollWidth;
          if (wide <= innerWidth) return [];
          const outside = [...document.querySelectorAll('body *')]
            .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
            .map(each => each.outerHTML.slice(0, 120));
          return [`${wide} pixels of ${innerWidth}`, ...outside];
        }"""
    )
    return list(found)
