"""What is stored. Amounts are whole minor units of an ISO 4217 currency, moments are in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from toll.database import UtcDateTime

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MIDNIGHT = time(0)
PAYMENT_METHODS = ("cash", "card", "tag", "invoice")
# Each role may do what those before it may.
USER_ROLES = ("viewer", "operator", "admin")
KEY_ROLES = ("reader", "recorder")

# SQLite counts rows by an INTEGER PRIMARY KEY only.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


def one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    """Return the constraint that a column holds one of the values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def window_holds(days: int, starts: time, ends: time, local: datetime) -> bool:
    """Return whether a window of these days and hours holds at a moment on the plaza's clock."""
    clock = local.time()
    return bool(days >> local.weekday() & 1) and (
        starts <= clock and (clock < ends or ends == MIDNIGHT)
    )


class Model(DeclarativeBase):
    """The base of all: constraints have names, so that migrations can change them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def table(model: type[Model]) -> sa.Table:
    """Return a model's table, for statements about columns instead of objects."""
    found = model.__table__
    assert isinstance(found, sa.Table)
    return found


class Plaza(Model):
    """A place where toll is taken."""

    __tablename__ = "plazas"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(40), unique=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    road: Mapped[str] = mapped_column(sa.String(80))
    # A name of IANA's, such as Europe/Lisbon: its clock decides which tariff holds.
    time_zone: Mapped[str] = mapped_column(sa.String(40))
    currency: Mapped[str] = mapped_column(sa.String(3))

    @property
    def zone(self) -> ZoneInfo:
        """The time zone, with its rules."""
        return ZoneInfo(self.time_zone)


class VehicleClass(Model):
    """A kind of vehicle that tariffs tell apart."""

    __tablename__ = "vehicle_classes"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(40), unique=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    position: Mapped[int] = mapped_column(default=0)


class Tariff(Model):
    """What one class pays at one plaza from a moment on; peak windows go before its amount.

    No two tariffs of a plaza and class hold at the same moment.
    """

    __tablename__ = "tariffs"
    __table_args__ = (
        sa.CheckConstraint("amount >= 0", name="amount"),
        sa.CheckConstraint("valid_until IS NULL OR valid_until > valid_from", name="valid"),
        sa.UniqueConstraint("plaza_id", "class_id", "valid_from"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    plaza_id: Mapped[int] = mapped_column(sa.ForeignKey("plazas.id"))
    class_id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle_classes.id"))
    name: Mapped[str] = mapped_column(sa.String(80))
    amount: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(sa.String(3))
    valid_from: Mapped[datetime] = mapped_column(UtcDateTime)
    # Exclusive.
    valid_until: Mapped[datetime | None] = mapped_column(UtcDateTime)

    plaza: Mapped[Plaza] = relationship()
    vehicle_class: Mapped[VehicleClass] = relationship()
    windows: Mapped[list[PeakWindow]] = relationship(
        back_populates="tariff",
        order_by="PeakWindow.id",
        cascade="all, delete-orphan",
        lazy="selectin",
    )

    def window_at(self, local: datetime) -> PeakWindow | None:
        """Return the peak window that holds at a moment on the plaza's clock."""
        return next((window for window in self.windows if window.holds(local)), None)


class PeakWindow(Model):
    """Hours of some days of the week with an amount of their own, by the plaza's clock."""

    __tablename__ = "peak_windows"
    __table_args__ = (
        sa.CheckConstraint("amount >= 0", name="amount"),
        sa.CheckConstraint("days BETWEEN 1 AND 127", name="days"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tariff_id: Mapped[int] = mapped_column(
        sa.ForeignKey("tariffs.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(sa.String(80))
    # A bit for each day, Monday is the lowest.
    days: Mapped[int]
    starts: Mapped[time]
    # Exclusive; 00:00 is the end of the day.
    ends: Mapped[time]
    amount: Mapped[int] = mapped_column(BigId)

    tariff: Mapped[Tariff] = relationship(back_populates="windows")

    def holds(self, local: datetime) -> bool:
        """Return whether the window holds at a moment on the plaza's clock."""
        return window_holds(self.days, self.starts, self.ends, local)

    @property
    def day_names(self) -> tuple[str, ...]:
        """The days on which it holds, Monday first."""
        return tuple(day for index, day in enumerate(DAYS) if self.days >> index & 1)

    @property
    def hours(self) -> str:
        """When it holds, in words, days, then hours if it has any."""
        names = self.day_names
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        if len(names) == len(DAYS):
            days = "Every day"
        elif len(names) == last - first + 1 > 2:
            days = f"{names[0]} to {names[-1]}"
        else:
            days = ", ".join(names)
        if self.starts == self.ends == MIDNIGHT:
            return days
        return f"{days}, {self.starts:%H:%M}\N{EN DASH}{self.ends:%H:%M}"


class Passage(Model):
    """A vehicle that passed, and what it was charged then: later tariffs do not change it."""

    __tablename__ = "passages"
    __table_args__ = (
        one_of("payment_method", PAYMENT_METHODS),
        sa.CheckConstraint("amount >= 0", name="amount"),
        # Lists are by time, newest first, of one plaza or all.
        sa.Index(None, "passed_at", "id"),
        sa.Index(None, "plaza_id", "passed_at", "id"),
        sa.Index(None, "plate", "passed_at"),
        # Whether a tariff may still be ended at a moment.
        sa.Index(None, "tariff_id", "passed_at"),
        # An id is never given twice, not even after rows were removed.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    plaza_id: Mapped[int] = mapped_column(sa.ForeignKey("plazas.id"))
    lane: Mapped[str] = mapped_column(sa.String(10))
    class_id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle_classes.id"))
    plate: Mapped[str] = mapped_column(sa.String(16))
    passed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    amount: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(sa.String(3))
    tariff_id: Mapped[int] = mapped_column(sa.ForeignKey("tariffs.id"))
    window_id: Mapped[int | None] = mapped_column(sa.ForeignKey("peak_windows.id"))
    # What it was charged by, in words: windows have names of their own.
    tariff_name: Mapped[str] = mapped_column(sa.String(80))
    payment_method: Mapped[str] = mapped_column(sa.String(10))
    # user:<name> or key:<name>
    recorded_by: Mapped[str] = mapped_column(sa.String(80))
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    plaza: Mapped[Plaza] = relationship()
    vehicle_class: Mapped[VehicleClass] = relationship()

    @property
    def local_time(self) -> datetime:
        """When it passed, on the plaza's clock."""
        return self.passed_at.astimezone(self.plaza.zone)


class IdempotencyRecord(Model):
    """What was recorded by a request, so that its repetition gets the same answer."""

    __tablename__ = "idempotency_records"
    __table_args__ = (sa.UniqueConstraint("scope", "key"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    # key:<id> or user:<id>
    scope: Mapped[str] = mapped_column(sa.String(40))
    key: Mapped[str] = mapped_column(sa.String(255))
    body_hash: Mapped[str] = mapped_column(sa.String(64))
    passage_ids: Mapped[list[int]] = mapped_column(sa.JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)


class User(Model):
    """Somebody who logs in to the pages."""

    __tablename__ = "users"
    __table_args__ = (one_of("role", USER_ROLES),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    password_hash: Mapped[str] = mapped_column(sa.String(255))
    role: Mapped[str] = mapped_column(sa.String(10))
    active: Mapped[bool] = mapped_column(default=True)
    # A session of the browser holds it: with another one all sessions end.
    session_token: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class BrowserSession(Model):
    """A session of the pages, from log-in to log-out; its key itself is not stored."""

    __tablename__ = "browser_sessions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)


class ApiKey(Model):
    """A key of a lane or another machine; the key itself is not stored."""

    __tablename__ = "api_keys"
    __table_args__ = (one_of("role", KEY_ROLES),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    prefix: Mapped[str] = mapped_column(sa.String(8), unique=True)
    secret_hash: Mapped[str] = mapped_column(sa.String(64))
    role: Mapped[str] = mapped_column(sa.String(10))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LoginAttempt(Model):
    """A log-in that failed, as the releases before 0002 count them; not used any more."""

    __tablename__ = "login_attempts"
    __table_args__ = (sa.Index(None, "key", "at"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(80))
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SchemaState(Model):
    """One row: which revision the schema has, and which older releases can work with it."""

    __tablename__ = "schema_state"
    __table_args__ = (sa.CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[str] = mapped_column(sa.String(40))
    works_with: Mapped[list[Any]] = mapped_column(sa.JSON)
