"""What the programs that `make test` runs say of themselves, read and counted."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SUMMARY = re.compile(r"^=+ (?P<counts>.*) in [\d.]+s.*=+$")
HOOK = re.compile(r"^(?P<name>\S.*?)\.+(\(no files to check\))?(?P<verdict>Passed|Failed|Skipped)$")
BAD_TEST = re.compile(r"^(?:FAILED|ERROR) (?P<name>\S.*)$")
# Molecule announces each stage of a scenario before and after.
STAGE = re.compile(
    r"^(?:INFO|ERROR) +(?P<scenario>\S+) ➜ (?P<stage>\w+): Execut(?P<form>ing|ed: \w+)$"
)

# The stages of a scenario that the closing table shows, as Molecule calls them, and their headings.
# What is in none of them (discovery, the syntax check, removal) makes the rest of the total.
STAGES = {
    "create": "create",
    "prepare": "prepare",
    "check": "check",
    "converge": "converge",
    "idempotence": "again",
    "side_effect": "check again",
    "verify": "verify",
}


@dataclass
class Result:
    """The outcome of one part.

    Attributes:
        name: of the part.
        passed: checks that passed.
        failed: checks that did not.
        skipped: checks that did not run.
        seconds: how long the part took.
        bad: what failed, by name, with the reason that pytest gives in its summary.
        stages: seconds for each stage of a Molecule scenario, by Molecule's name for it.
    """

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    bad: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


def plain(line: str) -> str:
    """A line of output without its end and its colours."""
    return COLOURS.sub("", line.rstrip("\n"))


def count_pytest(lines: Iterable[str]) -> dict[str, int]:
    """Read from pytest's summaries how many tests passed, failed (errors too), were skipped."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for line in lines:
        if match := SUMMARY.match(line.strip()):
            for number, word in re.findall(r"(\d+) (\w+)", match["counts"]):
                kind = "failed" if word in ("failed", "error", "errors") else word
                if kind in counts:
                    counts[kind] += int(number)
    return counts


def count_hooks(lines: Iterable[str]) -> dict[str, int]:
    """Read how many hooks of pre-commit passed, failed and were skipped."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for line in lines:
        if match := HOOK.match(line.strip()):
            counts[match["verdict"].lower()] += 1
    return counts


def failures(lines: Iterable[str]) -> list[str]:
    """Read the names of what failed: tests of pytest, and hooks of pre-commit."""
    bad = []
    for line in lines:
        if match := BAD_TEST.match(line):
            bad.append(match["name"])
        elif (match := HOOK.match(line.strip())) and match["verdict"] == "Failed":
            bad.append(match["name"])
    return bad


def judge(name: str, code: int, counts: Mapping[str, int], lines: Iterable[str] = ()) -> Result:
    """A part's result: a bad exit code counts, also when no single check failed."""
    result = Result(name, counts["passed"], counts["failed"], counts["skipped"])
    result.bad = failures(lines)
    if code and not result.failed:
        result.failed = 1
        result.bad.append(f"exit code {code}")
    elif not code and not result.passed:
        print(f"{name}: nothing was tested.", file=sys.stderr)
        result.failed = 1
    return result


class Stopwatch:
    """Measures the stages of a scenario by the lines in which Molecule announces them."""

    def __init__(self) -> None:
        """Start with no stage."""
        self.seconds: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def read(self, line: str, now: float) -> str | None:
        """Take note of a line of output.

        Args:
            line: without colours.
            now: when it came, in seconds of any clock that does not jump.

        Returns:
            The stage that ends with this line, or None.
        """
        match = STAGE.match(line)
        if not match:
            return None
        stage = match["stage"]
        if match["form"] == "ing":
            self._since.setdefault(stage, now)
            return None
        if stage not in self._since:
            return None
        self.seconds[stage] = self.seconds.get(stage, 0) + now - self._since.pop(stage)
        return stage


def total(results: Iterable[Result]) -> tuple[str, int]:
    """The last line, and the exit code."""
    passed = failed = skipped = 0
    for result in results:
        passed += result.passed
        failed += result.failed
        skipped += result.skipped
    line = f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    return line, 1 if failed else 0


def table(results: Iterable[Result]) -> Iterator[str]:
    """The closing table: a line for each part, with the seconds of each stage of a scenario."""
    headings = "".join(f"{heading:>12}" for heading in STAGES.values())
    yield f"{'seconds':28}{'all':>8}{headings}"
    for result in results:
        verdict = "FAILED" if result.failed else "ok"
        stages = "".join(
            f"{result.stages[stage]:12.0f}" if stage in result.stages else " " * 12
            for stage in (STAGES if result.stages else ())
        )
        if not stages:
            stages = " " * 12 * len(STAGES)
        yield (
            f"{result.name:28}{result.seconds:8.0f}{stages}"
            f"   {verdict:6} {result.passed:5} passed {result.failed:3} failed"
        )
