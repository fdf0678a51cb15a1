"""`make fleet`: which containers there are, and what its page is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import demos
import fleet
import pytest
import watching
from conftest import PROJECT
from demos import Answer, DemoError, Site

MEMBERS = {"balancers": ["lb1", "lb2"], "web": ["web1", "web2"], "databases": ["db1"]}


class Stub:
    """A way to the site that answers, or fails, as it is told."""

    def __init__(self, outcome: int | Exception) -> None:
        self.outcome = outcome
        self.asked = 0

    def ask(self, path: str) -> Answer:
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Answer(self.outcome, "", "")


def watched(*outcomes: int | Exception) -> tuple[watching.Fleet, list[Stub]]:
    """A fleet whose balancers answer so."""
    stubs = [Stub(outcome) for outcome in outcomes]
    sites: Any = dict(zip(MEMBERS["balancers"], stubs, strict=True))
    return watching.Fleet(MEMBERS, sites), stubs


def said(**states: str) -> str:
    """What `haproxy-servers --json` prints."""
    servers = {
        name: {"state": state, "check": "L7OK", "connections": "0"}
        for name, state in states.items()
    }
    return json.dumps({"changed": False, "failed": False, "msg": "", "sites": {"toll": servers}})


def test_each_host_of_the_inventory_has_a_container() -> None:
    members = fleet.groups(PROJECT / "inventory" / "fleet" / "hosts.yml")
    specs = {spec.name: spec for spec in fleet.specs(members)}
    assert not [problem for spec in specs.values() for problem in spec.problems()]
    listed = {f"fleet-{name}" for names in members.values() for name in names}
    assert set(specs) == listed | {"fleet-acme"}
    assert len(members["balancers"]) > 1
    assert len(members["web"]) > 1
    ports = [port for spec in specs.values() for port in spec.publish]
    assert len(set(ports)) == 2 * len(members["balancers"])
    # The site is reached at the ports that lead to port 443 of a balancer.
    for name, site in fleet.sites(members).items():
        assert f"127.0.0.1:{site.port}:443" in specs[f"fleet-{name}"].publish


def test_the_inventory_has_the_name_and_the_ports_of_the_tool() -> None:
    told = (PROJECT / "inventory" / "fleet" / "group_vars" / "web.yml").read_text()
    assert f"domains: [{fleet.NAME}]" in told
    assert f"nginx_public_http_port: {fleet.HTTP_PORT}\n" in told
    assert f"nginx_public_https_port: {fleet.HTTPS_PORT}\n" in told


def test_the_inventory_gives_each_host_its_address(tmp_path: Path) -> None:
    """Written out: where a task is delegated, a template would read another host's name."""
    copy = tmp_path / "project" / "inventory" / "fleet"
    shutil.copytree(PROJECT / "inventory" / "fleet", copy)
    addresses = copy.parents[1] / ".cache" / "fleet" / "addresses.json"
    addresses.parent.mkdir(parents=True)
    given = {"lb1": "192.0.2.1", "web1": "192.0.2.2"}
    addresses.write_text(json.dumps(given))
    program = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [program, "-i", str(copy), "--list"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
    )
    listed = json.loads(done.stdout)
    hosts = listed["_meta"]["hostvars"]
    assert {name: hosts[name].get("ansible_host") for name in given} == given
    # No host is there that hosts.yml does not have.
    assert set(hosts) == {
        name for names in fleet.groups(copy / "hosts.yml").values() for name in names
    }


def test_a_host_in_two_groups_has_one_container() -> None:
    specs = fleet.specs({"balancers": ["lb1"], "web": ["web1"], "databases": ["web1"]})
    assert [spec.name for spec in specs] == ["fleet-lb1", "fleet-web1", "fleet-acme"]


@pytest.mark.parametrize("missing", ["balancers", "web"])
def test_an_inventory_without_them_is_refused(
    missing: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet, "ROOT", tmp_path)
    path = tmp_path / "hosts.yml"
    path.write_text(
        json.dumps({x: {"hosts": {"a": None}} for x in ("balancers", "web") if x != missing})
    )
    with pytest.raises(DemoError, match=rf"hosts\.yml has no host in {missing}: add one"):
        fleet.groups(path)


def test_a_client_goes_to_the_next_balancer_where_one_takes_no_connection() -> None:
    seen, stubs = watched(ConnectionRefusedError("refused"), 200)
    watching.request(seen, 0, due=1000.0)
    assert [stub.asked for stub in stubs] == [1, 1]
    assert seen.view(1000.0)["totals"]["good"] == 1


def test_a_request_that_was_sent_is_not_sent_again() -> None:
    for broken in (ConnectionResetError("reset"), TimeoutError("timed out"), 502):
        seen, stubs = watched(broken, 200)
        watching.request(seen, 0, due=1000.0)
        assert [stub.asked for stub in stubs] == [1, 0]
        assert seen.view(1000.0)["totals"]["failed"] == 1


def test_requests_take_turns() -> None:
    seen, stubs = watched(200, 200)
    for number in range(6):
        watching.request(seen, number, due=1000.0 + number)
    assert [stub.asked for stub in stubs] == [3, 3]


def test_requests_count_in_the_second_in_which_they_were_due() -> None:
    seen, _ = watched(200, 200)
    seen.answered(1000.9, 3.0, "")
    seen.answered(1000.1, 0.2, "503")
    seen.answered(1001.0, 0.1, "")
    assert seen.view(1004.0)["seconds"] == [
        {"at": 1000.0, "good": 1, "failed": 1, "slowest": 3.0},
        {"at": 1001.0, "good": 1, "failed": 0, "slowest": 0.1},
    ]
    assert seen.view(1004.0)["totals"] == {"good": 2, "failed": 1, "slow": 1}


def test_news_is_what_was_otherwise_before() -> None:
    seen, _ = watched(200, 200)
    seen.heard("lb1", said(web1="UP", web2="UP"), now=10.0)
    assert seen.view(10.0)["events"] == []
    seen.heard("lb1", said(web1="UP 1/3", web2="DOWN"), now=11.0)
    assert [event["what"] for event in seen.view(11.0)["events"]] == ["lb1: web2 is DOWN"]


def test_a_balancer_that_says_nothing_is_away() -> None:
    seen, _ = watched(200, 200)
    seen.heard("lb1", said(web1="UP"), now=10.0)
    assert seen.view(11.0)["balancers"]["lb1"]["up"] is True
    later = seen.view(11.0 + watching.SILENCE_SECONDS)
    assert later["balancers"]["lb1"] == {"up": False, "servers": {}}
    assert [event["what"] for event in later["events"]] == ["lb1 is away"]


@pytest.mark.parametrize(
    "line", ["", "cannot connect\n", json.dumps({"failed": True, "sites": {}})]
)
def test_what_is_no_answer_is_no_news(line: str) -> None:
    seen, _ = watched(200, 200)
    seen.heard("lb1", line, now=10.0)
    assert seen.view(10.0)["balancers"]["lb1"]["up"] is False


def test_the_site_is_asked_at_the_loopback(tmp_path: Path) -> None:
    """Not every system has an address for names below `localhost`."""
    assert demos.LOOPBACK == "127.0.0.1"
    assert Site("toll.localhost", 8444, tmp_path / "ca.pem").url == "https://toll.localhost:8444/"
