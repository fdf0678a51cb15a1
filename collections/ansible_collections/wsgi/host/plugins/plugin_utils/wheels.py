"""Installs locked wheels for a host's Python on the control node, with uv."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .addresses import without_login
from .locks import COMPILE, BundleError, normalise, read_lock

# manylinux_2_28: Debian 10, Ubuntu 20.04, RHEL 8 and everything newer.
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
SYSTEM_PIP_FILES = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))
# Who runs a program of somebody else's and how it reaches the network. Nothing else of this process
# is its business.
KEPT = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
    }
)
PREFIXES = ("npm_config_", "NPM_CONFIG_", "YARN_", "UV_", "PIP_")
NO_WHEEL = re.compile(r"([\w.-]+)==\S+ has no usable wheels")


def find_uv() -> str:
    """Return the path of uv: the one beside this Python, or else the one on PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if found is None:
        raise BundleError(
            f"uv, which builds bundles, is neither beside {sys.executable} nor on PATH. Install "
            f"the tools of this project: {sys.executable} -m pip install -r requirements.txt"
        )
    return found


def pip_settings(environment: dict[str, str]) -> dict[str, str]:
    """Return pip's global and install settings, later files before earlier, environment first."""
    home = Path(environment.get("HOME", "/nonexistent"))
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        files = []
    else:
        files = [
            *SYSTEM_PIP_FILES,
            home / ".pip/pip.conf",
            config / "pip/pip.conf",
            Path(sys.prefix, "pip.conf"),
            *([Path(named)] if named else []),
        ]
    settings: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        # A file that pip could not read either is no reason to stop here.
        with contextlib.suppress(configparser.Error, UnicodeDecodeError):
            parser.read(file, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for key, value in environment.items():
        if key.startswith("PIP_") and value:
            settings[key[4:].lower().replace("_", "-")] = value
    return settings


def uv_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment for uv, in which pip's index settings fill in for missing ones.

    uv reads none of pip's settings. An operator who has configured pip for the company's index
    has said all that there is to say.
    """
    result = {"UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1", **environment}
    settings = pip_settings(environment)
    indexes = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    if not any(environment.get(name) for name in (*indexes, "UV_FIND_LINKS", "UV_NO_INDEX")):
        for key, name, separator in (
            ("index-url", "UV_DEFAULT_INDEX", " "),
            ("extra-index-url", "UV_INDEX", " "),
            ("find-links", "UV_FIND_LINKS", ","),
            ("trusted-host", "UV_INSECURE_HOST", " "),
        ):
            if key in settings:
                result[name] = separator.join(settings[key].split())
        if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            result["UV_NO_INDEX"] = "1"
    authority = settings.get("cert") or environment.get("REQUESTS_CA_BUNDLE")
    if authority and not environment.get("SSL_CERT_FILE"):
        result["SSL_CERT_FILE"] = authority
    return result


def for_others(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment a build step, or the build of a package, may read."""
    return {
        key: value
        for key, value in environment.items()
        if key in KEPT or (key.startswith(PREFIXES) and key != "UV_PROJECT_ENVIRONMENT")
    }


def sdist_options(sdists: Sequence[str]) -> list[str]:
    """Return uv's options for wheels alone, apart from these packages."""
    apart = (word for name in sdists for word in ("--no-binary", name))
    return ["--only-binary", ":all:", *apart]


def check_sdists(lock: Path, sdists: Sequence[str]) -> None:
    """Raise BundleError where a package that shall be built is not in the lock file."""
    locked = read_lock(lock)
    for name in sdists:
        if normalise(name) not in locked:
            raise BundleError(f"source.sdists: {name} is not in {lock}. Correct it, or remove it")


def check_pure(target: Path, sdists: Sequence[str]) -> None:
    """Raise BundleError where a package was built for this machine's Python and processor alone."""
    wanted = {normalise(name) for name in sdists}
    for path in sorted(target.glob("*.dist-info/WHEEL")):
        name = path.parent.name.removesuffix(".dist-info").rpartition("-")[0]
        tags = re.findall(r"^Tag: (\S+)$", path.read_text(encoding="utf-8"), re.M)
        if normalise(name) in wanted and not all(tag.endswith("-none-any") for tag in tags):
            raise BundleError(
                f"source.sdists: {name} has compiled parts ({', '.join(tags)}), which are "
                "built for the control node and not for the host. Lock a version that has a wheel"
            )


def install(
    uv: str,
    lock: Path,
    target: Path,
    python: str,
    architecture: str,
    sdists: Sequence[str] = (),
) -> None:
    """Install the locked packages into `target`; raise BundleError with uv's words if it fails.

    Args:
        sdists: packages that have no wheel, and are built from their locked source archives.
    """
    command = [
        *(uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target)),
        *("--python-version", python, "--python-platform", PLATFORMS[architecture]),
        *(*sdist_options(sdists), "--require-hashes", "--no-deps"),
        # Any index may have the file: its hash decides, not the index's rank.
        *("--index-strategy", "unsafe-best-match"),
        *("--requirement", str(lock)),
    ]
    # Not the directory of the playbook, whose pyproject.toml may hold settings for uv.
    done = subprocess.run(
        command,
        cwd=target.parent,
        # The build of a package runs its code.
        env=uv_environment(
            {**for_others(os.environ), "PATH": os.environ.get("PATH", os.defpath)}
            if sdists
            else dict(os.environ)
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        check_pure(target, sdists)
        return
    told = without_login(done.stderr.strip()).splitlines()[-20:]
    words = "\n".join(told) or f"exit status {done.returncode}"
    named = [
        f"{name} (line {line})"
        for name, line in read_lock(lock).items()
        if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", words.lower())
    ]
    lower = words.lower()
    if "hash mismatch" in lower:
        remedy = (
            "The index serves another file than the one that was locked: find out why, then "
            f"write the lock file again: {COMPILE.format(lock=lock.name)}"
        )
    elif any(part in lower for part in ("certificate", "dns error", "connect", "timed out", "401")):
        remedy = (
            "The package index was not reached: check the control node's index, proxy and "
            "certificate authority (UV_DEFAULT_INDEX, HTTPS_PROXY, SSL_CERT_FILE, or pip.conf)"
        )
    elif without := sorted(set(NO_WHEEL.findall(" ".join(words.split())))):
        remedy = (
            f"Lock a version of {', '.join(without)} that has a wheel. If there is none, and it "
            f"needs no compiler, have the control node build it: source.sdists: "
            f"[{', '.join([*sdists, *without])}]"
        )
    elif "wheel" in lower or "no solution" in lower or "unsatisfiable" in lower:
        remedy = (
            f"Lock a version that has a wheel for Python {python} on {PLATFORMS[architecture]}: "
            f"{COMPILE.format(lock=lock.name)}"
        )
    else:
        remedy = "Run the command by hand to see more: " + " ".join(command)
    where = f", {', '.join(named)}" if named else ""
    raise BundleError(
        f"{lock}{where}: uv could not install the locked packages for Python {python} on "
        f"{architecture}. {remedy}\n\n{words}"
    )


def dropped(name: str) -> bool:
    """Return whether a file that uv installed stays out of the bundle."""
    parts = name.split("/")
    # Scripts carry the control node's Python in their first line: `python -m` replaces them.
    return parts[0] in ("bin", ".lock") or "__pycache__" in parts or name.endswith(".pyc")


def package_files(target: Path) -> dict[str, bytes]:
    """Return the content of each installed file by its path in site-packages."""
    files: dict[str, bytes] = {}
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or not path.is_file() or dropped(name):
            continue
        content = path.read_bytes()
        if name.endswith(".dist-info/RECORD"):
            lines = content.decode().splitlines(keepends=True)
            content = "".join(
                line for line in lines if not dropped(line.removeprefix("../").split(",")[0])
            ).encode()
        files[name] = content
    return files
