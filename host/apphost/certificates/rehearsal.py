"""Whether certbot could renew what it has: tried to the end, long before it matters.

`certbot renew --dry-run` alone is not enough. It asks Let's Encrypt's staging authority about
certificates of any authority, unless it is told which one, and it takes whatever account it finds,
or registers one, so that a lost account does not show.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import renewals
from .settings import Settings
from .textfile import Gauge

VERDICT = "rehearsal.json"
UNKNOWN_ACCOUNT = "accountDoesNotExist"
# An authority that is away for a moment is no reason to wake anybody; nor is certbot's lock, which
# certbot.service may hold.
ATTEMPTS = 3
PAUSE_SECONDS = 300.0
# Every name's authorisation and the issuance, each of which certbot gives 90 s.
CERTBOT_SECONDS = 900.0


def rehearse(settings: Settings) -> dict[str, dict[str, Any]]:
    """By certificate, why a renewal would fail; those that would not are left out.

    Each has `reason`, in certbot's words, and `account`, which the authority does not know; empty
    if that is not the reason.
    """
    failures: dict[str, dict[str, Any]] = {}
    left = sorted((settings.configuration / "renewal").glob("*.conf"))
    for number in range(ATTEMPTS):
        if number and left:
            time.sleep(PAUSE_SECONDS)
        again = []
        for path in left:
            name = path.name[: -len(".conf")]
            failures.pop(name, None)
            reason, account, final = rehearse_one(settings, name, path)
            if reason:
                failures[name] = {"reason": reason, "account": account}
                again += [] if final else [path]
        left = again
    return failures


def rehearse_one(settings: Settings, name: str, path: Path) -> tuple[str, str, bool]:
    """Why the renewal of one certificate would fail, the account that is unknown, and whether
    another attempt could not come to anything else."""
    try:
        renewal = renewals.read(path)
    except OSError as error:
        return f"{path}: {error.strerror}", "", True
    local = renewals.damage(renewal) or renewals.obstacle(renewal, settings.configuration)
    if local:
        return local, "", True
    account = renewal.settings["account"]
    reason, log = run(settings, ["show_account", "--server", renewal.server, "--account", account])
    if UNKNOWN_ACCOUNT in log:
        return "the authority does not know its account any more", account, True
    if reason:
        return reason, "", False
    step = ["renew", "--dry-run", "--no-random-sleep-on-renew", "--cert-name", name]
    step += ["--server", renewal.server]
    if renewal.server != renewals.DEFAULT_DIRECTORY_URL:
        # Let's Encrypt is asked at its staging authority, where the account is another.
        step += ["--account", account]
    return run(settings, step)[0], "", False


def run(settings: Settings, step: list[str]) -> tuple[str, str]:
    """Why certbot failed, empty if it did not; and all that it wrote about that."""
    logs = settings.state / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    # certbot appends to it, and what an earlier command met is no matter of this one.
    (logs / "letsencrypt.log").unlink(missing_ok=True)
    own = ["--config-dir", str(settings.configuration), "--logs-dir", str(logs)]
    argv = [settings.certbot, *step, "--non-interactive", *own, "--max-log-backups", "0"]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=CERTBOT_SECONDS,
            check=False,
        )
    except OSError as error:
        return f"{settings.certbot} cannot be run: {error.strerror}", ""
    except subprocess.TimeoutExpired:
        return f"certbot had not finished after {CERTBOT_SECONDS:.0f} s", ""
    if done.returncode == 0:
        return "", ""
    try:
        log = (logs / "letsencrypt.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        log = ""
    return essence(done.stdout), f"{done.stdout}\n{log}"


def essence(output: str) -> str:
    """The lines of certbot's output that say what went wrong, as one."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -")]
    details = [line.partition(":")[2].strip() for line in lines if line.startswith("Detail:")]
    failures = [line for line in lines if line.startswith("Failed to renew certificate")]
    if details or failures:
        return "; ".join(details or failures)
    noise = ("Saving debug log", "Ask for help", "See the logfile", "Processing", "An unexpected")
    kept = [line for line in lines if not line.startswith(noise)]
    return " ".join(kept[-2:]) or "it said nothing"


def remember(state: Path, failures: dict[str, dict[str, Any]], now: float) -> None:
    """Leaves the verdict for the next run of the playbook, only where something is wrong.

    A host that is in order has no such file, so that a good rehearsal changes nothing that the seal
    of a run looks at.
    """
    path = state / VERDICT
    if not failures:
        path.unlink(missing_ok=True)
        return
    fresh = state / f".{VERDICT}.{os.getpid()}"
    fresh.write_text(json.dumps({"at": now, "failures": failures}, indent=1), encoding="utf-8")
    os.replace(fresh, path)


def verdict(state: Path) -> tuple[float, dict[str, dict[str, Any]]]:
    """When the last rehearsal failed, and what it said; 0 and nothing if it was good."""
    try:
        told = json.loads((state / VERDICT).read_bytes())
        return float(told["at"]), dict(told["failures"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, {}


def gauges(names: list[str], failures: dict[str, Any], now: float) -> Iterator[Gauge]:
    """The same for Prometheus."""
    about = "When the renewal of the certificates was last rehearsed."
    yield Gauge("certificate_rehearsal_timestamp_seconds", about, now)
    for name in names:
        about = "Whether the rehearsal of the renewal failed."
        value = float(name in failures)
        yield Gauge("certificate_rehearsal_failed", about, value, {"certificate": name})
