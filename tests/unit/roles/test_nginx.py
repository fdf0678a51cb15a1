"""The nginx role's configuration, rendered for every family and read by nginx itself."""

from __future__ import annotations

import datetime
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import crossplane
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .preflight import Case, options, preflight
from .render import FAMILIES, ROLES, evaluate, render

PROJECT = ROLES.parent
TEMPLATES = ROLES / "nginx" / "templates"

SITE: dict[str, Any] = {
    "name": "toll-app",
    "domains": ["toll.example.org", "www.toll.example.org"],
    "certificate": "/etc/ssl/sites/toll-app/fullchain.pem",
    "certificate_key": "/etc/ssl/sites/toll-app/privkey.pem",
    "upstream": "unix:/run/gunicorn/toll-app.sock",
    "static": [
        {
            "location": "/static/",
            "directory": "/opt/toll-app/current/app/toll/static",
            "immutable": True,
        },
        {"location": "/downloads/", "directory": "/srv/downloads/"},
    ],
    "private_locations": ["/metrics"],
}
PLAIN: dict[str, Any] = {
    "name": "plain",
    "domains": ["plain.example.org"],
    "upstream": "127.0.0.1:5000",
}
CACHED: dict[str, Any] = {
    **SITE,
    "name": "cached",
    "domains": ["cached.example.org"],
    "cache": {"locations": ["/api", "/"], "key_path": "/opt/cached/cache-key"},
}
BOTH: dict[str, Any] = {
    **{key: SITE[key] for key in ("certificate", "certificate_key", "upstream")},
    "name": "both",
    "domains": ["both.example.org"],
    "http": "serve",
    "max_body_size": "20m",
    "content_security_policy": "default-src 'none'",
}
FILES: dict[str, Any] = {
    "name": "files",
    "domains": ["files.example.org"],
    "default": True,
    "static": [{"location": "/", "directory": "/srv/files"}],
}

# A site that says all that one can.
RICH: dict[str, Any] = {
    **{key: SITE[key] for key in ("certificate", "certificate_key")},
    "name": "rich",
    "domains": ["rich.example.org"],
    "upstreams": [
        {"address": "192.0.2.1:5000", "weight": 3},
        {"address": "192.0.2.2:5000", "down": True},
        {"address": "unix:/run/gunicorn/rich.sock", "backup": True},
    ],
    "upstream_keepalive": 8,
    "limits": {"key_header": "X-Api-Key", "key_burst": 0},
    "read_timeout_seconds": 30,
    "connect_timeout_seconds": 2,
    "body_timeout_seconds": 5,
    "basic_auth": {"users": [{"name": "anna", "hash": "$6$" + "a" * 86}]},
    "client_certificates": {"authority": SITE["certificate"], "verify": "optional", "depth": 2},
    "extra": "location ~ [.]php$ {\n    return 404;\n}\n",
    "locations": [
        {"path": "/login", "exact": True, "limits": {"rate": "10r/m", "burst": 0}},
        {"path": "/live/", "websockets": True, "read_timeout_seconds": 600},
        {"path": "/files/", "directory": "/srv/files", "limits": {"rate": "1r/s", "at_once": 0}},
        {"path": "/upload", "upstream": "192.0.2.3:80", "max_body_size": "50m"},
        {"path": "/free/", "limits": {"rate": "unlimited", "connections": 0}, "basic_auth": {}},
        {"path": "/old", "redirect": {"to": "/new", "status": 308, "keep_path": True}},
        {"path": "/robots.txt", "exact": True, "directory": "/srv/files"},
        {
            "path": "/admin/",
            "allow": ["192.0.2.0/24", "2001:db8::/32"],
            "deny": ["192.0.2.9"],
            "extra": "proxy_buffering off;",
        },
        {"path": "/vault/", "client_certificate": True},
        {"path": "/healthz", "exact": True, "open_to_host": True, "allow": ["192.0.2.0/24"]},
        {"path": "/up", "open_to": ["2001:db8::1", "2001:db8::1"], "deny": ["192.0.2.9"]},
    ],
}
MOVED: dict[str, Any] = {
    "name": "moved",
    "domains": ["moved.example.org"],
    "redirect": {"to": "https://rich.example.org", "status": 301, "keep_path": True},
}

# Where nginx sends what it says of requests.
ERRORS = "syslog:server=unix:/run/nginx-errors.sock,nohostname"

# Every branch of the templates is taken by one of these.
VARIANTS: dict[str, dict[str, Any]] = {
    "no-sites": {},
    "defaults": {"nginx_sites": [SITE]},
    "many-sites": {"nginx_sites": [SITE, PLAIN, BOTH]},
    "everything-changed": {
        "nginx_sites": [{**SITE, "default": True}, PLAIN, BOTH],
        "nginx_http_port": 8080,
        "nginx_https_port": 8443,
        "nginx_public_http_port": 80,
        "nginx_public_https_port": 9443,
        "nginx_ipv6": False,
        "nginx_challenge_directory": "/srv/challenge",
        "nginx_challenge_peers": ["192.0.2.11:80", "[2001:db8::12]:8080"],
        "nginx_hsts_max_age_seconds": 300,
        "nginx_hsts_include_subdomains": True,
        "nginx_content_security_policy": "default-src https:",
        "nginx_security_headers": {"X-Frame-Options": "SAMEORIGIN"},
        "nginx_max_body_size": "8m",
        "nginx_gzip": False,
        "nginx_client_timeout_seconds": 5,
        "nginx_keepalive_timeout_seconds": 10,
        "nginx_connection_life_seconds": 600,
        "nginx_proxy_connect_timeout_seconds": 1,
        "nginx_proxy_read_timeout_seconds": 120,
        "nginx_retry_after_seconds": 30,
        "nginx_drain_timeout_seconds": 60,
        "nginx_stop_timeout_seconds": 5,
        "nginx_log_max_mib": 5,
        "nginx_worker_processes": "3",
        "nginx_worker_connections": 512,
        "nginx_open_files": 2048,
    },
    "plain-default": {"nginx_sites": [FILES, SITE]},
    "all-members": {
        "nginx_sites": [RICH, MOVED],
        "nginx_unlimited_clients": ["192.0.2.0/24", "2001:db8::1"],
    },
    "behind-a-proxy": {
        "nginx_sites": [SITE, {**BOTH, "default": True, "health_paths": ["/", "/healthz"]}],
        "nginx_trusted_proxies": ["192.0.2.1", "2001:db8::/64"],
        "nginx_client_address_header": "CF-Connecting-IP",
        "nginx_limit_rate": "unlimited",
        "nginx_limit_connections": 0,
        "nginx_limit_downloads": 0,
    },
    "proxy-protocol": {
        "nginx_sites": [{**SITE, "default": True}, PLAIN],
        "nginx_trusted_proxies": ["192.0.2.1"],
        "nginx_proxy_protocol": True,
    },
    "proxy-protocol-beside": {
        "nginx_sites": [SITE, PLAIN],
        "nginx_trusted_proxies": ["192.0.2.1"],
        "nginx_proxy_protocol": True,
        "nginx_proxy_protocol_http_port": 8080,
        "nginx_proxy_protocol_https_port": 8443,
    },
    "maintenance": {
        "nginx_sites": [
            PLAIN,
            {
                **SITE,
                "maintenance": True,
                "maintenance_allow": ["192.0.2.0/24", "2001:db8::/32"],
                "maintenance_open": ["/healthz", "/health/"],
                "health_paths": ["/healthz", "/a b", "/"],
            },
        ],
        "nginx_maintenance_retry_after_seconds": 60,
    },
    "cached": {
        "nginx_sites": [CACHED, {**PLAIN, "cache": {"locations": ["/news"]}}],
        "nginx_cache_size_mib": 16,
    },
}

# nginx and OpenSSL as these systems have them.
VERSIONS = {
    "debian-12": ("Debian", {"nginx": "1.22.1-9+deb12u9", "libssl3": "3.0.20-1~deb12u2"}),
    "debian-13": ("Debian", {"nginx": "1.26.3-3+deb13u10", "libssl3t64": "3.5.9-1~deb13u1"}),
    "ubuntu-24.04": ("Debian", {"nginx": "1.24.0-2ubuntu7.5", "libssl3t64": "3.0.13-0ubuntu3.6"}),
    "rhel-9": ("RedHat", {"nginx": "2:1.20.1-22.el9_6.3", "openssl-libs": "1:3.2.2-6.el9_5.1"}),
    "rhel-10": ("RedHat", {"nginx": "2:1.26.3-1.el10", "openssl-libs": "1:3.5.1-5.el10"}),
}


def configuration(family: str, **overrides: Any) -> dict[str, str]:
    """Return path: text of every file that the role writes, as on the host."""
    files = {}
    for source, dest in (
        ("nginx", "/etc/nginx"),
        ("systemd", "/etc/systemd/system"),
        ("libexec", "/usr/local/libexec"),
    ):
        for path in sorted(p for p in (TEMPLATES / source).rglob("*") if p.is_file()):
            target = Path(dest) / path.relative_to(TEMPLATES / source)
            if path.suffix == ".j2":
                relative = str(path.relative_to(TEMPLATES))
                text = render("nginx", relative, family, **overrides)
                files[str(target.with_suffix(""))] = text
            else:
                files[str(target)] = path.read_text()
    for site in evaluate("nginx", "__nginx_sites", family, **overrides):
        text = render("nginx", "site.conf.j2", family, site=site, **overrides)
        files[f"/etc/nginx/sites/{site['name']}.conf"] = text
    return files


def site_text(site: Mapping[str, Any], family: str = "Debian", **overrides: Any) -> str:
    overrides.setdefault("nginx_sites", [site])
    return configuration(family, **overrides)[f"/etc/nginx/sites/{site['name']}.conf"]


def found_nginx() -> tuple[Path, Path]:
    """nginx and its mime.types: this machine's, else unpacked from the distribution's package.

    Unpacked and not installed, because an installed one would serve its welcome page on port 80.
    """
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found and Path("/etc/nginx/mime.types").exists():
        return Path(found), Path("/etc/nginx/mime.types")
    cache = PROJECT / ".cache" / "nginx"
    program, types = cache / "usr/sbin/nginx", cache / "etc/nginx/mime.types"
    if not (program.exists() and types.exists()):
        packages = cache / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        try:
            for command in (
                ["apt-get", "-qq", "download", "nginx", "nginx-common"],
                *(["dpkg", "-x", name, str(cache)] for name in ("nginx.deb", "nginx-common.deb")),
            ):
                if command[0] == "dpkg":
                    package = command[2].removesuffix(".deb")
                    command[2] = str(next(packages.glob(f"{package}_*.deb")))
                subprocess.run(command, cwd=packages, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or error
            pytest.fail(f"These tests need nginx; install it, or let apt-get download it: {said}")
    return program, types


@pytest.fixture(scope="session")
def nginx_program() -> tuple[Path, Path]:
    """nginx and its mime.types."""
    return found_nginx()


@pytest.fixture(scope="session")
def installed_version(nginx_program: tuple[Path, Path]) -> dict[str, str]:
    """The packages that a host with this nginx would have, as the probe returns them."""
    said = subprocess.run(
        [nginx_program[0], "-V"], check=True, capture_output=True, text=True
    ).stderr
    nginx = re.search(r"nginx/([\d.]+)", said)
    openssl = re.search(r"(?:running|built) with OpenSSL ([\d.]+)", said)
    assert nginx
    assert openssl
    return {"nginx": nginx[1], "libssl3": openssl[1], "openssl-libs": openssl[1]}


def self_signed() -> tuple[bytes, bytes]:
    """A certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "toll.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return (
        signed.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, which nginx reads while it tests a configuration."""
    directory = tmp_path_factory.mktemp("certificate")
    paths = directory / "fullchain.pem", directory / "privkey.pem"
    for path, content in zip(paths, self_signed(), strict=True):
        path.write_bytes(content)
    return paths


def laid_out(
    directory: Path,
    files: Mapping[str, str],
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
) -> Path:
    """Write a rendered configuration below a directory, where the host's paths lead then."""
    replaced = {
        "/etc/nginx/mime.types": str(nginx_program[1]),
        "/etc/nginx/modules-enabled/*.conf": str(directory / "modules/*.conf"),
        "/usr/share/nginx/modules/*.conf": str(directory / "modules/*.conf"),
        "/run/nginx.pid": str(directory / "nginx.pid"),
        "/var/log/nginx": str(directory / "log"),
        # Nobody writes for nginx here, so it does.
        ERRORS: str(directory / "log/error.log"),
        "/etc/nginx/maintenance": str(directory / "etc/nginx/maintenance"),
        "/etc/nginx/drained": str(directory / "etc/nginx/drained"),
        "/var/lib/nginx/answers": str(directory / "cache/answers"),
        SITE["certificate"]: str(certificate[0]),
        SITE["certificate_key"]: str(certificate[1]),
    }
    for needed in ("log", "bodies", "cache"):
        (directory / needed).mkdir(exist_ok=True)
    for dest, text in files.items():
        if not dest.startswith("/etc/nginx/"):
            continue
        for old, new in replaced.items():
            text = text.replace(old, new)
        # The family's user need not exist here, and places for bodies belong to the package.
        text = re.sub(r"(?m)^user .*\n", "user root root;\n", text)
        if dest == "/etc/nginx/nginx.conf":
            places = "".join(
                f"    {kind}_temp_path {directory}/bodies/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            text = text.replace("http {\n", "http {\n" + places)
        path = directory / dest.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory / "etc/nginx/nginx.conf"


@pytest.fixture
def lay_out(
    tmp_path: Path, nginx_program: tuple[Path, Path], certificate: tuple[Path, Path]
) -> Callable[..., Path]:
    """Writes a rendered configuration below tmp_path."""

    def write(files: Mapping[str, str]) -> Path:
        return laid_out(tmp_path, files, nginx_program, certificate)

    return write


@pytest.fixture
def verdict(nginx_program: tuple[Path, Path]) -> Callable[[Path], tuple[int, str]]:
    def test(path: Path) -> tuple[int, str]:
        done = subprocess.run(
            # In a network of its own, where ports are free and may be opened.
            ["unshare", "--net", nginx_program[0], "-t", "-p", path.parent, "-c", path],
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    return test


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_nginx_accepts_the_configuration(
    variant: str,
    family: str,
    lay_out: Callable[..., Path],
    verdict: Callable[[Path], tuple[int, str]],
    installed_version: dict[str, str],
) -> None:
    """Nothing but nginx knows whether directives fit together; a warning is a mistake too."""
    files = configuration(family, **VARIANTS[variant], wsgi_host={"packages": installed_version})
    code, said = verdict(lay_out(files))
    assert code == 0, said
    assert "[warn]" not in said


def test_the_test_of_nginx_can_fail(
    lay_out: Callable[..., Path],
    verdict: Callable[[Path], tuple[int, str]],
    installed_version: dict[str, str],
) -> None:
    """A check that reads another file than the one meant accepts anything."""
    broken = {**SITE, "max_body_size": "much"}
    host = {"packages": installed_version}
    code, said = verdict(lay_out(configuration("Debian", nginx_sites=[broken], wsgi_host=host)))
    assert code != 0
    assert "sites/toll-app.conf" in said


# Some of it this machine's nginx may not have, so the analysers alone read it.
ANALYSED = {name: each for name, each in VARIANTS.items() if name != "no-sites"} | {
    "http3": {"nginx_sites": [SITE, BOTH], "nginx_http3": True},
}


@functools.cache
def files_of(variant: str) -> Mapping[str, str]:
    """What a Debian host gets, for tests that only read it."""
    return configuration("Debian", **{**VARIANTS, **ANALYSED}[variant])


@pytest.mark.parametrize("variant", ANALYSED)
def test_the_parser_reads_every_file(variant: str, lay_out: Callable[..., Path]) -> None:
    """Tools that read configurations use it. It knows each directive's place and arguments."""
    path = lay_out(files_of(variant))
    parsed = crossplane.parse(str(path), check_ctx=True, check_args=True)
    errors = [each["error"] for file in parsed["config"] for each in file["errors"]]
    assert errors == []
    # Nothing that is written is left out.
    assert {Path(file["file"]).name for file in parsed["config"]} >= {
        "nginx.conf",
        "catch-all.conf",
        "headers.conf",
        *(f"{site['name']}.conf" for site in ANALYSED[variant]["nginx_sites"]),
    }


@pytest.mark.parametrize("variant", ANALYSED)
def test_the_analyser_finds_nothing(variant: str, lay_out: Callable[..., Path]) -> None:
    """gixy knows mistakes that nginx accepts: leaking aliases, spoofed hosts, lost headers."""
    path = lay_out(files_of(variant))
    # It takes $kept_or_new for part of a name that has to be resolved. All upstreams are addresses.
    skipped = ["--skips", "missing_resolver"]
    done = subprocess.run(
        [PROJECT / ".venv/bin/gixy", *skipped, "--format", "console", path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("system", VERSIONS)
def test_the_configuration_fits_the_versions_of_the_system(system: str) -> None:
    """One directive too new and nginx does not start; one too old and it warns for ever."""
    family, packages = VERSIONS[system]
    files = configuration(family, nginx_sites=[SITE, BOTH], wsgi_host={"packages": packages})
    site, tls = files["/etc/nginx/sites/toll-app.conf"], files["/etc/nginx/snippets/tls.conf"]
    listens = re.findall(r"listen .*443.*;", "".join(files.values()))
    if system in ("debian-13", "rhel-10"):  # nginx 1.26, OpenSSL 3.5
        assert "    http2 on;\n" in site
        assert not any("http2" in line for line in listens)
        assert "ssl_ecdh_curve ?X25519MLKEM768:X25519:prime256v1:secp384r1;" in tls
    else:
        assert "http2 on" not in site
        assert all(" ssl http2" in line for line in listens)
        assert "ssl_ecdh_curve X25519:prime256v1:secp384r1;" in tls


@pytest.mark.parametrize("sites", [[SITE, BOTH], [{**SITE, "default": True}, BOTH]])
def test_http3_is_offered_where_it_is_wanted(sites: list[dict[str, Any]]) -> None:
    """One socket for each address and worker, and every answer over TLS says where it is."""
    family, packages = VERSIONS["debian-13"]
    host = {"packages": packages}
    without = configuration(family, nginx_sites=sites, wsgi_host=host)
    assert not any(
        " quic;" in text or " quic reuseport" in text or "alt_svc" in text
        for text in without.values()
    )
    files = configuration(
        family, nginx_sites=sites, nginx_http3=True, nginx_public_https_port=8443, wsgi_host=host
    )
    listens = re.findall(r"listen (.*quic.*);", "".join(files.values()))
    first = [line for line in listens if line.endswith(" quic reuseport default_server")]
    assert sorted(first) == [
        "443 quic reuseport default_server",
        "[::]:443 quic reuseport default_server",
    ]
    assert len(listens) > len(first)
    assert (
        "add_header Alt-Svc $header_alt_svc always;" in (files["/etc/nginx/snippets/headers.conf"])
    )
    assert """on 'h3=":8443"; ma=86400';""" in files["/etc/nginx/snippets/variables.conf"]


@pytest.mark.parametrize(
    ("family", "version", "expected"),
    [
        ("Debian", "12", "1.22.1"),
        ("Debian", "13", "1.26.3"),
        ("Debian", "24.04", "1.24.0"),
        ("RedHat", "9.6", "1.20.1"),
        ("RedHat", "10.0", "1.26.3"),
        ("Debian", "99", "1.20.1"),
    ],
)
def test_a_bare_host_is_taken_for_what_its_system_ships(
    family: str, version: str, expected: str
) -> None:
    """Check mode shows the files before anything is installed, so it must guess right."""
    host = {"packages": {}, "distribution_version": version}
    assert evaluate("nginx", "__nginx_version", family, wsgi_host=host) == expected


def test_tls_is_the_profile_to_the_letter() -> None:
    """The profile is a whole; one suite more is another profile, and nobody has reviewed it."""
    tls = configuration("Debian")["/etc/nginx/snippets/tls.conf"]
    directives = dict(re.findall(r"(?m)^(ssl_\w+) (.*);$", tls))
    # https://ssl-config.mozilla.org/guidelines/6.0.json, intermediate
    assert directives["ssl_protocols"] == "TLSv1.2 TLSv1.3"
    assert directives["ssl_ciphers"].split(":") == [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ]
    assert directives["ssl_prefer_server_ciphers"] == "off"
    assert directives["ssl_session_tickets"] == "off"
    assert "ssl_stapling" not in directives
    assert "ssl_dhparam" not in directives


def blocks(text: str) -> list[str]:
    """Return the innermost and all other blocks of a configuration, without those inside them."""
    found, stack = [], [""]
    for line in text.splitlines():
        if line.rstrip().endswith("{"):
            stack.append("")
        elif line.strip() == "}":
            found.append(stack.pop())
        else:
            stack[-1] += line + "\n"
    return [*found, *stack]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_adds_a_header_adds_them_all(variant: str) -> None:
    """`add_header` in a server or location silently drops every header from around it."""
    files = files_of(variant)
    assert "include snippets/headers.conf;" in files["/etc/nginx/nginx.conf"]
    for dest, text in files.items():
        if dest == "/etc/nginx/snippets/headers.conf":
            continue
        for block in blocks(text):
            if "add_header" in block:
                assert "include snippets/headers.conf;" in block, dest


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variable_depends_on_how_far_a_request_came(variant: str) -> None:
    """`set` does not run for a request that nginx refuses early: its variable would be empty."""
    for dest, text in files_of(variant).items():
        assert not re.search(r"(?m)^\s*set \$", text), dest


@pytest.mark.parametrize("name", ["default", "hostnames", "include", "volatile"])
def test_a_host_may_be_called_what_maps_call_their_parameters(
    name: str,
    lay_out: Callable[..., Path],
    verdict: Callable[[Path], tuple[int, str]],
    installed_version: dict[str, str],
) -> None:
    files = configuration(
        "Debian",
        nginx_sites=[{**PLAIN, "domains": [name]}],
        wsgi_host={"packages": installed_version},
    )
    code, said = verdict(lay_out(files))
    assert code == 0, said


def test_the_port_that_clients_see_is_in_the_redirect() -> None:
    """Behind a mapped port a redirect to 443 leads to another host's site, or nowhere."""
    assert "return 301 https://$host$request_uri;" in site_text(SITE)
    assert "return 301 https://$host:8443$request_uri;" in site_text(
        SITE, nginx_public_https_port=8443
    )


@pytest.mark.parametrize(
    ("sites", "plain", "tls"),
    [([SITE], True, True), ([{**SITE, "default": True}], False, False), ([FILES], False, True)],
    ids=["none", "with-certificate", "without-certificate"],
)
def test_there_is_one_default_on_each_port(
    sites: list[dict[str, Any]], plain: bool, tls: bool
) -> None:
    """Without one, nginx takes the first site that it reads for every unknown name."""
    files = configuration("Debian", nginx_sites=sites)
    text = files["/etc/nginx/catch-all.conf"]
    assert ("listen 80 default_server;" in text) == plain
    assert ("ssl_reject_handshake on;" in text) == tls
    defaults = re.findall(r"listen (\S+) .*default_server;", "".join(files.values()))
    assert sorted(defaults) == ["443", "80", "[::]:443", "[::]:80"]


def test_only_listens_on_ipv6_where_the_host_has_it() -> None:
    """nginx does not start on a host without IPv6 when it shall listen on [::]."""
    everything = "".join(
        configuration("Debian", nginx_sites=[SITE, PLAIN], wsgi_host={"ipv6": False}).values()
    )
    assert "listen 80" in everything
    assert "[::]" not in everything


def test_private_locations_are_closed_with_everything_below() -> None:
    text = site_text(SITE)
    for location in ("= /metrics", "^~ /metrics/"):
        assert f"location {location} {{\n        return 404;" in text


def test_an_alias_and_its_location_end_alike() -> None:
    """`location /static` with `alias /dir/` gives out /dir's neighbours for /static../x."""
    text = site_text(SITE)
    found = re.findall(r"location \^~ (\S+) \{\n\s+alias (\S+);", text)
    assert len(found) == len(SITE["static"])
    for location, directory in found:
        assert location.endswith("/")
        assert directory.endswith("/")
        assert not directory.endswith("//")


def test_nothing_caches_open_files() -> None:
    """With a cache of open files the release before is served after `current` has moved."""
    directives = re.findall(r"(?m)^\s*(\w+)", "".join(configuration("Debian").values()))
    assert "open_file_cache" not in directives


def test_passwords_are_nobodys_business() -> None:
    """Their hashes are in one file alone, of which no diff shows a line."""
    users = RICH["basic_auth"]["users"]
    files = configuration("Debian", nginx_sites=[RICH])
    assert not any(users[0]["hash"] in text for text in files.values())
    written = render("nginx", "users.j2", "Debian", users={"name": "rich", "users": users})
    assert written == f"anna:{users[0]['hash']}\n"
    tree = yaml.safe_load((ROLES / "nginx/tasks/configure.yml").read_text())[0]
    entry = next(
        each for each in tree["wsgi.host.config_tree"]["files"] if each["template"] == "users.j2"
    )
    assert (entry["secret"], entry["mode"]) == (True, "0640")
    assert entry["group"] == "{{ __nginx_user }}"
    assert options("nginx")["nginx_sites"]["options"]["basic_auth"]["options"]["users"]["options"][
        "hash"
    ]["no_log"]


@pytest.mark.parametrize("family", FAMILIES)
def test_rendering_twice_gives_the_same(family: str) -> None:
    """A text that differs by itself reloads nginx with every run."""
    variant = VARIANTS["everything-changed"]
    assert configuration(family, **variant) == configuration(family, **variant)


@pytest.mark.parametrize("family", FAMILIES)
def test_systemd_accepts_the_drop_in(family: str, tmp_path: Path) -> None:
    """systemd ignores a directive that it cannot read, and starts the service without it."""
    unit = tmp_path / "nginx.service"
    unit.write_text("[Service]\nType=forking\nPIDFile=/run/nginx.pid\nExecStart=/bin/true\n")
    drop_in = tmp_path / "nginx.service.d/10-role.conf"
    drop_in.parent.mkdir()
    text = configuration(family)["/etc/systemd/system/nginx.service.d/10-role.conf"]
    drop_in.write_text(re.sub("/usr/local/libexec/nginx-[a-z]+", "/bin/true", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True
    )
    assert str(tmp_path) not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_the_cache_lies_where_nginx_may_make_it() -> None:
    """nginx makes the last directory of the path, when it only tests a configuration too.

    The one above has to be there by then and to be writable in the sandbox: the package's own.
    """
    files = configuration("Debian", **VARIANTS["cached"])
    (path,) = re.findall(r"proxy_cache_path (\S+)", "".join(files.values()))
    drop_in = files["/etc/systemd/system/nginx.service.d/10-role.conf"]
    (writable,) = re.findall(r"(?m)^ReadWritePaths=(.*)$", drop_in)
    assert str(Path(path).parent) == "/var/lib/nginx"
    assert "/var/lib/nginx" in writable.split()


def test_the_distributions_rule_rotates_what_is_logged() -> None:
    """A log that nobody rotates fills the disk; both families rotate /var/log/nginx/*.log."""
    everything = "".join(configuration("Debian", nginx_sites=[SITE]).values())
    logs = re.findall(r"(?:access_log|error_log) (\S+)", everything)
    assert ERRORS in logs
    for log in set(logs) - {ERRORS}:
        assert re.fullmatch(r"/var/log/nginx/[a-z]+\.log;?", log)


@pytest.mark.parametrize("name", ["nginx-reload", "nginx-restart", "nginx-start"])
def test_the_scripts_are_valid(name: str, tmp_path: Path) -> None:
    script = tmp_path / name
    script.write_text(render("nginx", f"libexec/{name}.j2", "Debian"))
    subprocess.run(["sh", "-n", script], check=True)


def test_a_stop_is_left_to_systemd(tmp_path: Path) -> None:
    """Only what starts again may leave its sockets open: a stopped nginx must refuse clients."""
    program = tmp_path / "nginx-handover"
    program.write_text(render("nginx", "libexec/nginx-handover.j2", "Debian"))
    program.chmod(0o755)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\necho 7 nginx.service stop running\n'
    )
    systemctl.chmod(0o755)
    # Without NOTIFY_SOCKET: whatever it said to systemd would fail.
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([program, "stop"], check=True, env=environment)
    assert (tmp_path / "calls").read_text().splitlines()[-1] == (
        "--no-block stop nginx-draining-*.scope"
    )


APACHE = {
    "protocol": "tcp",
    "address": "0.0.0.0",
    "port": 80,
    "program": "apache2",
    "unit": "apache2.service",
    "pid": 42,
}

# What preflight finds, by guard: variables, and a part of the message.
GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt-variable": (
        {"nginx_htpp_port": 81},
        "nginx_htpp_port is not a variable of role nginx; did you mean nginx_http_port?",
    ),
    "wrong-type": ({"nginx_gzip": "sometimes"}, "nginx_gzip"),
    "not-a-port": ({"nginx_http_port": 70000}, "nginx_http_port is 70000"),
    "equal-ports": (
        {"nginx_http_port": 8080, "nginx_https_port": 8080},
        "nginx_https_port (8080) is also nginx_http_port: use different ports for HTTP and HTTPS",
    ),
    "site-without-name": ({"nginx_sites": [{"domains": ["a.example.org"]}]}, "name"),
    "unknown-key-of-a-site": (
        {"nginx_sites": [{**PLAIN, "certificat": "/x"}]},
        "certificat",
    ),
    "not-a-domain": (
        {"nginx_sites": [{**PLAIN, "domains": ["https://a.example.org"]}]},
        'nginx_sites[0].domains[0] is "https://a.example.org", which starts with a scheme',
    ),
    "not-an-upstream": (
        {"nginx_sites": [{**PLAIN, "upstream": "localhost:5000"}]},
        'nginx_sites[0].upstream is "localhost:5000"',
    ),
    "relative-directory": (
        {"nginx_sites": [{**PLAIN, "static": [{"location": "/s/", "directory": "static"}]}]},
        'nginx_sites[0].static[0].directory is "static", which is not an absolute path',
    ),
    "wrong-choice": ({"nginx_sites": [{**PLAIN, "http": "maybe"}]}, "redirect"),
    "two-sites-of-one-name": (
        {"nginx_sites": [PLAIN, {**PLAIN, "name": "PLAIN", "domains": ["b.example.org"]}]},
        "nginx_sites has two sites with the same name, among plain, PLAIN: give each site",
    ),
    "repeated-domain": (
        {"nginx_sites": [PLAIN, {**PLAIN, "name": "b", "domains": ["PLAIN.example.org"]}]},
        "nginx_sites lists a domain twice: plain.example.org: assign each domain to one site",
    ),
    "no-domains": (
        {"nginx_sites": [{**PLAIN, "domains": []}]},
        "nginx_sites has sites without domains: plain: list their domains",
    ),
    "two-defaults": (
        {"nginx_sites": [FILES, {**PLAIN, "default": True}]},
        "nginx_sites has more than one default site: files, plain",
    ),
    "certificate-without-key": (
        {"nginx_sites": [{**PLAIN, "certificate": "/etc/ssl/a.pem"}]},
        "nginx_sites has a certificate without a key, or a key without a certificate, in: plain",
    ),
    "key-without-certificate": (
        {"nginx_sites": [{**PLAIN, "certificate_key": "/etc/ssl/a.pem"}]},
        "nginx_sites has a certificate without a key, or a key without a certificate, in: plain",
    ),
    "nothing-to-serve": (
        {"nginx_sites": [{"name": "idle", "domains": ["a.example.org"]}]},
        "nginx_sites has sites that serve nothing: idle",
    ),
    "not-a-size": (
        {"nginx_max_body_size": "lots"},
        'nginx_max_body_size is "lots", which is not a size: write a number of bytes',
    ),
    "not-a-size-of-a-site": (
        {"nginx_sites": [{**PLAIN, "max_body_size": "1g"}]},
        'nginx_sites[0].max_body_size is "1g", which is not a size',
    ),
    "policy-with-quotation-marks": (
        {"nginx_content_security_policy": 'default-src "self"'},
        "has a quotation mark, a dollar, a backslash or a line break: leave them out",
    ),
    "policy-of-a-site-with-a-dollar": (
        {"nginx_sites": [{**PLAIN, "content_security_policy": "default-src $host"}]},
        "nginx_sites has a content_security_policy with a quotation mark, a dollar",
    ),
    "header-with-a-line-break": (
        {"nginx_security_headers": {"X-Frame-Options": "DENY\nX-Other: 1"}},
        "which has a line break or another control character: write it in",
    ),
    "header-that-is-none": (
        {"nginx_security_headers": {"X Frame": "DENY"}},
        "nginx_security_headers has a key that is not the name of a header",
    ),
    "header-of-another-variable": (
        {"nginx_security_headers": {"Strict-Transport-Security": "max-age=1"}},
        "nginx_security_headers has a header that another variable sets",
    ),
    "static-location-without-slash": (
        {"nginx_sites": [{**PLAIN, "static": [{"location": "/s", "directory": "/srv/s"}]}]},
        "nginx_sites has a static location that is not a path with a slash at both ends",
    ),
    "private-location-with-slash": (
        {"nginx_sites": [{**PLAIN, "private_locations": ["/metrics/"]}]},
        "nginx_sites has a private location that is not a path without a slash at the end",
    ),
    "no-network-to-let-through": (
        {"nginx_sites": [{**PLAIN, "maintenance_allow": ["office"]}]},
        'nginx_sites[0].maintenance_allow[0] is "office", which is neither an IP address nor',
    ),
    "open-path-with-a-query": (
        {"nginx_sites": [{**PLAIN, "maintenance_open": ["/health?full=1"]}]},
        "nginx_sites has an entry in maintenance_open that is not a plain path: write it without",
    ),
    "health-path-with-a-query": (
        {"nginx_sites": [{**PLAIN, "health_paths": ["/health?full=1"]}]},
        "nginx_sites has an entry in health_paths that is not a path, or that has a query",
    ),
    "cache-location-with-slash": (
        {"nginx_sites": [{**PLAIN, "cache": {"locations": ["/news/"]}}]},
        "nginx_sites has a cache location that is neither / nor a path without a slash at the end",
    ),
    "cache-that-is-a-word": (
        {"nginx_sites": [{**PLAIN, "cache": "yes"}]},
        "cache",
    ),
    "cache-without-upstream": (
        {"nginx_sites": [{**FILES, "cache": {"locations": ["/news"]}}]},
        "nginx_sites has a cache for sites without an upstream: files",
    ),
    "relative-key-path": (
        {"nginx_sites": [{**PLAIN, "cache": {"locations": ["/"], "key_path": "current"}}]},
        'nginx_sites[0].cache.key_path is "current", which is not an absolute path',
    ),
    "cache-of-no-size": ({"nginx_cache_size_mib": 0}, "nginx_cache_size_mib is 0"),
    "hidden-directory": (
        {"nginx_sites": [{**PLAIN, "static": [{"location": "/s/", "directory": "/home/s"}]}]},
        "nginx_sites has static files in a place that the sandbox of nginx.service hides",
    ),
    "two-purposes": (
        {"nginx_sites": [{**PLAIN, "redirect": {"to": "https://a.example.org"}}]},
        "nginx_sites has more than one of upstream, upstreams, redirect and directory in: plain",
    ),
    "path-twice": (
        {"nginx_sites": [{**PLAIN, "locations": [{"path": "/a"}, {"path": "/a"}]}]},
        "nginx_sites lists a path twice: plain/a: describe each path in one place",
    ),
    "path-of-another-list": (
        {
            "nginx_sites": [
                {
                    **PLAIN,
                    "private_locations": ["/metrics"],
                    "locations": [{"path": "/metrics", "exact": True}],
                }
            ]
        },
        "nginx_sites lists a path twice: plain/metrics",
    ),
    "only-backups": (
        {
            "nginx_sites": [
                {**FILES, "upstreams": [{"address": "[::1]:1", "backup": True}]},
            ]
        },
        "nginx_sites has only backup servers in: files",
    ),
    "open-passwords": (
        {"nginx_sites": [{**PLAIN, "basic_auth": RICH["basic_auth"]}]},
        "nginx_sites asks for passwords over plain HTTP, in: plain",
    ),
    "certificates-that-nobody-shows": (
        {"nginx_sites": [{**RICH, "http": "serve"}]},
        "nginx_sites asks clients for certificates without HTTPS, in: rich",
    ),
    "certificates-that-end-before": (
        {"nginx_sites": [RICH], "nginx_trusted_proxies": ["192.0.2.1"]},
        "nginx_sites asks clients for certificates without HTTPS, in: rich",
    ),
    "unasked-certificates": (
        {"nginx_sites": [{**PLAIN, "locations": [{"path": "/a", "client_certificate": True}]}]},
        "nginx_sites has a location with client_certificate in a site without client_certificates: "
        "plain/a",
    ),
    "open-directory": (
        {"nginx_sites": [{**PLAIN, "locations": [{"path": "/a", "directory": "/srv/a"}]}]},
        "nginx_sites has a directory under a path without a slash at its end: plain/a",
    ),
    "redirect-in-a-circle": (
        {
            "nginx_sites": [
                {**PLAIN, "locations": [{"path": "/a", "redirect": {"to": "/", "keep_path": True}}]}
            ]
        },
        "nginx_sites has a redirect with keep_path that leads back to the same path: plain/a: "
        "write a URL or another path in to, or leave out keep_path",
    ),
    "redirect-of-a-site-in-a-circle": (
        {"nginx_sites": [{**MOVED, "redirect": {"to": "//", "keep_path": True}}]},
        "nginx_sites has a redirect with keep_path that leads back to the same path: moved/: write",
    ),
    "hidden-directory-of-a-location": (
        {"nginx_sites": [{**PLAIN, "locations": [{"path": "/a/", "directory": "/root/a"}]}]},
        "nginx_sites has static files in a place that the sandbox of nginx.service hides",
    ),
    "trusting-everybody": (
        {"nginx_trusted_proxies": ["0.0.0.0/0"]},
        "nginx_trusted_proxies has a network of all addresses",
    ),
    "proxy-protocol-of-nobody": (
        {"nginx_proxy_protocol": True},
        "nginx_proxy_protocol (true) needs nginx_trusted_proxies, which is",
    ),
    "proxy-port-of-https": (
        {"nginx_proxy_protocol_http_port": 443},
        "nginx_proxy_protocol_http_port (443) is also a port for HTTPS",
    ),
    "proxy-port-of-http": (
        {"nginx_proxy_protocol_https_port": 80, "nginx_proxy_protocol_http_port": 81},
        "nginx_proxy_protocol_https_port (80) is also nginx_http_port",
    ),
    "peers-without-the-proxy-protocol": (
        {
            "nginx_trusted_proxies": ["192.0.2.1"],
            "nginx_proxy_protocol": True,
            "nginx_challenge_peers": ["192.0.2.11:80"],
        },
        "nginx_proxy_protocol_http_port (80) is also nginx_http_port, where other hosts of the "
        "same names (192.0.2.11:80) fetch answers",
    ),
    "host-in-a-network": (
        {"nginx_trusted_proxies": ["192.0.2.1/24"]},
        'nginx_trusted_proxies[0] is "192.0.2.1/24", which names a host within a network: write '
        "192.0.2.0/24",
    ),
    "not-a-network": (
        {"nginx_sites": [{**PLAIN, "allow": ["office.example.org"]}]},
        'nginx_sites[0].allow[0] is "office.example.org", which is neither an IP address nor a',
    ),
    "not-a-rate": (
        {"nginx_limit_rate": "50"},
        'nginx_limit_rate is "50", which is not a rate: write one such as 20r/s or 10r/m',
    ),
    "not-a-header": (
        {"nginx_client_address_header": "X-Real IP"},
        'nginx_client_address_header is "X-Real IP", which is not the name of a header',
    ),
    "location-that-ends-the-line": (
        {"nginx_sites": [{**PLAIN, "locations": [{"path": "/a; return 200"}]}]},
        "which is not a path of letters, digits",
    ),
    "redirect-with-a-variable": (
        {"nginx_sites": [{**MOVED, "redirect": {"to": "https://$host"}}]},
        'nginx_sites[0].redirect.to is "https://$host", which is neither a URL nor a path',
    ),
    "redirect-that-ends-the-line": (
        {"nginx_sites": [{**MOVED, "redirect": {"to": "/a;}"}}]},
        'nginx_sites[0].redirect.to is "/a;}", which is neither a URL nor a path',
    ),
    "password-in-place-of-its-hash": (
        {"nginx_sites": [{**RICH, "basic_auth": {"users": [{"name": "a", "hash": "hunter2"}]}}]},
        "nginx_sites[0].basic_auth.users[0].hash is not a hash that begins with $6$",
    ),
    "user-with-a-colon": (
        {"nginx_sites": [{**RICH, "basic_auth": {"users": [{"name": "a:b", "hash": "$6$a"}]}}]},
        'nginx_sites[0].basic_auth.users[0].name is "a:b", which cannot name a user',
    ),
    "too-few-files": (
        {"nginx_worker_connections": 9000},
        "nginx_open_files (8192) is less than twice nginx_worker_connections",
    ),
    "not-a-number-of-workers": (
        {"nginx_worker_processes": "many"},
        'nginx_worker_processes ("many") is neither auto nor a number',
    ),
}


# The same for what preflight finds on the host.
HOSTS: dict[str, tuple[Case, str]] = {
    "old-nginx": (
        Case(host={"packages": {"nginx": "1.18.0-6ubuntu14"}, "pretty_name": "Ubuntu 22.04"}),
        "nginx_sites cannot be served by nginx 1.18.0, which Ubuntu 22.04 has",
    ),
    "http3-without-it": (
        Case(
            {"nginx_http3": True},
            host={
                "packages": {"nginx": "1.22.1-9+deb12u9"},
                "pretty_name": "Debian GNU/Linux 12 (bookworm)",
            },
        ),
        "nginx_http3 (true) needs HTTP/3, which nginx 1.22.1 of Debian GNU/Linux 12 (bookworm) "
        "does not have: set it to false, or use a release of the system with nginx 1.25.0 or newer",
    ),
    "unsupported-system": (
        Case(host={"distribution": "alpine", "pretty_name": "Alpine Linux 3.22", "packages": {}}),
        "the host runs Alpine Linux 3.22 (family alpine); role nginx supports Debian, RedHat",
    ),
    "without-systemd": (
        Case(host={"systemd": {"running": False, "version": 0}}),
        "the host is not run by systemd",
    ),
    "port-of-another-program": (
        Case(host={"listeners": [APACHE]}),
        "nginx_http_port needs port 80, but apache2 (pid 42, apache2.service) listens on 0.0.0.0",
    ),
    "full-disk": (
        Case(host={"mounts": {"/": 100}}),
        "/usr and /var has 100 MiB free on the file system /; 250 MiB are needed",
    ),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What preflight says to each case."""
    cases = {name: Case(variables) for name, (variables, _) in GUARDS.items()}
    cases |= {name: case for name, (case, _) in HOSTS.items()}
    cases |= {
        "good": Case({"nginx_sites": [SITE, PLAIN, BOTH, CACHED]}),
        "good-in-maintenance": Case(VARIANTS["maintenance"]),
        "good-and-changed": Case(VARIANTS["everything-changed"]),
        "good-and-rich": Case(VARIANTS["all-members"]),
        "good-behind-a-proxy": Case(VARIANTS["behind-a-proxy"]),
        "good-proxy-protocol": Case(
            {**VARIANTS["proxy-protocol-beside"], "nginx_challenge_peers": ["192.0.2.11:80"]}
        ),
        "good-and-running": Case(host={"listeners": [{**APACHE, "program": "nginx"}]}),
    }
    return preflight("nginx", cases)


@pytest.mark.parametrize("guard", [*GUARDS, *HOSTS])
def test_preflight_names_what_is_wrong(guard: str, findings: dict[str, str]) -> None:
    """A bad value is to stop the run before anything is touched, and to say what to do."""
    expected = (GUARDS | HOSTS)[guard][1]
    assert expected in findings[guard]
    assert "Nothing was changed on" in findings[guard]


@pytest.mark.parametrize(
    "case",
    [
        "good",
        "good-in-maintenance",
        "good-and-changed",
        "good-and-rich",
        "good-behind-a-proxy",
        "good-proxy-protocol",
        "good-and-running",
    ],
)
def test_preflight_lets_good_variables_pass(case: str, findings: dict[str, str]) -> None:
    """One that always complains would pass every test above."""
    assert findings[case] == ""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"nginx_sites": [SITE]}, False),
        ({"nginx_sites": [SITE, PLAIN]}, True),
        ({"nginx_sites": [SITE], "nginx_challenge_peers": ["192.0.2.11:80"]}, True),
    ],
    ids=["a socket", "a port", "other hosts"],
)
def test_selinux_lets_nginx_connect_where_it_has_to(
    variables: dict[str, Any], expected: bool
) -> None:
    first, *_ = yaml.safe_load((ROLES / "nginx/tasks/selinux/permit.yml").read_text())
    assert evaluate("nginx", first["when"], "RedHat", **variables) is expected
