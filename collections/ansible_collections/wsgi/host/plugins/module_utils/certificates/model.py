"""The terms: what is wanted, what there is, and what a link could lead to."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path


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

    `problem` is why certbot could not even read it, `obstacle` why it could not renew it.
    `webroots` is the directory of each name's challenges; that of "" is for all other names.
    """

    settings: dict[str, str] = field(default_factory=dict)
    webroots: dict[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    problem: str = ""
    obstacle: str = ""


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

    @property
    def source_file(self) -> Path:
        """The chain that serves, or would."""
        return (self.source.path if self.source else self.link) / "fullchain.pem"


def is_address(domain: str) -> bool:
    """Whether it is an IP address, which certificates have as another kind of name."""
    try:
        ipaddress.ip_address(domain)
    except ValueError:
        return False
    return True


def names(wanted: Wanted) -> str:
    """The domains of a certificate, as one text."""
    return ", ".join(wanted.domains)
