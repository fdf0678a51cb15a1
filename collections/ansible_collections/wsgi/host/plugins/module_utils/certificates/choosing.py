"""Which of the certificates that there are a link is to lead to, and what is to be obtained."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.certificates import pairs
from ansible_collections.wsgi.host.plugins.module_utils.certificates.certbot import wanted_profile
from ansible_collections.wsgi.host.plugins.module_utils.certificates.lineages import (
    read_lineage,
    reason_to_obtain,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.linking import link_targets
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    Certificate,
    CertificateError,
    Source,
    Wanted,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run


def look(run: Run, wanted: Wanted) -> None:
    """Reads what there is and decides, without changing anything."""
    if not pairs.HAS_CRYPTOGRAPHY:
        # Check mode on a host that has no certbot yet: what is there is taken for right.
        there = wanted.link.exists() or (run.configuration / "live" / wanted.name).exists()
        wanted.serves = "issued" if there else "nothing"
        wanted.reason = "" if there else "there is none yet"
        return
    own, problem = judged(run, wanted.name, wanted)
    best = own
    if own.reason:
        current = link_targets(run.links).get(wanted.name)
        best = max([own, *others(run, wanted)], key=lambda each: rank(each, own, current))
    if not best.covers:
        best = own
    wanted.source = best if best.certificate else None
    wanted.certificate = best.certificate
    complete = best.covers == len(wanted.domains)
    wanted.reason = best.reason if complete and best.lineage else own.reason
    wanted.force = own.force
    wanted.problem = problem if best is not own else ""


def judged(run: Run, name: str, wanted: Wanted) -> tuple[Source, str]:
    """What certbot has under a name, judged by what is wanted; and what is wrong with it."""
    found = read_lineage(name, run.configuration)
    failure = run.rehearsed.get(name, {})
    if failure.get("account") and failure["account"] == found.settings.get("account"):
        # Obtained since, it has another account, and what was rehearsed before does not count.
        found.obstacle = found.obstacle or failure["reason"]
    reason, force = reason_to_obtain(
        found,
        wanted.domains,
        directory_url=run.params["directory_url"],
        challenge=run.params["challenge"],
        wanted_key=run.params["key_type"],
        profile=wanted_profile(run.params),
        now=run.now,
    )
    covers = covered(found.certificate, wanted.domains, run.now) if found.certificate else 0
    path = run.configuration / "live" / name
    return Source(path, name, found.certificate, reason, force, covers), found.problem


def others(run: Run, wanted: Wanted) -> list[Source]:
    """Certificates under other names, and the copy of what the link led to."""
    found = []
    directory = run.configuration / "live"
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            if path.is_dir() and path.name != wanted.name:
                found.append(judged(run, path.name, wanted)[0])
    kept = run.kept / wanted.name
    try:
        certificate = pairs.read_pair(kept)
    except CertificateError:
        return found
    covers = covered(certificate, wanted.domains, run.now)
    return [*found, Source(kept, "", certificate, "certbot no longer has it", False, covers)]


def covered(certificate: Certificate, domains: list[str], now: datetime.datetime) -> int:
    """How many of the domains a client can reach with the certificate today."""
    if certificate.not_after <= now:
        return 0
    names = certificate.domains
    return sum(
        domain in names or f"*.{domain.partition('.')[2]}" in names
        for domain in map(str.lower, domains)
    )


def rank(source: Source, own: Source, current: Path | None) -> tuple[Any, ...]:
    """The better of two certificates comes last; of two as good, what is served already."""
    if source.certificate is None:
        return (-1,)
    return (
        source.covers,
        not source.reason,
        bool(source.lineage),
        source.path == current,
        source is own,
        source.certificate.not_after,
    )
