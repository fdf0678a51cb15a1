"""`wsgi.host.typed_for`: what is typed for one playbook is not ignored by another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible._internal._templating import _jinja_bits
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.wsgi.host.plugins.filter import typed_for as plugin
from ansible_collections.wsgi.host.plugins.filter.concerned import concerned
from ansible_collections.wsgi.host.plugins.filter.group import group
from conftest import PROJECT

ROLE = PROJECT / "roles/application"
GROUPS = {"all": ["web1"], "web": ["web1"]}
PLAYBOOKS = sorted((PROJECT / "playbooks").glob("*.yml"))


def name_of(playbook: Path) -> str:
    """As people name it: the one of everything is imported by another."""
    return "site.yml" if playbook.name == "site.yml" else f"playbooks/{playbook.name}"


def said(monkeypatch: pytest.MonkeyPatch, playbook: str, **given: Any) -> str:
    """What a playbook says to variables that were typed for it."""
    monkeypatch.setattr(plugin, "typed", lambda: given)
    try:
        assert plugin.typed_for(GROUPS, playbook) is GROUPS
    except AnsibleFilterError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("playbook", "given", "message"),
    [
        (
            "playbooks/deploy.yml",
            {"release": "v1.4.0"},
            'release is "v1.4.0", and is for playbooks/rollback.yml; playbooks/deploy.yml takes '
            "application_revision, application_bundle or application_bundle_sha256: run the "
            "playbook that you mean, with its own variables. Nothing was changed.",
        ),
        (
            "playbooks/rollback.yml",
            {"application_revision": "v1.3.0"},
            'application_revision is "v1.3.0", and is for site.yml and playbooks/deploy.yml; '
            "playbooks/rollback.yml takes application_release or release: run the playbook",
        ),
        (
            "site.yml",
            {"application_remove": "everything"},
            'application_remove is "everything", and is for playbooks/remove.yml; site.yml takes',
        ),
        (
            "playbooks/drain.yml",
            {"application_remove": "everything"},
            "for playbooks/remove.yml; playbooks/drain.yml takes no such variable: run the",
        ),
    ],
)
def test_what_is_typed_for_another_playbook_is_not_ignored(
    playbook: str, given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`deploy.yml -e release=v1.4.0` deployed the working tree, and nobody was told."""
    assert message in said(monkeypatch, playbook, **given)


def test_all_of_them_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = said(monkeypatch, "playbooks/status.yml", release="v1", application_primary="db2")
    assert "release is " in message
    assert "application_primary is " in message
    assert message.count("Nothing was changed.") == 1


@pytest.mark.parametrize(
    ("playbook", "given"),
    [
        ("site.yml", {"application_revision": "v1"}),
        ("playbooks/deploy.yml", {"application_revision": "v1", "release": ""}),
        ("playbooks/rollback.yml", {"release": "v1", "application_remove_data": "no"}),
        ("playbooks/remove.yml", {"application_remove": "application"}),
        ("playbooks/remove_database.yml", {"application_remove_data": "yes"}),
        ("playbooks/restore_database.yml", {"application_restore_to": "latest"}),
        ("playbooks/drain.yml", {"application_drain_last": "yes", "mine": "everything"}),
    ],
)
def test_what_is_typed_for_this_playbook_passes(
    playbook: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does what says nothing, such as an empty value that a script types."""
    assert said(monkeypatch, playbook, **given) == ""


def test_the_table_speaks_of_variables_and_playbooks_that_are_there() -> None:
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())
    assert set(plugin.READ_BY) - set(specs["argument_specs"]["main"]["options"]) == {"release"}
    assert {each for row in plugin.READ_BY.values() for each in row} <= {
        name_of(each) for each in PLAYBOOKS
    }
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    told = {name: defaults[name] for name in plugin.READ_BY if defaults.get(name)}
    assert told == plugin.DEFAULTS


@pytest.mark.parametrize(
    "groups", [["web"], ["web", "balancers", "databases", "monitoring"]], ids=["one", "fleet"]
)
@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_the_first_play_of_every_playbook_refuses(
    playbook: Path, groups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own name, and before any host is asked anything."""
    play = yaml.safe_load(playbook.read_text())[0]
    # Another one with a variable more.
    if play.get("ansible.builtin.import_playbook") == "site.yml":
        return
    filters = {
        "wsgi.host.typed_for": plugin.typed_for,
        "wsgi.host.group": group,
        "wsgi.host.concerned": concerned,
    }
    for name, found in filter_loader._wrap_funcs(filters, {}).items():
        monkeypatch.setitem(_jinja_bits._BUILTIN_FILTERS, name, found)
    # Two of them, since each host of a group of databases counts.
    hosts = {each: [f"{each}1", f"{each}2"] for each in groups}
    variables = {"groups": {"all": [*hosts], **hosts}}
    templar = Templar(loader=DataLoader(), variables=variables)
    wrong = "application_maintenance" if "rollback" in playbook.name else "release"
    monkeypatch.setattr(plugin, "typed", lambda: {wrong: "v1"})
    with pytest.raises(AnsibleError) as raised:
        templar.template(trust_as_template(play["hosts"]))
    assert f"; {name_of(playbook)} takes " in str(raised.value)
    monkeypatch.setattr(plugin, "typed", dict)
    assert templar.template(trust_as_template(play["hosts"]))


def test_what_is_typed_is_read_and_what_an_inventory_sets_is_not(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[web]\nweb1\n[web:vars]\napplication_restore=latest\n")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts"),
            *("playbooks/drain.yml", "-e", "application_remove=everything"),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert 'application_remove is "everything", and is for playbooks/remove.yml; playb' in told
    assert "application_restore is" not in told
    assert "TASK [" not in told
