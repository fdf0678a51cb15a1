"""Users with passwords, and keys of machines."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.orm import Session

from toll.database import writing
from toll.errors import FieldError, InvalidParameters, cut, not_known
from toll.models import (
    KEY_ROLES,
    USER_ROLES,
    ApiKey,
    BrowserSession,
    IdempotencyRecord,
    User,
    now,
    table,
)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}", re.ASCII)
PASSWORD_CHARACTERS = (12, 200)
PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
FULL_KEY = re.compile(rf"toll_([{PREFIX_ALPHABET}]{{8}})_([A-Za-z0-9_-]{{43}})", re.ASCII)

# The library's defaults: RFC 9106's profile for little memory (64 MiB, 3 passes, 4 lanes).
_hasher = PasswordHasher()
# Of a password that nobody knows: an unknown name costs what a known one does.
NOBODYS_HASH = (
    "$argon2id$v=19$m=65536,t=3,p=4$"
    "i5Elgzq047E8FISGzaXRBw$+N9nM8Okm72MS6tA9p9wuFesSllZ9f1g+PW29810DK4"
)


def generate_password() -> str:
    """Return a new password of 120 random bits."""
    return secrets.token_urlsafe(15)


def create_user(s: Session, name: str, password: str, role: str) -> User:
    """Make a user; raise InvalidParameters. Names are lower-case."""
    errors = _name_errors(name) + _password_errors(password, name)
    if role not in USER_ROLES:
        errors.append(not_known("role", role, USER_ROLES))
    if errors:
        raise InvalidParameters(errors)
    password_hash = _hasher.hash(password)
    with writing(s, "accounts"):
        if find_user(s, name):
            raise InvalidParameters(
                [FieldError("name", name, "is there already", "Take another name")]
            )
        user = User(
            name=name, password_hash=password_hash, role=role, session_token=_session_token()
        )
        s.add(user)
    return user


def find_user(s: Session, name: str) -> User | None:
    """Return the user of that name, active or not."""
    name = name.strip().lower()
    return s.scalar(sa.select(User).where(User.name == name)) if NAME.fullmatch(name) else None


def get_user(s: Session, user_id: int) -> User | None:
    """Return a user by id."""
    return s.get(User, user_id)


def list_users(s: Session) -> list[User]:
    """Return all users by name."""
    return list(s.scalars(sa.select(User).order_by(User.name)))


def verify_password(s: Session, name: str, password: str) -> User | None:
    """Return the active user whose password it is. It takes as long for a name that is unknown."""
    user = find_user(s, name)
    stored = user.password_hash if user else NOBODYS_HASH
    # Longer ones cannot have been set, and would cost more to hash.
    password = password[: PASSWORD_CHARACTERS[1] + 1]
    try:
        _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return None
    if user is None or not user.active:
        return None
    if _hasher.check_needs_rehash(stored):
        # Unless there is another one by now.
        replace = (
            sa.update(User)
            .where(User.id == user.id, User.password_hash == stored)
            .values(password_hash=_hasher.hash(password))
            .returning(User.id)
            .execution_options(synchronize_session="fetch")
        )
        with writing(s):
            replaced = s.scalar(replace) is not None
        if not replaced:
            # Of the same password, by another log-in, or of one that somebody has set.
            s.expire(user, ["password_hash"])
            return verify_password(s, name, password)
    return user


def set_password(s: Session, user: User, password: str) -> None:
    """Give the user another password, which ends all sessions; raise InvalidParameters."""
    if errors := _password_errors(password, user.name):
        raise InvalidParameters(errors)
    password_hash = _hasher.hash(password)
    with writing(s):
        user.password_hash = password_hash
        end_sessions(s, user)


def set_role(s: Session, user: User, role: str) -> None:
    """Give the user another role, which ends all sessions; raise InvalidParameters."""
    if role not in USER_ROLES:
        raise InvalidParameters([not_known("role", role, USER_ROLES)])
    with writing(s):
        user.role = role
        end_sessions(s, user)


def disable_user(s: Session, user: User) -> None:
    """Let the user in no more; what they recorded keeps their name."""
    with writing(s):
        user.active = False
        end_sessions(s, user)


def remove_user(s: Session, user: User) -> None:
    """Remove the user and their sessions; what they recorded keeps their name."""
    with writing(s):
        end_sessions(s, user)
        # SQLite may give the id to the next user, who must not get this one's answers.
        scope = IdempotencyRecord.scope == f"user:{user.id}"
        s.execute(sa.delete(IdempotencyRecord).where(scope))
        s.delete(user)


def start_session(s: Session, user: User, lifetime: timedelta) -> str:
    """Start a session of the user; return its key, which is not stored.

    Sessions of anybody that are older than `lifetime` are forgotten.
    """
    key = secrets.token_urlsafe(32)
    with writing(s):
        s.execute(sa.delete(BrowserSession).where(BrowserSession.created_at <= now() - lifetime))
        s.add(BrowserSession(key_hash=_digest(key), user_id=user.id))
    return key


def has_session(s: Session, user: User, key: str) -> bool:
    """Return whether the user has a session with that key."""
    found = sa.select(BrowserSession.id).where(
        BrowserSession.key_hash == _digest(key), BrowserSession.user_id == user.id
    )
    return s.scalar(found) is not None


def end_session(s: Session, user: User, key: str) -> None:
    """End the user's session with that key, wherever its cookie has been copied to."""
    with writing(s):
        s.execute(
            sa.delete(BrowserSession).where(
                BrowserSession.key_hash == _digest(key), BrowserSession.user_id == user.id
            )
        )


def end_sessions(s: Session, user: User) -> int:
    """Log the user out everywhere; return how many sessions that ended."""
    with writing(s):
        # The release before knows no rows: there a session ends with the token.
        user.session_token = _session_token()
        ended = s.execute(sa.delete(BrowserSession).where(BrowserSession.user_id == user.id))
        return int(ended.rowcount)  # type: ignore[attr-defined]


def create_key(s: Session, name: str, role: str) -> tuple[ApiKey, str]:
    """Make a key; return it with its full text, which is not stored; raise InvalidParameters."""
    errors = _name_errors(name)
    if role not in KEY_ROLES:
        errors.append(not_known("role", role, KEY_ROLES))
    if errors:
        raise InvalidParameters(errors)
    with writing(s, "accounts"):
        if s.scalar(sa.select(ApiKey.id).where(ApiKey.name == name)):
            raise InvalidParameters(
                [
                    FieldError(
                        "name",
                        name,
                        "is there already, revoked or not",
                        "Take another name, such as one with the year",
                    )
                ]
            )
        prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(8))
        secret = secrets.token_urlsafe(32)
        key = ApiKey(name=name, prefix=prefix, secret_hash=_digest(secret), role=role)
        s.add(key)
    return key, f"toll_{prefix}_{secret}"


@dataclass(frozen=True)
class KeyHolder:
    """Whose key it is, and what it may do."""

    id: int
    name: str
    role: str


# Made once: see services/tariffs.py.
KEYS = table(ApiKey)
_KEY = sa.select(KEYS.c.id, KEYS.c.name, KEYS.c.role, KEYS.c.secret_hash, KEYS.c.revoked_at).where(
    KEYS.c.prefix == sa.bindparam("prefix")
)


def check_key(s: Session, full_key: str) -> KeyHolder | None:
    """Return the holder of the key whose full text it is, unless it was revoked."""
    match = FULL_KEY.fullmatch(full_key)
    if match is None:
        return None
    prefix, secret = match.groups()
    found = s.connection().execute(_KEY, {"prefix": prefix}).one_or_none()
    stored = found.secret_hash if found else "0" * 64
    # In constant time: how far a guess was right does not show.
    good = hmac.compare_digest(_digest(secret), stored)
    if not good or found is None or found.revoked_at is not None:
        return None
    return KeyHolder(found.id, found.name, found.role)


def find_key(s: Session, full_key: str) -> ApiKey | None:
    """Return the key whose full text it is, unless it was revoked."""
    holder = check_key(s, full_key)
    return s.get(ApiKey, holder.id) if holder else None


def list_keys(s: Session) -> list[ApiKey]:
    """Return all keys by name."""
    return list(s.scalars(sa.select(ApiKey).order_by(ApiKey.name)))


def revoke_key(s: Session, name: str) -> ApiKey:
    """Revoke the key of that name, for good; raise InvalidParameters."""
    with writing(s):
        key = s.scalar(sa.select(ApiKey).where(ApiKey.name == name)) if "\0" not in name else None
        if key is None:
            raise InvalidParameters([not_known("name", name, (each.name for each in list_keys(s)))])
        key.revoked_at = key.revoked_at or now()
    return key


def _digest(secret: str) -> str:
    # The secret has 256 random bits: a slow hash would protect it no better.
    return hashlib.sha256(secret.encode()).hexdigest()


def _session_token() -> str:
    return secrets.token_urlsafe(24)


def _name_errors(name: str) -> list[FieldError]:
    if NAME.fullmatch(name):
        return []
    return [
        FieldError(
            "name",
            cut(name),
            "is not a name" if name else "is missing",
            "Write up to 40 lower-case letters, digits, dots, hyphens and underscores",
        )
    ]


def _password_errors(password: str, name: str) -> list[FieldError]:
    least, most = PASSWORD_CHARACTERS
    if not least <= len(password) <= most:
        problem = f"has {len(password)} characters"
        return [FieldError("password", None, problem, f"Take {least} to {most} characters")]
    if password.strip().lower() in (name, name * 2, name * 3) or len(set(password)) < 4:
        return [FieldError("password", None, "is easy to guess", "Take several random words")]
    return []
