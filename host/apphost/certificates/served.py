"""What the web server shows under each name, in a TLS handshake, and what is wrong with that."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .settings import Entry, Settings
from .textfile import Gauge

HANDSHAKE_SECONDS = 10.0
AT_ONCE = 8
# nginx answers with its old workers for a moment after a reload.
RELOAD_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 0.5
# Of OpenSSL; Python has no names for all of them on 3.9.
NO_CHECK_TIME = 0x200000
PARTIAL_CHAIN = 0x80000
STRICT = 0x20
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
# What a name under a wildcard is asked for.
SOME_NAME = "certificate-watch"

# Each is told apart, since each has another remedy: docs/OPERATIONS.md.
FAULTS = (
    *("unreachable", "refused", "wrong-chain", "wrong-name"),
    *("not-yet-valid", "expired", "soon", "stale"),
)


@dataclass(frozen=True)
class Fault:
    """What is wrong under a name: one of FAULTS, and in words what was seen."""

    kind: str
    text: str


@dataclass
class Seen:
    """What a name shows. `begins` and `ends` are seconds since the epoch, 0 if not known."""

    entry: Entry
    domain: str
    faults: list[Fault]
    begins: float = 0
    ends: float = 0


def look_at_all(settings: Settings, now: float) -> list[Seen]:
    """What each name shows."""
    names = [
        (entry, domain) for entry in settings.entries if entry.address for domain in entry.domains
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda each: look(each[0], each[1], settings, now), names))


def look(entry: Entry, domain: str, settings: Settings, now: float) -> Seen:
    """What one name shows, and every fault of it."""
    seen = Seen(entry, domain, [])
    name = domain.replace("*", SOME_NAME, 1)
    try:
        try:
            leaf, told = handshake(entry.address, name, anchored(entry, settings.authority))
        except ssl.SSLCertVerificationError as error:
            leaf, told = without_trust(entry.address, name)
            text = f"{issuer(told)} is not trusted: {error.verify_message}"
            seen.faults.append(Fault("wrong-chain", text))
    except ssl.SSLError as error:
        seen.faults.append(Fault("refused", f"the web server refuses it: {error.reason or error}"))
        return seen
    except OSError as error:
        text = f"no answer at {entry.address}: {error.strerror or error}"
        seen.faults.append(Fault("unreachable", text))
        return seen
    seen.faults += list(of_time(seen, told, settings.percent, now))
    covered = {spelled(value) for _, value in told.get("subjectAltName", ())}
    if not {spelled(name), f"*.{name.lower().partition('.')[2]}"} & covered:
        seen.faults.append(Fault("wrong-name", f"it is for {', '.join(sorted(covered))}"))
    if is_stale(entry, leaf):
        seen.faults.append(Fault("stale", f"it is not the one in {entry.file}"))
    return seen


def of_time(seen: Seen, told: dict[str, Any], percent: float, now: float) -> Iterator[Fault]:
    """What is wrong with a certificate today, which another clock would say otherwise."""
    if not told:
        return
    seen.begins = ssl.cert_time_to_seconds(told["notBefore"])
    seen.ends = ssl.cert_time_to_seconds(told["notAfter"])
    clock = f"and this host's clock says {written(now)}"
    if seen.begins > now:
        yield Fault("not-yet-valid", f"it begins at {written(seen.begins)}, {clock}")
    elif seen.ends <= now:
        yield Fault("expired", f"it ended at {written(seen.ends)}, {clock}")
    elif seen.ends - now < (seen.ends - seen.begins) * percent / 100:
        left = (seen.ends - now) / 86400
        yield Fault("soon", f"it ends at {written(seen.ends)}, in {left:.1f} days")


def spelled(name: str) -> str:
    """A name or an address in one of its spellings: Python shows 2001:DB8:0:0:0:0:0:1."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.lower()


def handshake(
    address: str, name: str, context: ssl.SSLContext, patience: float = HANDSHAKE_SECONDS
) -> tuple[bytes, dict[str, Any]]:
    """The certificate (DER) that is shown, and what it says. Raises OSError, ssl.SSLError."""
    host, _, port = address.rpartition(":")
    place = (host.strip("[]"), int(port))
    with socket.create_connection(place, patience) as raw:
        with context.wrap_socket(raw, server_hostname=name) as connection:
            leaf = connection.getpeercert(binary_form=True) or b""
            return leaf, connection.getpeercert() or {}


def without_trust(address: str, name: str) -> tuple[bytes, dict[str, Any]]:
    """The same for a certificate whose issuer is unknown: Python only says what a trusted one says.

    So the certificate itself is trusted, in a second handshake.
    """
    leaf, _ = handshake(address, name, blind())
    context = trusting(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(leaf))
    try:
        return handshake(address, name, context)
    except ssl.SSLCertVerificationError:
        # No certificate of a server's, or another one by now.
        return leaf, {}


def blind() -> ssl.SSLContext:
    """Trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting(context: ssl.SSLContext) -> ssl.SSLContext:
    """Names and times are judged apart from the chain, since OpenSSL names one fault only."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    flags = context.verify_flags | NO_CHECK_TIME | PARTIAL_CHAIN
    context.verify_flags = ssl.VerifyFlags(flags & ~STRICT)
    return context


def anchored(entry: Entry, authority: str) -> ssl.SSLContext:
    """Trusts whom the clients of a certificate trust."""
    if entry.trust == "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blocks = certificates(entry.file)
        if blocks:
            context.load_verify_locations(cadata="".join(blocks))
        return trusting(context)
    context = trusting(ssl.create_default_context())
    more = certificates(authority)
    if entry.trust == "chain":
        more += certificates(entry.file)[1:]
    if more:
        context.load_verify_locations(cadata="".join(more))
    return context


def certificates(path: str) -> list[str]:
    """The certificates (PEM) in a file; none where it cannot be read."""
    try:
        return PEM.findall(Path(path).read_text(encoding="ascii", errors="replace"))
    except OSError:
        return []


def is_stale(entry: Entry, leaf: bytes) -> bool:
    """Whether the web server shows another certificate than the file that it is to read has."""
    blocks = certificates(entry.file)
    return bool(blocks) and ssl.PEM_cert_to_DER_cert(blocks[0]) != leaf


def issuer(told: dict[str, Any]) -> str:
    """Who signed a certificate, in words."""
    parts = dict(pair for group in told.get("issuer", ()) for pair in group)
    return str(parts.get("commonName") or parts.get("organizationName") or "its issuer")


def compare(settings: Settings) -> list[str]:
    """Names that do not show what their file has, in words; some seconds after a reload."""
    deadline = time.monotonic() + RELOAD_SECONDS
    left = [
        (entry, domain)
        for entry in settings.entries
        if entry.address and entry.file
        for domain in entry.domains
    ]
    while True:
        said = []
        for entry, domain in list(left):
            try:
                name = domain.replace("*", SOME_NAME, 1)
                stale = is_stale(entry, handshake(entry.address, name, blind())[0])
                text = f"{domain} does not show the certificate in {entry.file}"
            except OSError as error:
                stale, text = True, f"{domain} shows no certificate: {error}"
            if stale:
                said.append(text)
            else:
                left.remove((entry, domain))
        if not left or time.monotonic() > deadline:
            return said
        time.sleep(LOOK_AGAIN_SECONDS)


def gauges(seen: list[Seen], now: float) -> Iterator[Gauge]:
    """The same for Prometheus."""
    about = "When the certificates that are served were last looked at."
    yield Gauge("certificate_watch_timestamp_seconds", about, now)
    for each in seen:
        # As an address has it that somebody asks for.
        labels = {"certificate": each.entry.name, "domain": each.domain.lower()}
        kinds = {fault.kind for fault in each.faults}
        for kind in FAULTS:
            about = "Whether the certificate that is served has this fault."
            value = float(kind in kinds)
            yield Gauge("certificate_served_fault", about, value, {**labels, "fault": kind})
        if each.ends:
            about = "When the certificate that is served ends."
            yield Gauge("certificate_served_not_after_timestamp_seconds", about, each.ends, labels)
            about = "How long the certificate that is served is good in all."
            lifetime = each.ends - each.begins
            yield Gauge("certificate_served_lifetime_seconds", about, lifetime, labels)


def written(seconds: float) -> str:
    """A time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
