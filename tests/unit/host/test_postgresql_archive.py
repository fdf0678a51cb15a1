"""Which points in time an archive reaches, without one.

With PostgreSQL and pgBackRest: tests/unit/roles/test_postgresql_archive.py.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from apphost.postgresql_archive import command, points, programs, restoring
from apphost.postgresql_archive.settings import ArchiveError, RefusedError, Settings

HOUR = 3600.0
# 20:00, 21:00, ... of a day.
DAY = points.read_time("2026-11-29 00:00Z")


def at(clock: float) -> float:
    return DAY + clock * HOUR


def copy(label: str, clock: float, timeline: int, number: int) -> points.Copy:
    name = points.name_of(timeline, number)
    lsn = f"{number * 2**24 >> 32:X}/{(number * 2**24 + 80) % 2**32:X}"
    return points.Copy(label, "full", at(clock), name, name, lsn, 2**20)


def evening() -> points.Holdings:
    """A copy at 18:00 and one at 20:30; at 21:00 the database was restored to 20:00.

    The log has a segment each hour: number 18 was archived at 18:30, and so on.
    """
    held = points.Holdings(version="15", system="7")
    held.copies = [copy("20261129-180000F", 18, 1, 18), copy("20261129-203000F", 20.4, 1, 20)]
    for number in (18, 19, 20):
        held.add(f"{points.name_of(1, number)}-{'0' * 40}.zst", at(number + 0.5))
    held.add("00000002.history", at(21))
    # Left after 20:00, in the middle of segment 20, before the second copy.
    held.timelines[2].read(f"1\t0/{20 * 2**24 + 16:X}\tbefore 2026-11-29 20:00:01+00\n")
    for number in (20, 21, 22):
        held.add(points.name_of(2, number), at(number + 1))
    return held


@pytest.mark.parametrize(
    ("wanted", "label", "timeline"),
    [
        # On the way that both took.
        ("2026-11-29 19:15:00+00", "20261129-180000F", 1),
        # What the restore has left.
        ("2026-11-29 20:27:00+00", "20261129-203000F", 1),
        # The later copy does not lie on the way there.
        ("2026-11-29 22:00:00+00", "20261129-180000F", 2),
        ("2026-11-29 23:00:00+01", "20261129-180000F", 2),
        ("latest", "20261129-180000F", 2),
    ],
)
def test_a_time_is_the_one_that_clients_saw(wanted: str, label: str, timeline: int) -> None:
    point = points.choose(evening(), wanted, at(23.5), alive=True)
    assert (point.copy.label, point.timeline) == (label, timeline)
    assert f"--target-timeline={timeline}" in restoring.options(point)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("2026-11-29 17:00Z", "cannot be restored. The archive reaches from 2026-11-29 18:00"),
        # After the last segment of the first timeline, and before the second one.
        ("2026-11-29 20:45Z", "cannot be restored"),
        ("2026-11-30 17:00Z", "is in the future. The archive reaches from"),
        ("2026-11-29 20:15", "is not a point in time: write '2026-11-29 20:15:00+00', with the"),
        ("2026-13-29 20:15Z", "there is none such"),
        ("yesterday", "is not a point in time"),
        ("20261128-180000F", "The archive has no copy 20261128-180000F. It has 20261129-180000F"),
    ],
)
def test_what_cannot_be_reached_is_refused_with_what_can(wanted: str, problem: str) -> None:
    with pytest.raises(RefusedError) as caught:
        points.choose(evening(), wanted, at(23.5), alive=True)
    assert problem in str(caught.value)


def test_a_gap_ends_what_can_be_reached() -> None:
    held = evening()
    del held.segments[2][21]
    with pytest.raises(RefusedError, match="cannot be restored"):
        points.choose(held, "2026-11-29 22:30Z", at(23.5), alive=True)
    point = points.choose(held, "latest", at(23.5), alive=True)
    assert points.reach(held, point.copy, 2) == (at(21), "000000020000000000000015")
    assert point.until == at(21)


def test_what_was_archived_last_ends_what_a_lost_host_has() -> None:
    assert points.choose(evening(), "latest", at(40), alive=False).until == at(23)
    with pytest.raises(RefusedError, match="cannot be restored"):
        points.choose(evening(), "2026-11-29 23:30Z", at(40), alive=False)


def failover(*left: tuple[int, float]) -> points.Holdings:
    """A copy at 18:00; primaries are lost and replaced in the middle of the log.

    Segments 18, 19 and 20 are archived at half past, as above. From 21:00 on, each timeline begins
    ten minutes after the one before, which it has left in a segment at so much of it; the last one
    archives that at 21:30, and one more an hour later.
    """
    held = evening()
    held.copies, held.segments, held.timelines = held.copies[:1], {1: held.segments[1]}, {}
    text = ""
    for timeline, (number, part) in enumerate(left, 2):
        held.add(f"{timeline:08X}.history", at(21 + (timeline - 2) / 6))
        end = int((number + part) * 2**24)
        text += f"{timeline - 1}\t0/{end:X}\tno recovery target specified\n"
        held.timelines[timeline].read(text)
    last = left[-1][0]
    held.add(f"{points.name_of(1, last)}.partial-{'0' * 40}.zst", at(21))
    held.add(points.name_of(len(left) + 1, last), at(21.5))
    held.add(points.name_of(len(left) + 1, last + 1), at(22.5))
    return held


@pytest.mark.parametrize(
    ("left", "wanted", "timeline"),
    [
        # What the archive has of the lost primary's own timeline.
        ([(21, 0.5)], "20:15", 1),
        ([(21, 0.5)], "20:45", 2),
        ([(21, 0.5)], "21:15", 2),
        # The second primary was lost before it had archived anything.
        ([(21, 0.5), (21, 0.6)], "20:45", 3),
        ([(21, 0.5), (21, 0.6)], "21:05", 3),
    ],
)
def test_the_end_of_a_lost_primary_is_with_its_successor(
    left: list[tuple[int, float]], wanted: str, timeline: int
) -> None:
    """Its last segment is archived by the replica that took its place."""
    held = failover(*left)
    for alive, until in (True, at(23)), (False, at(22.5)):
        assert points.spans(held, at(23), alive=alive) == [(at(18), until)]
        point = points.choose(held, f"2026-11-29 {wanted}Z", at(23), alive=alive)
        assert point.timeline == timeline


def test_the_end_of_a_lost_primary_can_be_restored_before_its_successor_has_archived_it() -> None:
    """Before a restore, all that was written until then is archived."""
    held = failover((21, 0.5))
    del held.segments[2]
    wanted = "2026-11-29 20:45Z"
    assert points.choose(held, wanted, at(21.2), alive=True).timeline == 2
    with pytest.raises(RefusedError, match=r"reaches from 2026-11-29 18:00:00.* to .* 20:30:00"):
        points.choose(held, wanted, at(21.2), alive=False)


@pytest.mark.parametrize(
    "left",
    # Of a lost host: up to the end of what it had archived. To a time before that. And where a
    # segment is missing.
    [(21, 0.0), (20, 0.5), (22, 0.5)],
    ids=["latest", "time", "gap"],
)
def test_what_a_restore_has_not_brought_back_is_not_taken_from_it(left: tuple[int, float]) -> None:
    held = failover(left)
    with pytest.raises(RefusedError, match=r"20:45Z cannot be restored"):
        points.choose(held, "2026-11-29 20:45Z", at(23), alive=True)


def test_a_restore_to_the_end_of_a_lost_primary_has_no_later_copies_of_it() -> None:
    """PostgreSQL writes that it left the second timeline, before that one began."""
    timeline = points.Timeline(0.0)
    timeline.read("1\t0/6800000\tno recovery target\n2\t0/6500000\tbefore 2026-11-29 20:45\n")
    assert timeline.parents == {1: 0x6500000, 2: 0x6500000}


def test_segments_beyond_the_first_file_of_4_gib_are_counted() -> None:
    name = "00000001000000020000000A"
    assert points.name_of(*points.place(name)) == name
    assert points.place(name)[1] == points.position("2/A000000") >> points.SEGMENT_BITS


def told(folder: Path) -> Settings:
    where = dict.fromkeys(("programs", "configuration", "sockets", "tool"), folder)
    (folder / "data").mkdir()
    return Settings(
        version="15",
        user="postgres",
        data=folder / "data",
        port=5432,
        unit="postgresql@15-main.service",
        stanza="main",
        tool_configuration=folder / "pgbackrest.conf",
        cluster="",
        request=folder / "run" / "restore.json",
        **where,
    )


def test_a_replay_that_fails_starts_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def systemctl(*words: str) -> str:
        calls.append(words)
        if words == ("start", restoring.RESTORE):
            raise ArchiveError("Job failed")
        return ""

    monkeypatch.setattr(programs, "systemctl", systemctl)
    monkeypatch.setattr(programs, "holdings", lambda settings: evening())
    monkeypatch.setattr(programs, "system_of", lambda settings: "")
    monkeypatch.setattr(programs, "ask", lambda settings, statement: "shop")
    monkeypatch.setattr(programs, "journal", lambda unit, since: "FATAL: no room")
    monkeypatch.setattr(restoring.os, "geteuid", lambda: 0)
    monkeypatch.setattr(restoring.signal, "signal", lambda *words: None)
    settings = told(tmp_path)
    with pytest.raises(ArchiveError) as caught:
        restoring.restore(settings, "latest")
    assert str(caught.value) == "The data are as they were. Output:\nFATAL: no room"
    unit = settings.unit
    assert calls.index(("stop", unit)) < calls.index(("start", restoring.RESTORE))
    assert calls.index(("start", restoring.RESTORE)) < calls.index(("start", unit))
    assert not settings.request.exists()


def test_a_gap_is_mended_by_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive was off for a while: nobody has to be told to make a copy."""
    calls: list[tuple[str, ...]] = []
    held = evening()
    del held.segments[2][21]

    def systemctl(*words: str) -> str:
        calls.append(words)
        return ""

    monkeypatch.setattr(programs, "systemctl", systemctl)
    monkeypatch.setattr(programs, "holdings", lambda settings: held)
    monkeypatch.setattr(programs, "is_standby", lambda settings: False)
    assert "Part of the log is missing" in restoring.begin(told(tmp_path))
    assert ("start", "--no-block", "postgresql-copy-differential.service") in calls
    assert ("restart", restoring.CHECK) not in calls


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "a moment ago"),
        (90, "90 seconds"),
        (150, "2 minutes"),
        (7300, "2 hours"),
        (9e5, "10 days"),
    ],
)
def test_a_span_is_said_in_a_unit_of_its_size(seconds: float, said: str) -> None:
    assert restoring.duration(seconds) == said


def test_of_several_hosts_the_cluster_says_which_is_restored(tmp_path: Path) -> None:
    """The others would go on with what they have."""
    program = tmp_path / "postgresql-cluster"
    program.write_text('#!/bin/sh\necho "db2 is the primary ($*)." >&2\nexit 1\n')
    program.chmod(0o755)
    settings = dataclasses.replace(told(tmp_path), cluster=str(program))
    for mark, words in (False, "may-restore"), (True, "may-restore --alone"):
        with pytest.raises(RefusedError, match=rf"^db2 is the primary \({words}\)$"):
            restoring.examine(settings, "latest", mark=mark)


def test_of_several_hosts_nobody_else_becomes_the_primary_after_a_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    program = tmp_path / "postgresql-cluster"

    def run(*words: str) -> str:
        calls.append(words)
        return ""

    monkeypatch.setattr(programs, "_of_root", run)
    monkeypatch.setattr(programs, "holdings", lambda settings: evening())
    monkeypatch.setattr(programs, "system_of", lambda settings: "")
    monkeypatch.setattr(programs, "ask", lambda settings, statement: "shop")
    monkeypatch.setattr(restoring.os, "geteuid", lambda: 0)
    monkeypatch.setattr(restoring.signal, "signal", lambda *words: None)
    settings = dataclasses.replace(told(tmp_path), cluster=str(program))
    restoring.restore(settings, "latest")
    of_cluster = [call[1:] for call in calls if call[0] == str(program)]
    assert of_cluster == [("may-restore", "--alone"), ("claim",), ("apply",)]
    claim = calls.index((str(program), "claim"))
    assert calls.index(("systemctl", "start", restoring.RESTORE)) < claim
    assert claim < calls.index(("systemctl", "start", settings.unit))
    assert calls.index((str(program), "apply")) < calls.index(
        ("systemctl", "restart", restoring.APPLICATIONS)
    )


def test_programs_are_answered_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "holdings", lambda settings: evening())
    monkeypatch.setattr(programs, "system_of", lambda settings: "7")
    monkeypatch.setattr(programs, "ask", lambda settings, statement: "shop, toll-app")
    settings = told(tmp_path)
    monkeypatch.setattr(command.settings, "read", lambda path: settings)
    assert command.main("", ["restore", "--to", "2026-11-29 19:15Z", "--check", "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["changed"] is True
    assert "in all databases (shop, toll-app)" in said["msg"]
    assert "The present data stay as" in said["msg"]
    assert command.main("", ["restore", "--check", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["changed"] is False
