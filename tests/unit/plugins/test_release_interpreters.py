"""`wsgi.host.release` keeps the interpreters of releases, with dpkg and apt, in a folder.

What is here was tried with an upgrade of a real system as well: tests/proof/system_upgrade.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.releases import interpreters
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from releasing import PYTHON, Host

NAME = "shop-interpreter"
OTHER = "3.8"
HOLD = (
    "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
    "print('held', flush=True); sys.stdin.readline()"
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("apt-get"), reason="needs root and Debian's tools"
)


class Packages:
    """Packages of a host that was upgraded, so that nothing but releases needs these Pythons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = folder / "var/lib/dpkg/status"
        self.status.parent.mkdir(parents=True)
        for name in ("info", "updates", "triggers"):
            (self.status.parent / name).mkdir()
        self.extended = folder / "extended_states"
        states, extended = "", ""
        for python in (PYTHON, OTHER):
            for name, depends in (
                (f"python{python}", f"Depends: python{python}-minimal\n"),
                (f"python{python}-minimal", ""),
            ):
                states += (
                    f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n"
                    f"Maintainer: Debian\nVersion: {python}.1\n{depends}Description: Python\n\n"
                )
                extended += f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        self.status.write_text(states)
        self.extended.write_text(extended)

    def apt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What apt would do, without doing it."""
        settings = {
            "Dir::State::status": self.status,
            "Dir::State::extended_states": self.extended,
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "Debug::NoLocking": 1,
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        return subprocess.run(
            ["apt-get", *options, "--simulate", "--yes", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )

    def removed(self, *arguments: str) -> set[str]:
        """Packages that apt would remove."""
        done = self.apt(*arguments)
        return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("Remv ")}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return Host(tmp_path)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    made = Packages(tmp_path / "system")
    monkeypatch.setenv("DPKG_ROOT", str(made.folder))
    monkeypatch.setattr(interpreters, "PACKAGES_LOCK", str(tmp_path / "lock-frontend"))
    return made


@pytest.fixture
def ship(host: Host, packages: Packages) -> Callable[..., dict[str, Any]]:
    """Ship a release as toll_app does."""

    def run(name: str = "a", **options: Any) -> dict[str, Any]:
        bundle = host.bundle(name * 12)
        return host.run(
            bundle, **{"records": True, "activate": False, "interpreter_package": NAME, **options}
        )

    return run


def built_for(host: Host, name: str, python: str) -> None:
    """Have a release of the host be one for another Python."""
    path = host.root / "releases" / (name * 12) / "manifest.json"
    path.write_text(path.read_text().replace(f'"python": "{PYTHON}"', f'"python": "{python}"'))


def test_without_it_autoremove_takes_the_interpreter(packages: Packages) -> None:
    """What this is about: nothing of the system needs it any more."""
    assert f"python{PYTHON}" in packages.removed("autoremove")


def test_interpreter_of_a_release_stays(packages: Packages, ship: Any) -> None:
    assert ship()["kept_interpreters"] == [f"python{PYTHON}"]
    assert packages.removed("autoremove") == {f"python{OTHER}", f"python{OTHER}-minimal"}
    refused = packages.apt("purge", "~o")
    assert refused.returncode != 0
    assert "essential" in (refused.stdout + refused.stderr).lower()


def test_second_run_changes_nothing(ship: Any) -> None:
    first = ship()
    assert first["changed"] is True
    assert f"interpreters kept: python{PYTHON}" in first["diff"]["after"]
    assert ship(archive=None)["changed"] is False


def test_host_that_lost_the_package_gets_it_again(ship: Any) -> None:
    """Also a host whose release was shipped before there was such a package."""
    ship(interpreter_package="")
    again = ship(archive=None)
    assert (again["changed"], again["installed"]) == (True, False)
    assert again["kept_interpreters"] == [f"python{PYTHON}"]


def test_interpreters_of_all_kept_releases_stay_until_none_needs_them(
    host: Host,
    packages: Packages,
    ship: Any,
) -> None:
    """After an upgrade the way back leads to a release for the Python of before."""
    ship("a")
    built_for(host, "a", OTHER)
    assert ship("b")["kept_interpreters"] == [f"python{PYTHON}", f"python{OTHER}"]
    assert packages.removed("autoremove") == set()
    shutil.rmtree(host.root / "releases" / ("a" * 12))
    # A second run changes nothing, whatever was pruned meanwhile.
    assert ship("b", archive=None)["changed"] is False
    assert ship("c")["kept_interpreters"] == [f"python{PYTHON}"]
    assert packages.removed("autoremove") == {f"python{OTHER}", f"python{OTHER}-minimal"}


def test_without_records_only_the_current_one_counts(host: Host, ship: Any) -> None:
    """Nobody goes back to an earlier certbot."""
    ship("a", records=False, activate=True)
    built_for(host, "a", OTHER)
    assert ship("b", records=False, activate=True)["kept_interpreters"] == [f"python{PYTHON}"]


def test_check_mode_tells_and_installs_nothing(packages: Packages, ship: Any) -> None:
    ship(interpreter_package="")
    told = ship(check=True, archive=None)
    assert (told["changed"], told["kept_interpreters"]) == (True, [f"python{PYTHON}"])
    assert NAME not in packages.status.read_text()


def test_interpreter_that_no_package_owns_is_left_alone(packages: Packages, ship: Any) -> None:
    """One that was built by hand: a dependency on it could not be met, and break apt."""
    packages.status.write_text("")
    assert ship()["kept_interpreters"] is None
    assert NAME not in packages.status.read_text()


def test_host_without_dpkg_is_left_alone(ship: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters.shutil, "which", lambda name: None)
    assert ship()["kept_interpreters"] is None


def test_another_package_manager_at_work_is_waited_for(
    ship: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that has just booted runs apt by itself."""
    monkeypatch.setattr(interpreters, "PACKAGES_LOCK_SECONDS", 0)
    monkeypatch.setattr(interpreters.time, "sleep", lambda seconds: None)
    # A lock of fcntl(2) is not in the way of the process that holds it.
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, interpreters.PACKAGES_LOCK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ReleaseError, match="has been installing packages for 0 s"):
            ship()
        holder.communicate("\n")
    assert ship(archive=None)["kept_interpreters"] == [f"python{PYTHON}"]


def test_package_that_cannot_be_installed_is_said_with_the_remedy(
    packages: Packages, ship: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        interpreters, "CONTROL", interpreters.CONTROL.replace("Version: 1", "Version: ?")
    )
    with pytest.raises(ReleaseError, match=r"(?s)dpkg --configure -a.*version") as refusal:
        ship()
    assert f"keeps python{PYTHON}" in str(refusal.value)
