"""Where everything of an application is on its host, and what its description says."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import RefusedError
from .files import known, read_json

# How the name of a credential ends that leads to a database past the pooler in front of it.
DIRECT = "_direct"


@dataclass(frozen=True)
class Health:
    """What a good answer of the application is.

    Attributes:
        path: says whether it can do its work.
        live_path: says whether the process answers at all; empty if there is no such path.
        status: of a good answer to `path`.
        release_member: of the JSON object that `path` answers, naming the release; empty without.
    """

    path: str = "/"
    live_path: str = ""
    status: int = 200
    release_member: str = ""


@dataclass(frozen=True)
class Database:
    """Where its rows are.

    Attributes:
        kind: `sqlite`, `postgresql`, or empty for an application without a database.
        files: of SQLite, in the application's directory of data; the first one says whether there
            are data.
        credential: the name of the credential with the URL of a server.
        names: addresses of that server, or of several that copy one another.
        packaged: a file of a release that knows commands about data; a release without it is from
            before there was a database. Empty: each release knows them.
        migrations: patterns of the files of a release that, with its packages, decide which schema
            it needs. None: only the release itself can tell.
    """

    kind: str = ""
    files: tuple[str, ...] = ()
    credential: str = "database_url"
    names: tuple[str, ...] = ()
    packaged: str = ""
    migrations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Application:
    """An application of this host.

    Attributes:
        name: of its units, user, directories and command.
        host: the root of the file system.
    """

    name: str
    host: Path = field(default=Path("/"))

    @property
    def etc(self) -> Path:
        """Its settings."""
        return self.host / "etc" / self.name

    @property
    def root(self) -> Path:
        """Its releases, `current`, and the state of both."""
        return self.host / "opt" / self.name

    @property
    def releases(self) -> Path:
        """A directory for each release."""
        return self.root / "releases"

    @property
    def current(self) -> Path:
        """The link to the release that is live."""
        return self.root / "current"

    @property
    def state(self) -> Path:
        """What is written down about releases, data and copies."""
        return self.root / "state"

    @property
    def data(self) -> Path:
        """What it writes itself; it can change everything there, so root follows no path in it."""
        return self.host / "var/lib" / self.name

    @property
    def command(self) -> Path:
        """The program that operators type."""
        return self.host / "usr/local/sbin" / self.name

    @property
    def unit(self) -> str:
        """The service of its web processes."""
        return f"{self.name}.service"

    @property
    def serving_units(self) -> tuple[str, ...]:
        """Its web processes, behind the sockets that could start them again."""
        return f"{self.name}.socket", f"{self.name}-check.socket", self.unit

    def worker_unit(self, kind: str, instance: str) -> str:
        """The unit of one process of a worker; `*` stands for any kind and any instance."""
        return f"{self.name}-worker-{kind}@{instance}.service"

    def timer_unit(self, timer: str, suffix: str = "timer") -> str:
        """The unit that starts a timer's command, or with `service` the one that runs it."""
        return f"{self.name}-timer-{timer}.{suffix}"

    @property
    def domain(self) -> str:
        """The name that the application takes in any case."""
        return str((self.settings.get("site") or {}).get("domain") or "localhost")

    @property
    def socket(self) -> Path:
        """Where nginx asks the service."""
        return self.host / "run/gunicorn" / f"{self.name}.sock"

    @property
    def check_socket(self) -> Path:
        """Where the service is judged: no client queues there."""
        return self.host / "run/gunicorn" / f"{self.name}-check.sock"

    @property
    def standby_socket(self) -> Path:
        """Where the standby is judged."""
        return self.host / "run/gunicorn" / f"{self.name}-standby.sock"

    @property
    def handover_lock(self) -> Path:
        """Whoever hands over, or keeps others from it, holds it."""
        return self.host / "run" / f"{self.name}-handover" / "lock"

    @property
    def metrics(self) -> Path:
        """Where node_exporter reads what others measured, of all applications; root's alone."""
        return self.host / "var/lib/application-metrics"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the description says. Raises RefusedError where it is missing or cannot be read."""
        path = self.etc / "application.json"
        found = read_json(path)
        if found is None:
            raise RefusedError(f"There is no {path}: run the playbook that sets {self.name} up")
        return found

    @property
    def health(self) -> Health:
        """What a good answer is."""
        return Health(**known(Health, self.settings.get("health", {})))

    @property
    def database(self) -> Database:
        """Where its rows are: whether on a server is seen by the credential."""
        described = dict(self.settings.get("database", {}))
        # An earlier version wrote one file.
        files = described.get("files", [described["file"]] if described.get("file") else [])
        described["files"] = tuple(map(str, files))
        for member in ("names", "migrations"):
            described[member] = tuple(map(str, described.get(member, [])))
        told = Database(**known(Database, described))
        if told.kind and self.credential(told.credential).exists():
            return replace(told, kind="postgresql")
        return told

    @property
    def directories(self) -> tuple[str, ...]:
        """Those with files that people uploaded, in its directory of data."""
        return tuple(map(str, self.settings.get("directories", [])))

    def credential(self, name: str) -> Path:
        """The file of a credential."""
        return self.etc / "credentials" / name

    def direct_credential(self, name: str) -> Path:
        """The file of the URL of a server itself, where another one leads to a pooler before it."""
        direct = self.credential(name + DIRECT)
        return direct if direct.exists() else self.credential(name)

    def words(self, verb: str, *arguments: str) -> list[str]:
        """The application's own command for something (`migrate`, `schema`, `backup`), as words.

        Raises RefusedError where its description has none.
        """
        found = self.settings.get("commands", {}).get(verb)
        if not found:
            raise RefusedError(f"{self.name} has no command for {verb} in its description")
        return [*map(str, found), *arguments]

    def has(self, verb: str) -> bool:
        """Whether its description has a command for that."""
        return bool(self.settings.get("commands", {}).get(verb))

    def live(self) -> str | None:
        """The release that `current` names."""
        try:
            return os.path.basename(os.readlink(self.current))
        except OSError:
            return None
