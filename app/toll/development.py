"""What the development server does before it serves: a database with a demo in it."""

from __future__ import annotations

from flask import Flask

from toll import schema
from toll.database import db
from toll.services import accounts, demo

NAMES = ("admin", "operator")


def prepare(app: Flask) -> list[str]:
    """Migrate, seed what is missing, give the demo's users new passwords; return what to print.

    Passwords are stored hashed, so those of the start before cannot be shown again.
    """
    settings = app.extensions["toll.settings"]
    if not settings.development:
        raise RuntimeError("This is for development: it gives users new passwords")
    lines = [
        f"migrated: {revision} {title}" for revision, title in schema.migrate(settings.database_url)
    ]
    with app.app_context():
        tariffs = demo.seed_tariffs(db.session)
        passages = demo.seed_passages(db.session)
        if tariffs or passages:
            lines.append(f"seeded: {tariffs} tariffs, {passages} passages")
        for name in NAMES:
            password = accounts.generate_password()
            user = accounts.find_user(db.session, name)
            if user is None:
                accounts.create_user(db.session, name, password, name)
            else:
                accounts.set_password(db.session, user, password)
            lines.append(f"log in as {name} with {password}")
    return lines
