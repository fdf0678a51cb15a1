"""`wsgi.host.certificate`: what is served, what is obtained and why, and what a failure leaves."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.modules import certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = "https://acme.example.org/directory"
DOMAINS = ["shop.example.org", "www.shop.example.org"]

# As certbot 5.8 and 2.1 write it.
RENEWAL = """\
# renew_before_expiry = 30 days
version = 5.8.0
archive_dir = /etc/letsencrypt/archive/shop
cert = /etc/letsencrypt/live/shop/cert.pem
privkey = /etc/letsencrypt/live/shop/privkey.pem
chain = /etc/letsencrypt/live/shop/chain.pem
fullchain = /etc/letsencrypt/live/shop/fullchain.pem

# Options used in the renewal process
[renewalparams]
account = a1b2075ad89b1913f0dcd89854287681
key_type = ecdsa
elliptic_curve = secp256r1
server = {server}
authenticator = {authenticator}
webroot_path = {webroot},
[[webroot_map]]
www.shop.example.org = {webroot}
shop.example.org = {webroot}
[acme_renewal_info]
ari_retry_after = 2026-11-24T02:44:00
"""


def write_pair(
    directory: Path,
    domains: list[str],
    *,
    key: Any = None,
    days: float = 60,
    stranger: bool = False,
) -> None:
    """A certificate by an authority with its key; with `stranger`, beside another key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Authority")])
    end = NOW + datetime.timedelta(days=days)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=90))
        .not_valid_after(end)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in domains]), critical=True
        )
        .sign(authority, hashes.SHA256())
    )
    other = ec.generate_private_key(ec.SECP256R1()) if stranger else key
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "fullchain.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (directory / "privkey.pem").write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Host:
    """The module's view of a host, with a certbot that does what a test tells it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.links = root / "sites"
        self.configuration = root / "letsencrypt"
        self.marker = root / "run" / "reload-pending"
        self.challenges = root / "challenges"
        self.challenges.mkdir(parents=True)
        self.prepared = root / "prepared"
        self.prepared.mkdir()
        self.calls = root / "calls"
        self.reloads = root / "reloads"
        self.certbot(exit_status=0)
        self.check_mode = False
        self.warnings: list[str] = []
        self.params: dict[str, Any] = {}

    def certbot(self, exit_status: int, says: str = "") -> None:
        """Replaces certbot: it writes down its arguments and brings what was prepared."""
        script = self.root / "certbot"
        script.write_text(
            "#!/bin/sh\n"
            f'printf "%s\\n" "$*" >> {shlex.quote(str(self.calls))}\n'
            f"printf '%s\\n' {shlex.quote(says)}\n"
            + (
                f"mkdir -p {self.configuration} && cp -R {self.prepared}/. {self.configuration}/\n"
                if exit_status == 0
                else ""
            )
            + f"exit {exit_status}\n"
        )
        script.chmod(0o755)

    def issue(self, name: str = "shop", domains: list[str] | None = None, **options: Any) -> None:
        """What certbot will have brought after its next call."""
        self.lineage(name, domains, root=self.prepared, **options)

    def lineage(
        self,
        name: str = "shop",
        domains: list[str] | None = None,
        *,
        root: Path | None = None,
        server: str = AUTHORITY,
        authenticator: str = "webroot",
        webroot: str = "",
        **options: Any,
    ) -> None:
        """What certbot has under a name."""
        root = root or self.configuration
        write_pair(root / "live" / name, domains or DOMAINS, **options)
        (root / "renewal").mkdir(exist_ok=True)
        (root / "renewal" / f"{name}.conf").write_text(
            RENEWAL.format(
                server=server,
                authenticator=authenticator,
                webroot=webroot or str(self.challenges),
            )
        )

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def selinux_enabled(self) -> bool:
        return False

    def run(self, *certificates: tuple[str, list[str]], **options: Any) -> dict[str, Any]:
        """Calls the module. The result has `failures`, which main() would fail with."""
        self.warnings = []
        self.params = {
            "certificates": [
                {"name": name, "domains": domains}
                for name, domains in certificates or [("shop", DOMAINS)]
            ],
            "obtain": True,
            "links_directory": str(self.links),
            "challenge_directory": str(self.challenges),
            "directory_url": AUTHORITY,
            "email": "ops@example.org",
            "key_type": "ecdsa-p256",
            "probe": False,
            "serving_address": "",
            "ahead": False,
            "reload_argv": ["/bin/sh", "-c", f"echo reload >> {self.reloads}"],
            "certbot": str(self.root / "certbot"),
            "configuration_directory": str(self.configuration),
            "reload_marker": str(self.marker),
            **options,
        }
        self.call = certificate.Run(self)
        return {**self.call(), "failures": self.call.failures}

    def prepare(self, *certificates: tuple[str, list[str]], **options: Any) -> dict[str, Any]:
        return self.run(*certificates, obtain=False, reload_argv=[], **options)

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def reloaded(self) -> int:
        return len(self.reloads.read_text().splitlines()) if self.reloads.exists() else 0

    def served(self, name: str = "shop") -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.links / name / "fullchain.pem").read_bytes())

    def state(self) -> dict[str, str]:
        """Every path with its content or target, to prove that nothing was changed."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_symlink():
                found[str(path)] = str(path.readlink())
            elif path.is_file():
                found[str(path)] = path.read_bytes().hex()
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def names_of(leaf: x509.Certificate) -> set[str]:
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


# --- Placeholder ----------------------------------------------------------------------------


def test_a_placeholder_is_there_before_the_web_server(host: Host) -> None:
    """nginx does not start without the file that its site names."""
    result = host.prepare()
    leaf = host.served()
    assert names_of(leaf) == set(DOMAINS)
    assert "Placeholder" in leaf.issuer.rfc4514_string()
    assert leaf.not_valid_after_utc > NOW + datetime.timedelta(days=3000)
    assert result["changed"]
    assert result["pending"] == ["shop"]
    assert host.asked() == []
    certificate.read_pair(host.links / "shop")


def test_the_placeholders_key_is_roots_alone(host: Host) -> None:
    host.prepare()
    target = (host.links / "shop").resolve()
    assert stat.S_IMODE((target / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700


def test_a_new_link_asks_for_no_reload(host: Host) -> None:
    """The web server may not even be installed."""
    assert not host.prepare()["reload_pending"]


def test_the_placeholder_stays_when_nothing_changes(host: Host) -> None:
    host.prepare()
    before = host.state()
    result = host.prepare()
    assert not result["changed"]
    assert host.state() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pair: (pair / "privkey.pem").unlink(),
        lambda pair: write_pair(pair, DOMAINS, stranger=True),
        lambda pair: write_pair(pair, DOMAINS, days=3),
        lambda pair: write_pair(pair, ["old.example.org"]),
        lambda pair: (pair / "fullchain.pem").write_text("nonsense"),
    ],
    ids=["key missing", "another key", "about to expire", "other names", "unreadable"],
)
def test_a_placeholder_that_does_not_serve_is_replaced(
    host: Host, spoil: Callable[[Path], Any]
) -> None:
    """A server that reads a broken pair refuses to start, all of its sites with it."""
    host.prepare()
    spoiled = (host.links / "shop").resolve()
    spoil(spoiled)
    result = host.prepare()
    assert result["changed"]
    assert result["reload_pending"]
    assert certificate.read_pair(host.links / "shop").domains == set(DOMAINS)
    assert not spoiled.exists()


def test_a_link_that_leads_nowhere_gets_a_placeholder(host: Host) -> None:
    """Somebody ran `certbot delete` while a site still reads the link."""
    host.links.mkdir()
    (host.links / "shop").symlink_to(host.configuration / "live" / "shop")
    result = host.prepare()
    assert result["certificates"]["shop"]["serves"] == "placeholder"
    assert names_of(host.served()) == set(DOMAINS)


def test_a_directory_in_the_links_place_is_refused(host: Host) -> None:
    """It may hold somebody's own certificate."""
    (host.links / "shop").mkdir(parents=True)
    with pytest.raises(certificate.CertificateError, match=r"sites/shop is not a symbolic link"):
        host.prepare()


def test_a_long_domain_fits(host: Host) -> None:
    """A common name holds 64 characters, a domain up to 253."""
    domain = f"{'a' * 60}.{'b' * 60}.example.org"
    host.prepare(("long", [domain]))
    assert names_of(host.served("long")) == {domain}


# --- Obtaining ------------------------------------------------------------------------------


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
        f"--webroot --webroot-path {host.challenges} "
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
            "it would be renewed through standalone, not through the web server",
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
    host.lineage(server=certificate.DEFAULT_DIRECTORY_URL)
    conf = host.configuration / "renewal" / "shop.conf"
    lines = conf.read_text().splitlines(keepends=True)
    conf.write_text("".join(line for line in lines if not line.startswith("server")))
    result = host.run(directory_url=certificate.DEFAULT_DIRECTORY_URL)
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


# --- Failures -------------------------------------------------------------------------------

REFUSED = """\
Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for shop.example.org

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority \
reported these problems:
  Domain: shop.example.org
  Type:   unauthorized
  Detail: 203.0.113.9: Invalid response from http://shop.example.org/: 404

Hint: The Certificate Authority failed to download the temporary challenge files.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org.
"""


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

    def killed(self: certificate.Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(certificate.Run, "reload", killed)
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
    monkeypatch.setattr(certificate, "LOCK_RETRY_SECONDS", 0)
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
    said = certificate.essence(output)
    assert expected in said
    assert "Ask for help" not in said
    assert "Saving debug log" not in said


def test_an_authority_that_forgot_the_account(host: Host) -> None:
    """A test authority forgets all when it restarts."""
    host.certbot(
        1,
        "An unexpected error occurred:\nurn:ietf:params:acme:error:accountDoesNotExist :: The "
        "request specified an account that does not exist\n",
    )
    assert f"{host.configuration}/accounts" in host.run()["failures"]["shop"]


# --- The probe ------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves the challenge directory, or what a test says."""

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        self.hosts: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.hosts.append(self.headers["Host"])  # type: ignore[attr-defined]
                answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def reply(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def serve(monkeypatch: Any) -> Iterator[Callable[..., Server]]:
    """Starts a web server that every name leads to."""
    servers = []

    def start(answer: Any, addresses: list[str] | None = None) -> Server:
        server = Server(answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(certificate, "HTTP_PORT", server.server_address[1])
        monkeypatch.setattr(certificate, "resolve", lambda domain: addresses or ["127.0.0.1"])
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def from_directory(host: Host) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        path = host.challenges / handler.path.lstrip("/")
        reply(handler, 200, path.read_bytes()) if path.exists() else reply(handler, 404)

    return answer


def test_a_reachable_challenge_is_obtained(host: Host, serve: Callable[..., Server]) -> None:
    server = serve(from_directory(host))
    host.issue()
    assert not host.run(probe=True)["failures"]
    assert server.hosts == DOMAINS
    assert list((host.challenges / ".well-known/acme-challenge").iterdir()) == []


def test_a_redirect_is_followed(host: Host, serve: Callable[..., Server]) -> None:
    """The authority follows them; a site that redirects all of HTTP is common."""
    inner = from_directory(host)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/.well-known"):
            where = f"http://127.0.0.1:{certificate.HTTP_PORT}/moved{handler.path}"
            reply(handler, 301, Location=where)
        else:
            handler.path = handler.path.removeprefix("/moved")
            inner(handler)

    serve(answer)
    host.issue()
    assert not host.run(probe=True)["failures"]


def test_a_redirect_to_https_keeps_the_name(
    host: Host, serve: Callable[..., Server], tmp_path: Path
) -> None:
    """A server that refuses unknown names in the TLS handshake answers the authority."""
    pair = tmp_path / "pair"
    write_pair(pair, DOMAINS)
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair / "fullchain.pem", pair / "privkey.pem")
    context.sni_callback = lambda sock, name, context: seen.append(name)
    secure = Server(from_directory(host))
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    threading.Thread(target=secure.serve_forever, args=(0.02,), daemon=True).start()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        where = f"https://{handler.headers['Host']}:{secure.server_address[1]}{handler.path}"
        reply(handler, 308, Location=where)

    serve(answer)
    host.issue()
    assert not host.run(probe=True)["failures"]
    assert seen == DOMAINS
    secure.shutdown()
    secure.server_close()


def test_a_redirect_to_nowhere_names_the_place(host: Host, serve: Callable[..., Server]) -> None:
    serve(lambda handler: reply(handler, 301, Location="http://nowhere.invalid/"))
    failure = host.run(probe=True)["failures"]["shop"]
    assert "127.0.0.1 (redirected to http://nowhere.invalid/: " in failure


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda handler: reply(handler, 404), "127.0.0.1 answered 404 instead of the challenge"),
        (
            lambda handler: reply(handler, 200, b"<html>parked</html>"),
            "127.0.0.1 answered 200 with another content",
        ),
        (
            lambda handler: reply(handler, 302, Location=handler.path),
            "no answer on port 80 from 127.0.0.1 (more than 10 redirects)",
        ),
    ],
    ids=["404", "another page", "loop"],
)
def test_no_authorisation_is_spent_on_a_mistake(
    host: Host, serve: Callable[..., Server], answer: Any, found: str
) -> None:
    """Five failures per name and hour, then one is locked out."""
    serve(answer)
    host.prepare()
    failure = host.run(probe=True)["failures"]["shop"]
    assert f"shop.example.org: {found}" in failure
    assert f"www.shop.example.org: {found}" in failure
    assert failure.endswith("The authority was not asked.")
    assert failure.count("record points to") == 1
    assert host.asked() == []
    assert host.reloaded() == 0


def test_one_address_that_serves_something_else_is_enough(
    host: Host, serve: Callable[..., Server], monkeypatch: Any
) -> None:
    """A forgotten AAAA record: the authority asks it first."""
    serve(from_directory(host), ["127.0.0.1", "127.0.0.2"])
    real = certificate.fetch

    def fetch(address: str, domain: str, path: str) -> certificate.Answer:
        if address == "127.0.0.2":
            return certificate.Answer(200, "other", b"parked", f"http://{domain}{path}")
        return real(address, domain, path)

    monkeypatch.setattr(certificate, "fetch", fetch)
    assert "127.0.0.2 answered 200" in host.run(probe=True)["failures"]["shop"]


def test_an_address_that_does_not_answer_is_not(
    host: Host, serve: Callable[..., Server], monkeypatch: Any
) -> None:
    """A host without IPv6 cannot reach its own AAAA record; the authority falls back too."""
    serve(from_directory(host), ["2001:db8::1", "127.0.0.1"])
    real = certificate.fetch

    def fetch(address: str, domain: str, path: str) -> certificate.Answer:
        if ":" in address:
            raise OSError(101, "Network is unreachable")
        return real(address, domain, path)

    monkeypatch.setattr(certificate, "fetch", fetch)
    host.issue()
    assert not host.run(probe=True)["failures"]


def test_a_name_without_an_address_is_said(host: Host) -> None:
    """RFC 6761: nothing below .invalid resolves."""
    failure = host.run(("shop", ["shop.invalid"]), probe=True)["failures"]["shop"]
    assert failure.startswith("shop.invalid has no address (")
    assert "A or AAAA record" in failure


def test_a_closed_port_is_said(host: Host, serve: Callable[..., Server]) -> None:
    server = serve(from_directory(host))
    server.shutdown()
    server.server_close()
    failure = host.run(probe=True)["failures"]["shop"]
    assert "no answer on port 80 from 127.0.0.1 (Connection refused)" in failure
    assert "certbot_probe: false" in failure


def test_a_probe_of_the_loopback_proves_little(host: Host, serve: Callable[..., Server]) -> None:
    """Debian writes the host's own name into /etc/hosts."""
    serve(from_directory(host))
    host.certbot(1, REFUSED)
    failure = host.run(probe=True)["failures"]["shop"]
    assert "could not be seen whether others reach them" in failure


# --- Check mode, reports --------------------------------------------------------------------


@pytest.mark.parametrize("library", [True, False], ids=["with", "without cryptography"])
def test_check_mode_on_a_bare_host(host: Host, monkeypatch: Any, library: bool) -> None:
    """Says what it would do, with nothing installed, and does nothing."""
    monkeypatch.setattr(certificate, "HAS_CRYPTOGRAPHY", library)
    host.check_mode = True
    before = host.state()
    prepared = host.prepare()
    result = host.run()
    assert prepared["changed"]
    assert prepared["pending"] == ["shop"]
    assert any(
        action == f"shop: obtain for {', '.join(DOMAINS)} from {AUTHORITY}, because there is none "
        "yet"
        for action in result["actions"]
    )
    assert host.state() == before
    assert result["diff"]["after"] == f"shop: ecdsa-p256 for {', '.join(DOMAINS)}, new\n"


@pytest.mark.parametrize("library", [True, False], ids=["with", "without cryptography"])
def test_check_mode_after_a_run_finds_nothing(host: Host, monkeypatch: Any, library: bool) -> None:
    host.issue()
    host.run()
    monkeypatch.setattr(certificate, "HAS_CRYPTOGRAPHY", library)
    host.check_mode = True
    assert not host.prepare()["changed"]
    assert not host.run()["changed"]


def test_no_key_in_the_result(host: Host) -> None:
    """Results end in logs, and diffs in terminals."""
    host.prepare()
    host.issue()
    result = host.run()
    said = json.dumps(result)
    assert "PRIVATE KEY" not in said
    body = (host.links / "shop" / "privkey.pem").read_text().splitlines()[1]
    assert body not in said


def test_a_certificate_off_the_list_is_reported_and_left(host: Host) -> None:
    host.lineage()
    host.lineage("old", ["old.example.org"])
    host.prepare(("old", ["old.example.org"]), ("shop", DOMAINS))
    result = host.run()
    assert result["unlisted"] == ["old"]
    assert "certbot delete --cert-name old" in host.warnings[0]
    assert not result["changed"]
    assert certificate.read_pair(host.links / "old").domains == {"old.example.org"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("0 */12 * * * root certbot -q renew\n", True),
        ("# 0 */12 * * * root certbot -q renew\n", False),
        # The job of Debian's package, which does nothing where systemd runs.
        (
            "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && "
            "certbot -q renew --no-random-sleep-on-renew\n",
            False,
        ),
        ("17 * * * * root run-parts /etc/cron.hourly\n", False),
    ],
    ids=["job", "comment", "package", "other"],
)
def test_a_second_renewer_is_warned_of(
    host: Host, monkeypatch: Any, line: str, found: bool
) -> None:
    crontab = host.root / "crontab"
    crontab.write_text(line)
    monkeypatch.setattr(certificate, "CRON_FILES", (str(crontab),))
    monkeypatch.setattr(certificate, "CRON_DIRECTORY", str(host.root / "nowhere"))
    host.prepare()
    assert any(str(crontab) in warning for warning in host.warnings) is found


# --- What a name has, it keeps --------------------------------------------------------------

BOTH = ("both", DOMAINS)


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
    certificate.read_pair(host.links / "shop")
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
    assert certificate.read_pair(copy).serial == f"{host.served().serial_number:x}"
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


# --- Before the web server changes ----------------------------------------------------------


class Tls:
    """A web server that shows a pair of files for the names in its certificate, no other."""

    def __init__(self) -> None:
        self.pairs: dict[str, ssl.SSLContext] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.sni_callback = self.choose
        threading.Thread(target=self.run, daemon=True).start()

    def choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name not in self.pairs:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = self.pairs[name]
        return None

    def serve(self, pair: Path, *names: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair / "fullchain.pem", pair / "privkey.pem")
        for name in names or DOMAINS:
            self.pairs[name] = context
        # A context without any certificate does not get as far as the name.
        self.context.load_cert_chain(pair / "fullchain.pem", pair / "privkey.pem")

    def run(self) -> None:
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(raw, server_side=True) as connection:
                    connection.recv(1)
            except OSError:
                raw.close()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


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
        options["challenge_directory"] = str(host.root / "moved")
    else:
        # It has not reloaded since the authority issued.
        certificate.make_placeholder(host.root / "p" / "shop", DOMAINS, NOW)
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


# --- What is served -------------------------------------------------------------------------


def test_a_failure_says_what_the_web_server_shows(host: Host, tls: Tls, tmp_path: Path) -> None:
    """Looked at, in a handshake for each name: a claim about it was wrong before."""
    domains = [f"{name}.example.org" for name in ("good", "old", "fake", "foreign", "unknown")]
    good, old, fake, foreign = domains[:4]
    write_pair(tmp_path / "good", [good])
    write_pair(tmp_path / "old", [old], days=-1)
    certificate.make_placeholder(tmp_path / "p" / "fake", [fake], NOW)
    write_pair(tmp_path / "foreign", ["elsewhere.example.org"])
    for name, folder in ((good, "good"), (old, "old"), (fake, "p/fake"), (foreign, "foreign")):
        tls.serve(tmp_path / folder, name)
    host.certbot(1, REFUSED)
    host.run(("shop", domains), serving_address=tls.address)
    served = host.call.served()
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
    assert set(host.call.served().values()) == {
        f"nothing: no answer at {tls.address} (Connection refused)"
    }
