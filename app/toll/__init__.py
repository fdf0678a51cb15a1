"""toll-app: quotes road tolls, on a page and as JSON."""

from __future__ import annotations

from flask import Flask, Response
from werkzeug.middleware.proxy_fix import ProxyFix

from toll import api, health, logs, pages, problems
from toll.release import read_release
from toll.settings import Settings, SettingsError
from toll.tariffs import TariffError, load_tariffs

__all__ = ["Settings", "SettingsError", "TariffError", "create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application, with settings from the environment unless some are given.

    Raises SettingsError or TariffError, with the remedy, if it could not serve with them.
    """
    settings = settings or Settings.from_environment()
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SESSION_COOKIE_SECURE=not settings.development,
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    logs.init_app(app, settings)
    for warning in settings.warnings():
        app.logger.warning(warning)
    app.extensions["toll.settings"] = settings
    app.extensions["toll.release"] = read_release()
    app.extensions["toll.tariffs"] = load_tariffs(settings.tariffs)

    problems.init_app(app)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(pages.blueprint)

    @app.after_request
    def forbid_caching(response: Response) -> Response:
        """Answers hold for now: tariffs depend on the time, health on the process."""
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    if settings.proxies:
        # The proxy overwrites these headers. Without one a client could set them.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    return app
