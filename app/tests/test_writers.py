"""Who waits to write to SQLite sleeps until somebody has written, and is never forgotten."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from toll import Settings, SettingsError, create_app, create_commands, database
from toll.database import WRITES, Writers, make_engine

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    return tmp_path / "run" / "writers"


@pytest.fixture
def engine(database_url: str, pipe: Path) -> Iterator[sa.Engine]:
    made = make_engine(database_url, Writers(pipe))
    yield made
    made.dispose()


def write(engine: sa.Engine, inside: Callable[[], object] = lambda: None) -> None:
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        inside()


def waiting(engine: sa.Engine, note: Callable[[], object]) -> threading.Thread:
    """Start a writer that has to wait, and return when it does."""
    thread = threading.Thread(target=write, args=(engine, note))
    thread.start()
    time.sleep(0.1)
    return thread


def test_the_next_is_woken(engine, monkeypatch):
    """Nobody has to look again and again: here it would take them half a minute."""
    monkeypatch.setattr(database, "UNWOKEN_SECONDS", 30)
    threads: list[threading.Thread] = []
    order: list[int] = []

    def let_others_wait() -> None:
        threads.extend(waiting(engine, lambda n=number: order.append(n)) for number in range(4))

    begun = time.monotonic()
    write(engine, let_others_wait)
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 3
    assert order == [0, 1, 2, 3], "first come, first served"


def test_a_writer_that_raises_wakes_the_next_as_well(engine, monkeypatch):
    monkeypatch.setattr(database, "UNWOKEN_SECONDS", 30)
    threads: list[threading.Thread] = []
    done = threading.Event()

    def fail() -> None:
        threads.append(waiting(engine, done.set))
        raise KeyError

    with pytest.raises(KeyError):
        write(engine, fail)
    assert done.wait(3)
    threads[0].join()


def test_a_killed_writer_wakes_nobody_and_holds_up_nobody(engine):
    context = multiprocessing.get_context("fork")
    inside = context.Event()

    def stay() -> None:
        inside.set()
        time.sleep(60)

    process = context.Process(target=write, args=(engine, stay))
    process.start()
    assert inside.wait(10)
    done = threading.Event()
    thread = waiting(engine, done.set)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert done.wait(3)
    thread.join()


def test_waiting_has_a_limit(engine, monkeypatch):
    """Another process may write for long, and knows of no pipe."""
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 0.5)
    refused: list[float] = []

    def try_meanwhile() -> None:
        begun = time.monotonic()

        def other() -> None:
            with pytest.raises(sa.exc.OperationalError, match="locked"):
                write(engine)
            refused.append(time.monotonic() - begun)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    write(engine, try_meanwhile)
    assert 0.4 < refused[0] < 2


def test_the_pipe_never_fills(engine, pipe):
    """A byte that nobody waits for stays in it, and wakes somebody once for nothing."""
    for _ in range(3):
        write(engine)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([reader], [], [], 0)[0]
        assert os.read(reader, 10) == b"."
    finally:
        os.close(reader)


def test_where_there_can_be_no_pipe_the_application_does_not_start(database_url, tmp_path):
    (tmp_path / "file").touch()
    settings = Settings(
        secret_key="x" * 32, database_url=database_url, writers=tmp_path / "file" / "writers"
    )
    with pytest.raises(SettingsError, match=r"writers cannot be written: .* RUNTIME_DIRECTORY"):
        create_app(settings)
    # Root may carry out a command, and the service could not open what that made.
    assert create_commands(settings)
