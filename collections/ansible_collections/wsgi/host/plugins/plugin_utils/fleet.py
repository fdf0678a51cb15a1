"""What is decided about several hosts at once: batches, where to go back to, how all of them do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Answer = Mapping[str, Any]


class FleetError(Exception):
    """It cannot be decided; the message says why and what to do."""


def refusal(problems: Sequence[Mapping[str, str]], purpose: str) -> str:
    """What is wrong with an inventory, as one message.

    Args:
        problems: each with `variable`, `problem` and `remedy`.
        purpose: what is not done before they are set right.
    """
    head = (
        "1 problem has" if len(problems) == 1 else f"{len(problems)} problems have"
    ) + f" to be fixed before {purpose}:"
    lines = [f"- {each['variable']} {each['problem']}: {each['remedy']}" for each in problems]
    return "\n".join([head, *lines, "Nothing was changed."])


def batch_size(size: object, hosts: int) -> int:
    """Return how many of so many hosts a size means: a number, or a percentage rounded down.

    At least one, as Ansible's own `serial`. Raises ValueError for anything else.
    """
    text = str(size).strip()
    match = re.fullmatch(r"(\d+)(%?)", text)
    if match is None or isinstance(size, bool) or int(match[1]) == 0:
        raise ValueError(f"{size!r} is neither a number of hosts nor a percentage")
    if match[2]:
        if int(match[1]) > 100:
            raise ValueError(f"{size!r} is more than all hosts")
        return max(1, hosts * int(match[1]) // 100)
    return int(match[1])


def batches(hosts: Sequence[str], serial: object) -> list[list[str]]:
    """Cut hosts into batches, one after the other; the last size holds for all that follow.

    Raises ValueError if `serial` is not a size or a list of sizes.
    """
    sizes = list(serial) if isinstance(serial, (list, tuple)) else [serial]
    if not sizes:
        raise ValueError("no size of a batch")
    counts = [batch_size(size, len(hosts)) for size in sizes]
    cut: list[list[str]] = []
    rest = list(hosts)
    while rest:
        count = counts[min(len(cut), len(counts) - 1)]
        cut.append(rest[:count])
        rest = rest[count:]
    return cut


def going_back(hosts: Mapping[str, Answer], wanted: str) -> dict[str, str]:
    """Return the release that each host goes back to, the same content on all of them.

    Args:
        hosts: what `releases --json` answered, by host.
        wanted: an id, a content or the beginning of a revision. Empty: the last release that was
            judged healthy before the live one.

    Raises FleetError if there is none that every host has and can start. Without a name at least
    one host changes its release; by name, all of them may serve it already.
    """
    if not hosts:
        raise FleetError("There is no host to go back on")
    return _named(hosts, wanted) if wanted else _previous(hosts)


def _releases(answer: Answer) -> dict[str, Answer]:
    """Releases of a host by id."""
    return {each["id"]: each for each in answer["releases"]}


def _previous(hosts: Mapping[str, Answer]) -> dict[str, str]:
    fitting: dict[str, dict[str, str]] = {}
    ranked: dict[str, str] = {}
    serving: set[str] = set()
    for host, answer in hosts.items():
        known = _releases(answer)
        ids = list(answer["candidates"])
        live = known.get(answer["live"] or "")
        # A host that serves it already is no obstacle: a deploy may have stopped halfway.
        if live and live["verdict"] == "healthy" and not live.get("excluded_at"):
            ids.insert(0, live["id"])
        if live:
            serving.add(live["content"])
        fitting[host] = {known[one]["content"]: one for one in reversed(ids)}
        for one in answer["candidates"]:
            since = str(known[one].get("activated_at") or "")
            content = known[one]["content"]
            ranked[content] = max(ranked.get(content, ""), since)
    shared = [
        content
        for content in ranked
        if all(content in each for each in fitting.values())
        # Built for another Python, the live content is not what somebody goes back to.
        and any(fitting[host][content] != answer["live"] for host, answer in hosts.items())
    ]
    if len(serving.intersection(shared)) > 1:
        # Somebody went back by hand on a part of them. Which of them is bad is not known here.
        raise FleetError(
            "These hosts serve different releases, each of which was healthy on all of them. Name "
            "the one to go back to with -e release=ID. " + _on_the_hosts(hosts)
        )
    if shared:
        content = max(shared, key=lambda each: ranked[each])
        return {host: each[content] for host, each in fitting.items()}
    raise FleetError(
        "No other release that was judged healthy and can start is on "
        + ("all of these hosts" if len(hosts) > 1 else "this host")
        + ", so there is nothing to go back to. Name one with -e release=ID, or deploy one with "
        "playbooks/deploy.yml -e application_revision=REVISION. " + _on_the_hosts(hosts)
    )


def _on_the_hosts(hosts: Mapping[str, Answer]) -> str:
    """The releases of each host, a line each."""
    lines = [f"- {host}: {_summary(answer)}" for host, answer in hosts.items()]
    return "On the hosts are:\n" + "\n".join(lines)


def _summary(answer: Answer) -> str:
    """The releases of a host in one line."""
    words = []
    for each in answer["releases"]:
        notes = [
            *(["live"] if each["id"] == answer["live"] else []),
            str(each["verdict"]),
            *(["excluded"] if each.get("excluded_at") else []),
            *(["cannot start"] if each.get("cannot_start") else []),
        ]
        words.append(f"{each['id']} (revision {_short(each.get('revision'))}, {', '.join(notes)})")
    return ", ".join(words) or "no release"


def _named(hosts: Mapping[str, Answer], wanted: str) -> dict[str, str]:
    contents: dict[str, str] = {}
    for answer in hosts.values():
        for each in answer["releases"]:
            by_revision = len(wanted) >= 7 and str(each.get("revision") or "").startswith(wanted)
            if wanted in (each["id"], each["content"]) or by_revision:
                contents.setdefault(each["content"], each["id"])
    if len(contents) > 1:
        raise FleetError(
            f"release is {wanted!r}, a revision that several releases were made of. Name one by "
            f"its id, {' or '.join(sorted(contents.values()))}. " + _on_the_hosts(hosts)
        )
    found: dict[str, str] = {}
    lacking, broken = [], []
    for host, answer in hosts.items():
        same = [each for each in answer["releases"] if each["content"] in contents]
        able = [each["id"] for each in same if not each.get("cannot_start")]
        if able:
            # One content may be there for several Pythons: the id that was named, or the live one.
            found[host] = next((each for each in (wanted, answer["live"]) if each in able), able[0])
        elif same:
            broken.append(f"- {host}: {same[0]['id']}: {same[0]['cannot_start']}")
        else:
            lacking.append(host)
    if broken:
        raise FleetError(
            f"release is {wanted!r}, which cannot start on every host. Name another one, or "
            f"build it for the Python of the hosts with playbooks/deploy.yml "
            f"-e application_revision=REVISION:\n" + "\n".join(broken)
        )
    if lacking:
        where = "any host" if not found else " and ".join(lacking)
        raise FleetError(
            f"release is {wanted!r}, which is not on {where}. Name one that is on all of them, by "
            f"its id or its revision; or deploy it, if it is a revision of the repository, with "
            f"playbooks/deploy.yml -e application_revision={wanted}. " + _on_the_hosts(hosts)
        )
    return found


def drift(hosts: Mapping[str, Answer]) -> list[str]:
    """Return what differs between hosts, or is not as it should be on one of them."""
    found = []
    contents: dict[str, list[str]] = {}
    for host, answer in hosts.items():
        live = answer.get("release") or {}
        contents.setdefault(str(live.get("content") or "no release"), []).append(host)
        found += [f"{host}: {each}" for each in answer.get("drift", [])]
    if len(contents) > 1:
        parts = [f"{content} on {', '.join(names)}" for content, names in contents.items()]
        found.insert(0, f"hosts differ: {'; '.join(parts)}")
    return found


def down(hosts: Mapping[str, Answer]) -> dict[str, str]:
    """Return the hosts that serve nobody, and what is wrong with each."""
    return {
        host: ". ".join(answer.get("drift", [])) or _health(answer)
        for host, answer in hosts.items()
        if not all((answer.get(key) or {}).get("ok", True) for key in ("health", "site"))
    }


def _health(answer: Answer) -> str:
    health = answer.get("health") or {}
    if not health.get("ok"):
        return str(health.get("status") or health.get("error") or "unknown")
    site = answer.get("site") or {"ok": True}
    if not site["ok"]:
        return f"nginx: {site.get('status') or 'no answer'}"
    return f"ok, {health['milliseconds']} ms"


def _short(revision: object) -> str:
    commit, dash, dirty = str(revision or "-").partition("-")
    return (commit[:10] + dash + dirty) or "-"


def _row(host: str, answer: Answer) -> list[str]:
    live = answer.get("release") or {}
    memory, days, lock = (answer.get(key) for key in ("memory_bytes", "certificate_days", "lock"))
    since = re.sub(r"T(\d\d:\d\d).*", r" \1", str(live.get("activated_at") or "-"))
    return [
        host,
        str(live.get("id") or "none"),
        _short(live.get("revision")),
        since,
        str(live.get("activated_by") or "-"),
        str(live.get("verdict") or "-"),
        _health(answer),
        str(answer.get("workers", "-")),
        f"{memory >> 20} MiB" if isinstance(memory, int) else "-",
        "-" if days is None else f"{days:g} days",
        str(lock.get("owner")) if isinstance(lock, Mapping) else "-",
    ]


HEADINGS = (
    "HOST",
    "RELEASE",
    "REVISION",
    "SINCE (UTC)",
    "BY",
    "VERDICT",
    "HEALTH",
    "WORKERS",
    "MEMORY",
    "CERTIFICATE",
    "LOCK",
)


def report(application: str, hosts: Mapping[str, Answer], failed: Mapping[str, str]) -> str:
    """Return a table of hosts, with what is not as it should be below it.

    Args:
        application: its name, for the first line; empty for none.
        hosts: what `status --json` answered, by host.
        failed: why there is no answer, by host.
    """
    rows = [list(HEADINGS), *(_row(host, answer) for host, answer in hosts.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{application}:"] if application else []
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for host, answer in hosts.items():
        if isinstance(lock := answer.get("lock"), Mapping):
            lines.append(
                f"Lock on {host}: {lock.get('owner')} since {lock.get('since')}, "
                f"for {lock.get('reason')!r}."
            )
    for host, answer in hosts.items():
        if isinstance(told := answer.get("maintenance"), Mapping):
            since = f" since {told['since']}" if told.get("since") else ""
            who = f" by {told['by']}" if told.get("by") else ""
            why = f", for {told['reason']!r}" if told.get("reason") else ""
            lines.append(f"MAINTENANCE  {host}: clients get 503{since}{who}{why}.")
        if drained := answer.get("drained"):
            lines.append(f"DRAINED  {host}: balancers send nobody there, since {drained}.")
    lines += [f"NO ANSWER  {host}: {why}" for host, why in failed.items()]
    lines += [f"DRIFT  {each}" for each in drift(hosts)]
    if not failed and not drift(hosts):
        lines.append(
            "All hosts serve the same release, and it is healthy."
            if len(hosts) > 1
            else "The release is healthy."
        )
    return "\n".join(lines)


def as_data(
    application: str, hosts: Mapping[str, Answer], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Return the same for programs: `application`, `hosts`, `failed`, `drift`, `ok`."""
    found = drift(hosts)
    return {
        "application": application,
        "hosts": hosts,
        "failed": failed,
        "drift": found,
        "ok": not found and not failed,
    }


def as_json(application: str, hosts: Mapping[str, Answer], failed: Mapping[str, str]) -> str:
    """Return that in one line of JSON."""
    return json.dumps(as_data(application, hosts, failed), sort_keys=True)
