"""Passages: recorded once, charged by the tariff of their time, found again."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVarTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, contains_eager
from sqlalchemy.orm.attributes import set_committed_value

from toll.database import writing
from toll.errors import FieldError, InvalidParameters, cut, not_known
from toll.models import (
    PAYMENT_METHODS,
    IdempotencyRecord,
    Passage,
    Plaza,
    VehicleClass,
    now,
    table,
)
from toll.services import tariffs

Ts = TypeVarTuple("Ts")
LANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,9}", re.ASCII)
# Clocks of lanes run ahead a little.
AHEAD = timedelta(minutes=5)
MOST_AT_ONCE = 500
MOST_PER_PAGE = 500


# Made once: see services/tariffs.py.
PASSAGES, RECORDS = table(Passage), table(IdempotencyRecord)
_INSERT = sa.insert(PASSAGES).returning(PASSAGES.c.id, sort_by_parameter_order=True)
_REMEMBERED = sa.select(RECORDS.c.body_hash, RECORDS.c.passage_ids).where(
    RECORDS.c.scope == sa.bindparam("scope"), RECORDS.c.key == sa.bindparam("key")
)
_REMEMBER = {
    dialect.__name__.rpartition(".")[2]: dialect.insert(RECORDS)
    .on_conflict_do_nothing(index_elements=["scope", "key"])
    .returning(RECORDS.c.id)
    for dialect in (postgresql, sqlite)
}


class IdempotencyConflict(Exception):
    """The key was used before, for something else."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The idempotency key {key[:100]!r} was used for another request")
        self.key = key


@dataclass(frozen=True, kw_only=True)
class NewPassage:
    """A passage to be recorded; without a time it is now.

    Attributes:
        plaza: a plaza's code.
        lane: such as `3`.
        vehicle_class: a class's code.
        plate: as it was read.
        payment_method: cash, card, tag or invoice.
        passed_at: aware.
    """

    plaza: str
    lane: str
    vehicle_class: str
    plate: str
    payment_method: str
    passed_at: datetime | None = None


@dataclass(frozen=True)
class Idempotency:
    """What makes a repeated request known: who asks, by which key, for what (SHA-256, hex)."""

    scope: str
    key: str
    body_hash: str


@dataclass(frozen=True)
class Recorded:
    """A passage, and whether it had been recorded by an earlier request of the same key.

    A new one belongs to no session, and of its plaza and class it has the ids and the codes.
    """

    passage: Passage
    replayed: bool


@dataclass(frozen=True)
class RecordedBatch:
    """Passages in the order given, and whether an earlier request had recorded them."""

    passages: list[Passage]
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class PassageFilter:
    """Which passages: all that match everything that is given.

    Attributes:
        plaza: a plaza's code.
        vehicle_class: a class's code.
        plate: whole, in any notation.
        payment_method: one of PAYMENT_METHODS.
        since: aware, inclusive.
        until: aware, exclusive.
        lane: whole.
    """

    plaza: str | None = None
    vehicle_class: str | None = None
    plate: str | None = None
    payment_method: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    lane: str | None = None


@dataclass(frozen=True)
class Page:
    """Some passages, newest first, and where the next ones begin."""

    items: list[Passage]
    next_cursor: str | None


@dataclass(frozen=True)
class Total:
    """How many passages, and what they were charged by currency in minor units."""

    count: int
    amounts: dict[str, int]


def normalise_plate(text: str) -> str:
    """Return a plate in the one form that is stored; raise ValueError(problem, remedy)."""
    plate = unicodedata.normalize("NFKC", text).upper()
    plate = re.sub(r"[\s.\-\u2010-\u2015\u30fb]", "", plate)
    if not 2 <= len(plate) <= 16 or not plate.isalnum():
        raise ValueError(
            "is missing" if not text else "is not a plate",
            "Write 2 to 16 letters and digits, with spaces or hyphens as you like",
        )
    return plate


def record(
    s: Session,
    new: NewPassage,
    recorded_by: str,
    idempotency: Idempotency | tuple[str, str, str] | None = None,
) -> Recorded:
    """Record a passage and commit, or return the one that the key recorded before.

    Args:
        s: has nothing unwritten.
        new: what passed.
        recorded_by: `user:<name>` or `key:<name>`.
        idempotency: scope, key and the hash of the whole request.

    Raises:
        InvalidParameters: with every error.
        IdempotencyConflict: the key belongs to another request.
    """
    batch = _record(s, [new], recorded_by, idempotency, indexed=False)
    return Recorded(batch.passages[0], batch.replayed)


def record_batch(
    s: Session,
    new: Sequence[NewPassage],
    recorded_by: str,
    idempotency: Idempotency | tuple[str, str, str] | None = None,
) -> RecordedBatch:
    """Record passages, all or none; see `record`. Errors name a field as `passages[3].plate`."""
    if not 1 <= len(new) <= MOST_AT_ONCE:
        raise InvalidParameters(
            [
                FieldError(
                    "passages",
                    None,
                    f"has {len(new)} passages",
                    f"Send 1 to {MOST_AT_ONCE} at once",
                )
            ]
        )
    return _record(s, new, recorded_by, idempotency, indexed=True)


def _record(
    s: Session,
    new: Sequence[NewPassage],
    recorded_by: str,
    idempotency: Idempotency | tuple[str, str, str] | None,
    *,
    indexed: bool,
) -> RecordedBatch:
    if isinstance(idempotency, tuple):
        idempotency = Idempotency(*idempotency)
    try:
        with writing(s):
            if idempotency and (known := _known(s, idempotency)):
                return known
            passages = _charge(s, new, recorded_by, indexed=indexed)
            _insert(s, passages)
            if idempotency:
                _remember(s, idempotency, [passage.id for passage in passages])
        return RecordedBatch(passages, False)
    except _Overtaken:
        # Another request of the same key was faster: its passages are there, ours were undone.
        assert idempotency
        known = _known(s, idempotency)
        assert known
        return known


def _insert(s: Session, passages: Sequence[Passage]) -> None:
    """Store passages and give them their ids."""
    names = [column.name for column in PASSAGES.c if column.name != "id"]
    rows = [{name: getattr(passage, name) for name in names} for passage in passages]
    ids = s.connection().execute(_INSERT, rows).scalars().all()
    for passage, passage_id in zip(passages, ids, strict=True):
        passage.id = passage_id


class _Overtaken(Exception):
    """The same key was used by another transaction that has committed since."""


def _known(s: Session, idempotency: Idempotency) -> RecordedBatch | None:
    """Return what the key recorded before; raise IdempotencyConflict."""
    earlier = (
        s.connection()
        .execute(_REMEMBERED, {"scope": idempotency.scope, "key": idempotency.key})
        .one_or_none()
    )
    if earlier is None:
        return None
    if earlier.body_hash != idempotency.body_hash:
        raise IdempotencyConflict(idempotency.key)
    found = {
        passage.id: passage
        for passage in s.scalars(_select().where(Passage.id.in_(earlier.passage_ids)))
    }
    return RecordedBatch([found[each] for each in earlier.passage_ids], True)


def _remember(s: Session, idempotency: Idempotency, passage_ids: list[int]) -> None:
    """Store what the key recorded; raise _Overtaken if another transaction did so.

    PostgreSQL waits here for a transaction that stored the same key and is not finished.
    """
    remember = _REMEMBER[s.get_bind().dialect.name]
    stored = s.connection().execute(
        remember,
        {
            "scope": idempotency.scope,
            "key": idempotency.key,
            "body_hash": idempotency.body_hash,
            "passage_ids": passage_ids,
            "created_at": now(),
        },
    )
    if stored.scalar_one_or_none() is None:
        raise _Overtaken


def _charge(
    s: Session, new: Sequence[NewPassage], recorded_by: str, *, indexed: bool
) -> list[Passage]:
    """Return the passages with what they cost; raise InvalidParameters with every error."""
    errors: list[FieldError] = []
    passages = []
    moment = now()
    for index, each in enumerate(new):
        found: list[FieldError] = []
        passed_at = each.passed_at or moment
        if not LANE.fullmatch(each.lane):
            found.append(
                FieldError(
                    "lane",
                    cut(each.lane),
                    "is not a lane" if each.lane else "is missing",
                    "Write 1 to 10 letters, digits and hyphens, like 3 or N-2",
                )
            )
        plate = ""
        try:
            plate = normalise_plate(each.plate)
        except ValueError as error:
            problem, remedy = error.args
            found.append(FieldError("plate", cut(each.plate), problem, remedy))
        if each.payment_method not in PAYMENT_METHODS:
            found.append(not_known("payment_method", each.payment_method, PAYMENT_METHODS))
        if passed_at > moment + AHEAD:
            found.append(
                FieldError(
                    "passed_at",
                    passed_at.isoformat(timespec="seconds"),
                    "is in the future",
                    "Take the time at which it passed, and set the lane's clock",
                )
            )
        try:
            price = tariffs.price(s, each.plaza, each.vehicle_class, passed_at)
        except tariffs.NoTariff as error:
            found += [replace(one, field="passed_at") for one in error.errors]
        except InvalidParameters as error:
            found += error.errors
        if found:
            if indexed:
                found = [replace(one, field=f"passages[{index}].{one.field}") for one in found]
            errors += found
            continue
        passage = Passage(
            plaza_id=price.plaza_id,
            lane=each.lane,
            class_id=price.class_id,
            plate=plate,
            passed_at=passed_at,
            amount=price.amount,
            currency=price.currency,
            tariff_id=price.tariff_id,
            window_id=price.window_id,
            tariff_name=price.name,
            payment_method=each.payment_method,
            recorded_by=recorded_by,
            recorded_at=moment,
        )
        # Of these the codes are known, and nobody asks for more.
        set_committed_value(passage, "plaza", Plaza(id=price.plaza_id, code=price.plaza))
        vehicle_class = VehicleClass(id=price.class_id, code=price.vehicle_class)
        set_committed_value(passage, "vehicle_class", vehicle_class)
        passages.append(passage)
    if errors:
        raise InvalidParameters(errors)
    return passages


def find(s: Session, which: PassageFilter, cursor: str | None = None, limit: int = 50) -> Page:
    """Return passages, newest first; raise InvalidParameters for what cannot match anything.

    A page begins where the one before ended, whatever was recorded in between.
    """
    limit = max(1, min(limit, MOST_PER_PAGE))
    query = matching(s, _select(), which).order_by(Passage.passed_at.desc(), Passage.id.desc())
    if cursor:
        passed_at, passage_id = _read_cursor(cursor)
        query = query.where(
            Passage.passed_at <= passed_at,
            sa.or_(Passage.passed_at < passed_at, Passage.id < passage_id),
        )
    items = list(s.scalars(query.limit(limit + 1)))
    more = len(items) > limit
    items = items[:limit]
    return Page(items, _write_cursor(items[-1]) if more else None)


def get(s: Session, passage_id: int) -> Passage | None:
    """Return a passage by its id."""
    if not 0 < passage_id < 1 << 63:
        return None
    return s.scalar(_select().where(Passage.id == passage_id))


def count(s: Session, which: PassageFilter) -> int:
    """Return how many passages match."""
    return s.scalar(matching(s, sa.select(sa.func.count(Passage.id)), which)) or 0


def total(s: Session, which: PassageFilter) -> Total:
    """Return how many passages match and what they were charged."""
    rows = s.execute(
        matching(
            s,
            sa.select(
                Passage.currency,
                sa.func.count(Passage.id),
                sa.cast(sa.func.sum(Passage.amount), sa.BigInteger),
            ),
            which,
        )
        .group_by(Passage.currency)
        .order_by(Passage.currency)
    ).all()
    return Total(sum(row[1] for row in rows), {row[0]: int(row[2]) for row in rows})


def iterate(s: Session, which: PassageFilter, chunk: int = 500) -> Iterator[Passage]:
    """Yield all passages that match, newest first, without holding them all in memory."""
    query = matching(s, _select(), which).order_by(Passage.passed_at.desc(), Passage.id.desc())
    # Errors of the filter are raised here, not when the first row is taken.
    return _stream(s.get_bind(), query, chunk)


def _stream(
    bind: sa.Engine | sa.Connection, query: sa.Select[Passage], chunk: int
) -> Iterator[Passage]:
    # A session of its own: when Flask sends the rows, it has closed the request's session already,
    # which would begin again and then be closed by nobody.
    with (
        Session(bind) as session,
        closing(session.scalars(query.execution_options(yield_per=chunk))) as rows,
    ):
        yield from rows


def _select() -> sa.Select[Passage]:
    return (
        sa.select(Passage)
        .join(Passage.plaza)
        .join(Passage.vehicle_class)
        .options(contains_eager(Passage.plaza), contains_eager(Passage.vehicle_class))
    )


def matching(s: Session, query: sa.Select[*Ts], which: PassageFilter) -> sa.Select[*Ts]:
    """Return the query with the filter's conditions; raise InvalidParameters."""
    errors: list[FieldError] = []
    if which.plaza is not None:
        try:
            query = query.where(Passage.plaza_id == tariffs.get_plaza(s, which.plaza).id)
        except tariffs.UnknownPlaza as error:
            errors += error.errors
    if which.vehicle_class is not None:
        try:
            query = query.where(Passage.class_id == tariffs.get_class(s, which.vehicle_class).id)
        except tariffs.UnknownClass as error:
            errors += error.errors
    if which.plate is not None:
        try:
            query = query.where(Passage.plate == normalise_plate(which.plate))
        except ValueError as error:
            problem, remedy = error.args
            errors.append(FieldError("plate", cut(which.plate), problem, remedy))
    if which.payment_method is not None:
        if which.payment_method not in PAYMENT_METHODS:
            errors.append(not_known("payment_method", which.payment_method, PAYMENT_METHODS))
        query = query.where(Passage.payment_method == which.payment_method)
    if which.lane is not None:
        if not LANE.fullmatch(which.lane):
            errors.append(
                FieldError(
                    "lane",
                    cut(which.lane),
                    "is not a lane",
                    "Write 1 to 10 letters, digits and hyphens, like 3 or N-2",
                )
            )
        query = query.where(Passage.lane == which.lane)
    if which.since is not None:
        query = query.where(Passage.passed_at >= which.since)
    if which.until is not None:
        query = query.where(Passage.passed_at < which.until)
    if which.since is not None and which.until is not None and which.until <= which.since:
        errors.append(
            FieldError(
                "until",
                which.until.isoformat(timespec="minutes"),
                "is not after since",
                "Take a later time: until is exclusive",
            )
        )
    if errors:
        raise InvalidParameters(errors)
    return query


def _write_cursor(passage: Passage) -> str:
    text = f"{passage.passed_at.isoformat()} {passage.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, int]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        moment, _, number = base64.b64decode(padded, b"-_", validate=True).decode().partition(" ")
        passed_at, passage_id = datetime.fromisoformat(moment), int(number)
        if passed_at.tzinfo is None or not 0 < passage_id < 1 << 63:
            raise ValueError
    except (ValueError, binascii.Error):
        raise InvalidParameters(
            [
                FieldError(
                    "cursor",
                    cut(cursor),
                    "is not a cursor",
                    "Take next_cursor of the page before, or none for the first page",
                )
            ]
        ) from None
    return passed_at, passage_id


def prune_idempotency(s: Session, before: datetime) -> int:
    """Forget keys that were used before a moment; return how many."""
    with writing(s):
        gone = s.execute(
            sa.delete(IdempotencyRecord)
            .where(IdempotencyRecord.created_at < before)
            .returning(IdempotencyRecord.id)
        ).all()
    return len(gone)
