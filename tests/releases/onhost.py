"""What the proof does on the host itself, as root: `onhost.py COMMAND < options.json`.

Takes its options as JSON, prints its result as JSON. Needs nothing but the host's Python.
"""

from __future__ import annotations

import contextlib
import glob
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

NAME = "toll-app"
ROOT = "/opt/toll-app"
STATE = ROOT + "/state"
SOCKET = "/run/gunicorn/toll-app.sock"
DATABASE = "/var/lib/toll-app/toll.db"
UNITS = (
    f"{NAME}.service",
    f"{NAME}.socket",
    f"{NAME}-standby.service",
    f"{NAME}-handover.service",
    "nginx.service",
)


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: str = "/readyz", seconds: float = 10.0) -> dict[str, Any]:
    """One request on a connection of its own; `status` is 0 where there is no answer."""
    connection = Connection(SOCKET, seconds)
    try:
        connection.request("GET", path, headers={"X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
        found: dict[str, Any] = {"status": response.status, "body": body[:500], "release": ""}
        with contextlib.suppress(ValueError, AttributeError):
            found["release"] = json.loads(body).get("release", "")
        return found
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "body": repr(error), "release": ""}
    finally:
        connection.close()


def read(path: str) -> Any:
    """A JSON file; None where there is none, or half of one."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def show(unit: str) -> dict[str, str]:
    """What systemd says of a unit."""
    wanted = "--property=ActiveState,SubState,MainPID,NRestarts,Result"
    said = subprocess.run(
        ["systemctl", "show", wanted, unit], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def state(times: int = 8) -> dict[str, Any]:
    """What the host is like: what runs, what answers, what is written down."""
    units = {unit: show(unit) for unit in UNITS}
    failed = subprocess.run(
        ["systemctl", "--failed", "--plain", "--no-legend"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    records = {}
    for path in glob.glob(f"{STATE}/releases/*.json"):
        records[os.path.basename(path)[: -len(".json")]] = read(path)
    current = ""
    with contextlib.suppress(OSError):
        current = os.path.basename(os.readlink(f"{ROOT}/current"))
    return {
        "current": current,
        "answers": [ask() for _ in range(times)],
        "units": units,
        "workers": len(children(int(units[f"{NAME}.service"]["MainPID"]))),
        "failed": failed.split("\n")[:-1],
        "handover": read(f"{STATE}/handover.json"),
        "records": records,
        "releases": sorted(os.listdir(f"{ROOT}/releases")) if current else [],
    }


def passages_table(connection: sqlite3.Connection) -> str:
    """The table that holds passages: the one with plates."""
    tables = [
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    found = [
        table
        for table in tables
        if any(row[1] == "plate" for row in connection.execute(f'PRAGMA table_info("{table}")'))
    ]
    if len(found) != 1:
        raise SystemExit(f"{DATABASE}: the table of passages is one of {found}")
    return found[0]


def stored(run: str) -> dict[str, Any]:
    """How often each plate of a run is in the database, and whether the file is sound.

    Plates of a run have five characters more (sender.py).
    """
    connection = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=30)
    with contextlib.closing(connection):
        table = passages_table(connection)
        rows = connection.execute(
            f'SELECT plate, count(*) FROM "{table}" WHERE plate LIKE ? GROUP BY plate',
            (f"{run}_____",),
        ).fetchall()
        [[sound]] = connection.execute("PRAGMA quick_check(1)").fetchall()
    return {"plates": dict(rows), "sound": sound}


# Whom `strike` can kill: the unit, and which of its processes.
VICTIMS = {
    "master": (f"{NAME}.service", "master"),
    "worker": (f"{NAME}.service", "worker"),
    "standby": (f"{NAME}-standby.service", "master"),
    "standby worker": (f"{NAME}-standby.service", "worker"),
    "handover": (f"{NAME}-handover.service", "master"),
}


def main_pid(unit: str) -> int:
    """The main process of a unit, 0 without one."""
    return int(show(unit)["MainPID"])


def strike(
    stage: str, victim: str = "", seconds: float = 60.0, after: float = 0.0, unlike: str = ""
) -> dict[str, Any]:
    """Wait until a handover comes to a stage, then kill somebody at once.

    Args:
        stage: which.
        victim: one of VICTIMS, or nobody.
        seconds: to wait for the stage.
        after: seconds to let pass in the stage.
        unlike: the id of a handover that is no news.

    Returns:
        `reached`; `killed`, empty where there was nobody to kill while the stage lasted; and the
        `stages` that were seen.
    """
    end = time.monotonic() + seconds
    seen: list[str] = []
    while time.monotonic() < end:
        found = read(f"{STATE}/handover.json") or {}
        now = found.get("stage", "")
        if unlike and found.get("id") == unlike:
            now = ""
        if now and (not seen or seen[-1] != now):
            seen.append(now)
        if now == stage:
            break
        time.sleep(0.002)
    else:
        return {"reached": False, "killed": [], "stages": seen}
    time.sleep(after)
    killed: list[int] = []
    # The process may come in the course of the stage.
    while victim and not killed and time.monotonic() < end:
        unit, which = VICTIMS[victim]
        pid = main_pid(unit)
        chosen = [pid] if which == "master" else children(pid)[:1]
        for number in chosen:
            if number:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
                    killed.append(number)
        if (read(f"{STATE}/handover.json") or {}).get("stage") != stage:
            break
    return {"reached": True, "killed": killed, "stages": seen}


def fill(folder: str, pattern: str, seconds: float = 120.0) -> dict[str, Any]:
    """Wait until something appears in a folder, then fill its file system to the last byte.

    Args:
        folder: which; the file system's only purpose should be this.
        pattern: of the name.
        seconds: to wait for it.

    Returns:
        `bytes` that were written, 0 when nothing appeared.
    """
    end = time.monotonic() + seconds
    while not glob.glob(os.path.join(folder, pattern)):
        if time.monotonic() > end:
            return {"bytes": 0}
        time.sleep(0.001)
    written = 0
    block = b"\0" * 65536
    with open(os.path.join(folder, "filler"), "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                written += file.write(block)
    return {"bytes": written}


COMMANDS: dict[str, Callable[..., Any]] = {
    "ask": ask,
    "fill": fill,
    "read": read,
    "state": state,
    "stored": stored,
    "strike": strike,
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](**json.load(sys.stdin))))
