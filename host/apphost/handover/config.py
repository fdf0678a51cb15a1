"""What the role gunicorn_systemd says about a service, and where its handover keeps things."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..application import Application
from ..errors import RefusedError
from ..files import known, read_settings


@dataclass(frozen=True)
class Check:
    """What a good answer is, and how many of them are wanted in which time.

    Attributes:
        path: that is asked.
        host: in the header of that name.
        status: of a good answer.
        release_member: of the JSON object that is answered, naming the release; empty without.
        count: good answers in a row that are wanted.
        interval: seconds between two questions.
        time_limit: seconds in which they have to come.
    """

    path: str = "/"
    host: str = "localhost"
    status: int = 200
    release_member: str = ""
    count: int = 3
    interval: float = 0.2
    time_limit: float = 30


@dataclass(frozen=True)
class Worker:
    """One kind of background worker.

    Attributes:
        count: processes of it.
        stop_seconds: in which one finishes what it is doing.
        alone: processes of two generations never run at the same time.
    """

    name: str
    count: int = 1
    stop_seconds: float = 60
    alone: bool = False


@dataclass(frozen=True)
class Config:
    """A service's handover, from /etc/<name>/handover.json. All times are in seconds.

    Attributes:
        settings: the files that the service is started with, handover.json among them.
        release_root: where its releases are; empty for a service without releases.
        start_time_limit: until a unit that was started is active.
        stop_time_limit: for the requests that a unit still has when it stops.
        bake_time: for which the service is asked after it was judged healthy.
        sandbox: systemd's directives for the unit that does the work.
        workers: its background workers.
        timers: the names of its timers.
        alert_after_hours: without a success of a timer, until that raises an alarm; by name.
    """

    application: Application
    settings: tuple[str, ...]
    release_root: str = ""
    check: Check = Check()
    start_time_limit: float = 60
    stop_time_limit: float = 35
    bake_time: float = 5
    sandbox: tuple[str, ...] = ()
    workers: tuple[Worker, ...] = ()
    timers: tuple[str, ...] = ()
    alert_after_hours: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, application: Application) -> Config:
        """What is on disk. Raises RefusedError where it is missing or cannot be used."""
        path = application.etc / "handover.json"
        data = read_settings(path, f"run the playbook that sets {application.name} up")
        try:
            data["application"] = application
            data["check"] = Check(**known(Check, data["check"]))
            data["settings"] = tuple(data["settings"])
            data["sandbox"] = tuple(data.get("sandbox", ()))
            workers = data.get("workers", ())
            data["workers"] = tuple(Worker(**known(Worker, worker)) for worker in workers)
            data["timers"] = tuple(data.get("timers", ()))
            return cls(**known(cls, data))
        except (AttributeError, KeyError, TypeError) as error:
            raise RefusedError(f"{path} cannot be used ({error!r}): run the playbook") from error

    @property
    def name(self) -> str:
        """The application's name, with which those of its units begin."""
        return self.application.name

    @property
    def main(self) -> str:
        """The service itself."""
        return self.application.unit

    @property
    def standby(self) -> str:
        """Who serves while the service restarts."""
        return f"{self.name}-standby.service"

    @property
    def standby_private(self) -> str:
        """The standby's own socket, on which it is judged."""
        return f"{self.name}-standby.socket"

    @property
    def unit(self) -> str:
        """Who does the work."""
        return f"{self.name}-handover.service"

    @property
    def sockets(self) -> list[str]:
        """The clients' socket first, then the one on which the service itself is judged."""
        return [f"{self.name}.socket", f"{self.name}-check.socket"]

    @property
    def enabled(self) -> list[str]:
        """Units that systemd starts at boot."""
        return [f"{self.name}.socket", self.main, f"{self.name}-handover-boot.service"]

    @property
    def slots(self) -> Path:
        """A link for each process of a worker, to the release that it is of."""
        return self.state / "workers"

    @property
    def jobs(self) -> Path:
        """What became of the runs of each timer."""
        return self.state / "jobs"

    @property
    def run(self) -> Path:
        """The handover's own files until the next boot."""
        return self.application.handover_lock.parent

    @property
    def standby_release(self) -> Path:
        """The link to the release that the standby is started from."""
        return self.run / "release"

    @property
    def units(self) -> Path:
        """Where the role writes unit files."""
        return self.application.host / "etc/systemd/system"

    @property
    def gone_units(self) -> Path:
        """Where unit files go that the role has removed, and that something still runs by."""
        return self.application.host / "run/systemd/system"

    @property
    def tree(self) -> Path:
        """What wsgi.host.config_tree notes about the settings that it wrote."""
        return self.application.host / "var/lib/config-tree" / f"{self.name}.json"

    @property
    def root(self) -> Path | None:
        """Where `current` and the releases are; None without releases."""
        return Path(self.release_root) if self.release_root else None

    @property
    def kept(self) -> Path:
        """Copies of settings; they hold credentials."""
        return self.application.host / "var/lib/gunicorn-handover" / self.name

    @property
    def healthy(self) -> Path:
        """What was judged healthy last."""
        return self.kept / "healthy.json"

    @property
    def candidate(self) -> Path:
        """What becomes `healthy` when it is judged to be."""
        return self.kept / "candidate.json"

    @property
    def state(self) -> Path:
        """The records of releases, and of handovers."""
        return self.root / "state" if self.root else self.kept

    @property
    def begun(self) -> Path:
        """What is being done, until it is done."""
        return self.state / "handover.json"
