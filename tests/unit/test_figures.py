"""What the first page says of measurements is what the pages of the measurements say."""

from __future__ import annotations

import re

import pytest
from conftest import PROJECT

PROOF = PROJECT / "docs" / "proof"
README = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())


def rows(page: str, begins: str) -> list[list[str]]:
    """The cells of the rows whose first cell begins so."""
    lines = (PROOF / page).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [each for each in cells if each[0].startswith(begins)]


def said(pattern: str) -> tuple[str, ...]:
    """The figures of a sentence of the first page."""
    found = re.search(pattern, README)
    assert found, f"README.md no longer says {pattern!r}"
    return found.groups()


def test_deploys_in_a_row() -> None:
    # Case, system, requests, failed, late, slowest.
    found = [row for row in rows("releases.md", "20 deploys in a row") if row[2].isdigit()]
    requests, slowest = sum(int(row[2]) for row in found), max(float(row[5]) for row in found)
    assert {(row[3], row[4]) for row in found} == {("0", "0")}
    assert said(r"During (\d+) deploys, 20 in a row on each of two systems, ([\d,]+) requests") == (
        str(20 * len(found)),
        f"{requests:,}",
    )
    assert said(r"None failed, and the slowest took ([\d.]+) s") == (f"{slowest:.2f}",)


def test_broken_releases() -> None:
    found = [row for row in rows("releases.md", "broken: ") if row[2].isdigit()]
    (failed,) = [row[3] for row in found if row[3] != "0"]
    assert said(r"Of (\d+) broken releases .* (\d+) cost no request; one cost (\d+)") == (
        str(len(found)),
        str(len(found) - 1),
        failed,
    )


@pytest.mark.parametrize(("cell", "group"), [(1, 0), (2, 1)], ids=["site.yml", "ping"])
def test_a_run_that_changes_nothing(cell: int, group: int) -> None:
    (row,) = rows("run-cost.md", "a run that changes nothing, next to")
    figures = said(r"in place takes ([\d.]+) s, where `ansible -m ping` takes ([\d.]+) s")
    assert figures[group] == row[cell].split()[0]
