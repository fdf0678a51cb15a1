"""DNS-01: wildcards by dynamic updates of a real name server, and by a program of the operator's.

The authority is one that registers customers only, and finds the records through that name server.
These runs come last: they leave the host with another challenge and another authority.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Web, issuer, names
from testinfra.host import Host

DOMAINS = ["*.dns.test", "dns.test"]
WILD = [{"name": "wild", "domains": DOMAINS}]
# As in testhosts/images/acme.
SECRET = "bm90LWEtc2VjcmV0LW5vdC1hLXNlY3JldC1ub3QtYSE="
BINDING = {"kid": "customer-1", "hmac_key": SECRET.rstrip("=")}
HOOK = "/usr/local/sbin/acme-record"
# With what certbot itself brings; a real one would use its provider's interface.
PROGRAM = """\
#!/opt/certbot/current/bin/python
import os, sys
import dns.query, dns.tsigkeyring, dns.update
server, word = sys.argv[1:]
keyring = dns.tsigkeyring.from_text({"certbot.": "SECRET"})
update = dns.update.Update("dns.test", keyring=keyring, keyalgorithm="hmac-sha256")
record = os.environ["ACME_RECORD"] + ".", "TXT", os.environ["CERTBOT_VALIDATION"]
update.add(record[0], 1, *record[1:]) if word == "add" else update.delete(*record)
assert dns.query.tcp(update, server).rcode() == 0
"""

pytestmark = pytest.mark.usefixtures("only_the_bundle")


@pytest.fixture
def only_the_bundle(variables: dict[str, Any]) -> None:
    if variables["certbot_install"] != "bundle":
        pytest.skip("the distribution's certbot takes the plugin from a package of its own")


@pytest.fixture(scope="module")
def customers(acme: Any) -> dict[str, Any]:
    """Variables for the authority that knows its customers."""
    return {
        "certbot_certificates": WILD,
        "certbot_directory_url": f"https://{acme.container}:14001/dir",
        "certbot_account_binding": BINDING,
    }


def shown(web: Web) -> Any:
    return web.certificate("any.dns.test", trusted=False)


def test_a_wildcard_by_dynamic_updates(
    control: Any, customers: dict[str, Any], acme: Any, web: Web, as_root: Callable[[str], str]
) -> None:
    """No web server is asked: the names lead nowhere."""
    before = as_root("cat /var/log/nginx/access.log | wc -l")
    run = control.run_playbook(
        variables={
            **customers,
            "certbot_challenge": "dns-rfc2136",
            "certbot_dns_credentials": {
                "server": acme.address,
                "name": "certbot.",
                "secret": SECRET,
            },
            "certbot_dns_propagation_seconds": 1,
            "certbot_profile": "tlsserver",
        },
        limit="staged",
    )
    assert run.returncode == 0, run.output
    # Until nginx, which reloads in the background, shows no placeholder any more.
    end = time.monotonic() + 10
    while "Pebble" not in issuer(certificate := shown(web)):
        assert time.monotonic() < end, "the placeholder is still shown"
        time.sleep(0.1)
    assert names(certificate) == set(DOMAINS)
    assert SECRET.rstrip("=") not in run.output
    assert as_root("cat /var/log/nginx/access.log | wc -l") == before
    settings = as_root("cat /etc/letsencrypt/renewal/wild.conf")
    assert "required_profile = tlsserver" in settings


def test_its_credentials_are_roots_alone(as_root: Callable[[str], str]) -> None:
    """Who has them can obtain certificates for the zone, or as the customer."""
    # Written here in two parts, so that the command is none of the places.
    first, rest = SECRET[:20], SECRET[20:40]
    places = "/etc /var/log /var/lib /run /usr/local/bin /usr/local/libexec /opt/certbot"
    found = as_root(f"grep -rlFs -e {first}'{rest}' {places} || true").split()
    assert sorted(found) == [
        "/etc/letsencrypt/account-binding.ini",
        "/etc/letsencrypt/dns-credentials.ini",
    ]
    for path in found:
        assert as_root(f"stat -c '%U:%G %a' {path}").strip() == "root:root 600"
    assert f"{first}{rest}" not in as_root("journalctl --no-pager")


def test_it_renews_by_itself(web: Web, as_root: Callable[[str], str]) -> None:
    """In the sandbox, with the credentials alone."""
    renew(web, as_root)


def test_a_wildcard_by_a_program_of_the_operators(
    control: Any,
    customers: dict[str, Any],
    acme: Any,
    web: Web,
    host: Host,
    as_root: Callable[[str], str],
) -> None:
    """What the other challenge had left is gone, and renewals run it in their sandbox."""
    text = shlex.quote(PROGRAM.replace("SECRET", SECRET))
    as_root(f"printf %s {text} > {HOOK} && chmod 0700 {HOOK}")
    before = shown(web)
    run = control.run_playbook(
        variables={
            **customers,
            "certbot_challenge": "dns-hook",
            "certbot_dns_hook_argv": [HOOK, acme.address],
        },
        limit="staged",
    )
    assert run.returncode == 0, run.output
    assert "it would be renewed through dns-rfc2136, not through manual" in run.output
    replaced(web, before)
    assert not host.file("/etc/letsencrypt/dns-credentials.ini").exists
    renew(web, as_root)


def renew(web: Web, as_root: Callable[[str], str]) -> None:
    before = shown(web)
    settings = "/etc/letsencrypt/renewal/wild.conf"
    as_root(f"sed -i -e '1i renew_before_expiry = 100 years' -e /renew_before_expiry/d {settings}")
    as_root("systemctl reset-failed certbot.service; systemctl start certbot.service")
    replaced(web, before)


def replaced(web: Web, before: Any) -> None:
    """Waits until nginx, which reloads in the background, shows another certificate."""
    end = time.monotonic() + 10
    while shown(web) == before:
        assert time.monotonic() < end, "the old certificate is still shown"
        time.sleep(0.1)
