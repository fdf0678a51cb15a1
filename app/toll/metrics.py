"""/metrics in Prometheus' format: one count for all worker processes, also for those that are gone.

Each process counts in files of its own (prometheus_client's multiprocess mode), and whichever is
asked adds them up. Three things differ from what that library does by itself:

- A process is named by its id and its start, since an id comes again.
- What ended processes counted is moved into an archive: counters never go back, and the files do
  not grow in number with each worker that is replaced.
- Nothing has to be told when a process ends: whether it lives is looked up. A worker that was
  killed needs no hook in gunicorn's configuration.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import prometheus_client.values
from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from werkzeug.exceptions import Forbidden

from toll.models import Passage
from toll.proxy import from_neighbour
from toll.release import Release
from toll.security import public
from toll.services.throttle import Throttle
from toll.settings import Settings, SettingsError

# In seconds: from an answer out of memory to one that somebody waits for.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# A client may invent methods, but not series.
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"})
KINDS = ("counter", "histogram")
ARCHIVE = "archive"
# Where there is no /proc, as on a developer's Mac.
UNKNOWN_START = "0"

blueprint = Blueprint("metrics", __name__)
# Of this process: on a host it has one, and the number is the same in all processes.
_applications = itertools.count()


def process_start(pid: int | str) -> str | None:
    """Return when a process started, in clock ticks since boot; None if there is no such process.

    Source: field 22 of /proc/<pid>/stat, proc_pid_stat(5). A zombie has ended.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in ("Z", "X", "x") else fields[18]


class _Identity:
    """Names this process, and notices when it has been forked."""

    def __init__(self) -> None:
        self.pid = 0
        self.name = ""

    def __call__(self) -> str:
        """Return `<pid>-<start>`."""
        pid = os.getpid()
        if pid != self.pid:
            self.name = f"{pid}-{process_start(pid) or UNKNOWN_START}"
            self.pid = pid
        return self.name


def is_alive(identity: str) -> bool:
    """Return whether the process of that name still runs."""
    pid, _, start = identity.partition("-")
    if start != UNKNOWN_START:
        return process_start(pid) == start
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


class Files(Collector):
    """The directory in which all processes of the service count."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from moving files meanwhile; counting needs no lock."""
        with (self.directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def archive(self, kind: str) -> Path:
        """Return the file that holds what ended processes counted."""
        return self.directory / f"{kind}_{ARCHIVE}.db"

    def tidy(self) -> None:
        """Move what ended processes counted into the archive. The lock is held.

        Interrupted anywhere, no count is lost or doubled: the plan is written before the first
        file goes, and whoever comes next carries it out.
        """
        self._carry_out()
        renames, removals = {}, []
        for kind in KINDS:
            ended = [
                path
                for path in self.directory.glob(f"{kind}_*-*.db")
                if not is_alive(path.stem.removeprefix(f"{kind}_"))
            ]
            if not ended:
                continue
            archive = self.archive(kind)
            fresh = archive.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            add_up([archive, *ended], fresh)
            renames[fresh.name] = archive.name
            removals += [path.name for path in ended]
        if renames:
            plan = self.directory / "plan.new"
            plan.write_text(json.dumps({"rename": renames, "remove": removals}), encoding="utf-8")
            plan.rename(self.directory / "plan")
            self._carry_out()

    def _carry_out(self) -> None:
        plan = self.directory / "plan"
        with contextlib.suppress(FileNotFoundError):
            steps = json.loads(plan.read_text(encoding="utf-8"))
            for source, target in steps["rename"].items():
                # Already renamed before an interruption.
                with contextlib.suppress(FileNotFoundError):
                    (self.directory / source).rename(self.directory / target)
            for name in steps["remove"]:
                (self.directory / name).unlink(missing_ok=True)
            plan.unlink()

    def collect(self) -> Iterable[Metric]:
        """Return what all processes counted, those that ended among them."""
        with self.locked():
            self.tidy()
            # A file that a process is just making is empty.
            files = [path for path in self.directory.glob("*.db") if path.stat().st_size]
            return list(MultiProcessCollector.merge([str(path) for path in files]))


def add_up(sources: Iterable[Path], target: Path) -> None:
    """Write the sums of some processes' files into a new file of the same format."""
    sums: dict[str, float] = {}
    for source in sources:
        if source.exists() and source.stat().st_size:
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):
                sums[key] = sums.get(key, 0.0) + value
    written = MmapedDict(str(target))
    for key, value in sums.items():
        written.write_value(key, value, 0.0)
    written.close()


class Info(Collector):
    """Which release answers."""

    def __init__(self, release: Release) -> None:
        self.release = release

    def collect(self) -> Iterable[Metric]:
        """Return the one series whose labels say it."""
        family = GaugeMetricFamily(
            "toll_info", "The release that answers.", labels=["release", "revision"]
        )
        family.add_metric([self.release.id, self.release.revision or ""], 1)
        yield family


class Metrics:
    """What is counted. There is one for each process, however many applications it makes."""

    def __init__(self, directory: Path) -> None:
        self.files = Files(directory)
        self.tidied = 0
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
        prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(
            _Identity()
        )
        atexit.register(prometheus_client.values.close_all_multiprocess_files)
        self.requests = Counter(
            "toll_http_requests_total",
            "Requests answered, by the view that answered.",
            ["endpoint", "method", "status"],
            registry=None,
        )
        self.durations = Histogram(
            "toll_http_request_duration_seconds",
            "Time from the request's arrival in the application to its answer.",
            ["endpoint", "method"],
            buckets=BUCKETS,
            registry=None,
        )
        self.passages = Counter(
            "toll_passages_recorded_total",
            "Passages recorded.",
            ["plaza", "vehicle_class", "payment_method"],
            registry=None,
        )
        self.revenue = Counter(
            "toll_revenue_minor_units_total",
            "Charged for recorded passages, in the currency's minor unit.",
            ["plaza", "currency"],
            registry=None,
        )
        self.log_ins = Counter(
            "toll_log_ins_total",
            "Attempts to log in, by outcome: ok, refused or limited.",
            ["outcome"],
            registry=None,
        )
        self.key_checks = Counter(
            "toll_api_key_checks_total",
            "API keys that were checked, by outcome: ok or refused.",
            ["outcome"],
            registry=None,
        )

    def tidy_once(self) -> None:
        """Make room when a new process starts to answer, so that it happens without scrapes too."""
        pid = os.getpid()
        if self.tidied != pid:
            self.tidied = pid
            with self.files.locked():
                self.files.tidy()


_metrics: Metrics | None = None


def get() -> Metrics:
    """Return what this process counts with."""
    if _metrics is None:
        raise RuntimeError("metrics.init_app was not called")
    return _metrics


def passage_recorded(passage: Passage) -> None:
    """Count a passage that was recorded, not one that was answered again."""
    counted = get()
    plaza = passage.plaza.code
    counted.passages.labels(plaza, passage.vehicle_class.code, passage.payment_method).inc()
    counted.revenue.labels(plaza, passage.currency).inc(passage.amount)


def log_in(outcome: str) -> None:
    """Count an attempt to log in: ok, refused or limited."""
    get().log_ins.labels(outcome).inc()


def key_checked(outcome: str) -> None:
    """Count the check of an API key: ok or refused."""
    get().key_checks.labels(outcome).inc()


def make_directory(settings: Settings) -> Path:
    """Return the directory that processes count in; raise SettingsError if there can be none."""
    directory = settings.metrics_directory
    if directory is None:
        made = Path(tempfile.mkdtemp(prefix="toll-metrics-"))
        owner = os.getpid()

        def remove() -> None:
            # Workers inherit this, and end before the process that made it.
            if os.getpid() == owner:
                shutil.rmtree(made, ignore_errors=True)

        atexit.register(remove)
        return made
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "lock").touch()
    except OSError as error:
        raise SettingsError(
            f"TOLL_METRICS_DIRECTORY is {str(directory)!r}, which cannot be written: "
            f"{error.strerror}. Name a directory that this user may write, best in memory"
        ) from error
    return directory


def init_app(app: Flask, settings: Settings) -> None:
    """Count every request of `app`."""
    global _metrics
    if _metrics is None:
        _metrics = Metrics(make_directory(settings))
    counted = _metrics
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Info(app.extensions["toll.release"]))
    registry.register(counted.files)
    app.extensions["toll.metrics"] = registry
    # Beside the counts: processes share the directory, and it is in memory on a host.
    app.extensions["toll.throttle"] = Throttle(
        counted.files.directory / f"log-ins-{next(_applications)}"
    )
    app.register_blueprint(blueprint)
    answered: dict[tuple[str, str, int], Counter] = {}
    taken: dict[tuple[str, str], Histogram] = {}

    @app.before_request
    def start() -> None:
        # A request that is tried again began with the first attempt.
        g.setdefault("started", time.perf_counter())

    @app.after_request
    def count(response: Response) -> Response:
        counted.tidy_once()
        endpoint = request.endpoint or "none"
        method = request.method if request.method in METHODS else "other"
        status = response.status_code
        # Looking a series up costs more than counting in it.
        counter = answered.get((endpoint, method, status))
        if counter is None:
            counter = counted.requests.labels(endpoint, method, str(status))
            answered[endpoint, method, status] = counter
        counter.inc()
        if "started" in g:
            histogram = taken.get((endpoint, method))
            if histogram is None:
                histogram = counted.durations.labels(endpoint, method)
                taken[endpoint, method] = histogram
            histogram.observe(time.perf_counter() - g.started)
        return response


@blueprint.get("/metrics")
@public
def metrics() -> Response:
    """Answer what all processes counted. nginx keeps it from the outside.

    It tells what was charged, which is not for every user of the host.
    """
    if from_neighbour():
        raise Forbidden(
            "Ask over the unix socket, as root: "
            "curl --unix-socket /run/gunicorn/toll-app.sock http://localhost/metrics"
        )
    text = generate_latest(current_app.extensions["toll.metrics"])
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)
