"""`flask --app app toll …`: what an operator does to the database, its users, keys and tariffs.

Everything that an operator can do wrong ends with one message on standard error and exit code 1.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import click
import sqlalchemy as sa
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext

from toll import devices
from toll.backup import BackupError, backup_to, restore_from
from toll.backup import backup as write_copy
from toll.backup import restore as restore_copy
from toll.database import db, trouble
from toll.errors import InvalidParameters
from toll.models import KEY_ROLES, USER_ROLES, Tariff, now
from toll.schema import SchemaError, count_rows, known_revisions, schema_status
from toll.schema import downgrade as bring_down
from toll.schema import head as newest_revision
from toll.schema import migrate as bring_up
from toll.services import accounts, demo, passages, tariffs
from toll.settings import Settings
from toll.transfer import TransferError, export_data, import_data

P = ParamSpec("P")
R = TypeVar("R")
# Errors that an operator can do something about.
EXPECTED = (
    *(InvalidParameters, SchemaError, BackupError, TransferError),
    *(sa.exc.DBAPIError, sa.exc.TimeoutError),
)
COPY = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


def init_app(app: Flask) -> None:
    """Add the commands to `flask`."""
    app.cli.add_command(toll)


def refused(error: Exception) -> click.ClickException:
    """Return what an operator reads of an error."""
    if isinstance(error, InvalidParameters):
        return click.ClickException("\n".join(str(each) for each in error.errors))
    found = trouble(error)
    if found and found.busy:
        return click.ClickException(
            f"The database is busy: {found.words}. Nothing was changed. Find out who keeps it "
            f"busy, such as a migration or a restore, and try again after it ({where()})"
        )
    if isinstance(error, sa.exc.DBAPIError):
        # The statement and its values are nobody's business here.
        return click.ClickException(
            f"The database cannot do it: {str(error.orig).strip()}. Check that it runs, that its "
            f"directory is there and that this user may use it ({where()})"
        )
    return click.ClickException(str(error))


def where() -> str:
    """Return the database's URL without its password."""
    return sa.make_url(settings().database_url).render_as_string(hide_password=True)


def settings() -> Settings:
    """Return the application's settings."""
    found: Settings = current_app.extensions["toll.settings"]
    return found


def says_why(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that an operator can do something about into messages."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except EXPECTED as error:
            raise refused(error) from error

    return wrapped


def with_schema(function: Callable[P, R]) -> Callable[P, R]:
    """Go on only if the database has a schema that this release can work with."""

    @functools.wraps(function)
    @with_appcontext
    @says_why
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        status = schema_status(db.engine)
        if not status.compatible:
            raise click.ClickException(status.reason)
        return function(*args, **kwargs)

    return wrapped


toll = AppGroup("toll", help="The database, users, API keys and tariffs of toll-app.")


@toll.command()
@says_why
def migrate() -> None:
    """Bring the database's schema to what this release needs. Changes nothing twice."""
    steps = bring_up(settings().database_url)
    for revision, title in steps:
        click.echo(f"{revision} {title}")
    status = schema_status(db.engine)
    if not steps and status.database != status.head:
        click.echo(f"The schema is newer ({status.database}) and works with this release.")
    elif not steps:
        click.echo(f"The schema is {status.head} already.")


@toll.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--code", is_flag=True, help="In JSON, what the code needs and knows; asks no database."
)
@says_why
def schema(as_json: bool, code: bool) -> None:
    """Say whether this release works with the database's schema: exit code 0 if it does."""
    if code:
        click.echo(json.dumps({"head": newest_revision(), "known": known_revisions()}))
        return
    status = schema_status(db.engine)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "head": status.head,
                    "database": status.database,
                    "compatible": status.compatible,
                    "reason": status.reason,
                }
            )
        )
    elif status.compatible:
        click.echo(f"This release needs {status.head}, the database has {status.database}: good.")
    else:
        click.echo(status.reason, err=True)
    if not status.compatible:
        raise SystemExit(1)


@toll.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
@says_why
def downgrade(revision: str, yes: bool) -> None:
    """Bring the schema back to REVISION, or to nothing with `base`. May lose data."""
    if not yes:
        click.confirm(
            f"Data of newer columns and tables in {where()} will be lost. Go on?", abort=True
        )
    for done, title in bring_down(settings().database_url, revision):
        click.echo(f"undone: {done} {title}")


@toll.command()
@says_why
def counts() -> None:
    """Print in JSON how many rows each table has, all at one moment, and the schema's revision."""
    tables = count_rows(db.engine)
    click.echo(json.dumps({"schema": schema_status(db.engine).database, "tables": tables}))


@toll.command()
@click.argument("file", type=COPY)
@says_why
def backup(file: Path) -> None:
    """Write a copy of the database to FILE (- is standard output), while the application runs."""
    if str(file) == "-":
        backup_to(settings().database_url, sys.stdout.buffer)
        return
    write_copy(settings().database_url, file)
    click.echo(f"{file}: {file.stat().st_size} bytes")


@toll.command()
@click.argument("file", type=COPY)
@click.option("--no-keep", is_flag=True, help="Do not: whoever asks has a copy of it.")
@says_why
def restore(file: Path, no_keep: bool) -> None:
    """Put the copy FILE (- is standard input) in the database's place; what was there is kept."""
    db.engine.dispose()
    if str(file) == "-":
        stdin = sys.stdin.buffer
        replaced = restore_from(settings().database_url, stdin, not no_keep)
    else:
        replaced = restore_copy(settings().database_url, file, not no_keep)
    click.echo("The copy is the database now.")
    if replaced:
        click.echo(f"What it replaced: {replaced}")
    status = schema_status(db.engine)
    if not status.compatible:
        click.echo(status.reason, err=True)


@toll.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@says_why
def export_(file: Path) -> None:
    """Write all data to FILE, for `import` into a database of any kind. Prints JSON."""
    _say_moved(f"{file} holds", export_data(settings().database_url, file))


@toll.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@says_why
def import_(file: Path) -> None:
    """Take the data of FILE into this database, which holds none yet. Prints JSON."""
    db.engine.dispose()
    _say_moved("The database holds", import_data(settings().database_url, file))


def _say_moved(what: str, tables: dict[str, int]) -> None:
    rows = f"{what} {sum(tables.values())} rows, {tables['passages']} of them passages."
    click.echo(json.dumps({"changed": True, "tables": tables, "msg": rows}))


# Users


@toll.group()
def user() -> None:
    """People who log in to the pages."""


@user.command("create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(USER_ROLES))
@click.option(
    "--password-file",
    type=click.File(encoding="utf-8"),
    help="Has the password in its first line; - is standard input. Without it one is made up.",
)
@click.option("--if-absent", is_flag=True, help="Leave a user of that name as it is.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_schema
def create_user(
    name: str, role: str, password_file: IO[str] | None, if_absent: bool, as_json: bool
) -> None:
    """Make the user NAME."""
    if as_json and password_file is None:
        raise click.UsageError("--json needs --password-file: a password is shown to people only.")
    if if_absent and accounts.find_user(db.session, name):
        click.echo(json.dumps({"changed": False}) if as_json else f"{name} is there already.")
        return
    password = read_password(password_file)
    accounts.create_user(db.session, name, password, role)
    if as_json:
        click.echo(json.dumps({"changed": True}))
        return
    click.echo(f"{name} ({role}) was created.")
    if password_file is None:
        click.echo(f"Password, shown this once: {password}")


@user.command("list")
@with_schema
def list_users() -> None:
    """Show all users."""
    for each in accounts.list_users(db.session):
        state = "" if each.active else "  disabled"
        click.echo(f"{each.name:40} {each.role:8} {each.created_at:%Y-%m-%d}{state}")


@user.command("password")
@click.argument("name")
@click.option("--password-file", type=click.File(encoding="utf-8"), help="As for `create`.")
@with_schema
def set_password(name: str, password_file: IO[str] | None) -> None:
    """Give NAME another password, which ends all of their sessions."""
    found = the_user(name)
    password = read_password(password_file)
    accounts.set_password(db.session, found, password)
    click.echo(f"{found.name} has another password.")
    if password_file is None:
        click.echo(f"Password, shown this once: {password}")


@user.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(USER_ROLES))
@with_schema
def set_role(name: str, role: str) -> None:
    """Give NAME another ROLE, which ends all of their sessions."""
    found = the_user(name)
    accounts.set_role(db.session, found, role)
    click.echo(f"{found.name} is now {role}, and logged out everywhere.")


@user.command("logout")
@click.argument("name", required=False)
@click.option("--all", "everybody", is_flag=True, help="Everybody, instead of one user.")
@with_schema
def log_out_user(name: str | None, everybody: bool) -> None:
    """Log NAME out everywhere: end all of their sessions."""
    if bool(name) == everybody:
        raise click.UsageError("Name a user, or give --all for everybody")
    users = [the_user(name)] if name else accounts.list_users(db.session)
    for each in users:
        count = accounts.end_sessions(db.session, each)
        ended = f"{count} session{'' if count == 1 else 's'}" if count else "no session was open"
        click.echo(f"{each.name} is logged out everywhere ({ended}).")


@user.command("device")
@click.argument("name")
@with_schema
def invite_device(name: str) -> None:
    """Make a link after which a browser is a device of NAME's, however many others try to log in.

    The password is needed all the same.
    """
    found = the_user(name)
    click.echo(
        f"Open this on the site within {devices.INVITATION_SECONDS // 60} minutes:", err=True
    )
    click.echo(f"/login/device/{devices.invitation(found)}")


@user.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_schema
def remove_user(name: str, yes: bool) -> None:
    """Remove NAME and end all of their sessions; what they recorded keeps their name."""
    found = the_user(name)
    if not yes:
        click.confirm(f"Remove {found.name} ({found.role})?", abort=True)
    accounts.remove_user(db.session, found)
    click.echo(f"{found.name} is removed, and logged out everywhere.")


@user.command("disable")
@click.argument("name")
@with_schema
def disable_user(name: str) -> None:
    """Let NAME in no more."""
    found = the_user(name)
    accounts.disable_user(db.session, found)
    click.echo(f"{found.name} is disabled, and logged out everywhere.")


def the_user(name: str) -> accounts.User:
    """Return the user of that name, or end."""
    found = accounts.find_user(db.session, name)
    if found is None:
        names = ", ".join(each.name for each in accounts.list_users(db.session)) or "none"
        raise click.ClickException(f"There is no user {name!r}. There are: {names}")
    return found


def read_password(file: IO[str] | None) -> str:
    """Return the first line of a file, or a new password."""
    if file is None:
        return accounts.generate_password()
    return str(file.readline()).rstrip("\r\n")


# Keys


@toll.group()
def key() -> None:
    """API keys of lanes and other machines."""


@key.command("create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(KEY_ROLES))
@with_schema
def create_key(name: str, role: str) -> None:
    """Make a key called NAME. It is shown once; what is stored cannot be turned back into it."""
    _, full_key = accounts.create_key(db.session, name, role)
    click.echo(f"{name} ({role}) was created. Its key, shown this once:", err=True)
    click.echo(full_key)


@key.command("list")
@with_schema
def list_keys() -> None:
    """Show all keys, by what they begin with."""
    for each in accounts.list_keys(db.session):
        state = f"  revoked {each.revoked_at:%Y-%m-%d}" if each.revoked_at else ""
        click.echo(
            f"{each.name:40} toll_{each.prefix}_…  {each.role:8} {each.created_at:%Y-%m-%d}{state}"
        )


@key.command("revoke")
@click.argument("name")
@with_schema
def revoke_key(name: str) -> None:
    """Refuse the key called NAME from now on."""
    accounts.revoke_key(db.session, name)
    click.echo(f"{name} is revoked.")


# Plazas, classes and tariffs


@toll.group()
def plaza() -> None:
    """Places where toll is taken."""


@plaza.command("create")
@click.argument("code")
@click.option("--name", required=True)
@click.option("--road", required=True)
@click.option("--time-zone", required=True, help="An IANA name, such as Europe/Lisbon.")
@click.option("--currency", required=True, help="An ISO 4217 code, such as EUR.")
@with_schema
def create_plaza(code: str, name: str, road: str, time_zone: str, currency: str) -> None:
    """Make the plaza CODE, such as harbour-bridge."""
    tariffs.create_plaza(
        db.session, code=code, name=name, road=road, time_zone=time_zone, currency=currency
    )
    click.echo(f"{code} was created.")


@plaza.command("list")
@with_schema
def list_plazas() -> None:
    """Show all plazas."""
    for each in tariffs.list_plazas(db.session):
        click.echo(f"{each.code:40} {each.currency} {each.time_zone:24} {each.name}, {each.road}")


@toll.group("class")
def vehicle_class() -> None:
    """Kinds of vehicles."""


@vehicle_class.command("create")
@click.argument("code")
@click.option("--name", required=True)
@with_schema
def create_class(code: str, name: str) -> None:
    """Make the vehicle class CODE, such as car; it comes after all others."""
    tariffs.create_class(db.session, code=code, name=name)
    click.echo(f"{code} was created.")


@vehicle_class.command("list")
@with_schema
def list_classes() -> None:
    """Show all vehicle classes."""
    for each in tariffs.list_classes(db.session):
        click.echo(f"{each.code:40} {each.name}")


@toll.group("tariffs")
def tariff_group() -> None:
    """What passages cost."""


@tariff_group.command("import")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="strict"))
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@with_schema
def import_tariffs(file: IO[str], dry_run: bool) -> None:
    """Make the tariffs of a CSV file, all or none. app/README.md describes its columns."""
    result = tariffs.import_csv(db.session, file, dry_run=dry_run)
    if result.errors:
        for error in result.errors:
            click.echo(str(error), err=True)
        raise click.ClickException(
            f"{len(result.errors)} errors: nothing was imported. Mend them and import again"
        )
    verb = "would be created" if dry_run else "were created"
    click.echo(f"{result.created} tariffs {verb}.")


@tariff_group.command("list")
@click.option("--plaza", "plaza_code", help="Of this plaza only.")
@with_schema
def list_tariffs(plaza_code: str | None) -> None:
    """Show all tariffs, on the clocks of their plazas."""
    for each in tariffs.list_tariffs(db.session, plaza=plaza_code):
        click.echo(describe(each))
        for window in each.windows:
            price = tariffs.format_money(window.amount, each.currency)
            click.echo(f"    {price:>14}  {window.name}: {window.hours}")


def describe(tariff: Tariff) -> str:
    """Return a tariff in a line."""
    zone = tariff.plaza.zone
    until = (
        f" to {tariff.valid_until.astimezone(zone):%Y-%m-%dT%H:%M}" if tariff.valid_until else ""
    )
    price = tariffs.format_money(tariff.amount, tariff.currency)
    return (
        f"{price:>14}  {tariff.plaza.code} {tariff.vehicle_class.code}: {tariff.name}, from "
        f"{tariff.valid_from.astimezone(zone):%Y-%m-%dT%H:%M}{until}"
    )


@toll.command("prune")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 36_500))
@with_schema
def prune(days: int) -> None:
    """Forget idempotency keys that are older than some days."""
    count = passages.prune_idempotency(db.session, now() - timedelta(days=days))
    click.echo(f"{count} idempotency keys were forgotten.")


@toll.command("plates")
@with_schema
def plates() -> None:
    """Rewrite plates that older releases stored with look-alike letters. Changes nothing twice."""
    count = passages.rewrite_plates(db.session)
    click.echo(f"{count} passages have another notation of their plate now.")


# The demo


@toll.group("demo")
def demo_group() -> None:
    """Something to look at."""


@demo_group.command("seed")
@click.option(
    "--passages",
    "count",
    default=demo.PASSAGES,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
)
@click.option("--users", is_flag=True, help="Make admin, operator and viewer, too.")
@with_schema
def seed(count: int, users: bool) -> None:
    """Make plazas, tariffs and a week of passages up to now, where there are none."""
    made = demo.seed_tariffs(db.session)
    recorded = demo.seed_passages(db.session, count)
    click.echo(f"{made} tariffs and {recorded} passages were made.")
    if users:
        for each, password in demo.seed_users(db.session):
            click.echo(f"User {each.name}, password, shown this once: {password}")
