"""What the API takes and answers, checked by Pydantic and shown in the OpenAPI document.

A request that does not have the form that is written here is answered with 400; one that has it
but asks for what there is not, an unknown plaza for instance, with 422.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from toll.services import fields, passages, revenue, times

# Patterns are anchored, and name their characters: no control character reaches the database.
CODE = f"^{fields.CODE}$"
LANE = f"^{fields.LANE}$"
# What is a plate is said in words: fields.plate knows all scripts, and patterns do not.
PLATE = rf"^[^\x00-\x1f\x7f]{{1,{fields.TYPED_MOST}}}$"
CURSOR = r"^[A-Za-z0-9_=.:-]{1,100}$"
KEY = r"^[!-~]{1,255}$"
# An unescaped plus arrives as a space.
LOCAL_OR_NOT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    r"(Z|[+ -][0-9]{2}:[0-9]{2})?$"
)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
WRITE_MOMENT = "Write it with its offset from UTC, like 2026-05-04T08:15:00Z"
BATCH_MOST = passages.MOST_AT_ONCE
PAGE_MOST = 200
PAGE_USUAL = 50


def parse_moment(value: Any) -> datetime:
    """Return an RFC 3339 date-time as a moment in UTC."""
    if not isinstance(value, str) or not MOMENT.fullmatch(value):
        raise PydanticCustomError("moment", "is not a date and time with an offset")
    try:
        # A fraction of more than six digits is finer than anything here.
        text = re.sub(r"(\.\d{6})\d+", r"\1", value.upper())
        moment = datetime.fromisoformat(text)
        # The first and the last days of the calendar have no equivalent in other zones.
        return min(max(moment, times.EARLIEST), times.LATEST).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("moment_exists", "is not a date and time that exists") from None


def parse_whole(value: Any) -> Any:
    """Take a whole number as it stands in an address: digits only."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    raise PydanticCustomError("whole", "is not a whole number")


Code = Annotated[str, StringConstraints(pattern=CODE)]
Moment = Annotated[
    datetime,
    BeforeValidator(parse_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
PaymentMethod = Literal["cash", "card", "tag", "invoice"]
Group = revenue.Group


def _plain(schema: dict[str, Any]) -> None:
    """Show a parameter as what it is when it is given: it can be left out, but not be null."""
    for option in schema.pop("anyOf", []):
        if option.get("type") != "null":
            schema.update(option)
    schema.pop("default", None)


def optional(description: str, example: str | None = None, alias: str | None = None) -> Any:
    """Return the field of a parameter that may be left out."""
    return Field(
        default=None,
        alias=alias,
        description=description,
        examples=[example] if example else None,
        json_schema_extra=_plain,
    )


class In(BaseModel):
    """What comes in: a misspelt name is refused, not passed over."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)


class Out(BaseModel):
    """What goes out."""

    model_config = ConfigDict(extra="forbid")


PLAZA = Field(description="Code of a plaza.", examples=["harbour-bridge"])
CLASS = Field(alias="class", description="Code of a vehicle class.", examples=["car"])


class QuoteQuery(In):
    """What a passage would cost."""

    plaza: Code = PLAZA
    vehicle_class: Code = CLASS
    at: Annotated[str, StringConstraints(pattern=LOCAL_OR_NOT)] | None = optional(
        "When: on the clock at the plaza, or with an offset. Now, if left out.", "2026-05-04T08:15"
    )


class TariffQuery(In):
    """Which tariffs."""

    plaza: Code | None = optional("Of this plaza only.", "harbour-bridge")
    vehicle_class: Code | None = optional("Of this vehicle class only.", "car", alias="class")
    at: Moment | None = optional("Valid at this moment only.", "2026-05-04T08:15:00Z")


class PassageFilters(In):
    """Which passages. All that is given must hold."""

    plaza: Code | None = optional("At this plaza.", "harbour-bridge")
    vehicle_class: Code | None = optional("Of this vehicle class.", "car", alias="class")
    lane: Annotated[str, StringConstraints(pattern=LANE)] | None = optional("In this lane.", "3")
    plate: Annotated[str, StringConstraints(pattern=PLATE)] | None = optional(
        "With this plate, however it is written: see `plate` of a passage.", "AB-12-CD"
    )
    payment_method: PaymentMethod | None = optional("Paid this way.")
    since: Moment | None = optional("Passed at this moment or later.", "2026-05-04T00:00:00Z")
    until: Moment | None = optional("Passed before this moment.", "2026-05-05T00:00:00Z")


class PassageQuery(PassageFilters):
    """Which passages, and which page of them."""

    cursor: Annotated[str, StringConstraints(pattern=CURSOR)] | None = optional(
        "`next` of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=PAGE_MOST), BeforeValidator(parse_whole)] = Field(
        default=PAGE_USUAL, description="How many, at most."
    )


class RevenueQuery(PassageFilters):
    """Of which passages, and how it is grouped."""

    group: Group = Field(
        description="By hour or day on the plazas' clocks, by plaza, or by vehicle class."
    )


class NewPassage(In):
    """A vehicle that passed. What it is charged follows from the tariff at that moment."""

    plaza: Code = PLAZA
    lane: Annotated[str, StringConstraints(pattern=LANE)] = Field(
        description="Lane at the plaza. Case does not matter.", examples=["3"]
    )
    vehicle_class: Code = CLASS
    plate: Annotated[str, StringConstraints(pattern=PLATE)] = Field(
        description="Number plate: 2 to 16 letters and digits. Spaces, hyphens and case do not "
        "matter, and Cyrillic and Greek letters that look like Latin ones are those.",
        examples=["AB-12-CD"],
    )
    passed_at: Moment = Field(description="When.", examples=["2026-05-04T07:15:00Z"])
    payment_method: PaymentMethod = Field(description="How it is paid.", examples=["tag"])


class NewPassages(In):
    """Passages that are recorded together: all of them, or none."""

    passages: list[NewPassage] = Field(min_length=1, max_length=BATCH_MOST)


class Amount(Out):
    """Money: a whole number of the currency's smallest unit."""

    minor_units: int = Field(description="320 is 3.20 EUR, and 320 JPY.", examples=[320])
    currency: str = Field(description="ISO 4217.", examples=["EUR"])
    formatted: str = Field(description="As people write it.", examples=["3.20 EUR"])


class Plaza(Out):
    """A place where toll is taken."""

    code: str = Field(examples=["harbour-bridge"])
    name: str = Field(examples=["Harbour Bridge"])
    road: str
    time_zone: str = Field(
        description="IANA name of the clock at the plaza.", examples=["Europe/Lisbon"]
    )
    currency: str = Field(description="ISO 4217.", examples=["EUR"])


class Plazas(Out):
    """All plazas."""

    plazas: list[Plaza]


class VehicleClass(Out):
    """A kind of vehicle that tariffs tell apart."""

    code: str = Field(examples=["car"])
    name: str = Field(examples=["Car"])


class VehicleClasses(Out):
    """All vehicle classes, in their usual order."""

    classes: list[VehicleClass]


class Window(Out):
    """Hours in which a tariff has another amount."""

    name: str
    hours: str = Field(examples=["Monday to Friday, 07:00-10:00"])
    amount: Amount


class Tariff(Out):
    """What one vehicle class pays at one plaza."""

    id: int
    plaza: str
    vehicle_class: str = Field(alias="class")
    name: str
    amount: Amount
    valid_from: datetime
    valid_until: datetime | None = Field(description="It ends before this moment; null: open.")
    windows: list[Window]


class Tariffs(Out):
    """Tariffs, by plaza, vehicle class and time."""

    tariffs: list[Tariff]


class QuotedTariff(Out):
    """What the quote follows from."""

    id: int
    name: str
    window: str | None = Field(description="Name of the peak window that holds, if one does.")


class Quote(Out):
    """What a passage costs."""

    plaza: str
    vehicle_class: str = Field(alias="class")
    at: datetime = Field(description="When, on the clock at the plaza.")
    tariff: QuotedTariff
    amount: Amount


class Passage(Out):
    """A passage, and what it was charged."""

    id: int
    plaza: str
    lane: str
    vehicle_class: str = Field(alias="class")
    plate: str
    passed_at: datetime = Field(description="In UTC.")
    amount: Amount
    tariff: str = Field(description="Name of what it was charged by.")
    payment_method: PaymentMethod
    recorded_by: str = Field(examples=["key:lane-7"])
    recorded_at: datetime


class PassagesPage(Out):
    """Passages, the latest first."""

    passages: list[Passage]
    next: str | None = Field(description="`cursor` of the next page; null on the last one.")


class RecordedPassages(Out):
    """The passages of a batch, in its order."""

    passages: list[Passage]


class RevenueRow(Out):
    """What one group came to, in one currency."""

    key: str = Field(
        description="The group: an hour or a day on the plaza's clock, a plaza or a class.",
        examples=["2026-05-04"],
    )
    passages: int
    amount: Amount


class Revenue(Out):
    """Revenue by group. A group has one row for each currency."""

    group: Group
    rows: list[RevenueRow]


class FieldProblem(Out):
    """What is wrong with one field."""

    field: str = Field(examples=["passages[3].plate"])
    value: str | None = Field(description="What was given, cut to 100 characters.")
    problem: str
    remedy: str


class Problem(BaseModel):
    """A problem document, RFC 9457."""

    type: str = Field(description="What kind of problem; its description is at this address.")
    title: str
    status: int
    detail: str
    request_id: str = Field(description="Finds the request in the logs.")
    errors: list[FieldProblem] = Field(
        default_factory=list, description="Each field that is wrong, if that is the problem."
    )
