"""`wsgi.host.certificate`: what a name has, it keeps."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    pairs,
)
from certifying import BOTH, DOMAINS, REFUSED, Host, names_of


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def remove_lineage(host: Host, name: str = "shop") -> None:
    """As `certbot delete` does."""
    shutil.rmtree(host.configuration / "live" / name)
    (host.configuration / "renewal" / f"{name}.conf").unlink()


def test_a_certificate_under_another_name_is_served_and_not_obtained_again(host: Host) -> None:
    """A layout of before, or a certificate that the operator obtained: as wanted, so it serves."""
    host.lineage()
    result = host.prepare(BOTH)
    assert (host.links / "both").readlink() == host.configuration / "live" / "shop"
    assert result["certificates"]["both"]["serves"] == "issued"
    assert result["pending"] == []
    before = host.state()
    assert not host.run(BOTH)["changed"]
    assert host.state() == before
    assert host.asked() == []


@pytest.mark.parametrize("have", [DOMAINS[:1], ["*.example.org"]], ids=["one of two", "wildcard"])
def test_names_keep_what_covers_them_until_the_successor_is_there(
    host: Host, have: list[str]
) -> None:
    """Neither a name that joins nor an authority that refuses takes a certificate from a name."""
    host.lineage(domains=have)
    host.lineage("old", ["shop.example.org"], days=-1)
    host.prepare(BOTH)
    assert names_of(host.served("both")) == set(have)
    host.certbot(1, REFUSED)
    assert host.run(BOTH)["failures"]
    assert names_of(host.served("both")) == set(have)
    host.certbot(0)
    host.issue("both")
    assert not host.run(BOTH)["failures"]
    assert (host.links / "both").readlink() == host.configuration / "live" / "both"
    assert host.reloaded() == 1


def test_what_is_served_stays_while_nothing_is_better(host: Host) -> None:
    """Another certificate that is no more what is wanted would be a change for nothing."""
    host.lineage()
    host.prepare(BOTH)
    host.lineage("wider", [*DOMAINS, "more.example.org"], days=89)
    result = host.prepare(BOTH, key_type="rsa-2048")
    assert (host.links / "both").readlink() == host.configuration / "live" / "shop"
    assert result["certificates"]["both"]["reason"] == "its key is ecdsa-p256, not rsa-2048"


def test_only_names_without_any_valid_certificate_get_the_placeholder(host: Host) -> None:
    host.lineage("old", ["shop.example.org"], days=-1)
    host.lineage("other", ["other.example.org"])
    host.prepare(BOTH)
    assert "Placeholder" in host.served("both").issuer.rfc4514_string()


def test_a_certificate_deleted_in_certbot_is_served_until_there_is_another(host: Host) -> None:
    """Deleted by hand: nginx has it in memory, and any reload or reboot would end that."""
    host.lineage()
    host.prepare()
    serial = host.served().serial_number
    remove_lineage(host)
    host.certbot(1, REFUSED)
    result = host.run()
    assert result["failures"]
    assert result["certificates"]["shop"]["serves"] == "kept"
    assert host.served().serial_number == serial
    pairs.read_pair(host.links / "shop")
    # Nothing more to change, and still to be obtained.
    assert host.prepare()["actions"] == []
    host.certbot(0)
    host.issue()
    result = host.run()
    assert result["certificates"]["shop"]["serves"] == "issued"
    assert host.served().serial_number != serial


def test_the_copy_is_roots_alone_and_follows_a_renewal(host: Host) -> None:
    host.lineage()
    host.prepare()
    host.lineage()
    host.prepare()
    copy = host.links / ".kept" / "shop"
    assert pairs.read_pair(copy).serial == f"{host.served().serial_number:x}"
    (real,) = host.links.glob(".kept/shop@*")
    assert copy.resolve() == real
    assert stat.S_IMODE(real.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(real.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in real.iterdir()} == {0o600}


def test_files_that_certbot_was_killed_over_are_replaced(host: Host) -> None:
    """It exchanges certificate and key one after the other. It cannot mend what it cannot read."""
    host.lineage()
    host.prepare()
    serial = host.served().serial_number
    host.lineage(stranger=True)
    assert host.prepare()["certificates"]["shop"]["serves"] == "kept"
    assert host.served().serial_number == serial
    host.issue("shop-2")
    result = host.run()
    assert not result["failures"]
    assert "--cert-name shop-2" in host.asked()[0]
    assert (host.links / "shop").readlink() == host.configuration / "live" / "shop-2"
    assert any("certbot delete --cert-name shop" in warning for warning in host.warnings)
    assert host.run()["actions"] == []


def test_a_name_is_not_taken_from_a_certificate_that_another_site_reads(host: Host) -> None:
    """certbot changes names in place: whoever reads the other link would lose one."""
    host.lineage()
    host.prepare(BOTH)
    host.issue("shop-2", DOMAINS[:1])
    assert not host.run(("shop", DOMAINS[:1]))["failures"]
    assert "--cert-name shop-2" in host.asked()[0]
    assert names_of(host.served("both")) == set(DOMAINS)
    assert names_of(host.served("shop")) == set(DOMAINS[:1])


def test_the_remedy_for_an_old_link_spares_what_another_reads(host: Host) -> None:
    host.lineage()
    host.prepare()
    host.run(BOTH)
    (warning,) = host.warnings
    assert "certbot delete" not in warning
    subprocess.run(["sh", "-c", warning.partition("reads it: ")[2]], check=True)
    assert not (host.links / "shop").is_symlink()
    assert host.run(BOTH)["actions"] == []
    assert host.warnings == []


ADDED = ("both", [*DOMAINS, "new.example.org"])
CHANGES: dict[str, tuple[tuple[str, list[str]], dict[str, Any]]] = {
    "a name added": (ADDED, {}),
    "a name removed": (("both", DOMAINS[:1]), {}),
    "another name first": (("other", DOMAINS[::-1]), {"key_type": "rsa-2048"}),
    "another kind of key": (BOTH, {"key_type": "ecdsa-p384"}),
    "another authority": (BOTH, {"directory_url": "https://other.example.org/dir"}),
    "another challenge": (BOTH, {"challenge": {"authenticator": "dns-invented", "settings": {}}}),
}


@pytest.mark.parametrize("end", ["refused", "killed", "nothing came"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_gives_nothing_up_before_its_successor_is_there(
    host: Host, change: str, end: str
) -> None:
    """Each change, and each way in which it does not come to its end."""
    host.lineage("both")
    host.prepare(BOTH)
    before = host.served("both")
    wanted, options = CHANGES[change]
    if "challenge" in options:
        options = {"challenge": {**options["challenge"], "arguments": [], "directory": ""}}
    host.certbot(1 if end == "refused" else 0, REFUSED)
    if end == "killed":
        # As by the out-of-memory killer, in the middle of certbot's exchange of files.
        script = host.root / "certbot"
        script.write_text("#!/bin/sh\nkill -9 $$\n")
        script.chmod(0o755)
    for result in (host.prepare(wanted, **options), host.run(wanted, **options)):
        assert result["certificates"][wanted[0]]["serves"] == "issued"
        assert host.served(wanted[0]) == before
        assert host.served("both") == before
    assert list(result["failures"]) == [wanted[0]]
    if wanted[0] == "both" and end != "nothing came":
        # A new link is read by nobody yet, and an old one did not move.
        assert host.reloaded() == 0
        assert not result["reload_pending"]
