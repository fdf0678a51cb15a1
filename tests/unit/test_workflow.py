"""What CI elsewhere runs is the whole of `make test`, part by part."""

from __future__ import annotations

import re
from typing import Any

import pytest
import run_tests
import yaml
from conftest import PROJECT

WORKFLOW: dict[str, Any] = yaml.safe_load((PROJECT / ".github/workflows/test.yml").read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]


def test_every_scenario_is_tried() -> None:
    """A scenario that somebody adds, and CI leaves out, is one that breaks unseen."""
    assert JOBS["molecule"]["strategy"]["matrix"]["scenario"] == run_tests.scenarios()


def test_every_other_part_is_tried() -> None:
    parts = set(JOBS["offline"]["strategy"]["matrix"]["part"])
    # `make unit` runs the application's tests as well.
    assert parts | {"app", "molecule"} >= set(run_tests.PARTS)


def test_parts_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M))
    assert {"molecule", *JOBS["offline"]["strategy"]["matrix"]["part"]} <= targets
    documented = set(re.findall(r"^([a-z]+):.*## ", (PROJECT / "Makefile").read_text(), re.M))
    assert targets == documented, "`make help` lists every target"


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_ends_and_may_only_read(job: dict[str, Any]) -> None:
    assert job["timeout-minutes"] <= 60
    assert (
        WORKFLOW["permissions"]
        == {"contents": "read"}
        == job.get("permissions", {"contents": "read"})
    )
