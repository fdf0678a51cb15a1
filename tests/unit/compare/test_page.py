"""The page says what was measured, and stands on a part of it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import page
import pytest
from page import Kept


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A few rows of two parts, and a page elsewhere."""
    monkeypatch.setattr(page, "PAGE", tmp_path / "comparison.md")
    monkeypatch.setattr(page, "PLOTS", tmp_path / "comparison")

    def run(system: str, protocol: str, rate: float, **more: Any) -> dict[str, Any]:
        return {
            **{"round": 0, "system": system, "protocol": protocol, "workload": "quote"},
            **{"connections": 50, "rate": rate, "p50": 1.0, "p99": 9.0, "errors": 0},
            **{"cpu_ms": 1.0, "elsewhere": 0.01, "requests": 10, **more},
        }

    rows = [
        run("development", "http", 100.0),
        run("tutorial", "http", 200.0),
        run("tutorial", "https", 200.0),
        run("project", "http", 400.0),
        run("project", "https", 300.0, errors=7),
    ]
    (tmp_path / "throughput.json").write_text(json.dumps({"date": "2026-01-02", "rows": rows}))
    faults = [
        {
            **{"fault": "kill -9 of the master", "system": system, "refused": refused, "slow": 0.0},
            **{"until_good": until, "watched": 9.0, "slowest": 0.1, "errors": []},
        }
        for system, refused, until in (
            ("development", 9.0, None),
            ("tutorial", 9.0, None),
            ("project", 0.5, 0.5),
        )
    ]
    (tmp_path / "recovery.json").write_text(json.dumps({"date": "2026-01-02", "rows": faults}))
    return Kept(tmp_path)


def test_ratios_and_failures_are_in_the_table(kept: Kept) -> None:
    text = page.throughput(kept)
    assert "| HTTPS | 50 | - | 200 | 300 | - | 1.50 | - | 9.00 | 9.00 | this project: 7 |" in text
    assert (page.PLOTS / "throughput.svg").read_text().startswith("<svg")


def test_a_turn_that_was_disturbed_is_left_out(kept: Kept) -> None:
    path = kept.folder / "throughput.json"
    found = json.loads(path.read_text())
    disturbed = {**found["rows"][-1], "round": 1, "rate": 1.0, "elsewhere": 0.5}
    path.write_text(json.dumps({**found, "rows": [*found["rows"], disturbed]}))
    assert "1.50" in page.throughput(kept)
    assert "1 of 6 turns" in page.introduction(kept)


def test_what_stays_down_counts_a_night(kept: Kept) -> None:
    """8 h twice a month for those that nobody starts again; what was measured for the project."""
    text = page.arithmetic(kept)
    assert "leaves 2592 s (43 min)" in text
    assert f"{28_800:,} s".replace(",", " ") in text
    assert "0.500 s → 1.00 s" in text


def test_a_page_of_some_parts_keeps_what_was_written_by_hand(kept: Kept) -> None:
    page.write(kept)
    page.PAGE.write_text(page.PAGE.read_text() + "\n## By hand\n")
    page.write(kept)
    text = page.PAGE.read_text()
    assert text.count("## By hand") == 1
    assert "down for good" in text
    assert "shared/" not in text
