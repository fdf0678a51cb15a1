#!/usr/bin/env python3
"""Packs what goes to a server: the project, and how the package index is reached.

    pack.py ARCHIVE ACME_CA

The archive is unpacked in /root. Of this machine's settings for pip and uv only those are taken
that mean something on another host: indexes that are reached over the network, hosts to trust, and
the certificate authorities.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

from ansible_collections.wsgi.host.plugins.plugin_utils.wheels import pip_settings, uv_environment

PROJECT = Path(__file__).resolve().parents[2]
# What is made here, and what belongs to this machine alone.
LEFT_OUT = {".git", ".venv", ".cache", ".ansible", "__pycache__", "node_modules", "instance"}
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
AUTHORITIES = "/root/index-authorities.pem"


def pip_conf() -> str:
    """A pip.conf for a server, with the package index that this machine is configured for."""
    settings = pip_settings(dict(os.environ))
    told = uv_environment(dict(os.environ))
    index = settings.get("index-url") or told.get("UV_DEFAULT_INDEX") or told.get("UV_INDEX_URL")
    lines = ["[global]", f"cert = {AUTHORITIES}"]
    for key, value in (
        ("index-url", index or ""),
        ("extra-index-url", settings.get("extra-index-url", "")),
    ):
        if reached := [url for url in value.split() if url.startswith("http")]:
            lines.append(f"{key} = {' '.join(reached)}")
    if trusted := settings.get("trusted-host"):
        lines.append(f"trusted-host = {trusted}")
    return "\n".join(lines) + "\n"


def authorities() -> bytes:
    """The certificates that this machine trusts when it asks the index."""
    told = uv_environment(dict(os.environ)).get("SSL_CERT_FILE")
    return Path(told or SYSTEM_AUTHORITIES).read_bytes()


def project_file(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """A member of the archive, unless it stays here."""
    name = Path(member.name).name
    return None if name in LEFT_OUT or name.endswith("_cache") else member


def main(archive: str, acme_ca: str) -> None:
    """Write the archive."""
    files = {
        "pip.conf": pip_conf().encode(),
        "index-authorities.pem": authorities(),
        "acme-ca.pem": Path(acme_ca).read_bytes(),
    }
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(PROJECT, "toll-app", filter=project_file)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            packed.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
