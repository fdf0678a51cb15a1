"""Passages: recorded once, charged by the tariff of their time, found again."""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, TypeVarTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session, contains_eager
from sqlalchemy.orm.attributes import set_committed_value

from toll.database import SECONDS, take_lock, writing
from toll.errors import FieldError, InvalidParameters, MalformedRequest, cut, not_known
from toll.models import (
    PAYMENT_METHODS,
    IdempotencyRecord,
    Passage,
    Plaza,
    VehicleClass,
    now,
    table,
)
from toll.services import fields, tariffs, times

Ts = TypeVarTuple("Ts")
# Clocks of lanes run ahead a little.
AHEAD = timedelta(minutes=5)
MOST_AT_ONCE = 500
MOST_PER_PAGE = 500
# An export of so many ends in the time that gunicorn gives a request when a release is handed over.
MOST_EXPORTED = 200_000
# And one that does not, since its client reads slowly, is broken off: it keeps a snapshot of the
# database alive.
EXPORT_SECONDS = 60


# Made once: see services/tariffs.py.
PASSAGES, RECORDS = table(Passage), table(IdempotencyRecord)
_INSERT = sa.insert(PASSAGES).returning(PASSAGES.c.id, sort_by_parameter_order=True)
_REMEMBERED = sa.select(RECORDS.c.body_hash, RECORDS.c.passage_ids).where(
    RECORDS.c.scope == sa.bindparam("scope"), RECORDS.c.key == sa.bindparam("key")
)


_EXPORTED = (
    sa.select(
        *(Passage.id, Plaza.code.label("plaza"), Plaza.time_zone),
        *(Passage.lane, VehicleClass.code.label("vehicle_class"), Passage.plate),
        *(Passage.passed_at, Passage.amount, Passage.currency, Passage.tariff_name),
        *(Passage.payment_method, Passage.recorded_by, Passage.recorded_at),
    )
    .join(Passage.plaza)
    .join(Passage.vehicle_class)
)


class TooManyPassages(InvalidParameters):
    """More match than are exported in one answer."""


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
    # Before the transaction that writes, for which all others wait: a repetition needs none.
    if idempotency and (known := _known(s, idempotency)):
        return known
    try:
        with writing(s):
            # Or the tariff may be ended, from a moment before, until the passage is there.
            take_lock(s, tariffs.CHARGES, shared=True)
            passages = _charge(s, new, recorded_by, indexed=indexed)
            _insert(s, passages)
            if idempotency:
                _remember(s, idempotency, [passage.id for passage in passages])
        return RecordedBatch(passages, False)
    except (_Overtaken, InvalidParameters):
        # Another request of the same key may have been faster: its passages are there, ours were
        # undone. And what it could charge may be wrong by now, such as a tariff that has ended.
        if idempotency and (known := _known(s, idempotency)):
            return known
        raise


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
    stored = s.connection().execute(
        _statement_to_remember(s.get_bind().dialect.name),
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


@functools.cache
def _statement_to_remember(dialect: str) -> sa.Insert:
    # The engine has imported its dialect, and needs no other one.
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    statement: sa.Insert = (
        insert(RECORDS)
        .on_conflict_do_nothing(index_elements=["scope", "key"])
        .returning(RECORDS.c.id)
    )
    return statement


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
        lane = plate = ""
        try:
            lane = fields.lane(each.lane)
        except ValueError as error:
            found.append(FieldError("lane", cut(each.lane), *error.args))
        try:
            plate = fields.plate(each.plate)
        except ValueError as error:
            found.append(FieldError("plate", cut(each.plate), *error.args))
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
            lane=lane,
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


def iterate(s: Session, which: PassageFilter, chunk: int = 500) -> Generator[sa.Row[Any]]:
    """Yield all passages that match, newest first, without holding them all in memory.

    A row has the passage's columns, and its plaza's and class's codes and time zone. Objects would
    cost several times as much as the database does.

    Raises InvalidParameters, and TooManyPassages if there are more than MOST_EXPORTED.
    """
    matched = matching(s, sa.select(Passage.id), which).limit(MOST_EXPORTED + 1).subquery()
    if (s.scalar(sa.select(sa.func.count()).select_from(matched)) or 0) > MOST_EXPORTED:
        field, value = ("until", which.until) if which.until else ("since", which.since)
        raise TooManyPassages(
            [
                FieldError(
                    field,
                    value.isoformat(timespec="minutes") if value else None,
                    f"leaves more than {MOST_EXPORTED:,} passages to export",
                    "Take a shorter time, or more filters, and export the rest after it",
                )
            ]
        )
    # Errors of the filter are raised here, not when the first row is taken.
    query = matching(s, _EXPORTED, which).order_by(Passage.passed_at.desc(), Passage.id.desc())
    return _stream(s.get_bind(), query, chunk)


def _stream(
    bind: sa.Engine | sa.Connection, query: sa.Select[*tuple[Any, ...]], chunk: int
) -> Generator[sa.Row[Any]]:
    # A session of its own: when Flask sends the rows, it has closed the request's session already,
    # which would begin again and then be closed by nobody.
    with Session(bind) as session:
        session.connection(execution_options={SECONDS: EXPORT_SECONDS})
        with closing(session.execute(query.execution_options(yield_per=chunk))) as rows:
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
            query = query.where(Passage.plate == fields.plate(which.plate))
        except ValueError as error:
            errors.append(FieldError("plate", cut(which.plate), *error.args))
    if which.payment_method is not None:
        if which.payment_method not in PAYMENT_METHODS:
            errors.append(not_known("payment_method", which.payment_method, PAYMENT_METHODS))
        query = query.where(Passage.payment_method == which.payment_method)
    if which.lane is not None:
        try:
            # Older releases kept lanes in the case in which they came.
            query = query.where(sa.func.upper(Passage.lane) == fields.lane(which.lane))
        except ValueError as error:
            errors.append(FieldError("lane", cut(which.lane), *error.args))
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
        passage_id = int(number)
        # The first and the last days of the calendar have no equivalent in UTC.
        read = datetime.fromisoformat(moment)
        passed_at = read.astimezone(UTC)
        if read.tzinfo is None or not times.EARLIEST <= passed_at <= times.LATEST:
            raise ValueError
        if not 0 < passage_id < 1 << 63:
            raise ValueError
    except (ValueError, OverflowError, binascii.Error):
        raise MalformedRequest(
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


def rewrite_plates(s: Session) -> int:
    """Give plates that older releases stored the form that they have now; return of how many
    passages that changed it.
    """
    # What is plain ASCII was right all along.
    sqlite = s.get_bind().dialect.name == "sqlite"
    other = Passage.plate.op("GLOB")("*[^ -~]*") if sqlite else Passage.plate.regexp_match("[^ -~]")
    changed = 0
    for stored in s.scalars(sa.select(Passage.plate).where(other).distinct()).all():
        plate = fields.plate(stored)
        if plate == stored:
            continue
        # A transaction for each, so that nobody waits for all of them.
        with writing(s):
            rows = s.execute(
                sa.update(Passage)
                .where(Passage.plate == stored)
                .values(plate=plate)
                .returning(Passage.id)
                .execution_options(synchronize_session=False)
            )
            changed += len(rows.all())
    return changed


def prune_idempotency(s: Session, before: datetime) -> int:
    """Forget keys that were used before a moment; return how many."""
    with writing(s):
        gone = s.execute(
            sa.delete(IdempotencyRecord)
            .where(IdempotencyRecord.created_at < before)
            .returning(IdempotencyRecord.id)
        ).all()
    return len(gone)
