"""`wsgi.host.certificate` on a folder that stands for a host, for several test modules."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run
from ansible_collections.wsgi.host.plugins.modules import certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = "https://acme.example.org/directory"
DOMAINS = ["shop.example.org", "www.shop.example.org"]

# As certbot 5.8 and 2.1 write it.
RENEWAL = """\
# renew_before_expiry = 30 days
version = 5.8.0
archive_dir = {configuration}/archive/{name}
cert = {configuration}/live/{name}/cert.pem
privkey = {configuration}/live/{name}/privkey.pem
chain = {configuration}/live/{name}/chain.pem
fullchain = {configuration}/live/{name}/fullchain.pem

# Options used in the renewal process
[renewalparams]
account = {account}
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

ACCOUNT = "a1b2075ad89b1913f0dcd89854287681"
BOTH = ("both", DOMAINS)

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


def webroot(directory: Path) -> dict[str, Any]:
    """The challenge that the web server answers from a directory."""
    arguments = ["--webroot-path", str(directory)]
    told = {"authenticator": "webroot", "settings": {}}
    return {**told, "arguments": arguments, "directory": str(directory), "programs": []}


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
    # It is written when it is issued.
    begin = (end - datetime.timedelta(days=90)).timestamp()
    os.utime(directory / "fullchain.pem", (begin, begin))
    (directory / "privkey.pem").write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def write_account(configuration: Path, account: str = ACCOUNT, server: str = AUTHORITY) -> Path:
    """An account of certbot's at an authority."""
    directory = configuration / "accounts" / server.partition("://")[2] / account
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("private_key.json", "regr.json", "meta.json"):
        (directory / name).write_text("{}")
    return directory


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
        settings: str = "",
        account: str = ACCOUNT,
        **options: Any,
    ) -> None:
        """What certbot has under a name; `settings` are further lines of its renewal."""
        root = root or self.configuration
        archive, live = root / "archive" / name, root / "live" / name
        if live.exists():
            shutil.rmtree(live)
        write_pair(archive, domains or DOMAINS, **options)
        live.mkdir(parents=True)
        for part in ("cert", "chain"):
            (archive / f"{part}.pem").write_bytes((archive / "fullchain.pem").read_bytes())
        for part in ("cert", "privkey", "chain", "fullchain"):
            (archive / f"{part}.pem").replace(archive / f"{part}1.pem")
            (live / f"{part}.pem").symlink_to(f"../../archive/{name}/{part}1.pem")
        (root / "renewal").mkdir(exist_ok=True)
        write_account(root, account, server)
        (root / "renewal" / f"{name}.conf").write_text(
            RENEWAL.format(
                server=server,
                authenticator=authenticator,
                webroot=webroot or str(self.challenges),
                configuration=self.configuration,
                name=name,
                account=account,
            ).replace("[renewalparams]\n", f"[renewalparams]\n{settings}")
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
            "challenge": webroot(self.challenges),
            "directory_url": AUTHORITY,
            "email": "ops@example.org",
            "account_file": "",
            "profile": "",
            "profile_required": True,
            "key_type": "ecdsa-p256",
            "probe": False,
            "serving_address": "",
            "ahead": False,
            "reload_argv": ["/bin/sh", "-c", f"echo reload >> {self.reloads}"],
            "certbot": str(self.root / "certbot"),
            "configuration_directory": str(self.configuration),
            "reload_marker": str(self.marker),
            "state_directory": str(self.root / "state"),
            **options,
        }
        self.call = Run(self)
        return {**certificate.work(self.call), "failures": self.call.failures}

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
        # Who asks for an address sends no name.
        if name is None:
            return None
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


def names_of(leaf: x509.Certificate) -> set[str]:
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))
