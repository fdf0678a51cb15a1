"""Whether a host is still as the last whole run of the playbook left it.

At its end a run notes how everything is that it looks at or relies on: files with owner, mode and
content, links, units that start at boot, packages, users, the live release. The note is the seal.
As long as the host is as noted, and what the run was given has not changed either, another run
would change nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import files, records, trees
from .application import Application
from .backup import settings
from .certificates import rehearsal, renewals
from .errors import HostError
from .http import NoAnswerError, get
from .maintenance import DRAINED as DRAINED_FLAG

SEAL = "var/lib/application-seal/seal.json"
RECORDS = "var/lib/config-tree"
VERSION = 1
# Beside the lock of deploys: which run has had it last.
LAST_RUN = "deploy-last.json"
# A file is hashed up to this size; of a larger one, size and time count.
HASHED_BYTES = 16 * 2**20
ANSWER_SECONDS = 10.0
# Directories of which it matters what else is in them. Whether a site is in maintenance does not.
LISTED = re.compile(r"etc/(?!systemd/system$|nginx/maintenance$)|usr/local/")
DRAINED = os.path.basename(DRAINED_FLAG)
# What a run looks at of the host itself.
FACTS = (
    *("apphost", "architecture", "cpus", "distribution", "distribution_version", "edited_files"),
    *("firewall", "foreign_files", "ipv6", "journal_limits", "logins", "memory_mib", "packages"),
    *("python", "renewals", "root", "selinux", "systemd"),
)
# When certbot asks the authority again about a renewal: it notes that twice a day.
ASKED = re.compile(rb"^ari_retry_after = \S+$", re.MULTILINE)
# Where programs and data are. Units have file systems of their own below /run, which come and go.
OURS = re.compile(r"/$|/(opt|usr|var|home|srv)\b")
# Outside of trees.
MORE = (
    *("etc/passwd", "etc/group", "etc/letsencrypt/renewal", "etc/selinux/targeted/active"),
    *("opt/certbot/current", "opt/certbot/current/manifest.json", "opt/certbot/current/bin/python"),
    # What a host and the one that watches it know each other by.
    *(f"etc/ssl/monitoring{name}" for name in ("", "/host.crt", "/host.key")),
)
# A unit in between comes to a rest soon, one way or the other.
UNSETTLED = ("activating", "deactivating", "reloading", "failed")
# A unit that a tree has, or adds to: that one is of a package, and goes on for ever.
OWN_UNIT = re.compile(r"/etc/systemd/system/([^/]+\.(?:service|socket|timer))(\.d/[^/]+)?$")
# Started by timers, and tried again by a run if they have failed.
TRIED = ("postgresql-archive.service",)


def noted(host: Path, seen: Mapping[str, Any]) -> dict[str, str]:
    """How everything is that matters, by what it is.

    Args:
        host: the root of its file system.
        seen: what the probe returns.
    """
    found = {f"fact {name}": _digest(repr(seen[name])) for name in FACTS if name in seen}
    found["noexec"] = " ".join(sorted(filter(OURS.match, seen.get("noexec", []))))
    for name, unit in seen["units"].items():
        if unit["enabled"]:
            found[f"unit {name}"] = unit["state"]
        elif name in TRIED and unit["state"] == "failed":
            found[f"unit {name}"] = "failed"
    applications = _applications(host)
    for application in applications:
        found.update(_data(application))
        found[f"files in {application.root}/static"] = _digest(repr(_sizes(application)))
    for path in sorted({*_paths(host), *(each for one in applications for each in _of(one))}):
        found[str(path)] = _state(path, listed=bool(LISTED.match(os.path.relpath(path, host))))
    return found


def _applications(host: Path) -> list[Application]:
    end = "-description"
    records = sorted((host / RECORDS).glob(f"*{end}.json"))
    return [Application(record.stem[: -len(end)], host) for record in records]


def _data(application: Application) -> dict[str, str]:
    """What changes all the time, of which it only matters that it is there."""
    found = {}
    try:
        names = application.database.files
    except (HostError, AttributeError, TypeError, ValueError):
        # The description is not as it was, which its file says.
        names = ()
    for name in names:
        path = application.data / name
        try:
            # The application can change everything there: nothing is opened, and no link followed.
            shown = os.lstat(path)
            filled = "filled" if shown.st_size else "empty"
            found[f"data {path}"] = f"{filled} {shown.st_dev}:{shown.st_ino}"
        except OSError:
            found[f"data {path}"] = "absent"
    try:
        backup = settings.read(application)
    except HostError:
        return found
    for mount in backup.mounts:
        found[f"mount {mount}"] = str(os.path.ismount(mount))
    try:
        with os.scandir(backup.directory) as entries:
            found[f"copies in {backup.directory}"] = "some" if any(entries) else "none"
    except OSError:
        found[f"copies in {backup.directory}"] = "absent"
    return found


def _sizes(application: Application) -> list[tuple[str, int]]:
    """What the web server serves by itself: names that have a hash in them, as a rule."""
    found = []
    for folder, _, names in os.walk(application.root / "static"):
        found += [(f"{folder}/{name}", os.lstat(f"{folder}/{name}").st_size) for name in names]
    return sorted(found)


def _paths(host: Path) -> Iterator[Path]:
    yield from (host / path for path in MORE)
    yield from _renewals(host)
    for record in sorted((host / RECORDS).glob("*.json")):
        yield record
        told = files.read_json_if_possible(record)
        for name in _names(told.get("files")):
            path = host / name.lstrip("/")
            yield from (path, path.parent)
            # What somebody adds to a unit.
            yield from sorted(path.parent.glob(f"{path.name}.d"))
            yield from sorted(path.parent.glob(f"{path.name}.d/*"))
        yield from (host / name.lstrip("/") for name in _names(told.get("directories")))
    for link in sorted((host / "etc/ssl/sites").glob("*")):
        for part in ("fullchain.pem", "privkey.pem"):
            # certbot's are links to links.
            yield from (link, link.resolve() / part, (link / part).resolve())


def _renewals(host: Path) -> Iterator[Path]:
    """All that certbot needs for a renewal, and whether the last rehearsal failed."""
    configuration = host / "etc/letsencrypt"
    yield host / "var/lib/certificates" / rehearsal.VERDICT
    for path in sorted((configuration / "renewal").glob("*.conf")):
        yield path
        yield from sorted((configuration / "live" / path.stem).glob("*.pem"))
        try:
            renewal = renewals.read(path)
        except OSError:
            continue
        account = renewal.settings.get("account", "none")
        directory = renewals.accounts_directory(configuration, renewal.server) / account
        yield from (directory, *(directory / name for name in renewals.ACCOUNT_FILES))


def _names(found: Any) -> list[str]:
    """Paths in a record, also in one that is damaged."""
    return [str(name) for name in found] if isinstance(found, (dict, list)) else []


def _of(application: Application) -> Iterator[Path]:
    """What belongs to an application."""
    kept = application.host / "var/lib/gunicorn-handover" / application.name
    yield from (application.root, application.releases, application.current, application.data)
    yield from (application.state / name for name in ("handover.json", "data.json"))
    yield from (kept, kept / "healthy.json", kept / "candidate.json")
    yield from sorted((application.etc / "credentials").glob("*"))
    yield from sorted((application.state / "workers").glob("*"))
    # What somebody has left is not deployed again.
    for record in sorted((application.state / "releases").glob("*.json")):
        if records.is_decision(files.read_json_if_possible(record)):
            yield record
    if application.current.is_symlink():
        release = os.path.basename(os.readlink(application.current))
        place = application.releases / release
        yield from (place, application.state / f"releases/{release}.json")
        yield from (place / "manifest.json", place / "bin/python", (place / "bin/python").resolve())


def _state(path: Path, listed: bool = False) -> str:
    """One line on how a path is. Follows no link."""
    try:
        found = os.lstat(path)
        owner = f"{found.st_uid}:{found.st_gid}"
        if stat.S_ISLNK(found.st_mode):
            return f"link to {os.readlink(path)} {owner}"
        said = f"{stat.S_IMODE(found.st_mode):o} {owner}"
        if stat.S_ISDIR(found.st_mode):
            # Whether the host is drained matters as little as whether a site is in maintenance.
            names = sorted({*os.listdir(path)} - {DRAINED}) if listed else None
            return f"directory {said}{'' if names is None else ' ' + _digest(repr(names))}"
        if not stat.S_ISREG(found.st_mode):
            return f"other {said}"
        if found.st_size > HASHED_BYTES:
            return f"file {said} {found.st_size} {found.st_mtime_ns}"
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            return f"file {said} {hashlib.sha256(ASKED.sub(b'', stream.read())).hexdigest()}"
    except OSError:
        # It is not there, or has just gone.
        return "absent"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(host: Path, seen: Mapping[str, Any], told: Mapping[str, Any], now: float) -> str:
    """Seal the host as it is. Returns why not, empty if it is sealed.

    Args:
        told: what the next run is to know again: `inputs`, `sources`, `questions`, `notices`; and
            `releases`, the live one by application; `locked`, those whose lock is on this host; and
            `run`, the token of the run that ends.
        now: seconds since the epoch.
    """
    why = _unfit(host, seen, told)
    if why:
        remove(host)
        return why
    path = host / SEAL
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    seal = {"version": VERSION, "at": now, "noted": noted(host, seen), **told}
    files.write_json(path, seal, 0o600)
    return ""


def note_run(state: Path, token: str) -> None:
    """Note which run has the lock of deploys, for as long as no other one has had it.

    Args:
        state: the directory of the lock.
        token: of the run.
    """
    files.write_json(state / LAST_RUN, {"token": token})


def _unfit(host: Path, seen: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """Why a host is not as the run that ends wanted it."""
    # A host that had the lock once has noted a run that was the last one there alone.
    for name in told["locked"]:
        # What that one has written looks as whole as what this one has.
        last = files.read_json_if_possible(Application(name, host).state / LAST_RUN)
        if last and last.get("token") != told["run"]:
            return f"another run has changed {name} since"
    unsettled: dict[str, tuple[str, ...]] = {}
    for record in sorted((host / RECORDS).glob("*.json")):
        try:
            written = trees.read(record)
            if written.pending or not trees.holds(written, host):
                return f"the files of {record.stem} are not what was written"
            for match in filter(None, map(OWN_UNIT.match, written.files)):
                unsettled[match[1]] = (*UNSETTLED, "inactive") if match[2] else UNSETTLED
        except (HostError, OSError, TypeError, ValueError, AttributeError) as error:
            return str(error)
    for name, release in told["releases"].items():
        current = Application(name, host).current
        if not current.is_symlink() or os.path.basename(os.readlink(current)) != release:
            return f"{name} has another release than {release} by now"
    names = tuple(f"{name}{end}" for name in told["releases"] for end in ".-")
    for unit, shown in seen["units"].items():
        states = unsettled.get(unit, UNSETTLED if unit.startswith(names) else ())
        if shown["enabled"] and shown["state"] in states:
            return f"{unit} is {shown['state']}"
    return next(_unanswered(told["questions"]), "")


def remove(host: Path) -> None:
    """Have the next run look at everything."""
    files.remove(host / SEAL)


def read(host: Path) -> dict[str, Any]:
    """The seal; empty where there is none that can be used."""
    found = files.read_json_if_possible(host / SEAL)
    return found if found.get("version") == VERSION else {}


def broken(
    host: Path,
    seal: Mapping[str, Any],
    seen: Mapping[str, Any],
    wanted: Mapping[str, Any],
    now: float,
) -> str:
    """Why another run is needed, as far as the host can tell; empty if there is no reason.

    Args:
        wanted: `hours` after which a seal is not believed, and `inputs`, a hash of what the run is
            given.
    """
    hours = wanted["hours"]
    if not seal and (host / SEAL).parent.is_dir():
        return "the last run was not a whole one, or did not end well"
    if not seal:
        return "no whole run has ended well on this host yet"
    if not 0 <= now - seal["at"] < hours * 3600:
        return f"the last whole run is more than {hours:g} hours ago"
    if seal["inputs"] != wanted["inputs"]:
        return "variables, the inventory, a role or a program has changed"
    was, is_now = seal["noted"], noted(host, seen)
    changed = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{changed[0]} is not as it was{more}"
    return next(_unanswered(seal["questions"]), "")


def _unanswered(questions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What is asked through the web server is not answered as it was."""
    for each in questions:
        try:
            answer = get(
                each["connect"], each["path"], deadline=ANSWER_SECONDS, name=each["name"], tls=True
            )
        except NoAnswerError as error:
            yield f"{each['name']}{each['path']} {error.words}"
            continue
        fault = answer.fault(each["status"], each["json"])
        if fault:
            yield f"{each['name']}{each['path']} {fault}"
