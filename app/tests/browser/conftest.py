"""A real Chromium against real gunicorn processes with a seeded database.

Every page that a test opens is watched: an error or a warning on the console, a violation of the
content security policy among them, fails the test that met it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import DESKTOP, Watched, launch, serving
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from servers import Service
from support import Templates

PASSAGES = 600
# Milliseconds. A machine that does other things too is slow, and that is no fault of a page.
PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def server(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo with a week of passages, and one user of each role."""
    url, name = templates.copy("sqlite", seeded=True)
    with serving(url, tmp_path_factory.mktemp("server"), PASSAGES) as served:
        yield served
    templates.drop(name)


@pytest.fixture
def empty_server(templates: Templates, tmp_path: Path) -> Iterator[Service]:
    """A database that holds users and nothing else."""
    url, name = templates.copy("sqlite", seeded=False)
    with serving(url, tmp_path) as served:
        yield served
    templates.drop(name)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        browser = launch(playwright, tmp_path_factory.mktemp("home"))
        yield browser
        browser.close()


@pytest.fixture
def watched() -> Watched:
    """What went wrong in this test's pages; the test may say what it expects."""
    return Watched()


@pytest.fixture
def window(browser: Browser, watched: Watched) -> Iterator[Callable[..., BrowserContext]]:
    """Open a window that shares no cookie with another; options are Playwright's."""
    opened: list[BrowserContext] = []

    def open_window(**options: object) -> BrowserContext:
        settings: dict[str, object] = {"viewport": DESKTOP, "locale": "en-GB"}
        context = browser.new_context(**(settings | options))  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        watched.watch(context)
        opened.append(context)
        return context

    yield open_window
    for context in opened:
        context.close()
    assert not watched.faults


@pytest.fixture
def page(window: Callable[..., BrowserContext]) -> Page:
    """A page in a window of a desktop."""
    return window().new_page()
