"""`make test` must count right and never call a failure a success."""

from __future__ import annotations

import pytest
import run_tests


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("===== 12 passed in 3.21s =====", (12, 0, 0)),
        ("== 1 failed, 2 passed, 1 skipped, 3 errors in 63.34s (0:01:03) ==", (2, 4, 1)),
        ("= 2 passed, 1 deselected, 1 warning in 0.10s =", (2, 0, 0)),
        ("it said 3 passed in 1s", (0, 0, 0)),
    ],
)
def test_the_summary_of_pytest_is_read(line, expected):
    counts = run_tests.count_pytest(["noise", line])
    assert (counts["passed"], counts["failed"], counts["skipped"]) == expected


def test_several_summaries_add_up():
    """A Molecule scenario may run pytest more than once."""
    line = "=== 2 passed in 1.00s ==="
    assert run_tests.count_pytest([line, line])["passed"] == 4


def test_hooks_are_counted():
    lines = [
        "ruff.....................................................................Passed",
        "- hook id: mypy",
        "mypy.....................................................................Failed",
        "ansible-lint.........................................(no files to check)Skipped",
    ]
    counts = run_tests.count_hooks(lines)
    assert (counts["passed"], counts["failed"], counts["skipped"]) == (1, 1, 1)


def test_what_failed_is_named():
    """Whoever sees only the end of the output needs the names."""
    lines = [
        "ruff.....................................................................Failed",
        "yamllint.................................................................Passed",
        "[gw1] [ 12%] FAILED tests/unit/test_x.py::test_y",
        "FAILED tests/unit/test_x.py::test_y - AssertionError: no",
        "ERROR molecule/nginx/tests/test_z.py::test_w",
    ]
    assert run_tests.failures(lines) == [
        "ruff",
        "tests/unit/test_x.py::test_y - AssertionError: no",
        "molecule/nginx/tests/test_z.py::test_w",
    ]
    assert run_tests.judge("x", 1, counts(failed=3), lines).bad == run_tests.failures(lines)


def test_a_sequence_that_failed_without_a_test_is_named_by_its_exit_code():
    assert run_tests.judge("x", 2, counts(passed=3)).bad == ["exit code 2"]


def counts(passed: int = 0, failed: int = 0) -> dict[str, int]:
    return {"passed": passed, "failed": failed, "skipped": 0}


def test_a_bad_exit_code_is_a_failure_although_no_check_failed():
    """pytest that cannot collect, a playbook that stops: no test failed, and nothing is right."""
    assert run_tests.judge("x", 2, counts(passed=3)).failed == 1


def test_a_part_that_tested_nothing_is_a_failure():
    assert run_tests.judge("x", 0, counts()).failed == 1


def test_failed_checks_are_not_counted_twice():
    assert run_tests.judge("x", 1, counts(passed=1, failed=2)).failed == 2


def test_the_last_line_and_the_exit_code():
    good = run_tests.Result("a", passed=3)
    assert run_tests.total([good]) == ("3 passed, 0 failed", 0)
    assert run_tests.total([good, run_tests.Result("b", 1, 1, 2)]) == (
        "4 passed, 1 failed, 2 skipped",
        1,
    )


def test_molecule_stands_for_all_its_scenarios():
    parts = run_tests.chosen(["molecule"])
    assert parts == [f"molecule:{name}" for name in run_tests.scenarios()]
    assert parts[-1] == "molecule:default"


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match=r"No part 'molecule:no'.*molecule:default"):
        run_tests.chosen(["molecule:no"])


def test_a_failing_command_keeps_its_exit_code_and_output(capfd):
    code, lines = run_tests.run(["sh", "-c", "printf '\\033[31mred\\033[0m\\n'; exit 3"])
    assert (code, lines) == (3, ["red"])
    assert "red" in capfd.readouterr().out
