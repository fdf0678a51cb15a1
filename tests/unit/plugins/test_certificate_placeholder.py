"""`wsgi.host.certificate`: what a web server starts with before there is a certificate."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    pairs,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import CertificateError
from certifying import DOMAINS, NOW, Host, names_of, write_pair


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_placeholder_is_there_before_the_web_server(host: Host) -> None:
    """nginx does not start without the file that its site names."""
    result = host.prepare()
    leaf = host.served()
    assert names_of(leaf) == set(DOMAINS)
    assert "Placeholder" in leaf.issuer.rfc4514_string()
    assert leaf.not_valid_after_utc > NOW + datetime.timedelta(days=3000)
    assert result["changed"]
    assert result["pending"] == ["shop"]
    assert host.asked() == []
    pairs.read_pair(host.links / "shop")


def test_the_placeholders_key_is_roots_alone(host: Host) -> None:
    host.prepare()
    target = (host.links / "shop").resolve()
    assert stat.S_IMODE((target / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700


def test_a_new_link_asks_for_no_reload(host: Host) -> None:
    """The web server may not even be installed."""
    assert not host.prepare()["reload_pending"]


def test_the_placeholder_stays_when_nothing_changes(host: Host) -> None:
    host.prepare()
    before = host.state()
    result = host.prepare()
    assert not result["changed"]
    assert host.state() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pair: (pair / "privkey.pem").unlink(),
        lambda pair: write_pair(pair, DOMAINS, stranger=True),
        lambda pair: write_pair(pair, DOMAINS, days=3),
        lambda pair: write_pair(pair, ["old.example.org"]),
        lambda pair: (pair / "fullchain.pem").write_text("nonsense"),
    ],
    ids=["key missing", "another key", "about to expire", "other names", "unreadable"],
)
def test_a_placeholder_that_does_not_serve_is_replaced(
    host: Host, spoil: Callable[[Path], Any]
) -> None:
    """A server that reads a broken pair refuses to start, all of its sites with it."""
    host.prepare()
    spoiled = (host.links / "shop").resolve()
    spoil(spoiled)
    result = host.prepare()
    assert result["changed"]
    assert result["reload_pending"]
    assert pairs.read_pair(host.links / "shop").domains == set(DOMAINS)
    assert not spoiled.exists()


def test_a_link_that_leads_nowhere_gets_a_placeholder(host: Host) -> None:
    """Somebody ran `certbot delete` while a site still reads the link."""
    host.links.mkdir()
    (host.links / "shop").symlink_to(host.configuration / "live" / "shop")
    result = host.prepare()
    assert result["certificates"]["shop"]["serves"] == "placeholder"
    assert names_of(host.served()) == set(DOMAINS)


def test_a_directory_in_the_links_place_is_refused(host: Host) -> None:
    """It may hold somebody's own certificate."""
    (host.links / "shop").mkdir(parents=True)
    with pytest.raises(CertificateError, match=r"sites/shop is not a symbolic link"):
        host.prepare()


def test_a_long_domain_fits(host: Host) -> None:
    """A common name holds 64 characters, a domain up to 253."""
    domain = f"{'a' * 60}.{'b' * 60}.example.org"
    host.prepare(("long", [domain]))
    assert names_of(host.served("long")) == {domain}
