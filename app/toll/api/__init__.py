"""The JSON API: its operations, its document, and the page that shows it."""

from __future__ import annotations

from apiflask import APIFlask

from toll.api import docs, document, views
from toll.security import csrf


def init_app(app: APIFlask) -> None:
    """Register the API. It knows no cookies, so nobody's browser can be made to use it."""
    document.init_app(app)
    csrf.exempt(views.blueprint)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(docs.blueprint)
