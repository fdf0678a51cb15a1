"""Make a release live, or load changed settings, without losing a request.

Without RELEASE, the current one is started again if the settings on disk differ from those that it
runs with, and with --restart in any case.

Exit code 0: the service is live, was judged healthy, and stayed so for the bake time. 1: it was
judged bad, and what was live before is live again. 2: nothing was tried.

The work is done in the unit <name>-handover.service, so it goes on if your terminal closes, and
there is one handover at a time. One that was killed is started again, and goes back to what was
live before; so does the next handover, and the host when it boots.
"""

from __future__ import annotations

import argparse
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from .. import records, releases
from ..answer import Answer
from ..application import Application
from ..errors import REFUSED, RefusedError
from ..systemd import Systemd
from . import boot, unit
from .config import Config
from .plan import live_and_healthy, make_plan
from .service import Service
from .state import Result, State
from .waiting import wait_for_others


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "release", nargs="?", type=_release, help="the current one again if left out"
    )
    parser.add_argument("--restart", action="store_true", help="also if nothing has changed")
    parser.add_argument(
        "--if-suits",
        action="store_true",
        help="only if the release can work with the database as it is",
    )
    parser.add_argument(
        "--exclude",
        action="store_true",
        help="once it is healthy, exclude the release that was live from future rollbacks",
    )
    parser.add_argument(
        "--instead-of", type=_release, metavar="RELEASE", help="only if this release is live"
    )
    parser.add_argument("--reason", default="", help="why, for the records")
    parser.add_argument(
        "--by", default=os.environ.get("SUDO_USER", ""), help="who, for the records"
    )
    parser.add_argument(
        "--wait",
        dest="wait_seconds",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long to wait for another handover",
    )
    parser.add_argument("--check", action="store_true", help="say what would be done")
    parser.add_argument(
        "--preview", action="store_true", help="the same for a release that is not shipped yet"
    )
    # With Ansible's --check they are not on disk yet.
    parser.add_argument("--new-settings", action="store_true", help=argparse.SUPPRESS)
    # For the units.
    parser.add_argument("--boot", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", metavar="REQUEST", help=argparse.SUPPRESS)


def _release(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a release")
    return text


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Do it."""
    try:
        if os.geteuid() != 0:
            raise RefusedError("Only root can do this: use sudo")
        config, systemd = Config.read(application), Systemd(application.host)
        if options.boot:
            return revert_at_boot(config, systemd, options.json)
        if options.run:
            result = unit.work(config, systemd, options)
            # The journal that is quoted there is in the journal.
            quoted = result.msg.partition("\nThe end of its journal:")[0]
            return replace(result, msg=quoted).as_answer()
        return request(config, systemd, options).as_answer()
    except RefusedError as error:
        return Result(False, f"{error}.", options.release, code=REFUSED).as_answer()


def revert_at_boot(config: Config, systemd: Systemd, as_json: bool) -> Answer:
    """Before the service starts, or when a run of the playbook has failed."""
    lines: list[str] = []
    report: Callable[[str], None] = lines.append if as_json else print
    try:
        with unit.locked(config):
            changed = boot.revert_unjudged(Service(config, systemd, report))
    except unit.BusyError:
        # The handover that is under way judges what is there.
        changed = False
    return Answer("\n".join(lines), changed)


def request(config: Config, systemd: Systemd, options: argparse.Namespace) -> Result:
    """Have the unit hand over, and follow it. Raises RefusedError."""
    report: Callable[[str], None] = (lambda line: None) if options.json else print
    end = time.monotonic() + options.wait_seconds
    while True:
        wait_for_others(config, systemd, end)
        if options.instead_of:
            _require_live(Service(config, systemd), options.instead_of)
        if options.check or options.preview or not _moves(Service(config, systemd), options):
            result = preview(config, systemd, options)
            if not result.changed and not (options.check or options.preview):
                # What others wrote into the service's tree needs no start of it.
                Service(config, systemd).mark_applied()
            if options.check or options.preview or not result.changed:
                return result
        name = uuid.uuid4().hex[:12]
        if unit.start(config, systemd, name, options):
            return unit.follow(config, systemd, name, report)


def _require_live(service: Service, release: str) -> None:
    """Raise RefusedError where another release is live than the one that was decided about."""
    live = service.current()
    if live != release:
        raise RefusedError(
            f"{live or 'No release'} is live by now, and no longer {release}: look at `sudo "
            f"{service.config.name} releases`, and decide again"
        )


def _moves(service: Service, options: argparse.Namespace) -> bool:
    """Whether another release is wanted that is here; the unit looks at all else by itself."""
    wanted = options.release
    return wanted is not None and wanted != service.current() and wanted in service.releases()


def preview(config: Config, systemd: Systemd, options: argparse.Namespace) -> Result:
    """What would be done. Raises RefusedError where nothing would be tried."""
    service = Service(config, systemd)
    state = State.read(config)
    if state is not None:
        msg = f"It would go back from what was interrupted in stage {state.stage}."
        return Result(True, msg, options.release)
    if options.preview and options.release and config.root is not None:
        if options.release not in service.releases():
            msg = (
                f"It would hand over to release {options.release} when it is here: "
                f"release {service.current() or 'none'} is live."
            )
            return Result(True, msg, options.release)
    plan = make_plan(service, options.release, options.restart)
    if options.new_settings and not plan.reasons:
        plan.reasons.append("its settings change")
    if not plan.reasons and not plan.disabled:
        msg = f"{live_and_healthy(plan.release)}; nothing to do."
        return Result(False, msg, plan.release, plan.previous, records.HEALTHY)
    if options.if_suits and plan.release is not None:
        releases.suits(config.application, plan.release)
    reasons = "; ".join(plan.reasons) or f"not enabled: {', '.join(plan.disabled)}"
    return Result(True, f"It would hand over {plan.title}: {reasons}.", options.release)
