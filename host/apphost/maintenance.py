"""Take the site of <name> off the air for its clients, and put it back.

    sudo <name> maintenance on --reason TEXT
    sudo <name> maintenance off
    sudo <name> maintenance status      the same as `sudo <name> maintenance`

While it is on nginx answers 503, with a page or for programs a problem, and Retry-After. The
application runs on: health checks, the addresses in `site.maintenance_allow` of its description and
this host itself reach it as always, so that you can deploy and look at what you did. It stays on,
through runs of the playbook and reboots, until you turn it off.
"""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path
from typing import Any

from . import files
from .answer import Answer, short_time
from .application import Application
from .errors import RefusedError
from .times import UTC, stamp, written

# Where nginx looks for a file of each site, see its role.
DIRECTORY = "etc/nginx/maintenance"
# Of the host and all its applications: see the role nginx, and playbooks/drain.yml.
DRAINED = "etc/nginx/drained.on"
ON, OFF, STATUS = "on", "off", "status"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("wanted", nargs="?", choices=[ON, OFF, STATUS], default=STATUS)
    parser.add_argument("--reason", default="", help="why, shown in the status")
    parser.add_argument(
        "--by", default=os.environ.get("SUDO_USER", ""), help="who, shown in the status"
    )
    parser.add_argument("--check", action="store_true", help="say what would be done")


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Look, or switch it."""
    found = look(application)
    facts = {"maintenance": found}
    if options.wanted == STATUS:
        return Answer(sentence(application, found), facts=facts)
    if os.geteuid() != 0:
        raise RefusedError("Only root can do this: use sudo")
    if options.wanted == OFF and found and found["described"]:
        raise RefusedError(
            f"The description of {application.name} has it in maintenance: remove "
            f"`maintenance: true` from its site and run site.yml"
        )
    path = flag(application)
    if options.wanted == ON and not path.parent.is_dir():
        raise RefusedError(f"There is no {path.parent}: run site.yml, which sets nginx up for this")
    changed = bool(found) != (options.wanted == ON)
    if changed and not options.check and options.wanted == ON:
        files.write_json(path, {"since": stamp(), "by": options.by, "reason": options.reason})
    if changed and not options.check and options.wanted == OFF:
        files.remove(path)
    if options.check and changed:
        return Answer(f"Would turn maintenance {options.wanted}.", True, facts)
    now = look(application)
    return Answer(sentence(application, now), changed, {"maintenance": now})


def flag(application: Application) -> Path:
    """The file that has nginx answer in the application's place."""
    return application.host / DIRECTORY / f"{application.name}.on"


def look(application: Application) -> dict[str, Any] | None:
    """Since when, by whom and why it is in maintenance; None if it is not.

    `described` says whether the description wants it, which only a run of the playbook changes.
    """
    site = application.settings.get("site") or {}
    path = flag(application)
    if not path.exists() and not site.get("maintenance"):
        return None
    # An empty file does it too.
    told = files.read_json_if_possible(path)
    known = {key: str(told.get(key) or "") for key in ("since", "by", "reason")}
    return {**known, "described": bool(site.get("maintenance"))}


def drained(application: Application) -> str | None:
    """Since when the host's balancers are told to send nobody there; None if they are not."""
    changed = drained_at(application)
    return None if changed is None else written(datetime.datetime.fromtimestamp(changed, UTC))


def drained_at(application: Application) -> float | None:
    """The same in seconds since 1970."""
    try:
        return (application.host / DRAINED).lstat().st_mtime
    except OSError:
        return None


def words(found: dict[str, Any]) -> str:
    """Since when, by whom and why, as a part of a line."""
    parts = [
        f"since {short_time(found['since'])} UTC" if found["since"] else "",
        f"by {found['by']}" if found["by"] else "",
        "as its description says" if found["described"] else "",
    ]
    reason = f": {found['reason']}" if found["reason"] else ""
    return " ".join(["on", *filter(None, parts)]) + reason


def sentence(application: Application, found: dict[str, Any] | None) -> str:
    """How it is."""
    if found is None:
        return f"{application.name} is not in maintenance."
    end = (
        "a run of site.yml" if found["described"] else f"`sudo {application.name} maintenance off`"
    )
    return (
        f"Maintenance of {application.name} is {words(found)}. Its clients get 503; {end} ends it."
    )
