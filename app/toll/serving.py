"""What answers requests: the API, the pages, and what all answers have in common.

Whatever a request needs is imported here, before gunicorn forks its workers.
"""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask
from flask import Response, g, request
from sqlalchemy.orm import configure_mappers

from toll import (
    api,
    assets,
    health,
    metrics,
    pages,
    problems,
    proxy,
    reads,
    security,
)
from toll.database import db, may_be_repeated
from toll.release import read_release
from toll.settings import Settings


class Application(APIFlask):
    """Asks once more for a request that only reads, where a connection broke under it.

    The first one may have led to a primary that hangs, or has just been replaced.
    """

    def handle_user_exception(self, e: Exception) -> Any:
        """Answer an error of a view, or what a second attempt comes to."""
        if may_be_repeated(e) and request.method in ("GET", "HEAD") and "repeated" not in g:
            g.repeated = True
            db.forget()
            try:
                return self.preprocess_request() or self.dispatch_request()
            except Exception as again:
                e = again
        return super().handle_user_exception(e)


def new() -> APIFlask:
    """Return an application without any view."""
    # APIFlask's own pages would load from elsewhere, and nginx serves what is static.
    return Application(
        "toll",
        title="toll-app",
        version="1",
        spec_path=None,
        docs_path=None,
        json_errors=False,
        static_folder=None,  # type: ignore[arg-type]
    )


def init_app(app: APIFlask, settings: Settings) -> None:
    """Make the application answer; raise SettingsError if it could not with these settings."""
    # Here, once, and not in the first request of each worker.
    configure_mappers()
    app.config.update(
        SESSION_COOKIE_SECURE=not settings.development,
        SESSION_COOKIE_SAMESITE="Lax",
    )
    # Werkzeug would redirect // to / with the host in the address, whatever host the client named.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["toll.release"] = read_release()

    # First, so that what it measures includes all others.
    metrics.init_app(app, settings)
    problems.init_app(app)
    reads.init_app(app, settings)
    assets.init_app(app)
    security.init_app(app)
    health.init_app(app)
    api.init_app(app)
    pages.init_app(app)

    @app.after_request
    def forbid_caching(response: Response) -> Response:
        """Answers hold for now, unless their view says otherwise: health depends on the process."""
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    proxy.init_app(app, settings)
    security.check_routes(app)
