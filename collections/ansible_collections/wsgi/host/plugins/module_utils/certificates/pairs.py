"""A certificate and its key in a directory: reading, checking and writing both, and placeholders.

Nothing else here imports cryptography, which a host has only once certbot is installed. Without it
(`HAS_CRYPTOGRAPHY`) no function of this module may be called, except `write_pair`.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost.times import UTC
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    Certificate,
    CertificateError,
    is_address,
)

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False


# Nothing renews a placeholder between two runs, and no client is meant to trust it: a long life
# does no harm, while an expired one would add a second error to the one that is expected.
PLACEHOLDER_DAYS = 3650
PLACEHOLDER_NAME = "Placeholder, not issued by any authority"


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
    """A public key as bytes that can be compared."""
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def parse(der: bytes) -> Any:
    """A certificate as a TLS handshake shows it."""
    return x509.load_der_x509_certificate(der)


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
    """The kind of a key, as `key_type` of the module names it."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384"}.get(
            key.curve.name, key.curve.name
        )
    if isinstance(key, rsa.RSAPrivateKey):
        return f"rsa-{key.key_size}"
    return type(key).__name__


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
    names = x509.SubjectAlternativeName(
        [
            x509.IPAddress(ipaddress.ip_address(domain))
            if is_address(domain)
            else x509.DNSName(domain)
            for domain in domains
        ]
    )
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
    """Whether this module made it, and not an authority."""
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
