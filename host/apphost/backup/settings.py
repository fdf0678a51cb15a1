"""What the description's `backup` says, as the playbook writes it to /etc/<name>/backup.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..application import Application
from ..errors import RefusedError
from ..files import read_settings

KEEP = {"days": 7, "weeks": 5, "months": 12}
COMMAND_SECONDS = 3600


@dataclass(frozen=True)
class Settings:
    """Where copies go and how long they stay.

    Attributes:
        directory: of the copies.
        mounts: file systems that have to be there.
        keep: of how many `days`, `weeks` and `months` a copy stays.
        recipient: age's public key; empty for copies that are not encrypted.
        command: takes a copy off this host; words with `{file}`, `{record}`, `{directory}`.
        command_time_limit: its seconds.
    """

    directory: Path
    mounts: tuple[Path, ...]
    keep: dict[str, int]
    recipient: str
    command: tuple[str, ...]
    command_time_limit: float


def read(application: Application) -> Settings:
    """The settings of an application. Raises RefusedError where they are missing or wrong."""
    path = application.etc / "backup.json"
    content = read_settings(
        path,
        f"enable backups in the description of {application.name} (they are enabled by default) "
        f"and run the playbook (site.yml). Of hosts that share a database, only the first makes "
        f"copies",
    )
    default_directory = application.host / "var/backups" / application.name
    try:
        return Settings(
            directory=Path(content.get("directory", default_directory)),
            mounts=tuple(map(Path, content.get("mounts", []))),
            keep={**KEEP, **content.get("keep", {})},
            recipient=str(content.get("recipient", "")),
            command=tuple(map(str, content.get("command", []))),
            command_time_limit=float(content.get("command_time_limit", COMMAND_SECONDS)),
        )
    except (TypeError, ValueError) as error:
        raise RefusedError(
            f"{path} is not what the playbook writes ({error}): run it (site.yml)"
        ) from error
