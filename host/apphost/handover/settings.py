"""The files that a service is started with: what changed in them, and how they are reverted."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import files


@dataclass(frozen=True)
class Setting:
    """One file, with all that it takes to write it again.

    Attributes:
        content: in base64.
        mtime: in nanoseconds.
    """

    content: str
    mode: int
    uid: int
    gid: int
    mtime: int

    @property
    def text(self) -> str:
        """The content, as people read it."""
        return base64.b64decode(self.content).decode(errors="replace")

    @property
    def written_at(self) -> float:
        """When it was written, in seconds, as units are dated."""
        return self.mtime / 1e9


Settings = dict[str, Setting]


def read(paths: Sequence[str]) -> Settings:
    """Those of the files that exist."""
    settings = {}
    for path in sorted(paths):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            settings[path] = Setting(
                base64.b64encode(Path(path).read_bytes()).decode(),
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
            )
    return settings


def changed(before: Settings, after: Settings) -> list[str]:
    """The paths of files that differ, are new or are gone."""

    def facts(settings: Settings, path: str) -> Any:
        setting = settings.get(path)
        return setting and (setting.content, setting.mode, setting.uid, setting.gid)

    return sorted(p for p in {*before, *after} if facts(before, p) != facts(after, p))


def revert(wanted: Settings, on_disk: Settings) -> None:
    """Make the files on disk those of `wanted`; the time stamps too, by which a start is dated."""
    for path in changed(wanted, on_disk):
        setting = wanted.get(path)
        if setting is None:
            files.remove(Path(path))
            continue
        content = base64.b64decode(setting.content)
        files.write_bytes(Path(path), content, setting.mode, (setting.uid, setting.gid))
        os.utime(path, ns=(setting.mtime, setting.mtime))


def directives(settings: Settings, path: str) -> list[str]:
    """A unit file without its comments: a changed comment reopens no socket."""
    if path not in settings:
        return []
    lines = (line.strip() for line in settings[path].text.splitlines())
    return [line for line in lines if line and line[0] not in "#;"]


@dataclass(frozen=True)
class Healthy:
    """What was judged healthy last.

    Attributes:
        invocation: the run of the service that was judged (its InvocationID).
        at: when.
        generation: of the workers that are live; empty without any.
    """

    release: str | None
    invocation: str
    settings: Settings
    at: str
    generation: str = ""

    @classmethod
    def read(cls, path: Path) -> Healthy | None:
        """What is in a file; None without one. Raises RefusedError where it cannot be read."""
        data = files.read_json(path)
        if data is None:
            return None
        settings = {name: Setting(**facts) for name, facts in data["settings"].items()}
        return cls(**{**files.known(cls, data), "settings": settings})

    def write(self, path: Path) -> None:
        """Keep it, for root alone: it holds credentials."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        files.write_json(path, asdict(self), 0o600)
