"""When timers run: never missed on a day that clocks change, wherever the host is."""

from __future__ import annotations

import datetime
import functools
import itertools
import os
import re
import subprocess
import zoneinfo
from typing import Any

import pytest
from conftest import trusted

from .describing import toll_app
from .preflight import Case, preflight
from .render import evaluate, render

UTC = datetime.UTC
# A year of nights: every change of clocks that the rules of a zone know is among them.
BEGIN = datetime.datetime(2027, 1, 1, tzinfo=UTC)
NIGHTS = 366
DAY = datetime.timedelta(days=1)
# A run in local time, and in UTC on the next line unless the zone is the same.
RUN = re.compile(
    r"(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) .*\n(?:\s+\(in UTC\): \w+ (\S+ \S+) UTC\n)?"
)


def calendar_of(text: str) -> str:
    """What a timer unit has for its calendar."""
    found = re.search(r"^OnCalendar=(.*)$", text, re.M)
    assert found
    return found[1]


@functools.cache
def zones() -> list[str]:
    """One zone of the tz database for each way in which clocks change in that year."""
    found: dict[Any, str] = {}
    # The tz database has several hundred names. Most have no change, or share those of another.
    for name in sorted(zoneinfo.available_timezones()):
        zone = zoneinfo.ZoneInfo(name)
        offsets = [(BEGIN + night * DAY).astimezone(zone).utcoffset() for night in range(NIGHTS)]
        steps = [(night, at) for night, at in enumerate(offsets) if at != offsets[night - 1]]
        found.setdefault(tuple(steps), name)
    return sorted(found.values())


def elapses(calendar: str, zone: str) -> list[datetime.datetime]:
    """When systemd itself runs such a timer on a host of that zone."""
    done = subprocess.run(
        [
            *("systemd-analyze", "calendar", f"--iterations={NIGHTS}"),
            *(f"--base-time={BEGIN:%Y-%m-%d %H:%M:%S} UTC", calendar),
        ],
        env={**os.environ, "TZ": zone, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [utc or local for local, utc in RUN.findall(done.stdout)]
    listed = [datetime.datetime.fromisoformat(each) for each in found]
    assert len(listed) == NIGHTS, done.stdout[:400]
    return listed


def longest(listed: list[datetime.datetime]) -> datetime.timedelta:
    """The longest time between two runs."""
    return max(after - before for before, after in itertools.pairwise(listed))


@pytest.mark.parametrize("zone", zones())
def test_a_copy_is_made_every_day_in_every_zone(zone: str) -> None:
    """A night without a copy is a false alarm at best, and a day of passages at worst."""
    told = trusted(toll_app())
    timer = render("application", "backup.timer.j2", "Debian", **told)
    gap = longest(elapses(calendar_of(timer), zone))
    jitter = evaluate("application", "__application_entry.backup.jitter_seconds", "Debian", **told)
    hours = evaluate("monitoring", "monitoring_backup_hours", "Debian")
    # A run that is put off as long as it may be, after one that was not.
    assert gap + datetime.timedelta(seconds=jitter) < datetime.timedelta(hours=hours)


@pytest.mark.parametrize("zone", ["Africa/Cairo", "Asia/Beirut", "Europe/Berlin"])
def test_renewal_is_considered_twice_a_day_in_every_zone(zone: str) -> None:
    """Some zones skip midnight, one of the two times."""
    timer = render("certbot", "certbot.timer.j2", "Debian")
    assert longest(elapses(calendar_of(timer), zone)) == datetime.timedelta(hours=12)


def test_a_local_time_does_go_missing() -> None:
    """What the other tests would not notice if this machine had no rules for its zones."""
    assert longest(elapses("*-*-* 02:30:00", "Europe/Berlin")) > datetime.timedelta(hours=26)
    assert longest(elapses("*-*-* 00:00:00", "Africa/Cairo")) > datetime.timedelta(hours=26)


@pytest.mark.parametrize(
    ("written", "calendar"),
    [
        ("hourly", "hourly UTC"),
        ("*-*-* 02:30:00 UTC", "*-*-* 02:30:00 UTC"),
        ("Sat,Sun 04:00", "Sat,Sun 04:00 UTC"),
        ("Sat", "Sat UTC"),
    ],
)
def test_a_calendar_is_in_utc_however_it_is_written(written: str, calendar: str) -> None:
    told = trusted(toll_app(backup={"calendar": written}))
    timer = render("application", "backup.timer.j2", "Debian", **told)
    assert calendar_of(timer) == calendar
    assert elapses(calendar, "Europe/Berlin")


def test_certbots_calendar_keeps_a_zone_that_it_names() -> None:
    told = {"certbot_renewal_calendar": "*-*-* 03:00:00 Europe/Berlin"}
    assert calendar_of(render("certbot", "certbot.timer.j2", "Debian", **told)).endswith(
        " Europe/Berlin"
    )


def test_a_zone_is_refused_with_the_remedy(tmp_path_factory: pytest.TempPathFactory) -> None:
    cases = {
        each: Case(toll_app(backup={"calendar": each}))
        for each in ("*-*-* 02:30:00 Europe/Berlin", "daily CET", "Sat 02:30 UTC", "Sat", "daily")
    }
    said = preflight("application", cases)
    for each in ("*-*-* 02:30:00 Europe/Berlin", "daily CET"):
        assert "applications.toll-app.backup.calendar names a time zone" in said[each]
        assert "write the time in UTC" in said[each]
    assert [said[each] for each in ("Sat 02:30 UTC", "Sat", "daily")] == ["", "", ""]
