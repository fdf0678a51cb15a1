"""tools/bootstrap: when .venv is made again, and what it says of root."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROJECT

Call = Callable[..., "subprocess.CompletedProcess[str]"]


def program(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{code}\n")
    path.chmod(0o755)


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Runs code with the functions of tools/bootstrap, in a folder of the test's own."""
    functions = (PROJECT / "tools/bootstrap").read_text().split("\nchoose_python\n")[0]
    for name in ("setup/apt.sh", "requirements-dev.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())

    def run(code: str) -> subprocess.CompletedProcess[str]:
        program(tmp_path / "tools/bootstrap", f"{functions}\n{code}")
        return subprocess.run(
            [tmp_path / "tools/bootstrap"],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        )

    return run


def environment(root: Path, version: str) -> None:
    """What an earlier run has made, by that Python."""
    program(root / ".venv/bin/python", "exit 0")
    program(root / ".venv/bin/uv", "exit 0")
    program(root / ".venv/bin/molecule", "")
    (root / ".venv/bin/molecule").write_text(f"#!{root}/.venv/bin/python\n")
    (root / ".venv/pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")


def install(call: Call, version: str) -> subprocess.CompletedProcess[str]:
    """Install the tools with a Python of that version, which cannot make an environment."""
    python = f"fake() {{ [[ $1 == -c ]] && echo {version}; }}; python=fake"
    return call(f"{python}; install_tools")


def test_an_environment_is_complete_for_its_python_alone(call: Call, tmp_path: Path) -> None:
    """After an upgrade of the system its python is the new one, which has no packages there."""
    environment(tmp_path, "3.11.2")
    assert "installing the pinned tools" in install(call, "3.11").stderr
    assert install(call, "3.11").stderr == ""
    done = install(call, "3.13")
    assert done.returncode == 1
    assert "making .venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_environment_of_another_folder_is_made_again(call: Call, tmp_path: Path) -> None:
    environment(tmp_path, "3.11.2")
    (tmp_path / ".venv/bin/molecule").write_text("#!/elsewhere/.venv/bin/python\n")
    assert "making .venv" in install(call, "3.11").stderr


@pytest.mark.parametrize(
    ("sudo", "said"),
    [
        (
            "return 1",
            "bootstrap: This needs root, and sudo asks for a password: run `sudo -v` first.",
        ),
        ('"${@:2}"', ""),
    ],
)
def test_sudo_that_asks_for_a_password_is_said_so(sudo: str, said: str) -> None:
    """Nobody could answer: what it says is kept for the case that the command fails."""
    script = (PROJECT / "tools/bootstrap").read_text()
    found = [
        re.search(rf"^{name}\(\) {{.*?}}$", script, re.M | re.S)
        for name in ("say", "fail", "as_root")
    ]
    functions = "\n".join(match[0] for match in found if match)
    done = subprocess.run(
        ["bash", "-c", f"{functions}\nsudo() {{ {sudo}; }}\nas_root true"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=65534 if os.geteuid() == 0 else None,
    )
    assert (done.returncode, done.stderr.strip()) == (bool(said), said)
