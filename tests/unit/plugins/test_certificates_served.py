"""What is served: each fault told apart from the others, in real handshakes on the loopback."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import (
    command,
    served,
    settings,
)
from certifying import NOW, Tls
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DOMAIN = "shop.example.org"
DAY = datetime.timedelta(days=1)


def general(name: str) -> x509.GeneralName:
    """A name as it is in a certificate, where an address is of another kind."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """A root, and what it or an issuer below it signs."""

    def __init__(self, name: str, above: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = above or self
        self.certificate = self.sign(
            signer, self.name, self.key.public_key(), NOW - DAY, NOW + 3650 * DAY, ca=True
        )

    @staticmethod
    def sign(
        signer: Authority,
        subject: x509.Name,
        key: Any,
        begin: datetime.datetime,
        end: datetime.datetime,
        *,
        ca: bool = False,
        domains: tuple[str, ...] = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if domains:
            names = x509.SubjectAlternativeName([general(each) for each in domains])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(signer.key, hashes.SHA256())

    def issue(
        self,
        folder: Path,
        *chain: Authority,
        domains: tuple[str, ...] = (DOMAIN,),
        begin: float = -30,
        end: float = 60,
    ) -> Path:
        """A pair with its chain, good from and until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([])
        span = (NOW + begin * DAY, NOW + end * DAY)
        leaf = self.sign(self, subject, key.public_key(), *span, domains=domains)
        folder.mkdir(parents=True)
        found = [leaf, *(each.certificate for each in chain)]
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found)
        (folder / "fullchain.pem").write_bytes(pem)
        (folder / "privkey.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return folder


class World:
    """A host with one web server, and what the role says of it."""

    def __init__(self, root: Path, tls: Tls) -> None:
        self.root = root
        self.tls = tls
        self.root_authority = Authority("Root")
        self.issuer = Authority("Issuer", self.root_authority)
        self.trusted = root / "trusted.pem"
        self.trusted.write_bytes(
            self.root_authority.certificate.public_bytes(serialization.Encoding.PEM)
        )
        self.metrics = root / "metrics"
        self.metrics.mkdir()
        self.file = root / "watch.json"

    def issue(self, name: str = "good", *chain: Authority, **options: Any) -> Path:
        return self.issuer.issue(self.root / name, *(chain or (self.issuer,)), **options)

    def say(self, pair: Path | None = None, **told: Any) -> settings.Settings:
        entry = {
            "name": "shop",
            "domains": [DOMAIN],
            "address": self.tls.address,
            "file": str(pair / "fullchain.pem") if pair else "",
            "trust": "system",
            **told,
        }
        self.file.write_text(
            json.dumps(
                {
                    "certificates": [entry],
                    "authority": str(self.trusted),
                    "percent": 20,
                    "certbot": "certbot",
                    "configuration": str(self.root / "letsencrypt"),
                    "state": str(self.root / "state"),
                    "metrics": str(self.metrics),
                }
            )
        )
        return settings.read(self.file)

    def kinds(self, pair: Path | None = None, **told: Any) -> list[str]:
        (seen,) = served.look_at_all(self.say(pair, **told), NOW.timestamp())
        return [fault.kind for fault in seen.faults]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    tls = Tls()
    yield World(tmp_path, tls)
    with contextlib.suppress(OSError):
        tls.stop()


def test_what_is_as_it_should_be_has_no_fault(world: World) -> None:
    pair = world.issue()
    world.tls.serve(pair, DOMAIN)
    assert world.kinds(pair) == []


@pytest.mark.parametrize(
    ("span", "kind"),
    [
        ({"begin": -90, "end": -1}, "expired"),
        ({"begin": 1, "end": 90}, "not-yet-valid"),
        ({"begin": -81, "end": 9}, "soon"),
        ({"begin": -5.9, "end": 0.7}, "soon"),
        ({"begin": -4, "end": 2.6}, None),
    ],
    ids=["expired", "not yet", "of 90 days", "of six days", "six days with time left"],
)
def test_times_are_told_apart(world: World, span: dict[str, Any], kind: str | None) -> None:
    """A share of the lifetime: ten days would be too late for one and always for the other."""
    pair = world.issue(**span)
    world.tls.serve(pair, DOMAIN)
    assert world.kinds(pair) == ([kind] if kind else [])


def test_another_name(world: World) -> None:
    world.tls.serve(world.issue(domains=("other.example.org",)), DOMAIN)
    assert world.kinds() == ["wrong-name"]


@pytest.mark.parametrize("domain", ["a.example.org", "*.example.org", "A.Example.ORG"])
def test_a_wildcard_is_for_one_label(world: World, domain: str) -> None:
    pair = world.issue(domains=("*.example.org",))
    world.tls.serve(pair, domain, domain.replace("*", served.SOME_NAME), domain.lower())
    assert world.kinds(pair, domains=[domain]) == []
    world.tls.serve(pair, "a.b.example.org")
    assert world.kinds(pair, domains=["a.b.example.org"]) == ["wrong-name"]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "2001:db8:0:1::f"])
def test_an_address_is_the_same_in_each_spelling(world: World, address: str) -> None:
    """Python shows 2001:DB8:0:0:0:0:0:1, and every such certificate was for another name."""
    pair = world.issue(domains=(DOMAIN, address))
    world.tls.serve(pair)
    assert world.kinds(pair, domains=[address]) == []
    assert world.kinds(pair, domains=["2001:db8::2"]) == ["wrong-name"]


def test_a_chain_without_its_issuer(world: World) -> None:
    """Browsers fetch it by themselves, and everything else fails."""
    pair = world.issue("bare", world.root_authority)
    world.tls.serve(pair, DOMAIN)
    assert world.kinds(pair) == ["wrong-chain"]


def test_a_stranger_signed_it(world: World) -> None:
    stranger = Authority("Stranger")
    pair = stranger.issue(world.root / "strange", stranger, end=-1, domains=("b.example.org",))
    world.tls.serve(pair, DOMAIN)
    assert world.kinds(pair) == ["wrong-chain", "expired", "wrong-name"], "all that is wrong"
    # Of a private authority the host knows only what it has issued.
    good = stranger.issue(world.root / "private", stranger)
    world.tls.serve(good, DOMAIN)
    assert world.kinds(good) == ["wrong-chain"]
    assert world.kinds(good, trust="chain") == []
    world.tls.serve(world.issue(), DOMAIN)
    assert world.kinds(good, trust="chain") == ["stale"]


def test_a_placeholder_is_a_fault_only_where_there_should_be_more(world: World) -> None:
    own = Authority("Placeholder")
    pair = own.issue(world.root / "own")
    world.tls.serve(pair, DOMAIN)
    assert world.kinds(pair) == ["wrong-chain"]


def test_a_self_signed_one_that_is_wanted(world: World, tmp_path: Path) -> None:
    """`certbot_obtain: false` is no fault."""
    from ansible_collections.wsgi.host.plugins.module_utils.certificates import pairs

    pairs.make_placeholder(tmp_path / "p" / "shop", [DOMAIN], NOW)
    world.tls.serve(tmp_path / "p" / "shop", DOMAIN)
    assert world.kinds(tmp_path / "p" / "shop", trust="none") == []
    assert world.kinds(tmp_path / "p" / "shop", trust="chain") == ["wrong-chain"]


def test_a_file_that_is_newer_than_what_is_served(world: World) -> None:
    world.tls.serve(world.issue(), DOMAIN)
    assert world.kinds(world.issue("newer")) == ["stale"]


def test_nobody_answers_or_nobody_knows_the_name(world: World) -> None:
    world.tls.serve(world.issue(), "elsewhere.example.org")
    assert world.kinds() == ["refused"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert world.kinds(address=address) == ["unreachable"]
    assert served.look_at_all(world.say(address=""), NOW.timestamp()) == []


def test_what_is_over_in_a_moment_is_no_fault(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal and its reload are not one step, and a web server restarts."""
    pair = world.issue("newer")
    world.tls.serve(world.issue("older"), DOMAIN)
    world.say(pair)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        world.tls.serve(pair, DOMAIN)

    monkeypatch.setattr(command.time, "sleep", nap)
    assert command.main(["watch", str(world.file)]) == 0
    assert command.main(["watch", str(world.file)]) == 0
    assert naps == [command.SECOND_LOOK_SECONDS], "what is good is looked at once"


def test_the_journal_the_exit_status_and_the_metrics_say_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pair = world.issue("ended", begin=-90, end=-1)
    world.tls.serve(pair, DOMAIN)
    world.say(pair)
    monkeypatch.setattr(command, "SECOND_LOOK_SECONDS", 0)
    assert command.main(["watch", str(world.file)]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"<3>{DOMAIN} (shop): expired: it ended at ")
    text = (world.metrics / "certificates-served.prom").read_text()
    labels = f'certificate="shop",domain="{DOMAIN}"'
    assert f'certificate_served_fault{{{labels},fault="expired"}} 1.0\n' in text
    assert f'certificate_served_fault{{{labels},fault="soon"}} 0.0\n' in text
    assert f"certificate_served_lifetime_seconds{{{labels}}} {89 * 86400}\n" in text
    assert "certificate_watch_timestamp_seconds " in text
    assert (world.metrics / "certificates-served.prom").stat().st_mode & 0o777 == 0o644
    good = world.issue("good")
    world.tls.serve(good, DOMAIN)
    # Prometheus knows the names of what it asks for in lower case.
    world.say(good, domains=[DOMAIN.title()])
    world.tls.serve(good, DOMAIN.title())
    assert command.main(["watch", str(world.file)]) == 0
    text = (world.metrics / "certificates-served.prom").read_text()
    assert "1.0\n" not in text
    assert labels in text


def test_a_reload_is_waited_for_and_then_judged(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """nginx answers with its old workers for a moment."""
    old, new = world.issue("old"), world.issue("new")
    world.tls.serve(old, DOMAIN)
    world.say(new)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        world.tls.serve(new, DOMAIN)

    monkeypatch.setattr(served.time, "sleep", nap)
    assert command.main(["compare", str(world.file)]) == 0
    assert len(naps) == 1
    monkeypatch.setattr(served, "RELOAD_SECONDS", 0)
    world.tls.serve(old, DOMAIN)
    monkeypatch.setattr(served.time, "sleep", naps.append)
    assert command.main(["compare", str(world.file)]) == 1
    assert f"{DOMAIN} does not show the certificate in {new}" in capfd.readouterr().err


def test_what_is_removed_is_looked_at_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The application is gone, and nobody runs site.yml for the host any more."""
    path = tmp_path / "watch.json"
    entries = [{"name": "shop", "domains": []}, {"name": "blog", "domains": []}]
    path.write_text(json.dumps({"certificates": entries, "percent": 20}))
    path.chmod(0o640)
    assert command.main(["forget", str(path), "shop"]) == 0
    assert capsys.readouterr().out == "forgotten\n"
    assert json.loads(path.read_text()) == {"certificates": entries[1:], "percent": 20}
    assert path.stat().st_mode & 0o777 == 0o640
    assert command.main(["forget", str(path), "shop"]) == 0
    assert capsys.readouterr().out == ""
    assert [each.name for each in tmp_path.iterdir()] == ["watch.json"]
