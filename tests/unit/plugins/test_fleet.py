"""What is decided about several hosts: batches, where a rollback goes, and a status's table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.wsgi.host.plugins.filter.batches import FilterModule
from ansible_collections.wsgi.host.plugins.plugin_utils import fleet
from ansible_collections.wsgi.host.plugins.plugin_utils.fleet import FleetError
from conftest import Play


class TestBatches:
    @pytest.mark.parametrize(
        ("serial", "expected"),
        [
            (1, ["a", "b", "c", "d", "e"]),
            (2, ["ab", "cd", "e"]),
            ("2", ["ab", "cd", "e"]),
            (9, ["abcde"]),
            ("100%", ["abcde"]),
            ("40%", ["ab", "cd", "e"]),
            ("1%", ["a", "b", "c", "d", "e"]),
            ([1, "100%"], ["a", "bcde"]),
            ([1, "40%"], ["a", "bc", "de"]),
        ],
    )
    def test_sizes(self, serial, expected):
        assert fleet.batches(list("abcde"), serial) == [list(each) for each in expected]

    def test_every_host_is_in_one_batch(self):
        hosts = [f"web{n}" for n in range(23)]
        for serial in (1, 3, "7%", "33%", [1, "10%", 5], "100%"):
            cut = fleet.batches(hosts, serial)
            assert [host for batch in cut for host in batch] == hosts

    @pytest.mark.parametrize("serial", [0, "0%", "many", "101%", -1, True, [], [1, "x"], None, 1.5])
    def test_anything_else_is_refused(self, serial):
        with pytest.raises(AnsibleFilterError, match="batches: "):
            FilterModule().filters()["batches"](["a"], serial)


def release(name: str, verdict: str = "healthy", since: str = "", **more: Any) -> dict[str, Any]:
    """A release as `toll-app releases` tells it; its content is its name without the Python."""
    return {
        "id": name,
        "content": name.split("-")[0],
        "revision": "f" * 40,
        "verdict": verdict,
        "activated_at": since,
        **more,
    }


def host(live: str | None, *releases: dict[str, Any]) -> dict[str, Any]:
    """A host's answer."""
    ordered = sorted(releases, key=lambda each: each["activated_at"], reverse=True)
    fit = [
        each["id"]
        for each in ordered
        if each["verdict"] == "healthy" and each["id"] != live and not each.get("excluded_at")
    ]
    return {"live": live, "releases": list(releases), "candidates": fit}


A, B, C, D = (release(name, since=f"2026-11-2{n}") for n, name in enumerate("abcd", 1))


class TestGoingBack:
    def test_last_healthy_one_before_the_live_one(self):
        assert fleet.going_back({"web1": host("c", A, B, C)}, "") == {"web1": "b"}

    def test_bad_one_in_between_is_passed_over(self):
        bad = {**B, "verdict": "bad"}
        assert fleet.going_back({"web1": host("c", A, bad, C)}, "") == {"web1": "a"}

    def test_unjudged_one_is_passed_over(self):
        """Shipped by a run that was killed, say."""
        answer = host("c", A, {**B, "verdict": "unjudged"}, C)
        assert fleet.going_back({"web1": answer}, "") == {"web1": "a"}

    def test_going_back_twice_goes_further_back(self):
        """Not forth again, to the one that somebody wanted to leave."""
        left = {**C, "excluded_at": "2026-11-25"}
        again = {**B, "activated_at": "2026-11-25"}
        assert fleet.going_back({"web1": host("b", A, again, left)}, "") == {"web1": "a"}

    def test_same_on_all_hosts(self):
        """web2 was added later and has no b."""
        hosts = {"web1": host("c", A, B, C), "web2": host("c", A, C)}
        assert fleet.going_back(hosts, "") == {"web1": "a", "web2": "a"}

    def test_hosts_with_other_pythons_have_other_ids_of_it(self):
        hosts = {
            "web1": host("c-311", release("b-311", since="1"), release("c-311", since="2")),
            "web2": host("c-313", release("b-313", since="1"), release("c-313", since="2")),
        }
        assert fleet.going_back(hosts, "") == {"web1": "b-311", "web2": "b-313"}

    def test_host_that_serves_it_already_is_no_obstacle(self):
        """A deploy of c that was killed halfway."""
        hosts = {"web1": host("c", A, B, C), "web2": host("b", A, B)}
        assert fleet.going_back(hosts, "") == {"web1": "b", "web2": "b"}

    def test_who_went_back_by_hand_on_one_host_is_asked_which_one_is_bad(self):
        """c is bad, and somebody had web2 serve b again; the way back must not lead it to c."""
        again = {**B, "activated_at": "2026-11-25"}
        hosts = {"web1": host("c", A, B, C), "web2": host("b", A, again, C)}
        with pytest.raises(fleet.FleetError, match=r"Name the one .* -e release=ID"):
            fleet.going_back(hosts, "")
        left = {**C, "excluded_at": "2026-11-25"}
        hosts["web2"] = host("b", A, again, left)
        assert fleet.going_back(hosts, "") == {"web1": "b", "web2": "b"}

    @pytest.mark.parametrize(
        "hosts",
        [
            {"web1": host("a", A)},
            {"web1": host("b", {**A, "verdict": "bad"}, B)},
            {"web1": host("b", {**A, "excluded_at": "2026-11-25"}, B)},
            {"web1": host("b", A, B), "web2": host("b", {**A, "verdict": "bad"}, B)},
            {"web1": host(None)},
        ],
    )
    def test_nowhere_to_go_is_said_with_what_there_is(self, hosts):
        with pytest.raises(FleetError) as refusal:
            fleet.going_back(hosts, "")
        words = str(refusal.value)
        assert "No other release that was judged healthy and can start is on" in words
        assert "playbooks/deploy.yml -e application_revision" in words
        for name, answer in hosts.items():
            assert f"- {name}: " in words
            for each in answer["releases"]:
                assert f"{each['id']} (" in words

    @pytest.mark.parametrize("wanted", ["a-311", "a-313", "a", "1234567"])
    def test_named_by_id_content_or_revision(self, wanted):
        older = {"revision": "1234567890" * 4}
        hosts = {
            "web1": host("b-311", release("a-311", **older), release("b-311")),
            "web2": host("b-313", release("a-313", **older), release("b-313")),
        }
        assert fleet.going_back(hosts, wanted) == {"web1": "a-311", "web2": "a-313"}

    def test_named_one_may_be_a_bad_one(self):
        """It is judged again, and perhaps its surroundings were at fault."""
        hosts = {"web1": host("b", {**A, "verdict": "bad"}, B)}
        assert fleet.going_back(hosts, "a") == {"web1": "a"}

    def test_release_that_cannot_start_is_refused_by_name(self):
        gone = {**A, "cannot_start": "its interpreter /usr/bin/python3.11 is not on this host"}
        hosts = {"web1": host("b", gone, B), "web2": host("b", A, B)}
        with pytest.raises(FleetError) as refusal:
            fleet.going_back(hosts, "a")
        words = str(refusal.value)
        assert "release is 'a', which cannot start on every host" in words
        assert "- web1: a: its interpreter /usr/bin/python3.11 is not on this host" in words
        assert "- web2" not in words

    def test_live_content_for_another_python_is_no_way_back(self):
        """The run would be green and change nothing. What a host of before says is not trusted."""
        old, new = release("c-311", since="1"), release("c-313", since="2")
        with pytest.raises(FleetError, match="there is nothing to go back to"):
            fleet.going_back({"web1": host("c-313", old, new)}, "")
        older = release("b-311", since="0")
        assert fleet.going_back({"web1": host("c-313", older, old, new)}, "") == {"web1": "b-311"}

    def test_id_for_another_python_of_the_live_content_can_be_named(self):
        """Where the new Python itself is what is wrong."""
        old, new = release("c-311", since="1"), release("c-313", since="2")
        assert fleet.going_back({"web1": host("c-313", new, old)}, "c-311") == {"web1": "c-311"}
        assert fleet.going_back({"web1": host("c-313", old, new)}, "c") == {"web1": "c-313"}

    def test_what_cannot_start_is_said_where_there_is_nowhere_to_go(self):
        gone = {**A, "cannot_start": "its interpreter /usr/bin/python3.11 is not on this host"}
        answer = {**host("b", gone, B), "candidates": []}
        with pytest.raises(FleetError, match=r"- web1: .*a \(.*healthy, cannot start\)"):
            fleet.going_back({"web1": answer}, "")

    def test_unknown_name(self):
        hosts = {"web1": host("b", A, B), "web2": host("b", B)}
        with pytest.raises(FleetError) as refusal:
            fleet.going_back(hosts, "a")
        words = str(refusal.value)
        assert "release is 'a', which is not on web2" in words
        assert "playbooks/deploy.yml -e application_revision=a" in words
        # Both hosts, since it has to be on both; with the revision that people know.
        assert (
            "- web1: b (revision ffffffffff, live, healthy), a (revision ffffffffff, h" in words
            or (
                "- web1: a (revision ffffffffff, healthy), b (revision ffffffffff, live, healthy)"
                in words
            )
        )
        assert "- web2: b (revision ffffffffff, live, healthy)" in words

    def test_what_a_refusal_offers_can_be_taken(self):
        """Each id that is named leads back on every host, whatever Python a host has."""
        first, second = release("b-311"), release("a-313")
        other = {**release("a-311"), "revision": "e" * 40}
        hosts = {
            "web1": host("b-311", first, release("a-311")),
            "web2": host("b-313", second, release("b-313")),
        }
        assert other["content"] == second["content"]
        with pytest.raises(FleetError, match=r"Name one by its id, (\S+) or (\S+)\. ") as refusal:
            fleet.going_back(hosts, "fffffff")
        offered = re.search(r"by its id, (\S+) or (\S+)\. ", str(refusal.value))
        assert offered is not None
        for name in offered.groups():
            assert set(fleet.going_back(hosts, name)) == {"web1", "web2"}

    def test_revision_of_several_releases_does_not_choose(self):
        with pytest.raises(
            FleetError, match=r"several releases were made of\. Name one by its id, a or b or c\. "
        ):
            fleet.going_back({"web1": host("c", A, B, C)}, "fffffff")

    def test_short_name_is_not_the_beginning_of_a_revision(self):
        with pytest.raises(FleetError, match="is not on any host"):
            fleet.going_back({"web1": host("c", A, B, C)}, "ffff")

    def test_playbook_stops_with_the_message(self, play: Play, tmp_path: Path):
        task = {"wsgi.host.rollback_choice": {"hosts": {"here": host("a", A)}}, "register": "it"}
        done = play(task)
        assert done.code == 2
        assert "No other release that was judged healthy" in done.output
        assert "Traceback" not in done.output


def well(live: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A host's answer to `status`, with nothing wrong."""
    return {
        "live": live["id"],
        "release": {**live, "activated_at": "2026-11-25T02:30:11Z", "activated_by": "anna@desk"},
        "releases": [live],
        "service": "active",
        "health": {"ok": True, "status": 200, "milliseconds": 4, "release": live["id"]},
        "workers": 5,
        "memory_bytes": 61 << 20,
        "certificate_days": 59.5,
        "lock": None,
        "drift": [],
        **more,
    }


class TestStatus:
    def test_all_is_well(self):
        text = fleet.report("", {"web1": well(B), "web2": well(B)}, {})
        rows = [line.split() for line in text.splitlines()]
        expected = (
            "web1 b ffffffffff 2026-11-25 02:30 anna@desk healthy ok, 4 ms 5 61 MiB 59.5 days -"
        )
        assert rows[1] == expected.split()
        assert text.splitlines()[-1] == "All hosts serve the same release, and it is healthy."
        assert "DRIFT" not in text

    @pytest.mark.parametrize(
        ("hosts", "words"),
        [
            ({"web1": well(A), "web2": well(B)}, "hosts differ: a on web1; b on web2"),
            ({"web1": well(A, drift=["b answers"])}, "web1: b answers"),
        ],
    )
    def test_what_is_not_as_it_should_be(self, hosts, words):
        assert f"DRIFT  {words}" in fleet.report("", hosts, {}).splitlines()
        told = json.loads(fleet.as_json("", hosts, {}))
        assert words in told["drift"]
        assert told["ok"] is False

    @pytest.mark.parametrize(
        ("facts", "health"),
        [
            ({"health": {"ok": False, "status": 503, "milliseconds": 1}}, "503"),
            ({"health": {"ok": False, "error": "no answer within 5 s"}}, "no answer within 5 s"),
            ({"site": {"ok": False, "error": "127.0.0.1:443: refused"}}, "nginx: no answer"),
            ({"site": {"ok": False, "status": 502}}, "nginx: 502"),
        ],
    )
    def test_host_that_serves_nobody_is_down(self, facts, health):
        """Green beside a site that does not answer would be the worst answer."""
        bad = well(A, drift=["toll-app.service is failed. Run site.yml"], **facts)
        assert fleet.down({"web1": bad, "web2": well(A)}) == {"web1": bad["drift"][0]}
        assert fleet.down({"web1": well(A, **facts)}) == {"web1": health}
        assert f"  {health}  " in fleet.report("", {"web1": bad}, {})
        assert fleet.down({"web1": well(A, site={"ok": True})}) == {}

    def test_host_that_does_not_answer_is_a_line(self):
        text = fleet.report("", {"web1": well(A)}, {"web2": "No route to host"})
        assert "NO ANSWER  web2: No route to host" in text.splitlines()
        assert json.loads(fleet.as_json("", {"web1": well(A)}, {"web2": "x"}))["ok"] is False

    def test_maintenance_is_said_and_is_no_fault(self):
        told = {"since": "2026-11-25T02:00:00Z", "by": "ben", "reason": "new disk"}
        hosts = {"web1": well(A, maintenance=told), "web2": well(A, maintenance=None)}
        (line,) = (x for x in fleet.report("", hosts, {}).splitlines() if "MAINTENANCE" in x)
        since = "since 2026-11-25T02:00:00Z by ben, for 'new disk'."
        assert line == f"MAINTENANCE  web1: clients get 503 {since}"
        assert fleet.down(hosts) == {}
        assert json.loads(fleet.as_json("", hosts, {}))["ok"] is True

    def test_a_drained_host_is_said_and_is_no_fault(self):
        hosts = {"web1": well(A, drained="2026-11-25T02:00:00Z"), "web2": well(A, drained=None)}
        (line,) = (x for x in fleet.report("", hosts, {}).splitlines() if "DRAINED" in x)
        assert line == "DRAINED  web1: balancers send nobody there, since 2026-11-25T02:00:00Z."
        assert json.loads(fleet.as_json("", hosts, {}))["ok"] is True

    def test_lock_says_who_since_when_and_what_for(self):
        lock = {"owner": "ben@desk", "since": "2026-11-25T02:00:00Z", "reason": "v2"}
        text = fleet.report("", {"web1": well(A, lock=lock)}, {})
        assert "Lock on web1: ben@desk since 2026-11-25T02:00:00Z, for 'v2'." in text

    def test_bare_host(self):
        without = dict.fromkeys(("live", "release", "memory_bytes", "certificate_days"))
        nothing = {**well(A), **without}
        assert fleet.report("", {"web1": nothing}, {}).splitlines()[1].split()[:2] == [
            "web1",
            "none",
        ]

    def test_json_is_a_line_of_its_own(self, play: Play):
        task = {"wsgi.host.status_report": {"hosts": {"web1": well(A)}, "format": "json"}}
        done = play(task)
        assert done.code == 0, done.output
        [line] = [line for line in done.output.splitlines() if line.startswith("{")]
        assert json.loads(line)["hosts"]["web1"]["live"] == "a"


def test_several_applications_are_told_apart():
    assert fleet.report("shop", {"web1": well(A)}, {}).splitlines()[0] == "shop:"
    assert json.loads(fleet.as_json("shop", {"web1": well(A)}, {}))["application"] == "shop"


def test_a_page_of_all_applications_is_written(play: Play, tmp_path: Path):
    """What a person opens; nobody else on the control node reads it."""
    target = tmp_path / "a folder" / "status.html"
    reports = [
        fleet.as_data(name, {"web1": well(A)}, {"web2": "gone"}) for name in ("shop", "desk")
    ]
    done = play({"wsgi.host.status_page": {"path": str(target), "reports": reports}})
    assert done.code == 0, done.output
    assert target.as_uri() in done.output.replace("\n", "")
    assert target.stat().st_mode & 0o777 == 0o600
    text = target.read_text()
    assert text.count("web2 does not answer: gone") == 2
    assert "<h2>shop</h2>" in text
    assert "<h2>desk</h2>" in text


def test_a_page_that_cannot_be_written_is_named(play: Play, tmp_path: Path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "status.html"
    done = play({"wsgi.host.status_page": {"path": str(target), "reports": []}})
    assert done.code != 0
    said = " ".join(done.output.split())
    assert f"application_status_page is {target}, which cannot be written" in said
