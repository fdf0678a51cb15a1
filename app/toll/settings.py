"""Settings, read once from the environment when the application starts."""

from __future__ import annotations

import difflib
import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toll.database import INSTANCE, normalised_url

# 32 hexadecimal digits, or 16 random bytes in any other notation, hold 128 bits or more.
SECRET_KEY_CHARACTERS = 32
GENERATE = "python3 -c 'import secrets; print(secrets.token_hex(32))'"

VARIABLES = {
    "TOLL_ENVIRONMENT": "production (the default) or development",
    "TOLL_SECRET_KEY": "secret that signs cookies; else the credential secret_key is read",
    "TOLL_PROXIES": (
        "1 behind one reverse proxy that sets X-Forwarded-* and connects over a unix socket; "
        "0 (the default) otherwise"
    ),
    "TOLL_PROXY_ADDRESSES": (
        "addresses or networks of proxies that connect over TCP, with commas between them"
    ),
    "TOLL_DATABASE_URL": (
        "database, which may hold a password; else the credential database_url is read, else it is "
        "SQLite in $STATE_DIRECTORY/toll.db"
    ),
    "TOLL_METRICS_DIRECTORY": (
        "where processes share their metrics and count log-ins; "
        "$RUNTIME_DIRECTORY/metrics by default"
    ),
    "TOLL_BIND": "address:port for gunicorn_config.py and app.py",
}


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """The environment does not allow a start; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the application is told from outside."""

    development: bool = False
    secret_key: str = field(repr=False)
    # May hold a password.
    database_url: str = field(repr=False)
    # None: a temporary one.
    metrics_directory: Path | None = None
    # Where processes share how much is read at once; None: a temporary one.
    reads_directory: Path | None = None
    # Where processes wake one another that wait to write to SQLite; None: they look again.
    writers: Path | None = None
    proxies: int = 0
    # Whose X-Forwarded-* count over TCP.
    proxy_networks: tuple[Network, ...] = ()
    unknown: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; raise SettingsError with every problem found."""
        environment = os.environ if environment is None else environment
        problems: list[str] = []

        name = environment.get("TOLL_ENVIRONMENT", "production")
        if name not in ("production", "development"):
            problems.append(
                f"TOLL_ENVIRONMENT is {name!r}. Set it to production, or to development on "
                f"your own machine"
            )
        development = name == "development"

        proxies = environment.get("TOLL_PROXIES", "0")
        if proxies not in ("0", "1"):
            problems.append(
                f"TOLL_PROXIES is {proxies!r}. Set it to 1 behind one reverse proxy, else to 0"
            )

        networks: list[Network] = []
        addresses = environment.get("TOLL_PROXY_ADDRESSES", "")
        for address in filter(None, map(str.strip, addresses.split(","))):
            try:
                networks.append(ipaddress.ip_network(address))
            except ValueError:
                problems.append(
                    f"TOLL_PROXY_ADDRESSES has {address!r}, which is no address or network. Write "
                    f"such as 192.0.2.7 or 192.0.2.0/24, with commas between them"
                )
        if addresses and proxies == "0":
            problems.append("TOLL_PROXY_ADDRESSES is set without TOLL_PROXIES=1. Set both, or none")

        secret_key = ""
        try:
            secret_key = _secret_key(environment, development)
        except SettingsError as error:
            problems.append(str(error))

        database_url = ""
        try:
            database_url = _database_url(environment, development)
        except SettingsError as error:
            problems.append(str(error))

        metrics = environment.get("TOLL_METRICS_DIRECTORY") or None
        # systemd may name several: the first is the service's own.
        runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
        if not metrics and runtime:
            metrics = f"{runtime}/metrics"

        if problems:
            raise SettingsError("toll-app cannot start:\n" + "\n".join(f"- {p}" for p in problems))
        ours = {name for name in environment if name.startswith("TOLL_")}
        return cls(
            development=development,
            secret_key=secret_key,
            proxies=int(proxies),
            proxy_networks=tuple(networks),
            database_url=database_url,
            metrics_directory=Path(metrics) if metrics else None,
            reads_directory=Path(runtime, "reads") if runtime else None,
            writers=Path(runtime, "writers") if runtime else None,
            unknown=tuple(sorted(ours - VARIABLES.keys())),
        )

    def warnings(self) -> list[str]:
        """Return what looks like a mistake but does not hinder a start.

        A variable that this release does not know may be one of the next, or of the last.
        """
        lines = []
        for name in self.unknown:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"{name} is not a setting of toll-app{hint}")
        return lines


def _secret(environment: Mapping[str, str], variable: str, credential: str) -> tuple[str, str]:
    """Return where a secret was found, and the secret: from the environment, or from systemd."""
    source, value = variable, environment.get(variable, "")
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not value and directory:
        file = Path(directory, credential)
        source = f"The credential {file}"
        try:
            value = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{source} cannot be read: {error}") from error
    return source, value


def _database_url(environment: Mapping[str, str], development: bool) -> str:
    """Return the database's URL, whose text no message repeats."""
    source, url = _secret(environment, "TOLL_DATABASE_URL", "database_url")
    if url:
        try:
            normalised_url(url)
        except ValueError as error:
            problem, remedy = error.args
            raise SettingsError(f"{source} {problem}. {remedy}") from None
        return url
    if state := environment.get("STATE_DIRECTORY", "").split(":")[0]:
        return f"sqlite:///{Path(state, 'toll.db')}"
    if development:
        return f"sqlite:///{INSTANCE / 'toll.db'}"
    raise SettingsError(
        "There is no database. Set TOLL_DATABASE_URL, or give systemd the credential "
        "database_url, to a URL such as postgresql://user@/toll?host=/run/postgresql; or set "
        "STATE_DIRECTORY to a directory for SQLite, as systemd's StateDirectory= does"
    )


def _secret_key(environment: Mapping[str, str], development: bool) -> str:
    """Return the secret key from the environment or from systemd's credentials.

    In development one is made up for each start, so that no key is ever in the source.
    """
    source, key = _secret(environment, "TOLL_SECRET_KEY", "secret_key")
    if not key and development:
        return secrets.token_hex(32)
    if not key:
        raise SettingsError(
            "There is no secret key. Set TOLL_SECRET_KEY, or give systemd the credential "
            f"secret_key, to the output of: {GENERATE}"
        )
    if len(key) < SECRET_KEY_CHARACTERS:
        raise SettingsError(
            f"{source} has {len(key)} characters, and the secret key needs at least "
            f"{SECRET_KEY_CHARACTERS}. Set it to the output of: {GENERATE}"
        )
    return key
