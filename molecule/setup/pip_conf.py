#!/usr/bin/env python3
"""Prints a pip.conf for a test host, with the package index that this machine is configured for.

Of the settings only those are taken that mean something on another host: indexes that are reached
over the network, and hosts to trust. The authorities that this machine trusts are another file.
"""

from __future__ import annotations

import os
import sys

from ansible_collections.wsgi.host.plugins.action.bundle import pip_settings, uv_environment


def main(authorities: str) -> None:
    """Print it.

    Args:
        authorities: path, on the host, of the certificates to trust.
    """
    settings = pip_settings(dict(os.environ))
    told = uv_environment(dict(os.environ))
    index = settings.get("index-url") or told.get("UV_DEFAULT_INDEX") or told.get("UV_INDEX_URL")
    indexes = {"index-url": index or "", "extra-index-url": settings.get("extra-index-url", "")}
    print("[global]")
    print(f"cert = {authorities}")
    for key, value in indexes.items():
        if reachable := [url for url in value.split() if url.startswith("http")]:
            print(f"{key} = {' '.join(reachable)}")
    if trusted := settings.get("trusted-host"):
        print(f"trusted-host = {trusted}")


if __name__ == "__main__":
    main(sys.argv[1])
