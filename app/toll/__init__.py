"""toll-app: records passages at toll plazas, charges them by tariff, and shows what is going on."""

from __future__ import annotations

from apiflask import APIFlask
from flask import Flask, Response

from toll import (
    api,
    assets,
    cli,
    database,
    health,
    logs,
    metrics,
    pages,
    problems,
    proxy,
    reads,
    security,
)
from toll.release import read_release
from toll.settings import Settings, SettingsError

__all__ = ["Settings", "SettingsError", "create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application, with settings from the environment unless some are given.

    Raises SettingsError, with the remedy, if it could not serve with them.
    """
    settings = settings or Settings.from_environment()
    # APIFlask's own pages would load from elsewhere, and nginx serves what is static.
    app = APIFlask(
        __name__,
        title="toll-app",
        version="1",
        spec_path=None,
        docs_path=None,
        json_errors=False,
        static_folder=None,  # type: ignore[arg-type]
    )
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SESSION_COOKIE_SECURE=not settings.development,
        SESSION_COOKIE_SAMESITE="Lax",
    )
    # Werkzeug would redirect // to / with the host in the address, whatever host the client named.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["toll.settings"] = settings
    app.extensions["toll.release"] = read_release()
    logs.init_app(app, settings)
    for warning in settings.warnings():
        app.logger.warning(warning)

    # First, so that what it measures includes all others.
    metrics.init_app(app, settings)
    problems.init_app(app)
    reads.init_app(app, settings)
    database.init_app(app, database.normalised_url(settings.database_url))
    assets.init_app(app)
    security.init_app(app)
    health.init_app(app)
    api.init_app(app)
    pages.init_app(app)
    cli.init_app(app)

    @app.after_request
    def forbid_caching(response: Response) -> Response:
        """Answers hold for now: tariffs depend on the time, health on the process."""
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    proxy.init_app(app, settings)
    security.check_routes(app)
    return app
