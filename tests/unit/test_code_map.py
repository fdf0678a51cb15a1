"""The map of the code shows what is in the tree, and who really calls whom."""

from __future__ import annotations

import re
import subprocess

from conftest import PROJECT

MAP = (PROJECT / "docs" / "CODE_MAP.md").read_text()
PICTURE = re.findall(r"```mermaid\n(.*?)```", MAP, re.S)[0]
NODES = dict(re.findall(r'(\w+)\["([^"]+)"\]', PICTURE))
ARROWS = {
    (NODES[one], NODES[other])
    for one, other in re.findall(
        r'^ *(\w+)(?:\["[^"]+"\])? -->(?:\|[^|]+\|)? ?(\w+)(?:\["[^"]+"\])?$', PICTURE, re.M
    )
}
ROLES = {f"roles/{path.name}" for path in PROJECT.glob("roles/*") if path.is_dir()}
INCLUDED = re.compile(r"\.(?:include|import)_role:\n +name: (\w+)$", re.M)
COLLECTION = "collections/ansible_collections/wsgi/host"


def included(folder: str) -> set[str]:
    """The roles that the tasks of a folder include by name."""
    files = (PROJECT / folder).rglob("*.yml")
    return {f"roles/{name}" for file in files for name in INCLUDED.findall(file.read_text())}


def test_everything_on_the_map_is_there() -> None:
    assert [path for path in NODES.values() if not (PROJECT / path).exists()] == []
    named = re.findall(r"^\| (`.*?) \|", MAP.split("## On a host")[0], re.M)
    paths = [path for cell in named for path in re.findall(r"`([^`]+)`", cell)]
    assert [path for path in paths if not (PROJECT / path).exists()] == []


def test_everything_that_is_there_is_on_the_map() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {path.split("/")[0] for path in listed if "/" in path}
    text = MAP.split("## On a host")[0]
    assert [name for name in sorted(folders) if f"`{name}/" not in text] == []
    assert set(NODES.values()) >= ROLES


def test_the_arrows_are_the_calls_between_roles() -> None:
    """A role that begins to include another one changes the architecture."""
    drawn = {arrow for arrow in ARROWS if arrow[1] in ROLES}
    called = {(folder, role) for folder in ROLES for role in included(f"{folder}/tasks")}
    called |= {("playbooks/", role) for role in included("playbooks")}
    assert drawn == called


def test_the_arrows_to_the_collection_are_of_roles_that_use_it() -> None:
    using = {
        role
        for role in ROLES
        if any(
            "wsgi.host." in file.read_text() for file in (PROJECT / role / "tasks").rglob("*.yml")
        )
    }
    assert {one for one, other in ARROWS if other == COLLECTION} == using - {"roles/toll_app"}
    assert (COLLECTION, "host/apphost") in ARROWS
