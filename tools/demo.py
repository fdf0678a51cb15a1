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
import shutil
import sys

from demos import (
    ADMIN,
    LOOPBACK,
    ROOT,
    Clock,
    DemoError,
    Site,
    attempt,
    provision,
    remove,
    say,
    status_page,
)

sys.path.insert(0, str(ROOT / "testhosts"))

import images
from engine import CACHE, Engine, TestHostsError, use_utf8
from hosts import IDENTITY, USER, Hosts, Spec

SCOPE = "demo"
NETWORK = "toll-demo"
HOST = "toll-demo"
ACME = "toll-acme"
# As in inventory/demo.
NAME = "toll.localhost"
# Also one to add to the domains of toll-app.
NAMES = (NAME, "www.toll.localhost")
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
INVENTORY = "inventory/demo"
CA_FILE = ROOT / ".cache" / "demo" / "ca.pem"
PAGE = CA_FILE.with_name("status.html")
# Made up by the inventory, once on each machine.
PASSWORD_FILE = CA_FILE.with_name("admin-password")
SITE = Site(NAME, HTTPS_PORT, CA_FILE)


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
        changed = provision(INVENTORY, arguments)
    with clock.part("request"):
        CA_FILE.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(hosts.acme_root(ACME), CA_FILE)
        try:
            answer = SITE.ask("/readyz")
            if answer.status != http.HTTPStatus.OK:
                raise DemoError(f"{SITE.url}readyz answered {answer.status}: {answer.body}")
            release = json.loads(answer.body)["release"]
            password = PASSWORD_FILE.read_text().strip()
            welcome = SITE.log_in(password)
        except OSError as error:
            raise DemoError(f"{SITE.url}: {error}\n{hosts.journal(HOST)}") from error
    with clock.part("status"):
        page = status_page(INVENTORY, PAGE)
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
Release {release} answers at {SITE.url}, its certificate verified with {ca_file}.

What to do next:
  see it          curl --cacert {ca_file} {SITE.url}
  in a browser    {SITE.url} (import {ca_file} first, or accept the warning)
  log in          {SITE.url}login {entry}
  its state       {page}
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
    folders = (CA_FILE.parent, CACHE / "acme" / ACME)
    remove(lambda: Hosts(Engine(), SCOPE, NETWORK, say).down(), *folders)


def main() -> int:
    """Do what the command line says, and turn what went wrong into a message."""
    use_utf8()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("up", "down"))
    options, rest = parser.parse_known_args()
    action = (lambda: up(rest)) if options.what == "up" else down
    return attempt(options.what, action, TestHostsError)


if __name__ == "__main__":
    sys.exit(main())
