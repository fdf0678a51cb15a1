"""What was charged, by hour, day, plaza or class. Hours and days are those of the plaza's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from toll.errors import InvalidParameters, not_known
from toll.models import Passage, Plaza, VehicleClass, now
from toll.services import tariffs
from toll.services.money import format_money
from toll.services.passages import PassageFilter, matching

Group = Literal["hour", "day", "plaza", "class"]
GROUPS: tuple[str, ...] = get_args(Group)
# The offsets of all time zones are multiples of a quarter of an hour.
QUARTER = 900


@dataclass(frozen=True)
class Revenue:
    """A row: what was charged in one currency.

    Attributes:
        key: a local hour with its offset (2026-05-04T08:00+01:00), a local day (2026-05-04), the
            code of a plaza or of a class.
        label: the same for people: 08:00, a name.
        count: passages.
        amount: in minor units.
        currency: by ISO 4217.
    """

    key: str
    label: str
    count: int
    amount: int
    currency: str

    @property
    def formatted(self) -> str:
        """The amount as people write it."""
        return format_money(self.amount, self.currency)


@dataclass(frozen=True)
class PlazaToday:
    """One plaza's day so far."""

    plaza: Plaza
    day: date
    count: int
    amount: int

    @property
    def currency(self) -> str:
        """The plaza's currency."""
        return self.plaza.currency

    @property
    def formatted(self) -> str:
        """The amount as people write it."""
        return format_money(self.amount, self.currency)


@dataclass(frozen=True)
class HourCount:
    """How many passed in an hour of the day, 0 to 23, on the plazas' clocks."""

    hour: int
    count: int


@dataclass(frozen=True)
class ClassCount:
    """How many of a class passed today."""

    vehicle_class: VehicleClass
    count: int


@dataclass(frozen=True)
class Today:
    """Today so far; each plaza's day begins at its own midnight.

    Attributes:
        count: passages of all plazas.
        amounts: by currency, in minor units.
        plazas: all of them, by name.
        hours: 24 of them.
        classes: all of them, the smallest first.
    """

    count: int
    amounts: dict[str, int]
    plazas: list[PlazaToday]
    hours: list[HourCount]
    classes: list[ClassCount]


def by(s: Session, group: Group, which: PassageFilter) -> list[Revenue]:
    """Return what was charged, in the order of time, of plazas' names or of classes.

    A key has a row for each currency. Raises InvalidParameters.
    """
    if group not in GROUPS:
        raise InvalidParameters([not_known("group", group, GROUPS)])
    if group in ("hour", "day"):
        return _by_time(s, group, which)
    model = Plaza if group == "plaza" else VehicleClass
    join = Passage.plaza if group == "plaza" else Passage.vehicle_class
    order = (Plaza.name,) if group == "plaza" else (VehicleClass.position,)
    rows = s.execute(
        matching(s, sa.select(model.code, model.name, Passage.currency, *_sums()).join(join), which)
        .group_by(model.id, model.code, model.name, Passage.currency, *order)
        .order_by(*order, model.code, Passage.currency)
    )
    return [Revenue(row[0], row[1], row[3], int(row[4]), row[2]) for row in rows]


def today(s: Session, moment: datetime | None = None, plaza: str | None = None) -> Today:
    """Return how today goes, at all plazas or at the one of that code."""
    moment = moment or now()
    places = [tariffs.get_plaza(s, plaza)] if plaza else tariffs.list_plazas(s)
    hours = [0] * 24
    by_class: dict[int, int] = {}
    rows: list[PlazaToday] = []
    for place in places:
        local = moment.astimezone(place.zone)
        begin = day_begins(local.date(), place)
        end = day_begins(local.date() + timedelta(days=1), place)
        slot = _slot(s)
        found = s.execute(
            sa.select(slot, Passage.class_id, *_sums())
            .where(
                Passage.plaza_id == place.id, Passage.passed_at >= begin, Passage.passed_at < end
            )
            .group_by(slot, Passage.class_id)
        ).all()
        for quarter, class_id, count, _ in found:
            hours[_moment(quarter).astimezone(place.zone).hour] += count
            by_class[class_id] = by_class.get(class_id, 0) + count
        rows.append(
            PlazaToday(
                place,
                local.date(),
                sum(row[2] for row in found),
                sum(int(row[3]) for row in found),
            )
        )
    amounts: dict[str, int] = {}
    for row in rows:
        amounts[row.currency] = amounts.get(row.currency, 0) + row.amount
    return Today(
        count=sum(row.count for row in rows),
        amounts=dict(sorted(amounts.items())),
        plazas=rows,
        hours=[HourCount(hour, count) for hour, count in enumerate(hours)],
        classes=[ClassCount(each, by_class.get(each.id, 0)) for each in tariffs.list_classes(s)],
    )


def day_begins(day: date, plaza: Plaza) -> datetime:
    """Return the moment (UTC) at which a day begins at a plaza.

    Where the clocks go forward over midnight that is their first time after it.
    """
    return datetime.combine(day, time(0), plaza.zone).astimezone(UTC)


def _sums() -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
    return sa.func.count(Passage.id), sa.cast(sa.func.sum(Passage.amount), sa.BigInteger)


def _slot(s: Session) -> sa.ColumnElement[int]:
    """Return when the quarter of an hour of a passage began, in seconds since 1970."""
    if s.get_bind().dialect.name == "postgresql":
        epoch = sa.func.floor(sa.extract("epoch", Passage.passed_at))
        seconds = sa.cast(epoch, sa.BigInteger)
    else:
        seconds = sa.cast(sa.func.strftime("%s", Passage.passed_at), sa.BigInteger)
    return (seconds - seconds % QUARTER).label("slot")


def _moment(slot: int) -> datetime:
    return datetime.fromtimestamp(slot, UTC)


def _by_time(s: Session, group: str, which: PassageFilter) -> list[Revenue]:
    slot = _slot(s)
    rows = s.execute(
        matching(
            s,
            sa.select(slot, Plaza.time_zone, Passage.currency, *_sums()).join(Passage.plaza),
            which,
        ).group_by(slot, Plaza.time_zone, Passage.currency)
    )
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    zones = {place.time_zone: place.zone for place in tariffs.list_plazas(s)}
    for quarter, zone, currency, count, amount in rows:
        local = _moment(quarter).astimezone(zones[zone])
        if group == "hour":
            begin = local.replace(minute=0, second=0)
            order, label = begin.astimezone(UTC).isoformat(), f"{begin:%H:%M}"
            key = begin.isoformat(timespec="minutes")
        else:
            order = label = key = local.date().isoformat()
        entry = sums.setdefault((order, key, label, currency), [0, 0])
        entry[0] += count
        entry[1] += int(amount)
    return [
        Revenue(key, label, count, amount, currency)
        for (_, key, label, currency), (count, amount) in sorted(sums.items())
    ]
