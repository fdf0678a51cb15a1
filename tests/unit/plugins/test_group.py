"""`wsgi.host.group`: a play that is for nobody says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.wsgi.host.plugins.filter.group import group
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


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_asks(playbook: Path) -> None:
    """Green and nothing done was what an operator saw who had misspelt the group."""
    own = [play for play in yaml.safe_load(playbook.read_text()) if "hosts" in play]
    for play in own:
        # Groups that an inventory may do without.
        if not any(each in play["hosts"] for each in ("monitoring", "balancers", "databases")):
            asks = "groups | wsgi.host.group('web')"
            # A whole run ends for all where there is nothing to do.
            concerned = f"{{{{ groups | wsgi.host.concerned({asks}) }}}}"
            assert play["hosts"] in (f"{{{{ {asks} }}}}", concerned)
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
