"""The tariff table and what a passage costs by it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MIDNIGHT = time(0)


class TariffError(Exception):
    """The tariff table cannot be used; the message names the place and the remedy."""


@dataclass(frozen=True)
class Tariff:
    """Amounts by vehicle class, in minor units, and when they hold."""

    name: str
    days: tuple[str, ...]
    windows: tuple[tuple[time, time], ...]
    amounts: dict[str, int]

    def holds(self, local: datetime) -> bool:
        """Return whether the tariff holds at a plaza's local time."""
        if self.days and DAYS[local.weekday()] not in self.days:
            return False
        clock = local.time()
        return not self.windows or any(
            start <= clock and (clock < end or end == MIDNIGHT) for start, end in self.windows
        )

    @property
    def hours(self) -> str:
        """When the tariff holds, in words, apart from earlier tariffs going before it."""
        if not self.days and not self.windows:
            return "At all other times"
        days = "Every day"
        if self.days:
            first, last = self.days[0], self.days[-1]
            span = DAYS[DAYS.index(first) : DAYS.index(last) + 1]
            whole = self.days == span and len(span) > 2
            days = f"{first} to {last}" if whole else ", ".join(self.days)
        windows = " and ".join(
            f"{start:%H:%M}\N{EN DASH}{end:%H:%M}" for start, end in self.windows
        )
        return f"{days}, {windows}" if windows else days


@dataclass(frozen=True)
class Plaza:
    """A place where toll is taken."""

    id: str
    name: str
    zone: ZoneInfo
    currency: str
    digits: int
    tariffs: tuple[Tariff, ...]

    def format(self, amount: int) -> str:
        """Return an amount in minor units as people write it, such as 3.20 EUR."""
        return f"{amount / 10**self.digits:.{self.digits}f} {self.currency}"


@dataclass(frozen=True)
class Quote:
    """What a passage costs."""

    plaza: Plaza
    vehicle_class: str
    at: datetime
    tariff: Tariff

    @property
    def amount(self) -> int:
        """The toll in the currency's minor unit."""
        return self.tariff.amounts[self.vehicle_class]

    @property
    def formatted(self) -> str:
        """The toll as people write it."""
        return self.plaza.format(self.amount)


@dataclass(frozen=True)
class Tariffs:
    """The whole table: vehicle classes' names and plazas, both by id."""

    classes: dict[str, str]
    plazas: dict[str, Plaza]

    def quote(self, plaza: str, vehicle_class: str, at: datetime) -> Quote:
        """Return the quote for a passage; `at` has a time zone.

        Raises KeyError for an unknown plaza or class.
        """
        place = self.plazas[plaza]
        local = at.astimezone(place.zone)
        tariff = next(each for each in place.tariffs if each.holds(local))
        if vehicle_class not in tariff.amounts:
            raise KeyError(vehicle_class)
        return Quote(place, vehicle_class, local, tariff)


def load_tariffs(path: Path) -> Tariffs:
    """Read and check a tariff table; raise TariffError naming the place of the first fault."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise TariffError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TariffError(f"{path} is not TOML: {error}") from error
    try:
        classes = _known(table, "the table", classes=dict, plazas=list, currencies=dict)["classes"]
        plazas: dict[str, Plaza] = {}
        for entry in table["plazas"]:
            plaza = _plaza(entry, classes, table["currencies"])
            if plaza.id in plazas:
                raise TariffError(f"the plaza {plaza.id} is there twice: give one another id")
            plazas[plaza.id] = plaza
        if not plazas or not classes:
            raise TariffError("there must be at least one plaza and one class: add them")
    except TariffError as error:
        raise TariffError(f"{path}: {error}") from error
    return Tariffs(classes, plazas)


def _known(entry: Any, where: str, **types: type) -> dict[str, Any]:
    """Return the entry if it has exactly these keys (optional when their type is tuple)."""
    if not isinstance(entry, dict):
        raise TariffError(f"{where} is not a table of keys and values")
    for key in entry:
        if key not in types:
            raise TariffError(f"{where} has an unknown key {key}: remove it")
    for key, kind in types.items():
        expected = list if kind is tuple else kind
        if key not in entry and kind is not tuple:
            raise TariffError(f"{where} has no {key}: add it")
        if key in entry and not isinstance(entry[key], expected):
            found = type(entry[key]).__name__
            raise TariffError(f"{where}: {key} has the type {found}: give it {expected.__name__}")
    return entry


def _plaza(entry: Any, classes: dict[str, str], currencies: dict[str, int]) -> Plaza:
    where = f"plaza {entry.get('id', '?')}" if isinstance(entry, dict) else "a plaza"
    _known(entry, where, id=str, name=str, time_zone=str, currency=str, tariffs=list)
    try:
        zone = ZoneInfo(entry["time_zone"])
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise TariffError(
            f"{where}: {entry['time_zone']!r} is no time zone: take an IANA name such as "
            f"Europe/Lisbon"
        ) from error
    digits = currencies.get(entry["currency"])
    if not isinstance(digits, int) or not 0 <= digits <= 4:
        raise TariffError(
            f"{where}: currencies does not give the digits (0 to 4) of {entry['currency']}: add it"
        )
    tariffs = tuple(_tariff(each, where, classes) for each in entry["tariffs"])
    if not tariffs or tariffs[-1].days or tariffs[-1].windows:
        raise TariffError(
            f"{where}: the last tariff must hold at all times: remove its days and windows, or "
            f"add one without"
        )
    return Plaza(entry["id"], entry["name"], zone, entry["currency"], digits, tariffs)


def _tariff(entry: Any, plaza: str, classes: dict[str, str]) -> Tariff:
    name = entry.get("name", "?") if isinstance(entry, dict) else "?"
    where = f"{plaza}, tariff {name}"
    _known(entry, where, name=str, amounts=dict, days=tuple, windows=tuple)
    days = entry.get("days", [])
    for day in days:
        if day not in DAYS:
            raise TariffError(f"{where}: {day!r} is no day: write it as {', '.join(DAYS)}")
    windows = []
    for window in entry.get("windows", []):
        times = isinstance(window, list) and all(isinstance(each, time) for each in window)
        if not times or len(window) != 2 or (window[0] >= window[1] != MIDNIGHT):
            raise TariffError(
                f"{where}: a window is not two times of one day, the earlier first: write "
                f"[07:00:00, 10:00:00], and two windows for one that passes midnight"
            )
        windows.append((window[0], window[1]))
    amounts = entry["amounts"]
    if set(amounts) != set(classes):
        names = ", ".join(sorted(set(amounts) ^ set(classes)))
        raise TariffError(f"{where}: amounts and classes differ in {names}: give each class one")
    for key, amount in amounts.items():
        if type(amount) is not int or amount < 0:
            raise TariffError(
                f"{where}: the amount for {key} is {amount!r}: write whole minor units, 320 for "
                f"3.20"
            )
    ordered = tuple(sorted(days, key=DAYS.index))
    return Tariff(name, ordered, tuple(windows), {key: amounts[key] for key in classes})
