"""The table of a fleet's faults must not look better than what happened."""

from __future__ import annotations

import json
from dataclasses import asdict

import faults
import pytest
from fleet_faults import FAULTS, Faced, silence
from fleet_growth import Cost, table
from ledger import Record, Summary


def faced(**given):
    values = {
        "case": "power cut",
        "system": "",
        "requests": Summary(1200, 600, 12, {"503: no": 9, "slower than 1 s": 3}, 3.25, 0.01, 0.1),
        "acknowledged": 590,
        "planned": False,
        "lost": 0,
        "doubled": 0,
    }
    return asdict(Faced(**{**values, **given}))


def passage(number, done, status=201):
    error = "" if status == 201 else f"{status}: no"
    return Record(number, done - 0.1, done - 0.1, done, status, error, f"AB{number}")


def test_a_row():
    assert faults.row(faced(lost=1, doubled=2, notes={"new primary": "db2 after 9.1 s"})) == (
        "| power cut | yes | 1200 | 9 | 3 | 3.25 | 590 | 1 | 2 "
        "| new primary db2 after 9.1 s; 9 x 503; 3 x slower than 1 s |"
    )


def test_what_is_wrong_comes_first():
    row = faults.row(faced(planned=True, wrong=["no new\nprimary | db1"], notes={"x": "1"}))
    assert row.startswith("| power cut | no |")
    assert "| **wrong**: no new primary \\| db1; x 1; 9 x 503; 3 x slower than 1 s |" in row


def test_the_sum_counts_everything_and_names_what_was_not_tried():
    rows = [faults.row(faced(lost=1)), faults.row(faced(doubled=2))]
    page = faults.render(rows, "here", ["switchover"], [])
    assert "2 faults, 2400 requests, 1180 acknowledged passages: 1 missing, 2 doubled." in page
    assert "**Not tried**:\n\n- switchover\n" in page


def test_what_a_part_did_not_try_stays_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "REPORT", tmp_path / "fleet.md")
    monkeypatch.setattr(faults, "KEPT", tmp_path / "outcomes.json")
    monkeypatch.setattr(faults, "COSTS", tmp_path / "costs.json")
    first, second = (fault.title for fault in FAULTS[:2])

    def tries(*outcomes, whole):
        faults.KEPT.write_text(json.dumps({each["case"]: each for each in outcomes}))
        faults.write(whole=whole)
        return faults.earlier(faults.REPORT.read_text())

    before = tries(faced(case=first), faced(case=second, notes={"x": "a | b"}), whole=True)
    after = tries(faced(case=first, lost=1), whole=False)
    assert after[second] == before[second]
    assert after[first] == faults.row(faced(case=first, lost=1))
    assert "2 faults, 2400 requests, 1180 acknowledged passages: 1 missing" in (
        faults.REPORT.read_text()
    )
    assert second not in tries(faced(case=first), whole=True)


def test_what_a_request_costs():
    cost = Cost(2, 1000, 1, 0.5, 4.25, 1.0, p50=0.012, p99=0.1)
    assert table([asdict(cost)])[-1] == "| 2 | 1000 | 1 | 0.50 | 4.25 | 1.00 | 12 | 100 |"


def test_the_longest_time_without_a_write_counts_acknowledged_ones_alone():
    records = [passage(1, 1.0), passage(2, 2.0, 503), passage(3, 4.5), passage(4, 5.0)]
    assert silence(records) == pytest.approx(3.5)
    assert silence([]) == 0.0


def test_no_fault_is_tried_twice_under_one_title():
    titles = [fault.title for fault in FAULTS]
    assert len(set(titles)) == len(titles)
