"""Releases that replace each other under load, and all that can go wrong: docs/proof/releases.md.

    .venv/bin/python tests/proof/releases.py [--system NAME]... [--case PATTERN]... [--table]

Tries every case of tests/releases/cases.py on the hosts of the Molecule scenario `release`, one
system after the other, and writes the table and a picture of one deploy (docs/proof/deploy.svg).
What each case came to is kept, so that a part can be tried again (`--case`) and the table still has
all of them; `--table` only writes both. With KEEP=1 the hosts stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
sys.path[:0] = [str(PROJECT / "testhosts"), str(PROJECT / "tests" / "releases")]

from bench import FOLDER, RATE, Host, host_variables  # noqa: E402
from cases import CASES, Case, Outcome, drawn  # noqa: E402
from engine import Engine, use_utf8  # noqa: E402
from hosts import Hosts  # noqa: E402
from picture import PICTURE, Deploy  # noqa: E402
from picture import render as draw  # noqa: E402
from report import render  # noqa: E402

SCENARIO = "release"
INVENTORY = PROJECT / ".cache" / "molecule" / SCENARIO
SYSTEMS = ("debian12", "debian13")
REPORT = PROJECT / "docs" / "proof" / "releases.md"
KEPT = FOLDER / "outcomes.json"


def molecule(command: str) -> None:
    """Run a command of Molecule for the scenario.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run(
        [str(Path(sys.executable).with_name("molecule")), command, "--scenario-name", SCENARIO],
        cwd=PROJECT,
        check=True,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(PROJECT / ".ansible"),
            "MOLECULE_COMMAND_BORDERS": "0",
        },
    )


def kept() -> dict[str, dict[str, Any]]:
    """What earlier runs came to, by case and system."""
    return dict(json.loads(KEPT.read_text())) if KEPT.exists() else {}


def keep(outcome: Outcome) -> None:
    """Remember what a case came to."""
    known = kept()
    known[f"{outcome.case} on {outcome.system}"] = asdict(outcome)
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    scratch = KEPT.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(known, indent=1))
    scratch.replace(KEPT)


def attempt(case: Case, host: Host) -> Outcome:
    """Try a case, and say what it came to."""
    print(f"{host.name}: {case.title} ...", flush=True)
    outcome = case.on(host)
    total = outcome.requests
    verdict = "ok" if not outcome.wrong else "WRONG"
    print(
        f"{host.name}: {case.title}: {verdict}, {outcome.end}, {total.sent} sent, "
        f"{total.failed} failed, slowest {total.slowest:.2f} s, {outcome.seconds:.1f} s "
        f"{outcome.notes}",
        flush=True,
    )
    for wrong in outcome.wrong:
        print(f"    {wrong}", flush=True)
    keep(outcome)
    return outcome


def write() -> None:
    """Write the table of everything that is known, in the order of the cases, and the picture."""
    known = kept()
    wanted = [f"{case.title} on {system}" for case in CASES for system in SYSTEMS]
    rows = [known[key] for key in wanted if key in known]
    machine = (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores for hosts, control node and sender, "
        f"Linux {platform.release().split('-')[0]}, {RATE:g} requests a second."
    )
    page = render(rows, machine, [key for key in wanted if key not in known])
    if (records := drawn(SYSTEMS[-1])).exists():
        PICTURE.write_text(draw(Deploy.load(records)))
        page += f"\n![A deploy under load: each dot is a request]({PICTURE.name})\n"
    REPORT.write_text(page)


def main() -> int:
    """Run what the command line says."""
    use_utf8()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--system", action="append", choices=SYSTEMS)
    parser.add_argument("--case", action="append", help="only cases whose title matches")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if options.table:
        write()
        return 0
    wanted = [
        case
        for case in CASES
        if not options.case or any(re.search(pattern, case.title) for pattern in options.case)
    ]
    if not options.case and not options.system:
        KEPT.unlink(missing_ok=True)
    molecule("converge")
    wrong = 0
    try:
        testhosts = Hosts(Engine(), scope="", network="", say=print)
        for system in options.system or SYSTEMS:
            host = Host(system, host_variables(INVENTORY, system), testhosts)
            for case in wanted:
                wrong += bool(attempt(case, host).wrong)
    finally:
        write()
        if not os.environ.get("KEEP"):
            molecule("destroy")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
