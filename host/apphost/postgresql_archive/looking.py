"""How the archive does, and what its units do: `check` and `copy` of PostgreSQL's user."""

from __future__ import annotations

import time

from . import points, programs
from .settings import ArchiveError, Settings


def check(told: Settings) -> str:
    """Make the archive ready, and try it: a segment goes in. Raises ArchiveError.

    A standby has nothing to do; it archives when it becomes the primary.
    """
    if programs.is_standby(told):
        return "This server is a standby. The primary looks after the archive."
    held = programs.holdings(told)
    if not held.system:
        programs.of_stanza(told, "stanza-create")
    elif held.system != programs.system_of(told):
        raise ArchiveError(_of_another(told, held))
    # Writes a segment of the log, and waits for it.
    programs.of_stanza(told, "check")
    held = programs.holdings(told)
    if not held.copies:
        return "The log is archived. There is no copy yet."
    until, missing = points.gap(held)
    if missing:
        raise ArchiveError(
            f"Segment {missing} of the log is missing, so nothing after {points.shown(until)} can "
            "be restored. A new copy makes all later times restorable: systemctl start "
            "postgresql-copy-differential"
        )
    return f"The log is archived. {reached(told, held)}."


def _of_another(told: Settings, held: points.Holdings) -> str:
    """What it means that the archive has another database, and what to do."""
    if held.version != told.version:
        return (
            f"The archive is of PostgreSQL {held.version}, and this is {told.version}. After "
            f"pg_upgradecluster, continue with: sudo -u {told.user} pgbackrest "
            f"--stanza={told.stanza} stanza-upgrade; then systemctl start postgresql-copy-full"
        )
    parts = points.words(points.spans(held, time.time(), alive=False))
    return (
        "The archive has the data of another database. If this host is newly installed, restore "
        "them: playbooks/restore_database.yml -e application_restore_to=latest "
        f"({parts[:1].lower()}{parts[1:]}). If you do not need them any more: sudo -u {told.user} "
        f"pgbackrest --stanza={told.stanza} stanza-upgrade, then run site.yml again"
    )


def reached(told: Settings, held: points.Holdings) -> str:
    """Which points in time can be reached."""
    alive = bool(held.system) and held.system == programs.system_of(told)
    return points.words(points.spans(held, time.time(), alive=alive))


def copy(told: Settings, kind: str) -> str:
    """Copy the data, on the primary alone. Raises ArchiveError."""
    if programs.is_standby(told):
        return "This server is a standby. The primary makes the copies."
    programs.of_stanza(told, "backup", f"--type={kind}")
    newest = max(programs.holdings(told).copies, key=lambda each: each.stop)
    return f"Copied as {newest.label}, {newest.size // 2**20} MiB of data."


def verify(told: Settings) -> str:
    """Read all of the archive again. Raises ArchiveError if something is damaged.

    pgBackRest 2.45 ends with 0 whatever it has found, and says nothing unless it is asked for more.
    """
    said = programs.of_stanza(told, "verify", "--output=text", "--verbose")
    if "status: ok" not in said:
        raise ArchiveError(f"The archive is damaged:\n{said.strip()}")
    return "The whole archive was read, and is intact."


def status(told: Settings) -> str:
    """The archive, as people read it. Raises ArchiveError."""
    held = programs.holdings(told)
    if not held.system:
        return "The archive is empty."
    lines = [f"{reached(told, held)}.", ""]
    lines += [
        f"{each.label:<34} {each.kind:<5} {points.shown(each.stop)} {each.size // 2**20:>8} MiB"
        for each in sorted(held.copies, key=lambda each: each.stop)
    ]
    try:
        told_by_server = programs.ask(
            told,
            "SELECT CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN"
            " 'Archiving FAILS since ' || last_failed_time || ', with ' || last_failed_wal ELSE"
            " 'Last archived: ' || coalesce(last_archived_wal || ', ' || last_archived_time,"
            " 'nothing') END FROM pg_stat_archiver",
        )
    except ArchiveError as error:
        told_by_server = f"PostgreSQL does not answer: {error}"
    return "\n".join([*lines, "", told_by_server])
