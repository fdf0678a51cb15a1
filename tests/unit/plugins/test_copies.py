"""A removal takes the copies away, and nothing that somebody else has put beside them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.paths import ForeignPathError
from ansible_collections.wsgi.host.plugins.modules import copies

COPY = "20261125T023000Z-0001.sqlite"
OWN = sorted((COPY, f"{COPY}.json", "state.json", ".lock", ".partial-x", ".state.json.tmp"))
FOREIGN = ("anna", "dump.sql", "passwd", f"{COPY}.txt", ".bashrc")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory in a place that only root, or whoever runs this, can change."""
    with tempfile.TemporaryDirectory(prefix="toll-app-copies-", dir="/var/tmp") as folder:
        yield Path(folder) / "copies"


def put(directory: Path, *names: str) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        (directory / name).write_text("x")


def remove(directory: Path, *, preview: bool = False) -> dict[str, Any]:
    return copies.remove(str(directory), preview=preview)


def test_copies_go_with_their_directory(directory: Path) -> None:
    put(directory, *OWN)
    assert remove(directory, preview=True)["changed"] is True
    assert sorted(os.listdir(directory)) == OWN
    assert remove(directory) == {"changed": True, "files": OWN, "left": [], "stays": False}
    assert not directory.exists()
    assert remove(directory) == {"changed": False, "files": [], "left": [], "stays": False}


def test_an_empty_directory_goes(directory: Path) -> None:
    put(directory)
    assert remove(directory)["changed"] is True
    assert not directory.exists()


def test_what_is_no_copy_stays_and_is_named(directory: Path) -> None:
    """The directory may be /home by mistake."""
    put(directory, *OWN, *FOREIGN)
    put(directory / "uploads", COPY)
    left = sorted([*FOREIGN, "uploads"])
    expected = {"changed": True, "files": OWN, "left": left, "stays": True}
    assert remove(directory, preview=True) == expected
    assert remove(directory) == expected
    assert sorted(os.listdir(directory)) == left
    assert (directory / "uploads" / COPY).read_text() == "x"
    assert remove(directory)["changed"] is False


def test_a_link_and_a_directory_are_no_copies(directory: Path) -> None:
    """Neither leads anybody to files elsewhere."""
    put(directory.with_name("etc"), "passwd")
    put(directory)
    (directory / COPY).symlink_to(directory.with_name("etc") / "passwd")
    (directory / f"{COPY}.age").mkdir()
    assert remove(directory)["left"] == [COPY, f"{COPY}.age"]
    assert (directory.with_name("etc") / "passwd").read_text() == "x"


def test_a_link_to_the_disk_of_the_copies_is_followed(directory: Path) -> None:
    put(directory.with_name("disk"), COPY)
    directory.symlink_to("disk")
    assert remove(directory) == {"changed": True, "files": [COPY], "left": [], "stays": True}
    assert os.listdir(directory) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")
def test_a_directory_that_another_user_can_change_is_refused(directory: Path) -> None:
    """Who owns it could put a link in its place at any moment."""
    put(directory, COPY)
    os.chown(directory, 65534, 65534)
    with pytest.raises(ForeignPathError, match="can be changed by"):
        remove(directory)
    assert os.listdir(directory) == [COPY]
