"""How certbot would renew a certificate, and what keeps it from that, without asking anybody."""

from __future__ import annotations

import json
import os
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

# What certbot uses when the settings of a renewal name no authority.
DEFAULT_DIRECTORY_URL = "https://acme-v02.api.letsencrypt.org/directory"
# Files of a certificate, by the names that the settings have for them.
PARTS = ("cert", "privkey", "chain", "fullchain")
ACCOUNT_FILES = ("private_key.json", "regr.json", "meta.json")


@dataclass
class Renewal:
    """The settings of one renewal.

    Attributes:
        files: where the certificate's files are, by the part.
        settings: `renewalparams`.
        webroots: directory of each name's challenges; that of "" is for all other names.
    """

    files: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    webroots: dict[str, str] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """URL of the authority's directory."""
        return self.settings.get("server", DEFAULT_DIRECTORY_URL)

    @property
    def plugins(self) -> list[str]:
        """certbot's plugins that it needs."""
        named = (self.settings.get(kind, "") for kind in ("authenticator", "installer"))
        return [name for name in dict.fromkeys(named) if name not in ("", "None")]


def read(path: Path) -> Renewal:
    """The settings in a file.

    It is an INI file with a nested section, [[webroot_map]], that configparser refuses.

    Raises:
        OSError: it cannot be read.
    """
    renewal = Renewal()
    section = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text.strip("[] ")
        elif "=" in text and not text.startswith("#"):
            key, value = (part.strip() for part in text.split("=", 1))
            if section == "webroot_map":
                renewal.webroots[key.lower()] = value.rstrip("/")
            elif section == "renewalparams":
                renewal.settings[key] = value
            elif not section and key in PARTS:
                renewal.files[key] = value
    # A list, of which certbot takes the last for names that have no directory of their own.
    listed = renewal.settings.get("webroot_path", "").split(",")
    given = [part.strip() for part in listed if part.strip()]
    if given:
        renewal.webroots[""] = given[-1].rstrip("/")
    return renewal


def accounts_directory(configuration: Path, server: str) -> Path:
    """Where certbot keeps its accounts at an authority."""
    parts = urllib.parse.urlsplit(server)
    return configuration / "accounts" / f"{parts.netloc}{parts.path}".strip("/")


def accounts(configuration: Path, server: str) -> list[str]:
    """The accounts at an authority that certbot could use, the one registered last at the end."""
    directory = accounts_directory(configuration, server)
    try:
        found = [path for path in directory.iterdir() if not account_fault(path)]
    except OSError:
        return []
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def account_fault(directory: Path) -> str:
    """Why certbot could not use an account; empty if it could."""
    if not directory.is_dir():
        return f"{directory} is missing"
    for name in ACCOUNT_FILES:
        try:
            if not isinstance(json.loads((directory / name).read_bytes()), dict):
                return f"{directory / name} is damaged"
        except OSError as error:
            return f"{directory / name}: {error.strerror}"
        except ValueError:
            return f"{directory / name} is damaged"
    return ""


def damage(renewal: Renewal) -> str:
    """Why certbot could not even read the certificate; empty if it could.

    It repairs nothing of this: the certificate has to be obtained under another name.
    """
    for part in PARTS:
        path = renewal.files.get(part, "")
        if not path:
            return f"the settings of its renewal name no {part}"
        if not os.path.islink(path):
            return f"{path} is {'no symbolic link' if os.path.exists(path) else 'missing'}"
        if not os.path.exists(path):
            return f"{path} leads to {os.readlink(path)}, which is missing"
    if not renewal.settings.get("authenticator"):
        return "the settings of its renewal name no authenticator"
    return ""


def obstacle(renewal: Renewal, configuration: Path) -> str:
    """What keeps certbot from renewing a certificate that it can read; empty for nothing known."""
    if renewal.settings.get("autorenew", "").lower() in ("false", "no", "off", "0"):
        return "the settings of its renewal say autorenew = False"
    account = renewal.settings.get("account", "")
    if not account:
        return "the settings of its renewal name no account"
    fault = account_fault(accounts_directory(configuration, renewal.server) / account)
    return f"its account is gone: {fault}" if fault else ""
