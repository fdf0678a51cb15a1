"""Which copy is the newest whatever the clock said, and copies whose disk is away."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

import pytest
from apphost.backup import copies

from .backup_host import BackupHost

DAY = datetime.timedelta(days=1)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupHost:
    return BackupHost(tmp_path, monkeypatch)


def without_numbers(host: BackupHost) -> None:
    """Have the copies be those of a host from before copies had numbers."""
    for path in host.directory.glob("*.json"):
        record = json.loads(path.read_text())
        if record.pop("sequence", None):
            path.write_text(json.dumps(record))
    host.store().state_path.unlink()


def wrong_clock(host: BackupHost, off: datetime.timedelta) -> str:
    """A copy that is made while the clock is wrong; returns its name."""
    host.clock += off
    name = host.back_up()
    host.clock -= off
    return name


def latest(host: BackupHost) -> str:
    """The name of the copy that is `latest`."""
    name: str = host.good("backup", "verify", "latest")["record"]["name"]
    return name


def listed(host: BackupHost) -> list[str]:
    """The names in the order of the list."""
    return [copy["name"] for copy in host.good("backup", "list")["copies"]]


@pytest.mark.parametrize("off", [400 * DAY, -400 * DAY], ids=["ahead", "behind"])
def test_latest_is_the_last_that_was_made(host: BackupHost, off: datetime.timedelta) -> None:
    """A restore of `latest` would put older data in the place of newer ones."""
    names = [host.back_up(), wrong_clock(host, off)]
    assert latest(host) == names[1]
    host.clock += DAY
    host.order("D")
    names.append(host.back_up())
    assert latest(host) == names[2]
    assert listed(host) == names[::-1]
    assert host.good("backup", "list")["ahead"] == ([names[1]] if off > DAY else [])
    host.order("E")
    host.good("restore", "latest")
    assert host.customers() == ["A", "B", "C", "D"]


def test_a_time_that_is_still_to_come_is_shown(host: BackupHost) -> None:
    name = wrong_clock(host, 400 * DAY)
    _, text = host.call("backup", "list")
    assert "In the future by this host's clock, which was wrong when they were made" in text
    assert name in text.splitlines()[-1]


def test_a_copy_of_before_there_were_numbers_is_not_latest_for_its_clock(host: BackupHost) -> None:
    """Hosts have such copies already."""
    ahead = wrong_clock(host, 400 * DAY)
    good = host.back_up()
    without_numbers(host)
    assert latest(host) == good
    newest = host.back_up()
    assert latest(host) == newest
    assert listed(host) == [newest, good, ahead]


def test_a_number_is_not_given_twice(host: BackupHost) -> None:
    """Not even when the newest copies were removed by hand."""
    host.good("backup")
    last = host.good("backup")["record"]
    host.store().remove(last)
    assert host.good("backup")["record"]["sequence"] == last["sequence"] + 1


def test_a_copy_of_the_future_goes_in_its_turn(host: BackupHost) -> None:
    """It would be the newest of its day, week and month for years."""
    host.configure(keep={"days": 2, "weeks": 0, "months": 0})
    ahead = wrong_clock(host, 4000 * DAY)
    for _ in range(4):
        host.clock += DAY + datetime.timedelta(hours=1)
        newest = host.back_up()
    assert ahead not in host.files()
    assert newest in host.files()


def test_a_clock_that_is_behind_costs_no_copy(host: BackupHost) -> None:
    """All others seem to be in the future then, and nobody knows how old they are."""
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    names = [host.back_up() for _ in range(3)]
    names.append(wrong_clock(host, -4000 * DAY))
    assert set(names) <= host.files()


# Where the copies are -----------------------------------------------------------------------------


def mounted(path: Path) -> None:
    """A disk at that place, for as long as the test runs."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")


def test_copies_do_not_go_to_the_disk_below_their_mount(host: BackupHost) -> None:
    """A green run would leave them on the disk that they are to outlive."""
    host.application.metrics.mkdir()
    host.configure(mounts=[str(host.directory)])
    mounted(host.directory)
    try:
        name = host.back_up()
    finally:
        subprocess.run(["umount", host.directory], check=True)
    for words in (
        ("backup",),
        ("backup", "--check"),
        ("backup", "verify", name),
        ("restore", name),
    ):
        code, answer = host.run(*words)
        assert (code, answer["changed"]) == (2, False)
        assert f"{host.directory} is not mounted, and `mounts` in the descr" in answer["msg"]
    assert list(host.directory.iterdir()) == []
    # Monitoring hears of the failure, and still knows how old the last good copy is.
    shop = '{application="shop"}'
    assert f"app_backup_last_run_failed{shop} 1\n" in host.metrics()
    assert f"app_backup_last_success_timestamp_seconds{shop} 1" in host.metrics()


def test_a_directory_that_held_copies_and_is_empty_is_not_filled_anew(host: BackupHost) -> None:
    """Nobody has declared the mount, and the disk is away all the same."""
    host.good("backup")
    host.directory.rename(host.root / "away")
    host.directory.mkdir()
    code, answer = host.run("backup")
    assert code == 2
    assert f"{host.directory} held copies and holds none now" in answer["msg"]
    assert list(host.directory.iterdir()) == []
    # The remedy for copies that are gone.
    state = host.store().state_path
    assert f"remove {state}" in answer["msg"]
    state.unlink()
    assert host.back_up()


def test_a_directory_that_is_gone_is_not_made(host: BackupHost) -> None:
    host.directory.rename(host.root / "away")
    code, answer = host.run("backup")
    assert code == 2
    assert "Mount its disk, or run the playbook" in answer["msg"]
    assert not host.directory.exists()


def test_another_directory_begins_anew(host: BackupHost) -> None:
    """The role has asked already whether the old copies may stay behind."""
    host.good("backup")
    other = host.root / "other"
    other.mkdir()
    host.configure(directory=str(other))
    assert host.good("backup")["path"].startswith(str(other))


def test_what_is_written_beside_the_copies_is_known_as_own(host: BackupHost) -> None:
    """A removal of the application takes these files away, and leaves all others."""
    host.back_up()
    host.settings = {"keep": {"days": 1}}
    host.clock += DAY
    host.back_up()
    with host.store().partial() as part:
        found = sorted(os.listdir(host.directory))
        assert {part.name, "state.json", ".lock"} < set(found)
        assert [name for name in found if not copies.is_own(name)] == []
    age = "20261125T023000Z-0001-before-restore.dump.age"
    for name in (age, f"{age}.json", f".{age}.json.a1b2"):
        assert copies.is_own(name)
    for name in ("anna", "passwd", "shop.sqlite", f"{age}.txt", f"x{age}", "x.json", ".json"):
        assert not copies.is_own(name)
