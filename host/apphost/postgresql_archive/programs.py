"""pgBackRest, psql and systemctl, and what they answer."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from typing import Any

from .points import Copy, Holdings
from .settings import ArchiveError, Settings

# Nothing of whoever calls this: PGHOST or PGBACKREST_REPO1_PATH would lead elsewhere.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
SHOWN_LINES = 8


def identity(told: Settings) -> dict[str, Any]:
    """How root starts a process of PostgreSQL's user."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(told.user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def run(told: Settings, *words: object) -> str:
    """What a program of PostgreSQL's user prints. Raises ArchiveError with what it said."""
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=ENVIRONMENT,
        umask=0o077,
        **identity(told),
    )
    if done.returncode:
        raise ArchiveError(said(done.stderr or done.stdout) or f"It ended with {done.returncode}")
    return done.stdout


def said(text: str) -> str:
    """The last lines of what a program said."""
    return "\n".join(text.strip().splitlines()[-SHOWN_LINES:])


def tool(told: Settings, command: str, *words: object) -> str:
    """What pgBackRest prints. Raises ArchiveError."""
    options = (f"--config={told.tool_configuration}", "--log-level-console=off")
    return run(told, told.tool, *options, "--log-level-stderr=warn", command, *words)


def of_stanza(told: Settings, command: str, *words: object) -> str:
    """The same, of this server. Raises ArchiveError."""
    return tool(told, command, f"--stanza={told.stanza}", *words)


def ask(told: Settings, statement: str) -> str:
    """What the server answers. Raises ArchiveError."""
    return run(
        told,
        told.programs / "psql",
        *("-XqAt", "-v", "ON_ERROR_STOP=1", "-h", told.sockets, "-p", told.port),
        *("-U", told.user, "-d", "postgres", "-c", statement),
    ).strip()


def holdings(told: Settings) -> Holdings:
    """What the archive has of this server. Raises ArchiveError if it cannot be read."""
    answer = json.loads(of_stanza(told, "info", "--output=json") or "[]")
    stanza = answer[0] if answer else {}
    systems = stanza.get("db") or []
    if not systems:
        return Holdings()
    current = max(systems, key=lambda each: int(each["id"]))
    found = Holdings(version=str(current["version"]), system=str(current["system-id"]))
    found.copies = [
        Copy(
            label=each["label"],
            kind=each["type"],
            stop=float(each["timestamp"]["stop"]),
            first=each["archive"]["start"],
            last=each["archive"]["stop"],
            lsn=each["lsn"]["stop"],
            size=int(each["info"]["size"]),
        )
        for each in stanza.get("backup") or []
        if each["database"]["id"] == current["id"] and not each["error"] and each["archive"]["stop"]
    ]
    directory = f"archive/{told.stanza}/{current['version']}-{current['id']}"
    listed = json.loads(tool(told, "repo-ls", "--output=json", "--recurse", directory) or "{}")
    for path, entry in listed.items():
        name = path.rpartition("/")[2]
        if entry["type"] != "file":
            continue
        found.add(name, float(entry["time"]))
    for timeline in found.timelines:
        text = tool(told, "repo-get", f"{directory}/{timeline:08X}.history")
        found.timelines[timeline].read(text)
    return found


def system_of(told: Settings) -> str:
    """What tells the server that runs from all others; empty if none runs."""
    try:
        return ask(told, "SELECT system_identifier FROM pg_control_system()")
    except ArchiveError:
        return ""


def is_standby(told: Settings) -> bool:
    """Whether another server is the one that writes. Raises ArchiveError if none answers."""
    return ask(told, "SELECT pg_is_in_recovery()") == "t"


def systemctl(*words: str) -> str:
    """What systemctl prints. Raises ArchiveError."""
    return _of_root("systemctl", *words)


def cluster(told: Settings, *words: str) -> str:
    """What the cluster's program prints; nothing on a host alone. Raises ArchiveError."""
    return _of_root(told.cluster, *words) if told.cluster else ""


def _of_root(*words: str) -> str:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ArchiveError(said(done.stderr or done.stdout))
    return done.stdout


def journal(unit: str, since: float) -> str:
    """What a unit said, without what systemd says of it."""
    done = subprocess.run(
        [
            *("journalctl", f"--since=@{int(since)}", "--output=cat", "--no-pager"),
            *("--lines=200", f"_SYSTEMD_UNIT={unit}"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return said(done.stdout)


def sentences(*parts: str) -> str:
    """Sentences in a row, each with a full stop."""
    return " ".join(
        part if part.endswith((".", ":", "!")) else f"{part}." for part in parts if part
    )
