"""The way back to a copy that was made before a migration, by the engine's own way."""

from __future__ import annotations

import json
from typing import Any

from . import migration, stop
from .answer import Answer
from .application import Application
from .backup import engine, restore
from .backup.replacement import moment, same_seeds
from .database import is_postgresql
from .errors import HostError, RefusedError
from .systemd import Systemd

READING = "Reading the copy"


def restore_copy(application: Application, name: str, by: str) -> Answer:
    """Make such a copy the database; what is there becomes one as well.

    Raises RefusedError before anything was stopped, and HostError that says what became of it.
    """
    if application.has("backup") or application.has("restore"):
        raise RefusedError(
            f"{application.name} has commands of its own for copies: use `sudo {application.name} "
            f"exec` with its command for restore"
        )
    live = application.live()
    if live is None or not application.database.kind:
        raise RefusedError(f"{application.name} has no live release, or no database")
    if not migration.BACKUP.fullmatch(name):
        raise RefusedError(f"{name!r} is not the name of a copy in {application.data}/backups")
    path = f"{migration.BACKUPS}/{name}"
    files = list(application.database.files)
    on_server = is_postgresql(application)
    told: dict[str, Any] = {"from": path, "files": files, "moment": moment()}
    told["items"] = []
    if not on_server:
        with restore.refusing():
            told["items"] = json.loads(engine.call(application, READING, "saved", **told))
    before = ""
    with restore.undisturbed():
        try:
            with stop.no_handover(application):
                stop.stop(application, Systemd(application.host))
                # All stay, or the wanted one might go. The next migration removes the surplus.
                before = migration.back_up(application, live, f"before_{live}", None)
                replace(application, on_server, told)
        except (HostError, OSError) as error:
            restore.start(application, f"after a failed restore of {name}", by)
            fate = "The data are as they were before, and the service runs."
            if on_server and before and not isinstance(error, (RefusedError, OSError)):
                # PostgreSQL may have committed before the connection was lost.
                fate = (
                    f"The service runs: look at what data it has. Those from before are in {before}"
                )
            raise HostError(f"{name} was not restored: {error}\n{fate}") from None
        replaced = f"The data that it replaced: {before}"
        try:
            restore.start(application, f"restore of {name}", by)
        except (HostError, OSError) as error:
            raise HostError(f"Restored {name}, but the service: {error}\n{replaced}") from None
    return Answer(f"Restored {name}. {replaced}", changed=True, facts={"replaced": before})


def replace(application: Application, on_server: bool, told: dict[str, Any]) -> None:
    """Make the copy the database, or leave everything as it is. Raises HostError."""
    if on_server:
        engine.call(application, "Loading the dump", "load", **told)
        return
    engine.call(application, "Tidying up", "recover", **told)
    try:
        engine.call(application, "Unpacking the copy", "stage-saved", **told)
        with same_seeds(application):
            engine.call(application, "Replacing the data", "swap", **told)
    except (HostError, OSError):
        engine.call(application, "Tidying up", "undo", **told)
        raise
    engine.call(application, "Tidying up", "finish", keep=False, **told)
