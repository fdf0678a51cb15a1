"""The figures of the proof must be right, and must not be able to flatter."""

from __future__ import annotations

import json
from dataclasses import asdict

import ledger
import pytest
from ledger import Record


def record(number: int = 0, seconds: float = 0.1, **given: object) -> Record:
    due = 100.0 + number
    values = {"number": number, "due": due, "sent": due, "done": due + seconds, "status": 200}
    return Record(**{**values, "error": "", "plate": "", **given})  # type: ignore[arg-type]


def test_an_answer_is_timed_from_when_it_was_due():
    """Whoever times from the sending hides that the sender itself had to wait."""
    assert record(sent=100.9, done=101.2).seconds == pytest.approx(1.2)
    assert record(sent=100.9, done=101.2).failure == "slower than 1 s"


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        ({"seconds": 1.0}, ""),
        ({"seconds": 1.01}, "slower than 1 s"),
        ({"status": 502, "error": "502: bad gateway"}, "502: bad gateway"),
        ({"status": 0, "error": "ConnectionResetError: "}, "ConnectionResetError: "),
        ({"status": 200, "error": "wrong answer: b''"}, "wrong answer: b''"),
    ],
)
def test_what_counts_as_failed(given, failure):
    assert record(**given).failure == failure
    assert ledger.summarize([record(**given)]).failed == bool(failure)


def test_a_percentile_is_one_of_the_values():
    values = [float(x) for x in range(1, 101)]
    assert ledger.percentile(values, 0.99) == 99
    assert ledger.percentile(values, 0.5) == 50
    assert ledger.percentile([3.0], 0.99) == 3
    assert ledger.percentile(values, 0.0) == 1
    with pytest.raises(ValueError, match="nothing"):
        ledger.percentile([], 0.5)


def test_a_summary_counts_each_kind_of_failure():
    records = [
        *(record(number, 0.01 * number) for number in range(10)),
        record(10, 2.5, plate="AA1"),
        record(11, status=503, error="503: no", plate="AA2"),
        record(12, 30.0, status=0, error="no answer within 30 s"),
    ]
    found = ledger.summarize(records)
    assert (found.sent, found.passages, found.failed) == (13, 2, 3)
    assert found.failures == {
        "slower than 1 s": 1,
        "503: no": 1,
        "no answer within 30 s": 1,
    }
    # What never came is no answer, so not the slowest one.
    assert found.slowest == pytest.approx(2.5)


def test_what_failed_is_told_with_what_its_neighbours_got():
    """One stuck request, or a moment in which everything was?"""
    records = [
        record(number, 4.0 if number == 11 else 0.1 * number, plate="AA1") for number in range(13)
    ]
    records[12] = record(12, 30.0, status=0, error="no answer within 30 s", plate="AA2")
    assert ledger.failed(records, began=100.0) == [
        "no answer within 30 s (request 12, AA2, due +12.0 s, took 30.0 s; "
        "of 2 near it the slowest answer took 4.0 s)"
    ]


def test_nothing_sent_has_no_figures():
    assert ledger.summarize([]) == ledger.Summary(0, 0, 0)


def test_a_phase_is_told_by_when_requests_were_due():
    """Those that were due in it and answered later belong to it."""
    records = [record(0), record(1, 5.0), record(2)]
    assert ledger.between(records, 101, 102) == [records[1]]


def test_reading_back_what_was_written(tmp_path):
    path = tmp_path / "ledger"
    written = [record(1), record(0, plate="AA0")]
    path.write_text("".join(json.dumps(asdict(x)) + "\n" for x in written))
    assert ledger.read(path) == [written[1], written[0]]


@pytest.mark.parametrize("line", ['{"number": 1}', '{"number"', "[]"])
def test_a_broken_ledger_is_refused(tmp_path, line):
    path = tmp_path / "ledger"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"ledger|Expecting"):
        ledger.read(path)


def test_all_recorded_once_is_right():
    records = [record(0, plate="AA0", status=201), record(1)]
    found = ledger.reconcile(records, {"AA0": 1})
    assert found.right
    assert found.acknowledged == 1


def test_an_acknowledged_passage_that_is_not_there_is_lost():
    found = ledger.reconcile([record(0, plate="AA0", status=201)], {})
    assert not found.right
    assert found.lost == ("AA0",)


def test_a_slow_answer_has_acknowledged_all_the_same():
    found = ledger.reconcile([record(0, 3.0, plate="AA0", status=201)], {})
    assert found.lost == ("AA0",)


@pytest.mark.parametrize("status", [201, 0])
def test_a_passage_that_is_there_twice_is_wrong_acknowledged_or_not(status):
    error = "" if status else "ConnectionResetError: "
    found = ledger.reconcile([record(0, plate="AA0", status=status, error=error)], {"AA0": 2})
    assert not found.right
    assert found.doubled == ("AA0",)


def test_what_was_not_acknowledged_may_be_there_or_not():
    records = [
        record(number, plate=f"AA{number}", status=0, error="ConnectionResetError: ")
        for number in range(2)
    ]
    found = ledger.reconcile(records, {"AA0": 1})
    assert found.right
    assert found.unacknowledged == ("AA0",)
    assert found.open == ("AA1",)


def test_sent_again_and_acknowledged_then_is_acknowledged():
    lost = record(0, plate="AA0", status=0, error="ConnectionResetError: ")
    again = record(1, plate="AA0", status=201)
    for records in ([lost, again], [again, lost]):
        assert ledger.reconcile(records, {"AA0": 1}).acknowledged == 1
        assert ledger.reconcile(records, {}).lost == ("AA0",)


def test_a_passage_that_nobody_sent_is_wrong():
    """The database would hold something that the ledger does not know: one of the two lies."""
    assert not ledger.reconcile([], {"AA9": 1}).right


def test_a_release_is_live_when_nobody_else_answers():
    records = [
        record(0, release="old"),
        record(1, release="new"),
        # The application as it is says nothing of itself, and nor does who does not answer.
        record(2, 3.0, release=""),
        record(3, 9.0, release="", status=0, error="reset"),
        record(4, release="new"),
    ]
    assert ledger.change_of_hands(records, "new") == pytest.approx((101.1, 105.0))
    with pytest.raises(ValueError, match="Not both"):
        ledger.change_of_hands(records[3:], "new")
