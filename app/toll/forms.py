"""The forms. They know which fields there are; what a value may be is the services' to say.

A service raises InvalidParameters, and `refuse` puts each of its errors to the field it is about.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from flask_wtf import FlaskForm
from wtforms import (
    Field,
    FieldList,
    FormField,
    HiddenField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
)
from wtforms import Form as PlainForm
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired, Length, Optional

from toll.errors import FieldError
from toll.models import DAYS, Plaza, VehicleClass
from toll.services.fields import TYPED_MOST
from toll.services.money import CURRENCIES
from toll.services.tariffs import NAME_MOST

PAYMENT_METHODS = {"tag": "Tag", "card": "Card", "cash": "Cash", "invoice": "Invoice"}
# How many peak windows the form for a tariff has room for.
WINDOWS = 4
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def sentence(error: FieldError) -> str:
    """Return what is wrong with a field and what to do, as a person reads it."""
    # A moment as machines write it; its field shows it as people do.
    shown = f"“{error.value}” " if error.value and not MOMENT.match(error.value) else ""
    text = f"{shown}{error.problem}. {error.remedy}"
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def choices(items: Iterable[tuple[str, str]], empty: str = "") -> list[SelectChoice]:
    """Return a field's choices of values and labels, first one for nothing if it has a name."""
    listed = [SelectChoice(value, label) for value, label in items]
    return [SelectChoice("", empty), *listed] if empty else listed


def named(items: Iterable[Plaza | VehicleClass]) -> list[tuple[str, str]]:
    """Return the codes and names of plazas or classes."""
    return [(item.code, item.name) for item in items]


def minor_units(text: str, currency: str) -> int:
    """Return an amount such as 2.10 in minor units; raise ValueError(problem, remedy).

    Exactly: what has more digits than the currency is refused, not rounded.
    """
    digits = CURRENCIES[currency]
    example = f"{21 * 10 ** max(digits - 1, 0)}"
    example = f"{example[:-digits]}.{example[-digits:]}" if digits else "210"
    match = re.fullmatch(r"(\d{1,12})(?:[.,](\d+))?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("is not an amount", f"Write it in {currency}, like {example}")
    whole, rest = match[1], match[2] or ""
    if len(rest) > digits:
        raise ValueError(
            f"has more digits than {currency}", f"Write {digits or 'none'} after the point at most"
        )
    return int(whole + rest.ljust(digits, "0"))


class Form(FlaskForm):
    """A form that can show what a service found wrong with it."""

    # A field's name where the service calls it otherwise.
    names: ClassVar[dict[str, str]] = {}

    def refuse(self, errors: Iterable[FieldError]) -> None:
        """Put each error to its field, or to the whole form if it has no such field."""
        for error in errors:
            field = find(self, self.names.get(error.field, error.field))
            if field is None:
                name = error.field.replace("_", " ").capitalize()
                self.form_errors.append(f"{name}: {sentence(error)}")
            else:
                field.errors = [*field.errors, sentence(error)]

    def faults(self) -> Iterator[tuple[Field, str, str]]:
        """Return every error with its field and what people call that."""
        return faults(self)

    @property
    def faulty(self) -> bool:
        """Whether anything is wrong; `errors` knows nothing of a service's errors in a list."""
        return bool(self.form_errors) or any(True for _ in self.faults())


def find(form: PlainForm, path: str) -> Field | None:
    """Return the field at a path such as windows.1.amount, or None."""
    at: Any = form
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(at, FormField):
            at = at.form
        if isinstance(at, FieldList):
            if not part.isdecimal() or int(part) >= len(at.entries):
                return None
            at = at.entries[int(part)]
        elif isinstance(at, PlainForm) and part in at:
            at = at[part]
        else:
            return None
    return at if isinstance(at, Field) and not isinstance(at, FormField | FieldList) else None


def faults(form: PlainForm, within: str = "") -> Iterator[tuple[Field, str, str]]:
    """Return every error of a form and the forms within it: its field, its name, the error."""
    for field in form:
        if isinstance(field, FieldList):
            for number, entry in enumerate(field.entries, 1):
                yield from faults(entry.form, f"{field.label.text} {number}, ")
        elif not isinstance(field, FormField):
            for error in field.errors:
                yield field, within + field.label.text, error


class LoginForm(Form):
    """Name and password."""

    name = StringField("Name", [InputRequired("Your name is missing."), Length(max=100)])
    password = PasswordField(
        "Password", [InputRequired("Your password is missing."), Length(max=1000)]
    )
    next = HiddenField()


class LogoutForm(Form):
    """A button."""


class PassageForm(Form):
    """A passage. `token` makes that sending the form twice charges once."""

    names: ClassVar[dict[str, str]] = {"class": "vehicle_class", "passed_at": "at"}

    plaza = SelectField("Plaza", [InputRequired("Choose a plaza.")], validate_choice=False)
    lane = StringField("Lane", [InputRequired("The lane is missing."), Length(max=20)])
    plate = StringField("Plate", [InputRequired("The plate is missing."), Length(max=TYPED_MOST)])
    vehicle_class = RadioField(
        "Vehicle", [InputRequired("Choose a vehicle class.")], validate_choice=False
    )
    payment_method = RadioField(
        "Paid by",
        [InputRequired("Choose how it was paid.")],
        choices=choices(PAYMENT_METHODS.items()),
        validate_choice=False,
    )
    at = StringField("Time of passage", [Optional(), Length(max=40)])
    token = HiddenField(default=lambda: secrets.token_urlsafe(18))

    def renew(self) -> None:
        """Make it another passage than the one that was sent before."""
        self.token.data = secrets.token_urlsafe(18)


class FilterForm(PlainForm):
    """What the list of passages is narrowed to; in the address, so that it can be kept."""

    names: ClassVar[dict[str, str]] = {"class": "vehicle_class"}

    plaza = SelectField("Plaza", [Optional()], validate_choice=False)
    plate = StringField("Plate", [Optional(), Length(max=TYPED_MOST)])
    since = StringField("From", [Optional()])
    until = StringField("To", [Optional()])
    vehicle_class = SelectField("Vehicle", [Optional()], name="class", validate_choice=False)
    lane = StringField("Lane", [Optional(), Length(max=20)])
    payment_method = SelectField("Paid by", [Optional()], name="payment", validate_choice=False)

    refuse = Form.refuse
    faults = Form.faults
    faulty = Form.faulty


class WindowForm(PlainForm):
    """A peak window; left empty, there is none."""

    name = StringField("Name", [Optional(), Length(max=NAME_MOST)])
    amount = StringField("Amount", [Optional(), Length(max=20)])
    starts = StringField("From", [Optional()])
    ends = StringField("To", [Optional()])
    days = SelectMultipleField(
        "Days",
        [Optional()],
        choices=choices((str(day), name) for day, name in enumerate(DAYS)),
        coerce=int,
    )

    @property
    def empty(self) -> bool:
        """Whether nothing was filled in."""
        return not any((self.name.data, self.days.data, self.starts.data, self.ends.data)) and (
            not self.amount.data
        )


class TariffForm(Form):
    """A new tariff."""

    names: ClassVar[dict[str, str]] = {"class": "vehicle_class"}

    plaza = SelectField("Plaza", [InputRequired("Choose a plaza.")], validate_choice=False)
    vehicle_class = SelectField(
        "Vehicle", [InputRequired("Choose a vehicle class.")], validate_choice=False
    )
    name = StringField("Name", [InputRequired("The name is missing."), Length(max=NAME_MOST)])
    amount = StringField("Amount", [InputRequired("The amount is missing."), Length(max=20)])
    valid_from = StringField("Valid from", [InputRequired("The beginning is missing.")])
    valid_until = StringField("Valid until", [Optional()])
    windows = FieldList(FormField(WindowForm), "Window", min_entries=WINDOWS, max_entries=WINDOWS)


class EndTariffForm(Form):
    """When a tariff ends."""

    names: ClassVar[dict[str, str]] = {"valid_until": "at"}

    at = StringField("Ends", [Optional(), Length(max=40)])
