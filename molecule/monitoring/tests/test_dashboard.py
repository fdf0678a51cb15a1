"""The page that somebody looks at during an incident, in Chromium, through `ssh -L`."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from conftest import Watched
from hosts import IDENTITY, USER
from playwright.sync_api import Page, Route, expect, sync_playwright

testinfra_hosts = ["ansible://watched", "ansible://watcher"]

FIGURES = 9
# Milliseconds until what Prometheus learns is on the page, which asks again every 15 s, on a
# machine that does other things too.
PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def prometheus(address: str) -> Iterator[str]:
    """The host's Prometheus, at a port of this machine's loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes")
    command = [
        *("ssh", "-N", "-i", str(IDENTITY), "-L", f"127.0.0.1:{port}:127.0.0.1:9090"),
        *(word for option in options for word in ("-o", option)),
        f"{USER}@{address}",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tunnel:
        for _ in range(100):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        tunnel.terminate()


@pytest.fixture(scope="module")
def faults() -> list[str]:
    """What the browser complained of."""
    return []


@pytest.fixture(scope="module")
def page(
    prometheus: str, faults: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The page, opened."""
    home = tmp_path_factory.mktemp("home")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            # The tests run as root in CI, where Chromium's own sandbox does not start.
            args=["--no-sandbox", "--disable-gpu", "--no-first-run"],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
        )
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        context.on("weberror", lambda error: faults.append(f"script: {error.error}"))
        context.on(
            "console", lambda told: faults.append(told.text) if told.type == "error" else None
        )
        opened = context.new_page()
        opened.goto(f"{prometheus}/user/index.html")
        yield opened
        browser.close()


def test_every_figure_and_number_is_known(page: Page, faults: list[str], watched: Watched) -> None:
    """Each of them rests on a metric whose name could be wrong."""
    watched.host.run("systemctl start toll-app-backup.service")
    expect(page.locator("figure")).to_have_count(FIGURES)
    # It asks again by itself.
    expect(page.get_by_text("nothing is known")).to_have_count(0)
    expect(page.locator("#numbers div")).to_have_count(6)
    expect(page.locator("figure svg polyline")).not_to_have_count(0)
    expect(page.locator("#state")).to_contain_text("As of")
    assert not faults


def test_the_release_that_serves_is_named_and_marked(page: Page, watched: Watched) -> None:
    query = "app_release_activated_timestamp_seconds"
    [found] = watched.ask(f"query?query={query}")["result"]
    release = found["metric"]["release"]
    expect(page.locator("#release")).to_contain_text(f"release {release}, live since")
    expect(page.locator("text.mark").first).to_contain_text(release[:8])


def test_each_host_has_its_line(page: Page, watched: Watched) -> None:
    """Of the memory that hosts have left, where a host watches another."""
    hosts = watched.ask("query?query=node_memory_MemAvailable_bytes")["result"]
    caption = page.locator("figcaption", has_text="Memory that the host has left")
    expect(caption.locator("i")).to_have_count(len(hosts))
    if len(hosts) > 1:
        for each in hosts:
            expect(caption).to_contain_text(each["metric"]["instance"])


def test_the_fleet_is_a_picture(page: Page, watched: Watched) -> None:
    """Of a host that watches others: what each of them does, and how it is."""
    fleet = page.locator("#fleet")
    if watched.host.backend.host == "watched":
        expect(fleet).to_be_hidden()
        return
    expect(fleet.locator("h2")).to_have_text(["Balancers", "Hosts that serve", "Database"])
    cards = {"balancer": "keeper up", "web": "member up", "database": "keeper primary"}
    for kind, words in cards.items():
        expect(fleet.locator(f"li[data-kind={kind}]")).to_contain_text(words)
    # One line, since it knows the host that watches itself too, which is not in the picture.
    expect(fleet.locator("svg line.led")).to_have_count(1)

    # A host that is drained in earnest would be told to everybody.
    def drained(route: Route) -> None:
        labels = {"instance": "keeper", "server": "member"}
        answers = {
            "app_host_drained": ({"instance": "member"}, time.time() - 7200),
            "haproxy_server_status": (labels, 0),
        }
        for name, (metric, value) in answers.items():
            if name in route.request.url:
                result = [{"metric": metric, "value": [time.time(), str(value)]}]
                body = {"status": "success", "data": {"resultType": "vector", "result": result}}
                return route.fulfill(json=body)
        return route.continue_()

    page.route("**/api/v1/query?**", drained)
    try:
        expect(fleet.locator("li[data-kind=web]")).to_contain_text("drained")
        expect(fleet.locator("li[data-kind=web]")).to_contain_text("for 2 h")
        expect(fleet.locator("svg line.left")).to_have_count(1)
    finally:
        page.unroute("**/api/v1/query?**")
    expect(fleet.locator("li[data-kind=web]")).to_contain_text("member up")


def test_an_alert_is_on_the_page_and_goes(page: Page, watched: Watched) -> None:
    watched.run("systemctl stop prometheus-blackbox-exporter")
    try:
        told = page.locator("#alerts p", has_text="TargetDown").first
        expect(told).to_contain_text("Nothing can be learned from")
        expect(told).to_have_class("warning")
    finally:
        watched.run("systemctl start prometheus-blackbox-exporter")
    expect(page.locator("#alerts p", has_text="TargetDown")).to_have_count(0)


def test_another_time_is_shown_and_kept_in_the_address(page: Page) -> None:
    page.get_by_role("button", name="1 d").click()
    expect(page.get_by_role("button", name="1 d")).to_have_attribute("aria-pressed", "true")
    assert page.url.endswith("#86400")
    page.reload()
    expect(page.get_by_role("button", name="1 d")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("figure")).to_have_count(FIGURES)


def test_it_says_when_what_it_shows_is_old(page: Page, faults: list[str]) -> None:
    """A page that stands still and looks well is worse than none."""
    assert not faults
    page.route("**/api/v1/**", lambda route: route.abort())
    page.get_by_role("button", name="6 h").click()
    expect(page.locator("#state")).to_contain_text("what is shown is old")
    page.unroute("**/api/v1/**")
    faults.clear()
    page.get_by_role("button", name="1 h").click()
    expect(page.locator("#state")).to_contain_text("As of")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everybody(page: Page, scheme: Any) -> None:
    """axe-core finds nothing, on a phone as well; nothing is wider than the screen."""
    page.emulate_media(color_scheme=scheme)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(Path(AXE_FILE_PATH).read_text())
        found = page.evaluate("axe.run()")
        assert [each["id"] for each in found["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_was_complained_of(faults: list[str]) -> None:
    assert faults == []
