"""Applications that nobody of this project wrote, from PyPI, on hosts: docs/proof/foreign.md.

    .venv/bin/python tests/proof/foreign.py [NAME]... [--system debian12] [--table]

Each is described in tests/proof/foreign/NAME/description.yml and nothing else. A bare host gets it
by site.yml, it is used, and its next version is deployed under load. Exit code 0 if all came out as
it must. What each came to is kept in .cache/foreign; `--table` only writes the page. With KEEP=1
the hosts stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
sys.path[:0] = [str(PROJECT / "testhosts"), str(PROJECT / "tests" / "releases")]

from engine import CHECKOUT, Engine  # noqa: E402
from foreign_applications import APPLICATIONS, FOLDER, Application, Outcome  # noqa: E402
from foreign_load import Load, Site, figures  # noqa: E402
from hosts import Hosts, read_specs  # noqa: E402

KEPT = PROJECT / ".cache" / "foreign"
REPORT = PROJECT / "docs" / "proof" / "foreign.md"
MARKER = "<!-- below: written by hand -->\n"
STEADY_SECONDS = 10.0
COLUMNS = (
    *("application", "system", "versions", "site.yml, s", "deploy, s", "requests", "failed"),
    *("late", "lost", "p99, s, steady", "p99, s, deploy", "slowest, s"),
)

HEAD = """# Applications of others

Made by `make proof` (tests/proof/foreign.py). Each application comes from PyPI as it is, and
tests/proof/foreign/NAME/description.yml is all that it has here. A bare host gets it by `site.yml`,
a second run changes nothing, it is used, and its next version is deployed while an open-loop sender
asks through nginx over TLS, whatever the answers take. Failed is every answer that is not the one
that was wanted, a reset, and no answer within 30 s; late is every good answer that took more than
1 s from when it was due. Lost is what was acknowledged and is not there afterwards.
"""


class Host:
    """A container host with one application, and its control node."""

    def __init__(self, application: Application, system: str) -> None:
        self.application = application
        self.scope = f"foreign-{CHECKOUT}-{application.name}"
        self.hosts = Hosts(Engine(), scope=self.scope, network=self.scope, say=print)
        self.system = system
        self.folder = KEPT / application.name
        self.folder.mkdir(parents=True, exist_ok=True)
        described = FOLDER / application.name / "description.yml"
        self.description: dict[str, Any] = yaml.safe_load(described.read_text())[application.name]
        self.domain = str(self.description["domains"][0])

    def make(self) -> None:
        """A bare host."""
        wanted = [{"name": "web", "image": self.system, "aliases": [self.domain]}]
        (made,) = self.hosts.up(read_specs(json.dumps(wanted), self.scope))
        self.container, self.address = str(made["name"]), str(made["address"])
        self.variables: dict[str, Any] = {
            "ansible_host": self.address,
            "ansible_user": made["user"],
            "ansible_ssh_private_key_file": made["identity_file"],
            "ansible_ssh_common_args": (
                "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            ),
            "certbot_email": "ops@foreign.test",
            "certbot_obtain": False,
            **self.application.vault,
        }
        self.write(self.description)

    def write(self, description: dict[str, Any]) -> None:
        """The inventory."""
        variables = {**self.variables, "applications": {self.application.name: description}}
        inventory = {"web": {"hosts": {"web1": variables}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))

    def next(self) -> dict[str, Any]:
        """The same description with the next version in its lock file."""
        kept, following = FOLDER / self.application.name, self.folder / "source"
        shutil.rmtree(following, ignore_errors=True)
        shutil.copytree(kept / "source", following)
        shutil.copytree(kept / "next", following, dirs_exist_ok=True)
        source = self.description["source"]
        source = {"directory": source} if isinstance(source, str) else dict(source)
        if "directory" in source:
            source["directory"] = str(following)
        else:
            source["lock"] = str(following / "requirements.txt")
        return {**self.description, "source": source}

    def root(self, *argv: str, given: str | None = None, timeout: float = 900) -> str:
        """Run a command on the host as root that has to succeed; return what it printed."""
        interactive = ["--interactive"] if given is not None else []
        done = self.hosts.engine.podman(
            *("exec", *interactive, self.container, *argv), check=False, text=given, timeout=timeout
        )
        assert done.returncode == 0, f"{' '.join(argv)[:200]}: {done.stdout}{done.stderr}"
        return done.stdout

    def play(self, book: str, *arguments: str) -> tuple[str, float]:
        """Run a playbook that has to succeed; return its output and how many seconds it took."""
        start = time.monotonic()
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", str(self.folder / "hosts.yml"), book, *arguments),
            ],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            # Ansible stops where it is in the background of a terminal.
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )
        (self.folder / f"{Path(book).stem}.log").write_text(done.stdout)
        assert done.returncode == 0, f"{book}: {done.stdout[-6000:]}"
        return done.stdout, time.monotonic() - start

    def site(self) -> Site:
        """The site as its clients reach it."""
        authority = self.folder / "authority.pem"
        authority.write_text(self.root("cat", f"/etc/ssl/sites/{self.domain}/fullchain.pem"))
        return Site(self.address, self.domain, authority)

    def status(self) -> dict[str, Any]:
        """What the command on the host says."""
        return dict(json.loads(self.root(self.application.name, "status", "--json")))

    def version(self) -> str:
        """The version of the application that is live."""
        code = f"import importlib.metadata as m; print(m.version({self.application.name!r}))"
        return self.root(self.application.name, "exec", "python", "-c", code).strip()


def say(application: Application, text: str) -> None:
    """Tell what happens."""
    print(f"{application.name}: {text}", flush=True)


def provision(host: Host, outcome: Outcome) -> None:
    """Have the application on a bare host.

    Raises:
        AssertionError: it does not come to that, or a second run changes something.
    """
    host.application.before(host)
    _, outcome.site_seconds = host.play("site.yml")
    say(host.application, f"provisioned in {outcome.site_seconds:.0f} s")
    output, _ = host.play("site.yml")
    recap = re.findall(r"changed=(\d+)", output)
    assert recap == ["0"], f"site.yml again changed something: {output[-3000:]}"


def deploy(host: Host, outcome: Outcome) -> None:
    """Use the application, and deploy its next version under load.

    Raises:
        AssertionError: something is not as it must be.
    """
    application, site = host.application, host.site()
    outcome.used = application.use(host, site)
    say(application, outcome.used)
    outcome.before, release = host.version(), host.status()["live"]
    host.write(host.next())
    streams, listeners = application.load(site)
    began = ended = 0.0
    try:
        with Load(site, streams, listeners):
            time.sleep(STEADY_SECONDS)
            began = time.monotonic()
            try:
                _, outcome.deploy_seconds = host.play("playbooks/deploy.yml")
            finally:
                ended = time.monotonic()
            time.sleep(STEADY_SECONDS)
    finally:
        sent = [each for stream in streams for each in stream.sent]
        outcome.requests = figures(sent)
        outcome.steady = figures([each for each in sent if each.due < began])
        outcome.during = figures([each for each in sent if began <= each.due < ended])
        outcome.failures = sorted({each.error for each in sent if each.error})
    say(application, f"deployed in {outcome.deploy_seconds:.0f} s: {outcome.requests}")
    outcome.after = host.version()
    assert host.status()["live"] != release, "the same release is live"
    assert host.status()["drift"] == [], host.status()["drift"]
    application.judge(host, site, streams, listeners, outcome)
    application.copies(host, site, outcome)


def prove(application: Application, system: str) -> Outcome:
    """Provision a host, use the application, deploy its next version under load."""
    host = Host(application, system)
    outcome = Outcome(application.name, system)
    try:
        host.make()
        provision(host, outcome)
        deploy(host, outcome)
    except AssertionError as wrong:
        outcome.wrong.append(str(wrong))
    finally:
        if not os.environ.get("KEEP"):
            host.hosts.down()
    for words in [*outcome.wrong, *outcome.failures]:
        say(application, f"WRONG {words[:6000]}")
    say(application, f"{outcome}")
    return outcome


def keep(outcome: Outcome) -> None:
    """Remember what an application came to."""
    (KEPT / f"{outcome.name}.json").write_text(json.dumps(outcome.as_dict(), indent=1))


def kept() -> list[Outcome]:
    """What is known of each application."""
    paths = [KEPT / f"{name}.json" for name in APPLICATIONS]
    return [Outcome.of(json.loads(path.read_text())) for path in paths if path.exists()]


def render(outcomes: Sequence[Outcome], below: str) -> str:
    """The page."""
    lines = [
        HEAD,
        f"| {' | '.join(COLUMNS)} |",
        "| --- | --- | --- |" + " ---: |" * (len(COLUMNS) - 3),
        *(outcome.row() for outcome in outcomes),
        "",
    ]
    for outcome in outcomes:
        lines += [f"**{outcome.name}.** {outcome.text()}", ""]
    lines += [
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores for host, control node and sender, "
        f"Linux {platform.release().split('-')[0]}.",
        "",
    ]
    return "\n".join(lines) + (f"\n{MARKER}{below}" if below else "")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"which ({', '.join(APPLICATIONS)}; default: all)")
    parser.add_argument("--system", default="debian12", choices=("debian12", "debian13"))
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    if unknown := sorted(set(options.name) - set(APPLICATIONS)):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(APPLICATIONS)}")
    wrong = 0
    for name in [] if options.table else options.name or list(APPLICATIONS):
        KEPT.mkdir(parents=True, exist_ok=True)
        outcome = prove(APPLICATIONS[name](secrets.token_hex(3)), options.system)
        keep(outcome)
        wrong += bool(outcome.wrong or outcome.failures)
    written = REPORT.read_text() if REPORT.exists() else ""
    REPORT.write_text(render(kept(), written.partition(MARKER)[2]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
