"""`wsgi.host.certificate`: what the web server shows, before a change and after a failure."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    pairs,
    serving,
)
from ansible_collections.wsgi.host.plugins.modules import certificate
from certifying import (
    AUTHORITY,
    BOTH,
    DOMAINS,
    NOW,
    REFUSED,
    Host,
    Tls,
    names_of,
    webroot,
    write_pair,
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- Before the web server changes -----------------------------------------------------------


@pytest.fixture
def tls() -> Iterator[Tls]:
    server = Tls()
    yield server
    with contextlib.suppress(OSError):
        server.stop()


NEW = ("new", ["new.example.org"])


@pytest.fixture
def live(host: Host, tls: Tls) -> Tls:
    """The web server serves the first certificate."""
    host.lineage()
    host.prepare()
    tls.serve(host.links / "shop")
    return tls


def ahead(host: Host, live: Tls, *certificates: tuple[str, list[str]], **options: Any) -> Any:
    options = {"serving_address": live.address, **options}
    return host.run(*(certificates or [NEW]), ahead=True, reload_argv=[], **options)


def test_new_names_have_their_certificate_before_they_go_live(host: Host, live: Tls) -> None:
    host.issue(*NEW)
    result = ahead(host, live)
    assert not result["failures"]
    assert result["pending"] == []
    # No web server reads a link that was not there.
    assert not result["reload_pending"]
    assert (host.links / "new").readlink() == host.configuration / "live" / "new"


def test_new_names_whose_certificate_is_refused_change_nothing(host: Host, live: Tls) -> None:
    before = host.state()
    host.certbot(1, REFUSED)
    result = ahead(host, live)
    assert list(result["failures"]) == ["new"]
    after = host.state()
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {str(host.calls), str(host.root / "certbot")}


@pytest.mark.parametrize("why", ["no server", "nobody to ask", "other directory", "placeholder"])
def test_where_nothing_serves_nobody_is_asked_ahead(host: Host, live: Tls, why: str) -> None:
    """The first run of a host, or one that mends a web server that is down, has to come through."""
    options: dict[str, Any] = {}
    if why == "no server":
        live.stop()
    elif why == "nobody to ask":
        options["serving_address"] = ""
    elif why == "other directory":
        options["challenge"] = webroot(host.root / "moved")
    else:
        # It has not reloaded since the authority issued.
        pairs.make_placeholder(host.root / "p" / "shop", DOMAINS, NOW)
        live.serve(host.root / "p" / "shop")
    result = ahead(host, live, **options)
    assert host.asked() == []
    assert result["pending"] == ["new"]
    assert "Placeholder" in host.served("new").issuer.rfc4514_string()


def test_what_is_covered_is_not_asked_for_ahead(host: Host, live: Tls) -> None:
    """A kind of key may wait until the web server is as wanted, which may be what it needs."""
    result = ahead(host, live, BOTH, key_type="rsa-2048")
    assert host.asked() == []
    assert result["pending"] == ["both"]
    assert names_of(host.served("both")) == set(DOMAINS)


def test_a_preview_says_that_it_would_be_obtained_first(host: Host, live: Tls) -> None:
    host.check_mode = True
    before = host.state()
    result = ahead(host, live)
    assert result["actions"] == [
        f"new: obtain for new.example.org from {AUTHORITY}, because there is none yet"
    ]
    assert result["pending"] == []
    assert host.state() == before


# --- What is served --------------------------------------------------------------------------


def test_a_failure_says_what_the_web_server_shows(host: Host, tls: Tls, tmp_path: Path) -> None:
    """Looked at, in a handshake for each name: a claim about it was wrong before."""
    domains = [f"{name}.example.org" for name in ("good", "old", "fake", "foreign", "unknown")]
    good, old, fake, foreign = domains[:4]
    write_pair(tmp_path / "good", [good])
    write_pair(tmp_path / "old", [old], days=-1)
    pairs.make_placeholder(tmp_path / "p" / "fake", [fake], NOW)
    write_pair(tmp_path / "foreign", ["elsewhere.example.org"])
    for name, folder in ((good, "good"), (old, "old"), (fake, "p/fake"), (foreign, "foreign")):
        tls.serve(tmp_path / folder, name)
    host.certbot(1, REFUSED)
    host.run(("shop", domains), serving_address=tls.address)
    served = serving.served(host.call)
    until = f"{NOW + datetime.timedelta(days=60):%Y-%m-%d %H:%M} UTC"
    assert served[good] == f"a certificate from CN=Test Authority, valid until {until}"
    assert served[old].startswith("a certificate from CN=Test Authority that expired at ")
    assert served[fake] == "the placeholder, which no client trusts"
    assert served[foreign] == (
        "a certificate from CN=Test Authority for other names, elsewhere.example.org"
    )
    assert served["unknown.example.org"].startswith("nothing: the web server refuses the name (")


def test_a_failure_says_that_nobody_answers(host: Host, tls: Tls) -> None:
    tls.stop()
    host.certbot(1, REFUSED)
    host.run(serving_address=tls.address)
    assert set(serving.served(host.call).values()) == {
        f"nothing: no answer at {tls.address} (Connection refused)"
    }


@pytest.mark.parametrize("fail", [True, False])
def test_a_failure_can_wait_for_the_end_of_a_run(
    host: Host, tls: Tls, monkeypatch: pytest.MonkeyPatch, fail: bool
) -> None:
    """What follows is done as well; that it failed is in the result, and said at once."""
    host.certbot(1, REFUSED)
    host.run(serving_address=tls.address)
    told: dict[str, Any] = {}
    warned: list[str] = []

    class Module(Host):  # type: ignore[misc]
        def __init__(self, **_: Any) -> None:
            self.params = {**host.params, "fail": fail}
            self.check_mode = False

        def warn(self, message: str) -> None:
            warned.append(message)

        def fail_json(self, **result: Any) -> None:
            told.update(result, failed=True)
            raise SystemExit(1)

        def exit_json(self, **result: Any) -> None:
            told.update(result, failed=False)

    monkeypatch.setattr(certificate, "AnsibleModule", Module)
    monkeypatch.setattr(certificate, "require_own", lambda *_, **__: None)
    with contextlib.suppress(SystemExit):
        certificate.main()
    assert told["failed"] is fail
    assert list(told["failures"]) == ["shop"]
    assert "shop.example.org now serves nothing" in told["msg"]
    assert (told["msg"] in warned) is not fail
