#!/usr/bin/env python3
"""`make fleet`, `make fleet-watch` and `make fleet-down`: several hosts as containers.

`up` has a container running for each host of inventory/fleet, and the ACME server beside them,
runs site.yml, asks through each balancer and says what to try. A host that was added to the
inventory is made, and one that was taken off is removed once no balancer knows it. `watch` sends
requests through the balancers and serves a page that shows who answers (tools/watching.py).
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sys
from pathlib import Path

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
from hosts import Hosts, Spec, write_whole

SCOPE = "fleet"
NETWORK = "toll-fleet"
ACME = f"{SCOPE}-acme"
IMAGE = "debian13"
INVENTORY = "inventory/fleet"
FOLDER = ROOT / ".cache" / SCOPE
CA_FILE = FOLDER / "ca.pem"
# As in inventory/fleet.
NAME = "toll.localhost"
ADDRESSES = FOLDER / "addresses.json"
PASSWORD_FILE = FOLDER / "admin-password"
# Ports of this machine that lead to the first balancer; those of the next ones follow.
HTTP_PORT = 8081
HTTPS_PORT = 8444
# A port of HTTP for each of them lies below.
BALANCERS_AT_MOST = 100


def groups(path: Path) -> dict[str, list[str]]:
    """The hosts of each group in an inventory, in their order.

    Args:
        path: of its hosts.yml.

    Raises:
        DemoError: it names no balancer or no host that serves.
    """
    import yaml

    told = yaml.safe_load(path.read_text()) or {}
    found = {
        str(group): [str(name) for name in (content or {}).get("hosts") or {}]
        for group, content in told.items()
    }
    for needed in ("balancers", "web"):
        if not found.get(needed):
            raise DemoError(f"{path.relative_to(ROOT)} has no host in {needed}: add one.")
    return found


def specs(members: dict[str, list[str]]) -> list[Spec]:
    """A container for each host, and the ACME server."""
    balancers = members["balancers"][:BALANCERS_AT_MOST]
    return [
        *(
            Spec(
                f"{SCOPE}-{name}",
                IMAGE,
                # The ACME server asks any of them, as it would with several address records.
                aliases=(NAME,),
                publish=(
                    f"{LOOPBACK}:{HTTPS_PORT + number}:443",
                    f"{LOOPBACK}:{HTTP_PORT + number}:80",
                ),
            )
            for number, name in enumerate(balancers)
        ),
        *(
            Spec(f"{SCOPE}-{name}", IMAGE)
            for name in dict.fromkeys(x for each in members.values() for x in each)
            if name not in balancers
        ),
        Spec(ACME, "acme"),
    ]


def sites(members: dict[str, list[str]]) -> dict[str, Site]:
    """The site as a client sees it through each balancer, by the balancer's name."""
    return {
        name: Site(NAME, HTTPS_PORT + number, CA_FILE)
        for number, name in enumerate(members["balancers"])
    }


def up(arguments: list[str]) -> None:
    """Have the fleet running, and show that it is.

    Args:
        arguments: further arguments of ansible-playbook.

    Raises:
        DemoError: a part failed, with its output shown before.
        TestHostsError: there is no host to run it on.
    """
    clock = Clock()
    engine = Engine()
    hosts = Hosts(engine, SCOPE, NETWORK, say)
    members = groups(ROOT / INVENTORY / "hosts.yml")
    wanted = specs(members)
    with clock.part("image"):
        images.ensure_all(engine, (spec.image for spec in wanted), say)
    with clock.part("hosts"):
        found = hosts.up(wanted)
        hosts.acme_ca(ACME)
        FOLDER.mkdir(parents=True, exist_ok=True)
        addresses = {each["hostname"]: each["address"] for each in found if each["name"] != ACME}
        write_whole(ADDRESSES, json.dumps(addresses, indent=1) + "\n")
    with clock.part("provisioning"):
        changed = provision(INVENTORY, arguments)
    kept = {spec.name for spec in wanted}
    gone = [each["name"] for each in hosts.listed() if each["name"] not in kept]
    if gone:
        say(f"Removed, since the inventory has them no more: {', '.join(hosts.down(gone))}.")
    with clock.part("requests"):
        shutil.copyfile(hosts.acme_root(ACME), CA_FILE)
        for balancer, site in sites(members).items():
            try:
                answer = site.ask("/readyz")
            except OSError as error:
                journal = hosts.journal(f"{SCOPE}-{balancer}")
                raise DemoError(f"{balancer}, {site.url}: {error}\n{journal}") from error
            if answer.status != http.HTTPStatus.OK:
                raise DemoError(f"{balancer}, {site.url}readyz answered {answer.status}.")
    with clock.part("status"):
        page = status_page(INVENTORY, FOLDER / "status.html")
    say(closing(members, clock, changed, page))


def closing(members: dict[str, list[str]], clock: Clock, changed: int, page: str) -> str:
    """What is there now, and what to try."""
    run = f".venv/bin/ansible-playbook -i {INVENTORY} playbooks/"
    ca_file = CA_FILE.relative_to(ROOT)
    last = members["web"][-1]
    databases = members.get("databases", [])
    primary = (
        f"""
  which primary   make shell HOST={SCOPE}-{databases[0]}, and there: sudo postgresql-cluster status
  another one     {run}switchover.yml"""
        if len(databases) > 1
        else ""
    )
    through = " and ".join(site.url for site in sites(members).values())
    state = f"changed={changed}" if changed else "changed=0: everything was already as it should be"
    return f"""
Up: {clock}. {state}.
{" and ".join(members["balancers"])} lead to {", ".join(members["web"])}: {through}

What to do next:
  watch it        make fleet-watch
  see it          curl --cacert {ca_file} {next(iter(sites(members).values())).url}
  its state       {page}
  log in          as {ADMIN}, password {PASSWORD_FILE.read_text().strip()}
  who serves      make shell HOST={SCOPE}-{members["balancers"][0]}, and there: sudo haproxy-servers
  drain a host    {run}drain.yml --limit {last}; later undrain.yml
  deploy          edit app/, then {run}deploy.yml
  reboot all      {run}reboot.yml
  lose a host     python3 testhosts/testhosts.py power-cut {SCOPE}-{last}{primary}
  one more host   add a line to {INVENTORY}/hosts.yml, then make fleet
  remove it       make fleet-down"""


def watch() -> None:
    """Send requests and serve the page until Ctrl+C.

    Raises:
        DemoError: the fleet is not up, or the page's port is taken.
    """
    import watching

    if not CA_FILE.exists():
        raise DemoError("The fleet is not up: run `make fleet` first.")
    members = groups(ROOT / INVENTORY / "hosts.yml")
    engine = Engine()

    def asking(balancer: str) -> list[str]:
        script = "while :; do haproxy-servers --json; sleep 1; done"
        return engine.command("exec", f"{SCOPE}-{balancer}", "sh", "-c", script)

    watching.serve(watching.Fleet(members, sites(members)), asking)


def down() -> None:
    """Remove the hosts, what is in them and their network. Images stay, as caches do.

    Raises:
        TestHostsError: the engine failed.
    """
    folders = (FOLDER, CACHE / "acme" / ACME)
    remove(lambda: Hosts(Engine(), SCOPE, NETWORK, say).down(), *folders)


def main() -> int:
    """Do what the command line says, and turn what went wrong into a message."""
    use_utf8()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("up", "watch", "down"))
    options, rest = parser.parse_known_args()
    actions = {"up": lambda: up(rest), "watch": watch, "down": down}
    return attempt(f"fleet {options.what}", actions[options.what], TestHostsError)


if __name__ == "__main__":
    sys.exit(main())
