"""What testssl.sh finds about TLS, on a running nginx with the role's configuration.

The protocols, the server's preferences and the known attacks, in about 20 s; all that it knows, on
both systems, is in tests/proof/nginx_checks.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .test_nginx_refusals import (
    NAME,
    Nginx,
    certificate,
    default,
    installed_version,
    lay_out,
    nginx,
    nginx_program,
)

__all__ = ["certificate", "default", "installed_version", "lay_out", "nginx", "nginx_program"]

# Severities of what is as it should be. Any other needs a reason, a check that failed too (WARN).
GOOD = {"OK", "INFO"}
# Findings that stay; the reasons are in docs/decisions/0075.
REASONS = {
    "BREACH": "pages are compressed",
    "cipher_order": "each client knows best which of the suites it has hardware for",
    "engine_problem": "GOST's suites are not among ours",
}
# Some that have to be looked at, or a check that is broken off would find nothing and pass.
LOOKED_AT = {
    *("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "ALPN_HTTP2", "heartbleed", "CCS"),
    *("ticketbleed", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS", "POODLE_SSL"),
    *("SWEET32", "FREAK", "LOGJAM", "BEAST", "LUCKY13", "RC4"),
}


def by_testssl(url: str, output: Path) -> dict[str, tuple[str, str]]:
    """What it finds at an address of this machine: severity and text, by the name of the check."""
    program = shutil.which("testssl")
    if not program:
        pytest.fail("This test needs testssl.sh, which `make bootstrap` installs.")
    subprocess.run(
        [
            *(program, "--quiet", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1"),
            *("--protocols", "--server-preference", "--vulnerable", "--jsonfile", output, url),
        ],
        check=False,
        capture_output=True,
        env={**os.environ, "TERM": "dumb"},
    )
    found = json.loads(output.read_text())
    return {each["id"].split()[0]: (each["severity"], each["finding"]) for each in found}


@pytest.mark.parametrize("default", [True], indirect=True)
def test_others_find_nothing_about_tls(nginx: Nginx, tmp_path: Path) -> None:
    """What this project thinks of its profile is worth little; this is what an auditor runs."""
    # Long enough to be compressed.
    (nginx.directory / "downloads/page.html").write_text("<p>text</p>\n" * 1000)
    url = f"https://{NAME}:{nginx.https}/downloads/page.html"
    found = by_testssl(url, tmp_path / "testssl.json")
    assert set(found) >= LOOKED_AT
    bad = {name: each for name, each in found.items() if each[0] not in GOOD}
    assert set(bad) == set(REASONS), bad
