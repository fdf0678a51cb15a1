"""Data that move to another kind of database arrive whole, or not at all."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from support import record

from toll import schema, transfer
from toll.database import make_engine, writing
from toll.models import ApiKey, IdempotencyRecord, LoginAttempt, Passage, User
from toll.services import accounts

MOMENT = datetime(2026, 5, 4, 6, 7, 8, 987654, tzinfo=UTC)


@pytest.fixture
def other_url(request, backend, templates, engines) -> Iterator[str]:
    """An empty database of the other kind."""
    url, name = templates.empty("postgresql" if backend == "sqlite" else "sqlite")
    yield url
    for engine in list(engines):
        engine.dispose()
    templates.drop(name)


@pytest.fixture
def full(database_url, session) -> str:
    """Every table has rows, and the newest passage is gone."""
    accounts.create_user(session, "anna", "correct horse battery", "admin")
    accounts.create_key(session, "lane-1", "recorder")
    for plate in ("AB12", "ÄÖ 1", "CD34"):
        record(session, plate)
    with writing(session):
        session.add(LoginAttempt(key="name:anna", at=MOMENT))
        session.add(
            IdempotencyRecord(
                scope="key:1", key="k", body_hash="0" * 64, passage_ids=[1, 2], created_at=MOMENT
            )
        )
        session.execute(sa.delete(Passage).where(Passage.plate == "CD34"))
    session.commit()
    return database_url


def everything(url: str) -> list[str]:
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return list(transfer._lines(connection, {}))
    finally:
        engine.dispose()


def test_every_row_arrives_and_comes_back(full, other_url, tmp_path) -> None:
    """From SQLite to PostgreSQL and back, or the other way round."""
    before = everything(full)
    counts = transfer.export_data(full, tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o600
    assert transfer.import_data(other_url, tmp_path / "data") == counts
    assert (counts["passages"], counts["users"], counts["api_keys"]) == (2, 1, 1)
    assert counts["peak_windows"] > 0
    assert everything(other_url) == before
    with Session(make_engine(other_url)) as moved:
        assert schema.schema_status(moved.get_bind()).compatible
        assert moved.scalars(sa.select(LoginAttempt.at)).one() == MOMENT
        assert moved.scalars(sa.select(IdempotencyRecord.passage_ids)).one() == [1, 2]
        assert accounts.find_user(moved, "anna").active is True
        assert moved.scalars(sa.select(ApiKey.revoked_at)).one() is None


def test_numbers_go_on_after_the_last_that_was_given(full, other_url, tmp_path) -> None:
    """A receipt names a passage by its number, also one that was removed."""
    transfer.export_data(full, tmp_path / "data")
    transfer.import_data(other_url, tmp_path / "data")
    with Session(make_engine(other_url)) as moved:
        record(moved, "EF56")
        accounts.create_user(moved, "ben", "correct horse battery", "viewer")
        assert moved.scalars(sa.select(Passage.id).where(Passage.plate == "EF56")).one() == 4
        assert moved.scalars(sa.select(User.id).where(User.name == "ben")).one() == 2


def test_a_database_with_data_is_not_touched(full, other_url, tmp_path) -> None:
    transfer.export_data(full, tmp_path / "data")
    transfer.import_data(other_url, tmp_path / "data")
    before = everything(other_url)
    with pytest.raises(transfer.TransferError, match=r"holds data already, in .*plazas"):
        transfer.import_data(other_url, tmp_path / "data")
    assert everything(other_url) == before


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_file_is_refused_before_anything_is_written(
    full, other_url, tmp_path, damage
) -> None:
    file = tmp_path / "data"
    transfer.export_data(full, file)
    text = file.read_text()
    file.write_text(
        {"cut": text[: len(text) // 2], "changed": text.replace("AB12", "AB13"), "other": "{}\n"}[
            damage
        ]
    )
    with pytest.raises(transfer.TransferError, match=r"is not whole, or not a file of"):
        transfer.import_data(other_url, file)
    engine = make_engine(other_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_what_does_not_arrive_as_it_was_is_not_kept(full, other_url, tmp_path, monkeypatch) -> None:
    """Counts alone would not see it."""
    file = tmp_path / "data"
    transfer.export_data(full, file)
    usual = transfer._value
    monkeypatch.setattr(
        transfer,
        "_value",
        lambda column, plain: 7 if column.name == "amount" else usual(column, plain),
    )
    with pytest.raises(transfer.TransferError, match=r"holds something else .*Nothing was kept"):
        transfer.import_data(other_url, file)
    engine = make_engine(other_url)
    with engine.connect() as connection:
        assert {transfer._count(connection, each) for each in transfer.TABLES} == {0}
    engine.dispose()


def test_every_table_is_among_them() -> None:
    """One that a later release adds, too: rows that are forgotten would be lost."""
    names = {each.name for each in transfer.TABLES}
    assert names == set(transfer.Model.metadata.tables) - {"schema_state"}


def test_commands_answer_in_json(app, full, tmp_path) -> None:
    """The role reads what they print."""
    run = app.test_cli_runner().invoke
    file = str(tmp_path / "data")
    done = run(args=["toll", "export", file])
    assert json.loads(done.stdout)["tables"]["passages"] == 2
    assert json.loads(done.stdout)["msg"].endswith("rows, 2 of them passages.")
    done = run(args=["toll", "import", file])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "holds data already" in done.stderr
