"""Metrics are right whoever is asked, and whoever was replaced or killed in between."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from callers import PASSAGE
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families
from servers import service

from toll import Settings, SettingsError, metrics
from toll.services import accounts

QUOTE = "/api/v1/quote?plaza=harbour-bridge&class=car"
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Samples(dict[str, float]):
    """What a scrape said, by `name{label="value",…}`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(
                    f'{name}="{sample.labels[name]}"' for name in sorted(sample.labels)
                )
                self[f"{sample.name}{{{labels}}}"] = sample.value

    def of(self, name: str, **labels: str) -> float:
        """Return the sum of a series' samples that have these labels."""
        return sum(
            value
            for key, value in self.items()
            if key.startswith(f"{name}{{")
            and all(f'{label}="{wanted}"' in key for label, wanted in labels.items())
        )

    def quotes(self) -> float:
        """Return how many quotes were answered."""
        return self.of("toll_http_requests_total", endpoint="api.quote", status="200")


@only_sqlite
def test_scrape_of_one_process(client, session):
    def scrape() -> Samples:
        answer = client.get("/metrics")
        assert answer.mimetype == "text/plain"
        return Samples(answer.text)

    key = accounts.create_key(session, "lane-7", "recorder")[1]
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "a"}
    before = scrape()
    client.get(QUOTE)
    client.get("/api/v1/quote")
    client.get("/nowhere")
    client.open("/healthz", method="BREW")
    client.post("/api/v1/passages", json=PASSAGE, headers=headers)
    client.post("/api/v1/passages", json=PASSAGE, headers=headers)
    client.get("/api/v1/passages", headers={"Authorization": "Bearer toll_x"})
    after = scrape()

    def more(name: str, **labels: str) -> float:
        return after.of(name, **labels) - before.of(name, **labels)

    assert after.of("toll_info", release="development") == 1
    assert more("toll_http_requests_total", endpoint="api.quote", status="200") == 1
    assert more("toll_http_requests_total", endpoint="api.quote", status="400") == 1
    # Addresses and methods that visitors make up are no series of their own.
    assert more("toll_http_requests_total", endpoint="none", status="404", method="GET") == 1
    assert more("toll_http_requests_total", endpoint="none", status="405", method="other") == 1
    assert more("toll_http_request_duration_seconds_count", endpoint="api.quote") == 2
    assert 0 < more("toll_http_request_duration_seconds_sum", endpoint="api.quote") < 60
    # Answered twice, recorded once.
    labels = {"plaza": "harbour-bridge", "vehicle_class": "car", "payment_method": "tag"}
    assert more("toll_passages_recorded_total", **labels) == 1
    assert more("toll_revenue_minor_units_total", plaza="harbour-bridge", currency="EUR") == 320
    assert more("toll_api_key_checks_total", outcome="ok") == 2
    assert more("toll_api_key_checks_total", outcome="refused") == 1
    assert not any("BREW" in key or "nowhere" in key for key in after)


def test_every_process_is_counted_also_those_that_were_killed(database_url, session, tmp_path):
    """Whichever worker answers the scrape, and however often workers are replaced."""
    key = accounts.create_key(session, "lane-7", "recorder")[1]
    with service(database_url, tmp_path, "--workers", "3") as served:

        def scrape() -> Samples:
            return Samples(served.ask("/metrics").body.decode())

        def quotes_are(number: int) -> None:
            # An answer is on its way before it is counted.
            end = time.monotonic() + 30
            while (seen := scrape().quotes()) < number and time.monotonic() < end:
                time.sleep(0.05)
            assert seen == number
            # Ten scrapes come to more than one of the three workers.
            assert {scrape().quotes() for _ in range(10)} == {number}

        number = 0
        killed: set[int] = set()
        for _ in range(3):
            for _ in range(20):
                assert served.ask(QUOTE).status == 200
            answer = served.ask(
                "/api/v1/passages",
                PASSAGE,
                Authorization=f"Bearer {key}",
                Idempotency_Key=str(uuid.uuid4()),
            )
            assert answer.status == 201
            number += 20
            quotes_are(number)
            before = scrape()
            victim = min(served.workers() - killed)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            end = time.monotonic() + 30
            while victim in served.workers() or len(served.workers()) < 3:
                assert time.monotonic() < end
                time.sleep(0.05)
            served.wait()
            after = scrape()
            assert all(after[key] >= value for key, value in before.items())
        quotes_are(number)
        assert scrape().of("toll_passages_recorded_total") == 3
        assert scrape().of("toll_revenue_minor_units_total", currency="EUR") == 3 * 320
        # What the killed ones counted is in the archive; their own files are gone.
        owners = {path.stem.partition("_")[2] for path in served.metrics_directory.glob("*.db")}
        assert "archive" in owners
        assert not {int(owner.partition("-")[0]) for owner in owners - {"archive"}} & killed


@only_sqlite
def test_replaced_workers_leave_no_files_though_nobody_scrapes(database_url, tmp_path):
    """On a host each worker is replaced after so many requests; /run is in memory."""
    with service(database_url, tmp_path, "--workers", "2", "--max-requests", "10") as served:
        for _ in range(120):
            assert served.ask(QUOTE).status == 200
        # At most master, two workers and two that are going or coming, of two kinds each.
        files = list(served.metrics_directory.glob("*.db"))
        assert len(files) <= 2 * 5 + 2
        assert len({path.name for path in files}) > 2
        assert Samples(served.ask("/metrics").body.decode()).quotes() == 120


@pytest.fixture
def ended(tmp_path):
    """The files of two processes that have ended, and of this one."""
    child = subprocess.Popen(["true"])
    identities = [f"{child.pid}-1", f"{child.pid}-2", metrics._Identity()()]
    child.wait()
    for number, identity in enumerate(identities, start=1):
        for kind in metrics.KINDS:
            written = MmapedDict(str(tmp_path / f"{kind}_{identity}.db"))
            written.write_value(f'["toll_{kind}", "toll_{kind}", {{}}, "help"]', number, 0.0)
            written.close()
    return tmp_path


def sums(directory: Path) -> dict[str, float]:
    """Return the sums by key of what is counted in a directory, read without anything of ours."""
    found: dict[str, float] = collections.defaultdict(float)
    for path in directory.glob("*.db"):
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
            found[key] += value
    return dict(found)


def test_archive_has_what_ended_processes_counted(ended):
    before = sums(ended)
    assert set(before.values()) == {6}
    files = metrics.Files(ended)
    for _ in range(2):
        with files.locked():
            files.tidy()
        assert sums(ended) == before
    own = metrics._Identity()()
    assert {path.name for path in ended.iterdir()} == {
        "lock",
        *(f"{kind}_{owner}.db" for kind in metrics.KINDS for owner in ("archive", own)),
    }


def test_interrupted_anywhere_no_count_is_lost_or_doubled(ended, monkeypatch):
    """A process may be killed in the middle of it."""

    class Killed(BaseException):
        pass

    steps = 0
    last = 0

    def interrupting(method):
        original = getattr(Path, method)

        def step(path, *arguments, **options):
            nonlocal steps
            if path.parent == ended:
                steps += 1
                if steps == last:
                    raise Killed
            return original(path, *arguments, **options)

        monkeypatch.setattr(Path, method, step)

    before = sums(ended)
    saved = {path.name: path.read_bytes() for path in ended.iterdir()}
    for method in ("unlink", "rename", "write_text"):
        interrupting(method)
    tried = 0
    while True:
        steps, last = 0, last + 1
        for path in list(ended.iterdir()):
            os.unlink(path)
        for name, content in saved.items():
            with open(ended / name, "wb") as file:
                file.write(content)
        interrupted = False
        files = metrics.Files(ended)
        with contextlib.suppress(Killed), files.locked():
            interrupted = True
            files.tidy()
            interrupted = False
        steps = -1000
        with files.locked():
            files.tidy()
        assert sums(ended) == before, f"after step {last}"
        if not interrupted:
            break
        tried += 1
    assert tried >= 8


def test_a_process_that_ended_is_known_by_its_start():
    """Its id may belong to another one by now."""
    own = metrics._Identity()()
    assert metrics.is_alive(own)
    assert not metrics.is_alive(f"{os.getpid()}-1")
    child = subprocess.Popen(["sleep", "60"])
    identity = f"{child.pid}-{metrics.process_start(child.pid)}"
    assert metrics.is_alive(identity)
    child.kill()
    # Ended and not yet waited for, it is a zombie.
    end = time.monotonic() + 10
    while metrics.is_alive(identity) and time.monotonic() < end:
        time.sleep(0.01)
    assert not metrics.is_alive(identity)
    child.wait()
    assert not metrics.is_alive(identity)


def test_directory_that_cannot_be_written_keeps_the_application_from_starting(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    settings = Settings(
        secret_key="x" * 32,
        database_url="sqlite:////nowhere",
        metrics_directory=file / "metrics",
    )
    with pytest.raises(SettingsError, match=r"TOLL_METRICS_DIRECTORY is .*cannot be written.*Name"):
        metrics.make_directory(settings)


def test_directory_of_metrics_is_nobody_elses(tmp_path):
    directory = tmp_path / "run" / "metrics"
    settings = Settings(secret_key="x" * 32, database_url="x", metrics_directory=directory)
    assert metrics.make_directory(settings) == directory
    assert directory.stat().st_mode & 0o077 == 0
