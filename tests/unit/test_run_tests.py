"""`make test` must count right and never call a failure a success."""

from __future__ import annotations

import re
import threading

import checks
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
    counts = checks.count_pytest(["noise", line])
    assert (counts["passed"], counts["failed"], counts["skipped"]) == expected


def test_several_summaries_add_up():
    """A Molecule scenario may run pytest more than once."""
    line = "=== 2 passed in 1.00s ==="
    assert checks.count_pytest([line, line])["passed"] == 4


def test_hooks_are_counted():
    lines = [
        "ruff.....................................................................Passed",
        "- hook id: mypy",
        "mypy.....................................................................Failed",
        "ansible-lint.........................................(no files to check)Skipped",
    ]
    counts = checks.count_hooks(lines)
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
    assert checks.failures(lines) == [
        "ruff",
        "tests/unit/test_x.py::test_y - AssertionError: no",
        "molecule/nginx/tests/test_z.py::test_w",
    ]
    assert checks.judge("x", 1, counts(failed=3), lines).bad == checks.failures(lines)


def test_a_sequence_that_failed_without_a_test_is_named_by_its_exit_code():
    assert checks.judge("x", 2, counts(passed=3)).bad == ["exit code 2"]


def counts(passed: int = 0, failed: int = 0) -> dict[str, int]:
    return {"passed": passed, "failed": failed, "skipped": 0}


def test_a_bad_exit_code_is_a_failure_although_no_check_failed():
    """pytest that cannot collect, a playbook that stops: no test failed, and nothing is right."""
    assert checks.judge("x", 2, counts(passed=3)).failed == 1


def test_a_part_that_tested_nothing_is_a_failure():
    assert checks.judge("x", 0, counts()).failed == 1


def test_failed_checks_are_not_counted_twice():
    assert checks.judge("x", 1, counts(passed=1, failed=2)).failed == 2


def test_the_last_line_and_the_exit_code():
    good = checks.Result("a", passed=3)
    assert checks.total([good]) == ("3 passed, 0 failed", 0)
    assert checks.total([good, checks.Result("b", 1, 1, 2)]) == (
        "4 passed, 1 failed, 2 skipped",
        1,
    )


def test_molecule_stands_for_all_its_scenarios():
    assert run_tests.chosen(["molecule"]) == [f"molecule:{x}" for x in run_tests.scenarios()]


def test_a_part_that_is_named_twice_runs_once():
    assert run_tests.chosen(["molecule:nginx", "molecule"]).count("molecule:nginx") == 1


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match=r"No part 'molecule:no'.*molecule:default"):
        run_tests.chosen(["molecule:no"])


@pytest.fixture
def part(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    return run_tests.Part("molecule:nginx")


def test_a_failing_command_keeps_its_exit_code_and_output(part, tmp_path):
    code, lines = part.run(["sh", "-c", "printf '\\033[31mred\\033[0m\\n'; exit 3"])
    assert (code, lines) == (3, ["red"])
    assert "red" in (tmp_path / "molecule-nginx.log").read_text()


def test_somebody_who_waits_is_told_of_stages_and_failures(part, capfd):
    announced = "INFO     nginx ➜ verify: Executing\nFAILED x.py::test_y\n" + (
        "ERROR    nginx ➜ verify: Executed: Failed\n"
    )
    part.run(["printf", "%s", announced])
    assert [line[9:] for line in capfd.readouterr().out.splitlines()] == [
        "molecule nginx: FAILED x.py::test_y",
        "molecule nginx: verify took 0 s",
    ]


def test_a_part_that_crashes_fails_and_the_others_go_on(monkeypatch, tmp_path):
    def crash(part):
        raise OSError("no engine")

    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    monkeypatch.setattr(run_tests, "lint", crash)
    result = run_tests.run_part("lint")
    assert (result.failed, result.bad) == (1, ["OSError: no engine"])


def test_stages_are_measured_by_what_molecule_announces():
    stopwatch = checks.Stopwatch()
    ended = [
        stopwatch.read(line, now)
        for now, line in enumerate(
            [
                "INFO     nginx ➜ create: Executing",
                "PLAY [Create] ****",
                "INFO     nginx ➜ create: Executed: Successful",
                "INFO     nginx ➜ verify: Executing",
                "INFO     nginx ➜ verify: Executing Testinfra tests found in /x/...",
                "ERROR    nginx ➜ verify: Executed: Failed",
            ]
        )
    ]
    assert ended == [None, None, "create", None, None, "verify"]
    assert stopwatch.seconds == {"create": 2, "verify": 2}


def test_the_closing_table_has_a_column_for_each_stage():
    scenario = checks.Result("molecule nginx", passed=7, seconds=61)
    scenario.stages = {"create": 9.4, "verify": 51, "syntax": 1}
    heading, line, other = checks.table([scenario, checks.Result("unit", failed=2, seconds=3)])
    assert heading.split()[:3] == ["seconds", "all", "create"]
    assert line.split() == [
        "molecule",
        "nginx",
        "61",
        "9",
        "51",
        "ok",
        "7",
        "passed",
        "0",
        "failed",
    ]
    assert heading.index("verify") + len("verify") == line.index("51") + len("51")
    assert "FAILED" in other


def test_the_longest_part_starts_first():
    """What starts last and takes long is waited for alone."""
    known = {"unit": 90.0, "lint": 30.0, "molecule:nginx": 300.0}
    assert run_tests.in_order(["lint", "unit", "molecule:nginx"], known) == [
        "molecule:nginx",
        "unit",
        "lint",
    ]


def test_on_a_clean_clone_the_scenarios_that_are_long_start_first():
    assert set(run_tests.LONGEST) <= set(run_tests.chosen([]))
    assert run_tests.in_order(run_tests.chosen([]), {})[: len(run_tests.LONGEST)] == list(
        run_tests.LONGEST
    )


def test_parts_that_run_side_by_side_all_come_to_their_result(monkeypatch, tmp_path, capfd):
    """Each waits for the other: one after the other they would never end."""
    both = threading.Barrier(2, timeout=30)

    def meet(part):
        both.wait()
        return checks.Result(part.name, passed=1)

    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    monkeypatch.setattr(run_tests, "DURATIONS", tmp_path / "seconds.json")
    monkeypatch.setattr(run_tests, "lint", meet)
    monkeypatch.setattr(run_tests, "app", meet)
    assert run_tests.main(["--jobs=2", "lint", "app"]) == 0
    said = capfd.readouterr().out
    assert said.splitlines()[-1] == "2 passed, 0 failed"
    # Whether more parts at once would be sooner done.
    assert re.search(r"^2 parts, 2 at once: \d+ s, processors \d+ % busy$", said, re.M), said
    # What they took decides who starts first the next time.
    assert set(run_tests.durations()) == {"lint", "app"}
