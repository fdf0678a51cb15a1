"""A fleet behind a balancer: whatever happens to one of its hosts, clients have the other one."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import variants
from bench import FOLDER, Done, Host, Load, described, host_variables, playbook, write_inventory
from shared import DOMAIN, Member, lost_nothing

SERVERS = "/usr/local/sbin/haproxy-servers"
INVENTORY = FOLDER / "balanced" / "hosts.yml"


@dataclass
class Balanced:
    """Two hosts and what stands in front of them.

    Attributes:
        members: the hosts; the first has the database as well.
        balancer: which clients know.
    """

    members: list[Member]
    balancer: Host

    def servers(self, *arguments: str) -> dict[str, Any]:
        """What the balancer says of its hosts."""
        said = self.balancer.root(f"{SERVERS} --json {' '.join(arguments)}", check=False)
        return dict(json.loads(said))

    def states(self) -> dict[str, str]:
        (servers,) = self.servers()["sites"].values()
        return {name: str(server["state"]) for name, server in servers.items()}

    @contextlib.contextmanager
    def under_load(self, steady: float = 2.0) -> Iterator[Load]:
        """Requests to the balancer, whose answers any host may give."""
        with self.members[0].under_load(steady, address=self.balancer.address) as load:
            yield load

    def answered(self) -> dict[str, int]:
        """How many of clients' requests each host has answered so far."""
        return {each.name: len(log(each)) for each in self.members}

    def answering(self, seconds: float = 2.0) -> set[str]:
        """The hosts that answer clients for the next seconds."""
        before = self.answered()
        time.sleep(seconds)
        return {name for name, count in self.answered().items() if count > before[name]}


def log(member: Host) -> list[dict[str, Any]]:
    """Requests for the API in nginx's log; what balancers and the host itself ask is not there."""
    lines = member.root("cat /var/log/nginx/access.log").splitlines()
    return [line for line in map(json.loads, lines) if "/api/v1/" in line["uri"]]


def run(name: str, *arguments: str, **extra: Any) -> Done:
    return playbook(INVENTORY, name, *arguments, **extra).wait()


@pytest.fixture(scope="module")
def balanced(fleet: list[Member], request: pytest.FixtureRequest, testhosts: Any) -> Balanced:
    """The fleet and a bare host of the group `balancers`: one run of site.yml makes it one."""
    told = Path(request.config.getoption("ansible_inventory"))
    variables = {**host_variables(told, "balancer"), "haproxy_max_connections": 2000}
    # Host wants a description's domain; a balancer's are those of its hosts.
    balancer = Host("balancer", {**variables, "toll": fleet[0].variables["toll"]}, testhosts)
    del balancer.variables["toll"]
    write_inventory(
        INVENTORY,
        {member.name: member.variables for member in fleet},
        balancers={"balancer": balancer.variables},
        databases={fleet[0].name: {}},
    )
    # Placeholders have the same subject, so a client could not tell whose signature it looks at.
    first, second = fleet
    for name in ("fullchain.pem", "privkey.pem"):
        path = f"/etc/ssl/sites/{DOMAIN}/{name}"
        second.root(f"cat >$(readlink -f {path})", given=first.root(f"cat {path}"))
    second.root("systemctl reload nginx")
    # As in the fixture `fleet`: data that are left behind are nobody's.
    done = run("site", application_abandon=["database"])
    assert done.returncode == 0, done.output
    return Balanced(fleet, balancer)


def test_clients_come_to_all_hosts_and_under_their_own_address(balanced: Balanced) -> None:
    with balanced.under_load() as load:
        answering = balanced.answering()
    lost_nothing(load)
    assert answering == {each.name for each in balanced.members}
    addresses = {line["remote_addr"] for each in balanced.members for line in log(each)[-20:]}
    assert balanced.balancer.address not in addresses
    assert set(balanced.states().values()) == {"UP"}


def test_a_second_run_has_nothing_to_do(balanced: Balanced) -> None:
    done = run("site")
    assert done.returncode == 0, done.output
    assert done.changed == 0, done.output


def test_a_drained_host_serves_nobody_and_no_client_notices(balanced: Balanced) -> None:
    first, second = (each.name for each in balanced.members)
    with balanced.under_load() as load:
        drained = run("drain", f"--limit={second}")
        assert drained.returncode == 0, drained.output
        # Whoever deploys meanwhile asks the host itself.
        status = balanced.members[1].ask()[0]
        answering = balanced.answering()
        refused = run("drain", f"--limit={first}")
        brought_back = run("undrain", f"--limit={second}")
        both = balanced.answering()
    lost_nothing(load)
    assert status == 200
    assert answering == {first}
    assert refused.returncode != 0
    said = " ".join(refused.output.split())
    assert f"Without {first} nobody serves toll-app" in said
    assert "add -e application_drain_last=yes" in said
    assert refused.changed == 0, refused.output
    assert brought_back.returncode == 0, brought_back.output
    assert set(balanced.states().values()) == {"UP"}
    assert both == {first, second}


def test_a_reboot_and_a_deploy_cost_no_client_anything(balanced: Balanced) -> None:
    """`systemctl reboot` ends a container; somebody has to switch it on again."""
    member = balanced.members[1]
    over = threading.Event()

    def switch_on() -> None:
        while not over.wait(0.5):
            state = member.testhosts.engine.podman(
                "inspect", "--format={{.State.Running}}", member.container
            )
            if "false" in str(state):
                member.testhosts.start(member.container)

    thread = threading.Thread(target=switch_on)
    thread.start()
    before = member.root("cut -d ' ' -f 22 /proc/1/stat")
    mark = f"balanced-{secrets.token_hex(3)}"
    source = variants.make(FOLDER / "balanced" / "sources", mark)
    try:
        with balanced.under_load() as load:
            rebooted = run("reboot", f"--limit={member.name}")
            deployed = run("deploy", **described(source=str(source)))
    finally:
        over.set()
        thread.join()
    assert rebooted.returncode == 0, rebooted.output
    assert member.root("cut -d ' ' -f 22 /proc/1/stat") != before
    assert deployed.returncode == 0, deployed.output
    lost_nothing(load)
    assert mark in load.answered_by
    assert set(balanced.states().values()) == {"UP"}


def test_a_host_that_dies_costs_what_was_under_way_on_it(balanced: Balanced) -> None:
    """Nothing that was acknowledged is lost, and others serve at once."""
    member = balanced.members[1]
    with balanced.under_load() as load:
        died = time.monotonic()
        member.testhosts.cut_off(member.container)
        time.sleep(15)
        member.testhosts.start(member.container)
    assert load.reconciliation.right, load.reconciliation
    failed = [record for record in load.records if record.error]
    # Of its connections, those with a request under way; HAProxy asks others for new ones.
    assert all(record.due < died + 15 for record in failed)
    late = [record for record in failed if record.due > died + 8]
    assert late == []
    end = time.monotonic() + 60
    while set(balanced.states().values()) != {"UP"}:
        assert time.monotonic() < end, balanced.states()
        time.sleep(0.5)


def test_a_balancer_that_is_down_can_be_done_without(balanced: Balanced) -> None:
    """Nothing answers there. Somebody has to say so: it might only be out of reach from here."""
    one_down = FOLDER / "balanced" / "one-down.yml"
    first, second = balanced.members
    gone = {"ansible_host": "127.0.0.9", "ansible_port": 1, "application_peer_address": "192.0.2.9"}
    write_inventory(
        one_down,
        {member.name: member.variables for member in balanced.members},
        balancers={"balancer": balanced.balancer.variables, "gone": gone},
        databases={first.name: {}},
    )

    def on_second(name: str, **extra: Any) -> Done:
        return playbook(one_down, name, f"--limit={second.name}", **extra).wait()

    refused = on_second("drain")
    assert refused.returncode != 0
    assert refused.changed == 0, refused.output
    said = " ".join(refused.output.split())
    assert "gone cannot be reached." in said
    assert "add -e application_balancers_down=gone. Nothing was changed." in said
    misspelt = " ".join(on_second("drain", application_balancers_down="gome").output.split())
    assert (
        "application_balancers_down names gome, and the group balancers has balancer, gone"
        in misspelt
    )
    drained = on_second("drain", application_balancers_down="gone")
    assert drained.returncode == 0, drained.output
    assert balanced.states()[second.name] != "UP"
    back = on_second("undrain", application_balancers_down="gone")
    assert back.returncode == 0, back.output
    assert set(balanced.states().values()) == {"UP"}


def test_what_cannot_be_balanced_is_said_before_anything_changes(balanced: Balanced) -> None:
    odd = FOLDER / "balanced" / "odd.yml"
    first, second = balanced.members
    other = {
        **second.variables,
        "toll": {**second.variables["toll"], "health": {"path": "/healthz"}},
    }
    write_inventory(
        odd,
        {first.name: first.variables, second.name: other},
        balancers={"balancer": balanced.balancer.variables},
        databases={first.name: {}},
    )
    done = playbook(odd, "site").wait()
    assert done.returncode != 0, done.output
    assert done.changed == 0, done.output
    said = " ".join(done.output.split())
    assert (
        f"applications.toll-app.health has /readyz with 200 on {first.name}, and /healthz with 200 "
        f"on {second.name}; a balancer asks all of them the same: describe the application once"
        in said
    )
