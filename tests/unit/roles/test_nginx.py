"""The nginx role's configuration, rendered for every family and read by nginx itself."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .render import FACTS, FAMILIES, ROLES, evaluate, render

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
        "nginx_hsts_max_age_seconds": 300,
        "nginx_hsts_include_subdomains": True,
        "nginx_content_security_policy": "default-src https:",
        "nginx_security_headers": {"X-Frame-Options": "SAMEORIGIN"},
        "nginx_max_body_size": "8m",
        "nginx_gzip": False,
        "nginx_client_timeout_seconds": 5,
        "nginx_keepalive_timeout_seconds": 10,
        "nginx_proxy_connect_timeout_seconds": 1,
        "nginx_proxy_read_timeout_seconds": 120,
        "nginx_retry_after_seconds": 30,
        "nginx_drain_timeout_seconds": 60,
        "nginx_stop_timeout_seconds": 5,
        "nginx_worker_processes": "3",
        "nginx_worker_connections": 512,
        "nginx_open_files": 2048,
    },
    "plain-default": {"nginx_sites": [FILES, SITE]},
}

# nginx and OpenSSL as Debian 12, Debian 13, RHEL 9 and RHEL 10 have them.
VERSIONS = {
    "debian-12": ("Debian", {"nginx": "1.22.1-9+deb12u9", "libssl3": "3.0.20-1~deb12u2"}),
    "debian-13": ("Debian", {"nginx": "1.26.3-3+deb13u10", "libssl3t64": "3.5.9-1~deb13u1"}),
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


@pytest.fixture(scope="session")
def nginx_program() -> tuple[Path, Path]:
    """nginx and its mime.types: those of this machine, else unpacked from the distribution's package.

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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, which nginx reads while it tests a configuration."""
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
    directory = tmp_path_factory.mktemp("certificate")
    paths = directory / "fullchain.pem", directory / "privkey.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture
def lay_out(
    tmp_path: Path, nginx_program: tuple[Path, Path], certificate: tuple[Path, Path]
) -> Callable[..., Path]:
    """Writes a rendered configuration below tmp_path, with the host's absolute paths led there."""

    def write(files: Mapping[str, str]) -> Path:
        replaced = {
            "/etc/nginx/mime.types": str(nginx_program[1]),
            "/etc/nginx/modules-enabled/*.conf": str(tmp_path / "modules/*.conf"),
            "/usr/share/nginx/modules/*.conf": str(tmp_path / "modules/*.conf"),
            "/run/nginx.pid": str(tmp_path / "nginx.pid"),
            "/var/log/nginx": str(tmp_path / "log"),
            SITE["certificate"]: str(certificate[0]),
            SITE["certificate_key"]: str(certificate[1]),
        }
        (tmp_path / "log").mkdir(exist_ok=True)
        (tmp_path / "work").mkdir(exist_ok=True)
        for dest, text in files.items():
            if not dest.startswith("/etc/nginx/"):
                continue
            for old, new in replaced.items():
                text = text.replace(old, new)
            # The family's user need not exist here, and places for bodies belong to the package.
            text = re.sub(r"(?m)^user .*\n", "", text)
            if dest == "/etc/nginx/nginx.conf":
                places = "".join(
                    f"    {kind}_temp_path {tmp_path}/work/{kind};\n"
                    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
                )
                text = text.replace("http {\n", "http {\n" + places)
            path = tmp_path / dest.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "etc/nginx/nginx.conf"

    return write


@pytest.fixture
def verdict(nginx_program: tuple[Path, Path]) -> Callable[[Path], tuple[int, str]]:
    def test(path: Path) -> tuple[int, str]:
        done = subprocess.run(
            [nginx_program[0], "-t", "-p", path.parent, "-c", path],
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


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "no-sites"])
def test_the_analyser_finds_nothing(variant: str, lay_out: Callable[..., Path]) -> None:
    """gixy knows mistakes that nginx accepts: leaking aliases, spoofed hosts, lost headers."""
    path = lay_out(configuration("Debian", **VARIANTS[variant]))
    done = subprocess.run(
        [PROJECT / ".venv/bin/gixy", "--format", "console", path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
