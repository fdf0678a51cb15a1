"""What the role says of a host's certificates, from one JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One certificate that a web server shows.

    Attributes:
        name: of the certificate.
        domains: names that it is shown under.
        address: where the web server answers, `<host>:<port>`; empty if it cannot be asked.
        file: the chain that it reads; empty if that is not known.
        trust: `system`, as clients do; `chain`, whoever signed the file; `none`, whoever it is.
    """

    name: str
    domains: tuple[str, ...]
    address: str
    file: str
    trust: str


@dataclass(frozen=True)
class Settings:
    """What the programs are told.

    Attributes:
        entries: what is watched.
        authority: file with more CA certificates to trust; empty for none.
        percent: of its lifetime, below which a certificate ends soon.
        certbot: the program.
        configuration: certbot's directory.
        state: directory of what is remembered between two runs.
        metrics: directory of node_exporter's text files.
    """

    entries: tuple[Entry, ...]
    authority: str
    percent: float
    certbot: str
    configuration: Path
    state: Path
    metrics: Path


def read(path: Path) -> Settings:
    """The settings in a file. Raises OSError, ValueError or KeyError where they are not there."""
    told: dict[str, Any] = json.loads(path.read_bytes())
    entries = tuple(
        Entry(
            name=each["name"],
            domains=tuple(each["domains"]),
            address=each["address"],
            file=each["file"],
            trust=each["trust"],
        )
        for each in told["certificates"]
    )
    return Settings(
        entries=entries,
        authority=told["authority"],
        percent=float(told["percent"]),
        certbot=told["certbot"],
        configuration=Path(told["configuration"]),
        state=Path(told["state"]),
        metrics=Path(told["metrics"]),
    )


def forget(path: Path, names: Sequence[str]) -> bool:
    """Look at these certificates no more; returns whether one of them was looked at.

    Raises OSError, ValueError or KeyError where the settings are not there.
    """
    told: dict[str, Any] = json.loads(path.read_bytes())
    left = [each for each in told["certificates"] if each["name"] not in names]
    if left == told["certificates"]:
        return False
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps({**told, "certificates": left}, indent=4, sort_keys=True) + "\n")
    new.chmod(path.stat().st_mode & 0o777)
    new.replace(path)
    return True
