"""Plazas, classes and tariffs: what a passage costs, and how that is changed."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import IO, TypeAlias
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Session, contains_eager, joinedload

from toll.database import UtcDateTime, take_lock, writing
from toll.errors import FieldError, InvalidParameters, cut, not_known
from toll.models import (
    DAYS,
    MIDNIGHT,
    Passage,
    PeakWindow,
    Plaza,
    Tariff,
    VehicleClass,
    now,
    table,
    window_holds,
)
from toll.services import fields, times
from toll.services.money import CURRENCIES, MOST, format_money

__all__ = ["CURRENCIES", "format_money"]

CODE = re.compile(fields.CODE, re.ASCII)
NAME_MOST = 80  # characters of a name
LOCK = "tariffs"
# Whoever records shares it from the charge to the end; whoever ends a tariff has it alone.
CHARGES = "charges"
EVERY_DAY = (1 << len(DAYS)) - 1
# Tariffs, and the moments at which a transaction ends them.
Ended: TypeAlias = list[tuple[Tariff, datetime]]


# Made once, and of columns instead of objects: building a statement and objects from its rows takes
# several times as long as the database does.
PLAZAS, CLASSES, TARIFFS, WINDOWS = map(table, (Plaza, VehicleClass, Tariff, PeakWindow))
_at = sa.bindparam("at", type_=UtcDateTime)
_PRICE = (
    sa.select(
        *(PLAZAS.c.id, PLAZAS.c.code, PLAZAS.c.time_zone),
        *(CLASSES.c.id, CLASSES.c.code),
        *(TARIFFS.c.id, TARIFFS.c.name, TARIFFS.c.amount, TARIFFS.c.currency),
        *(WINDOWS.c.id, WINDOWS.c.name, WINDOWS.c.days),
        *(WINDOWS.c.starts, WINDOWS.c.ends, WINDOWS.c.amount),
    )
    .select_from(
        TARIFFS.join(PLAZAS, TARIFFS.c.plaza_id == PLAZAS.c.id)
        .join(CLASSES, TARIFFS.c.class_id == CLASSES.c.id)
        .outerjoin(WINDOWS, WINDOWS.c.tariff_id == TARIFFS.c.id)
    )
    .where(
        PLAZAS.c.code == sa.bindparam("plaza"),
        CLASSES.c.code == sa.bindparam("class"),
        TARIFFS.c.valid_from <= _at,
        sa.or_(TARIFFS.c.valid_until.is_(None), TARIFFS.c.valid_until > _at),
    )
    .order_by(WINDOWS.c.id)
)


class UnknownPlaza(InvalidParameters):
    """There is no plaza of that code."""


class UnknownClass(InvalidParameters):
    """There is no vehicle class of that code."""


class NoTariff(InvalidParameters):
    """No tariff holds for that plaza and class at that time."""


@dataclass(frozen=True)
class Quote:
    """What a passage costs.

    Attributes:
        plaza: where.
        vehicle_class: which vehicle.
        at_local: when, on the plaza's clock.
        tariff: the tariff that holds then.
        window: its peak window that holds then, if any.
        name: of the window, else of the tariff.
        amount: in minor units.
        currency: by ISO 4217.
    """

    plaza: Plaza
    vehicle_class: VehicleClass
    at_local: datetime
    tariff: Tariff
    window: PeakWindow | None
    name: str
    amount: int
    currency: str

    @property
    def formatted(self) -> str:
        """The amount as people write it."""
        return format_money(self.amount, self.currency)


@dataclass(frozen=True)
class Price:
    """What a passage costs, as plain values; see `Quote`.

    Attributes:
        plaza_id: where.
        plaza: its code.
        time_zone: name of its clock.
        class_id: which vehicle.
        vehicle_class: its code.
        at_local: when, on the plaza's clock.
        tariff_id: the tariff that holds then.
        tariff: its name.
        window_id: its peak window that holds then, if any.
        window: its name.
        amount: in minor units.
        currency: by ISO 4217.
    """

    plaza_id: int
    plaza: str
    time_zone: str
    class_id: int
    vehicle_class: str
    at_local: datetime
    tariff_id: int
    tariff: str
    window_id: int | None
    window: str | None
    amount: int
    currency: str

    @property
    def name(self) -> str:
        """The name of the window, else of the tariff."""
        return self.window or self.tariff


@dataclass(frozen=True, kw_only=True)
class NewWindow:
    """Hours that cost something else; see `PeakWindow`."""

    name: str
    days: int = EVERY_DAY
    starts: time = MIDNIGHT
    ends: time = MIDNIGHT
    amount: int = 0


@dataclass(frozen=True, kw_only=True)
class NewTariff:
    """A tariff to be made; see `Tariff`. Without a currency it is the plaza's."""

    plaza: str
    vehicle_class: str
    name: str
    amount: int
    valid_from: datetime
    valid_until: datetime | None = None
    currency: str | None = None
    windows: Sequence[NewWindow] = ()


def list_plazas(s: Session) -> list[Plaza]:
    """Return all plazas by name."""
    return list(s.scalars(sa.select(Plaza).order_by(Plaza.name, Plaza.code)))


def list_classes(s: Session) -> list[VehicleClass]:
    """Return all vehicle classes, the smallest first."""
    return list(s.scalars(sa.select(VehicleClass).order_by(VehicleClass.position, VehicleClass.id)))


def get_plaza(s: Session, code: str, field: str = "plaza") -> Plaza:
    """Return a plaza; raise UnknownPlaza."""
    plaza = s.scalar(sa.select(Plaza).where(Plaza.code == code)) if fields.storable(code) else None
    if plaza is None:
        raise UnknownPlaza([not_known(field, code, (each.code for each in list_plazas(s)))])
    return plaza


def get_class(s: Session, code: str, field: str = "class") -> VehicleClass:
    """Return a vehicle class; raise UnknownClass."""
    query = sa.select(VehicleClass).where(VehicleClass.code == code)
    found = s.scalar(query) if fields.storable(code) else None
    if found is None:
        raise UnknownClass([not_known(field, code, (each.code for each in list_classes(s)))])
    return found


def list_tariffs(
    s: Session,
    plaza: str | None = None,
    vehicle_class: str | None = None,
    at: datetime | None = None,
) -> list[Tariff]:
    """Return tariffs by plaza, class and time, those of codes and of a moment if given."""
    query = (
        sa.select(Tariff)
        .join(Tariff.plaza)
        .join(Tariff.vehicle_class)
        .options(contains_eager(Tariff.plaza), contains_eager(Tariff.vehicle_class))
        .order_by(Plaza.name, Plaza.code, VehicleClass.position, Tariff.valid_from)
    )
    if plaza is not None:
        query = query.where(Plaza.id == get_plaza(s, plaza).id)
    if vehicle_class is not None:
        query = query.where(VehicleClass.id == get_class(s, vehicle_class).id)
    if at is not None:
        query = query.where(*_valid(at))
    return list(s.scalars(query))


def quote(s: Session, plaza_code: str, class_code: str, at: datetime | None = None) -> Quote:
    """Return what a passage costs at a moment (aware), now if there is none.

    Raises:
        UnknownPlaza: there is no such plaza.
        UnknownClass: there is no such class.
        NoTariff: none holds there and then.
    """
    at = at or now()
    query = (
        sa.select(Tariff)
        .join(Tariff.plaza)
        .join(Tariff.vehicle_class)
        .outerjoin(Tariff.windows)
        .options(
            contains_eager(Tariff.plaza),
            contains_eager(Tariff.vehicle_class),
            contains_eager(Tariff.windows),
        )
        .where(Plaza.code == plaza_code, VehicleClass.code == class_code, *_valid(at))
        .order_by(PeakWindow.id)
    )
    found = fields.storable(plaza_code) and fields.storable(class_code)
    tariff = s.scalars(query).unique().one_or_none() if found else None
    if tariff is None:
        plaza = get_plaza(s, plaza_code)
        get_class(s, class_code)
        local = at.astimezone(plaza.zone)
        raise NoTariff(
            [
                FieldError(
                    "at",
                    local.isoformat(timespec="minutes"),
                    f"has no tariff for {class_code} at {plaza_code}",
                    "Take another time, or add a tariff that holds then",
                )
            ]
        )
    local = at.astimezone(tariff.plaza.zone)
    window = tariff.window_at(local)
    return Quote(
        plaza=tariff.plaza,
        vehicle_class=tariff.vehicle_class,
        at_local=local,
        tariff=tariff,
        window=window,
        name=window.name if window else tariff.name,
        amount=window.amount if window else tariff.amount,
        currency=tariff.currency,
    )


def price(s: Session, plaza_code: str, class_code: str, at: datetime | None = None) -> Price:
    """Return what `quote` does as plain values, in a fraction of its time; raise what it raises."""
    at = at or now()
    rows = (
        s.connection().execute(_PRICE, {"plaza": plaza_code, "class": class_code, "at": at}).all()
        if fields.storable(plaza_code) and fields.storable(class_code)
        else []
    )
    if not rows:
        # Raises what is missing, unless somebody has added it since the statement above.
        quote(s, plaza_code, class_code, at)
        return price(s, plaza_code, class_code, at)
    (plaza_id, plaza, time_zone, class_id, vehicle_class, tariff_id, tariff, amount, currency) = (
        rows[0][:9]
    )
    local = at.astimezone(ZoneInfo(time_zone))
    window_id = window = None
    for row in rows:
        found, name, days, starts, ends, window_amount = row[9:]
        if found is not None and window_holds(days, starts, ends, local):
            window_id, window, amount = found, name, window_amount
            break
    return Price(
        plaza_id,
        plaza,
        time_zone,
        class_id,
        vehicle_class,
        local,
        tariff_id,
        tariff,
        window_id,
        window,
        amount,
        currency,
    )


def create_plaza(
    s: Session, *, code: str, name: str, road: str, time_zone: str, currency: str
) -> Plaza:
    """Make a plaza; raise InvalidParameters."""
    errors = [*_code("plaza", code), *_name("name", name), *_name("road", road)]
    try:
        if not time_zone:
            raise ValueError
        ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        errors.append(
            FieldError(
                "time_zone",
                cut(time_zone),
                "is no time zone",
                "Take an IANA name such as Europe/Lisbon",
            )
        )
    errors += _currency(currency, None)
    with writing(s, LOCK):
        if s.scalar(sa.select(Plaza.id).where(Plaza.code == code)):
            errors.append(FieldError("plaza", code, "is there already", "Take another code"))
        if errors:
            raise InvalidParameters(errors)
        plaza = Plaza(code=code, name=name, road=road, time_zone=time_zone, currency=currency)
        s.add(plaza)
    return plaza


def create_class(s: Session, *, code: str, name: str, position: int | None = None) -> VehicleClass:
    """Make a vehicle class, the last one unless a position is given; raise InvalidParameters."""
    errors = [*_code("class", code), *_name("name", name)]
    with writing(s, LOCK):
        if s.scalar(sa.select(VehicleClass.id).where(VehicleClass.code == code)):
            errors.append(FieldError("class", code, "is there already", "Take another code"))
        if errors:
            raise InvalidParameters(errors)
        if position is None:
            position = (s.scalar(sa.select(sa.func.max(VehicleClass.position))) or 0) + 1
        made = VehicleClass(code=code, name=name, position=position)
        s.add(made)
    return made


def create_tariff(s: Session, new: NewTariff) -> Tariff:
    """Make a tariff. One that has no end is ended where the new one begins.

    Raises:
        InvalidParameters: with every error; also if it overlaps another tariff, or if passages were
            charged by the one that it would end.
    """
    ended: Ended = []
    with writing(s, LOCK):
        tariff = _create(s, new, ended)
        if errors := _charged_meanwhile(s, ended):
            raise InvalidParameters(errors)
    return tariff


def end_tariff(s: Session, tariff: Tariff, at: datetime) -> Tariff:
    """End a tariff at a moment, which is the first in which it does not hold.

    Raises:
        InvalidParameters: it would end before it begins, later than it does, or passages were
            charged by it after that moment.
    """
    with writing(s, LOCK):
        s.refresh(tariff)
        errors = []
        written = at.isoformat(timespec="minutes")
        if at <= tariff.valid_from:
            begin = tariff.valid_from.astimezone(tariff.plaza.zone).isoformat(timespec="minutes")
            errors.append(
                FieldError(
                    "valid_until", written, "is not after its beginning", f"Take one after {begin}"
                )
            )
        elif tariff.valid_until is not None and at > tariff.valid_until:
            errors.append(
                FieldError(
                    "valid_until",
                    written,
                    "is after its end, and another tariff may hold then",
                    "Make a new tariff for the time after it",
                )
            )
        else:
            # Until the transaction ends, none will be.
            take_lock(s, CHARGES)
            errors += _charged(s, tariff, at, "valid_until")
        if errors:
            raise InvalidParameters(errors)
        tariff.valid_until = at
    return tariff


def _valid(at: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Tariff.valid_from <= at,
        sa.or_(Tariff.valid_until.is_(None), Tariff.valid_until > at),
    )


def _code(field: str, code: str) -> list[FieldError]:
    if CODE.fullmatch(code or ""):
        return []
    return [
        FieldError(
            field,
            cut(code),
            "is not a code",
            "Write up to 40 lower-case letters, digits and hyphens, like harbour-bridge",
        )
    ]


def _name(field: str, name: str) -> list[FieldError]:
    if name and name.strip() == name and len(name) <= NAME_MOST and name.isprintable():
        return []
    problem = "is not a name" if name else "is missing"
    return [FieldError(field, cut(name), problem, f"Write 1 to {NAME_MOST} printable characters")]


def _amount(field: str, amount: object) -> list[FieldError]:
    if type(amount) is int and 0 <= amount <= MOST:
        return []
    return [
        FieldError(
            field,
            cut(amount),
            "is not an amount in minor units",
            f"Write a whole number from 0 to {MOST}: 320 for 3.20",
        )
    ]


def _currency(currency: str | None, plaza: Plaza | None) -> list[FieldError]:
    if plaza and currency not in (None, plaza.currency):
        problem, remedy = f"is not the currency of {plaza.code}", f"Write {plaza.currency}"
    elif not plaza and currency not in CURRENCIES:
        problem, remedy = "is not a currency", "Write its ISO 4217 code, such as EUR"
    else:
        return []
    return [FieldError("currency", cut(currency), problem, remedy)]


def _windows(windows: Iterable[NewWindow]) -> list[FieldError]:
    errors: list[FieldError] = []
    before: list[NewWindow] = []
    for window in windows:
        errors += _name("windows", window.name)
        errors += _amount("windows", window.amount)
        text = f"{window.starts:%H:%M}-{window.ends:%H:%M}"
        if type(window.days) is not int or not 1 <= window.days <= EVERY_DAY:
            errors.append(
                FieldError(
                    "windows", cut(window.days), "has no days", "Name at least one day of the week"
                )
            )
        elif window.starts >= window.ends != MIDNIGHT:
            errors.append(
                FieldError(
                    "windows",
                    text,
                    "does not end after it starts",
                    "Make two windows of one that passes midnight; 00:00 is the end of a day",
                )
            )
        else:
            for other in before:
                if (
                    window.days & other.days
                    and (other.ends == MIDNIGHT or window.starts < other.ends)
                    and (window.ends == MIDNIGHT or other.starts < window.ends)
                ):
                    errors.append(
                        FieldError(
                            "windows",
                            text,
                            f"overlaps {other.name} {other.starts:%H:%M}-{other.ends:%H:%M}",
                            "Let each hour of a day be in one window at most",
                        )
                    )
            before.append(window)
    return errors


def _create(s: Session, new: NewTariff, ended: Ended) -> Tariff:
    """Make a tariff inside a writing transaction under the lock, and note which ones it ends."""
    errors: list[FieldError] = []
    plaza = vehicle_class = None
    try:
        plaza = get_plaza(s, new.plaza)
    except UnknownPlaza as error:
        errors += error.errors
    try:
        vehicle_class = get_class(s, new.vehicle_class)
    except UnknownClass as error:
        errors += error.errors
    errors += _name("name", new.name) + _amount("amount", new.amount)
    if plaza:
        errors += _currency(new.currency, plaza)
    errors += _windows(new.windows)
    if new.valid_until is not None and new.valid_until <= new.valid_from:
        errors.append(
            FieldError(
                "valid_until",
                new.valid_until.isoformat(timespec="minutes"),
                "is not after its beginning",
                "Take a later time, or none",
            )
        )
    if errors or plaza is None or vehicle_class is None:
        raise InvalidParameters(errors)

    overlapping = sa.select(Tariff).where(
        Tariff.plaza_id == plaza.id,
        Tariff.class_id == vehicle_class.id,
        sa.or_(Tariff.valid_until.is_(None), Tariff.valid_until > new.valid_from),
    )
    if new.valid_until is not None:
        overlapping = overlapping.where(Tariff.valid_from < new.valid_until)
    for other in s.scalars(overlapping.order_by(Tariff.valid_from)):
        begin = other.valid_from.astimezone(plaza.zone).isoformat(timespec="minutes")
        if other.valid_until is None and other.valid_from < new.valid_from:
            errors += _charged(s, other, new.valid_from, "valid_from")
            other.valid_until = new.valid_from
            ended.append((other, new.valid_from))
        elif other.valid_from >= new.valid_from:
            errors.append(
                FieldError(
                    "valid_until",
                    cut(new.valid_until and new.valid_until.isoformat(timespec="minutes")),
                    f"overlaps the tariff {other.name}, which begins at {begin}",
                    f"End this one at {begin} or before",
                )
            )
        else:
            assert other.valid_until is not None
            end = other.valid_until.astimezone(plaza.zone).isoformat(timespec="minutes")
            errors.append(
                FieldError(
                    "valid_from",
                    new.valid_from.astimezone(plaza.zone).isoformat(timespec="minutes"),
                    f"overlaps the tariff {other.name}, which ends at {end}",
                    f"Begin at {end} or after, or end that one first",
                )
            )
    if errors:
        raise InvalidParameters(errors)
    tariff = Tariff(
        plaza=plaza,
        vehicle_class=vehicle_class,
        name=new.name,
        amount=new.amount,
        currency=plaza.currency,
        valid_from=new.valid_from,
        valid_until=new.valid_until,
        windows=[
            PeakWindow(
                name=window.name,
                days=window.days,
                starts=window.starts,
                ends=window.ends,
                amount=window.amount,
            )
            for window in new.windows
        ],
    )
    s.add(tariff)
    s.flush()
    return tariff


def _charged(s: Session, tariff: Tariff, at: datetime, field: str) -> list[FieldError]:
    """Return an error if passages were charged by the tariff at or after a moment."""
    count, last = s.execute(
        sa.select(sa.func.count(), sa.func.max(Passage.passed_at)).where(
            Passage.tariff_id == tariff.id, Passage.passed_at >= at
        )
    ).one()
    if not count:
        return []
    after = (last + timedelta(minutes=1)).astimezone(tariff.plaza.zone)
    return [
        FieldError(
            field,
            at.astimezone(tariff.plaza.zone).isoformat(timespec="minutes"),
            f"is before {count} passages that were charged by the tariff {tariff.name}",
            f"Take {after.isoformat(timespec='minutes')} or later",
        )
    ]


def _charged_meanwhile(s: Session, ended: Ended) -> list[FieldError]:
    """Look again at what a transaction ends, as its last act: whoever records waits for the end."""
    if ended:
        take_lock(s, CHARGES)
    return [error for each, at in ended for error in _charged(s, each, at, "valid_from")]


# Import from CSV

COLUMNS = (
    "plaza",
    "class",
    "name",
    "amount",
    "currency",
    "valid_from",
    "valid_until",
    "window",
    "days",
    "starts",
    "ends",
)
REQUIRED = ("plaza", "class", "name", "amount", "valid_from")
DAY_NAMES = {name.lower(): at for at, day in enumerate(DAYS) for name in (day, day[:3])}


@dataclass(frozen=True)
class LineError:
    """What is wrong in one line of a file."""

    line: int
    field: str
    value: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"line {self.line}: {FieldError(self.field, self.value, self.problem, self.remedy)}"


@dataclass
class ImportResult:
    """What an import made, or would have made but for the errors."""

    created: int = 0
    errors: list[LineError] = field(default_factory=list)


class _DryRun(Exception):
    """Undoes what was tried."""


def import_csv(s: Session, file: IO[str], *, dry_run: bool = False) -> ImportResult:
    """Make all tariffs of a CSV file, or none if a line has an error.

    A line without `window` is a tariff; those with one that follow it are its peak windows, and
    repeat its plaza, class and valid_from. `amount` is in minor units. `days` are like Mon-Fri or
    Sat Sun; empty is every day. Times without an offset are on the plaza's clock.
    """
    result = ImportResult()
    try:
        groups = _read(s, file, result)
    except (csv.Error, UnicodeDecodeError) as error:
        result.errors.append(
            LineError(1, "file", None, f"cannot be read as CSV: {error}", "Save it as CSV in UTF-8")
        )
        return result
    made: list[tuple[int, Ended]] = []
    try:
        with writing(s, LOCK):
            for line, new in groups:
                ended: Ended = []
                made.append((line, ended))
                try:
                    _create(s, new, ended)
                    result.created += 1
                except InvalidParameters as error:
                    result.errors += _lines(line, error.errors)
            if result.errors or dry_run:
                raise _DryRun
            for line, ended in made:
                result.errors += _lines(line, _charged_meanwhile(s, ended))
            if result.errors:
                raise _DryRun
    except _DryRun:
        pass
    if result.errors:
        result.created = 0
        result.errors.sort(key=lambda error: error.line)
    return result


def _lines(line: int, errors: Iterable[FieldError]) -> list[LineError]:
    return [LineError(line, each.field, each.value, each.problem, each.remedy) for each in errors]


def _read(s: Session, file: IO[str], result: ImportResult) -> list[tuple[int, NewTariff]]:
    """Return the tariffs of a file with their lines; note errors in the result."""
    reader = csv.reader(file, strict=True)
    header = [name.strip().lower().removeprefix("\ufeff") for name in next(reader, [])]
    for name in header:
        if name not in COLUMNS or header.count(name) > 1:
            problem = "is there twice" if name in COLUMNS else "is not a column"
            result.errors.append(
                LineError(1, name or "header", None, problem, f"Use {', '.join(COLUMNS)}")
            )
    for name in REQUIRED:
        if name not in header:
            result.errors.append(LineError(1, name, None, "is missing", "Add this column"))
    if result.errors:
        return []
    plazas = {plaza.code: plaza for plaza in list_plazas(s)}
    found: list[tuple[int, dict[str, str], NewTariff, list[NewWindow]]] = []
    by_key: dict[tuple[str, str, str], tuple[dict[str, str], list[NewWindow]]] = {}
    for row in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            result.errors.append(
                LineError(
                    line,
                    "line",
                    None,
                    f"has {len(row)} cells, and the header has {len(header)}",
                    "Give each column a cell, empty or not",
                )
            )
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        errors: list[FieldError] = []
        plaza = plazas.get(cells["plaza"])
        if plaza is None:
            errors.append(not_known("plaza", cells["plaza"], plazas))
        amount = _whole(cells["amount"], errors)
        moments: dict[str, datetime] = {}
        for name in ("valid_from", "valid_until"):
            if text := cells.get(name):
                try:
                    moments[name] = times.parse(text, plaza.zone if plaza else None).astimezone(UTC)
                except ValueError as error:
                    problem, remedy = error.args
                    errors.append(FieldError(name, cut(text), problem, remedy))
            elif name == "valid_from":
                errors.append(
                    FieldError(name, None, "is missing", "Write it like 2026-01-01T00:00")
                )
        key = (cells["plaza"], cells["class"], cells["valid_from"])
        if cells.get("window"):
            window = _window(cells, amount, errors)
            if key not in by_key:
                errors.append(
                    FieldError(
                        "window",
                        cut(cells["window"]),
                        "belongs to no tariff above it",
                        "Put it below its tariff: the same plaza, class and valid_from, no window",
                    )
                )
            elif window:
                base, windows = by_key[key]
                for name in ("name", "currency", "valid_until"):
                    if cells.get(name) and cells[name] != base.get(name, ""):
                        errors.append(
                            FieldError(
                                name,
                                cut(cells[name]),
                                "is not what the window's tariff has",
                                f"Write {base.get(name) or 'nothing'}",
                            )
                        )
                windows.append(window)
        else:
            for name in ("days", "starts", "ends"):
                if cells.get(name):
                    errors.append(
                        FieldError(
                            name,
                            cut(cells[name]),
                            "is of no window",
                            "Name the window, or empty it",
                        )
                    )
            windows = []
            by_key.setdefault(key, (cells, windows))
            if not errors:
                new = NewTariff(
                    plaza=cells["plaza"],
                    vehicle_class=cells["class"],
                    name=cells["name"],
                    amount=amount,
                    currency=cells.get("currency") or None,
                    valid_from=moments["valid_from"],
                    valid_until=moments.get("valid_until"),
                )
                found.append((line, cells, new, windows))
        result.errors += _lines(line, errors)
    return [
        (line, NewTariff(**{**new.__dict__, "windows": tuple(windows)}))
        for line, _, new, windows in found
    ]


def _whole(text: str, errors: list[FieldError]) -> int:
    if re.fullmatch(r"\d{1,10}", text, re.ASCII):
        return int(text)
    errors += _amount("amount", text)
    return 0


def _window(cells: dict[str, str], amount: int, errors: list[FieldError]) -> NewWindow | None:
    before = len(errors)
    days = 0
    text = cells.get("days", "")
    for part in re.split(r"[\s,;+/]+", text.lower()) if text else ["mon-sun"]:
        names = part.replace("\N{EN DASH}", "-").split("-")
        if len(names) > 2 or not DAY_NAMES.keys() >= set(names):
            remedy = "Write each by three letters or in full: Mon-Fri, or Sat Sun"
            errors.append(FieldError("days", cut(text), "are not days", remedy))
            break
        start, end = DAY_NAMES[names[0]], DAY_NAMES[names[-1]]
        if start > end:
            errors.append(
                FieldError("days", cut(text), "end before they start", "Write Sat Sun Mon")
            )
            break
        for day in range(start, end + 1):
            days |= 1 << day
    clock = {}
    for name in ("starts", "ends"):
        value = cells.get(name, "") or "00:00"
        try:
            clock[name] = fields.clock(value)
        except ValueError as error:
            errors.append(FieldError(name, cut(value), *error.args))
    if len(errors) > before:
        return None
    return NewWindow(
        name=cells["window"], days=days, starts=clock["starts"], ends=clock["ends"], amount=amount
    )


def get_tariff(s: Session, tariff_id: int) -> Tariff | None:
    """Return a tariff by its id, with its plaza and class."""
    return s.scalar(
        sa.select(Tariff)
        .where(Tariff.id == tariff_id)
        .options(joinedload(Tariff.plaza), joinedload(Tariff.vehicle_class))
    )
