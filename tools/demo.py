#!/usr/bin/env python3
"""`make up` and `make down`: the whole way on a container host, and its removal.

`up` has two hosts running, `toll-demo` and the ACME server `toll-acme` beside it, runs site.yml on
the inventory `demo`, logs in over HTTPS and says how to, and what each part took. Run again, it
changes nothing. It needs what tools/bootstrap installs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testhosts"))

import images  # noqa: E402
from engine import CACHE, Engine, TestHostsError, use_utf8  # noqa: E402
from hosts import IDENTITY, USER, Hosts, Spec  # noqa: E402

SCOPE = "demo"
NETWORK = "toll-demo"
HOST = "toll-demo"
ACME = "toll-acme"
# As in inventory/demo.
NAME = "toll.localhost"
# Also one to add to the domains of toll-app.
NAMES = (NAME, "www.toll.localhost")
LOOPBACK = "127.0.0.1"
HTTPS_PORT = 8443
HTTP_PORT = 8080
SSH_PORT = 2222
SPECS = (
    Spec(
        HOST,
        "debian13",
        # The ACME server looks for the host under its name.
        aliases=NAMES,
        publish=(
            f"{LOOPBACK}:{HTTPS_PORT}:443",
            f"{LOOPBACK}:{HTTP_PORT}:80",
            f"{LOOPBACK}:{SSH_PORT}:22",
        ),
    ),
    Spec(ACME, "acme"),
)
CA_FILE = ROOT / ".cache" / "demo" / "ca.pem"
# Made up by the inventory, once on each machine.
PASSWORD_FILE = CA_FILE.with_name("admin-password")
ADMIN = "admin"


class DemoError(Exception):
    """A part failed; its output has been shown."""


def say(line: str) -> None:
    """Tell the user a line, in its place among the output of programs."""
    print(line, flush=True)


class Clock:
    """Seconds that each part took."""

    def __init__(self) -> None:
        """Start with no part."""
        self.parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        start = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - start

    def __str__(self) -> str:
        """All parts, for instance "image 0.1 s, hosts 0.9 s"."""
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.parts.items())


def provision(arguments: list[str]) -> int:
    """Run site.yml on the demo inventory, showing its output.

    Args:
        arguments: further arguments of ansible-playbook.

    Returns:
        How many tasks changed something.

    Raises:
        DemoError: the run failed.
    """
    program = shutil.which(
        "ansible-playbook", path=f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    )
    if program is None:
        raise DemoError("ansible-playbook is not there: run tools/bootstrap.")
    command = [program, "--inventory", "inventory/demo", "site.yml", *arguments]
    say(f"$ {shlex.join(['ansible-playbook', *command[1:]])}")
    environment = dict(os.environ)
    if sys.stdout.isatty():
        environment.setdefault("ANSIBLE_FORCE_COLOR", "1")
    changed = 0
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
            if match := re.match(r"\S+\s+: ok=\d+\s+changed=(\d+)", plain):
                changed += int(match[1])
    if process.returncode:
        raise DemoError(f"ansible-playbook failed (exit code {process.returncode}); see above.")
    return changed


@dataclass
class Answer:
    """What came back over HTTPS."""

    status: int
    body: str
    cookie: str


def ask(path: str, ca_file: Path, form: dict[str, str] | None = None, cookie: str = "") -> Answer:
    """Make a request over HTTPS, as a client that trusts only the demo's authority.

    Args:
        path: of the request.
        ca_file: PEM file of what to trust.
        form: fields to send; without them it is a GET.
        cookie: what an earlier answer set.

    Raises:
        OSError: no connection, or a certificate that is not right.
    """
    context = ssl.create_default_context(cafile=str(ca_file))
    connection = http.client.HTTPSConnection(NAME, HTTPS_PORT, timeout=10)
    # Python asks the system for the address of `*.localhost`, which not every system knows.
    raw = socket.create_connection((LOOPBACK, HTTPS_PORT), timeout=10)
    connection.sock = context.wrap_socket(raw, server_hostname=NAME)
    headers = {"Cookie": cookie, "Referer": f"https://{NAME}:{HTTPS_PORT}{path}"}
    try:
        if form is None:
            connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request("POST", path, urlencode(form), headers)
        answer = connection.getresponse()
        given = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        return Answer(answer.status, answer.read().decode(), given or cookie)
    finally:
        connection.close()


def log_in(password: str, ca_file: Path) -> bool:
    """Whether the admin gets in with that password, through the page as a browser would.

    Raises:
        OSError: no connection, or a certificate that is not right.
    """
    page = ask("/login", ca_file)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.body)
    form = {"name": ADMIN, "password": password, "csrf_token": token[1] if token else ""}
    answer = ask("/login", ca_file, form, page.cookie)
    return answer.status == http.HTTPStatus.SEE_OTHER


def up(arguments: list[str]) -> None:
    """Have the demo running, and show that it is.

    Args:
        arguments: further arguments of ansible-playbook.

    Raises:
        DemoError: a part failed, with its output shown before.
        TestHostsError: there is no host to run it on.
    """
    clock = Clock()
    engine = Engine()
    hosts = Hosts(engine, SCOPE, NETWORK, say)
    with clock.part("image"):
        images.ensure_all(engine, (spec.image for spec in SPECS), say)
    with clock.part("hosts"):
        hosts.up(SPECS)
        hosts.acme_ca(ACME)
    with clock.part("provisioning"):
        changed = provision(arguments)
    with clock.part("request"):
        CA_FILE.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(hosts.acme_root(ACME), CA_FILE)
        try:
            answer = ask("/readyz", CA_FILE)
            if answer.status != http.HTTPStatus.OK:
                raise DemoError(
                    f"https://{NAME}:{HTTPS_PORT}/readyz answered {answer.status}: {answer.body}"
                )
            release = json.loads(answer.body)["release"]
            password = PASSWORD_FILE.read_text().strip()
            welcome = log_in(password, CA_FILE)
        except OSError as error:
            raise DemoError(
                f"https://{NAME}:{HTTPS_PORT}: {error}\n{hosts.journal(HOST)}"
            ) from error
    ca_file = CA_FILE.relative_to(ROOT)
    # Somebody may have changed it on the site, and it is theirs then.
    entry = (
        f"as {ADMIN}, password {password}"
        if welcome
        else f"as {ADMIN}; the password is no longer that of {PASSWORD_FILE.relative_to(ROOT)}"
    )
    say(
        f"""
Up: {clock}.
{f"changed={changed}" if changed else "changed=0: everything was already as it should be."}
Release {release} answers at https://{NAME}:{HTTPS_PORT}/, its certificate verified with {ca_file}.

What to do next:
  see it          curl --cacert {ca_file} https://{NAME}:{HTTPS_PORT}/
  in a browser    https://{NAME}:{HTTPS_PORT}/ (import {ca_file} first, or accept the warning)
  log in          https://{NAME}:{HTTPS_PORT}/login {entry}
  on the host     {ssh_command()}
                  sudo systemctl status toll-app; sudo journalctl -u toll-app -f
                  sudo toll-app flask toll key create lane-1 --role recorder
  change it       edit inventory/demo/group_vars/web.yml or app/, then `make up` again
  remove it       make down"""
    )


def ssh_command() -> str:
    """What to type for a shell on the host."""
    return (
        f"ssh -p {SSH_PORT} -i {IDENTITY.relative_to(ROOT)} -o StrictHostKeyChecking=no "
        f"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {USER}@{LOOPBACK}"
    )


def down() -> None:
    """Remove the hosts, what is in them and their network. Images stay, as caches do.

    Raises:
        TestHostsError: the engine failed.
    """
    if shutil.which("podman"):
        removed = Hosts(Engine(), SCOPE, NETWORK, say).down()
        say(f"Removed: {', '.join(removed)}." if removed else "There was nothing to remove.")
    else:
        say("There was nothing to remove.")
    shutil.rmtree(CA_FILE.parent, ignore_errors=True)
    shutil.rmtree(CACHE / "acme" / ACME, ignore_errors=True)


def main() -> int:
    """Do what the command line says, and turn what went wrong into a message."""
    use_utf8()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("up", "down"))
    options, rest = parser.parse_known_args()
    try:
        if options.what == "up":
            up(rest)
        else:
            down()
    except (DemoError, TestHostsError) as error:
        print(f"\n{options.what}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
