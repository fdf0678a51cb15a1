"""What the data of an application consist of, and who copies its database."""

from __future__ import annotations

from dataclasses import dataclass

from ..application import Application
from ..errors import RefusedError

# In a copy; a file of SQLite has its own name there.
DUMP = "postgresql.dump"


@dataclass(frozen=True)
class Parts:
    """What a copy holds.

    Attributes:
        kind: of the database, `sqlite` or `postgresql`; empty without one.
        databases: by their names in a copy.
        directories: with files, below the directory of data.
        own: whether the application has commands that copy and restore its database.
    """

    kind: str
    databases: tuple[str, ...]
    directories: tuple[str, ...]
    own: bool

    @property
    def alone(self) -> bool:
        """Whether it is a database and nothing else, which is copied as it is."""
        return len(self.databases) == 1 and not self.directories

    @property
    def suffix(self) -> str:
        """Of the name of a copy."""
        if not self.alone:
            return "tar"
        return "sqlite" if self.kind == "sqlite" else "dump"

    @property
    def files(self) -> tuple[str, ...]:
        """Those of SQLite that are copied and replaced without the application."""
        return self.databases if self.kind == "sqlite" and not self.own else ()


def parts_of(application: Application) -> Parts:
    """What an application has. Raises RefusedError for one without data."""
    database = application.database
    own = bool(database.kind) and (application.has("backup") or application.has("restore"))
    databases = {"sqlite": database.files, "postgresql": (DUMP,)}.get(database.kind, ())
    found = Parts(database.kind, databases, application.directories, own)
    if own and len(databases) > 1:
        raise RefusedError(
            f"The description of {application.name} has commands that copy one database, and "
            f"{len(databases)} files in `data.sqlite`: leave the commands out"
        )
    if not databases and not found.directories:
        raise RefusedError(
            f"{application.name} has no data in its description (`data.sqlite`, "
            f"`data.database_url`, `data.directories`), so there is nothing to copy or to restore"
        )
    return found
