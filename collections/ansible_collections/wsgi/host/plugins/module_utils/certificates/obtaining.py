"""Has the authority issue what is missing or differs, and keeps account of what cannot be had."""

from __future__ import annotations

import ipaddress

from ansible_collections.wsgi.host.plugins.module_utils.certificates import accounts, pairs
from ansible_collections.wsgi.host.plugins.module_utils.certificates.certbot import (
    CertbotError,
    certbot_argv,
    run_certbot,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.choosing import look
from ansible_collections.wsgi.host.plugins.module_utils.certificates.lineages import read_lineage
from ansible_collections.wsgi.host.plugins.module_utils.certificates.linking import (
    connect,
    link_targets,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    Certificate,
    CertificateError,
    Wanted,
    names,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.probing import probe_all
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run
from ansible_collections.wsgi.host.plugins.module_utils.certificates.serving import is_served

# As RFC 8555 calls it, section 6.5.
BAD_NONCE = "urn:ietf:params:acme:error:badNonce"
NONCE_ATTEMPTS = 3


def obtain_all(run: Run, missing: list[Wanted]) -> None:
    """Gets what differs from what is wanted, and keeps account of what cannot be had."""
    if not run.params["obtain"]:
        return
    for wanted in missing:
        if not wanted.reason:
            continue
        if run.module.check_mode:
            wanted.planned = bool(run.params["ahead"])
            run.done.append(
                f"{wanted.name}: obtain for {names(wanted)} from "
                f"{run.params['directory_url']}, because {wanted.reason}"
            )
            continue
        attempt(run, wanted)
    if any(line.startswith("account: ") for line in run.done):
        # Others were renewed with the account that is set aside.
        for wanted in missing:
            look(run, wanted)
            if wanted.reason and wanted.name not in run.failures:
                attempt(run, wanted)


def attempt(run: Run, wanted: Wanted) -> None:
    """Gets one certificate, and keeps account of why it cannot be had."""
    try:
        obtain(run, wanted)
    except CertificateError as error:
        run.failures[wanted.name] = str(error)


def obtain(run: Run, wanted: Wanted) -> None:
    """Gets one certificate from the authority. Raises, with nothing changed, if it cannot."""
    if wanted.certificate and written_after_its_end(wanted):
        raise CertificateError(
            f"{ended(run, wanted.certificate)} The authority was not asked. If the clock is right, "
            f"the files were copied since: touch -d @0 {wanted.source_file}"
        )
    addresses: list[str] = []
    directory = run.params["challenge"]["directory"]
    if run.params["probe"] and directory:
        addresses = probe_all(wanted.domains, directory)
    before = run.marker.exists()
    # No web server reads a link that is not there yet.
    if wanted.link.is_symlink():
        run.remember_reload()
    lineage = free_lineage(run, wanted)
    try:
        ask(run, wanted, lineage)
    except CertificateError as error:
        if not before:
            run.marker.unlink(missing_ok=True)
        local = addresses and all(ipaddress.ip_address(a).is_loopback for a in addresses)
        note = (
            f" On this host the names lead to {', '.join(sorted(set(addresses)))}, so it "
            "could not be seen whether others reach them."
            if local
            else ""
        )
        raise CertificateError(f"{error}{note}{hint(run, str(error))}") from error
    reason, last = wanted.reason, wanted.certificate
    look(run, wanted)
    new = wanted.certificate
    if new and new.not_after <= run.now and (last is None or new.serial != last.serial):
        raise CertificateError(ended(run, new))
    if wanted.reason:
        raise CertificateError(
            f"certbot reported success, but {wanted.reason}; `certbot certificates` shows what "
            f"it has, and {run.configuration / 'renewal' / lineage}.conf its settings"
        )
    run.done.append(f"{wanted.name}: obtained for {names(wanted)}, because {reason}")
    connect(run, wanted)


def written_after_its_end(wanted: Wanted) -> bool:
    """Whether the host's clock is ahead: by it, the certificate came when it had ended already.

    Each run would have another one issued, until the authority's limit is reached.
    """
    if wanted.source is None or wanted.certificate is None or wanted.source.covers:
        return False
    try:
        written = wanted.source_file.stat().st_mtime
    except OSError:
        return False
    return written > wanted.certificate.not_after.timestamp()


def ended(run: Run, certificate: Certificate) -> str:
    """What is said of such a clock."""
    return (
        f"this host's clock says {run.now:%Y-%m-%d %H:%M} UTC, and the certificate that was "
        f"obtained last by that clock ended at {certificate.not_after:%Y-%m-%d %H:%M} UTC: set "
        "the clock."
    )


def hint(run: Run, said: str) -> str:
    """What certbot's words mean where they hide the cause: the authority's own TLS certificate."""
    if "certificate is not yet valid" in said or "certificate has expired" in said:
        return (
            f" This host's clock says {run.now:%Y-%m-%d %H:%M} UTC; if that is wrong, so is what "
            "it makes of the authority's certificate: set the clock."
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            " The authority's own TLS certificate is not trusted: certbot_ca_file names the CA of "
            "a private authority; with a public one, somebody answers in its place."
        )
    return ""


def ask(run: Run, wanted: Wanted, lineage: str) -> None:
    """Runs certbot, and again where that can help. Raises where certbot failed.

    The authority may not know the account any more: it was removed there, or a test authority has
    restarted. And certbot itself tries a nonce that was refused once more only.
    """
    for _ in range(NONCE_ATTEMPTS):
        try:
            run_certbot(request(run, wanted, lineage))
            return
        except CertbotError as error:
            said = error.output + error.log()
            if accounts.UNKNOWN in said:
                break
            if BAD_NONCE not in said:
                raise
            refused = error
    else:
        raise refused
    server = run.params["directory_url"]
    kept = accounts.set_aside(run.configuration, server)
    run.done.append(
        f"account: {kept.name} set aside in {kept.parent}, which {server} does not know any more; "
        "another is registered"
    )
    run_certbot(request(run, wanted, lineage))


def request(run: Run, wanted: Wanted, lineage: str) -> list[str]:
    """certbot's command, with the account that it is to use."""
    told = accounts.account_argv(run.configuration, run.params["directory_url"])
    return [*certbot_argv(wanted, lineage, run.params), *told]


def free_lineage(run: Run, wanted: Wanted) -> str:
    """certbot's name for what is obtained: the certificate's, unless that one has to stay.

    A site may still read a certificate through another link; losing a name from it would take that
    name from its clients. And certbot cannot repair files of its own that it cannot read.
    """
    others = link_targets(run.links)
    others.pop(wanted.name, None)
    read = {target.name for target in others.values()}
    problem = read_lineage(wanted.name, run.configuration).problem
    if wanted.name not in read and not problem:
        return wanted.name
    number = 2
    while any(
        (run.configuration / directory / f"{wanted.name}-{number}{suffix}").exists()
        for directory, suffix in (("live", ""), ("archive", ""), ("renewal", ".conf"))
    ):
        number += 1
    return f"{wanted.name}-{number}"


def unproven(run: Run, wanted: Wanted) -> bool:
    """Whether a name would go live without a certificate on a web server that serves others."""
    covers = wanted.source.covers if wanted.source else 0
    if not wanted.reason or covers == len(wanted.domains) or not pairs.HAS_CRYPTOGRAPHY:
        return False
    if (run.configuration / "live" / wanted.name).exists() or not run.params["serving_address"]:
        return False
    challenges = run.params["challenge"]["directory"].rstrip("/")
    live = run.configuration / "live"
    targets = link_targets(run.links).values()
    lineages = [
        read_lineage(target.name, run.configuration) for target in targets if target.parent == live
    ]
    return any(
        found.certificate is not None
        and found.certificate.not_after > run.now
        and (not challenges or challenges in found.webroots.values())
        and is_served(run, found.certificate)
        for found in lineages
    )
