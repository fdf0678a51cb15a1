"""After the first run: what is served, who renews it, and what lies on the host."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Web, issuer, names
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from testinfra.host import Host


def test_each_name_shows_the_authoritys_certificate(
    web: Web, certificates: list[dict[str, Any]]
) -> None:
    """A file on the disk proves nothing: this is what a client gets, verified to the root."""
    for wanted in certificates:
        for domain in wanted["domains"]:
            shown = web.certificate(domain)
            assert names(shown) == set(wanted["domains"])
            assert "Pebble" in issuer(shown)


def test_an_address_has_a_certificate(web: Web, variables: dict[str, Any]) -> None:
    """Asked for as a client does that has no name to send."""
    if variables["certbot_install"] != "bundle":
        pytest.skip("the distribution's certbot obtains none")
    extensions = web.certificate(web.address).extensions
    found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in found.get_values_for_type(x509.IPAddress)] == [web.address]


def test_the_key_is_of_the_kind_that_was_asked_for(
    web: Web, variables: dict[str, Any], certificates: list[dict[str, Any]]
) -> None:
    key = web.certificate(certificates[0]["domains"][0]).public_key()
    if variables["certbot_key_type"] == "ecdsa-p256":
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
    else:
        assert isinstance(key, rsa.RSAPublicKey)
        assert f"rsa-{key.key_size}" == variables["certbot_key_type"]


def test_the_web_server_reads_links(
    host: Host, variables: dict[str, Any], certificates: list[dict[str, Any]]
) -> None:
    """They stay the same for good, so that a renewal changes no configuration."""
    directory = variables["certbot_links_directory"]
    for wanted in certificates:
        link = host.file(f"{directory}/{wanted['name']}")
        assert link.is_symlink
        assert link.linked_to == f"/etc/letsencrypt/live/{wanted['name']}"


def test_keys_are_roots_alone(as_root: Callable[[str], str], variables: dict[str, Any]) -> None:
    directory = variables["certbot_links_directory"]
    found = as_root(
        f"find -L {directory} /etc/letsencrypt/archive /etc/letsencrypt/accounts -type f "
        r"\( -name 'privkey*.pem' -o -name private_key.json \) -printf '%U:%G %m %p\n'"
    ).splitlines()
    assert found
    for line in found:
        assert re.match(r"0:0 [46]00 ", line), line


def test_no_placeholder_is_left(
    host: Host, variables: dict[str, Any], certificates: list[dict[str, Any]]
) -> None:
    """A key that nobody needs is one more to lose."""
    found = host.file(f"{variables['certbot_links_directory']}/.placeholder").listdir()
    for wanted in certificates:
        assert not [name for name in found if name.startswith(f"{wanted['name']}@")]


def test_exactly_one_timer_renews(as_root: Callable[[str], str]) -> None:
    """Two of them run into each other's lock and ask the authority twice."""
    timers = as_root("systemctl list-timers --all --plain --no-legend").splitlines()
    renewing = [line for line in timers if "certbot" in line or "letsencrypt" in line]
    assert len(renewing) == 1, timers
    assert renewing[0].split()[-2:] == ["certbot.timer", "certbot.service"]
    assert as_root("systemctl show certbot.timer -p FragmentPath --value").strip() == (
        "/etc/systemd/system/certbot.timer"
    )


def test_no_job_of_cron_renews(host: Host) -> None:
    """The package's own does nothing where systemd runs; any other would be a second renewer."""
    found = host.run("grep -rhs certbot /etc/cron* /var/spool/cron").stdout.splitlines()
    active = [line for line in found if line.strip() and not line.lstrip().startswith("#")]
    assert all("! -d /run/systemd/system" in line.replace("\\", "") for line in active), active


def test_the_timer_is_as_configured(
    as_root: Callable[[str], str], variables: dict[str, Any]
) -> None:
    calendar = variables["certbot_renewal_calendar"]
    jitter = variables["certbot_renewal_jitter_seconds"]
    shown = as_root("systemctl show certbot.timer")
    assert f"OnCalendar={calendar} UTC ;" in shown
    assert "Persistent=yes" in shown
    seconds = as_root(
        "systemd-analyze timespan "
        + re.findall(r"^RandomizedDelayUSec=(.+)$", shown, re.MULTILINE)[0].replace(" ", "")
    )
    assert re.search(rf"\b{jitter * 1_000_000}\b", seconds), seconds


@pytest.mark.parametrize("name", ["certbot", "certificates-rehearsal", "certificates-watch"])
@pytest.mark.parametrize("property_", ["is_enabled", "is_running"])
def test_the_timers_run_and_will_after_a_reboot(host: Host, property_: str, name: str) -> None:
    assert getattr(host.service(f"{name}.timer"), property_)


def test_the_version_is_that_of_the_variant(
    as_root: Callable[[str], str], variables: dict[str, Any]
) -> None:
    """`certbot` in an administrator's shell is the one that renews."""
    version = as_root("certbot --version").split()[1]
    bundled = variables["certbot_install"] == "bundle"
    assert version.startswith("5.") is bundled


def test_what_is_served_is_as_it_should_be(
    as_root: Callable[[str], str],
    variables: dict[str, Any],
    certificates: list[dict[str, Any]],
) -> None:
    """Asked by the host itself, in its sandbox; and each renewal could be made."""
    as_root("systemctl start certificates-watch.service certificates-rehearsal.service")
    said = as_root("journalctl -u 'certificates-*' -n 20 -o cat --no-pager")
    # Besides its own: the name that leads to both hosts, and where it has one its address.
    more = 2 if "staged" in variables["group_names"] else 1
    names = [name for each in certificates for name in each["domains"]]
    assert f"{len(names) + more} names show their certificates" in said
    assert f"{len(certificates) + more} certificates could be renewed" in said


def test_exposure_of_the_renewal(as_root: Callable[[str], str]) -> None:
    """It speaks to strangers and holds every key."""
    for unit in ("certbot", "certificates-rehearsal", "certificates-watch"):
        said = as_root(f"systemd-analyze security --no-pager {unit}.service").splitlines()[-1]
        found = re.search(r"(\d+\.\d+)", said)
        assert found is not None, said
        assert float(found[1]) <= 1.5, said


def test_no_unit_has_failed(as_root: Callable[[str], str]) -> None:
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""
