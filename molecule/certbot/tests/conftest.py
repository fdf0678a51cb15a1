"""What the tests of the certificates share: TLS from outside, and what a host should serve."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from testinfra.host import Host


@dataclass
class Web:
    """The web server of one host, asked at the host's address."""

    address: str
    authority: Path

    def connect(self, domain: str, *, trusted: bool = True) -> ssl.SSLSocket:
        """A TLS connection. Raises ssl.SSLError if the certificate is not the authority's."""
        if trusted:
            context = ssl.create_default_context(cafile=self.authority)
        else:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        raw = socket.create_connection((self.address, 443), 20)
        return context.wrap_socket(raw, server_hostname=domain)

    def certificate(self, domain: str, *, trusted: bool = True) -> x509.Certificate:
        """What the server shows for the name, by default only if the authority issued it."""
        with self.connect(domain, trusted=trusted) as connection:
            shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown)

    def replaced(self, domain: str, old: x509.Certificate, seconds: float = 10) -> None:
        """Waits until the server shows another certificate than the old one.

        nginx reloads in the background: its old workers take connections for a moment yet.
        """
        end = time.monotonic() + seconds
        while self.certificate(domain) == old:
            assert time.monotonic() < end, f"{domain} still shows the old certificate"
            time.sleep(0.1)

    def ask(self, connection: ssl.SSLSocket, domain: str) -> int:
        """The status of one request on a connection that stays open."""
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {domain}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(4096)
            if not part:
                raise ConnectionError("closed without an answer")
            answer += part
        return int(answer.split()[1])


@dataclass
class Load:
    """Opens a connection and asks, every 20 ms, until stopped; keeps what failed."""

    web: Web
    domain: str
    asked: int = 0
    bad: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.asked += 1
            try:
                with self.web.connect(self.domain) as connection:
                    status = self.web.ask(connection, self.domain)
                if status != 200:
                    self.bad.append(str(status))
            except OSError as error:
                self.bad.append(repr(error))
            time.sleep(0.02)


def certificates_of(name: str) -> list[dict[str, Any]]:
    """The certificates of a host, as molecule.yml has them: names and domains."""
    return [
        {"name": "shop", "domains": [f"shop.{name}.test", f"www.{name}.test"]},
        {"name": "mail", "domains": [f"mail.{name}.test"]},
    ]


@pytest.fixture(scope="module")
def variables(host: Host) -> dict[str, Any]:
    """The host's inventory variables, with the role's defaults where it has none."""
    defaults = {
        "certbot_install": "bundle",
        "certbot_key_type": "ecdsa-p256",
        "certbot_challenge_directory": "/var/www/acme-challenge",
        "certbot_links_directory": "/etc/ssl/sites",
        "certbot_renewal_calendar": "*-*-* 00,12:00:00",
        "certbot_renewal_jitter_seconds": 43200,
    }
    return {**defaults, **host.ansible.get_variables()}


@pytest.fixture(scope="module")
def certificates(variables: dict[str, Any]) -> list[dict[str, Any]]:
    return certificates_of(variables["inventory_hostname"])


@pytest.fixture(scope="module")
def web(address: str, acme: Any) -> Web:
    return Web(address, acme.root)


def names(certificate: x509.Certificate) -> set[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


def issuer(certificate: x509.Certificate) -> str:
    return certificate.issuer.rfc4514_string()
