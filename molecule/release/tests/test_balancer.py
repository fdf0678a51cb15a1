"""A fleet behind a balancer: whatever happens to one of its hosts, clients have the other one."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from balanced import ADDRESS, Balanced, log, run
from bench import FOLDER, Done, playbook, write_inventory
from shared import lost_nothing

# A check that may take three seconds fails twice, or three messages a second apart are missed;
# a busy machine takes its time.
TAKEN_SECONDS = 20


def test_clients_come_to_all_hosts_and_under_their_own_address(balanced: Balanced) -> None:
    with balanced.under_load() as load:
        answering = balanced.answering()
    lost_nothing(load)
    assert answering == {each.name for each in balanced.members}
    addresses = {line["remote_addr"] for each in balanced.members for line in log(each)[-20:]}
    assert balanced.balancer.address not in addresses
    assert set(balanced.states().values()) == {"UP"}


@pytest.mark.proof
def test_a_second_run_has_nothing_to_do(balanced: Balanced) -> None:
    """In every `make test` it is tried with firewalls: test_firewall.py."""
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


def test_a_reboot_costs_no_client_anything(balanced: Balanced) -> None:
    """`systemctl reboot` ends a container; somebody has to switch it on again."""
    rebooted = [balanced.members[1], balanced.balancer]
    over = threading.Event()

    def switch_on() -> None:
        while not over.wait(0.5):
            for host in rebooted:
                state = host.testhosts.engine.podman(
                    "inspect", "--format={{.State.Running}}", host.container
                )
                if "false" in str(state):
                    host.testhosts.start(host.container)

    def booted() -> list[str]:
        return [host.root("cut -d ' ' -f 22 /proc/1/stat") for host in rebooted]

    thread = threading.Thread(target=switch_on)
    thread.start()
    before = booted()
    since = balanced.balancer.root("date +%s").strip()
    try:
        with balanced.under_load(others=(balanced.spare.address,)) as load:
            done = run("reboot", f"--limit={balanced.members[1].name},balancer")
    finally:
        over.set()
        thread.join()
    assert done.returncode == 0, done.output
    assert all(now != then for now, then in zip(booted(), before, strict=True))
    lost_nothing(load)
    assert set(balanced.states().values()) == {"UP"}
    # Clients use their connections all the time, so a stop that came before they had ended would
    # have cut them after haproxy_stop_timeout_seconds.
    told = balanced.balancer.root(f"journalctl -u haproxy.service -o cat --since=@{since}")
    assert "Stopped" in told
    assert "timed out" not in told


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
    balanced.wait_until_up()


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


def test_one_balancer_has_the_floating_address_and_says_so(balanced: Balanced) -> None:
    with balanced.asked(1) as asked:
        holder = balanced.settled()
    assert asked.good
    done = run("status")
    said = " ".join(done.output.split())
    assert f"{holder.name} has {balanced.floating}." in said
    assert f" waits for {balanced.floating}." in said


def test_a_balancer_without_haproxy_gives_the_address_away_and_does_not_take_it_back(
    balanced: Balanced,
) -> None:
    holder = balanced.settled()
    with balanced.asked(TAKEN_SECONDS) as asked:
        holder.root("systemctl stop haproxy")
    print(f"HAProxy stopped: {asked.pause:.1f} s without an answer")
    assert asked.pause < TAKEN_SECONDS
    taker = next(each for each in balanced.balancers if each.name != holder.name)
    with balanced.asked(5, beside=taker) as back:
        holder.root("systemctl start haproxy")
    assert balanced.settled().name != holder.name
    assert back.pause < 1


def test_a_balancer_whose_haproxy_hangs_gives_the_address_away(balanced: Balanced) -> None:
    """Its kernel still takes connections, and its process is there."""
    holder = balanced.settled()
    holder.root("pkill -STOP haproxy")
    try:
        with balanced.asked(TAKEN_SECONDS) as asked:
            pass
    finally:
        holder.root("pkill -CONT haproxy")
    print(f"HAProxy hung: {asked.pause:.1f} s without an answer")
    assert asked.pause < TAKEN_SECONDS
    assert balanced.settled().name != holder.name


def test_a_power_cut_of_the_balancer_with_the_address_costs_seconds(balanced: Balanced) -> None:
    holder = balanced.settled()
    with balanced.asked(TAKEN_SECONDS) as asked:
        holder.testhosts.cut_off(holder.container)
    holder.testhosts.start(holder.container)
    print(f"power cut: {asked.pause:.1f} s without an answer")
    assert asked.pause < TAKEN_SECONDS
    assert balanced.settled().name != holder.name


def test_an_address_that_is_given_away_is_missed_for_less_than_a_check(balanced: Balanced) -> None:
    """As reboot.yml does before it reboots a balancer; one that nobody takes stays."""
    holder = balanced.settled()
    other = next(each for each in balanced.balancers if each.name != holder.name)
    with balanced.asked(4, beside=other) as asked:
        said = json.loads(holder.root(f"{ADDRESS} leave --json"))
    print(f"given away: {asked.pause:.1f} s without an answer")
    assert asked.pause < 2
    assert (said["changed"], said["addresses"]) == (True, {balanced.floating: False})
    refused = json.loads(other.root(f"{ADDRESS} leave --json --seconds 1", check=False))
    assert refused["failed"]
    assert f"No other host answered at {balanced.floating}, port 443" in refused["msg"]
    assert json.loads(holder.root(f"{ADDRESS} join --json"))["changed"]
    balanced.settled()
