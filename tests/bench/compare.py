#!/usr/bin/env python3
"""`make bench`: the old way, a tutorial's and this project on one host: docs/comparison.md.

    .venv/bin/python tests/bench/compare.py [--part NAME]... [--rounds 3] [--page]

Provisions a host, sets up beside it what the project replaces, and measures all of them in turn.
What each part came to is kept in .cache/bench, so that a part can be measured again and the page
still has all of them; `--page` only writes it. With KEEP=1 the host stays.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "testhosts"), str(PROJECT / "tests" / "releases")]

import page  # noqa: E402
import parts  # noqa: E402
from rig import FOLDER, Rig, machine, say, versions  # noqa: E402


def keep(name: str, found: object) -> None:
    """Remember what a part came to."""
    path = FOLDER / f"{name}.json"
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(found, indent=1))
    scratch.replace(path)


def main() -> int:
    """Measure what the command line says, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=tuple(parts.PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    if options.page:
        page.write()
        return 0
    rig = Rig()
    wanted = options.part or list(parts.PARTS)
    if not options.part:
        for name in parts.PARTS:
            (FOLDER / f"{name}.json").unlink(missing_ok=True)
    try:
        prepared = False
        for name in wanted:
            start = time.monotonic()
            if name != "setup" and not prepared:
                rig.ready()
                prepared = True
                keep("machine", {**machine(), "versions": versions(rig)})
                say(f"host: ready after {time.monotonic() - start:.0f} s")
                start = time.monotonic()
            rows = parts.PARTS[name](rig, options.rounds)
            keep(name, {"date": time.strftime("%Y-%m-%d", time.gmtime()), "rows": rows})
            say(f"{name}: {time.monotonic() - start:.0f} s")
    finally:
        if not os.environ.get("KEEP"):
            rig.hosts.down()
    page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
