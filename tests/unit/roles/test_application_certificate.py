"""What the certificate of the site is called: one name for each set of domains."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from conftest import trusted

from .describing import shop
from .render import ROLES, evaluate

APP, SHOP, WWW = "app.example.com", "shop.example.com", "www.example.com"


def name(*domains: str) -> str:
    told = trusted(shop(domains=list(domains)))
    found: Any = evaluate("application", "__application_entry.certificate_name", "Debian", **told)
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
    told = trusted(shop(domains=[WWW, APP]))
    found = evaluate("application", "__application_descriptions", "Debian", **told)
    ((wanted,), (site,)) = found["certificates"], found["sites"]
    directory = f"/etc/ssl/sites/{wanted['name']}"
    assert site["certificate"] == f"{directory}/fullchain.pem"
    assert site["certificate_key"] == f"{directory}/privkey.pem"
    assert wanted["domains"] == site["domains"] == [WWW, APP]
    entry = evaluate("application", "__application_entry", "Debian", **told)
    assert entry["certificate"] == site["certificate"]


def test_each_application_has_a_certificate_and_a_site() -> None:
    told = trusted(
        {
            "applications": {
                **shop(domains=[SHOP])["applications"],
                "blog": {"source": "app", "domains": [APP, WWW]},
            }
        }
    )
    found = evaluate("application", "__application_descriptions", "Debian", **told)
    assert [each["domains"] for each in found["certificates"]] == [[SHOP], [APP, WWW]]
    assert [each["name"] for each in found["sites"]] == ["shop", "blog"]
    assert found["certificates"][1]["name"] == name(WWW, APP)


def test_what_is_kept_for_everybody_goes_with_its_release() -> None:
    """Where the handover says so; only a description that asks for a cache has one."""
    told = trusted(
        {
            "applications": {
                **shop(domains=[SHOP])["applications"],
                "blog": {
                    "source": "app",
                    "domains": [APP],
                    "site": {"cache": {"locations": ["/news"]}},
                },
            }
        }
    )
    found = evaluate("application", "__application_descriptions", "Debian", **told)
    assert [each.get("cache") for each in found["sites"]] == [
        None,
        {"locations": ["/news"], "key_path": "/opt/blog/cache-key"},
    ]


def test_a_certificate_that_is_brought_along_is_served_and_not_obtained() -> None:
    """Its end is what is watched, and not that of a file which nobody renews."""
    own = {"certificate": "/etc/ssl/own.pem", "certificate_key": "/etc/ssl/private/own.pem"}
    applications = {
        "shop": {"source": "app", "domains": [SHOP], "site": own},
        "blog": {"source": "app", "domains": [APP]},
    }
    told = trusted({"applications": applications})
    found = evaluate("application", "__application_descriptions", "Debian", **told)
    assert [each["domains"] for each in found["certificates"]] == [[APP]]
    assert found["origins"]["certbot_certificates[0]"] == "applications.blog.domains"
    assert "certbot_certificates[1]" not in found["origins"]
    assert found["sites"][0]["certificate"] == own["certificate"]
    assert found["sites"][0]["certificate_key"] == own["certificate_key"]
    assert found["applications"]["shop"]["certificate"] == own["certificate"]


@pytest.mark.parametrize(
    ("health", "paths"),
    [
        ({}, ["/"]),
        ({"path": "/readyz", "live_path": "/healthz"}, ["/healthz", "/readyz"]),
        ({"path": "/health/?full=1"}, ["/health/"]),
        ({"path": "/a%20b"}, ["/a b"]),
    ],
)
def test_nginx_knows_the_health_checks(health: dict[str, str], paths: list[str]) -> None:
    """Whatever else a person says of the site, or a drained host would never be left alone."""
    more = {"maintenance_open": ["/status"], "health_paths": ["/up"]}
    described = {"source": "app", "domains": [APP], "health": health, "site": more}
    told = trusted({"applications": {"blog": described}})
    (site,) = evaluate("application", "__application_descriptions", "Debian", **told)["sites"]
    assert (site["maintenance_open"], site["health_paths"]) == (["/status"], ["/up", *paths])


def test_the_authority_is_asked_for_what_nginx_shows() -> None:
    """Where nginx listens."""
    [task] = yaml.safe_load((ROLES / "application/tasks/certbot.yml").read_text())
    variables = {**trusted(shop(domains=[WWW, APP])), "nginx_https_port": 8443}
    for key, expected in (
        ("certbot_certificates", [{"name": name(APP, WWW), "domains": [WWW, APP]}]),
        ("certbot_serving_address", "127.0.0.1:8443"),
    ):
        given = evaluate(
            *("application", "given", "Debian"),
            given=trust_as_template(task["vars"][key]),
            **variables,
        )
        assert given == expected
