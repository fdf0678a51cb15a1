"""Who calls the API: an API key in the header `Authorization: Bearer toll_…`.

Keys are made by `flask toll key create`. `accounts.check_key` looks a key up by its public
prefix and compares the rest in constant time.
"""

from __future__ import annotations

import logging

from apiflask import HTTPTokenAuth
from flask import Response, g, request

from toll import metrics
from toll.database import db
from toll.models import KEY_ROLES
from toll.problems import problem
from toll.services import accounts
from toll.services.accounts import KeyHolder

logger = logging.getLogger(__name__)

READER, RECORDER = KEY_ROLES

auth = HTTPTokenAuth(
    scheme="Bearer",
    description="A key made by `flask toll key create`, as `Authorization: Bearer toll_…`. A "
    "recorder may record and read, a reader may read.",
)


@auth.verify_token  # type: ignore[untyped-decorator]
def verify(token: str) -> KeyHolder | None:
    """Return the key that the token is, or None."""
    if not token:
        return None
    key = accounts.check_key(db.session, token)
    metrics.key_checked("ok" if key else "refused")
    if key is None:
        # What came may be a true key with a slip in it: none of it is logged.
        logger.warning("an API key was refused")
    else:
        g.api_key = key
    return key


@auth.get_user_roles  # type: ignore[untyped-decorator]
def roles(key: KeyHolder) -> list[str]:
    """Return what a key may do: each role may do what those before it may."""
    return list(KEY_ROLES[: KEY_ROLES.index(key.role) + 1])


@auth.error_handler  # type: ignore[untyped-decorator]
def refuse(status: int) -> Response:
    """Answer a request without a key that is good for it."""
    if status == 403:
        key: KeyHolder = g.api_key
        return problem(
            403,
            "Forbidden",
            f"The key {key.name} has the role {key.role}, and this takes the role {RECORDER}. "
            f"Use a key made by `flask toll key create NAME --role {RECORDER}`.",
        )
    given = "Authorization" in request.headers
    response = problem(
        401,
        "Unauthorized",
        "The API key is not known, or it was revoked. Check that it was copied whole."
        if given
        else "This takes an API key. Send it as `Authorization: Bearer toll_…`.",
    )
    challenge = 'Bearer realm="toll-app"'
    response.headers["WWW-Authenticate"] = (
        f'{challenge}, error="invalid_token"' if given else challenge
    )
    return response


def who() -> KeyHolder:
    """Return the key of this request, once it was checked."""
    key: KeyHolder = g.api_key
    return key
