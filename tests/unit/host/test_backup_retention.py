"""Which copies stay, and which go."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from apphost.backup.retention import KEEP_BEFORE, to_keep
from hypothesis import given, settings
from hypothesis import strategies as st

from .backup_host import BackupHost

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
TIMES = st.datetimes(
    min_value=datetime.datetime(2024, 1, 1), max_value=datetime.datetime(2026, 11, 25, 12)
).map(lambda each: each.replace(tzinfo=datetime.UTC, microsecond=0))
MADE = st.lists(TIMES, unique=True, max_size=60).map(
    lambda times: [(f"{each:%Y%m%dT%H%M%SZ}", each) for each in sorted(times, reverse=True)]
)
KEEP = st.fixed_dictionaries(
    {
        "days": st.integers(1, 9),
        "weeks": st.integers(0, 6),
        "months": st.integers(0, 14),
    }
)


@given(made=MADE, keep=KEEP)
@settings(max_examples=300, deadline=None)
def test_rotation_keeps_what_it_promises(
    made: list[tuple[str, datetime.datetime]], keep: dict[str, int]
) -> None:
    stay = to_keep(made, keep, NOW)
    times = dict(made)
    assert stay <= set(times)
    if not made:
        return
    assert max(times, key=lambda name: times[name]) in stay, "never the newest"
    assert {name for name in times if NOW - times[name] < datetime.timedelta(days=1)} <= stay
    days = sorted({each.date() for each in times.values()}, reverse=True)
    for day in days[: keep["days"]]:
        last = max(name for name in times if times[name].date() == day)
        assert last in stay, "the newest of each of the last days"
    # No more than asked for, besides the last 24 hours.
    older = [name for name in stay if NOW - times[name] >= datetime.timedelta(days=1)]
    assert len(older) <= keep["days"] + keep["weeks"] + keep["months"] + 1


@given(made=MADE, keep=KEEP)
@settings(max_examples=200, deadline=None)
def test_rotation_twice_removes_nothing_more(
    made: list[tuple[str, datetime.datetime]], keep: dict[str, int]
) -> None:
    stay = to_keep(made, keep, NOW)
    left = [each for each in made if each[0] in stay]
    assert to_keep(left, keep, NOW) == stay


def test_a_year_of_days_leaves_days_weeks_and_months() -> None:
    """As the defaults do it, run day by day and not at once: what went is not missed later."""
    keep = {"days": 7, "weeks": 5, "months": 12}
    made: list[tuple[str, datetime.datetime]] = []
    at = datetime.datetime(2025, 11, 1, 2, 30, tzinfo=datetime.UTC)
    while at < NOW:
        made.insert(0, (f"{at:%Y%m%d}", at))
        stay = to_keep(made, keep, at)
        made = [each for each in made if each[0] in stay]
        at += datetime.timedelta(days=1)
    names = [name for name, _ in reversed(made)]
    assert names[-7:] == [f"202611{day}" for day in range(19, 26)]
    # The last of each month is that of its last day.
    assert [name for name in names if name <= "20261031"][:10] == [
        *("20251231", "20260131", "20260228", "20260331", "20260430", "20260531"),
        *("20260630", "20260731", "20260831", "20260930"),
    ]
    assert len(names) <= 7 + 5 + 12


def test_what_a_restore_replaced_is_rotated_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the wrong state is not the newest of its day, and does not stay for a year."""
    host = BackupHost(tmp_path, monkeypatch)
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    usual = host.back_up()
    for _ in range(KEEP_BEFORE + 2):
        host.good("restore", "latest")
        host.clock += datetime.timedelta(days=2)
    last = host.back_up()
    kinds = [copy["kind"] for copy in host.good("backup", "list")["copies"]]
    assert kinds.count("before-restore") == KEEP_BEFORE
    assert usual not in host.files()
    assert last in host.files()
