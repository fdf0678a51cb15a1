"""Further runs of the play: nothing to do, another name, and an authority that refuses.

The runs happen once, on all hosts side by side; the tests then look at what each host served.
"""

from __future__ import annotations

import os
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from conftest import Web, certificates_of, issuer, names
from cryptography import x509

NOWHERE = "nowhere.invalid"
# The first certificate gets a name more, and one comes that cannot be had.
CHANGED = """{{
  [{'name': 'lost', 'domains': ['nowhere.invalid']},
   test_certificates[0] | combine({'domains': test_certificates[0].domains
                                              + ['new.' ~ inventory_hostname ~ '.test']})]
  + test_certificates[1:]
}}"""

Served = dict[str, x509.Certificate]


@dataclass
class Step:
    """One run of the play, and what each host served after it, by host and domain."""

    said: str
    stats: dict[str, dict[str, int]]
    served: dict[str, Served] = field(default_factory=dict)


@pytest.fixture(scope="module")
def steps(request: pytest.FixtureRequest) -> dict[str, Step]:
    """The runs, in order."""
    if not hasattr(request.session, "certbot_steps"):
        # Each host is to fail for itself.
        with mock.patch.dict(os.environ, ANSIBLE_ANY_ERRORS_FATAL="false"):
            request.session.certbot_steps = take(  # type: ignore[attr-defined]
                request.getfixturevalue("control"), request.getfixturevalue("acme")
            )
    return request.session.certbot_steps  # type: ignore[attr-defined]


def take(control: Any, acme: Any) -> dict[str, Step]:
    inventory: dict[str, Any] = {}
    for path in Path(control.inventory).glob("*.yml"):
        inventory |= (yaml.safe_load(path.read_text()) or {}).get("all", {}).get("hosts") or {}
    addresses = {
        name: values["ansible_host"]
        for name, values in inventory.items()
        if not name.startswith("acme")
    }

    def step(*groups: str, **variables: Any) -> Step:
        # A run ends with the first play whose hosts have all failed, so that each play gets one.
        with ThreadPoolExecutor() as pool:
            runs = list(
                pool.map(
                    lambda group: control.run_playbook(variables=variables, limit=group),
                    groups or ("staged", "at_once"),
                )
            )
        time.sleep(1)  # nginx's old workers take connections for a moment after a reload
        served = {
            name: snapshot(Web(address, acme.root), name) for name, address in addresses.items()
        }
        said = " ".join(" ".join(run.output for run in runs).split())
        return Step(said, {name: run.stats[name] for run in runs for name in run.stats}, served)

    return {
        "before": Step("", {}, {n: snapshot(Web(a, acme.root), n) for n, a in addresses.items()}),
        "changed": step(certbot_certificates=CHANGED),
        # Only there does the web server learn of the other directory before certbot needs it.
        "moved": step("staged", certbot_challenge_directory="/srv/moved"),
        "back": step(),
        "no authority": step(certbot_directory_url=f"https://{acme.container}:1/dir"),
        "at last": step(),
    }


def snapshot(web: Web, host: str) -> Served:
    """What the server shows for each name that answers."""
    served = {}
    domains = [domain for item in certificates_of(host) for domain in item["domains"]]
    for domain in (*domains, f"new.{host}.test"):
        try:
            served[domain] = web.certificate(domain)
        except ssl.SSLCertVerificationError:
            continue
    shown = web.certificate(NOWHERE, trusted=False)
    return served | ({NOWHERE: shown} if names(shown) == {NOWHERE} else {})


@pytest.fixture
def name(variables: dict[str, Any]) -> str:
    return str(variables["inventory_hostname"])


def test_a_name_is_added_while_another_certificate_cannot_be_had(
    steps: dict[str, Step], name: str
) -> None:
    """The one that fails keeps no other back, and costs no authorisation."""
    step = steps["changed"]
    first, other = certificates_of(name)
    wanted = {*first["domains"], f"new.{name}.test"}
    assert step.stats[name]["failed"] == 1
    assert f"{NOWHERE} has no address" in step.said
    assert "The authority was not asked" in step.said
    assert f"it lacks new.{name}.test" in step.said
    for domain in wanted:
        assert names(step.served[name][domain]) == wanted
    (domain,) = other["domains"]
    assert step.served[name][domain] == steps["before"].served[name][domain]


def test_a_placeholder_stands_in_for_it(
    host: Any, steps: dict[str, Step], name: str, variables: dict[str, Any]
) -> None:
    """The web server starts with it, and it says what it is."""
    if "staged" in variables["group_names"]:
        assert "Placeholder" in issuer(steps["changed"].served[name][NOWHERE])
        assert f"{NOWHERE} now serves the placeholder" in steps["changed"].said
    link = host.file(f"{variables['certbot_links_directory']}/lost")
    assert link.linked_to.startswith(f"{variables['certbot_links_directory']}/.placeholder/lost@")


def test_another_challenge_directory_is_used_for_renewals_too(
    steps: dict[str, Step], name: str, variables: dict[str, Any]
) -> None:
    """certbot records a directory per name, and by itself keeps that of a valid authorisation."""
    if "staged" not in variables["group_names"]:
        pytest.skip("here the web server is configured after certbot")
    moved, changed = steps["moved"], steps["changed"]
    assert moved.stats[name]["failed"] == 0, moved.said
    assert "because its challenges would go to /var/www/acme-challenge" in moved.said
    for item in certificates_of(name):
        for domain in item["domains"]:
            assert moved.served[name][domain] != changed.served[name][domain]


def test_what_is_off_the_list_is_reported_and_left(steps: dict[str, Step], name: str) -> None:
    """Back to the inventory's list, which also takes a name off a certificate."""
    step = steps["back"]
    assert step.stats[name]["failed"] == 0
    assert "Certificate 'lost' is no longer in certbot_certificates" in step.said
    first = certificates_of(name)[0]
    for domain in first["domains"]:
        assert names(step.served[name][domain]) == set(first["domains"])


def test_an_authority_that_does_not_answer_leaves_what_is_served(
    steps: dict[str, Step], name: str
) -> None:
    """Nothing listens on that port of the authority's host."""
    step = steps["no authority"]
    assert step.stats[name]["failed"] == 1
    assert "Connection refused" in step.said
    for item in certificates_of(name):
        for domain in item["domains"]:
            assert f"{domain} now serves a certificate from CN=Pebble" in step.said
    assert step.served[name] == steps["back"].served[name]


def test_a_run_that_changes_nothing_asks_for_nothing(steps: dict[str, Step], name: str) -> None:
    """Each certificate counts against a limit of the authority."""
    step = steps["at last"]
    assert step.stats[name]["changed"] == 0
    assert step.stats[name]["failed"] == 0
    assert step.served[name] == steps["no authority"].served[name]
