"""The page itself, from what hosts answered."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import jobs, maintenance, readiness, status
from ..answer import short_revision, short_time
from .chart import chart, span, words
from .markup import Content, Markup, joined, tag
from .style import STYLE

Answer = Mapping[str, Any]
SHOWN_DEPLOYS = 10
NOTHING = "-"
# The words of the history, as people say them.
EVENTS = {"handover": "went live", "rolled back": "rolled back", "undone": "interrupted, undone"}
# Nothing is loaded and nothing runs; the one style sheet is named by what is in it.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)


def page(reports: Sequence[Answer], at: str) -> str:
    """The whole page.

    Args:
        reports: one for each application, with `application`, `hosts` (what `status --day --json`
            answered, by host), `failed` (why there is no answer, by host) and `drift`.
        at: when they were asked, as the records write a time.
    """
    names = [str(report["application"]) for report in reports]
    alone = len(reports) == 1
    title = f"{names[0]}: {headline(reports[0])}" if alone else "Applications"
    return "<!doctype html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", title),
            tag("style", Markup(STYLE)),
        ),
        tag(
            "body",
            tag(
                "main",
                tag("h1", names[0] if alone else "Applications"),
                tag(
                    "p",
                    f"As of {short_time(at)} UTC. This page does not refresh itself.",
                    class_="quiet",
                ),
                *(of_application(report, alone) for report in reports),
            ),
        ),
        lang="en",
    )


def headline(report: Answer) -> str:
    """The state of an application on all hosts, in a few words."""
    hosts, failed = report["hosts"], report["failed"]
    if len(hosts) + len(failed) == 1 and hosts:
        (answer,) = hosts.values()
        return status.headline(report["application"], answer)
    down = [host for host, answer in hosts.items() if state(answer)[1] == "down"]
    missing = len(down) + len(failed)
    total = len(hosts) + len(failed)
    return f"{missing} of {total} hosts are down." if missing else f"All {total} hosts are up."


def of_application(report: Answer, alone: bool) -> Markup:
    """An application on all its hosts."""
    hosts, failed, drift = report["hosts"], report["failed"], list(report["drift"])
    wrong = [f"{host} does not answer: {why}" for host, why in failed.items()] + drift
    parts = [] if alone else [tag("h2", report["application"])]
    parts.append(tag("p", headline(report)))
    if wrong:
        items = (tag("li", each) for each in wrong)
        parts.append(
            tag("section", tag("h3", "Needs attention"), tag("ul", *items), class_="attention")
        )
    if len(hosts) > 1:
        parts.append(tag("section", tag("h3", "What runs where"), table_of(hosts)))
    fold = len(hosts) > 1
    return joined(*parts, *(of_host(host, answer, fold) for host, answer in hosts.items()))


def table(heads: Sequence[str], rows: Sequence[Sequence[Content]]) -> Markup:
    """A table that a narrow screen can move."""
    head = tag("tr", *(tag("th", each, scope="col") for each in heads))
    lines = (tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    return tag("div", tag("table", tag("thead", head), tag("tbody", *lines)), class_="scroll")


def table_of(hosts: Mapping[str, Answer]) -> Markup:
    """A line for each host."""
    rows = []
    for host, answer in hosts.items():
        live = answer.get("release") or {}
        words_, kind = state(answer)
        rows.append(
            [
                host,
                tag("span", words_, class_=f"state {kind}".strip()),
                code(live.get("id")),
                code(short_revision(live.get("revision"))),
                time(live.get("activated_at")),
                today(answer),
                days(answer.get("certificate_days")),
            ]
        )
    heads = ("host", "state", "release", "revision", "since (UTC)", "last day", "certificate")
    return table(heads, rows)


def state(answer: Answer) -> tuple[str, str]:
    """How a host is, and the class that shows it: `down`, `out`, or nothing for one that serves."""
    site = answer.get("site")
    if answer.get("service") != "active" or not (answer.get("health") or {}).get("ok"):
        return "down", "down"
    if site and not site.get("ok"):
        return "site does not answer", "down"
    if answer.get("maintenance"):
        return "in maintenance", "out"
    if answer.get("drained"):
        return "drained", "out"
    return "serves", ""


def of_host(host: str, answer: Answer, fold: bool) -> Markup:
    """All of one host; among several, its lists are folded."""
    words_, kind = state(answer)
    badge = tag("span", words_, class_=f"state {kind}".strip())
    facts = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts_of(answer))
    parts: list[Markup] = [tag("h3", host, badge), tag("dl", *facts)]
    day = answer.get("day")
    if day:
        parts += requests(day)
        parts += alerts(day["alerts"])
        parts.append(folded("Deploys", deploys(day["deploys"]), not fold))
    parts.append(releases(answer))
    return tag("article", *parts)


def folded(title: str, content: Markup, opened: bool = False) -> Markup:
    """What somebody opens who wants to know."""
    return tag("details", tag("summary", title), content, open="" if opened else None)


def facts_of(answer: Answer) -> Iterator[tuple[str, Content]]:
    """What is known of a host, name by name."""
    live, health, site = answer.get("release") or {}, answer.get("health") or {}, answer.get("site")
    memory, lock, day = answer.get("memory_bytes"), answer.get("lock"), answer.get("day") or {}
    yield "Release", code(live.get("id"))
    yield "Revision", code(short_revision(live.get("revision")))
    yield "Since (UTC)", joined(time(live.get("activated_at")), by(live.get("activated_by")))
    workers, restarts = answer.get("workers", 0), answer.get("restarts", 0)
    yield "Service", f"{answer.get('service')}, {workers} workers, {restarts} restarts"
    if health.get("ok"):
        yield "Answers", f"{health.get('status')} in {health.get('milliseconds')} ms"
    else:
        yield "Answers", bad(readiness.fault(health) if health else "unknown")
    if site:
        yield "Through nginx", "yes" if site.get("ok") else bad(readiness.fault(site))
    yield "Memory", f"{memory >> 20} MiB" if isinstance(memory, int) else NOTHING
    yield "Certificate", days(answer.get("certificate_days"))
    if answer.get("jobs"):
        yield "Workers and timers", jobs.summary(answer["jobs"])
    if answer.get("maintenance"):
        yield "Maintenance", maintenance.words(answer["maintenance"])
    if answer.get("drained"):
        yield "Drained", f"since {short_time(answer['drained'])} UTC"
    if lock:
        yield "A deploy runs", f"{lock.get('owner')} since {short_time(lock.get('since'))} UTC"
    if day:
        yield "Last copy of the data", copies(day.get("copies"))


def copies(found: Mapping[str, Any] | None) -> Content:
    """How the last run of the backup went."""
    if not found:
        return "none are made on this host"
    last = found.get("last") or {}
    good = short_time(found.get("last_success_at"))
    if last and not last.get("ok"):
        return bad(f"failed at {short_time(last.get('at'))} UTC; last good one: {good}")
    return f"{good} UTC, {found['count']} kept, {found['bytes'] / (1 << 20):,.1f} MiB"


def requests(day: Answer) -> list[Markup]:
    """The last day's requests."""
    traffic = day["traffic"]
    axis = span(traffic) if traffic else "the last day"
    head = tag("h4", f"Requests and deploys, {axis} (UTC)")
    if traffic is None:
        return [head, tag("p", "This host has no readable nginx log.", class_="small")]
    line = tag("p", f"{words(traffic)}.", class_="small")
    return [head, line, chart(traffic, day["deploys"], day["at"])]


def deploys(found: Sequence[Mapping[str, Any]]) -> Markup:
    """The last handovers."""
    if not found:
        return tag("p", "None yet.", class_="small")
    rows = [
        [
            time(each.get("time")),
            code(each.get("release")),
            event(each),
            each.get("verdict") if each.get("verdict") != "bad" else bad("bad"),
            each.get("by") or NOTHING,
            each.get("reason") or "",
        ]
        for each in found[:SHOWN_DEPLOYS]
    ]
    heads = ("time (UTC)", "release", "what", "verdict", "by", "for")
    return table(heads, rows)


def event(deploy: Mapping[str, Any]) -> str:
    """What became of a release, or of settings that the service was to load."""
    what = EVENTS.get(str(deploy.get("event")), str(deploy.get("event") or NOTHING))
    return f"settings {what}" if deploy.get("settings") and not deploy.get("release") else what


def alerts(found: Sequence[Mapping[str, str]] | None) -> list[Markup]:
    """What monitoring on this host raises."""
    head = tag("h4", "Alerts")
    if found is None:
        return [head, tag("p", "No Prometheus answers on this host.", class_="small")]
    if not found:
        return [head, tag("p", "None.", class_="small")]
    rows = [
        [bad(each["name"]), each["severity"], time(each["since"]), each["summary"]]
        for each in found
    ]
    return [head, table(("alert", "severity", "since (UTC)", "what"), rows)]


def releases(answer: Answer) -> Markup:
    """Every release on the host."""
    candidates = answer.get("candidates") or []
    rows = [
        [
            code(each.get("id")),
            code(short_revision(each.get("revision"))),
            time(each.get("activated_at")),
            each.get("verdict"),
            ", ".join(notes(each, candidates)),
        ]
        for each in answer.get("releases", [])
    ]
    heads = ("release", "revision", "live since (UTC)", "verdict", "")
    return folded(f"Releases on this host: {len(rows)}", table(heads, rows))


def notes(release: Mapping[str, Any], candidates: Sequence[str]) -> Iterator[str]:
    """What is special about a release."""
    if release.get("live"):
        yield "live"
    if candidates and release.get("id") == candidates[0]:
        yield "next rollback goes here"
    if release.get("excluded_at"):
        yield "rolled back from"
    if release.get("cannot_start"):
        yield "cannot start"


# Small things -------------------------------------------------------------------------------------


def code(value: object) -> Content:
    """An id."""
    return tag("code", str(value)) if value and value != NOTHING else NOTHING


def time(value: object) -> Content:
    """A time, for people and for programs."""
    return tag("time", short_time(str(value)), datetime=str(value)) if value else NOTHING


def by(value: object) -> Content:
    """Who did something."""
    return f" by {value}" if value else ""


def bad(value: object) -> Markup:
    """What is not as it should be."""
    return tag("span", str(value), class_="bad")


def days(value: object) -> Content:
    """How long a certificate is good."""
    if not isinstance(value, (int, float)):
        return NOTHING
    words_ = f"{value:g} days left"
    return bad(words_) if value <= 0 else words_


def today(answer: Answer) -> Content:
    """The requests of the last day."""
    traffic = (answer.get("day") or {}).get("traffic")
    return words(traffic) if traffic else NOTHING
