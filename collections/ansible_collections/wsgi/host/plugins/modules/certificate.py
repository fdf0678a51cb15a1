#!/usr/bin/python
"""Puts a certificate behind each name: a placeholder first, then the authority's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Put a certificate behind each name, from an ACME authority or a placeholder
version_added: "1.0.0"
description:
  - A web server always reads C(<links_directory>/<name>/fullchain.pem) and C(privkey.pem). This
    module decides what that link leads to, for all certificates in one trip.
  - It leads to the valid certificate that covers most of the wanted names, whatever certbot calls it; a
    certificate that is as wanted is never obtained a second time under another name. Leading to
    certbot's C(live/<lineage>) means that a renewal needs no further step than a reload.
  - A copy of what a link leads to is kept beside the links. If somebody deletes the certificate in
    certbot, or certbot is killed while it exchanges the files, the copy serves until the authority has issued again.
  - Only if no name has a valid certificate is it a self-signed placeholder, so that the web server
    can start and answer the challenge.
  - certbot is run only for a certificate that is missing, has expired, or differs from what is
    wanted in its names, its authority, its kind of key or the directory of its challenges. What
    is merely due is left to the renewal timer.
  - Before the authority is asked, each name's challenge path is fetched from the host, because an
    authorisation that fails counts against a limit of the authority.
  - A certificate that cannot be obtained leaves each link as it was. The others are still
    obtained; the module fails at the end and says why for each, and what the web server serves for
    each name, for which it asks the web server (O(serving_address)).
  - Nothing below O(configuration_directory) is ever removed. A link for a certificate that is no
    longer listed is reported and left.
options:
  certificates:
    description: What is wanted, each with C(name) and C(domains), the list of names in it.
    type: list
    elements: dict
    required: true
  obtain:
    description: Obtain what is missing or differs. V(false) leads each link to what there is,
      without asking the authority, as before the web server starts.
    type: bool
    default: true
  ahead:
    description:
      - With O(obtain), obtain only what would otherwise go live without a certificate, before the web
        server is changed. This is a certificate of which certbot has nothing yet, with a name that no valid
        certificate covers, on a host whose web server already serves another of certbot's
        certificates and answers challenges from O(challenge_directory). Everything else is left
        for a later call.
      - If it fails, the module changes nothing.
    type: bool
    default: false
  serving_address:
    description: Where the web server answers over TLS, C(<host>:<port>). Empty if nobody can be
      asked, in which case a failure does not say what is served, and O(ahead) does nothing.
    type: str
    default: 127.0.0.1:443
  links_directory:
    description: Directory of the links, one per certificate.
    type: path
    required: true
  challenge_directory:
    description: Directory whose C(.well-known/acme-challenge) the web server serves on port 80
      for every name.
    type: path
    required: true
  directory_url:
    description: URL of the authority's ACME directory.
    type: str
    required: true
  email:
    description: Address for the account at the authority, used when it is registered; empty for
      none.
    type: str
    default: ""
  key_type:
    description: Kind of key of the certificates.
    type: str
    choices: [ecdsa-p256, ecdsa-p384, rsa-2048, rsa-4096]
    default: ecdsa-p256
  probe:
    description: Fetch the challenge path of each name before the authority is asked. Not possible
      where the host cannot reach its own public address.
    type: bool
    default: true
  reload_argv:
    description: Command after which the web server serves what the links lead to. Empty leaves
      that to a later task, which finds RV(reload_pending).
    type: list
    elements: str
    default: []
  certbot:
    description: The program.
    type: str
    default: certbot
  configuration_directory:
    description: certbot's own directory.
    type: path
    default: /etc/letsencrypt
  reload_marker:
    description: File that exists from the moment a link or certificate changes until the web
      server has reloaded, so that an interrupted run is finished by the next one.
    type: path
    default: /run/certbot/reload-pending
requirements:
  - cryptography 38 or newer, for the Python that runs the module. Run it with certbot's own. In
    check mode it is not needed.
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: placeholder | Put a certificate behind each name before the web server starts
  wsgi.host.certificate:
    obtain: false
    certificates:
      - {name: shop, domains: [shop.example.com, www.shop.example.com]}
    links_directory: /etc/ssl/sites
    challenge_directory: /var/www/acme-challenge
    directory_url: https://acme-v02.api.letsencrypt.org/directory
  vars:
    ansible_python_interpreter: /opt/certbot/current/bin/python
"""

RETURN = r"""
certificates:
  description:
    - By name, what the link leads to after the task (V(issued); V(kept), a copy of a certificate that
      certbot no longer has; V(placeholder); or V(nothing) in check mode), with C(domains), C(issuer), C(serial) in hexadecimal and C(not_after) in UTC as far
      as they are known, and C(reason), why it is to be obtained, empty if it is as wanted.
  type: dict
  returned: success
pending:
  description: Names of the certificates that the authority has still to issue.
  type: list
  returned: success
reload_pending:
  description: Whether the web server has still to reload.
  type: bool
  returned: success
unlisted:
  description: Names that have a link and are not wanted. They stay, and certbot renews them.
  type: list
  returned: success
failures:
  description: By name, why a certificate could not be obtained.
  type: dict
  returned: failure
served:
  description: By domain, what the web server showed in a TLS handshake after the failure.
  type: dict
  returned: failure
"""

import datetime
import ipaddress
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.apphost.http import (
    Deadline,
    NoAnswerError,
    get,
)
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

# Not datetime.UTC: a host may run Python 3.9 (certbot_install: package on RHEL 9).
UTC = datetime.timezone.utc  # noqa: UP017

# What certbot uses when the renewal settings name no authority.
DEFAULT_DIRECTORY_URL = "https://acme-v02.api.letsencrypt.org/directory"

# Nothing renews a placeholder between two runs, and no client is meant to trust it: a long life
# does no harm, while an expired one would add a second error to the one that is expected.
PLACEHOLDER_DAYS = 3650
PLACEHOLDER_NAME = "Placeholder, not issued by any authority"
PLACEHOLDER_MINIMUM_DAYS = 30

KEY_OPTIONS = {
    "ecdsa-p256": ("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
    "ecdsa-p384": ("--key-type", "ecdsa", "--elliptic-curve", "secp384r1"),
    "rsa-2048": ("--key-type", "rsa", "--rsa-key-size", "2048"),
    "rsa-4096": ("--key-type", "rsa", "--rsa-key-size", "4096"),
}

HANDSHAKE_TIMEOUT_SECONDS = 5
# HTTP-01 knows no other port.
HTTP_PORT = 80
PROBE_TIMEOUT_SECONDS = 10
# As many as Let's Encrypt follows.
PROBE_REDIRECTS = 10
# One certificate: every name's authorisation and the issuance, each of which certbot gives 90 s.
CERTBOT_TIMEOUT_SECONDS = 900
# The renewal timer may hold certbot's lock.
LOCK_WAIT_SECONDS = 180
LOCK_RETRY_SECONDS = 5
LOGS_KEPT = 50

CRON_FILES = ("/etc/crontab", "/var/spool/cron/crontabs/root", "/var/spool/cron/root")
CRON_DIRECTORY = "/etc/cron.d"


class CertificateError(Exception):
    """Something an operator can mend; the text says what and how."""


@dataclass(frozen=True)
class Certificate:
    """What matters of a certificate whose key was found beside it."""

    domains: frozenset[str]
    issuer: str
    serial: str
    not_after: datetime.datetime
    key_type: str


@dataclass
class Lineage:
    """What certbot has under one name. `certificate` is None where nothing can be served.

    `webroots` is the directory of each name's challenges; that of "" is for all other names.
    """

    settings: dict[str, str] = field(default_factory=dict)
    webroots: dict[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    problem: str = ""


@dataclass
class Source:
    """What a link could lead to.

    Attributes:
        path: directory with fullchain.pem and privkey.pem.
        lineage: certbot's name for it; empty for a kept copy.
        certificate: None where nothing can be served.
        reason: why it is not what is wanted; empty if it is.
        force: whether certbot has to be forced to replace it.
        covers: how many of the wanted names a client can reach with it today.
    """

    path: Path
    lineage: str
    certificate: Certificate | None
    reason: str
    force: bool
    covers: int


@dataclass
class Wanted:
    """One certificate, and what has become of it.

    `source` is the best of what there is, None where no certificate can be served.
    """

    name: str
    domains: list[str]
    link: Path
    serves: str = "nothing"
    source: Source | None = None
    certificate: Certificate | None = None
    reason: str = ""
    force: bool = False
    # Check mode: what a run would have obtained before the web server is changed.
    planned: bool = False
    # What is wrong with certbot's files under the name, although another certificate serves.
    problem: str = ""


# --- Reading what is there ------------------------------------------------------------------


def read_pair(directory: Path) -> Certificate:
    """Reads fullchain.pem and privkey.pem. Raises where the web server could not use them."""
    try:
        leaf = x509.load_pem_x509_certificate((directory / "fullchain.pem").read_bytes())
        key = serialization.load_pem_private_key(
            (directory / "privkey.pem").read_bytes(), password=None
        )
    except OSError as error:
        raise CertificateError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{directory} holds no certificate with its key: {error}") from error
    if public_bytes(leaf.public_key()) != public_bytes(key.public_key()):
        raise CertificateError(f"the key in {directory} is not the certificate's")
    return Certificate(
        domains=frozenset(subject_names(leaf)),
        issuer=leaf.issuer.rfc4514_string(),
        serial=f"{leaf.serial_number:x}",
        not_after=end_of_validity(leaf),
        key_type=key_type(key),
    )


def public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def subject_names(certificate: Any) -> list[str]:
    """Domains in lower case, and addresses, of the subject's alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value).lower() for name in names]


def end_of_validity(certificate: Any) -> datetime.datetime:
    """With its time zone, which cryptography has given since version 42 only."""
    end: datetime.datetime
    if hasattr(certificate, "not_valid_after_utc"):
        end = certificate.not_valid_after_utc
    else:
        end = certificate.not_valid_after.replace(tzinfo=UTC)
    return end


def key_type(key: Any) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384"}.get(
            key.curve.name, key.curve.name
        )
    if isinstance(key, rsa.RSAPrivateKey):
        return f"rsa-{key.key_size}"
    return type(key).__name__


def read_renewal(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """certbot's settings for a renewal, and the directory of each name's challenges.

    The file is an INI file with a nested section, [[webroot_map]], that configparser refuses.
    """
    settings: dict[str, str] = {}
    webroots: dict[str, str] = {}
    section = ""
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text.strip("[] ")
        elif "=" in text and not text.startswith("#"):
            key, value = (part.strip() for part in text.split("=", 1))
            if section == "webroot_map":
                webroots[key.lower()] = value.rstrip("/")
            elif section == "renewalparams":
                settings[key] = value
    # A list, of which certbot takes the last for names that have no directory of their own.
    given = [part.strip() for part in settings.get("webroot_path", "").split(",") if part.strip()]
    if given:
        webroots[""] = given[-1].rstrip("/")
    return settings, webroots


def read_lineage(name: str, configuration: Path) -> Lineage:
    """What certbot has under a name; nothing, if it was never asked for it."""
    lineage = Lineage()
    renewal = configuration / "renewal" / f"{name}.conf"
    live = configuration / "live" / name
    if renewal.exists():
        lineage.settings, lineage.webroots = read_renewal(renewal)
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
    return lineage


def reason_to_obtain(
    lineage: Lineage,
    domains: list[str],
    *,
    directory_url: str,
    challenge_directory: str,
    wanted_key: str,
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
    server = lineage.settings.get("server", DEFAULT_DIRECTORY_URL)
    authenticator = lineage.settings.get("authenticator", "none")
    if server != directory_url:
        reasons.append(f"it is from {server}")
    if certificate.key_type != wanted_key:
        reasons.append(f"its key is {certificate.key_type}, not {wanted_key}")
    if authenticator != "webroot":
        reasons.append(f"it would be renewed through {authenticator}, not through the web server")
    else:
        # certbot keeps the entries of names that a certificate no longer has.
        fallback = lineage.webroots.get("", "no directory")
        used = {lineage.webroots.get(domain.lower(), fallback) for domain in domains}
        if used != {challenge_directory.rstrip("/")}:
            reasons.append(f"its challenges would go to {', '.join(sorted(used))}")
    if certificate.not_after <= now:
        reasons.append(f"it expired at {certificate.not_after:%Y-%m-%d %H:%M} UTC")
    force = bool(reasons)
    have, want = certificate.domains, {domain.lower() for domain in domains}
    if want - have:
        reasons.append(f"it lacks {', '.join(sorted(want - have))}")
    if have - want:
        reasons.append(f"it still has {', '.join(sorted(have - want))}")
    return "; ".join(reasons), force


def covered(certificate: Certificate, domains: list[str], now: datetime.datetime) -> int:
    """How many of the domains a client can reach with the certificate today."""
    if certificate.not_after <= now:
        return 0
    names = certificate.domains
    return sum(
        domain in names or f"*.{domain.partition('.')[2]}" in names
        for domain in map(str.lower, domains)
    )


def other_renewers(files: list[Path]) -> list[str]:
    """Cron's files with a job for certbot; the packages' own, idle under systemd, not counted."""
    found = []
    for path in files:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        if any(
            "certbot" in line
            and not line.lstrip().startswith("#")
            and "/run/systemd/system" not in line
            for line in lines
        ):
            found.append(str(path))
    return found


# --- Placeholder and link -------------------------------------------------------------------


def make_placeholder(directory: Path, domains: list[str], now: datetime.datetime) -> None:
    """Writes a self-signed certificate for the domains and its key, readable by root alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, PLACEHOLDER_NAME),
            # X.520 allows 64 characters; the names that count are the alternative ones.
            x509.NameAttribute(NameOID.COMMON_NAME, domains[0][:64]),
        ]
    )
    names = x509.SubjectAlternativeName([x509.DNSName(domain) for domain in domains])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is behind shall not make it invalid.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=PLACEHOLDER_DAYS))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_pair(
        directory,
        {
            "privkey.pem": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            "fullchain.pem": certificate.public_bytes(serialization.Encoding.PEM),
        },
    )


def is_placeholder(certificate: Any) -> bool:
    organizations = certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return any(each.value == PLACEHOLDER_NAME for each in organizations)


def write_pair(directory: Path, files: dict[str, bytes]) -> None:
    """Writes a certificate and its key into a new directory, readable by root alone."""
    directory.parent.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)
    for name, content in files.items():
        handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def point(link: Path, target: Path) -> None:
    """Leads the link to the target in one step: a reader finds the old or the new one."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    temporary.symlink_to(target)
    try:
        os.replace(temporary, link)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def link_target(link: Path) -> Path | None:
    """Where the link leads, None if there is none. Raises where something else is in its place."""
    if link.is_symlink():
        return Path(os.readlink(link))
    if link.exists():
        raise CertificateError(
            f"{link} is not a symbolic link; move it away, the link to the certificate goes there"
        )
    return None


def link_targets(links: Path) -> dict[str, Path]:
    """Where each link leads, by its name."""
    if not links.is_dir():
        return {}
    return {
        path.name: Path(os.readlink(path))
        for path in sorted(links.iterdir())
        if path.is_symlink() and not path.name.startswith(".")
    }


# --- Probing the challenge path -------------------------------------------------------------


@dataclass
class Answer:
    """What came back over HTTP at the end of the redirects; at most the first 4 KiB of it."""

    status: int
    server: str
    body: bytes
    url: str


def fetch(address: str, domain: str, path: str) -> Answer:
    """Fetches http://domain/path from one address, following redirects as an authority does.

    Raises NoAnswerError where none came in time; the time is for all redirects together.
    """
    url = f"http://{domain}{path}"
    deadline = Deadline(PROBE_TIMEOUT_SECONDS)
    for redirects in range(PROBE_REDIRECTS + 1):
        parts = urllib.parse.urlsplit(url)
        name = parts.hostname or domain
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else HTTP_PORT)
        # The domain itself is asked at the address in question, also behind a redirect.
        host = address if name == domain.lower() else name
        query = f"?{parts.query}" if parts.query else ""
        try:
            answer = get(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                f"{parts.path or '/'}{query}",
                deadline=deadline,
                name=name,
                host=parts.netloc,
                # The authority does not verify certificates behind a redirect either.
                tls=tls,
                limit=4096,
            )
        except NoAnswerError as error:
            if redirects == 0:
                raise
            raise NoAnswerError(f"redirected to {url}: {error}") from error
        location = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            server = answer.headers.get("server") or "unnamed server"
            return Answer(answer.status, server, answer.body, url)
        url = urllib.parse.urljoin(url, location)
    raise NoAnswerError(f"more than {PROBE_REDIRECTS} redirects")


def resolve(domain: str) -> list[str]:
    """The domain's addresses as this host sees them. Raises OSError where it has none."""
    found = socket.getaddrinfo(domain, HTTP_PORT, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def probe(
    domain: str, path: str, token: bytes, challenge_directory: str
) -> tuple[str, str, list[str]]:
    """Whether each of the domain's addresses answers with the token.

    Returns what is wrong (empty: nothing), how to mend it, and the addresses. An address that
    cannot be connected to counts only if no other answers, as an authority tries the others too.
    """
    try:
        addresses = resolve(domain)
    except OSError as error:
        return (
            f"{domain} has no address ({error.strerror or error})",
            "Create the name's A or AAAA record, pointing to this host.",
            [],
        )
    silent, wrong, good = [], [], []
    for address in addresses:
        try:
            answer = fetch(address, domain, path)
        except NoAnswerError as error:
            silent.append(f"{address} ({error})")
            continue
        if answer.status == 200 and answer.body.strip() == token:
            good.append(address)
            continue
        what = "with another content" if answer.status == 200 else "instead of the challenge"
        where = "" if answer.url == f"http://{domain}{path}" else f" at {answer.url}"
        wrong.append(f"{address} answered {answer.status} {what} ({answer.server}{where})")
    if wrong:
        return (
            f"{domain}: {'; '.join(wrong)}",
            "Either the name's record points to another host, or the web server does not serve "
            f"{challenge_directory} at /.well-known/acme-challenge/ on port 80 for the name.",
            addresses,
        )
    if not good:
        return (
            f"{domain}: no answer on port 80 from {'; '.join(silent)}",
            "See that the name's record points to this host, that its web server runs and that no "
            "firewall closes port 80; where a host cannot reach its own public address, set "
            "certbot_probe: false.",
            addresses,
        )
    return "", "", addresses


def probe_all(domains: list[str], challenge_directory: str) -> list[str]:
    """Every address of the domains. Raises where a challenge would not reach this web server."""
    directory = Path(challenge_directory, ".well-known", "acme-challenge")
    name, token = f"probe-{secrets.token_hex(8)}", secrets.token_hex(16).encode()
    try:
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o755, exist_ok=True)
        handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        raise CertificateError(f"{directory} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(token)
            os.fchmod(stream.fileno(), 0o644)
        path = f"/.well-known/acme-challenge/{name}"
        found = [probe(domain, path, token, challenge_directory) for domain in domains]
    finally:
        (directory / name).unlink(missing_ok=True)
    problems = [problem for problem, _, _ in found if problem]
    if problems:
        remedies = dict.fromkeys(remedy for _, remedy, _ in found if remedy)
        raise CertificateError(
            f"{'. '.join(problems)}. {' '.join(remedies)} The authority was not asked."
        )
    return [address for _, _, addresses in found for address in addresses]


# --- certbot --------------------------------------------------------------------------------


def certbot_argv(wanted: Wanted, lineage: str, params: dict[str, Any]) -> list[str]:
    """The command that obtains one certificate under certbot's name for it, asking nothing."""
    account = (
        ["--email", params["email"], "--no-eff-email"]
        if params["email"]
        else ["--register-unsafely-without-email"]
    )
    domains = [part for domain in wanted.domains for part in ("--domain", domain)]
    # Spelled out for each name: for those whose authorisation the authority still has, certbot
    # would otherwise keep the directory of last time, and renew through that.
    webroots = json.dumps({",".join(wanted.domains): params["challenge_directory"]})
    return [
        *(params["certbot"], "certonly", "--non-interactive", "--agree-tos"),
        *("--config-dir", params["configuration_directory"]),
        *("--max-log-backups", str(LOGS_KEPT)),
        *("--server", params["directory_url"], *account),
        *("--webroot", "--webroot-path", params["challenge_directory"]),
        *("--webroot-map", webroots),
        *KEY_OPTIONS[params["key_type"]],
        *("--cert-name", lineage, *domains, "--renew-with-new-domains"),
        "--force-renewal" if wanted.force else "--keep-until-expiring",
    ]


def run_certbot(argv: list[str]) -> None:
    """Runs certbot, waiting for its lock. Raises with its own words for what went wrong."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=CERTBOT_TIMEOUT_SECONDS,
            )
        except OSError as error:
            raise CertificateError(f"{argv[0]} cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise CertificateError(
                f"certbot had not finished after {CERTBOT_TIMEOUT_SECONDS} s and was stopped; "
                "see /var/log/letsencrypt/letsencrypt.log for the step that it waited at"
            ) from error
        if done.returncode == 0:
            return
        locked = "Another instance of Certbot is already running" in done.stdout
        if not locked or time.monotonic() > deadline:
            raise CertificateError(f"certbot: {essence(done.stdout)}")
        time.sleep(LOCK_RETRY_SECONDS)


def essence(output: str) -> str:
    """The lines of certbot's output that say what went wrong, as one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    details = []
    domain = ""
    for line in lines:
        label, _, value = line.partition(":")
        if label in ("Domain", "Identifier"):
            domain = value.strip()
        elif label == "Detail":
            details.append(f"{domain}: {value.strip()}" if domain else value.strip())
    if details:
        return "; ".join(details)
    noise = (
        "Saving debug log",
        "Ask for help",
        "See the logfile",
        "Hint:",
        "Requesting a certificate",
        "Account registered",
        "Renewing an existing certificate",
    )
    kept = [line for line in lines if not line.startswith(noise) and not set(line) <= set("- ")]
    for index, line in enumerate(kept):
        if line.startswith("An unexpected error occurred"):
            return " ".join(kept[index + 1 :][:3]) or line
    return " ".join(kept[-2:]) or "failed without a word; see /var/log/letsencrypt/letsencrypt.log"


# --- What is served -------------------------------------------------------------------------


def shown(address: str, domain: str) -> bytes:
    """The certificate (DER) that the web server shows for the domain. Raises OSError for none."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host.strip("[]"), int(port)), HANDSHAKE_TIMEOUT_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=domain) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def describe_served(address: str, domain: str, now: datetime.datetime) -> str:
    """What a client gets that asks the web server for the domain, in words."""
    try:
        leaf = x509.load_der_x509_certificate(shown(address, domain))
    except ssl.SSLError as error:
        return f"nothing: the web server refuses the name ({error.reason})"
    except OSError as error:
        return f"nothing: no answer at {address} ({error.strerror or error})"
    issuer = leaf.issuer.rfc4514_string()
    end = end_of_validity(leaf)
    if is_placeholder(leaf):
        return "the placeholder, which no client trusts"
    until = f"{end:%Y-%m-%d %H:%M} UTC"
    if end <= now:
        return f"a certificate from {issuer} that expired at {until}"
    names = frozenset(subject_names(leaf))
    if not covered(Certificate(names, issuer, "", end, ""), [domain], now):
        return f"a certificate from {issuer} for other names, {', '.join(sorted(names))}"
    return f"a certificate from {issuer}, valid until {until}"


# --- The module -----------------------------------------------------------------------------


class Run:
    """One call of the module: decides for each certificate, acts, and keeps account."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.configuration = Path(self.params["configuration_directory"])
        self.links = Path(self.params["links_directory"])
        self.placeholders = self.links / ".placeholder"
        self.kept = self.links / ".kept"
        self.marker = Path(self.params["reload_marker"])
        self.now = datetime.datetime.now(UTC)
        self.wanted = [
            Wanted(
                name=entry["name"],
                domains=entry["domains"],
                link=self.links / entry["name"],
            )
            for entry in self.params["certificates"]
        ]
        self.done: list[str] = []
        self.failures: dict[str, str] = {}
        self.before: list[str] = []

    def look(self, wanted: Wanted) -> None:
        """Reads what there is and decides, without changing anything."""
        if not HAS_CRYPTOGRAPHY:
            # Check mode on a host that has no certbot yet: what is there is taken for right.
            there = wanted.link.exists() or (self.configuration / "live" / wanted.name).exists()
            wanted.serves = "issued" if there else "nothing"
            wanted.reason = "" if there else "there is none yet"
            return
        own, problem = self.lineage(wanted.name, wanted)
        best = own
        if own.reason:
            current = link_targets(self.links).get(wanted.name)
            best = max([own, *self.others(wanted)], key=lambda each: rank(each, own, current))
        if not best.covers:
            best = own
        wanted.source = best if best.certificate else None
        wanted.certificate = best.certificate
        complete = best.covers == len(wanted.domains)
        wanted.reason = best.reason if complete and best.lineage else own.reason
        wanted.force = own.force
        wanted.problem = problem if best is not own else ""

    def lineage(self, name: str, wanted: Wanted) -> tuple[Source, str]:
        """What certbot has under a name, judged by what is wanted; and what is wrong with it."""
        found = read_lineage(name, self.configuration)
        reason, force = reason_to_obtain(
            found,
            wanted.domains,
            directory_url=self.params["directory_url"],
            challenge_directory=self.params["challenge_directory"],
            wanted_key=self.params["key_type"],
            now=self.now,
        )
        covers = covered(found.certificate, wanted.domains, self.now) if found.certificate else 0
        path = self.configuration / "live" / name
        return Source(path, name, found.certificate, reason, force, covers), found.problem

    def others(self, wanted: Wanted) -> list[Source]:
        """Certificates under other names, and the copy of what the link led to."""
        found = []
        directory = self.configuration / "live"
        if directory.is_dir():
            for path in sorted(directory.iterdir()):
                if path.is_dir() and path.name != wanted.name:
                    found.append(self.lineage(path.name, wanted)[0])
        kept = self.kept / wanted.name
        try:
            certificate = read_pair(kept)
        except CertificateError:
            return found
        covers = covered(certificate, wanted.domains, self.now)
        return [*found, Source(kept, "", certificate, "certbot no longer has it", False, covers)]

    def connect(self, wanted: Wanted) -> None:
        """Leads the link to the best certificate that there is, else to a placeholder."""
        found = link_target(wanted.link)
        if not HAS_CRYPTOGRAPHY:
            if found is None:
                self.done.append(f"{wanted.name}: link to {wanted.serves}")
            return
        if wanted.source is not None:
            self.keep(wanted, wanted.source)
            wanted.serves = "issued" if wanted.source.lineage else "kept"
            if found != wanted.source.path:
                what = {
                    wanted.name: "the issued certificate",
                    "": "the copy of its last certificate",
                }.get(wanted.source.lineage, f"certbot's certificate {wanted.source.lineage}")
                self.move(wanted, wanted.source.path, f"{wanted.name}: serve {what}")
                for leftover in self.placeholders.glob(f"{wanted.name}@*"):
                    if not self.module.check_mode:
                        shutil.rmtree(leftover)
            return
        wanted.serves = "placeholder"
        ours = found is not None and found.parent == self.placeholders
        if ours and found is not None:
            try:
                current = read_pair(found)
            except CertificateError:
                pass
            else:
                minimum = self.now + datetime.timedelta(days=PLACEHOLDER_MINIMUM_DAYS)
                if current.domains == set(wanted.domains) and current.not_after > minimum:
                    wanted.certificate = current
                    return
        fresh = self.placeholders / f"{wanted.name}@{secrets.token_hex(4)}"
        if not self.module.check_mode:
            make_placeholder(fresh, wanted.domains, self.now)
            self.label(self.placeholders, fresh)
            wanted.certificate = read_pair(fresh)
        self.move(wanted, fresh, f"{wanted.name}: serve a placeholder for {names(wanted)}")
        for old in self.placeholders.glob(f"{wanted.name}@*"):
            if old != fresh and not self.module.check_mode:
                shutil.rmtree(old)

    def label(self, parent: Path, pair: Path) -> None:
        if self.module.selinux_enabled():
            for path in (parent, pair, *pair.iterdir()):
                self.module.set_default_selinux_context(str(path), False)

    def keep(self, wanted: Wanted, source: Source) -> None:
        """Copies a valid certificate with its key, for the day on which certbot has lost it."""
        if self.module.check_mode or not source.lineage or not source.covers:
            return
        link = self.kept / wanted.name
        try:
            if (
                source.certificate is not None
                and read_pair(link).serial == source.certificate.serial
            ):
                return
        except CertificateError:
            pass
        fresh = self.kept / f"{wanted.name}@{secrets.token_hex(4)}"
        write_pair(
            fresh,
            {name: (source.path / name).read_bytes() for name in ("privkey.pem", "fullchain.pem")},
        )
        self.label(self.kept, fresh)
        point(link, fresh)
        for old in self.kept.glob(f"{wanted.name}@*"):
            if old != fresh:
                shutil.rmtree(old)

    def move(self, wanted: Wanted, target: Path, what: str) -> None:
        """Points the link, and remembers that the web server reads it only after a reload."""
        new = not wanted.link.is_symlink()
        self.done.append(what)
        if self.module.check_mode:
            return
        # No server reads a link that did not exist; whoever adds it to a server reloads that.
        if not new:
            self.remember_reload()
        self.links.mkdir(mode=0o755, parents=True, exist_ok=True)
        point(wanted.link, target)
        if self.module.selinux_enabled():
            self.module.set_default_selinux_context(str(wanted.link), False)

    def remember_reload(self) -> None:
        self.marker.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.marker.touch()

    def obtain(self, wanted: Wanted) -> None:
        """Gets one certificate from the authority. Raises, with nothing changed, if it cannot."""
        addresses: list[str] = []
        if self.params["probe"]:
            addresses = probe_all(wanted.domains, self.params["challenge_directory"])
        before = self.marker.exists()
        # No web server reads a link that is not there yet.
        if wanted.link.is_symlink():
            self.remember_reload()
        lineage = self.free_lineage(wanted)
        try:
            run_certbot(certbot_argv(wanted, lineage, self.params))
        except CertificateError as error:
            if not before:
                self.marker.unlink(missing_ok=True)
            local = addresses and all(ipaddress.ip_address(a).is_loopback for a in addresses)
            note = (
                f" On this host the names lead to {', '.join(sorted(set(addresses)))}, so it "
                "could not be seen whether others reach them."
                if local
                else ""
            )
            if "accountDoesNotExist" in str(error):
                note += (
                    " The authority does not know this host's account any more, as a test "
                    "authority that has restarted: move the account's directory below "
                    f"{self.configuration / 'accounts'} away, and the next run registers a new one."
                )
            raise CertificateError(f"{error}{note}") from error
        reason = wanted.reason
        self.look(wanted)
        if wanted.reason:
            raise CertificateError(
                f"certbot reported success, but {wanted.reason}; `certbot certificates` shows what "
                f"it has, and {self.configuration / 'renewal' / lineage}.conf its settings"
            )
        self.done.append(f"{wanted.name}: obtained for {names(wanted)}, because {reason}")
        self.connect(wanted)

    def free_lineage(self, wanted: Wanted) -> str:
        """certbot's name for what is obtained: the certificate's, unless something else depends on that.

        A site may still read a certificate through another link; losing a name from it would take that name
        from its clients. And certbot cannot repair files of its own that it cannot read.
        """
        others = link_targets(self.links)
        others.pop(wanted.name, None)
        read = {target.name for target in others.values()}
        problem = read_lineage(wanted.name, self.configuration).problem
        if wanted.name not in read and not problem:
            return wanted.name
        number = 2
        while any(
            (self.configuration / directory / f"{wanted.name}-{number}{suffix}").exists()
            for directory, suffix in (("live", ""), ("archive", ""), ("renewal", ".conf"))
        ):
            number += 1
        return f"{wanted.name}-{number}"

    def unproven(self, wanted: Wanted) -> bool:
        """Whether a name would go live without a certificate on a web server that serves others."""
        covers = wanted.source.covers if wanted.source else 0
        if not wanted.reason or covers == len(wanted.domains) or not HAS_CRYPTOGRAPHY:
            return False
        if (self.configuration / "live" / wanted.name).exists() or not self.params[
            "serving_address"
        ]:
            return False
        challenges = self.params["challenge_directory"].rstrip("/")
        live = self.configuration / "live"
        targets = link_targets(self.links).values()
        lineages = [
            read_lineage(target.name, self.configuration)
            for target in targets
            if target.parent == live
        ]
        return any(
            found.certificate is not None
            and found.certificate.not_after > self.now
            and challenges in found.webroots.values()
            and self.is_served(found.certificate)
            for found in lineages
        )

    def is_served(self, certificate: Certificate) -> bool:
        """Whether the web server shows a certificate for one of these names."""
        for domain in sorted(certificate.domains):
            try:
                leaf = x509.load_der_x509_certificate(shown(self.params["serving_address"], domain))
            except OSError:
                continue
            if not is_placeholder(leaf):
                return True
        return False

    def served(self) -> dict[str, str]:
        """By domain of what failed, what the web server shows."""
        address = self.params["serving_address"]
        if not address or not HAS_CRYPTOGRAPHY:
            return {}
        failed = [wanted for wanted in self.wanted if {wanted.name, "reload"} & set(self.failures)]
        return {
            domain: describe_served(address, domain, self.now)
            for wanted in failed
            for domain in wanted.domains
        }

    def reload(self) -> None:
        """Has the web server read the certificates; forgets that it must only if it did."""
        argv = self.params["reload_argv"]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
            )
            said = "" if done.returncode == 0 else (done.stderr or done.stdout).strip()
            failed = done.returncode != 0
        except (OSError, subprocess.TimeoutExpired) as error:
            failed, said = True, str(error)
        if failed:
            self.failures["reload"] = (
                f"{' '.join(argv)} failed: {said or 'without a word'}. The certificates are in "
                "place, but the web server does not serve them before it reloads; the next run "
                "and the renewal timer try again."
            )
            return
        self.marker.unlink(missing_ok=True)

    def __call__(self) -> dict[str, Any]:
        for wanted in self.wanted:
            self.look(wanted)
            why = f"; obtained because {wanted.reason}" if wanted.reason else ""
            was = describe_link(wanted, self.placeholders)
            self.before.append(f"{wanted.name}: {was}{why if self.params['obtain'] else ''}")
        if self.params["ahead"]:
            # Before any link is made: what fails here has changed nothing.
            self.obtain_all([each for each in self.wanted if self.unproven(each)])
            if self.failures:
                return self.result([])
        for wanted in self.wanted:
            if not wanted.planned:
                self.connect(wanted)
        if not self.params["ahead"]:
            self.obtain_all(self.wanted)
        if self.params["reload_argv"] and self.marker.exists():
            self.done.append("web server: reload")
            if not self.module.check_mode:
                self.reload()
        listed = {wanted.name for wanted in self.wanted}
        unlisted = [name for name in link_targets(self.links) if name not in listed]
        self.warn(unlisted)
        return self.result(unlisted)

    def obtain_all(self, missing: list[Wanted]) -> None:
        """Gets what differs from what is wanted, and keeps account of what cannot be had."""
        if not self.params["obtain"]:
            return
        for wanted in missing:
            if not wanted.reason:
                continue
            if self.module.check_mode:
                wanted.planned = bool(self.params["ahead"])
                self.done.append(
                    f"{wanted.name}: obtain for {names(wanted)} from "
                    f"{self.params['directory_url']}, because {wanted.reason}"
                )
                continue
            try:
                self.obtain(wanted)
            except CertificateError as error:
                self.failures[wanted.name] = str(error)

    def warn(self, unlisted: list[str]) -> None:
        used = {link_target(wanted.link) for wanted in self.wanted}
        for name in unlisted:
            target = link_target(self.links / name)
            lineage = target.name if target and target.parent == self.configuration / "live" else ""
            remove = f"rm -rf {self.links / name} {self.kept / name}*"
            if lineage and target in used:
                state = (
                    f"{self.links / name} is left in place, another certificate has taken its place"
                )
            elif lineage and (self.configuration / "renewal" / f"{lineage}.conf").exists():
                state = "It is still renewed and is left in place"
                remove = f"certbot delete --cert-name {lineage} && {remove}"
            else:
                state = "It was never issued and is left in place"
            self.module.warn(
                f"Certificate {name!r} is no longer in certbot_certificates. {state}; once no web "
                f"server reads it: {remove}"
            )
        for wanted in self.wanted:
            if wanted.problem:
                self.module.warn(
                    f"certbot's certificate {wanted.name!r} is damaged ({wanted.problem}), and its "
                    "renewal fails. Another one serves in its place: certbot delete --cert-name "
                    f"{wanted.name}"
                )
        directory = Path(CRON_DIRECTORY)
        jobs = sorted(directory.iterdir()) if directory.is_dir() else []
        for path in other_renewers([*map(Path, CRON_FILES), *jobs]):
            self.module.warn(
                f"{path} runs certbot too. certbot.timer renews the certificates: remove the job, "
                "or each of them runs into the other."
            )

    def result(self, unlisted: list[str]) -> dict[str, Any]:
        after = [
            f"{wanted.name}: "
            + (
                f"{self.params['key_type']} for {names(wanted)}, new"
                if self.module.check_mode and self.params["obtain"] and wanted.reason
                else describe(wanted)
            )
            for wanted in self.wanted
        ]
        return {
            "changed": bool(self.done),
            "msg": "\n".join([*self.done, *(f"{k}: {v}" for k, v in self.failures.items())]),
            "actions": self.done,
            "certificates": {
                wanted.name: {
                    "serves": wanted.serves,
                    "reason": wanted.reason,
                    **facts(wanted.certificate),
                }
                for wanted in self.wanted
            },
            "pending": [each.name for each in self.wanted if each.reason and not each.planned],
            "reload_pending": self.marker.exists(),
            "unlisted": unlisted,
            "diff": {
                "before": "".join(f"{line}\n" for line in self.before),
                "after": "".join(f"{line}\n" for line in after),
            },
        }


def names(wanted: Wanted) -> str:
    return ", ".join(wanted.domains)


def facts(certificate: Certificate | None) -> dict[str, Any]:
    if certificate is None:
        return {}
    return {
        "domains": sorted(certificate.domains),
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "not_after": f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "key_type": certificate.key_type,
    }


def rank(source: Source, own: Source, current: Path | None) -> tuple[Any, ...]:
    """The better of two certificates comes last; of two that are as good, what is served already."""
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


def describe_link(wanted: Wanted, placeholders: Path) -> str:
    """What the link led to before, for the diff."""
    target = link_target(wanted.link)
    if target is None:
        return "nothing"
    if target.parent == placeholders:
        return "placeholder"
    return describe(wanted) if wanted.certificate else str(target)


def describe(wanted: Wanted) -> str:
    certificate = wanted.certificate
    if certificate is None or wanted.serves == "placeholder":
        return wanted.serves
    return (
        f"{certificate.key_type} for {', '.join(sorted(certificate.domains))}, "
        f"serial {certificate.serial}"
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificates": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "domains": {"type": "list", "elements": "str", "required": True},
                },
            },
            "obtain": {"type": "bool", "default": True},
            "ahead": {"type": "bool", "default": False},
            "serving_address": {"type": "str", "default": "127.0.0.1:443"},
            "links_directory": {"type": "path", "required": True},
            "challenge_directory": {"type": "path", "required": True},
            "directory_url": {"type": "str", "required": True},
            "email": {"type": "str", "default": ""},
            # Spelled out, or Ansible takes the name for a secret's.
            "key_type": {
                "type": "str",
                "choices": sorted(KEY_OPTIONS),
                "default": "ecdsa-p256",
                "no_log": False,
            },
            "probe": {"type": "bool", "default": True},
            "reload_argv": {"type": "list", "elements": "str", "default": []},
            "certbot": {"type": "str", "default": "certbot"},
            "configuration_directory": {"type": "path", "default": "/etc/letsencrypt"},
            "reload_marker": {"type": "path", "default": "/run/certbot/reload-pending"},
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY and not module.check_mode:
        module.fail_json(msg=missing_required_lib("cryptography"))
    run = Run(module)
    challenges = run.params["challenge_directory"] + "/.well-known/acme-challenge"
    try:
        # certbot writes there as root too, and gives what it writes the owner of what is above.
        for directory in (challenges, str(run.links), str(run.configuration)):
            require_own(directory, itself=True)
        result = run()
    except (CertificateError, ForeignPathError) as error:
        module.fail_json(msg=str(error))
    if run.failures:
        lines = [f"{name}: {text}" for name, text in run.failures.items()]
        obtained = [line for line in run.done if ": obtained for" in line]
        served = run.served()
        looked = [f"{domain} now serves {text}." for domain, text in served.items()]
        module.fail_json(
            **{**result, "msg": "\n".join([*lines, *looked, *obtained])},
            failures=run.failures,
            served=served,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    environment.apply()
    main()
