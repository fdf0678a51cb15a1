"""Which copy is the newest whatever the clock said, and copies whose disk is away."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

import pytest

from .test_toll_app_backup import Host, program

DAY = datetime.timedelta(days=1)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def without_numbers(host: Host) -> None:
    """Have the copies be those of a host from before copies had numbers."""
    for path in host.directory.glob("*.json"):
        record = json.loads(path.read_text())
        if record.pop("sequence", None):
            path.write_text(json.dumps(record))
    Path(program.STATE).unlink()


def wrong_clock(host: Host, off: datetime.timedelta) -> str:
    """A copy that is made while the clock is wrong; returns its name."""
    host.clock += off
    name: str = host.good()["record"]["name"]
    host.clock -= off
    return name


@pytest.mark.parametrize("off", [400 * DAY, -400 * DAY], ids=["ahead", "behind"])
def test_latest_is_the_last_that_was_made(host: Host, off: datetime.timedelta) -> None:
    """A restore of `latest` would put older data in the place of newer ones."""
    names = [host.good()["record"]["name"], wrong_clock(host, off)]
    assert host.good("verify", "latest")["record"]["name"] == names[1]
    host.clock += DAY
    host.record("D")
    names.append(host.good()["record"]["name"])
    assert host.good("verify", "latest")["record"]["name"] == names[2]
    listed = host.good("list")
    assert [each["name"] for each in listed["copies"]] == names[::-1]
    assert listed["ahead"] == ([names[1]] if off > DAY else [])
    host.record("E")
    host.good("restore", "latest")
    assert host.plates() == ["A", "B", "C", "D"]


def test_a_time_that_is_still_to_come_is_told(host: Host) -> None:
    name = wrong_clock(host, 400 * DAY)
    said = host.good("list")["msg"]
    assert "In the future by this host's clock, which was wrong when they were made" in said
    assert name in said.splitlines()[-1]


def test_a_copy_of_before_there_were_numbers_is_not_latest_for_its_clock(host: Host) -> None:
    """Hosts have such copies already."""
    ahead = wrong_clock(host, 400 * DAY)
    good = host.good()["record"]["name"]
    without_numbers(host)
    assert host.good("verify", "latest")["record"]["name"] == good
    newest = host.good()["record"]
    assert host.good("verify", "latest")["record"]["name"] == newest["name"]
    assert [each["name"] for each in host.good("list")["copies"]] == [newest["name"], good, ahead]


def test_a_number_is_not_given_twice(host: Host) -> None:
    """Not even when the newest copies were removed by hand."""
    host.good()
    last = host.good()["record"]
    program.remove(str(host.directory), last)
    assert host.good()["record"]["sequence"] == last["sequence"] + 1


def test_a_copy_of_the_future_goes_in_its_turn(host: Host) -> None:
    """It would be the newest of its day, week and month for years."""
    host.configure(keep={"days": 2, "weeks": 0, "months": 0})
    ahead = wrong_clock(host, 4000 * DAY)
    for _ in range(4):
        host.clock += DAY + datetime.timedelta(hours=1)
        newest = host.good()["record"]["name"]
    assert ahead not in host.files()
    assert newest in host.files()


def test_a_clock_that_is_behind_costs_no_copy(host: Host) -> None:
    """All others seem to be in the future then, and nobody knows how old they are."""
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    names = [host.good()["record"]["name"] for _ in range(3)]
    names.append(wrong_clock(host, -4000 * DAY))
    assert set(names) <= host.files()


# Where the copies are -----------------------------------------------------------------------------


def mounted(path: Path) -> None:
    """A disk at that place, for as long as the test runs."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")


def test_copies_do_not_go_to_the_disk_below_their_mount(host: Host) -> None:
    """A green run would leave them on the disk that they are to outlive."""
    (host.root / "metrics").mkdir()
    host.configure(mounts=[str(host.directory)])
    mounted(host.directory)
    try:
        name = host.good()["record"]["name"]
    finally:
        subprocess.run(["umount", host.directory], check=True)
    for arguments in ((), ("--check",), ("verify", name), ("restore", name)):
        code, answer = host.run(*arguments)
        assert (code, answer["changed"]) == (2, False)
        assert f"{host.directory} is not mounted, and toll_app_mounts says" in answer["msg"]
    assert list(host.directory.iterdir()) == []
    # Monitoring hears of the failure, and still knows how old the last good copy is.
    metrics = (host.root / "metrics" / "toll-app-backup.prom").read_text()
    assert "toll_app_backup_last_run_failed 1\n" in metrics
    assert "toll_app_backup_last_success_timestamp_seconds 1" in metrics


def test_a_directory_that_held_copies_and_is_empty_is_not_filled_anew(host: Host) -> None:
    """Nobody has declared the mount, and the disk is away all the same."""
    host.good()
    host.directory.rename(host.root / "away")
    host.directory.mkdir()
    code, answer = host.run()
    assert code == 2
    assert f"{host.directory} held copies and holds none now" in answer["msg"]
    assert list(host.directory.iterdir()) == []
    # The remedy for copies that are gone.
    assert f"remove {program.STATE}" in answer["msg"]
    Path(program.STATE).unlink()
    assert host.good()["record"]


def test_a_directory_that_is_gone_is_not_made(host: Host) -> None:
    host.directory.rename(host.root / "away")
    code, answer = host.run()
    assert code == 2
    assert "Mount its disk, or run the playbook" in answer["msg"]
    assert not host.directory.exists()


def test_another_directory_begins_anew(host: Host) -> None:
    """The role has asked already whether the old copies may stay behind."""
    host.good()
    other = host.root / "other"
    other.mkdir()
    host.configure(directory=str(other))
    assert host.good()["path"].startswith(str(other))
