"""Reading much is bounded: by caller, by host, by rows; and every slot comes back."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from callers import PASSAGE
from servers import PATIENCE, service

from toll import reads
from toll.models import Passage
from toll.reads import LIST, REPORT, Refused, Slots
from toll.services import accounts, passages

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def nobody_waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a slot that no test gives back meanwhile."""
    monkeypatch.setattr(reads, "WAIT_SECONDS", 0)


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    """A host's slots."""
    return Slots(tmp_path / "reads")


def free(slots: Slots, limit: reads.Limit = REPORT) -> int:
    """Return how many callers could read now."""
    taken = []
    with contextlib.suppress(Refused):
        while True:
            taken.append(slots.take(limit, f"free:{len(taken)}"))
    for slot in taken:
        slot.give_back()
    return len(taken)


@pytest.mark.parametrize("limit", reads.LIMITS, ids=lambda limit: limit.name)
def test_one_more_than_a_caller_may_have_is_refused(slots, limit):
    taken = [slots.take(limit, "user:1") for _ in range(limit.own)]
    with pytest.raises(Refused) as error:
        slots.take(limit, "user:1")
    assert error.value.own
    taken.pop().give_back()
    slots.take(limit, "user:1").give_back()


@pytest.mark.parametrize("limit", reads.LIMITS, ids=lambda limit: limit.name)
def test_one_more_than_a_host_has_is_refused(slots, limit):
    taken = [slots.take(limit, f"user:{number}") for number in range(limit.host)]
    with pytest.raises(Refused) as error:
        slots.take(limit, "user:another")
    assert not error.value.own
    # Who was refused holds nothing.
    taken.pop().give_back()
    assert free(slots, limit) == 1


def test_kinds_do_not_take_slots_of_each_other(slots):
    taken = [slots.take(REPORT, f"user:{number}") for number in range(REPORT.host)]
    assert free(slots, LIST) == LIST.host
    assert taken


def test_a_slot_of_the_host_is_waited_for(slots, monkeypatch):
    monkeypatch.setattr(reads, "WAIT_SECONDS", PATIENCE)
    taken = [slots.take(REPORT, f"user:{number}") for number in range(REPORT.host)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slots.take, REPORT, "user:another")
        taken[0].give_back()
        waiting.result(PATIENCE).give_back()


def test_slots_count_across_processes_and_come_back_from_one_that_is_killed(slots):
    """A worker that the kernel kills gives nothing back by itself."""
    code = (
        "import sys, time, pathlib; from toll.reads import *; "
        "s = Slots(pathlib.Path(sys.argv[1])).take(REPORT, 'user:1'); print(flush=True); "
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, slots.directory], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(Refused):
            slots.take(REPORT, "user:1")
        assert free(slots) == REPORT.host - 1
        other.send_signal(signal.SIGKILL)
    assert free(slots) == REPORT.host


def test_a_slot_that_is_forgotten_comes_back(slots):
    slots.take(REPORT, "user:1")
    gc.collect()
    assert free(slots) == REPORT.host


@ONE_DATABASE
def test_who_asks_for_several_at_once_waits_between_them(app, recorder, session, monkeypatch):
    """One caller's lists leave the processor to others; a single one is not slowed down."""
    rests: list[float] = []
    monkeypatch.setattr(reads, "time", Clock(rests))
    monkeypatch.setattr(reads, "MOST_REST_SECONDS", 99)
    assert recorder.get("/passages").status_code == 200
    assert rests == []
    key = session.scalar(sa.select(accounts.ApiKey.id))
    slot = of(app).take(LIST, f"key:{key}")
    assert recorder.get("/passages").status_code == 200
    assert rests == [2]
    slot.give_back()


class Clock:
    """Time that passes by a second with each look."""

    def __init__(self, rests: list[float]) -> None:
        self.now = 0.0
        self.sleep = rests.append

    def monotonic(self) -> float:
        """Return the time."""
        self.now += 1
        return self.now


def test_the_directory_may_vanish(slots):
    """/tmp is swept."""
    slots.take(REPORT, "user:1").give_back()
    for path in slots.directory.iterdir():
        path.unlink()
    slots.directory.rmdir()
    assert free(slots) == REPORT.host


def test_names_cannot_leave_the_directory(slots):
    slots.take(REPORT, "user:../../x\0" + "y" * 999).give_back()
    assert {path.parent for path in slots.directory.iterdir()} == {slots.directory}


# Views

# Their cost does not grow with what was recorded, or it is the health watcher who asks.
CHEAP = {
    "account.login", "account.make_known", "admin.end_tariff", "admin.new_tariff",
    "api.get_passage", "api.list_classes",
    "api.list_plazas", "api.quote", "assets.serve", "docs.page", "document.openapi",
    "health.healthz", "health.readyz", "health.version", "metrics.metrics", "operator.passage",
    "operator.record", "public.calculator",
}  # fmt: skip


@ONE_DATABASE
def test_every_view_that_may_read_much_is_bounded(app):
    """A new one must be marked, or be listed above."""
    bounded = {
        rule.endpoint: reads.limit_of(app, rule.endpoint)
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and rule.endpoint not in CHEAP
    }
    assert {name for name, limit in bounded.items() if limit is None} == set()
    assert {name for name, limit in bounded.items() if limit is REPORT} == {
        "api.export_passages", "api.get_revenue", "operator.export",
    }  # fmt: skip


def of(app) -> Slots:
    """Return an application's slots."""
    found: Slots = app.extensions["toll.reads"]
    return found


@ONE_DATABASE
def test_a_slot_is_free_before_the_client_has_the_end(app, recorder):
    """Who waits for the end of an export and asks for the next one at once is not refused."""
    path = "/api/v1/passages.csv"
    answer = recorder.client.get(path, headers=recorder.headers, buffered=False)
    assert answer.status_code == 200
    assert free(of(app)) == REPORT.host - 1
    assert b"".join(answer.response)
    # The server sends the end of the answer now, and closes it afterwards.
    assert free(of(app)) == REPORT.host
    answer.close()


@ONE_DATABASE
def test_a_key_that_reads_too_much_is_told_when_to_come_again(app, recorder, session):
    key = session.scalar(sa.select(accounts.ApiKey.id))
    slot = of(app).take(REPORT, f"key:{key}")
    for path, query in (("/passages.csv", {}), ("/revenue", {"group": "day"})):
        answer = recorder.get(path, **query)
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json["type"] == "/api#too-many-reads"
        assert "Try again in 5 seconds" in answer.json["detail"]
    # Recording, and what is cheap, goes on.
    assert recorder.record(PASSAGE).status_code == 201
    assert recorder.get("/passages").status_code == 200
    slot.give_back()
    assert recorder.get("/passages.csv").status_code == 200


@ONE_DATABASE
def test_a_host_that_reads_too_much_is_busy(app, recorder, log_in):
    viewer = log_in("viewer")
    slots = [of(app).take(REPORT, f"user:x{number}") for number in range(REPORT.host)]
    answer = recorder.get("/revenue", group="day")
    assert (answer.status_code, answer.json["type"]) == (503, "/api#busy")
    assert int(answer.headers["Retry-After"]) > 0
    page = viewer.get("/passages/export.csv")
    assert page.status_code == 503
    assert "Try again in 5 seconds" in page.text
    assert slots


@ONE_DATABASE
def test_users_keys_and_strangers_are_counted_apart(app, log_in, recorder):
    one, other = log_in("viewer"), log_in("operator")
    of_one = [of(app).take(LIST, "user:1") for _ in range(LIST.own)]
    assert one.get("/passages").status_code == 429
    assert one.get("/dashboard/parts").status_code == 429
    assert other.get("/passages").status_code == 200
    assert recorder.get("/passages").status_code == 200
    for slot in of_one:
        slot.give_back()
    stranger = [of(app).take(LIST, "address:127.0.0.1") for _ in range(LIST.own)]
    assert app.test_client().get("/api/v1/tariffs").status_code == 429
    assert stranger


PATHS = [
    "/dashboard", "/dashboard/parts", "/passages", "/passages?plaza=nowhere", "/passages?cursor=x",
    "/passages/export.csv", "/passages/export.csv?lane=x%20y", "/tariffs",
]  # fmt: skip
API_PATHS = [
    "/passages", "/passages?plaza=nowhere", "/passages?cursor=eHl6", "/passages?limit=0",
    "/passages.csv", "/passages.csv?plaza=nowhere", "/tariffs", "/revenue?group=day", "/revenue",
]  # fmt: skip


@pytest.mark.parametrize("method", ["get", "head"])
def test_every_way_out_gives_the_slot_back(app, log_in, recorder, method):
    """An answer, an error, one without a body."""
    admin = log_in("admin")
    options = admin._options()
    for path in PATHS:
        getattr(admin.client, method)(path, **options)
        assert free(of(app), LIST) == LIST.host, path
        assert free(of(app)) == REPORT.host, path
    for path in API_PATHS:
        getattr(recorder.client, method)(f"/api/v1{path}", headers=recorder.headers, buffered=True)
        assert free(of(app), LIST) == LIST.host, path
        assert free(of(app)) == REPORT.host, path


@ONE_DATABASE
def test_a_failure_gives_the_slot_back(app, recorder, monkeypatch):
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("toll.services.revenue.by", fails)
    monkeypatch.setattr("toll.exports.cells", fails)
    for path in ("/revenue?group=day", "/passages.csv"):
        recorder.record(PASSAGE)
        assert recorder.get(path).status_code == 500
        assert free(of(app)) == REPORT.host


def fill(session, number: int) -> None:
    """Record passages, as many as an export takes some time for."""
    passage = passages.record_batch(
        session, [passages.NewPassage(**NEW, plate="AB12")], "key:test"
    ).passages[0]
    table = Passage.__table__
    names = [column.name for column in table.c if column.name != "id"]
    row = {name: getattr(passage, name) for name in names}
    session.execute(sa.insert(table), [row] * number)
    session.commit()


NEW = {"plaza": "harbour-bridge", "lane": "3", "vehicle_class": "car", "payment_method": "tag"}


def test_a_client_that_goes_away_gives_slot_and_connection_back(app, recorder, session):
    fill(session, 600)
    answer = recorder.client.get("/api/v1/passages.csv", headers=recorder.headers)
    parts = iter(answer.response)
    next(parts)
    assert recorder.get("/revenue", group="day").status_code == 429
    answer.close()
    assert recorder.get("/revenue", group="day").status_code == 200
    assert free(of(app)) == REPORT.host


def test_an_export_has_a_number_of_rows(recorder, log_in, session, monkeypatch):
    monkeypatch.setattr(passages, "MOST_EXPORTED", 20)
    fill(session, 20)
    answer = recorder.get("/passages.csv", plaza="harbour-bridge")
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == "since"
    assert "more than 20 passages" in answer.json["errors"][0]["problem"]
    answer = recorder.get("/passages.csv", until="2100-01-01T00:00:00Z")
    assert answer.json["errors"][0]["field"] == "until"
    viewer = log_in("viewer")
    back = viewer.get("/passages/export.csv", plaza="harbour-bridge")
    assert back.status_code == 400
    assert "more than 20 passages" in back.text
    monkeypatch.setattr(passages, "MOST_EXPORTED", 21)
    assert recorder.get("/passages.csv").text.count("AB12") == 21


@ONE_DATABASE
def test_an_export_that_breaks_off_does_not_look_whole(recorder, session, monkeypatch, caplog):
    """Its status has gone out: all that is left is to end the connection without an end."""
    fill(session, 600)
    monkeypatch.setattr("toll.exports.EXPORT_SECONDS", 0)
    answer = recorder.client.get("/api/v1/passages.csv", headers=recorder.headers)
    parts = iter(answer.response)
    next(parts)
    with pytest.raises(BrokenPipeError):
        list(parts)
    answer.close()
    assert "an export was broken off" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


# Processes, as deployed


class Slow:
    """A client that asks and does not read; it takes in as little as its kernel lets it."""

    def __init__(self, url: str, path: str, key: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((parts.hostname, parts.port))
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        self.socket.sendall(request.encode())
        self.status = int(self.socket.recv(64).split()[1])


def test_slow_readers_and_twenty_exports_do_not_hold_up_recording(database_url, session, tmp_path):
    """Against processes, workers and threads as a host has them: limits hold across all of them."""
    fill(session, 20_000)
    keys = [accounts.create_key(session, f"key-{n}", "recorder")[1] for n in range(REPORT.host + 1)]
    with (
        service(database_url, tmp_path, "--workers", "3") as served,
        contextlib.ExitStack() as stack,
    ):
        slow = []
        for _ in range(7):
            for key in keys[: REPORT.host]:
                slow.append(Slow(served.url, "/api/v1/passages.csv", key))
                stack.callback(slow[-1].socket.close)
        assert sorted(each.status for each in slow) == [200] * REPORT.host + [429] * (
            len(slow) - REPORT.host
        )
        # All slots are taken, by clients that do not read.
        headers = {"Authorization": f"Bearer {keys[-1]}"}
        assert served.ask("/api/v1/passages.csv", **headers).status == 503
        for path in ("/healthz", "/readyz"):
            assert served.ask(path).status == 200
        answer = served.ask("/api/v1/passages", PASSAGE, Idempotency_Key="k", **headers)
        assert answer.status == 201
        for each in slow:
            each.socket.close()
        end = time.monotonic() + PATIENCE
        while (status := served.ask("/api/v1/passages.csv", **headers).status) != 200:
            assert status == 503
            assert time.monotonic() < end, "no slot came back"
            time.sleep(0.1)
        # A client that goes away is no failure.
        assert "Traceback" not in served.log.read_text()
