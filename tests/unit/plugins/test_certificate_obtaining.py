"""`wsgi.host.certificate`: what is obtained and why, and what a failure leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import renewals
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    certbot,
    obtaining,
    serving,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run
from certifying import AUTHORITY, DOMAINS, NOW, REFUSED, Host
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- Obtaining -------------------------------------------------------------------------------


def test_the_first_certificate(host: Host) -> None:
    host.prepare()
    host.issue()
    result = host.run()
    assert result["changed"]
    assert not result["failures"]
    assert result["pending"] == []
    assert (host.links / "shop").readlink() == host.configuration / "live" / "shop"
    assert result["certificates"]["shop"]["issuer"] == "CN=Test Authority"
    assert host.reloaded() == 1
    assert not result["reload_pending"]
    assert list((host.links / ".placeholder").iterdir()) == []


def test_what_certbot_is_told(host: Host) -> None:
    """Without a question, for the running web server, with names and key as wanted."""
    host.issue()
    host.run()
    (call,) = host.asked()
    for part in (
        "certonly --non-interactive --agree-tos",
        f"--server {AUTHORITY} --email ops@example.org --no-eff-email",
        f"--authenticator webroot --webroot-path {host.challenges} "
        f'--webroot-map {{"shop.example.org,www.shop.example.org": "{host.challenges}"}}',
        "--key-type ecdsa --elliptic-curve secp256r1",
        "--cert-name shop --domain shop.example.org --domain www.shop.example.org",
        "--renew-with-new-domains --keep-until-expiring",
    ):
        assert part in call


def test_no_address_is_a_registration_without_one(host: Host) -> None:
    host.issue()
    host.run(email="")
    assert "--register-unsafely-without-email" in host.asked()[0]
    assert "--email" not in host.asked()[0]


def test_a_customers_key_is_in_a_file(host: Host) -> None:
    """What stands on a command line can be read by everybody on the host."""
    host.issue()
    host.run(account_file="/etc/letsencrypt/account-binding.ini")
    assert "--config /etc/letsencrypt/account-binding.ini" in host.asked()[0]
    assert "eab" not in host.asked()[0]


@pytest.mark.parametrize("required", [True, False], ids=["required", "preferred"])
def test_a_profile_is_asked_for_once(host: Host, required: bool) -> None:
    """It stays in the settings of the renewal until it is wanted no more."""
    name = "required" if required else "preferred"
    host.lineage()
    host.issue(settings=f"{name}_profile = shortlived\n")
    wanted = {"profile": "shortlived", "profile_required": required}
    assert not host.run(**wanted)["failures"]
    assert f"--{name}-profile shortlived" in host.asked()[0]
    assert "--force-renewal" in host.asked()[0]
    assert not host.run(**wanted)["changed"]
    reason = host.prepare()["certificates"]["shop"]["reason"]
    assert reason == f"it would be renewed with {name}_profile = shortlived, not nothing"


def test_an_address_is_another_kind_of_name(host: Host) -> None:
    wanted = ("shop", ["shop.example.org", "192.0.2.7", "2001:db8::7"])
    assert host.prepare(wanted)["pending"] == ["shop"]
    names = host.served().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["shop.example.org"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == wanted[1][1:]
    host.run(wanted)
    assert (
        "--domain shop.example.org --ip-address 192.0.2.7 --ip-address 2001:db8::7"
        in host.asked()[0]
    )


def test_nothing_is_asked_when_all_is_as_wanted(host: Host) -> None:
    """The run that changes nothing is also the one that happens most."""
    host.lineage()
    host.prepare()
    before = host.state()
    result = host.run()
    assert not result["changed"]
    assert host.state() == before
    assert host.asked() == []
    assert host.reloaded() == 0


def test_what_is_merely_due_is_the_timers(host: Host) -> None:
    """A run of the play is no renewal: fleets would renew at the same moment."""
    host.lineage(days=1)
    assert host.run()["pending"] == []
    assert host.asked() == []


@pytest.mark.parametrize(
    ("lineage", "options", "reason", "force"),
    [
        ({"domains": DOMAINS[:1]}, {}, "it lacks www.shop.example.org", False),
        ({"domains": [*DOMAINS, "old.example.org"]}, {}, "it still has old.example.org", False),
        (
            {"server": "https://staging.example.org/directory"},
            {},
            "it is from https://staging.example.org/directory",
            True,
        ),
        ({}, {"key_type": "rsa-2048"}, "its key is ecdsa-p256, not rsa-2048", True),
        ({}, {"key_type": "ecdsa-p384"}, "its key is ecdsa-p256, not ecdsa-p384", True),
        (
            {"authenticator": "standalone"},
            {},
            "it would be renewed through standalone, not through webroot",
            True,
        ),
        ({"webroot": "/srv/old"}, {}, "its challenges would go to /srv/old", True),
        ({"days": -2}, {}, "it expired at", True),
    ],
    ids=["name added", "name removed", "authority", "rsa", "curve", "standalone", "webroot", "old"],
)
def test_what_differs_is_obtained_anew(
    host: Host, lineage: dict[str, Any], options: dict[str, Any], reason: str, force: bool
) -> None:
    """certbot by itself would say of most that nothing is due."""
    host.lineage(**lineage)
    prepared = host.prepare(**options)
    assert reason in prepared["certificates"]["shop"]["reason"]
    host.issue(key=rsa.generate_private_key(65537, 2048) if "rsa" in str(options) else None)
    if options.get("key_type") == "ecdsa-p384":
        host.issue(key=ec.generate_private_key(ec.SECP384R1()))
    result = host.run(**options)
    assert not result["failures"]
    assert result["pending"] == []
    (call,) = host.asked()
    assert ("--force-renewal" in call) is force
    assert reason in result["diff"]["before"]
    assert reason not in result["diff"]["after"]
    assert host.reloaded() == 1


def test_a_former_names_directory_does_not_count(host: Host) -> None:
    """certbot keeps its entry; a certificate obtained anew at every run would exhaust the limit."""
    host.lineage()
    with (host.configuration / "renewal" / "shop.conf").open("r+") as conf:
        text = conf.read().replace("[[webroot_map]]", "[[webroot_map]]\nold.example.org = /srv/old")
        conf.seek(0)
        conf.write(text)
    assert host.run()["pending"] == []


def test_a_name_without_a_directory_of_its_own(host: Host) -> None:
    """Then certbot uses the last of webroot_path."""
    host.lineage()
    conf = host.configuration / "renewal" / "shop.conf"
    head, _ = conf.read_text().split("[[webroot_map]]")
    conf.write_text(head)
    assert host.run()["pending"] == []
    conf.write_text(head.replace("webroot_path = ", "webroot_path = /srv/old,"))
    assert host.run()["pending"] == []
    conf.write_text(head.replace(str(host.challenges), "/srv/old"))
    assert "/srv/old" in host.prepare()["certificates"]["shop"]["reason"]


def test_capital_letters_are_no_difference(host: Host) -> None:
    host.lineage()
    assert host.run(("shop", [name.upper() for name in DOMAINS]))["pending"] == []


def test_a_default_authority_is_lets_encrypt(host: Host) -> None:
    """Settings from before certbot wrote the address."""
    host.lineage(server=renewals.DEFAULT_DIRECTORY_URL)
    conf = host.configuration / "renewal" / "shop.conf"
    lines = conf.read_text().splitlines(keepends=True)
    conf.write_text("".join(line for line in lines if not line.startswith("server")))
    result = host.run(directory_url=renewals.DEFAULT_DIRECTORY_URL)
    assert result["pending"] == []


def test_a_certificate_beside_another_key_is_not_served(host: Host) -> None:
    """nginx would refuse it, and every other site with it."""
    host.lineage(stranger=True)
    result = host.prepare()
    assert result["certificates"]["shop"]["serves"] == "placeholder"
    assert "is not the certificate's" in result["certificates"]["shop"]["reason"]


def test_a_certificate_that_nobody_renews_is_found(host: Host) -> None:
    host.lineage()
    (host.configuration / "renewal" / "shop.conf").unlink()
    result = host.prepare()
    assert result["certificates"]["shop"]["serves"] == "issued"
    assert "certbot does not renew it" in result["certificates"]["shop"]["reason"]


# --- Failures --------------------------------------------------------------------------------


def test_a_failure_leaves_what_is_served(host: Host) -> None:
    host.lineage(domains=DOMAINS[:1])
    host.prepare()
    before = host.state()
    host.certbot(1, REFUSED)
    result = host.run()
    assert result["failures"] == {
        "shop": "certbot: shop.example.org: 203.0.113.9: Invalid response from "
        "http://shop.example.org/: 404"
    }
    after = host.state()
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {str(host.calls), str(host.root / "certbot")}
    assert host.reloaded() == 0


def test_one_failure_does_not_keep_the_others_back(host: Host) -> None:
    host.prepare(("bad", ["bad.example.org"]), ("shop", DOMAINS))
    host.issue()
    script = (host.root / "certbot").read_text()
    (host.root / "certbot").write_text(
        script.replace("#!/bin/sh\n", '#!/bin/sh\ncase "$*" in *bad*) echo no; exit 1;; esac\n')
    )
    result = host.run(("bad", ["bad.example.org"]), ("shop", DOMAINS))
    assert list(result["failures"]) == ["bad"]
    assert result["certificates"]["shop"]["serves"] == "issued"
    assert result["certificates"]["bad"]["serves"] == "placeholder"
    assert result["pending"] == ["bad"]
    assert host.reloaded() == 1


def test_success_that_brought_nothing_is_a_failure(host: Host) -> None:
    """certbot may have written under another name, shop-0001."""
    result = host.run()
    assert "certbot reported success, but there is none yet" in result["failures"]["shop"]


def test_a_missing_certbot_is_said(host: Host) -> None:
    result = host.run(certbot="/nonexistent/certbot")
    assert result["failures"]["shop"].startswith("/nonexistent/certbot cannot be run")


def test_a_reload_that_failed_is_tried_again(host: Host) -> None:
    """The certificate is there, nobody sees it, and the next run would find all in order."""
    host.issue()
    failing = ["/bin/sh", "-c", "echo nginx is broken >&2; exit 1"]
    result = host.run(reload_argv=failing)
    assert "nginx is broken" in result["failures"]["reload"]
    assert host.prepare()["reload_pending"]
    result = host.run()
    assert result["actions"] == ["web server: reload"]
    assert host.reloaded() == 1
    assert not host.prepare()["reload_pending"]


def test_an_interrupted_run_is_finished_by_the_next(host: Host, monkeypatch: Any) -> None:
    """Killed between certbot's success and the reload."""
    host.lineage(domains=DOMAINS[:1])
    host.issue()

    def killed(run: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "reload", killed)
    with pytest.raises(KeyboardInterrupt):
        host.run()
    monkeypatch.undo()
    assert host.run()["actions"] == ["web server: reload"]
    assert host.reloaded() == 1


def test_certbots_lock_is_waited_for(host: Host, monkeypatch: Any) -> None:
    """The renewal timer may be at work."""
    host.issue()
    script = (host.root / "certbot").read_text()
    (host.root / "certbot").write_text(
        script.replace(
            "#!/bin/sh\n",
            f"#!/bin/sh\nif [ ! -e {host.root}/free ]; then : > {host.root}/free\n"
            "echo Another instance of Certbot is already running.; exit 1; fi\n",
        )
    )
    monkeypatch.setattr(certbot, "LOCK_RETRY_SECONDS", 0)
    assert not host.run()["failures"]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "Saving debug log to x\nAn unexpected error occurred:\n"
            "Error creating new order :: too many certificates (5) already issued\n"
            "Ask for help or search for solutions at https://community.letsencrypt.org. See the\n",
            "Error creating new order :: too many certificates (5) already issued",
        ),
        (
            "Saving debug log to x\nYou've asked to renew/replace a seemingly valid certificate "
            "with a test certificate (domains: a). We will not do that unless you use the "
            "--break-my-certs flag!\nAsk for help or search for solutions\n",
            "We will not do that unless you use the --break-my-certs flag!",
        ),
        ("", "without a word"),
    ],
    ids=["order", "refusal", "silence"],
)
def test_certbots_words_without_its_noise(output: str, expected: str) -> None:
    said = certbot.essence(output)
    assert expected in said
    assert "Ask for help" not in said
    assert "Saving debug log" not in said


TLS_FAILED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (f"{TLS_FAILED}certificate has expired (_ssl.c:1000)", "This host's clock says 20"),
        (f"{TLS_FAILED}certificate is not yet valid (_ssl.c:1000)", "This host's clock says 20"),
        (f"{TLS_FAILED}unable to get local issuer certificate", "certbot_ca_file names the CA"),
        ("Connection refused", ""),
    ],
)
def test_what_certbot_says_of_the_authoritys_own_certificate(
    host: Host, said: str, hint: str
) -> None:
    """It names neither the host's clock nor the variable."""
    host.certbot(1, f"An unexpected error occurred:\nrequests.exceptions.SSLError: {said}")
    failure = host.run()["failures"]["shop"]
    assert hint in failure
    assert ("clock" in failure or "certbot_ca_file" in failure) is bool(hint)


@pytest.mark.parametrize("refused", [2, 3])
def test_a_nonce_that_is_refused_is_tried_again(host: Host, refused: int) -> None:
    """An authority of several servers may not know each other's; certbot tries twice in all."""
    host.issue()
    script = host.root / "certbot"
    (host.root / "log").write_text(
        "acme.messages.Error: urn:ietf:params:acme:error:badNonce :: ..."
    )
    script.write_text(
        script.read_text().replace(
            "#!/bin/sh\n",
            f"#!/bin/sh\necho try >> {host.root}/tries\n"
            f'if [ "$(wc -l < {host.root}/tries)" -le {refused} ]; then '
            f"echo 'Saving debug log to {host.root}/log'; echo invalid nonce; "
            "exit 1; fi\n",
        )
    )
    failures = host.run()["failures"]
    assert bool(failures) is (refused == obtaining.NONCE_ATTEMPTS)
    # As certbot puts it.
    assert all("invalid nonce" in each for each in failures.values())
    assert len((host.root / "tries").read_text().splitlines()) == 3


def test_a_clock_that_is_ahead_does_not_use_up_the_authoritys_limit(host: Host) -> None:
    """Whatever was issued had ended by it, so that each run asked for another certificate."""
    host.lineage(days=-100)
    host.prepare()
    host.issue(days=-10)
    first = host.run()["failures"]["shop"]
    assert "set the clock" in first
    assert len(host.asked()) == 1
    again = host.run()["failures"]["shop"]
    assert f"this host's clock says {NOW:%Y-%m-%d}" in again
    assert "The authority was not asked" in again
    assert len(host.asked()) == 1
    # Copied by somebody, which looks the same.
    file = again.rpartition("touch -d @0 ")[2]
    os.utime(file, (0, 0))
    host.run()
    assert len(host.asked()) == 2
