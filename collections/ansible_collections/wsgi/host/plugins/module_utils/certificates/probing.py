"""The probe: fetches each name's challenge path as the authority would, before that is asked."""

from __future__ import annotations

import os
import secrets
import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.wsgi.host.plugins.module_utils.apphost.http import (
    Deadline,
    NoAnswerError,
    get,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import CertificateError

# HTTP-01 knows no other port.
HTTP_PORT = 80
PROBE_TIMEOUT_SECONDS = 10
# As many as Let's Encrypt follows.
PROBE_REDIRECTS = 10


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
    url = f"http://{authority_of(domain)}{path}"
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


def authority_of(domain: str) -> str:
    """The domain or address as it stands in a URL."""
    return f"[{domain}]" if ":" in domain else domain


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
        where = "" if answer.url == f"http://{authority_of(domain)}{path}" else f" at {answer.url}"
        wrong.append(f"{address} answered {answer.status} {what} ({answer.server}{where})")
    if wrong:
        return (
            f"{domain}: {'; '.join(wrong)}",
            "Either the name's record points to another host, or the web server does not serve "
            f"{challenge_directory} at /.well-known/acme-challenge/ on port 80 for the name. Hosts "
            "that share a name fetch challenges from each other once a run has gone through all of "
            "them.",
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
