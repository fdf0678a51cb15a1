"""Roll back to an earlier release, on this host alone.

    sudo <name> rollback                     to the release that `releases` calls `next back`
    sudo <name> rollback ID --reason slow    to another one
    sudo <name> rollback --check             say where it would lead, and do nothing

The release that was live is excluded: a later rollback does not lead to it, and site.yml does not
deploy it again. If the handover fails, it stays live and is not excluded. A fleet rolls back with
playbooks/rollback.yml.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from typing import Any

from . import releases
from .answer import Answer
from .application import Application
from .errors import REFUSED, HostError, RefusedError, UsageError

# For another handover to end.
WAIT_SECONDS = 60


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add = parser.add_argument
    add("id", nargs="?", default="", metavar="ID", help="the release (default: the next back)")
    add("--reason", default="", metavar="TEXT", help="why, for the records")
    add("--by", default="", metavar="WHO", help="who, for the records (default: whoever used sudo)")
    add("--check", action="store_true", help="say what would be done, and do nothing")


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Go back. Raises RefusedError where nothing was touched, HostError where it failed."""
    if options.id and not releases.ID.fullmatch(options.id):
        raise UsageError(f"name a release, as `{application.name} releases` lists them")
    if os.geteuid() != 0:
        raise RefusedError("Only root can roll back: use sudo.")
    known = releases.all_of(application)
    live = next((each for each in known if each["live"]), None)
    if live is None:
        raise RefusedError("No release is live, so there is nothing to roll back from.")
    target = choose(application, known, options.id)
    facts = {"release": target, "previous": live["id"]}
    if target == live["id"]:
        return Answer(f"{target} is live already.", facts=facts)
    releases.require_start(releases.named(known, target))
    if options.check:
        releases.suits(application, target)
        return Answer(f"Would roll back from {live['id']} to {target}.", changed=True, facts=facts)
    reason = options.reason or f"rolled back to {target}"
    by = options.by or releases.operator()
    result = hand_over(application, live["id"], target, reason, by)
    return Answer(
        f"Rolled back from {live['id']} to {target}. {live['id']} is excluded: a rollback no "
        f"longer leads to it.",
        changed=True,
        facts={**facts, "handover": result},
    )


def choose(application: Application, known: list[releases.Release], name: str) -> str:
    """The release to go back to. Raises RefusedError if there is none."""
    if name:
        return str(releases.named(known, name)["id"])
    back = releases.candidates(known)
    if not back:
        there = ", ".join(each["id"] for each in known)
        raise RefusedError(
            f"No other release that was judged healthy and can start is on this host, so there is "
            f"nothing to roll back to. Name one of those that are here ({there}): sudo "
            f"{application.name} rollback ID. Or deploy one."
        )
    return back[0]


def hand_over(
    application: Application, live: str, target: str, reason: str, by: str
) -> dict[str, Any]:
    """Make the other release live in place of the one that is; return what the handover says.

    Raises HostError where it fails.
    """
    argv = [
        # Meanwhile it is asked whether the database suits it.
        *(str(application.command), "handover", target, "--if-suits", "--exclude", "--json"),
        # Another one may go live while this waits: then it is that one that somebody wants away.
        *("--instead-of", live),
        *("--reason", reason, "--by", by, "--wait", str(WAIT_SECONDS)),
    ]
    try:
        # What it writes to standard error on its way is for whoever waits.
        result = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    except KeyboardInterrupt:
        raise HostError(
            f"Interrupted. The handover to {target} keeps running: see `sudo {application.name} "
            f"status`."
        ) from None
    except OSError as error:
        raise RefusedError(
            f"{argv[0]} cannot be run: {error.strerror}. {live} is live, as before."
        ) from error
    answer = _answer(result.stdout)
    if result.returncode == 0:
        return answer
    words = str(answer.get("msg") or result.stdout.strip() or f"exit code {result.returncode}")
    failure = RefusedError if result.returncode == REFUSED else HostError
    if application.live() != live:
        raise failure(
            f"The handover to {target} failed. {application.live() or 'No release'} is live in "
            f"place of {live}:\n{words}"
        )
    raise failure(f"The handover to {target} failed. {live} is live, as before:\n{words}")


def _answer(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
