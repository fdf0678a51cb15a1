"""What `make up` and `make fleet` have in common: a run of site.yml, and a client of the site."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
ADMIN = "admin"
ANSWER_SECONDS = 10


class DemoError(Exception):
    """A part failed; its output has been shown."""


def say(line: str) -> None:
    """Tell the user a line, in its place among the output of programs."""
    print(line, flush=True)


def attempt(words: str, action: Callable[[], None], refusal: type[Exception]) -> int:
    """Do what the command line says, and turn what went wrong into a message.

    Args:
        words: what it is called in the message.
        action: what to do; DemoError and `refusal` are for people.
        refusal: what the test hosts raise.

    Returns:
        The exit code.
    """
    try:
        action()
    except (DemoError, refusal) as error:
        print(f"\n{words}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def remove(down: Callable[[], Sequence[str]], *folders: Path) -> None:
    """Remove a demo's hosts and what it kept beside them. Images stay, as caches do.

    Args:
        down: removes the hosts and returns their names; not called without a container engine.
        folders: of this demo alone.
    """
    removed = down() if shutil.which("podman") else ()
    say(f"Removed: {', '.join(removed)}." if removed else "There was nothing to remove.")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


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


def ansible_playbook() -> str:
    """Where that program is. Raises DemoError if it is nowhere."""
    program = shutil.which(
        "ansible-playbook", path=f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    )
    if program is None:
        raise DemoError("ansible-playbook is not there: run tools/bootstrap.")
    return program


def status_page(inventory: str, target: Path) -> str:
    """Write the page that shows how an inventory's hosts do.

    Args:
        inventory: below the project.
        target: the file.

    Returns:
        Its address for a browser.

    Raises:
        DemoError: it was not written, with the output of Ansible.
    """
    target.unlink(missing_ok=True)
    command = [ansible_playbook(), "--inventory", inventory, "playbooks/status.yml"]
    done = subprocess.run(
        [*command, "-e", f"application_status_page={target}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # It also ends with a failure where a host serves nobody, which is what the page then shows.
    if not target.is_file():
        raise DemoError(f"{target.relative_to(ROOT)} was not written:\n{done.stdout}")
    return target.as_uri()


def provision(inventory: str, arguments: list[str]) -> int:
    """Run site.yml on an inventory, showing its output.

    Args:
        inventory: below the project.
        arguments: further arguments of ansible-playbook.

    Returns:
        How many tasks changed something.

    Raises:
        DemoError: the run failed.
    """
    command = [ansible_playbook(), "--inventory", inventory, "site.yml", *arguments]
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


@dataclass(frozen=True)
class Site:
    """A site as a client sees it that trusts only the demo's authority.

    Attributes:
        name: of the site.
        port: of this machine that leads to it.
        ca_file: PEM file of what to trust.
    """

    name: str
    port: int
    ca_file: Path

    @property
    def url(self) -> str:
        """Of its first page."""
        return f"https://{self.name}:{self.port}/"

    def ask(self, path: str, form: dict[str, str] | None = None, cookie: str = "") -> Answer:
        """Make a request over HTTPS, on a connection of its own.

        Args:
            path: of the request.
            form: fields to send; without them it is a GET.
            cookie: what an earlier answer set.

        Raises:
            OSError: no connection, or a certificate that is not right.
        """
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(self.name, self.port, timeout=ANSWER_SECONDS)
        # Python asks the system for the address of `*.localhost`, which not every system knows.
        raw = socket.create_connection((LOOPBACK, self.port), timeout=ANSWER_SECONDS)
        connection.sock = context.wrap_socket(raw, server_hostname=self.name)
        headers = {"Cookie": cookie, "Referer": f"https://{self.name}:{self.port}{path}"}
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

    def log_in(self, password: str) -> bool:
        """Whether the admin gets in with that password, through the page as a browser would.

        Raises:
            OSError: no connection, or a certificate that is not right.
        """
        page = self.ask("/login")
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.body)
        form = {"name": ADMIN, "password": password, "csrf_token": token[1] if token else ""}
        answer = self.ask("/login", form, page.cookie)
        return answer.status == http.HTTPStatus.SEE_OTHER
