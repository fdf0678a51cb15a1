"""Renewal by the real unit, in its sandbox, on a host whose web server is busy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import Load, Web
from testinfra.host import Host

# More often within seconds than systemd lets a unit start.
RENEW = "systemctl reset-failed certbot.service; systemctl start certbot.service"
REPORT = "/run/certbot/test-report"
# What runs on the host: the role's programs.
PROGRAM = "/usr/local/lib/certificates/certificates"
# A deploy hook runs where certbot runs: it can tell what the sandbox lets through.
HOOK = f"""#!/bin/sh
{{
  grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
  touch /etc/hostname && echo wrote /etc/hostname
  touch /var/www/written && echo wrote /var/www
  touch /tmp/certbot-was-here
  test -e /home/ops && echo saw a home
}} > {REPORT} 2>&1
"""


@dataclass
class Due:
    """A certificate that the next renewal will replace."""

    domain: str
    settings: str


@pytest.fixture
def due(as_root: Callable[[str], str], certificates: list[dict[str, Any]]) -> Iterator[Due]:
    """The first certificate, made due: certbot honours a time before expiry beside ARI."""
    first = certificates[0]
    settings = f"/etc/letsencrypt/renewal/{first['name']}.conf"
    as_root(f"sed -i -e '1i renew_before_expiry = 100 years' -e /renew_before_expiry/d {settings}")
    yield Due(first["domains"][0], settings)
    as_root(f"sed -i /renew_before_expiry/d {settings}")


@pytest.fixture
def spy(as_root: Callable[[str], str]) -> Iterator[str]:
    """A second deploy hook, which reports what it may do."""
    path = "/etc/letsencrypt/renewal-hooks/deploy/zz-test"
    as_root(f"cat > {path} <<'EOF'\n{HOOK}\nEOF\nchmod 0755 {path}")
    yield REPORT
    as_root(f"rm -f {path} {REPORT}")


def test_renewal_is_served_without_a_lost_request(
    host: Host, web: Web, due: Due, spy: str, as_root: Callable[[str], str]
) -> None:
    """One run of the unit: a new certificate, a reload that lets old connections finish."""
    before = web.certificate(due.domain)
    master = as_root("cat /run/nginx.pid").strip()
    with web.connect(due.domain) as old, Load(web, due.domain) as load:
        assert web.ask(old, due.domain) == 200
        as_root(RENEW)
    assert load.asked > 10
    assert load.bad == []
    web.replaced(due.domain, before)
    # Reloaded, not restarted.
    assert as_root("cat /run/nginx.pid").strip() == master
    assert not host.file("/run/certbot/reload-pending").exists


def test_the_sandbox_is_in_force(
    due: Due, spy: str, host: Host, as_root: Callable[[str], str]
) -> None:
    """What the kernel lets through, not what the unit file wishes."""
    as_root(RENEW)
    report = as_root(f"cat {spy}")
    assert "CapBnd:\t0000000000000000" in report
    assert "NoNewPrivs:\t1" in report
    assert "Seccomp:\t2" in report
    assert "wrote" not in report
    assert "saw a home" not in report
    assert not host.file("/tmp/certbot-was-here").exists


def test_what_is_not_due_is_left(web: Web, certificates: list[dict[str, Any]], host: Host) -> None:
    domain = certificates[0]["domains"][0]
    before = web.certificate(domain)
    assert host.run(RENEW).rc == 0
    assert web.certificate(domain) == before


def test_the_authoritys_renewal_information_is_asked(
    variables: dict[str, Any], due: Due, as_root: Callable[[str], str]
) -> None:
    """ARI (RFC 9773) is how an authority moves renewals; certbot reads it from 4.1 on."""
    if variables["certbot_install"] != "bundle":
        pytest.skip("the distribution's certbot is older")
    as_root(f"sed -i /ari_retry_after/d {due.settings}")
    as_root(RENEW)
    log = as_root("cat /var/log/letsencrypt/letsencrypt.log")
    assert "/renewalInfo/" in log


def test_a_failed_renewal_shows(
    host: Host, web: Web, due: Due, acme: Any, as_root: Callable[[str], str]
) -> None:
    """A failed unit with the reason in the journal; the old certificate goes on."""
    before = web.certificate(due.domain)
    as_root(f"cp /etc/hosts /root/hosts && echo 127.0.0.1 {acme.container} >> /etc/hosts")
    try:
        assert host.run(RENEW).rc != 0
        assert as_root("systemctl show -p Result --value certbot.service").strip() == "exit-code"
        journal = as_root("journalctl -u certbot.service -n 30 -o cat --no-pager")
        assert "Failed to renew certificate" in journal
        assert "Connection refused" in journal
        assert web.certificate(due.domain) == before
    finally:
        # A container's file is a mount, which nothing can be moved over.
        as_root("cat /root/hosts > /etc/hosts")
    as_root(RENEW)
    assert not host.service("certbot.service").is_running
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""


def test_a_reload_that_changes_nothing_shows(
    host: Host, web: Web, due: Due, as_root: Callable[[str], str]
) -> None:
    """It succeeded, and what is served is still the old one: clients would see that one end."""
    if "bundle" not in host.backend.get_pytest_id() and not os.environ.get("EVERY_SYSTEM"):
        pytest.skip("tried on the other host")
    before = web.certificate(due.domain)
    # Half a minute and 20 s are for a web server that is busy.
    waits = {"served.py": "RELOAD_SECONDS", "command.py": "SECOND_LOOK_SECONDS"}
    for name, wait in waits.items():
        as_root(
            f"cp {PROGRAM}/{name} /root/ && grep -q '^{wait} = ' {PROGRAM}/{name}"
            f" && sed -i 's/^{wait} = .*/{wait} = 3.0/' {PROGRAM}/{name}"
        )
    drop_in = "/run/systemd/system/nginx.service.d/test.conf"
    as_root(
        f"mkdir -p $(dirname {drop_in}) && "
        f"printf '[Service]\\nExecReload=\\nExecReload=/bin/true\\n' > {drop_in} && "
        "systemctl daemon-reload"
    )
    try:
        assert host.run(RENEW).rc != 0
        journal = as_root("journalctl -u certbot.service -n 30 -o cat --no-pager")
        assert f"{due.domain} does not show the certificate in " in journal
        assert web.certificate(due.domain) == before
        assert host.run("systemctl start certificates-watch.service").rc != 0
        journal = as_root("journalctl -u certificates-watch.service -n 30 -o cat --no-pager")
        assert f"{due.domain} (shop): stale: " in journal
    finally:
        as_root(f"rm -r $(dirname {drop_in}) && systemctl daemon-reload")
        for name in waits:
            as_root(f"cp /root/{name} {PROGRAM}/")
    as_root("sed -i /renew_before_expiry/d /etc/letsencrypt/renewal/*.conf")
    as_root(RENEW)
    web.replaced(due.domain, before)
    as_root("systemctl start certificates-watch.service")


def test_a_configuration_that_is_wrong_shows(
    host: Host, web: Web, due: Due, as_root: Callable[[str], str]
) -> None:
    """Somebody edited a file of the web server and left it so; it serves on."""
    before = web.certificate(due.domain)
    as_root("cp /etc/nginx/nginx.conf /root/ && echo nonsense >> /etc/nginx/nginx.conf")
    try:
        assert host.run(RENEW).rc != 0
        assert web.certificate(due.domain) == before
    finally:
        as_root("cp /root/nginx.conf /etc/nginx/nginx.conf")
    as_root("sed -i /renew_before_expiry/d /etc/letsencrypt/renewal/*.conf")
    as_root(RENEW)
    web.replaced(due.domain, before)


def test_a_rehearsal_finds_what_a_renewal_would_meet(
    host: Host, web: Web, variables: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    """Weeks before it is due: here nobody serves the challenges any more."""
    before = web.certificate("shop." + variables["inventory_hostname"] + ".test")
    challenges = variables["certbot_challenge_directory"]
    # Three attempts, five minutes apart, are for an authority that is away.
    patience = f"{PROGRAM}/rehearsal.py"
    as_root(
        f"cp {patience} /root/ && sed -i -e 's/^PAUSE_SECONDS = .*/PAUSE_SECONDS = 0.0/'"
        f" -e 's/^ATTEMPTS = .*/ATTEMPTS = 2/' {patience}"
    )
    as_root(
        f"cp /etc/nginx/nginx.conf /root/ && sed -i 's|root {challenges}|root /nowhere|'"
        " /etc/nginx/nginx.conf && systemctl reload nginx"
    )
    try:
        assert host.run("systemctl start certificates-rehearsal.service").rc != 0
        journal = as_root("journalctl -u certificates-rehearsal.service -n 30 -o cat --no-pager")
        assert "shop could not be renewed: " in journal
        assert "404" in journal
        assert as_root("cat /var/lib/certificates/rehearsal.json")
    finally:
        as_root("cp /root/nginx.conf /etc/nginx/nginx.conf && systemctl reload nginx")
        as_root(f"systemctl start certificates-rehearsal.service; cp /root/rehearsal.py {patience}")
    assert not host.file("/var/lib/certificates/rehearsal.json").exists
    assert web.certificate("shop." + variables["inventory_hostname"] + ".test") == before


def test_a_failed_reload_shows_and_is_tried_again(
    host: Host, web: Web, due: Due, as_root: Callable[[str], str]
) -> None:
    """certbot calls such a renewal a success, and nginx would go on with the old one."""
    before = web.certificate(due.domain)
    drop_in = "/run/systemd/system/nginx.service.d/test.conf"
    as_root(
        f"mkdir -p $(dirname {drop_in}) && "
        f"printf '[Service]\\nExecReload=\\nExecReload=/bin/false\\n' > {drop_in} && "
        "systemctl daemon-reload"
    )
    try:
        assert host.run(RENEW).rc != 0
        assert host.file("/run/certbot/reload-pending").exists
        assert web.certificate(due.domain) == before
        as_root("sed -i /renew_before_expiry/d /etc/letsencrypt/renewal/*.conf")
        assert host.run(RENEW).rc != 0, "it must go on to fail"
    finally:
        as_root(f"rm -r $(dirname {drop_in}) && systemctl daemon-reload")
    as_root(RENEW)
    web.replaced(due.domain, before)
    assert not host.file("/run/certbot/reload-pending").exists
