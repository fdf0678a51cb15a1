"""The pages: server-rendered, and whole without JavaScript but for the live refresh."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, g
from flask_login import current_user
from sqlalchemy.exc import SQLAlchemyError

from toll.forms import PAYMENT_METHODS
from toll.pages import account, admin, operator, public
from toll.security import SessionUser
from toll.services.money import CURRENCIES


def init_app(app: Flask) -> None:
    """Register the pages, and what their templates share."""
    for module in (public, account, operator, admin):
        app.register_blueprint(module.blueprint)
    app.add_template_filter(digits)
    app.add_template_filter(money)
    app.add_template_filter(recorder)
    app.context_processor(shared)


def shared() -> dict[str, Any]:
    """Return what every page may show."""
    return {
        "payment_methods": PAYMENT_METHODS,
        "release_id": current_app.extensions["toll.release"].id,
        "user": user(),
    }


def user() -> SessionUser | None:
    """Return who is logged in; nobody if the database cannot say, on the page for that error."""
    if g.get("database_trouble"):
        return None
    try:
        return current_user._get_current_object() if current_user.is_authenticated else None
    except SQLAlchemyError:
        return None


def digits(amount: int, currency: str) -> str:
    """Return an amount in minor units without its currency, such as 12,345.60."""
    places = CURRENCIES[currency]
    whole, rest = divmod(amount, 10**places)
    return f"{whole:,}.{rest:0{places}d}" if places else f"{whole:,}"


def money(amount: int, currency: str) -> str:
    """Return an amount in minor units as people read it, such as 12,345.60 EUR."""
    return f"{digits(amount, currency)}\N{NO-BREAK SPACE}{currency}"


def recorder(recorded_by: str) -> str:
    """Return who recorded a passage, such as `user:anna`, in words."""
    kind, _, name = recorded_by.partition(":")
    return f"API key {name}" if kind == "key" else name or recorded_by
