"""The page of `status`: true, complete, and safe whatever the values are."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html.parser
import http.server
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import fleet
from apphost import records, times
from apphost.page import chart, day, traffic
from apphost.page.render import page

from .backup_host import BackupHost
from .conftest import Host, Programs, describe, serving

NOW = datetime.datetime(2026, 11, 29, 20, 17, tzinfo=datetime.UTC)
# The element of every kind that the page is made of; none of them loads or runs anything.
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "span",
    ),
    *(
        "section",
        "article",
        "dl",
        "dt",
        "dd",
        "div",
        "ul",
        "li",
        "code",
        "time",
        "small",
        "details",
    ),
    *("summary", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "line"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "scope", "datetime", "open"),
    *("viewbox", "preserveaspectratio", "role", "aria-label", "x", "y", "width", "height"),
    *("x1", "x2", "y1", "y2"),
}
HOSTILE = "<script>alert(1)</script>\"'><img src=//evil.example/x onerror=alert(1)>&amp;"


class Reader(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def answer(**members: Any) -> dict[str, Any]:
    """What `status --day --json` answers of a host that is well."""
    live = {
        **{"id": "d", "content": "d", "revision": "1234567890" * 4, "verdict": "healthy"},
        **{"activated_at": "2026-11-29T14:05:00Z", "activated_by": "anna", "live": True},
    }
    return {
        **{"live": "d", "release": live, "releases": [live], "candidates": [], "drift": []},
        **{"service": "active", "restarts": 0, "workers": 3, "memory_bytes": 99 << 20},
        **{"health": {"ok": True, "status": 200, "milliseconds": 3}, "site": {"ok": True}},
        **{"certificate_days": 61.4, "lock": None, "jobs": None, "maintenance": None},
        "drained": None,
        "day": {
            "at": times.written(NOW),
            "deploys": [deploy("2026-11-29T14:05:00Z")],
            "traffic": {
                "since": "2026-11-28T20:30:00Z",
                "step_seconds": 900,
                "steps": [[0, 0]] * 94 + [[10, 0], [20, 5]],
                **{"requests": 30, "failed": 5},
            },
            "copies": {
                "count": 3,
                "bytes": 5 << 20,
                "last": {"at": "2026-11-29T02:30:00Z", "ok": True, "msg": ""},
                "last_success_at": "2026-11-29T02:30:00Z",
            },
            "alerts": [],
        },
        **members,
    }


def deploy(time: str, **members: Any) -> dict[str, Any]:
    told = {"event": "handover", "release": "d", "verdict": "healthy", "by": "anna", "reason": "v2"}
    return {"time": time, **told, "settings": False, **members}


def shown(hosts: dict[str, Any], failed: dict[str, str] | None = None) -> str:
    return page([fleet.as_data("shop", hosts, failed or {})], times.written(NOW))


def hostile(value: Any) -> Any:
    """The same with a text in each place where a text or a number is."""
    if isinstance(value, dict):
        return {key: hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


# The page -----------------------------------------------------------------------------------------


def test_no_value_becomes_an_element_or_an_attribute() -> None:
    """A revision, a reason and a host's name are written by others than who reads the page."""
    given = hostile(answer(site={"ok": False, "error": "x"}, drift=["x"], lock={"owner": "x"}))
    given |= {"maintenance": {"since": "x", "by": "x", "described": False, "reason": "x"}}
    given["service"], given["drained"] = "active", HOSTILE
    told = given["day"]
    told["at"], told["traffic"]["since"] = "2026-11-29T20:17:00Z", "2026-11-29T20:17:00Z"
    told["alerts"] = [dict.fromkeys(("name", "severity", "state", "since", "summary"), HOSTILE)]
    told["copies"]["last"]["ok"] = False
    text = shown({HOSTILE: given, "web2": answer()}, {f"{HOSTILE}2": HOSTILE})
    found = Reader(text)
    assert found.elements <= ELEMENTS
    assert found.attributes <= ATTRIBUTES
    assert text.count(HOSTILE) == 0
    assert found.text.count(HOSTILE) > 15


def test_it_loads_and_runs_nothing() -> None:
    """It is opened from a mail or a ticket, and tells nobody that it was."""
    text = shown({"web1": answer(), "web2": answer()})
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#x27;sha256-{digest}&#x27;" in policy
    assert policy.startswith("default-src &#x27;none&#x27;")
    rest = text.replace(policy, "")
    assert not re.search(r"//|url\(|@import|href|\bsrc\b|javascript", rest)
    found = Reader(text)
    assert found.elements <= ELEMENTS
    assert found.attributes <= ATTRIBUTES


def test_it_says_how_each_host_is() -> None:
    hosts = {
        "web1": answer(),
        "web2": answer(drained="2026-11-29T19:00:00Z"),
        "web3": answer(
            service="failed", health={"ok": False, "error": "refused"}, drift=["shop is failed"]
        ),
        "web4": answer(maintenance={"since": "", "by": "", "described": True, "reason": ""}),
    }
    text = Reader(shown(hosts, {"web5": "timed out"})).text
    assert "2 of 5 hosts are down." in text
    for part in ("web1serves", "web2drained", "web3down", "web4in maintenance"):
        assert part in text
    assert "web5 does not answer: timed out" in text
    assert "web3: shop is failed" in text
    assert "61.4 days left" in text
    assert "2026-11-29 02:30:00 UTC, 3 kept, 5.0 MiB" in text


def test_a_single_host_has_the_words_of_the_command() -> None:
    assert "shop is up." in Reader(shown({"web1": answer()})).text


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("traffic", "This host has no readable nginx log."),
        ("alerts", "No Prometheus answers on this host."),
        ("copies", "none are made on this host"),
    ],
)
def test_what_is_not_known_is_said(missing: str, words: str) -> None:
    """An empty place would read as "nothing happened"."""
    given = answer()
    given["day"][missing] = None
    assert words in Reader(shown({"web1": given})).text


def test_a_copy_that_failed_is_seen() -> None:
    given = answer()
    given["day"]["copies"]["last"] = {"at": "2026-11-29T03:00:00Z", "ok": False, "msg": "full"}
    text = Reader(shown({"web1": given})).text
    assert "failed at 2026-11-29 03:00:00 UTC; last good one: 2026-11-29 02:30:00" in text


def test_deploys_are_on_the_axis_of_the_requests() -> None:
    """The question at night is whether the errors began with the deploy."""
    given = answer()["day"]
    bad = deploy("2026-11-29T08:30:00Z", verdict=records.BAD, event="rolled back")
    old = deploy("2026-11-20T08:30:00Z")
    text = chart.chart(given["traffic"], [*given["deploys"], bad, old], given["at"])
    # The axis ends at 20:30, and is 960 wide.
    lines = re.findall(r'<line class="([^"]+)" x1="([\d.]+)"', text)
    assert ("deploy taken-back", "480.0") in lines
    assert ("deploy", f"{(17 * 60 + 35) / 1440 * 960:.1f}") in lines
    assert len([kind for kind, _ in lines if kind.startswith("deploy")]) == 2
    assert re.findall(r"<span>(\d\d:\d\d)</span>", text) == [
        "20:30",
        "02:30",
        "08:30",
        "14:30",
        "20:30",
    ]
    assert len(re.findall(r'<rect class="good"', text)) == 2
    assert len(re.findall(r'<rect class="failed"', text)) == 1
    quiet = {**given["traffic"], "steps": [[0, 0]] * 96, "requests": 0, "failed": 0}
    assert "0 requests, none answered with 5xx" in chart.chart(quiet, [], given["at"])


# What happened ------------------------------------------------------------------------------------


def line(time: str, host: str = "shop.example.com", status: int | str = 200, **more: Any) -> str:
    return json.dumps({"time": time, "host": host, "status": status, **more}) + "\n"


def test_requests_of_its_own_names_are_counted(tmp_path: Path) -> None:
    (tmp_path / "access.log.1").write_text(
        line("2026-11-27T10:00:00+00:00") + line("2026-11-29T20:01:00+00:00", status=503)
    )
    (tmp_path / "access.log").write_text(
        line("2026-11-29T21:16:59+01:00", "www.shop.example.com", uri='/"status":500')
        + line("2026-11-29T20:16:00+00:00", "other.example.com")
        + "not JSON\n"
        + line("yesterday")
        + line("2026-11-29T20:16:00+00:00", status="none")
        + line("2026-11-29T20:16:00+00:00", "a.wild.example.com")
        + '["a list"]\n'
    )
    names = ["shop.example.com", "www.shop.example.com", "*.wild.example.com"]
    found = traffic.look(tmp_path, names, NOW)
    assert found is not None
    assert (found["requests"], found["failed"]) == (3, 1)
    assert found["steps"][-2:] == [[1, 1], [2, 0]]
    # The log reaches back further than the day.
    assert found["since"] == "2026-11-28T20:30:00Z"


def test_what_was_not_read_is_not_called_quiet(tmp_path: Path) -> None:
    """A busy host's log is longer than what is read of it."""
    lines = [line(f"2026-11-29T{hour:02}:00:00+00:00") for hour in range(20)]
    (tmp_path / "access.log").write_text("".join(lines))
    found = traffic.look(tmp_path, ["shop.example.com"], NOW, limit=len(lines[0]) * 5 + 3)
    assert found is not None
    assert (found["requests"], found["since"]) == (5, "2026-11-29T15:00:00Z")
    drawn = chart.chart(found, [], times.written(NOW))
    assert "before the part of the log that was read" in drawn


def test_the_limit_holds_over_both_logs(tmp_path: Path) -> None:
    first, second = line("2026-11-29T10:00:00+00:00"), line("2026-11-29T11:00:00+00:00")
    (tmp_path / "access.log.1").write_text(first * 10)
    (tmp_path / "access.log").write_text(second * 3)
    found = traffic.look(tmp_path, ["shop.example.com"], NOW, limit=len(first) * 5)
    assert found is not None
    assert found["requests"] == 5


def test_a_log_that_is_none_is_not_followed(tmp_path: Path) -> None:
    """Root reads it, in a folder that on some systems is nginx's own."""
    assert traffic.look(tmp_path, ["x"], NOW) is None
    secret = tmp_path / "secret"
    secret.write_text(line("2026-11-29T20:16:00+00:00", "x"))
    (tmp_path / "access.log").symlink_to(secret)
    os.mkfifo(tmp_path / "access.log.1")
    found = traffic.look(tmp_path, ["x"], NOW)
    assert found is None or found["requests"] == 0


@pytest.mark.parametrize(
    ("first", "step", "axis"),
    [
        ("2026-11-29T19:00:00", 60, "the last 96 minutes"),
        ("2026-11-29T18:00:00", 300, "the last 8 hours"),
        ("2026-11-29T10:00:00", 900, "the last 24 hours"),
    ],
)
def test_a_new_host_has_a_short_axis(tmp_path: Path, first: str, step: int, axis: str) -> None:
    """Three requests of the last minutes would be a line at the edge of a day."""
    (tmp_path / "access.log").write_text(
        line(f"{first}+00:00") + line("2026-11-29T20:17:00+00:00", "other")
    )
    found = traffic.look(tmp_path, ["shop.example.com"], NOW)
    assert found is not None
    assert (found["step_seconds"], chart.span(found)) == (step, axis)
    assert (found["requests"], len(found["steps"])) == (1, 96)
    assert found["since"] == f"{first}Z"


@contextmanager
def prometheus(body: str) -> Iterator[str]:
    """Something that answers on a port of the loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/v1/alerts" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_alerts_that_fire_are_shown() -> None:
    """In the form of https://prometheus.io/docs/prometheus/latest/querying/api/#alerts."""
    firing = {
        "labels": {"alertname": "SiteDown", "severity": "page"},
        "annotations": {"summary": "shop does not answer"},
        "state": "firing",
        "activeAt": "2026-11-29T20:00:00.123Z",
        "value": "1e+00",
    }
    pending = {**firing, "state": "pending"}
    told = {"status": "success", "data": {"alerts": [firing, pending]}}
    with prometheus(json.dumps(told)) as address:
        found = day.alerts(address)
    assert found is not None
    assert [each["name"] for each in found] == ["SiteDown"]
    with prometheus("<html>") as address:
        assert day.alerts(address) is None
    with prometheus('{"data": []}') as address:
        assert day.alerts(address) is None
    assert day.alerts(address) is None


def test_the_newest_deploys_come_first(host: Host) -> None:
    log = host.application.state / "history.jsonl"
    entries = [json.dumps({"time": f"2026-11-{day_:02}T00:00:00Z"}) for day_ in range(1, 29)]
    log.write_text("\n".join(["half a li", *entries, "[]"]) + "\n")
    found = day.deploys(host.application)
    assert [each["time"][8:10] for each in found][:2] == ["28", "27"]
    assert len(found) == 28
    assert set(found[0]) == set(day.SHOWN)


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def up(host: Host, programs: Programs) -> Iterator[Host]:
    """The application answers."""
    (programs.folder / "properties").write_text("ActiveState=active\nNRestarts=0\n")
    site = {"domain": "shop.example.com", "domains": ["shop.example.com"]}
    describe(host.application, site=site)
    host.application.__dict__.pop("settings", None)
    with serving(host.application.socket, 200, '{"release": "d"}'):
        yield host


def test_the_command_writes_the_page_for_who_asked(
    up: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Through sudo, the file is for the person who is logged in, and nobody else reads it."""
    target = tmp_path / "status.html"
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1234")
    given = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
    assert up.call("status", "--page", str(target), "--site", "") == 0
    assert str(target) in capsys.readouterr().out
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert given == [(1234, 1234)]
    assert "shop is up." in Reader(target.read_text()).text


def test_the_page_goes_through_ssh(up: Host, capsys: Any) -> None:
    """`ssh HOST sudo shop status --page - > status.html` needs no file on the host."""
    assert up.call("status", "--page", "-", "--site", "") == 0
    text = capsys.readouterr().out
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")


def test_a_day_is_read_only_for_who_wants_it(up: Host, capsys: Any) -> None:
    """A fleet's status stays one quick question."""
    (up.application.host / "var/log/nginx").mkdir(parents=True)
    (up.application.host / "var/log/nginx/access.log").write_text(
        line(times.stamp().replace("Z", "+00:00"))
    )
    _, plain = up.run(capsys, "status", "--site", "")
    assert "day" not in plain
    _, told = up.run(capsys, "status", "--day", "--site", "")
    assert set(told["day"]) == {"at", "deploys", "traffic", "copies", "alerts"}
    assert told["day"]["traffic"]["requests"] == 1


def test_copies_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = BackupHost(tmp_path, monkeypatch)
    backup.back_up()
    found = day.backups(backup.store().application)
    assert found is not None
    assert found["count"] == 1
    assert found["last"]["ok"] is True
    assert found["bytes"] > 0
