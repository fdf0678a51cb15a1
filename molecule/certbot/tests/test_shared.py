"""A name that leads to several hosts: each has a certificate of its own, and can renew it."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Web, names

SHARED = "both.test"
PATH = "/.well-known/acme-challenge/"


@pytest.fixture
def others(as_root: Callable[[str], str], web: Web) -> list[str]:
    """Addresses of the other hosts, as the name leads to them."""
    found = {line.split()[0] for line in as_root(f"getent ahostsv4 {SHARED}").splitlines()}
    # Without this the others would not be asked, and the tests would prove nothing.
    assert len(found) == 2
    assert web.address in found
    return sorted(found - {web.address})


def test_each_host_has_a_certificate_for_the_name(web: Web, others: list[str], acme: Any) -> None:
    """With a key that no other host has: none has travelled."""
    shown = web.certificate(SHARED)
    assert names(shown) == {SHARED}
    for address in others:
        other = Web(address, acme.root).certificate(SHARED)
        assert other.public_key().public_numbers() != shown.public_key().public_numbers()


def test_an_answer_is_found_whichever_host_is_asked(
    web: Web, others: list[str], variables: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    directory = variables.get("certbot_challenge_directory", "/var/www/acme-challenge") + PATH
    token = f"of-{variables['inventory_hostname']}"
    as_root(f"mkdir -p {directory} && echo {token} > {directory}{token}")
    try:
        for address in (web.address, *others):
            with urllib.request.urlopen(f"http://{address}{PATH}{token}", timeout=20) as answer:
                assert answer.read().decode().strip() == token
    finally:
        as_root(f"rm {directory}{token}")


def test_each_host_renews_by_itself(
    web: Web, others: list[str], acme: Any, as_root: Callable[[str], str]
) -> None:
    """By the unit of the timer, without the control node; nothing changes on the other hosts."""
    mine = web.certificate(SHARED)
    theirs = [Web(address, acme.root).certificate(SHARED) for address in others]
    settings = "/etc/letsencrypt/renewal/both.conf"
    as_root(f"sed -i -e '1i renew_before_expiry = 100 years' -e /renew_before_expiry/d {settings}")
    try:
        as_root("systemctl reset-failed certbot.service; systemctl start certbot.service")
    finally:
        as_root(f"sed -i /renew_before_expiry/d {settings}")
    web.replaced(SHARED, mine)
    assert [Web(address, acme.root).certificate(SHARED) for address in others] == theirs
