"""Who may see what: access of every route, sessions, CSRF and the security headers.

Nothing is open by accident: a route without a marker keeps the application from starting.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, redirect, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, Unauthorized
from werkzeug.wrappers import Response as BaseResponse

from toll.database import db
from toll.models import USER_ROLES as ROLES
from toll.models import User
from toll.services import accounts

View = TypeVar("View", bound=Callable[..., Any])

PUBLIC = "public"
# Answered by the API's own authentication.
KEY = "key"

# However busy the browser is, somebody logs in once per working day.
SESSION_HOURS = 12

# What nginx fills in for answers without them (its role's defaults), said by the application too:
# it is served without nginx in development. The policy is tighter than nginx's.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": (
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Csrf(CSRFProtect):
    """Flask-WTF's protection, with words that help."""

    def _error_response(self, reason: str) -> None:
        current_app.logger.warning("a form was refused: %s", reason)
        raise BadRequest(
            "Nothing was changed: this form does not belong to your session, which may have ended "
            "since. Go back, reload the page and send it again."
        )


csrf = Csrf()
logins = LoginManager()
# Binds a session to address and browser, both of which change on a phone. A session is bound to
# the user's token instead, see load_user.
logins.session_protection = None


class SessionUser(UserMixin):
    """Who is logged in."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.id = user.id
        self.name = user.name
        self.role = user.role

    def may(self, role: str) -> bool:
        """Return whether this user has the role or one above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


def public(view: View) -> View:
    """Mark a view that strangers may see."""
    view.access = PUBLIC  # type: ignore[attr-defined]
    return view


def requires_key(view: View) -> View:
    """Mark a view that checks an API key itself."""
    view.access = KEY  # type: ignore[attr-defined]
    return view


def requires(role: str) -> Callable[[View], View]:
    """Mark a view for users who have the role or one above it."""
    if role not in ROLES:
        raise ValueError(f"{role!r} is not a role: take one of {', '.join(ROLES)}")

    def mark_view(view: View) -> View:
        view.access = role  # type: ignore[attr-defined]
        return view

    return mark_view


def mark(app: Flask, endpoint: str, access: str) -> None:
    """Mark the view of an endpoint that a library made."""
    app.view_functions[endpoint].access = access  # type: ignore[union-attr]


def access_of(app: Flask, endpoint: str) -> str | None:
    """Return what an endpoint's view is marked with, or None."""
    return getattr(app.view_functions[endpoint], "access", None)


def public_endpoints(app: Flask) -> set[str]:
    """Return the endpoints that strangers may see."""
    return {name for name in app.view_functions if access_of(app, name) == PUBLIC}


def check_routes(app: Flask) -> None:
    """Raise RuntimeError if it is not said of some route who may see it."""
    bare = sorted(name for name in app.view_functions if access_of(app, name) is None)
    if bare:
        raise RuntimeError(
            f"Nothing says who may see {', '.join(bare)}. Mark each view with @public, "
            f"@requires(role) or @requires_key from toll.security"
        )


def init_app(app: Flask) -> None:
    """Guard every route, and send the security headers."""
    secure = bool(app.config["SESSION_COOKIE_SECURE"])
    app.config.update(
        # The prefix makes browsers refuse the cookie from a neighbouring host or plain HTTP.
        SESSION_COOKIE_NAME="__Host-toll" if secure else "toll",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_PATH="/",
        # A form that lay open over lunch still works; its token goes with the session.
        WTF_CSRF_TIME_LIMIT=None,
    )
    # Its context processor would ask the database also on the page for the database's errors.
    logins.init_app(app, add_context_processor=False)
    # Before CSRF: a stranger is told to log in, not that a token is missing.
    app.before_request(guard)
    csrf.init_app(app)
    app.after_request(send_headers)


def guard() -> BaseResponse | None:
    """Let a request through, or answer what keeps it from its view."""
    if request.endpoint is None:
        return None  # There is no such page.
    access = access_of(current_app, request.endpoint)
    if access in (PUBLIC, KEY):
        return None
    if access is None:
        raise Forbidden("Nobody may see this page.")
    if not current_user.is_authenticated:
        if request.method not in ("GET", "HEAD") or "X-Refresh" in request.headers:
            raise Unauthorized("You are not logged in, or your session has ended. Log in again.")
        return redirect(url_for("account.login", next=request.full_path.rstrip("?")), 303)
    if not current_user.may(access):
        raise Forbidden(
            f"This takes the role {access}, and you are logged in as {current_user.name}, "
            f"whose role is {current_user.role}. Ask an admin."
        )
    return None


def send_headers(response: Response) -> Response:
    """Add the security headers that an answer does not have yet."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@logins.user_loader  # type: ignore[untyped-decorator]
def load_user(user_id: str) -> SessionUser | None:
    """Return the session's user, or None if the session does not hold any more.

    It ends with log-out, after SESSION_HOURS, when the user is disabled or removed, and when the
    user's token changes, as it does with the password and the role.
    """
    user = db.session.get(User, int(user_id))
    if user is None or not user.active:
        return None
    if not secrets.compare_digest(str(session.get("token", "")), user.session_token):
        return None
    since = session.get("since")
    now = datetime.now(UTC)
    if not isinstance(since, datetime) or now - since > timedelta(hours=SESSION_HOURS):
        return None
    # A session that the release before started has no key. It ends by its age at the latest.
    key = session.get("key")
    if key is not None and not accounts.has_session(db.session, user, str(key)):
        return None
    return SessionUser(user)


def log_in(user: User) -> None:
    """Start a session for the user; nothing of the one before is left in it."""
    session.clear()
    session["key"] = accounts.start_session(db.session, user, timedelta(hours=SESSION_HOURS))
    session["token"] = user.session_token
    session["since"] = datetime.now(UTC)
    login_user(SessionUser(user))


def log_out() -> None:
    """End the session on the server, so that a copy of its cookie is worth nothing either."""
    user, key = current_user.user, session.get("key")
    if key is None:
        # One that the release before started can end only together with the user's others.
        accounts.end_sessions(db.session, user)
    else:
        accounts.end_session(db.session, user, str(key))
    logout_user()
    session.clear()


def local_target(address: str | None) -> str | None:
    """Return where to go after log-in, if it is a page of this application.

    Anything else would let a link to the log-in page lead on to another site.
    """
    if not address or not address.startswith("/") or "\\" in address or not address.isprintable():
        return None
    try:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or address.startswith("//"):
            return None
        endpoint, _ = current_app.create_url_adapter(request).match(  # type: ignore[union-attr]
            parts.path, method="GET"
        )
    except (HTTPException, ValueError):
        return None
    return address if access_of(current_app, endpoint) in ROLES else None
