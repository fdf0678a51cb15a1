"""The table must not look better than what happened."""

from __future__ import annotations

from dataclasses import asdict

import report
from cases import Outcome
from ledger import Record, Summary


def outcome(**given):
    values = {
        "case": "a deploy",
        "system": "debian13",
        "requests": Summary(1200, 600, 0, {}, 0.234, 0.01, 0.1),
        "end": "new",
        "seconds": 8.21,
        "acknowledged": 600,
    }
    return asdict(Outcome(**{**values, **given}))


def test_a_row():
    assert report.row(outcome(notes={"exit code": "0"})) == (
        "| a deploy | debian13 | 1200 | 0 | 0 | 0.23 | new | 8.2 | exit code 0 |"
    )


def test_what_is_wrong_comes_first_and_stays_on_its_line():
    row = report.row(outcome(wrong=["exit code 2:\nlost | found"], notes={"x": "1"}))
    assert "**wrong**: exit code 2: lost \\| found; x 1 |" in row
    assert "\n" not in row


def test_the_sum_counts_everything():
    record = Record(1, due=0.0, sent=0.0, done=1.5, status=200, error="", plate="")
    failed = Summary(100, 50, 9, {"503: no": 7, record.failure: 2})
    page = report.render(
        [outcome(), outcome(requests=failed, wrong=["w"], acknowledged=40)], "here"
    )
    assert (
        "2 rows: 1300 requests, 7 failed, 2 late; 640 acknowledged passages; 1 row not as wanted."
        in page
    )
    assert "| 100 | 7 | 2 |" in page
    assert "no rows not as wanted" in report.render([outcome()], "here")


def test_latency_is_compared_where_the_steady_state_was_measured_long_enough():
    steady = Summary(400, 200, 0, {}, 0.05, 0.010, 0.020)
    during = Summary(300, 150, 0, {}, 0.09, 0.012, 0.030)
    page = report.render([outcome(steady=steady, during=during)], "here")
    assert (
        "| a deploy | debian13 | 10 ms | 20 ms | 50 ms | 12 ms | 30 ms | 90 ms | **1.50** |" in page
    )
    few = Summary(100, 50, 0, {}, 0.05, 0.010, 0.020)
    assert "Latency" not in report.render([outcome(steady=few, during=during)], "here")


def test_what_was_not_tried_is_named():
    page = report.render([outcome()], "here", ["a reboot on debian12"])
    assert "**Not tried in these runs**, 1 rows:\n\n- a reboot on debian12\n" in page
    assert "Not tried" not in report.render([outcome()], "here")
