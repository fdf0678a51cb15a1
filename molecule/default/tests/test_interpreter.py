"""The Python that a release runs on is the system's, and has a life of its own.

The upgrade of a system in which it goes is rehearsed by tests/proof/system_upgrade.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Site

GONE = "/usr/bin/python3.0"


@pytest.mark.parametrize("package", ["toll-app-interpreter", "certbot-interpreter"])
def test_neither_apt_nor_an_upgrade_removes_it(host: Host, package: str) -> None:
    """`apt autoremove` did, after an upgrade to the next Debian."""
    root = "/opt/toll-app" if package.startswith("toll") else "/opt/certbot"
    python = host.run(f"readlink -f {root}/current/bin/python").stdout.strip().rpartition("/")[2]
    depends = host.run(f"dpkg-query --show --showformat='${{Depends}}' {package}").stdout
    assert python in depends.split(", ")
    assert f"Remv {python}" not in host.run("apt-get --simulate --yes autoremove").stdout
    # What Debian's release notes recommend once the system is upgraded.
    refused = host.run("apt-get --simulate --yes purge '~o'")
    assert refused.rc != 0
    assert "essential" in (refused.stdout + refused.stderr).lower()


@pytest.fixture
def gone(host: Host, as_root: Callable[[str], str]) -> Iterator[str]:
    """The live release, whose interpreter is not there any more."""
    link = "/opt/toll-app/current/bin/python"
    release = as_root("readlink /opt/toll-app/current").strip().rpartition("/")[2]
    python = as_root(f"readlink {link}").strip()
    as_root(f"ln -sfn {GONE} {link}")
    yield release
    if host.run(f"test -x {link}").rc:
        as_root(f"ln -sfn {python} {link}")


def test_missing_interpreter_is_told_and_mended(
    host: Host, gone: str, site: Site, as_root: Callable[[str], str], control: Any
) -> None:
    """The process goes on without it, and answers well what it has loaded; nothing else shows."""
    name = host.ansible.get_variables()["inventory_hostname"]
    if name != "debian12":
        pytest.skip("tried on debian12")
    health = host.run("toll-app health")
    assert health.rc == 1
    assert f"toll-app is not ready: {GONE} is not on this host any more" in health.stderr
    status = json.loads(as_root("toll-app status --json"))
    [drift] = status["drift"]
    assert f"cannot start again: its interpreter {GONE} is not on this host" in drift
    assert f"{gone} cannot start: its interpreter {GONE}" in as_root("toll-app releases")
    refused = host.run(f"toll-app handover {gone}")
    assert refused.rc == 2
    assert f"Release {gone} cannot start: its interpreter {GONE}" in refused.stderr
    back = control.run_playbook(
        "../../playbooks/rollback.yml", limit=name, variables={"release": gone}
    )
    assert back.returncode != 0
    assert "which cannot start on every host" in " ".join(back.output.split())
    # The same release again: its Python is there, at another path.
    done = control.run_playbook("../../playbooks/deploy.yml", limit=name)
    assert done.returncode == 0, done.output
    assert json.loads(as_root("toll-app status --json"))["drift"] == []
    assert site.wait_until_ready().json()["release"] == gone
