"""The releases of this host, and which of them you can roll back to.

    sudo <name> releases                    a table of the releases
    sudo <name> releases show ID            all that is known of a release
    sudo <name> releases suits ID           whether a release can work with the database as it is
    sudo <name> releases verify ID          compare its files with its manifest
    sudo <name> releases prune --keep 3     remove old ones; never the live one or the `next back`
    sudo <name> releases exclude ID --reason TEXT   exclude a release from future rollbacks
    sudo <name> releases exclude ID --undo          allow rollbacks to it again

site.yml does not deploy an excluded release again; playbooks/deploy.yml does.

`sudo <name> rollback` leads to the release that the table calls `next back`, on this host alone. A
fleet goes back with playbooks/rollback.yml.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from . import files, interpreter, jobs, readiness, records, removal, schema
from .answer import Answer, short_revision, short_time, table
from .application import Application
from .errors import HostError, RefusedError, UsageError
from .handover.config import Config
from .handover.waiting import wait_for_others
from .systemd import Systemd

ID = re.compile(r"[0-9A-Za-z_][\w.-]*")
LOCK_SECONDS = 60
# What is asked about one release.
NAMED = ("show", "suits", "verify", "exclude")

Release = dict[str, Any]


def all_of(application: Application) -> list[Release]:
    """What is known of each release on the host, the live one first, then the one before it.

    A release says of itself what it is made of (its manifest), its record what became of it.
    """
    releases = []
    live = application.live()
    faults: dict[str, str] = {}
    folder = application.releases
    for name in os.listdir(folder) if folder.is_dir() else []:
        path = folder / name
        manifest = files.read_json_if_possible(path / "manifest.json")
        if name.startswith(".") or not manifest or not os.path.lexists(path / "bin/python"):
            continue
        record = records.path_of(application.state, name)
        if record.exists() and not os.access(record, os.R_OK):
            raise RefusedError(f"{record} is for root alone, since {name} has failed: use sudo.")
        python = os.path.realpath(path / "bin/python")
        if python not in faults:
            faults[python] = interpreter.fault(python)
        releases.append(
            {
                **_made_of(name, manifest),
                **records.read(application.state, name),
                "live": name == live,
                # Of this moment: an upgrade of the system may take an interpreter away.
                "cannot_start": faults[python] or None,
            }
        )
    return sorted(releases, key=lambda each: (each["live"], order(each)), reverse=True)


def _made_of(name: str, manifest: dict[str, Any]) -> Release:
    """What is known of a release that has no record."""
    return {
        "id": name,
        "content": manifest.get("content") or name,
        "revision": manifest.get("revision"),
        "lock_sha256": manifest.get("lock_sha256"),
        "python": manifest.get("python"),
        "built_by": manifest.get("built_by"),
        "shipped_at": manifest.get("installed_at"),
        "verdict": records.UNJUDGED,
        "activated_at": None,
    }


def order(release: Release) -> tuple[str, str]:
    """Later when it was made live later; never by a file's time, which a copy changes."""
    return str(release.get("activated_at") or ""), str(release.get("shipped_at") or "")


def candidates(releases: list[Release]) -> list[str]:
    """Where a rollback without a name may lead, the best first.

    Judged healthy, and not left: whoever rolls back from a release does not want to come to it by
    rolling back once more, whatever its verdict was. Only one that can start, and not the live
    one's content built for another Python, which would change nothing.
    """
    live = next((each["content"] for each in releases if each["live"]), None)
    return [
        each["id"]
        for each in releases
        if each["verdict"] == records.HEALTHY
        and not each["live"]
        and not each.get("excluded_at")
        and not each["cannot_start"]
        and each["content"] != live
    ]


def named(releases: list[Release], name: str) -> Release:
    """The release of that id. Raises RefusedError with those that there are."""
    for each in releases:
        if each["id"] == name:
            return each
    there = ", ".join(each["id"] for each in releases) or "none"
    raise RefusedError(f"There is no release {name!r}. On this host are: {there}.")


def to_prune(application: Application, releases: list[Release], keep: int) -> list[str]:
    """Ids that may go: not the live, the next back, one in a handover or a job, nor `keep` more."""
    handover = removal.in_handover(application)
    back = candidates(releases)[:1]
    needed = jobs.releases_in_use(application)
    rest = [
        each["id"]
        for each in releases
        if not each["live"] and each["id"] not in (*back, *needed) and each["id"] not in handover
    ]
    return rest[keep:]


def foreseen(releases: list[Release], live: str) -> list[Release]:
    """The releases as they will be when that one has been made live, shipped before if need be."""
    others = [{**each, "live": False} for each in releases if each["id"] != live]
    # What has not been shipped yet has nobody's content but its own.
    new = {"id": live, "content": live, "cannot_start": None}
    release = next((each for each in releases if each["id"] == live), new)
    return [{**release, "verdict": records.HEALTHY, "live": True}, *others]


def prune(application: Application, keep: int, *, check: bool, live: str = "") -> Answer:
    """Remove old releases with their records.

    Args:
        keep: how many stay besides those that have to.
        check: only say it.
        live: say it for the time when this release is live.
    """
    lock = files.held(
        application.releases / ".lock",
        LOCK_SECONDS,
        RefusedError(
            f"Another process has been installing or removing releases for {LOCK_SECONDS} s. Let "
            f"it end, then run this again."
        ),
    )
    with lock if not check else contextlib.nullcontext():
        if application.live() is None:
            return Answer("No release is live yet, so all stay.", facts={"removed": []})
        releases = all_of(application)
        if check and live:
            releases = foreseen(releases, live)
        names = to_prune(application, releases, keep)
        if not check:
            names = [name for name in names if removal.remove(application, name)]
    verb = "Would remove" if check else "Removed"
    msg = f"{verb} {', '.join(names)}." if names else "There is nothing to remove."
    return Answer(msg, changed=bool(names), facts={"removed": names})


def mark_left(application: Application, name: str, by: str, reason: str, kind: str) -> None:
    """Exclude a release from future rollbacks."""
    if not records.read(application.state, name):
        # It may outlast the release, whose manifest says the rest until then.
        manifest = files.read_json_if_possible(application.releases / name / "manifest.json")
        records.update(application.state, name, _made_of(name, manifest))
    records.exclude(application.state, name, by, reason, kind)


def exclude(
    application: Application,
    name: str,
    reason: str,
    by: str,
    *,
    failed: bool,
    undo: bool,
    check: bool,
) -> Answer:
    """Exclude a release from future rollbacks, or allow them again."""
    release = named(all_of(application), name)
    if undo and not release.get("excluded_at"):
        return Answer(f"{name} was not left.")
    kind = records.FAILURE if failed else records.DECISION
    # What a failed deploy has left somebody may leave for good.
    if release.get("excluded_at") and not undo and (failed or records.is_decision(release)):
        return Answer(f"{name} was excluded at {release['excluded_at']} already.")
    if not check and undo:
        records.take_up(application.state, name)
    elif not check:
        mark_left(application, name, by, reason, kind)
    if undo:
        return Answer(f"{name} is no longer excluded: a rollback may lead to it.", changed=True)
    return Answer(f"{name} is excluded: a rollback no longer leads to it.", changed=True)


def placed(name: str, python: str) -> str:
    """Where a file of the bundle is in the release."""
    return name if name.startswith("app/") else f"lib/python{python}/{name}"


def placed_compiled(name: str, python: str) -> str:
    """Where Python keeps a source file of the bundle compiled."""
    folder, file = os.path.split(placed(name, python))
    tag = "cpython-" + python.replace(".", "")
    return os.path.join(folder, "__pycache__", f"{file[: -len('.py')]}.{tag}.pyc")


def verify(application: Application, name: str) -> Answer:
    """Compare the files of a release with its manifest. Raises HostError where they differ."""
    named(all_of(application), name)
    path = application.releases / name
    manifest = files.read_json_if_possible(path / "manifest.json")
    python = manifest["python"]
    expected = {placed(key, python): value for key, value in manifest["files"].items()}
    compiled = {
        placed_compiled(key, python): value for key, value in manifest.get("compiled", {}).items()
    }
    differences = []
    for top in ("app", f"lib/python{python}/site-packages"):
        for folder, _directories, entries in os.walk(path / top):
            for entry in entries:
                whole = Path(folder, entry)
                relative = str(whole.relative_to(path))
                digest = expected.pop(relative, compiled.get(relative))
                # Python compiles what was not.
                if digest is None and whole.parent.name == "__pycache__":
                    continue
                if digest is None:
                    differences.append(f"added: {relative}")
                elif files.digest(whole) != digest:
                    differences.append(f"changed: {relative}")
    differences += [f"missing: {each}" for each in expected]
    if differences:
        listed = "\n".join(sorted(differences))
        raise HostError(f"{path} is not what was installed:\n{listed}")
    return Answer(f"{name} is what was installed, {len(manifest['files'])} files.")


def require_start(release: Release) -> None:
    """Raise RefusedError where a release has lost its interpreter."""
    if release["cannot_start"]:
        raise RefusedError(
            f"Release {release['id']} cannot start: {release['cannot_start']}. Name another one, "
            f"or deploy its revision again, which builds it for the Python of this host."
        )


def suits(application: Application, name: str) -> Answer:
    """Ask a release whether it works with the database as it is. Raises RefusedError if not."""
    require_start(named(all_of(application), name))
    if not schema.is_known(application, name):
        return Answer(f"{name} has no database.")
    live = application.live()
    known = live is not None and schema.is_that_of(application, name, live)
    if live and known and readiness.is_ready(application, live):
        return Answer(f"The database suits {name}, whose migrations are those of {live}.")
    told = schema.ask(application, name)
    if not told.compatible:
        raise RefusedError(
            f"Release {name} cannot work with the database as it is, so it cannot be rolled back "
            f"to: {told.reason or 'its schema is another one'}. Name a later release, deploy a "
            f"repaired one, or restore a copy of the database first (sudo {application.name} "
            f"restore), which loses what was recorded since."
        )
    return Answer(f"The database suits {name}.", facts={"schema": told.facts()})


def listing(application: Application, wait_seconds: float = 0) -> Answer:
    """All releases, and where a rollback leads; first, wait for a handover that is under way."""
    if wait_seconds:
        end = time.monotonic() + wait_seconds
        wait_for_others(Config.read(application), Systemd(application.host), end)
    releases = all_of(application)
    back = candidates(releases)
    rows = [["", "RELEASE", "REVISION", "VERDICT", "LIVE SINCE (UTC)", "SHIPPED BY"]]
    for each in releases:
        mark = "live" if each["live"] else "next back" if each["id"] in back[:1] else ""
        verdict = str(each["verdict"]) + (", excluded" if each.get("excluded_at") else "")
        verdict += ", cannot start" if each["cannot_start"] else ""
        activated = short_time(each.get("activated_at"))
        shipped = str(each.get("shipped_by") or "-")
        rows.append(
            [mark, each["id"], short_revision(each["revision"]), verdict, activated, shipped]
        )
    notes = [
        f"{each['id']} cannot start: {each['cannot_start']}."
        for each in releases
        if each["cannot_start"]
    ]
    return Answer(
        "\n".join([table(rows), *notes])
        if releases
        else f"There is no release in {application.releases}.",
        facts={"live": application.live(), "releases": releases, "candidates": back},
    )


def show(application: Application, name: str) -> Answer:
    """All that is known of a release, a line for each thing."""
    release = named(all_of(application), name)
    rows = [
        [key, value if isinstance(value, str) else json.dumps(value)]
        for key, value in release.items()
    ]
    return Answer(name, facts={"release": release}, text=table(rows))


def operator() -> str:
    """Who runs this command, for the records."""
    return f"{os.environ.get('SUDO_USER') or 'root'}@{socket.gethostname()}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add = parser.add_argument
    add("what", nargs="?", default="list", choices=("list", *NAMED, "prune"))
    add("id", nargs="?", default="", metavar="ID", help=f"a release, for {', '.join(NAMED)}")
    add(
        "--wait",
        dest="wait_seconds",
        type=float,
        default=0,
        metavar="SECONDS",
        help="list: wait until no handover is under way, for so long",
    )
    add(
        "--keep",
        type=_count,
        default=3,
        metavar="N",
        help="prune: how many to keep besides the live one and the next back (default: 3)",
    )
    add("--reason", default="", metavar="TEXT", help="exclude: why")
    add("--failed", action="store_true", help="exclude: a deploy failed; the next may try it again")
    add("--undo", action="store_true", help="exclude: allow rollbacks to it again")
    add("--by", default="", metavar="WHO", help="exclude: who (default: whoever used sudo)")
    add("--check", action="store_true", help="prune, exclude: only say what would be done")
    add("--live", default="", metavar="ID", help="prune --check: as if this release were live")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return int(text)


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Do what is asked. Raises UsageError, RefusedError and HostError."""
    what, name = options.what, options.id
    if what in NAMED and not ID.fullmatch(name):
        raise UsageError(f"{what}: name a release, as `{application.name} releases` lists them")
    if what not in NAMED and name:
        raise UsageError(f"{what} takes no release, but was given {name!r}")
    if what in ("prune", "exclude") and os.geteuid() != 0:
        raise RefusedError("Only root may change releases: use sudo.")
    if what == "prune":
        return prune(application, options.keep, check=options.check, live=options.live)
    if what == "exclude":
        return exclude(
            application,
            name,
            options.reason,
            options.by or operator(),
            failed=options.failed,
            undo=options.undo,
            check=options.check,
        )
    if what == "list":
        return listing(application, options.wait_seconds)
    return {"show": show, "suits": suits, "verify": verify}[what](application, name)
