"""`wsgi.host.certificate`: what could not be renewed is seen while it is still good, and mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import rehearsal
from ansible_collections.wsgi.host.plugins.module_utils.certificates import strangers
from certifying import ACCOUNT, AUTHORITY, DOMAINS, Host, write_account


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.lineage()
    host.prepare()
    return host


@pytest.fixture
def account(host: Host) -> Path:
    return host.configuration / "accounts" / AUTHORITY.partition("://")[2] / ACCOUNT


def edit(host: Host, old: str, new: str, name: str = "shop") -> None:
    path = host.configuration / "renewal" / f"{name}.conf"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


UNRENEWABLE: dict[str, tuple[Callable[[Host, Path], Any], str]] = {
    "no account's directory": (
        lambda host, account: shutil.rmtree(account),
        "its account is gone",
    ),
    "no key of the account": (
        lambda host, account: (account / "private_key.json").unlink(),
        "private_key.json: No such file or directory",
    ),
    "a damaged account": (
        lambda host, account: (account / "regr.json").write_text("{"),
        "regr.json is damaged",
    ),
    "another account in the settings": (
        lambda host, account: edit(host, ACCOUNT, "0123"),
        "0123 is missing",
    ),
    "no account in the settings": (
        lambda host, account: edit(host, f"account = {ACCOUNT}\n", ""),
        "name no account",
    ),
    "switched off": (
        lambda host, account: edit(host, "[renewalparams]", "[renewalparams]\nautorenew = False"),
        "autorenew = False",
    ),
}


@pytest.mark.parametrize("case", UNRENEWABLE)
def test_what_could_not_be_renewed_is_obtained_anew(host: Host, account: Path, case: str) -> None:
    """It was as wanted in everything that was looked at, and ended weeks later."""
    change, why = UNRENEWABLE[case]
    served = host.served().serial_number
    change(host, account)
    found = host.prepare()
    assert why in found["certificates"]["shop"]["reason"]
    assert host.served().serial_number == served, "it serves until its successor is there"
    host.issue(account="fresh")
    result = host.run()
    assert not result["failures"]
    (call,) = host.asked()
    # certbot itself would say that nothing is due.
    assert "--force-renewal" in call
    assert "--cert-name shop " in call
    assert host.served().serial_number != served
    assert not host.run()["changed"]


DAMAGED: dict[str, tuple[Callable[[Host], Any], str]] = {
    "no settings": (
        lambda host: (host.configuration / "renewal/shop.conf").write_text(""),
        "the settings of its renewal name no cert",
    ),
    "copies instead of links": (
        lambda host: [
            (path.unlink(), shutil.copy(host.configuration / "archive/shop" / target, path))
            for path, target in [
                (host.configuration / "live/shop/chain.pem", "chain1.pem"),
            ]
        ],
        "chain.pem is no symbolic link",
    ),
    "a file of the archive": (
        lambda host: (host.configuration / "archive/shop/cert1.pem").unlink(),
        "cert.pem leads to ../../archive/shop/cert1.pem, which is missing",
    ),
    "no authenticator": (
        lambda host: edit(host, "authenticator = webroot\n", ""),
        "the settings of its renewal name no authenticator",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_certbot_cannot_read_is_obtained_under_another_name(host: Host, case: str) -> None:
    """certbot repairs nothing of it, and skips it at each renewal."""
    change, why = DAMAGED[case]
    served = host.served().serial_number
    change(host)
    assert why in host.prepare()["certificates"]["shop"]["reason"]
    assert host.served().serial_number == served
    host.issue("shop-2")
    result = host.run()
    assert not result["failures"]
    assert "--cert-name shop-2 " in host.asked()[0]
    assert (host.links / "shop").readlink().name == "shop-2"
    assert any("certbot delete --cert-name shop" in warning for warning in host.warnings)


# As certbot 5.8 says it: the kind of the error is in its log only.
UNKNOWN = "An unexpected error occurred:\nAccount https://ca.test/acct/1 not found."
LOGGED = "urn:ietf:params:acme:error:accountDoesNotExist :: The request specified an account"


def forgetful(host: Host) -> None:
    """A certbot whose authority does not know the account that is there."""
    script, log = host.root / "certbot", host.root / "letsencrypt.log"
    log.write_text(LOGGED)
    good = script.read_text()
    account = host.configuration / "accounts" / AUTHORITY.partition("://")[2] / ACCOUNT
    script.write_text(
        good.replace(
            "#!/bin/sh\n",
            f"#!/bin/sh\nif [ -e {account} ]; then echo 'Saving debug log to {log}\n{UNKNOWN}'; "
            f'echo "$*" >> {host.calls}; exit 1; fi\n',
        )
    )


def test_an_account_that_the_authority_forgot_is_registered_anew(host: Host, account: Path) -> None:
    """Before, an operator had to move its directory, and the next run failed until then."""
    host.lineage("other", ["other.example.org"])
    wanted = ("shop", [*DOMAINS, "new.example.org"]), ("other", ["other.example.org"])
    host.prepare(*wanted)
    forgetful(host)
    host.issue("shop", wanted[0][1], account="fresh")
    result = host.run(*wanted)
    kept = host.configuration / "accounts-unknown" / AUTHORITY.partition("://")[2] / ACCOUNT
    assert (kept / "private_key.json").exists(), "a key is never thrown away"
    assert not account.exists()
    assert any(f"{ACCOUNT} set aside" in line for line in result["actions"])
    # The other one would have been renewed with the account that nobody knows. This certbot brings
    # the first only.
    assert "--cert-name other" in host.asked()[-1]
    assert list(result["failures"]) == ["other"]
    assert "its account is gone" in result["failures"]["other"]


def test_what_a_rehearsal_found_is_mended(host: Host, account: Path) -> None:
    """Only the authority knows that it does not know an account, and a run does not ask it."""
    state = host.root / "state"
    state.mkdir()
    reason = "the authority does not know its account any more"
    rehearsal.remember(state, {"shop": {"reason": reason, "account": ACCOUNT}}, 1)
    assert reason in host.prepare()["certificates"]["shop"]["reason"]
    forgetful(host)
    host.issue(account="fresh")
    assert not host.run()["failures"]
    # The verdict is still there, and is about the account of before.
    assert not host.run()["changed"]


def test_a_rehearsal_that_failed_otherwise_is_told(host: Host) -> None:
    """A renewal of what is good would not end better."""
    state = host.root / "state"
    state.mkdir()
    failure = {"reason": "203.0.113.9: Invalid response: 404", "account": ""}
    rehearsal.remember(state, {"shop": failure}, 1_800_000_000)
    assert not host.run()["changed"]
    (warning,) = host.warnings
    assert "'shop'" in warning
    assert "2027-01-15" in warning
    assert "404" in warning
    assert "systemctl start certificates-rehearsal.service" in warning


def test_several_accounts_are_no_question(host: Host) -> None:
    """certbot would ask which one, and there is nobody to answer."""
    write_account(host.configuration, "second")
    host.issue(domains=[*DOMAINS, "new.example.org"])
    host.run(("shop", [*DOMAINS, "new.example.org"]))
    assert "--account second" in host.asked()[0]


def test_a_certificate_of_somebody_else_that_cannot_be_renewed_is_named(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """certbot.timer renews all there are, and fails for all because of one."""
    monkeypatch.setattr(strangers, "plugins", lambda: {"webroot"})
    host.lineage("theirs", ["theirs.example.org"], authenticator="dns-invented")
    assert not host.run()["changed"]
    (warning,) = host.warnings
    assert "'theirs'" in warning
    assert "certbot has no plugin dns-invented" in warning
    assert "certbot delete --cert-name theirs" in warning


def test_one_that_can_be_renewed_is_not(host: Host) -> None:
    host.lineage("theirs", ["theirs.example.org"])
    host.run()
    assert host.warnings == []
    path = host.configuration / "renewal" / "theirs.conf"
    path.write_text(json.dumps("nothing"))
    host.run()
    assert "the settings of its renewal name no cert" in host.warnings[0]


def test_challenges_that_the_sandbox_keeps_out_are_named(host: Host) -> None:
    """A renewal in an administrator's shell would go well, and that of the timer would not."""
    host.lineage("theirs", ["theirs.example.org"], webroot="/var/www/html")
    host.run()
    assert "may not write its challenges to /var/www/html" in host.warnings[0]


def test_the_plugins_are_those_of_the_python_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module is run by certbot's own, which knows what was installed beside it."""
    folder = tmp_path / "certbot_dns_invented-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: certbot-dns-invented\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[certbot.plugins]\ndns-invented = invented:X\n")
    assert "dns-invented" not in strangers.plugins()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "dns-invented" in strangers.plugins()
