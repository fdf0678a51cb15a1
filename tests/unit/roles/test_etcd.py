"""The etcd role's configuration, rendered, and how a member finds the others."""

from __future__ import annotations

import copy
import datetime
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from ansible_collections.wsgi.host.plugins.plugin_utils.authority import (
    MEMBERS,
    authority,
    member_certificate,
)
from cryptography import x509

from .ports import free_ports
from .preflight import Case, preflight
from .render import ROLES, evaluate, render

SECRET = "s" * 64
CERTIFICATE, KEY = member_certificate(SECRET, "192.0.2.31", datetime.datetime.now(datetime.UTC))
GOOD: dict[str, Any] = {
    "etcd_name": "db1",
    "etcd_members": [{"name": f"db{n}", "address": f"192.0.2.3{n}"} for n in (1, 2, 3)],
    "etcd_certificate": CERTIFICATE,
    "etcd_certificate_key": KEY,
    "etcd_authority": authority(SECRET, MEMBERS),
}
TEMPLATES = (
    *("etcd/etcd.yml", "etcd/members.json", "libexec/etcd-join"),
    "systemd/etcd.service.d/10-role.conf",
)


def configuration(family: str = "Debian", **overrides: Any) -> dict[str, str]:
    told = {**GOOD, **overrides}
    return {name: render("etcd", f"{name}.j2", family, **told) for name in TEMPLATES}


def test_nobody_is_answered_without_a_certificate() -> None:
    told = yaml.safe_load(configuration()["etcd/etcd.yml"])
    for side in ("client-transport-security", "peer-transport-security"):
        assert told[side]["client-cert-auth"] is True
        assert told[side]["trusted-ca-file"] == "/etc/etcd/authority.pem"
    for name in ("listen-peer-urls", "listen-client-urls"):
        assert told[name].startswith("https://192.0.2.31:")
    # Without one it says how it is, and nothing that it keeps.
    assert told["listen-metrics-urls"] == "http://127.0.0.1:2381"


@pytest.mark.parametrize("name", ["12", "on"])
def test_any_name_is_a_text(name: str) -> None:
    """etcd does not start with a number in its place."""
    members = [{**GOOD["etcd_members"][0], "name": name}, *GOOD["etcd_members"][1:]]
    texts = configuration(etcd_name=name, etcd_members=members)
    assert yaml.safe_load(texts["etcd/etcd.yml"])["name"] == name


def test_its_key_is_read_by_nobody_else() -> None:
    files = evaluate("etcd", "__etcd_files", "Debian", **GOOD)
    (key,) = [each for each in files if each.get("secret")]
    assert (key["dest"], key["mode"], key["group"]) == ("/etc/etcd/member.key", "0640", "etcd")


@pytest.mark.parametrize(
    ("changed", "pending", "restarts", "at_once"),
    [
        (["etcd.yml"], False, True, False),
        (["member.crt", "member.key"], False, False, False),
        # One that trusts the new one would wait for others, which trust the old one.
        (["authority.pem", "member.crt", "member.key"], False, True, True),
        ([], True, True, True),
    ],
    ids=["settings", "renewed certificate", "another authority", "interrupted run"],
)
def test_members_restart_one_after_the_other_while_they_trust_each_other(
    changed: list[str], pending: bool, restarts: bool, at_once: bool
) -> None:
    task = yaml.safe_load((ROLES / "etcd/handlers/apply.yml").read_text())[0]
    told = {
        **{name: trust_as_template(value) for name, value in task["vars"].items()},
        "__etcd_tree": {"files": {f"/etc/etcd/{name}": {} for name in changed}, "pending": pending},
        "wsgi_host": {"units": {"etcd.service": {"active": True, "enabled": True}}},
    }

    def value(text: str) -> Any:
        return evaluate("etcd", text.strip("{} "), "Debian", **GOOD, **copy.deepcopy(told))

    state = value(task["ansible.builtin.systemd_service"]["state"])
    assert state == ("restarted" if restarts else "started")
    assert value(task["throttle"]) == (0 if at_once else 1)


def numbers(folder: Path, port: int) -> list[str]:
    """What alerts know of it, as `etcd-metrics` writes it."""
    (folder / "member.crt").write_text(CERTIFICATE)
    told = {"__etcd_metrics_port": port, "__etcd_etc": str(folder)}
    program = render("etcd", "libexec/etcd-metrics.j2", "Debian", **GOOD, **told)
    file = folder / "told" / "etcd.prom"
    file.parent.mkdir()
    subprocess.run(
        [sys.executable, "-IB", "-c", program, file], check=True, stderr=subprocess.DEVNULL
    )
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert file.stat().st_mode & 0o777 == 0o644
    return file.read_text().splitlines()


ENDS = x509.load_pem_x509_certificate(CERTIFICATE.encode()).not_valid_after_utc.timestamp()
ENDING = f"etcd_certificate_expires_timestamp_seconds {ENDS:.0f}"


def test_what_alerts_rest_on_is_told(tmp_path: Path) -> None:
    class Etcd(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            # As etcd 3.4.23 writes it.
            self.wfile.write(
                b"# HELP etcd_server_has_leader Whether or not a leader exists. 1 is existence, 0"
                b" is not.\n# TYPE etcd_server_has_leader gauge\netcd_server_has_leader 1\n"
                b"etcd_server_is_leader 0\netcd_server_is_learner 0\n"
            )

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Etcd) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        found = numbers(tmp_path, server.server_port)
    assert found == ["etcd_up 1", "etcd_server_has_leader 1", "etcd_server_is_leader 0", ENDING]


def test_a_member_that_does_not_answer_is_told(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    assert numbers(tmp_path, port) == ["etcd_up 0", ENDING]


@pytest.fixture
def join(tmp_path: Path) -> ModuleType:
    texts = configuration()
    module = ModuleType("etcd_join")
    exec(compile(texts["libexec/etcd-join"], "etcd-join", "exec"), module.__dict__)
    for name in ("etcd.yml", "members.json"):
        (tmp_path / name).write_text(texts[f"etcd/{name}"])
    module.ETC, module.RUN, module.DATA = (  # type: ignore[attr-defined]
        tmp_path,
        tmp_path / "run.yml",
        tmp_path / "data",
    )
    return module


class Others:
    """What the other members answer.

    Attributes:
        refusals: how often they let nobody in.
        joins: who joins meanwhile.
    """

    def __init__(self, *members: dict[str, Any]) -> None:
        self.members, self.asked = list(members), []  # type: ignore[var-annotated]
        self.refusals, self.joins = 0, []  # type: ignore[var-annotated]

    def __call__(self, endpoints: list[str], *words: str) -> tuple[Any, str]:
        assert "https://192.0.2.31:2379" not in endpoints
        self.asked.append(words)
        if words[:2] == ("member", "add") and self.refusals:
            self.refusals -= 1
            self.members += self.joins
            self.joins = []
            return None, "etcdserver: unhealthy cluster"
        if words[:2] == ("member", "remove"):
            self.members = [each for each in self.members if f"{each['ID']:x}" != words[2]]
        return ({"members": list(self.members)}, "") if self.members else (None, "nobody")


def member(number: int, **more: Any) -> dict[str, Any]:
    client = [f"https://192.0.2.3{number}:2379"]
    found = {"ID": 160 + number, "name": f"db{number}", "clientURLs": client, **more}
    return {"peerURLs": [f"https://192.0.2.3{number}:2380"], **found}


def began(join: ModuleType, others: Others) -> tuple[str, list[str]]:
    """State of the cluster that it begins with, and the names of its members."""
    join.etcdctl = others  # type: ignore[attr-defined]
    join.main()
    told = yaml.safe_load(join.RUN.read_text())
    names = [each.partition("=")[0] for each in told["initial-cluster"].split(",")]
    assert told["name"] == "db1"
    return told["initial-cluster-state"], sorted(names)


def test_the_members_of_a_new_cluster_know_one_another(join: ModuleType) -> None:
    assert began(join, Others()) == ("new", ["db1", "db2", "db3"])


def test_a_member_that_comes_a_little_later_is_one_of_them(join: ModuleType) -> None:
    others = Others(member(1, clientURLs=[]), member(2), member(3))
    assert began(join, others) == ("new", ["db1", "db2", "db3"])
    assert others.asked == [("member", "list")]


def test_a_host_that_lost_its_data_joins_anew(join: ModuleType) -> None:
    """Under its old number it would be taken for one that remembers what it has promised."""
    others = Others(member(1), member(2), member(3))
    assert began(join, others) == ("existing", ["db1", "db2", "db3"])
    own = "--peer-urls=https://192.0.2.31:2380"
    assert others.asked[1:] == [("member", "remove", "a1"), ("member", "add", "db1", own)]


def test_a_host_that_is_added_is_let_in(join: ModuleType) -> None:
    others = Others(member(2), member(3))
    assert began(join, others) == ("existing", ["db1", "db2", "db3"])
    assert others.asked[1:] == [("member", "add", "db1", "--peer-urls=https://192.0.2.31:2380")]


def test_one_that_was_let_in_and_never_began_is_not_let_in_twice(join: ModuleType) -> None:
    others = Others(member(1, name="", clientURLs=[]), member(2), member(3))
    assert began(join, others) == ("existing", ["db1", "db2", "db3"])
    assert others.asked == [("member", "list")]


def test_another_machine_takes_the_place_of_one_that_is_lost(join: ModuleType) -> None:
    """The one that had its name is away, at another address, and nobody is let in until it goes."""
    lost = {"peerURLs": ["https://192.0.2.99:2380"], "clientURLs": ["https://192.0.2.99:2379"]}
    others = Others(member(1, **lost), member(2), member(3))
    assert began(join, others) == ("existing", ["db1", "db2", "db3"])
    own = "--peer-urls=https://192.0.2.31:2380"
    assert others.asked[1:] == [("member", "remove", "a1"), ("member", "add", "db1", own)]
    assert "192.0.2.99" not in join.RUN.read_text()


def test_several_that_are_added_wait_for_one_another(
    join: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd lets one in once the last one has run for five seconds; so it is in the list as well."""
    monkeypatch.setattr(join.time, "sleep", lambda _: None)
    others = Others(member(2), member(3))
    # Before it has started, etcd says no more of it.
    others.refusals, others.joins = 2, [{"ID": 164, "peerURLs": ["https://192.0.2.34:2380"]}]
    assert began(join, others) == ("existing", ["a4", "db1", "db2", "db3"])
    assert "a4=https://192.0.2.34:2380" in join.RUN.read_text()


def test_who_is_not_let_in_says_why(join: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins no cluster of its own, also if nobody answers in the end."""
    monkeypatch.setattr(join.time, "sleep", lambda _: None)
    monkeypatch.setattr(join, "PATIENCE_SECONDS", 0)
    others = Others(member(2), member(3))
    others.refusals = 1 << 30
    with pytest.raises(SystemExit, match="The others do not let db1 in: etcdserver: unhealthy"):
        began(join, others)
    monkeypatch.setattr(join, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(join.time, "sleep", lambda _: others.members.clear())
    with pytest.raises(SystemExit, match="The others do not let db1 in: etcdserver: unhealthy"):
        began(join, others)
    assert not join.RUN.exists()


def test_a_member_with_data_asks_nobody(join: ModuleType) -> None:
    (join.DATA / "member").mkdir(parents=True)
    others = Others(member(2))
    began(join, others)
    assert others.asked == []


def test_addresses_of_ipv6_are_written_as_in_a_url() -> None:
    members = [{"name": f"db{n}", "address": f"2001:db8::3{n}"} for n in (1, 2, 3)]
    texts = configuration(etcd_members=members)
    assert "listen-peer-urls: https://[2001:db8::31]:2380\n" in texts["etcd/etcd.yml"]
    assert json.loads(texts["etcd/members.json"])["members"]["db2"] == "[2001:db8::32]"


BAD: dict[str, tuple[Case, str]] = {
    "two members": (
        Case({**GOOD, "etcd_members": GOOD["etcd_members"][:2]}),
        "etcd_members has 2 entries; three survive the loss of one, and five the loss of two: list",
    ),
    "a name twice": (
        Case({**GOOD, "etcd_members": [GOOD["etcd_members"][0]] * 3}),
        "etcd_members has two entries with the same name, among db1, db1, db1",
    ),
    "another host": (
        Case({**GOOD, "etcd_name": "db7"}),
        'etcd_name ("db7") is not in etcd_members: db1, db2, db3',
    ),
    "no certificate": (
        Case({**GOOD, "etcd_certificate": ""}),
        'etcd_certificate ("") is not in PEM format',
    ),
    "no key": (
        Case({**GOOD, "etcd_certificate_key": ""}),
        "etcd_certificate_key is not in PEM format",
    ),
    "no authority": (
        Case({**GOOD, "etcd_authority": "x"}),
        'etcd_authority ("x") is not in PEM format',
    ),
    "somebody else's etcd": (
        Case(GOOD, {"packages": {"etcd-server": "3.5.16"}}),
        "etcd_take_over (false) does not allow reconfiguring an etcd that somebody else set up",
    ),
}


def test_what_cannot_work_is_said() -> None:
    said = preflight("etcd", {name: case for name, (case, _) in BAD.items()})
    assert {name: BAD[name][1] for name in BAD if BAD[name][1] not in said[name]} == {}, said


def test_what_works_is_not_refused() -> None:
    there = {"packages": {"etcd-server": "3.5.16"}}
    cases = {
        "new": Case(GOOD),
        "of an earlier run": Case(GOOD, {**there, "trees": ["etcd"]}),
        "taken over": Case({**GOOD, "etcd_take_over": True}, there),
    }
    assert set(preflight("etcd", cases).values()) == {""}
