"""When a timer runs: nothing that systemd refuses, and nothing that never comes."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils.formats import calendar

GOOD = [
    *("hourly", "Daily", "semi-annually", "weekly UTC"),
    *("3:0", "02:30", "*:*:*", "*:0/15", "00/23:00", "*:0/59", "20..23:00", "*:0..50/10"),
    *("1..1:00", "*:*:0/59", "*:*:59.9", "03:00:00.5", "*-*-* *:00/10:00", "*:00,30:00"),
    *("Mon", "MONDAY 3:00", "Mon..Mon", "mon..Sunday", "Mon-Fri 3:00", "Sat,Sun,Mon 3:00"),
    *("Mon, 3:00", "Mon..Wed,Sat, 3:00", "Tuesday,thu *-*-* 03:00", "Mon *-*-1..7 03:00 UTC"),
    *("*-*", "2-29", "*-02-29", "*-4..5-31", "*-*-1/30", "*-11/1-1", "1,7-1 3:00", "Wed *-1-1"),
    *("2099-01-01", "2020..2190-1-1", "2000/3-1-1", "20..2190-1-1", "Fri *-02-29"),
    *("*-*~1", "*-*~28", "*-*~7/6", "Mon *-05~7/1", "*-*~1..7", "*-02~28", "*-*~*"),
    "*-*-* 02:30:00 Europe/Berlin",
]
# Each with a part of what is said of it.
REFUSED = {
    "Montag 03:00": 'has "Montag", which systemd does not take for a day of the week: write Mon',
    "tuesdays": "write Tue or Tuesday",
    "sunda": "write Sun or Sunday",
    "monxyz 03:00": "write Mon or Monday",
    "thurs": "write Thu or Thursday",
    "Fri..Mon 03:00": "has Fri..Mon, a range that runs backwards: weeks begin with Monday: write "
    "Fri..Sun,Mon",
    "Sun..Mon": "write Sun,Mon",
    "Mon-Wed-Fri": "is not a calendar event",
    "Mon,,Tue": "is not a calendar event",
    "10..5:00": "has 10..5, a range that runs backwards: write the lower number first, or two "
    "ranges: 10..23,0..5",
    "*-12..3-01 03:00": "12..12,1..3",
    "*:*:3..1": "runs backwards",
    "2190..2020-1-1": "runs backwards",
    "*-*~7..1": "runs backwards",
    "*:0/0": "has 0/0, a step that leads to no other number: use a step from 1 to 59",
    "00/25:00": "use a step from 1 to 23",
    "20/10:00": "use a step from 1 to 3",
    "*:0/60": "use a step from 1 to 59",
    "*-12/1-1": "write 12 alone",
    "*-*~7/7": "use a step from 1 to 6",
    "*-*~1/2": "write 1 alone",
    "*:*:9..9": "has 9..9, a range of one number: write 9 alone",
    "*:*/5": "is not a calendar event",
    "24:00": "is not a calendar event",
    "*:60": "is not a calendar event",
    "*:*:60": "is not a calendar event",
    "*-13-1": "is not a calendar event",
    "*-0-1": "is not a calendar event",
    "*-1-32": "is not a calendar event",
    "*-*~1,26": "is not a calendar event",
    "*-*~29": "is not a calendar event",
    "1969-1-1": "is not a calendar event",
    "2200-1-1": "is not a calendar event",
    "03:00 03:00": "is not a calendar event",
    "03:00 Mon": "is not a calendar event",
    "*": "is not a calendar event",
    "*-*-* 03:00 Mars/Olympus": "is not a calendar event",
    "\u0663:00": "is not a calendar event",
}
NEVER = {
    "*-02-31 03:00": "never comes, since there is no such day",
    "*-02-30": "never comes, since there is no such day",
    "*-4,6,9,11-31": "never comes, since there is no such day",
    "2099-02-29": "never comes, since there is no such day",
    "Mon *-02-30": "never comes, since there is no such day",
    "2020-01-01 00:00:00": "never comes, since it is past: write * for the year, or one to come",
    "99-1-1": "never comes, since it is past",
    "2020..2024-*-*": "never comes, since it is past",
    "Mon 2099-01-02": "never comes, since no such day has this day of the week: leave out",
}
SYSTEMD = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not here")


def asked(*events: str) -> str:
    """What systemd says of events, failing with what it refuses."""
    done = subprocess.run(
        [str(SYSTEMD), "calendar", "--iterations=1", "--", *events], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("event", GOOD)
def test_what_comes_is_taken(event: str) -> None:
    assert calendar(event) is None


@needs_systemd
@pytest.mark.parametrize("event", GOOD)
def test_systemd_takes_it_too(event: str) -> None:
    assert "Next elapse: never" not in asked(event)


@pytest.mark.parametrize("event", [*REFUSED, *NEVER])
def test_what_is_wrong_is_said_with_the_remedy(event: str) -> None:
    """systemd would say it on the host, after other things were changed there."""
    fault = calendar(event)
    assert fault
    assert {**REFUSED, **NEVER}[event] in f"{fault.problem}: {fault.remedy}"


@needs_systemd
@pytest.mark.parametrize("event", REFUSED)
def test_systemd_refuses_it_too(event: str) -> None:
    with pytest.raises(AssertionError, match="Failed to parse calendar specification"):
        asked(event)


@needs_systemd
def test_systemd_knows_of_no_such_day_either() -> None:
    assert asked(*NEVER).count("Next elapse: never") == len(NEVER)


def invented(chance: random.Random) -> str:
    """An event as a person could write it, right or nearly so."""

    def number(low: int, high: int) -> str:
        return f"{chance.randint(low, high + (chance.random() < 0.02)):0{chance.choice([1, 2])}}"

    def place(low: int, high: int) -> str:
        if chance.random() < 0.3:
            return "*"
        parts = []
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            part = number(low, high)
            if chance.random() < 0.3:
                part += f"..{number(low, high)}"
            if chance.random() < 0.3:
                part += f"/{chance.choice([0, 1, 2, 5, 7, 10, 15, 30, high, high + 1])}"
            parts.append(part)
        return ",".join(parts)

    days = ["Mon", "tue", "WED", "Thursday", "fri", "saturday", "Sun"]
    words = []
    if chance.random() < 0.4:
        ends = [chance.choice(["", chance.choice(["..", "-"]) + chance.choice(days)]) for _ in "ab"]
        named = [chance.choice(days) + end for end in ends[: chance.choice([1, 2])]]
        words.append(",".join(named) + chance.choice(["", "", ","]))
    if chance.random() < 0.6:
        year = chance.choice(
            ["", "", "*-", "2090-", "2020..2150-", "2000/7-", f"{number(70, 98)}-"]
        )
        words.append(f"{year}{place(1, 12)}{chance.choice('--~')}{place(1, 31)}")
    if chance.random() < 0.7 or not words:
        seconds = f":{place(0, 59)}" if chance.random() < 0.5 else ""
        words.append(f"{place(0, 23)}:{place(0, 59)}{seconds}")
    if chance.random() < 0.1:
        words.append("UTC")
    return " ".join(words)


@needs_systemd
def test_whatever_is_taken_here_comes_by_systemd() -> None:
    """Of some hundred invented ones; those that are refused here were never sent to a host."""
    chance = random.Random(252)
    taken = [event for event in (invented(chance) for _ in range(1500)) if calendar(event) is None]
    assert len(taken) > 300, "too few of them are right to prove anything"
    assert "Next elapse: never" not in asked(*taken)
