"""The JSON API: its operations, its document, and the page that shows it."""

from __future__ import annotations

from apiflask import APIFlask
from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin

from toll.api import docs, document, errors, views
from toll.security import csrf


class Sessions(SecureCookieSessionInterface):
    """Sessions are for pages. The API has keys: no cookie is read, and no answer varies by it."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the session that the cookie holds, an empty one for the API."""
        if request.path.startswith("/api/"):
            return self.session_class()
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Send the session if it has changed."""
        if not request.path.startswith("/api/"):
            super().save_session(app, session, response)


def init_app(app: APIFlask) -> None:
    """Register the API. It knows no cookies, so nobody's browser can be made to use it."""
    app.session_interface = Sessions()
    document.init_app(app)
    errors.init_app(app)
    csrf.exempt(views.blueprint)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(docs.blueprint)
