"""The rehearsal of renewals: who is asked, with which account, and what is left of the verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import (
    command,
    rehearsal,
    renewals,
)
from certifying import ACCOUNT, AUTHORITY, Host

FAILED = """\
Processing /etc/letsencrypt/renewal/shop.conf
Failed to renew certificate shop with error: 404 at the challenge
1 renew failure(s), 0 parse failure(s)
Ask for help or search for solutions at https://community.letsencrypt.org.
"""


class Stage(Host):  # type: ignore[misc]
    """A host with one certificate, and what the role says of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lineage()
        self.state_directory = root / "state"
        self.metrics = root / "metrics"
        for folder in (self.state_directory, self.metrics):
            folder.mkdir()
        self.file = root / "watch.json"
        self.file.write_text(
            json.dumps(
                {
                    "certificates": [],
                    "authority": "",
                    "percent": 20,
                    "certbot": str(root / "certbot"),
                    "configuration": str(self.configuration),
                    "state": str(self.state_directory),
                    "metrics": str(self.metrics),
                }
            )
        )

    def rehearse(self) -> int:
        return command.main(["rehearse", str(self.file)])

    @property
    def verdict(self) -> dict[str, dict[str, str]]:
        return rehearsal.verdict(self.state_directory)[1]

    @property
    def measured(self) -> str:
        return (self.metrics / "certificates-rehearsal.prom").read_text()

    def failing(self, verb: str, says: str, log: str = "") -> None:
        """A certbot that fails at one verb."""
        script = self.root / "certbot"
        text = script.read_text()
        (self.root / "said").write_text(says)
        script.write_text(
            text.replace(
                "exit 0\n",
                f'if [ "$1" = {verb} ]; then cat {self.root}/said; '
                f"echo '{log}' > {self.state_directory}/logs/letsencrypt.log; exit 1; fi\nexit 0\n",
            )
        )


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(rehearsal, "PAUSE_SECONDS", 0)
    return Stage(tmp_path)


def test_the_lineages_own_authority_and_account_are_asked(stage: Stage) -> None:
    """certbot alone asks Let's Encrypt's staging, and registers whatever account is missing."""
    assert stage.rehearse() == 0
    account, renewal = stage.asked()
    assert account.startswith(f"show_account --server {AUTHORITY} --account {ACCOUNT} ")
    assert f"renew --dry-run --no-random-sleep-on-renew --cert-name shop --server {AUTHORITY}" in (
        renewal
    )
    assert f"--account {ACCOUNT}" in renewal
    assert not (stage.state_directory / rehearsal.VERDICT).exists()
    assert 'certificate_rehearsal_failed{certificate="shop"} 0.0\n' in stage.measured


def test_with_lets_encrypt_the_staging_account_is_another(stage: Stage) -> None:
    stage.lineage(server=renewals.DEFAULT_DIRECTORY_URL)
    assert stage.rehearse() == 0
    account, renewal = stage.asked()
    assert f"--account {ACCOUNT}" in account
    assert "--account" not in renewal


def test_a_failure_is_left_for_everybody(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.failing("renew", FAILED)
    assert stage.rehearse() == 1
    said = "Failed to renew certificate shop with error: 404 at the challenge"
    assert f"<3>shop could not be renewed: {said}\n" == capfd.readouterr().err
    assert stage.verdict == {"shop": {"reason": said, "account": ""}}
    assert 'certificate_rehearsal_failed{certificate="shop"} 1.0\n' in stage.measured
    tries = [call for call in stage.asked() if call.startswith("renew")]
    assert len(tries) == rehearsal.ATTEMPTS, "an authority may be away for a moment"
    # The next one that is good takes it back.
    stage.certbot(0)
    assert stage.rehearse() == 0
    assert stage.verdict == {}


def test_an_account_that_nobody_knows_is_named_at_once(stage: Stage) -> None:
    stage.failing(
        "show_account",
        "An unexpected error occurred:\nunable to find existing account\n",
        "urn:ietf:params:acme:error:accountDoesNotExist",
    )
    assert stage.rehearse() == 1
    reason = "the authority does not know its account any more"
    assert stage.verdict == {"shop": {"reason": reason, "account": ACCOUNT}}
    assert len(stage.asked()) == 1


def test_what_an_earlier_rehearsal_met_is_over(stage: Stage) -> None:
    """certbot appends to its log, and any failure would have been one of the account."""
    logs = stage.state_directory / "logs"
    logs.mkdir()
    (logs / "letsencrypt.log").write_text("urn:ietf:params:acme:error:accountDoesNotExist")
    stage.failing("show_account", "Connection refused\n")
    script = stage.root / "certbot"
    script.write_text(script.read_text().replace("echo '' >", "echo '' >>"))
    assert stage.rehearse() == 1
    assert stage.verdict == {"shop": {"reason": "Connection refused", "account": ""}}


def test_what_the_host_can_tell_needs_no_authority(stage: Stage) -> None:
    shutil.rmtree(stage.configuration / "accounts")
    assert stage.rehearse() == 1
    assert "its account is gone" in stage.verdict["shop"]["reason"]
    assert stage.asked() == []


def test_one_that_fails_does_not_hide_the_others(stage: Stage) -> None:
    stage.lineage("other", ["other.example.org"])
    (stage.configuration / "renewal" / "shop.conf").write_text("")
    assert stage.rehearse() == 1
    assert list(stage.verdict) == ["shop"]
    assert any("--cert-name other" in call for call in stage.asked())
    assert 'certificate_rehearsal_failed{certificate="other"} 0.0\n' in stage.measured


def test_no_certbot_is_a_failure(stage: Stage) -> None:
    (stage.root / "certbot").unlink()
    assert stage.rehearse() == 1
    assert "cannot be run" in stage.verdict["shop"]["reason"]


@pytest.mark.parametrize("text", ["", "{}", '{"at": 1}', "[]"])
def test_a_verdict_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / rehearsal.VERDICT).write_text(text)
    assert rehearsal.verdict(tmp_path) == (0, {})
