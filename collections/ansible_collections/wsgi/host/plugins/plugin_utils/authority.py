"""The authorities of a fleet's database, whose keys and certificates follow from a secret.

Nothing of them is kept anywhere: who has the secret makes the same again, byte for byte. One says
who the database is, to its clients; the other who belongs to its cluster, to the members. See
docs/decisions/0071 and 0080.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .databases import LOOPBACK, derived

# The order of the curve P-256: SEC 2, version 2, section 2.4.2.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BEGIN = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
# The authority goes when the secret does.
END = datetime.datetime(2125, 1, 1, tzinfo=datetime.UTC)
# A certificate lives for three of them, and the next run after two of them brings a new one.
THIRD = datetime.timedelta(days=365)
# The clock of a host may be behind.
EARLY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """Who signs: what its key follows from, and its name."""

    purpose: str
    title: str


DATABASE = Authority("authority", "Database authority of wsgi.host")
MEMBERS = Authority("authority of members", "Authority of a database's members, of wsgi.host")


def authority(secret: str, of: Authority = DATABASE) -> str:
    """The certificate that the others trust, as PEM."""
    key, name = _key(secret, of.purpose), _name(of.title)
    return _pem(_signed(secret, of.purpose, name, name, key, key, BEGIN, END, _of_an_authority))


def certificate(secret: str, address: str, now: datetime.datetime) -> tuple[str, str]:
    """Certificate and key of the server at an address, as PEM, which stay the same for years."""
    return _issued(secret, DATABASE, f"server {address}", [address], now, _SERVER)


def member_certificate(secret: str, address: str, now: datetime.datetime) -> tuple[str, str]:
    """Certificate and key of a cluster's member, as PEM, which asks others and is asked by them.

    It is asked on the loopback too, by what watches the host.
    """
    names = [address, LOOPBACK]
    return _issued(secret, MEMBERS, f"member {address}", names, now, [*_SERVER, *_CLIENT])


def number_of(now: datetime.datetime) -> int:
    """Which of the certificates that follow one another is due at a moment, from 0."""
    return (now - BEGIN) // (2 * THIRD)


_SERVER = [ExtendedKeyUsageOID.SERVER_AUTH]
_CLIENT = [ExtendedKeyUsageOID.CLIENT_AUTH]


def _issued(
    secret: str,
    by: Authority,
    purpose: str,
    addresses: list[str],
    now: datetime.datetime,
    usages: Iterable[x509.ObjectIdentifier],
) -> tuple[str, str]:
    number = number_of(now)
    begin = BEGIN + number * 2 * THIRD
    purpose = f"{purpose} {number}"
    key, signer = _key(secret, purpose), _key(secret, by.purpose)

    def extended(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        )
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        return (
            builder.add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(above, critical=False)
        )

    made = _signed(
        secret,
        purpose,
        # libpq before version 15 looks for an address there.
        _name(addresses[0]),
        _name(by.title),
        key,
        signer,
        begin - EARLY,
        begin + 3 * THIRD,
        extended,
    )
    written = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return _pem(made), written.decode()


def _key(secret: str, purpose: str) -> ec.EllipticCurvePrivateKey:
    # 512 bits, so that no number is likelier than another after the division.
    number = int.from_bytes(
        derived(secret, f"key {purpose} 1") + derived(secret, f"key {purpose} 2"), "big"
    )
    return ec.derive_private_key(number % (ORDER - 1) + 1, ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _of_an_authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    ).add_extension(_usage(key_cert_sign=True), critical=True)


def _signed(
    secret: str,
    purpose: str,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    begin: datetime.datetime,
    end: datetime.datetime,
    extended: Callable[[x509.CertificateBuilder], x509.CertificateBuilder],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        # RFC 5280, section 4.1.2.2: positive, and 20 octets at most.
        .serial_number(int.from_bytes(derived(secret, f"serial {purpose}")[:16], "big") + 1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    # RFC 6979: the same every time, so that a run with nothing to do has nothing to do.
    return extended(builder).sign(signer, hashes.SHA256(), ecdsa_deterministic=True)


def _pem(made: x509.Certificate) -> str:
    return made.public_bytes(serialization.Encoding.PEM).decode()
