"""What the web server shows in a TLS handshake, and having it read the certificates anew."""

from __future__ import annotations

import datetime
import ssl
import subprocess

from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import served as look
from ansible_collections.wsgi.host.plugins.module_utils.certificates import pairs
from ansible_collections.wsgi.host.plugins.module_utils.certificates.choosing import covered
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import Certificate
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run

HANDSHAKE_TIMEOUT_SECONDS = 5


def shown(address: str, domain: str) -> bytes:
    """The certificate (DER) that the web server shows for the domain. Raises OSError for none."""
    return look.handshake(address, domain, look.blind(), HANDSHAKE_TIMEOUT_SECONDS)[0]


def describe_served(address: str, domain: str, now: datetime.datetime) -> str:
    """What a client gets that asks the web server for the domain, in words."""
    try:
        leaf = pairs.parse(shown(address, domain))
    except ssl.SSLError as error:
        return f"nothing: the web server refuses the name ({error.reason})"
    except OSError as error:
        return f"nothing: no answer at {address} ({error.strerror or error})"
    issuer = leaf.issuer.rfc4514_string()
    end = pairs.end_of_validity(leaf)
    if pairs.is_placeholder(leaf):
        return "the placeholder, which no client trusts"
    until = f"{end:%Y-%m-%d %H:%M} UTC"
    if end <= now:
        return f"a certificate from {issuer} that expired at {until}"
    names = frozenset(pairs.subject_names(leaf))
    if not covered(Certificate(names, issuer, "", end, ""), [domain], now):
        return f"a certificate from {issuer} for other names, {', '.join(sorted(names))}"
    return f"a certificate from {issuer}, valid until {until}"


def is_served(run: Run, certificate: Certificate) -> bool:
    """Whether the web server shows a certificate for one of these names."""
    for domain in sorted(certificate.domains):
        try:
            leaf = pairs.parse(shown(run.params["serving_address"], domain))
        except OSError:
            continue
        if not pairs.is_placeholder(leaf):
            return True
    return False


def served(run: Run) -> dict[str, str]:
    """By domain of what failed, what the web server shows."""
    address = run.params["serving_address"]
    if not address or not pairs.HAS_CRYPTOGRAPHY:
        return {}
    failed = [wanted for wanted in run.wanted if {wanted.name, "reload"} & set(run.failures)]
    return {
        domain: describe_served(address, domain, run.now)
        for wanted in failed
        for domain in wanted.domains
    }


def reload(run: Run) -> None:
    """Has the web server read the certificates; forgets that it must only if it did."""
    argv = run.params["reload_argv"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )
        said = "" if done.returncode == 0 else (done.stderr or done.stdout).strip()
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        failed, said = True, str(error)
    if failed:
        run.failures["reload"] = (
            f"{' '.join(argv)} failed: {said or 'without a word'}. The certificates are in "
            "place, but the web server does not serve them before it reloads; the next run "
            "and the renewal timer try again."
        )
        return
    run.marker.unlink(missing_ok=True)
