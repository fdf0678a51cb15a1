"""What the certificate of the site is called: one name for each set of domains."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template

from .render import ROLES, evaluate

APP, SHOP, WWW = "app.example.com", "shop.example.com", "www.example.com"


def name(*domains: str) -> str:
    found: Any = evaluate(
        "toll_app", "__toll_app_certificate_name", "Debian", toll_app_domains=list(domains)
    )
    return str(found)


def test_the_order_of_the_domains_does_not_matter() -> None:
    """Nor do capital letters: the site would move to a path without a certificate."""
    orders = {name(*order) for order in itertools.permutations([APP, SHOP, WWW])}
    assert len(orders) == 1
    assert name(APP.upper(), WWW) == name(WWW, APP)


def test_other_domains_have_another_certificate() -> None:
    """The one that is served stays as it is while the next one is obtained."""
    sets = [(APP,), (WWW,), (APP, WWW), (APP, SHOP), (SHOP, WWW), (APP, SHOP, WWW)]
    assert len({name(*each) for each in sets}) == len(sets)
    assert name(APP) == APP


def test_the_name_fits_a_file_name() -> None:
    """A domain may have 253 characters, a file name 255."""
    long = ".".join(["a" * 60] * 4)
    assert len(name(long, WWW)) < 240


def test_the_site_reads_what_certbot_is_asked_for() -> None:
    domains = {"toll_app_domains": [WWW, APP]}
    (wanted,) = evaluate("toll_app", "__toll_app_certificates", "Debian", **domains)
    path = evaluate("toll_app", "__toll_app_certificate", "Debian", **domains)
    assert path == f"/etc/ssl/sites/{wanted['name']}"
    assert wanted["domains"] == [WWW, APP]


@pytest.mark.parametrize("file", ["main.yml", "certificate.yml"])
def test_each_way_to_a_certificate_asks_for_the_same(file: str) -> None:
    """playbooks/certificate.yml obtains what site.yml will look for, where nginx listens."""
    tasks = yaml.safe_load((ROLES / "toll_app" / "tasks" / file).read_text())
    (first, *_) = [
        task["vars"]
        for task in tasks
        if task.get("ansible.builtin.import_role", {}).get("name") == "certbot"
    ]
    variables = {"toll_app_domains": [WWW, APP], "nginx_https_port": 8443}
    for key, expected in (
        ("certbot_certificates", [{"name": name(APP, WWW), "domains": [WWW, APP]}]),
        ("certbot_serving_address", "127.0.0.1:8443"),
    ):
        given = evaluate(
            "toll_app", "given", "Debian", given=trust_as_template(first[key]), **variables
        )
        assert given == expected
