"""The words of `shop backup` and `shop restore`, and the list."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apphost import cli
from apphost.application import Application
from apphost.backup import restore

from .backup_host import BackupHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupHost:
    return BackupHost(tmp_path, monkeypatch)


def test_the_list_counts_the_rows_of_all_tables(host: BackupHost) -> None:
    name = host.back_up()
    _, text = host.call("backup", "list")
    head, row = (line.split() for line in text.splitlines())
    assert head == ["NAME", "SIZE", "SCHEMA", "ROWS", "RELEASE", "KIND"]
    assert row == [name, str(host.live.stat().st_size), "2", "4", "r1", "scheduled"]
    assert host.good("backup", "list")["msg"] == f"1 copy in {host.directory}."


def test_a_list_without_copies_says_so(host: BackupHost) -> None:
    assert host.call("backup", "list") == (0, f"There is no copy in {host.directory}.\n")


def test_without_settings_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main("shop", ["backup"], tmp_path) == 2
    assert "enable backups in the description of shop" in capsys.readouterr().err


def test_nobody_but_root_gets_at_the_copies(host: BackupHost) -> None:
    name = host.back_up()
    host.monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["backup"], ["backup", "list"], ["restore", name]):
        code, answer = host.run(*words)
        assert code == 2
        assert "use sudo" in answer["msg"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../etc/shadow", "is not the name of a copy"),
        ("20200101T000000Z-1.sqlite", "There is no copy 20200101T000000Z-1.sqlite"),
        ("yesterday", "is not the name of a copy"),
    ],
)
def test_a_name_that_is_none_is_answered_with_those_that_are(
    host: BackupHost, name: str, words: str
) -> None:
    made = host.back_up()
    for verb in (["backup", "verify"], ["restore"], ["restore", "--preview"]):
        if verb[-1] == "--preview" and name.startswith("2020"):
            continue
        code, answer = host.run(*verb, name)
        assert code == 2
        assert words in answer["msg"]
        assert made in answer["msg"]


def test_latest_is_never_what_a_restore_replaced(host: BackupHost) -> None:
    assert host.run("backup", "verify", "latest")[0] == 2
    name = host.back_up()
    host.order("D")
    host.good("restore", "latest")
    assert host.good("backup", "verify", "latest")["record"]["name"] == name


def test_a_copy_without_its_record_is_not_trusted(host: BackupHost) -> None:
    name = host.back_up()
    (host.directory / f"{name}.json").write_text("{")
    code, answer = host.run("restore", name)
    assert code == 2
    assert "has no record" in answer["msg"]


@pytest.mark.parametrize(
    "words", [["latest", "--by", "anna"], ["--by", "anna", "latest"]], ids=["after", "before"]
)
def test_options_may_stand_anywhere(words: list[str]) -> None:
    parser = cli.parser_of(Application("shop"), "restore", restore)
    options = parser.parse_intermixed_args(words)
    assert (options.name, options.by) == ("latest", "anna")


@pytest.mark.parametrize(
    "words", [["verify", "--identity", "latest"], ["--identity", "verify", "latest"]]
)
def test_the_key_is_read_wherever_it_is_asked_for(host: BackupHost, words: list[str]) -> None:
    host.good("backup")
    assert host.run("backup", *words, stdin="not needed")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "lsit"],
        ["backup", "list", "latest"],
        ["backup", "verify"],
        ["backup", "--jsn"],
        ["restore"],
    ],
)
def test_a_wrong_command_differs_from_a_refusal(host: BackupHost, words: list[str]) -> None:
    assert host.call(*words)[0] == 64
    assert host.calls() == []
