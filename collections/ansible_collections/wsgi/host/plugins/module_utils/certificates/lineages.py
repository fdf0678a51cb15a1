"""Lineages: what certbot has under one name, its files and the settings of their renewal."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import renewals
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    CertificateError,
    Lineage,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.pairs import read_pair


def read_lineage(name: str, configuration: Path) -> Lineage:
    """What certbot has under a name; nothing, if it was never asked for it."""
    lineage = Lineage()
    renewal = configuration / "renewal" / f"{name}.conf"
    live = configuration / "live" / name
    told = renewals.Renewal()
    if renewal.exists():
        told = renewals.read(renewal)
        lineage.settings, lineage.webroots = told.settings, told.webroots
    if not live.exists():
        if lineage.settings:
            lineage.problem = f"{live} is missing"
        return lineage
    try:
        lineage.certificate = read_pair(live)
    except CertificateError as error:
        lineage.problem = str(error)
    else:
        if not renewal.exists():
            lineage.problem = f"certbot does not renew it: {renewal} is missing"
        elif renewals.damage(told):
            lineage.problem = f"certbot cannot read it: {renewals.damage(told)}"
        else:
            lineage.obstacle = renewals.obstacle(told, configuration)
    return lineage


def otherwise_proven(lineage: Lineage, domains: list[str], challenge: dict[str, Any]) -> list[str]:
    """How a renewal would prove the names, where that is not as wanted."""
    wanted = challenge["authenticator"]
    authenticator = lineage.settings.get("authenticator", "none")
    if authenticator != wanted:
        return [f"it would be renewed through {authenticator}, not through {wanted}"]
    reasons = [
        f"it would be renewed with {name} = {lineage.settings.get(name, 'nothing')}, not {value}"
        for name, value in challenge["settings"].items()
        if lineage.settings.get(name) != value
    ]
    if challenge["directory"]:
        # certbot keeps the entries of names that a certificate no longer has.
        fallback = lineage.webroots.get("", "no directory")
        used = {lineage.webroots.get(domain.lower(), fallback) for domain in domains}
        if used != {challenge["directory"].rstrip("/")}:
            reasons.append(f"its challenges would go to {', '.join(sorted(used))}")
    return reasons


def reason_to_obtain(
    lineage: Lineage,
    domains: list[str],
    *,
    directory_url: str,
    challenge: dict[str, Any],
    wanted_key: str,
    profile: dict[str, str],
    now: datetime.datetime,
) -> tuple[str, bool]:
    """Why a certificate is to be obtained (empty: it is as wanted), and whether by force.

    certbot acts of its own accord on changed names and on what is due. For the rest it would say
    that nothing is due, and has to be forced.
    """
    certificate = lineage.certificate
    if lineage.problem:
        return lineage.problem, False
    if certificate is None:
        return "there is none yet", False
    reasons = []
    server = lineage.settings.get("server", renewals.DEFAULT_DIRECTORY_URL)
    if server != directory_url:
        reasons.append(f"it is from {server}")
    if certificate.key_type != wanted_key:
        reasons.append(f"its key is {certificate.key_type}, not {wanted_key}")
    reasons += otherwise_proven(lineage, domains, challenge)
    reasons += [
        f"it would be renewed with {name} = {lineage.settings.get(name, 'nothing')}, not "
        f"{value or 'nothing'}"
        for name, value in profile.items()
        if lineage.settings.get(name, "") != value
    ]
    if lineage.obstacle:
        reasons.append(f"it could not be renewed: {lineage.obstacle}")
    if certificate.not_after <= now:
        reasons.append(f"it expired at {certificate.not_after:%Y-%m-%d %H:%M} UTC")
    force = bool(reasons)
    have, want = certificate.domains, {domain.lower() for domain in domains}
    if want - have:
        reasons.append(f"it lacks {', '.join(sorted(want - have))}")
    if have - want:
        reasons.append(f"it still has {', '.join(sorted(have - want))}")
    return "; ".join(reasons), force
