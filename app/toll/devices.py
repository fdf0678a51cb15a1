"""Devices that have logged in to an account before: what others do cannot keep them out.

A device is known by a signed cookie that outlives the session. It lets nobody in: it only makes the
device's attempts to log in count for themselves (services/throttle.py). An operator on the host can
make any browser a known device by a link (`toll user device`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from flask import current_app, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response as BaseResponse

from toll.models import User

REMEMBER_SECONDS = 180 * 24 * 3600
INVITATION_SECONDS = 15 * 60
# A shared computer may have several; the oldest of more is forgotten.
ACCOUNTS = 8


@dataclass(frozen=True)
class Device:
    """A browser, and the users who have logged in with it."""

    id: str
    users: tuple[int, ...] = ()

    def knows(self, user: User) -> bool:
        """Return whether the user has logged in with it, or an operator has vouched for it."""
        return user.id in self.users


def _serializer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(str(current_app.secret_key), salt=f"toll {purpose}")


def _cookie_name() -> str:
    return "__Host-toll-device" if current_app.config["SESSION_COOKIE_SECURE"] else "toll-device"


def current() -> Device:
    """Return the device that the request comes from; a new one if it is not known."""
    try:
        held = _serializer("device").loads(
            request.cookies.get(_cookie_name(), ""), max_age=REMEMBER_SECONDS
        )
        return Device(str(held["id"]), tuple(int(each) for each in held["users"]))
    except (BadData, KeyError, TypeError, ValueError):
        return Device(secrets.token_urlsafe(12))


def remember(response: BaseResponse, user_id: int) -> None:
    """Make the device that the request comes from one that the user is known on."""
    device = current()
    others = [each for each in device.users if each != user_id]
    users = [*others[-(ACCOUNTS - 1) :], user_id]
    response.set_cookie(
        _cookie_name(),
        _serializer("device").dumps({"id": device.id, "users": users}),
        max_age=REMEMBER_SECONDS,
        path="/",
        secure=bool(current_app.config["SESSION_COOKIE_SECURE"]),
        httponly=True,
        samesite="Lax",
    )


def invitation(user: User) -> str:
    """Return a token that makes the browser that brings it a device of the user's."""
    return _serializer("invitation").dumps(user.id)


def invited(token: str) -> int | None:
    """Return whose device a token makes; None if it is not one, or too old."""
    try:
        return int(_serializer("invitation").loads(token, max_age=INVITATION_SECONDS))
    except (BadData, TypeError, ValueError):
        return None
