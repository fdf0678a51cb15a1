"""A fleet under faults: docs/proof/fleet.md.

    .venv/bin/python tests/proof/faults.py [--case PATTERN]... [--databases N] [--growth] [--table]

Provisions two balancers, three hosts that serve and the database's hosts as containers, and tries
every fault of fleet_faults.py while an open-loop sender asks through both balancers. With `--case`
a part is tried again, and all other lines of the table stay as they are. `--growth` only measures
what a request costs, `--table` only writes. With KEEP=1 the hosts stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
sys.path[:0] = [str(PROJECT / "testhosts"), str(PROJECT / "tests" / "releases")]

from bench import FOLDER, RATE  # noqa: E402
from cases import tail  # noqa: E402
from engine import use_utf8  # noqa: E402
from fleet_faults import FAULTS, Fault  # noqa: E402
from fleet_growth import measure, table  # noqa: E402
from fleet_hosts import SCOPE, Fleet  # noqa: E402
from report import late, seconds  # noqa: E402

REPORT = PROJECT / "docs" / "proof" / "fleet.md"
KEPT = FOLDER / SCOPE / "outcomes.json"
COSTS = FOLDER / SCOPE / "costs.json"
HEAD = """# A fleet under faults

Made by `make proof` (tests/proof/faults.py; the faults are in tests/proof/fleet_faults.py): two
balancers, three hosts that serve and the database's hosts, containers with systemd, provisioned by
`site.yml`, with certificates from an ACME server. An open-loop sender asks through both balancers:
half `GET /api/v1/quote`, half `POST /api/v1/passages`, each with an idempotency key of its own. It
tries the other balancer where one does not take its connection. As HTTP clients do, it sends a
request once more if a connection that was kept open ends without a byte of an answer: nginx closes
idle connections when a host is drained, and a request may be on its way at that moment. The notes
count them; in what is planned none of them may have been done before. Times run from when a request
was due. Failed is every answer that is not 2xx, a reset, and no answer within
30 s; late is every good answer that took more than 1 s. After each fault, what got no answer was
sent again under its old key, and then the database was read: **missing** is what was acknowledged
and is not there, **doubled** what is there twice.
"""


def kept() -> dict[str, dict[str, Any]]:
    """What earlier runs came to, by case."""
    return dict(json.loads(KEPT.read_text())) if KEPT.exists() else {}


def row(outcome: Mapping[str, Any]) -> str:
    """A line of the table."""
    total = outcome["requests"]
    notes = [f"{name} {value}" for name, value in outcome["notes"].items() if name != "failures:"]
    # What was said is for who looks into it; here the status is enough.
    kinds: Counter[str] = Counter()
    for words, count in total["failures"].items():
        kinds[words.partition(":")[0]] += count
    notes += [f"{count} x {kind}" for kind, count in kinds.most_common()]
    if outcome["wrong"]:
        notes.insert(0, f"**wrong**: {' '.join(outcome['wrong'][0].split())[:160]}")
    cells = [
        outcome["case"],
        "no" if outcome["planned"] else "yes",
        str(total["sent"]),
        str(total["failed"] - late(total)),
        str(late(total)),
        seconds(total["slowest"]),
        str(outcome["acknowledged"]),
        str(outcome["lost"]),
        str(outcome["doubled"]),
        "; ".join(notes).replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |"


def earlier(page: str) -> dict[str, str]:
    """The lines of a page's table, by case."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and " | " in line]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def render(
    rows: Sequence[str],
    machine: str,
    missing: Sequence[str],
    costs: list[dict[str, Any]],
) -> str:
    """The page.

    Args:
        rows: of the table.
        machine: what it ran on, and when.
        missing: what there is no outcome of.
        costs: of fleet_growth.Cost, as dictionaries.
    """
    cells = [line.split(" | ") for line in rows]
    sent, told, lost, doubled = (sum(int(each[n]) for each in cells) for n in (2, 6, 7, 8))
    lines = [
        HEAD,
        f"{len(rows)} faults, {sent} requests, {told} acknowledged passages: {lost} missing, "
        f"{doubled} doubled.",
        "",
        "| what is done | may cost requests | requests | failed | late | slowest, s | acknowledged "
        "| missing | doubled | notes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *rows,
    ]
    if missing:
        lines += ["", "**Not tried**:", "", *(f"- {name}" for name in missing)]
    if costs:
        lines += table(costs)
    return "\n".join([*lines, "", machine, ""])


def write(whole: bool = False) -> None:
    """Write the table of everything that is known, in the order of the faults.

    Args:
        whole: whether lines that the page has from earlier are left out.
    """
    lines = {} if whole or not REPORT.exists() else earlier(REPORT.read_text())
    lines |= {title: row(outcome) for title, outcome in kept().items()}
    rows = [lines[fault.title] for fault in FAULTS if fault.title in lines]
    machine = (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores for hosts, control node and sender, "
        f"Linux {platform.release().split('-')[0]}, {RATE:g} requests a second."
    )
    missing = [fault.title for fault in FAULTS if fault.title not in lines]
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else []
    REPORT.write_text(render(rows, machine, missing, costs))


def attempt(fault: Fault, fleet: Fleet) -> bool:
    """Try a fault, say what it came to, and keep it; whether all was well."""
    print(f"{fault.title} ...", flush=True)
    outcome = fault.on(fleet)
    total = outcome.requests
    print(
        f"    {'WRONG' if outcome.wrong else 'ok'}: {total.sent} sent, {total.failed} failed or "
        f"late, slowest {total.slowest:.2f} s, {outcome.seconds:.0f} s, {outcome.notes}",
        *outcome.wrong,
        sep="\n    ",
        flush=True,
    )
    known = kept()
    known[fault.title] = asdict(outcome)
    KEPT.write_text(json.dumps(known, indent=1))
    return not outcome.wrong


def main() -> int:
    """Run what the command line says."""
    use_utf8()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", action="append", help="only faults whose title matches")
    parser.add_argument("--databases", type=int, default=3, help="hosts of the database")
    parser.add_argument("--growth", action="store_true", help="only what a request costs")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if options.table:
        write()
        return 0
    if not options.case and not options.growth:
        KEPT.unlink(missing_ok=True)
    fleet = Fleet(
        balancers=["lb1", "lb2"],
        web=["web1", "web2", "web3"],
        databases=[f"db{number + 1}" for number in range(options.databases)],
    )
    wrong = 0
    try:
        fleet.up()
        done = fleet.run("site")
        if done.returncode:
            raise SystemExit(tail(done.output, 60))
        print(f"provisioned in {done.seconds:.0f} s", flush=True)
        for fault in FAULTS:
            named = any(re.search(each, fault.title) for each in options.case or [""])
            if options.growth or not named or not fault.fits(fleet):
                continue
            wrong += not attempt(fault, fleet)
        if not options.case:
            costs = [asdict(measure(fleet, count + 1)) for count in range(len(fleet.web))]
            COSTS.write_text(json.dumps(costs))
    finally:
        write(whole=not options.case and not options.growth)
        if not os.environ.get("KEEP"):
            fleet.hosts.down()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
