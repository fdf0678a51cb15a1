"""certbot's accounts: which one a certificate is obtained with, and one that is unknown."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import renewals
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import CertificateError

# How the authority says that it does not know one (RFC 8555, section 6.7).
UNKNOWN = "accountDoesNotExist"


def account_argv(configuration: Path, server: str) -> list[str]:
    """Names the account where there are several; certbot would ask, and nobody answers."""
    found = renewals.accounts(configuration, server)
    return ["--account", found[-1]] if len(found) > 1 else []


def set_aside(configuration: Path, server: str) -> Path:
    """Moves the account that certbot would use away, so that the next command registers another.

    It is kept: an authority may have lost it for a while only. Raises where there is none.
    """
    found = renewals.accounts(configuration, server)
    if not found:
        raise CertificateError(f"certbot has no account at {server}")
    directory = renewals.accounts_directory(configuration, server)
    place = configuration / "accounts-unknown" / directory.relative_to(configuration / "accounts")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = place / found[-1]
        os.replace(directory / found[-1], target)
    except OSError as error:
        raise CertificateError(f"{directory / found[-1]}: {error.strerror}") from error
    return target
