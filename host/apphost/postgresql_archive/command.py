"""The archive of this host's PostgreSQL.

    sudo postgresql-archive                         what can be restored
    sudo postgresql-archive restore --to TIME       restore it, all databases at once
    sudo postgresql-archive restore --to TIME --check   say what that would do

TIME is such as '2026-11-29 20:15:00+00', `latest`, or the name of a copy. Stop what writes to the
databases first; playbooks/restore_database.yml does that.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import looking, replaying, restoring, settings
from .settings import ArchiveError, RefusedError

CHANGING = ("begin", "restore")
# What units run. A failure of theirs is one of the journal's errors.
OF_UNITS = ("check", "copy", "verify", "replay")
ERROR = "<3>"


def main(path: str, words: list[str] | None = None) -> int:
    """The exit status: 0 for done, 1 for failed, 2 where nothing was touched."""
    parser = argparse.ArgumentParser(
        prog="postgresql-archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = ["status", *CHANGING, *OF_UNITS]
    parser.add_argument("verb", nargs="?", default="status", choices=verbs)
    parser.add_argument("--to", default="", help="the point in time, latest, or a copy")
    parser.add_argument("--type", default="full", choices=["full", "diff"], help="of a copy")
    parser.add_argument("--check", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(words)
    code, changed = 0, options.verb in CHANGING
    try:
        text = done(settings.read(Path(path)), options)
    except ArchiveError as error:
        text, code, changed = str(error), error.code, error.code == 1 and changed
        if code == RefusedError.code:
            text = f"{text}. Nothing was changed."
    except (OSError, ValueError) as error:
        text, code, changed = str(error), 1, False
    if options.json:
        print(json.dumps({"changed": changed, "msg": text}))
    elif code:
        mark = ERROR if options.verb in OF_UNITS else ""
        print(*(f"{mark}{line}" for line in text.splitlines()), sep="\n", file=sys.stderr)
    else:
        print(text)
    return code


def done(told: settings.Settings, options: argparse.Namespace) -> str:
    """Do what is asked, and say what was done. Raises ArchiveError."""
    if options.verb == "restore":
        act = restoring.preview if options.check else restoring.restore
        return act(told, options.to)
    if options.verb == "begin":
        return "Would prepare the archive." if options.check else restoring.begin(told)
    if options.verb == "copy":
        return looking.copy(told, options.type)
    verbs = {
        "status": looking.status,
        "check": looking.check,
        "verify": looking.verify,
        "replay": replaying.replay,
    }
    return verbs[options.verb](told)
