"""`wsgi.host.group`: a play that is for nobody says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.wsgi.host.plugins.filter.group import ACTED_ON, group, misspelt
from conftest import PROJECT

PLAYBOOKS = sorted((PROJECT / "playbooks").glob("*.yml"))


def test_a_group_with_hosts_is_named() -> None:
    assert group({"all": ["web1"], "web": ["web1"]}, "web") == "web"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"all": [], "ungrouped": []}, "no hosts. Name one with -i"),
        ({"all": ["web1"], "ungrouped": ["web1"]}, "no host in the group web. Put"),
        ({"all": ["web1"], "shop": ["web1"]}, "no host in the group web: there are shop."),
        ({"all": ["web1"], "webs": ["web1"]}, "did you mean web by webs?"),
        ({"all": ["web1"], "shop": ["web1"], "web": []}, "there are shop."),
    ],
)
def test_one_without_is_refused_with_the_remedy(groups: dict[str, list[str]], words: str) -> None:
    with pytest.raises(AnsibleFilterError) as raised:
        group(groups, "web")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("database", "databases"),
        ("Databases", "databases"),
        ("balancer", "balancers"),
        ("loadbalancers", "balancers"),
        ("database_voter", "database_voters"),
        ("monitor", "monitoring"),
        ("webs", "web"),
    ],
)
def test_a_misspelt_group_is_named_with_the_name_that_was_meant(wrong: str, meant: str) -> None:
    """Its hosts were left out without a word, and the applications wrote into SQLite."""
    [said] = misspelt({"all": ["web1", "other"], "web": ["web1"], wrong: ["other"]})
    assert said == (
        f"The inventory has other in the group {wrong}, on which no playbook acts: did you mean "
        f"{meant}? Then rename the group."
    )


def test_all_misspelt_groups_are_named() -> None:
    groups = {"all": [], "web": ["web1"], "database": ["db1", "db2"], "balancer": ["lb1"]}
    assert [said.split()[3:8] for said in misspelt(groups)] == [
        ["db1", "and", "db2", "in", "the"],
        ["lb1", "in", "the", "group", "balancer,"],
    ]


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        *((name, ["other"]) for name in ("mail", "mysql_databases", "web2", "webservers", "db")),
        # A group of somebody's own over hosts that are acted on.
        ("database", ["db1"]),
        ("balancer", []),
        ("ungrouped", ["other"]),
    ],
)
def test_groups_of_others_are_left_alone(name: str, hosts: list[str]) -> None:
    """Inventories are shared with other playbooks."""
    groups = {"all": ["web1", "db1", "other"], "web": ["web1"], "databases": ["db1"], name: hosts}
    assert list(misspelt(groups)) == []


def test_the_groups_that_are_acted_on_are_those_of_a_whole_run() -> None:
    text = (PROJECT / "playbooks/site.yml").read_text()
    named = re.findall(r"groups \| wsgi\.host\.(?:concerned|group)\(([^)]*)", text)
    assert {each for names in named for each in re.findall(r"'(\w+)'", names)} == set(ACTED_ON)


def test_a_run_warns_of_a_misspelt_group(tmp_path: Path) -> None:
    """And goes on: inventories are shared, and somebody else may have a group of that name."""
    (tmp_path / "hosts").write_text("[web]\n127.0.0.1 ansible_port=1\n[database]\ndb1\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts", "site.yml"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert said.count("did you mean databases?") == 1
    assert "TASK [" in said


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_asks(playbook: Path) -> None:
    """Green and nothing done was what an operator saw who had misspelt the group."""
    own = [play for play in yaml.safe_load(playbook.read_text()) if "hosts" in play]
    # What is typed for another one is refused where the first play is (test_typed_for.py).
    first = f" | wsgi.host.typed_for('playbooks/{playbook.name}')"
    for play in own:
        # Groups that an inventory may do without.
        if not any(each in play["hosts"] for each in ("monitoring", "balancers", "databases")):
            asks = "groups | wsgi.host.group('web')"
            # A whole run ends for all where there is nothing to do.
            concerned = f"{{{{ groups | wsgi.host.concerned({asks}) }}}}"
            assert play["hosts"].replace(first, "") in (f"{{{{ {asks} }}}}", concerned)
    if not own:
        return
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "web1,", str(playbook)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode != 0
    assert "The inventory has no host in the group web." in done.stdout + done.stderr
