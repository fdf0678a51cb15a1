"""The commands of docs/OPERATIONS.md, as they stand there, on a host that they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Site

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
GUIDE = Path(__file__).resolve().parents[3] / "docs" / "OPERATIONS.md"


def blocks(heading: str) -> list[list[str]]:
    """The commands below a heading, block by block, without what an operator has to fill in."""
    section = GUIDE.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    return [
        [
            line.partition(" #")[0].rstrip()
            for line in block.splitlines()
            if line and not re.search(r"\b(ID|NAME|BAD)\b", line)
        ]
        for block in re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize(
    "heading",
    ["The first minute", "The backup fails", "The certificate is wrong", "The disk is full"],
)
def test_commands_work_as_typed(as_root: Callable[[str], str], heading: str) -> None:
    """Nobody looks up an option at night."""
    # Those of the database's host are typed in molecule/release/tests/test_database.py.
    commands = [
        line
        for block in blocks(heading)
        for line in block
        if "ansible-playbook" not in line and "postgresql" not in line
    ]
    assert commands
    for command in commands:
        # `systemctl status` ends with 3 for a unit that has done its work.
        host_says = as_root(f"({command}) 2>&1 || test $? -eq 3")
        assert "unrecognized" not in host_says


def test_the_page_of_a_host_shows_what_it_serves(site: Site, as_root: Callable[[str], str]) -> None:
    """What a person opens after a deploy: the release, its deploy, and a request just made."""
    answer = site.get("/readyz")
    told = json.loads(as_root("toll-app status --day --json"))
    assert told["day"]["traffic"]["requests"] > 0
    assert told["day"]["deploys"][0]["time"] <= told["day"]["at"]
    page = as_root("toll-app status --page -")
    assert page.startswith("<!doctype html>")
    assert "toll-app is up." in page
    assert f"<code>{answer.json()['release']}</code>" in page
    as_root("toll-app status --page /run/status.html")
    assert as_root("stat -c %a /run/status.html && rm /run/status.html").strip() == "600"


def test_what_was_stopped_is_started_by_hand(
    host: Host, site: Site, as_root: Callable[[str], str]
) -> None:
    """Everything stopped, and the two commands of the guide."""
    as_root("systemctl stop nginx.service toll-app.socket toll-app-check.socket toll-app.service")
    with pytest.raises(OSError, match=r"refused|reset"):
        site.get("/readyz")
    looks, mends = blocks("The site does not answer")
    for command in looks:
        said = host.run(command)
        assert "could not be found" not in said.stderr
        assert said.rc in (0, 3), said.stderr
    for command in mends:
        as_root(command)
    assert site.get("/readyz").status == 200


@pytest.mark.one_system(12)
def test_a_status_fails_where_nobody_is_served(
    host: Host, control: Any, as_root: Callable[[str], str]
) -> None:
    """The service is well, and the site is down: a person who only reads the last line knows."""
    as_root("systemctl stop nginx.service")
    try:
        said = control.run_playbook(
            PLAYBOOKS / "status.yml", limit=host.ansible.get_variables()["inventory_hostname"]
        )
    finally:
        as_root("systemctl start nginx.service")
    assert said.returncode != 0
    assert "does not answer through nginx, though the service is well" in " ".join(
        said.output.split()
    )


@pytest.mark.one_system(12)
def test_maintenance_keeps_clients_out_and_nothing_else(
    host: Host, site: Site, control: Any, as_root: Callable[[str], str]
) -> None:
    """A deploy's handover and its check, a status and another run go on; none of them ends it."""
    quote = "/api/v1/quote?plaza=harbour-bridge&class=car"
    name = host.ansible.get_variables()["inventory_hostname"]
    unsaid = control.run_playbook(PLAYBOOKS / "maintenance.yml", limit=name)
    assert unsaid.returncode != 0
    assert "application_maintenance is empty" in unsaid.output
    as_root("toll-app maintenance on --reason 'new disk'")
    try:
        assert site.get(quote).status == 503
        assert "Down for maintenance" in site.get("/").body
        # A balancer leaves the host where it is.
        assert site.get("/readyz").status == 200
        as_root("toll-app handover --restart")
        again = control.run_playbook(PLAYBOOKS / "deploy.yml", limit=name)
        assert again.returncode == 0, again.output
        said = control.run_playbook(PLAYBOOKS / "status.yml", limit=name)
        assert said.returncode == 0, said.output
        assert "MAINTENANCE" in said.output
        assert "new disk" in said.output
        assert site.get(quote).status == 503
        assert "in maintenance: its clients get 503" in as_root("toll-app")
    finally:
        off = control.run_playbook(
            PLAYBOOKS / "maintenance.yml", variables={"application_maintenance": "off"}, limit=name
        )
    assert off.returncode == 0, off.output
    assert site.get("/").status == 200


def test_a_handover_leaves_nothing_in_the_cache(site: Site, as_root: Callable[[str], str]) -> None:
    """What the application shares is kept, by a key that the next handover takes out of use."""
    quote = "/api/v1/plazas"
    statuses = [site.get(quote).headers["cache-status"] for _ in range(3)]
    assert "nginx; hit" in statuses
    key = as_root("readlink -f /opt/toll-app/cache-key").strip()
    as_root("toll-app handover --restart")
    assert as_root("readlink -f /opt/toll-app/cache-key").strip() != key
    assert site.get(quote).headers["cache-status"] == "nginx; fwd=miss"
