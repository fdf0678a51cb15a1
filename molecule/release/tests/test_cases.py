"""Some of the cases that `make proof` tries; each under load, and nothing may be lost."""

from __future__ import annotations

import pytest
from bench import Host
from cases import CASES, Case

# The third host, a balancer, serves no release.
testinfra_hosts = ["ansible://debian12", "ansible://debian13"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.quick], ids=lambda case: case.title
)
def test_case(bench: Host, case: Case) -> None:
    """What must come of it says tests/releases/cases.py; how fast it goes is for `make proof`."""
    if bench.name not in case.quick:
        pytest.skip(f"tried on {', '.join(case.quick)}")
    outcome = case.on(bench, slow_counts=False)
    total = outcome.requests
    print(f"{total.sent} sent, {total.failed} failed, slowest {total.slowest:.2f} s: {outcome.end}")
    assert outcome.wrong == []
