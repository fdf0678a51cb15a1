"""Settings, read once from the environment when the application starts."""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# 32 hexadecimal digits, or 16 random bytes in any other notation, hold 128 bits or more.
SECRET_KEY_CHARACTERS = 32
GENERATE = "python3 -c 'import secrets; print(secrets.token_hex(32))'"

TARIFFS = Path(__file__).with_name("tariffs.toml")

VARIABLES = {
    "TOLL_ENVIRONMENT": "production (the default) or development",
    "TOLL_SECRET_KEY": "secret that signs cookies; else the credential secret_key is read",
    "TOLL_PROXIES": "1 behind one reverse proxy that sets X-Forwarded-*; 0 (the default) otherwise",
    "TOLL_TARIFFS": "path of the tariff table; the package's own by default",
    "TOLL_BIND": "address:port for gunicorn_config.py and app.py",
}


class SettingsError(Exception):
    """The environment does not allow a start; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the application is told from outside."""

    development: bool = False
    secret_key: str = field(repr=False)
    proxies: int = 0
    tariffs: Path = TARIFFS
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

        secret_key = ""
        try:
            secret_key = _secret_key(environment, development)
        except SettingsError as error:
            problems.append(str(error))

        if problems:
            raise SettingsError("toll-app cannot start:\n" + "\n".join(f"- {p}" for p in problems))
        ours = {name for name in environment if name.startswith("TOLL_")}
        return cls(
            development=development,
            secret_key=secret_key,
            proxies=int(proxies),
            tariffs=Path(environment.get("TOLL_TARIFFS") or TARIFFS),
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


def _secret_key(environment: Mapping[str, str], development: bool) -> str:
    """Return the secret key from the environment or from systemd's credentials.

    In development one is made up for each start, so that no key is ever in the source.
    """
    source, key = "TOLL_SECRET_KEY", environment.get("TOLL_SECRET_KEY", "")
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not key and directory:
        file = Path(directory, "secret_key")
        source = f"The credential {file}"
        try:
            key = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{source} cannot be read: {error}") from error
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
