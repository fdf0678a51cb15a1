"""certbot: the command for one certificate, what its output says, and who else runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    CertificateError,
    Wanted,
    is_address,
)

KEY_OPTIONS = {
    "ecdsa-p256": ("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
    "ecdsa-p384": ("--key-type", "ecdsa", "--elliptic-curve", "secp384r1"),
    "rsa-2048": ("--key-type", "rsa", "--rsa-key-size", "2048"),
    "rsa-4096": ("--key-type", "rsa", "--rsa-key-size", "4096"),
}

# One certificate: every name's authorisation and the issuance, each of which certbot gives 90 s.
CERTBOT_TIMEOUT_SECONDS = 900
# The renewal timer may hold certbot's lock.
LOCK_WAIT_SECONDS = 180
LOCK_RETRY_SECONDS = 5
LOGS_KEPT = 50

CRON_FILES = ("/etc/crontab", "/var/spool/cron/crontabs/root", "/var/spool/cron/root")
CRON_DIRECTORY = "/etc/cron.d"


class CertbotError(CertificateError):
    """certbot failed. `output` is all that it said, of which the text is the essence."""

    def __init__(self, output: str) -> None:
        super().__init__(f"certbot: {essence(output)}")
        self.output = output

    def log(self) -> str:
        """What it wrote about that, which has the kinds of errors that it does not say."""
        named = re.search(r"^Saving debug log to (\S+)$", self.output, re.MULTILINE)
        try:
            return Path(named[1]).read_text(errors="replace") if named else ""
        except OSError:
            return ""


def certbot_argv(wanted: Wanted, lineage: str, params: dict[str, Any]) -> list[str]:
    """The command that obtains one certificate under certbot's name for it, asking nothing."""
    account = (
        ["--email", params["email"], "--no-eff-email"]
        if params["email"]
        else ["--register-unsafely-without-email"]
    )
    if params["account_file"]:
        account += ["--config", params["account_file"]]
    profile = []
    for name, value in wanted_profile(params).items():
        profile += [f"--{name.replace('_', '-')}", value] if value else []
    domains = [
        part
        for domain in wanted.domains
        for part in ("--ip-address" if is_address(domain) else "--domain", domain)
    ]
    challenge = params["challenge"]
    webroots = []
    if challenge["directory"]:
        # Spelled out for each name: for those whose authorisation the authority still has, certbot
        # would otherwise keep the directory of last time, and renew through that.
        spelled = json.dumps({",".join(wanted.domains): challenge["directory"]})
        webroots = ["--webroot-map", spelled]
    return [
        *(params["certbot"], "certonly", "--non-interactive", "--agree-tos"),
        *("--config-dir", params["configuration_directory"]),
        *("--max-log-backups", str(LOGS_KEPT)),
        *("--server", params["directory_url"], *account),
        *("--authenticator", challenge["authenticator"], *challenge["arguments"], *webroots),
        *KEY_OPTIONS[params["key_type"]],
        *profile,
        *("--cert-name", lineage, *domains, "--renew-with-new-domains"),
        "--force-renewal" if wanted.force else "--keep-until-expiring",
    ]


def wanted_profile(params: dict[str, Any]) -> dict[str, str]:
    """What certbot's settings have to say of the profile, by their names; empty for nothing."""
    name, required = params["profile"], params["profile_required"]
    return {
        "required_profile": name if required else "",
        "preferred_profile": "" if required else name,
    }


def run_certbot(argv: list[str]) -> None:
    """Runs certbot, waiting for its lock. Raises with its own words for what went wrong."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # The role's deploy hook leaves the reload to the module, which moves links first.
                env={**os.environ, "CERTIFICATES_OF_A_RUN": "yes"},
                timeout=CERTBOT_TIMEOUT_SECONDS,
                check=False,
            )
        except OSError as error:
            raise CertificateError(f"{argv[0]} cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise CertificateError(
                f"certbot had not finished after {CERTBOT_TIMEOUT_SECONDS} s and was stopped; "
                "see /var/log/letsencrypt/letsencrypt.log for the step that it waited at"
            ) from error
        if done.returncode == 0:
            return
        locked = "Another instance of Certbot is already running" in done.stdout
        if not locked or time.monotonic() > deadline:
            raise CertbotError(done.stdout)
        time.sleep(LOCK_RETRY_SECONDS)


def essence(output: str) -> str:
    """The lines of certbot's output that say what went wrong, as one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    details = []
    domain = ""
    for line in lines:
        label, _, value = line.partition(":")
        if label in ("Domain", "Identifier"):
            domain = value.strip()
        elif label == "Detail":
            details.append(f"{domain}: {value.strip()}" if domain else value.strip())
    if details:
        return "; ".join(details)
    noise = (
        "Saving debug log",
        "Ask for help",
        "See the logfile",
        "Hint:",
        "Requesting a certificate",
        "Account registered",
        "Renewing an existing certificate",
    )
    kept = [line for line in lines if not line.startswith(noise) and not set(line) <= set("- ")]
    for index, line in enumerate(kept):
        if line.startswith("An unexpected error occurred"):
            return " ".join(kept[index + 1 :][:3]) or line
    return " ".join(kept[-2:]) or "failed without a word; see /var/log/letsencrypt/letsencrypt.log"


def cron_files() -> list[Path]:
    """Where cron of this host keeps root's jobs."""
    directory = Path(CRON_DIRECTORY)
    jobs = sorted(directory.iterdir()) if directory.is_dir() else []
    return [*map(Path, CRON_FILES), *jobs]


def other_renewers(files: list[Path]) -> list[str]:
    """Cron's files with a job for certbot; the packages' own, idle under systemd, not counted."""
    found = []
    for path in files:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        if any(
            "certbot" in line
            and not line.lstrip().startswith("#")
            and "/run/systemd/system" not in line
            for line in lines
        ):
            found.append(str(path))
    return found
