"""`wsgi.host.certificate`: check mode, and what a call reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    certbot,
    pairs,
)
from certifying import AUTHORITY, DOMAINS, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("library", [True, False], ids=["with", "without cryptography"])
def test_check_mode_on_a_bare_host(host: Host, monkeypatch: Any, library: bool) -> None:
    """Says what it would do, with nothing installed, and does nothing."""
    monkeypatch.setattr(pairs, "HAS_CRYPTOGRAPHY", library)
    host.check_mode = True
    before = host.state()
    prepared = host.prepare()
    result = host.run()
    assert prepared["changed"]
    assert prepared["pending"] == ["shop"]
    assert any(
        action == f"shop: obtain for {', '.join(DOMAINS)} from {AUTHORITY}, because there is none "
        "yet"
        for action in result["actions"]
    )
    assert host.state() == before
    assert result["diff"]["after"] == f"shop: ecdsa-p256 for {', '.join(DOMAINS)}, new\n"


@pytest.mark.parametrize("library", [True, False], ids=["with", "without cryptography"])
def test_check_mode_after_a_run_finds_nothing(host: Host, monkeypatch: Any, library: bool) -> None:
    host.issue()
    host.run()
    monkeypatch.setattr(pairs, "HAS_CRYPTOGRAPHY", library)
    host.check_mode = True
    assert not host.prepare()["changed"]
    assert not host.run()["changed"]


def test_no_key_in_the_result(host: Host) -> None:
    """Results end in logs, and diffs in terminals."""
    host.prepare()
    host.issue()
    result = host.run()
    said = json.dumps(result)
    assert "PRIVATE KEY" not in said
    body = (host.links / "shop" / "privkey.pem").read_text().splitlines()[1]
    assert body not in said


def test_a_certificate_off_the_list_is_reported_and_left(host: Host) -> None:
    host.lineage()
    host.lineage("old", ["old.example.org"])
    host.prepare(("old", ["old.example.org"]), ("shop", DOMAINS))
    result = host.run()
    assert result["unlisted"] == ["old"]
    assert "certbot delete --cert-name old" in host.warnings[0]
    assert not result["changed"]
    assert pairs.read_pair(host.links / "old").domains == {"old.example.org"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("0 */12 * * * root certbot -q renew\n", True),
        ("# 0 */12 * * * root certbot -q renew\n", False),
        # The job of Debian's package, which does nothing where systemd runs.
        (
            "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && "
            "certbot -q renew --no-random-sleep-on-renew\n",
            False,
        ),
        ("17 * * * * root run-parts /etc/cron.hourly\n", False),
    ],
    ids=["job", "comment", "package", "other"],
)
def test_a_second_renewer_is_warned_of(
    host: Host, monkeypatch: Any, line: str, found: bool
) -> None:
    crontab = host.root / "crontab"
    crontab.write_text(line)
    monkeypatch.setattr(certbot, "CRON_FILES", (str(crontab),))
    monkeypatch.setattr(certbot, "CRON_DIRECTORY", str(host.root / "nowhere"))
    host.prepare()
    assert any(str(crontab) in warning for warning in host.warnings) is found
