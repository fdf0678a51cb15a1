"""The table of docs/proof/releases.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ledger import SLOW

HEAD = """# Releases under load

Made by `make proof` (tests/proof/releases.py; the cases are in tests/releases/cases.py). An
open-loop sender asks through nginx over TLS, whatever the answers take: half `GET /api/v1/quote`,
half `POST /api/v1/passages`, each with an idempotency key of its own. Times run from when a request
was due. Failed is every answer that is not 2xx, a reset, and no answer within 30 s (10 s while a
host restarts); late is every good answer that took more than 1 s. Late is as wrong as failed, but
where the last process that could serve was killed or the host restarted. After each case, what got
no answer was sent again under its old key, and then the database was read: each acknowledged
passage was there exactly once, unless the row says otherwise.
"""


def seconds(value: float) -> str:
    """Two digits where they say something."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def late(summary: Mapping[str, Any]) -> int:
    """How many of the failures are good answers that came late."""
    return int(summary["failures"].get(SLOW, 0))


def row(outcome: Mapping[str, Any]) -> str:
    """A line of the table."""
    total = outcome["requests"]
    notes = [f"{name} {value}" for name, value in outcome["notes"].items()]
    if outcome["wrong"]:
        notes.insert(0, f"**wrong**: {' '.join(outcome['wrong'][0].split())[:160]}")
    cells = [
        outcome["case"],
        outcome["system"],
        str(total["sent"]),
        str(total["failed"] - late(total)),
        str(late(total)),
        seconds(total["slowest"]),
        outcome["end"],
        f"{outcome['seconds']:.1f}",
        "; ".join(notes).replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |"


def latency(outcome: Mapping[str, Any]) -> str:
    """A line of the table of latencies: steady state next to what was done, in one run."""
    steady, during = outcome["steady"], outcome["during"]
    ratio = during["p99"] / steady["p99"] if steady["p99"] else 0.0
    cells = [
        outcome["case"],
        outcome["system"],
        *(
            f"{1000 * part[figure]:.0f} ms"
            for part in (steady, during)
            for figure in ("p50", "p99", "slowest")
        ),
        f"**{ratio:.2f}**",
    ]
    return f"| {' | '.join(cells)} |"


def render(outcomes: Sequence[Mapping[str, Any]], machine: str, missing: Sequence[str] = ()) -> str:
    """The page.

    Args:
        outcomes: of cases.Outcome, as dictionaries.
        machine: what it ran on, and when.
        missing: what there is no outcome of.
    """
    sent = sum(outcome["requests"]["sent"] for outcome in outcomes)
    slow = sum(late(outcome["requests"]) for outcome in outcomes)
    failed = sum(outcome["requests"]["failed"] for outcome in outcomes) - slow
    acknowledged = sum(outcome["acknowledged"] for outcome in outcomes)
    wrong = [outcome for outcome in outcomes if outcome["wrong"]]
    measured = [outcome for outcome in outcomes if outcome["steady"]["sent"] >= 300]
    lines = [
        HEAD,
        f"{len(outcomes)} rows: {sent} requests, {failed} failed, {slow} late; {acknowledged} "
        f"acknowledged passages; {len(wrong) or 'no'} {'row' if len(wrong) == 1 else 'rows'} "
        "not as wanted.",
        "",
        "| case | system | requests | failed | late | slowest, s | end | seconds | notes |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
        *(row(outcome) for outcome in outcomes),
    ]
    if missing:
        lines += [
            "",
            f"**Not tried in these runs**, {len(missing)} rows:",
            "",
            *(f"- {name}" for name in missing),
        ]
    if measured:
        lines += [
            "",
            "## Latency in a deploy, next to steady state in the same run",
            "",
            "| case | system | steady p50 | p99 | slowest | deploy p50 | p99 | slowest | ratio |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(latency(outcome) for outcome in measured),
        ]
    return "\n".join([*lines, "", machine, ""])
