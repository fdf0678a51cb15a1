"""The archive that is published works alone, installed without a network, in another place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import collection
import pytest
import test_links
import yaml
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import project_of
from conftest import PROJECT

BIN = Path(sys.executable).parent
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection.build(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def run(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs Ansible's commands in an empty directory where nothing but the archive is installed."""
    place = tmp_path_factory.mktemp("elsewhere")
    environment = {
        "HOME": str(place),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(place / "collections"),
    }

    def command(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / program), *arguments],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    done = command("ansible-galaxy", "collection", "install", "--offline", str(archive))
    assert done.returncode == 0, done.stdout + done.stderr
    inventory = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "applications": {"shop": {"source": "shop", "domain": "shop.example.com"}},
    }
    (place / "hosts.yml").write_text(yaml.safe_dump({"web": {"hosts": {"here": inventory}}}))
    return command


def playbook(run: Command, *arguments: str) -> str:
    """What a playbook says, on one line."""
    done = run("ansible-playbook", "--inventory", "hosts.yml", *arguments)
    return " ".join((done.stdout + done.stderr).split())


def test_the_archive_has_everything_and_no_links(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
    names = {member.name for member in members}
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    wanted = {
        *("README.md", "LICENSE", "CHANGELOG.md", "MANIFEST.json", "meta/runtime.yml"),
        *("playbooks/site.yml", "docs/OPERATIONS.md", "families/Debian.yml"),
        "plugins/module_utils/apphost/cli.py",
        "roles/certbot/templates/programs/certificates/command.py",
    }
    assert wanted - names == set()
    roles = {path.name for path in (PROJECT / "roles").iterdir() if path.is_dir()}
    assert {name for name in roles if f"roles/{name}/tasks/main.yml" in names} == roles - {
        "toll_app"
    }
    assert [name for name in names if "__pycache__" in name or name.startswith("tests/")] == []


def test_no_link_of_its_pages_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader on Galaxy has none of the tests, and not the application."""
    place = collection.lay_out(tmp_path).resolve()
    monkeypatch.setattr(test_links, "PROJECT", place)
    pages = list(place.rglob("*.md"))
    wrong = [fault for page in pages for fault in test_links.faults(page, page.read_text())]
    assert wrong == []
    text = (place / "docs" / "APPLICATIONS.md").read_text()
    assert "[the first connection](MAINTENANCE.md#the-first-connection)" in text
    assert "Nautobot (Django" in " ".join(text.split())


@pytest.mark.parametrize(
    "role", ["nginx", "certbot", "gunicorn_systemd", "haproxy", "firewall", "monitoring"]
)
def test_a_play_of_somebody_else_can_use_a_role(run: Command, role: str, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text(f"- hosts: web\n  gather_facts: false\n  roles: [wsgi.host.{role}]\n")
    said = playbook(run, str(play), "--list-tasks")
    assert f"wsgi.host.{role} : preflight | Check the variables and the host" in said


def test_a_playbook_of_the_collection_refuses_what_is_wrong(run: Command) -> None:
    """Plugins, families, the specification and the program for hosts are all found on the way."""
    said = playbook(run, "wsgi.host.site", "--check")
    assert (
        "applications.shop.domain is not a key of applications.shop; did you mean domains?" in said
    )
    assert "Nothing was changed on here." in said


def test_a_role_finds_its_neighbours_before_those_of_the_project(
    run: Command, tmp_path: Path
) -> None:
    """Somebody who has a role of the same name gets the one that belongs to the collection."""
    decoy = tmp_path / "roles" / "gunicorn_systemd" / "tasks"
    decoy.mkdir(parents=True)
    (decoy / "nowhere.yml").write_text("[]\n")
    play = tmp_path / "play.yml"
    include = {"name": "wsgi.host.application", "tasks_from": "service", "rolespec_validate": False}
    play.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "web",
                    "gather_facts": False,
                    "vars": {"__application_service_stage": "nowhere"},
                    "tasks": [{"ansible.builtin.include_role": include}],
                }
            ]
        )
    )
    assert "Could not find specified file in role: tasks/nowhere" in playbook(run, str(play))


def test_paths_of_a_description_begin_where_somebody_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A playbook of an installed collection lies in a directory that is nobody's project."""
    project = tmp_path / "project"
    (project / "below").mkdir(parents=True)
    (project / "ansible.cfg").touch()
    installed = tmp_path / "collections/ansible_collections/wsgi/host/playbooks"
    monkeypatch.chdir(project / "below")
    assert project_of(installed) == project
    assert project_of(tmp_path / "playbooks") != project


def test_what_ansible_test_finds_is_sorted_out() -> None:
    new, accepted = collection.sorted_out(
        [
            "plugins/modules/seal.py:0:0: missing-gplv3-license: GPLv3 license header not found",
            "plugins/modules/seal.py:0:0: undocumented-parameter: Argument 'root' is listed",
        ]
    )
    assert [line.split(": ")[1] for line in new] == ["undocumented-parameter"]
    assert dict(accepted) == {"the licence is MIT": 1}


def test_no_plugin_comes_from_a_later_version() -> None:
    """Who reads `ansible-doc` must not look for a release that there has never been."""
    place = PROJECT / collection.SOURCE
    version = yaml.safe_load((place / "galaxy.yml").read_text())["version"]
    added = {
        name: match[1]
        for name in place.glob("plugins/*/*.py")
        for match in re.finditer(r"^ *version_added: \"([0-9.]+)\"$", name.read_text(), re.M)
    }
    assert len(added) > 20
    late = [
        name.name
        for name, each in added.items()
        if [int(part) for part in each.split(".")] > [int(part) for part in version.split(".")]
    ]
    assert late == []
