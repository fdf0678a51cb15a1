"""Show the journal of all processes of the application: service, handovers, checks, backups.

sudo <name> logs                        the last 100 lines
sudo <name> logs -f                     go on with each new line
sudo <name> logs --since "1 hour ago" --grep Traceback
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from .application import Application
from .errors import RefusedError

LINES = 100
# Behind the application's name; a worker or a timer has a name of its own behind that.
UNITS = (
    *(".service", "-standby.service"),
    *("-handover*", "-health*", "-backup*", "-worker-*", "-timer-*"),
)


def command(application: Application, options: argparse.Namespace) -> list[str]:
    """The command line of journalctl."""
    argv = ["journalctl", "--no-pager", "--no-hostname", "--output=short-iso"]
    argv += [f"--unit={application.name}{suffix}" for suffix in UNITS]
    lines = options.lines
    if lines is None and options.since is None:
        lines = LINES
    argv += [f"--lines={lines}"] if lines is not None else []
    argv += [f"--since={options.since}"] if options.since is not None else []
    argv += [f"--grep={options.grep}"] if options.grep is not None else []
    return [*argv, "--follow"] if options.follow else argv


def parse(application: Application, words: Sequence[str]) -> argparse.Namespace:
    """Read the words of the verb."""
    parser = argparse.ArgumentParser(
        prog=f"{application.name} logs",
        description=(__doc__ or "").replace("<name>", application.name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with each new line")
    add(
        *("-n", "--lines"),
        type=_lines,
        metavar="LINES",
        help=f"how many, or `all` (default: {LINES}, or all with --since)",
    )
    add("--since", metavar="TIME", help='such as "1 hour ago" or "2027-01-31 12:00"')
    add("--grep", metavar="TEXT", help="only lines that match this regular expression")
    return parser.parse_args(words)


def _lines(text: str) -> str:
    if not text.isdecimal() and text != "all":
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor `all`")
    return text


def pass_on(application: Application, _verb: str, words: Sequence[str]) -> int:
    """Become journalctl."""
    argv = command(application, parse(application, words))
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        raise RefusedError("This host has no journalctl") from None
