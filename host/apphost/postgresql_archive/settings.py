"""What the role says of the server and its archive, from one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ArchiveError(Exception):
    """It could not be done; the message says why, what became of it, and what to do."""

    code = 1


class RefusedError(ArchiveError):
    """Nothing was touched; the message says why and what to do."""

    code = 2


@dataclass(frozen=True)
class Settings:
    """What the program is told.

    Attributes:
        version: of PostgreSQL.
        user: as whom it runs.
        programs: directory of its programs.
        data: its directory of data.
        configuration: its postgresql.conf.
        sockets: directory of its sockets.
        port: names its socket.
        unit: that runs it.
        stanza: what pgBackRest calls it.
        tool: pgBackRest.
        tool_configuration: what pgBackRest reads.
        cluster: the program of the cluster that this host is a member of; empty if it is alone.
        request: where root writes what is to be replayed.
    """

    version: str
    user: str
    programs: Path
    data: Path
    configuration: Path
    sockets: Path
    port: int
    unit: str
    stanza: str
    tool: Path
    tool_configuration: Path
    cluster: str
    request: Path


PATHS = ("programs", "data", "configuration", "sockets", "tool", "tool_configuration", "request")


def read(path: Path) -> Settings:
    """The settings in a file. Raises OSError, ValueError or TypeError where they are not there."""
    told: dict[str, Any] = json.loads(path.read_bytes())
    return Settings(**{**told, **{key: Path(told[key]) for key in PATHS}})
