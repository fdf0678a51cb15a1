"""How the application does on this host: its release, its service, its site, its locks.

    sudo <name> status                  the same as `sudo <name>` alone
    sudo <name> status --page FILE      a page for a browser; from your own machine:
                                        ssh HOST sudo <name> status --page - > status.html

Lines that begin with `drift` name what is not as it should be, and what to do. A page is one file
that needs no network, with the deploys, the requests, the copies and the alerts of the last day.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from . import files, jobs, maintenance, readiness, records, releases, systemd
from .answer import Answer, short_revision, short_time, table
from .application import Application
from .backup import interrupted
from .errors import HostError
from .handover.config import Config
from .page import day

HTTPS = 443


def processes(main: int, proc: Path = Path("/proc")) -> list[int]:
    """Pids of a process and of all that it has started."""
    parents: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = (entry / "stat").read_text(encoding="ascii", errors="replace")
                parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    family = {main}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return sorted(family)
        family |= more


def memory_bytes(counted: str, family: list[int], proc: Path = Path("/proc")) -> int | None:
    """What the service uses: its control group's count, or without one its processes' shares."""
    if counted.isdecimal() and int(counted) < 1 << 60:
        return int(counted)
    total = 0
    for pid in family:
        with contextlib.suppress(OSError):
            text = (proc / str(pid) / "smaps_rollup").read_text(encoding="ascii")
            total += sum(map(int, re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE))) * 1024
    return total or None


def days_left(path: str) -> float | None:
    """Days until the certificate in a file ends; None if there is none that can be read."""
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    try:
        end = ssl.cert_time_to_seconds(decode(path)["notAfter"]) if decode else None
    except (OSError, ValueError, KeyError):
        return None
    return None if end is None else round((end - time.time()) / 86400, 1)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add = parser.add_argument
    add("--certificate", metavar="FILE", help="how long this certificate is good")
    add("--site", metavar="NAME", help="ask nginx for this name as well")
    add("--port", type=int, metavar="PORT", help="where nginx speaks HTTPS")
    add("--day", action="store_true", help="with --json: what happened on the last day as well")
    add("--page", metavar="FILE", help="write a page for a browser; `-` is standard output")
    parser.epilog = "The description of the application names the site, its port and certificate."


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Look at everything."""
    described = application.settings.get("site") or {}
    site = described.get("domain") if options.site is None else options.site
    port = described.get("port") if options.port is None else options.port
    certificate = (
        described.get("certificate") if options.certificate is None else options.certificate
    )
    facts = look(application, certificate or "", site or "", port or HTTPS)
    live = facts["live"]
    if options.day or options.page:
        facts["day"] = day.look(application)
    if options.page:
        return on_page(application.name, facts, options.page)
    return Answer(
        f"{live or 'No release'} is live.", facts=facts, text=text(application.name, facts)
    )


def on_page(name: str, facts: dict[str, Any], target: str) -> Answer:
    """The page of this host, in a file or on standard output."""
    # What makes it needs what is here.
    from .page.render import page

    report = {
        "application": name,
        "hosts": {socket.gethostname(): facts},
        "failed": {},
        "drift": facts["drift"],
    }
    text = page([report], facts["day"]["at"])
    if target == "-":
        return Answer(text, facts=facts)
    path = Path(target)
    # Whoever asked through sudo reads it.
    user, group = (os.environ.get(key, "") for key in ("SUDO_UID", "SUDO_GID"))
    owner = (int(user), int(group)) if user.isdecimal() and group.isdecimal() else None
    files.write_bytes(path, text.encode(), 0o600, owner)
    return Answer(f"Wrote {path}: open it in a browser, here or on your own machine.", facts=facts)


def look(application: Application, certificate: str, site: str, port: int) -> dict[str, Any]:
    """How the host is. `site` is a name that the web server answers to; empty for none."""
    known = releases.all_of(application)
    live = next((each for each in known if each["live"]), None)
    shown = systemd.properties(
        application.unit, "ActiveState", "MainPID", "MemoryCurrent", "NRestarts"
    )
    main = int(shown["MainPID"] or 0)
    family = processes(main) if main else []
    facts: dict[str, Any] = {
        "live": live and live["id"],
        "release": live,
        "releases": known,
        "candidates": releases.candidates(known),
        "service": shown["ActiveState"] or "unknown",
        "restarts": int(shown["NRestarts"] or 0),
        "health": readiness.ask(application),
        "site": readiness.ask(application, f"127.0.0.1:{port}", site) if site else None,
        "workers": max(0, len(family) - 1),
        "memory_bytes": memory_bytes(shown["MemoryCurrent"], family),
        "certificate_days": days_left(certificate) if certificate else None,
        "lock": files.read_json_if_possible(application.state / "deploy.json") or None,
        "handover": files.read_json_if_possible(application.state / "handover.json") or None,
    }
    facts["jobs"] = look_at_jobs(application)
    facts["maintenance"] = maintenance.look(application)
    facts["drained"] = maintenance.drained(application)
    return {**facts, "drift": drift(application, facts, site)}


def look_at_jobs(application: Application) -> dict[str, Any] | None:
    """Workers and timers; None without any."""
    try:
        found = jobs.look(Config.read(application))
    except HostError:
        return None
    return found if any(found.values()) else None


def drift(application: Application, facts: dict[str, Any], site: str) -> list[str]:
    """What is not as it should be, and what to do about it."""
    name, live, health, through = (
        application.name,
        facts["release"],
        facts["health"],
        facts["site"],
    )
    faults = [interrupted.words(application)] if interrupted.read(application) else []
    if live and live["cannot_start"]:
        faults.append(
            f"the live release cannot start again: {live['cannot_start']}. Run site.yml, which "
            f"builds it for a Python of this host"
        )
    if live and live["verdict"] == records.BAD:
        faults.append("the live release was judged bad")
    if live and health.get("release") and health["release"] != live["id"]:
        faults.append(f"{health['release']} answers in place of {live['id']}")
    if facts["service"] != "active":
        faults.append(
            f"{application.unit} is {facts['service']}. Run site.yml, or on the host: sudo "
            f"systemctl start {name}.socket {application.unit}"
        )
    elif not health["ok"]:
        faults.append(
            f"{application.health.path} is not good: {readiness.fault(health)}. "
            f"See `sudo {name} logs`"
        )
    elif through and not through["ok"]:
        faults.append(
            f"{site} does not answer through nginx, though the service is well: "
            f"{readiness.fault(through)}. "
            f"Run site.yml, or on the host: sudo systemctl start nginx"
        )
    if facts["jobs"]:
        faults += jobs.faults(name, facts["jobs"])
    handover = facts["handover"]
    if handover and handover.get("release"):
        faults.append(f"a handover to {handover['release']} is under way, or was interrupted")
    return faults


def headline(name: str, facts: dict[str, Any]) -> str:
    """The state of all in one line."""
    faults = len(facts["drift"])
    if not facts["health"]["ok"] or facts["service"] != "active":
        return f"{name} is down."
    if facts["site"] and not facts["site"]["ok"]:
        return f"{name} runs, but its site does not answer."
    if facts["maintenance"]:
        return f"{name} is up, and in maintenance: its clients get 503."
    if facts["drained"]:
        return f"{name} is up, and its host is drained: balancers send nobody here."
    if faults:
        return f"{name} is up, and {faults} thing{'s need' if faults > 1 else ' needs'} attention."
    return f"{name} is up."


def text(name: str, facts: dict[str, Any]) -> str:
    """The answer as people read it."""
    live, health, lock = facts["release"] or {}, facts["health"], facts["lock"]
    memory, days = facts["memory_bytes"], facts["certificate_days"]
    since = f"{short_time(live.get('activated_at'))} UTC by {live.get('activated_by') or '-'}"
    in_time = f"{health.get('status')} in {health.get('milliseconds')} ms"
    held = (
        f"{lock.get('owner')} since {lock.get('since')}: {lock.get('reason')}" if lock else "free"
    )
    service = [facts["service"], f"{facts['workers']} workers", f"{facts['restarts']} restarts"]
    shown = f"{live['id']} ({short_revision(live['revision'])})" if live else "none is live"
    rows = [
        ["release", shown],
        ["since", since if live else "-"],
        ["verdict", str(live.get("verdict", "-"))],
        ["service", ", ".join(service)],
        ["memory", f"{memory >> 20} MiB" if memory else "-"],
        ["answers", in_time if "status" in health else health["error"]],
        *(
            ["site", "ok" if each["ok"] else readiness.fault(each)]
            for each in [facts["site"]]
            if each
        ),
        *(["certificate", f"{days:g} days left"] for _ in [days] if days is not None),
        *(["jobs", jobs.summary(each)] for each in [facts["jobs"]] if each),
        *(["maintenance", maintenance.words(each)] for each in [facts["maintenance"]] if each),
        *(["drained", f"since {short_time(each)} UTC"] for each in [facts["drained"]] if each),
        ["lock", held],
        *(["drift", each] for each in facts["drift"]),
    ]
    return f"{headline(name, facts)}\n\n{table(rows)}"
