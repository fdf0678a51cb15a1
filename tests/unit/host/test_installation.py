"""Which version of the package is on a host, and that a command keeps to the one it began with."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.modules.apphost import PYTHON, install
from apphost.installation import DIGITS, digest, installed, sources
from roles.render import render

from .test_package import MODULES, PACKAGE

FILES = {"__init__.py": b"", "cli.py": b"answer = 1\n", "backup/make.py": b"copies = 7\n"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a host has versions, with one installed."""
    place = tmp_path / "apphost"
    install(place, digest(FILES), FILES)
    return place


def test_sources_are_all_files_of_the_package_and_nothing_else() -> None:
    """A file that is left out would be missing on every host."""
    found = sources(PACKAGE)
    assert set(found) == {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert found["backup/make.py"] == (PACKAGE / "backup/make.py").read_bytes()


def test_the_distribution_has_every_package() -> None:
    """Whoever installs it otherwise, from a checkout say, gets the same."""
    packages = {".".join(path.relative_to(PACKAGE.parent).parent.parts) for path in MODULES}
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == packages


def test_version_is_named_after_content_and_path() -> None:
    """Two versions of one name would be one directory with the files of either."""
    versions = {
        digest(FILES),
        digest({**FILES, "cli.py": b"answer = 2\n"}),
        digest({**FILES, "more.py": b""}),
        digest({key.replace("make", "made"): text for key, text in FILES.items()}),
        # What moves from one file to another.
        digest({**FILES, "cli.py": FILES["backup/make.py"], "backup/make.py": FILES["cli.py"]}),
        digest({}),
    }
    assert len(versions) == 6
    assert {len(version) for version in versions} == {DIGITS}
    assert digest(dict(reversed(FILES.items()))) == digest(FILES)


def test_version_that_is_live_is_known(place: Path) -> None:
    assert installed(place) == digest(FILES)


@pytest.mark.parametrize(
    "change",
    [
        lambda version: (version / "apphost/cli.py").write_text("answer = 3\n"),
        lambda version: (version / "apphost/more.py").write_text(""),
        lambda version: (version / "apphost/cli.py").unlink(),
        lambda version: shutil.rmtree(version),
        lambda version: (version.parent / "current").unlink(),
        lambda version: shutil.rmtree(version.parent),
    ],
    ids=["changed", "added", "removed", "no version", "no link", "nothing"],
)
def test_version_that_is_not_whole_counts_as_none(place: Path, change) -> None:
    """So that the next run repairs it."""
    change(place / digest(FILES))
    assert installed(place) == ""


def command(place: Path, name: str = "shop") -> Path:
    """The command of an application, as the role writes it."""
    text = render(
        "gunicorn_systemd",
        "command.j2",
        "Debian",
        gunicorn_systemd_name=name,
        __gunicorn_systemd_package=str(place),
    )
    path = place.parent / name
    path.write_text(text.replace("#!/usr/bin/python3", f"#!{PYTHON}"))
    path.chmod(0o755)
    return path


def test_command_starts_from_what_was_installed(tmp_path: Path) -> None:
    """With the host's own Python, and knows by its own name whose command it is."""
    place = tmp_path / "apphost"
    content = sources(PACKAGE)
    install(place, digest(content), content)
    before = sorted(place.rglob("*"))
    result = subprocess.run([command(place), "help"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: sudo shop VERB")
    # It is compiled already, and a command leaves nothing there.
    assert sorted(place.rglob("*")) == before


def test_command_ends_with_the_version_that_it_began_with(tmp_path: Path) -> None:
    """A handover takes a minute, and imports what it needs on its way."""
    place, ready, go_on = (tmp_path / name for name in ("apphost", "ready", "go-on"))
    os.mkfifo(ready)
    os.mkfifo(go_on)
    start = (
        "def start():\n"
        f"    open({str(ready)!r}, 'w').close()\n"
        f"    open({str(go_on)!r}).close()\n"
        "    from .later import word\n"
        "    print(word)\n"
    )

    def version(word: str) -> dict[str, bytes]:
        later = f"word = {word!r}\n"
        return {"__init__.py": b"", "cli.py": start.encode(), "later.py": later.encode()}

    install(place, digest(version("old")), version("old"))
    with subprocess.Popen([command(place)], stdout=subprocess.PIPE, text=True) as running:
        ready.open().close()
        install(place, digest(version("new")), version("new"))
        go_on.open("w").close()
        assert running.communicate(timeout=30)[0] == "old\n"
    assert installed(place) == digest(version("new"))
