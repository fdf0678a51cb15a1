"""toll-app: records passages at toll plazas, charges them by tariff, and shows what is going on."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from toll import cli, database, logs
from toll.settings import Settings, SettingsError

__all__ = ["Settings", "SettingsError", "create_app", "create_commands"]


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application, with settings from the environment unless some are given.

    Raises SettingsError, with the remedy, if it could not serve with them.
    """
    # Here, so that commands do without it: what answers requests takes most of a start.
    from toll import serving

    settings = settings or Settings.from_environment()
    app = serving.new()
    _set_up(app, settings, settings.writers)
    serving.init_app(app, settings)
    return app


def create_commands(settings: Settings | None = None) -> Flask:
    """Make what carries out `flask toll …`: the settings and the database, and not one view.

    Raises SettingsError as `create_app` does.
    """
    app = Flask(__name__, static_folder=None)
    _set_up(app, settings or Settings.from_environment())
    return app


def _set_up(app: Flask, settings: Settings, writers: Path | None = None) -> None:
    app.config.update(SECRET_KEY=settings.secret_key)
    app.extensions["toll.settings"] = settings
    logs.init_app(app, settings)
    for warning in settings.warnings():
        app.logger.warning(warning)
    url = database.normalised_url(settings.database_url)
    try:
        database.init_app(app, url, writers)
    except OSError as error:
        if writers is None:
            raise
        raise SettingsError(
            f"{writers} cannot be written: {error.strerror}. Let RUNTIME_DIRECTORY "
            f"name a directory that this user may write, best in memory"
        ) from error
    cli.init_app(app)
