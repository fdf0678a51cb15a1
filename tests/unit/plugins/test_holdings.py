"""What would be left behind is seen on files alone, before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.modules import holdings

URL = "postgresql://toll:hush-7f3a@db1.example.com/toll"


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.options: dict[str, Any] = {
            "files": [str(root / "toll.db")],
            "credential": str(root / "url"),
            "stamp": str(root / "data.json"),
            "url": "",
            "names": [],
            "backup_settings": str(root / "backup.json"),
            "backup_directory": str(root / "copies"),
            "mounts": [],
        }

    def has(self, url: str = "", file: str = "", stamp: str = "") -> None:
        for name, text in (("url", url), ("toll.db", file)):
            (self.root / name).unlink(missing_ok=True)
            if text:
                (self.root / name).write_text(text)
        (self.root / "data.json").write_text(json.dumps({"database": stamp}))

    def database(self, url: str) -> dict[str, Any]:
        return holdings.database({**self.options, "url": url})

    def copied_to(self, name: str, *copies: str) -> None:
        (self.root / name).mkdir(exist_ok=True)
        for each in copies:
            (self.root / name / each).write_text("x")
        told = {"directory": str(self.root / name), "recipient": "age1abc"}
        (self.root / "backup.json").write_text(json.dumps(told))
        state = {"directory": str(self.root / name), "sequence": 4}
        (self.root / "copies.json").write_text(json.dumps(state))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_pooler_in_front_of_a_database_is_no_other_database(host: Host) -> None:
    host.has(URL.replace("/toll", ":6432/toll"), stamp="url:abc")
    (host.root / "url_direct").write_text(URL)
    assert host.database(URL)["moves"] is False
    assert host.database(URL.replace("db1", "db2"))["moves"] is True


def test_a_bare_host_has_nothing_to_leave_behind(host: Host) -> None:
    for url in ("", URL):
        assert host.database(url) == {
            "kind": "",
            "where": host.options["files"][0],
            "moves": False,
            "gone": False,
        }
    assert not any(holdings.copies(host.options)[each] for each in ("moves", "gone"))


def test_a_file_is_left_behind_by_a_url(host: Host) -> None:
    host.has(file="SQLite", stamp="file:1:2")
    assert host.database("")["moves"] is False
    assert host.database(URL)["moves"] is True
    # Also if nobody has noted that it is there.
    host.has(file="SQLite")
    assert host.database(URL)["moves"] is True


def test_settings_that_an_interrupted_move_left_do_not_hide_the_file(host: Host) -> None:
    """The new URL is on the host, and the data are not there yet."""
    host.has(url=URL, file="SQLite", stamp="file:1:2")
    assert host.database(URL) == {
        "kind": "sqlite",
        "where": host.options["files"][0],
        "moves": True,
        "gone": False,
    }


@pytest.mark.parametrize(
    ("url", "moves"),
    [
        (URL, False),
        # Another password or user is another way into the same database.
        ("postgresql://ben:other@db1.example.com:5432/toll", False),
        ("postgresql://ben@/toll?host=db1.example.com", False),
        ("postgresql://toll:hush-7f3a@db2.example.com/toll", True),
        ("postgresql://toll:hush-7f3a@db1.example.com:5433/toll", True),
        ("postgresql://toll@/toll?host=db1.example.com&port=5433", True),
        ("postgresql://toll:hush-7f3a@db1.example.com/other", True),
        # Another server that copies it has joined it, which the engine takes for the same as well.
        ("postgresql://toll:hush-7f3a@db1.example.com,db2.example.com/toll", False),
        ("postgresql://toll@/toll?host=/run/postgresql", True),
        # A word that is there twice, as SQLAlchemy has it, and a port beside each.
        ("postgresql://toll@/toll?host=db1.example.com&host=db2.example.com", False),
        ("postgresql://toll@/toll?host=db1.example.com:5432&host=db2.example.com:5432", False),
        ("postgresql://toll@/toll?host=db1.example.com:5433", True),
        ("postgresql://db1.example.com/t%6Fll", False),
        ("", True),
    ],
)
def test_a_server_is_left_behind_by_another_database_only(
    host: Host, url: str, moves: bool
) -> None:
    host.has(url=URL, stamp="url:abc")
    found = host.database(url)
    assert (found["kind"], found["moves"]) == ("postgresql", moves)
    assert found["where"] == "postgresql://db1.example.com:5432/toll"


def test_a_server_of_this_host_is_the_same_by_each_address(host: Host) -> None:
    """A fleet's second host comes, and the first one's database is reached at an address."""
    host.has(url="postgresql://toll:p@127.0.0.1/toll?sslmode=disable", stamp="url:abc")
    url = "postgresql://toll:p@192.0.2.31/toll?sslmode=verify-full"
    assert host.database(url)["moves"] is True
    host.options["names"] = ["127.0.0.1", "192.0.2.31"]
    assert host.database(url)["moves"] is False
    assert host.database(url.replace("/toll?", "/other?"))["moves"] is True
    assert host.database(url.replace("192.0.2.31", "192.0.2.32"))["moves"] is True


def test_a_server_that_never_held_anything_is_no_loss(host: Host) -> None:
    """A first run that stopped half way, and a URL that is put right."""
    host.has(url=URL)
    assert host.database("postgresql://u@db2/toll")["moves"] is False


@pytest.mark.parametrize("file", ["", None])
def test_a_file_that_is_gone_is_noticed(host: Host, file: str | None) -> None:
    host.has(stamp="file:1:2")
    if file is not None:
        (host.root / "toll.db").write_text(file)
    assert host.database("")["gone"] is True


def test_an_application_that_has_only_directories_has_lost_nothing(host: Host) -> None:
    """It has no database that could be gone, whatever an earlier description had."""
    host.options["files"] = []
    for stamp in ("", "file:1:2"):
        host.has(stamp=stamp)
        found = host.database("")
        assert (found["kind"], found["gone"], found["moves"]) == ("", False, False)


def test_the_first_of_several_files_says_whether_there_are_data(host: Host) -> None:
    """The application makes the others when it needs them."""
    host.options["files"].append(str(host.root / "queue.db"))
    host.has(file="SQLite", stamp="file:1:2")
    assert host.database("")["gone"] is False
    (host.root / "toll.db").unlink()
    (host.root / "queue.db").write_text("SQLite")
    assert host.database("")["gone"] is True


def test_copies_are_left_behind_by_another_directory(host: Host) -> None:
    host.copied_to("old", "20261125T023000Z-0001.sqlite")
    found = holdings.copies(host.options)
    assert (found["moves"], found["gone"]) == (True, False)
    assert found["recipient"] == "age1abc"
    # They were taken along.
    (host.root / "old" / "20261125T023000Z-0001.sqlite").unlink()
    assert holdings.copies(host.options)["moves"] is False


def test_copies_that_are_gone_are_noticed(host: Host) -> None:
    host.copied_to("copies")
    assert holdings.copies(host.options)["gone"] is True
    host.copied_to("copies", "20261125T023000Z-r1.tar.age")
    assert holdings.copies(host.options)["gone"] is False
