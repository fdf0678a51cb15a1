"""What decides that a host is healthy, and what runs programs."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
from bench import Running, unsettled

HEALTHY: dict[str, Any] = {
    "current": "0123456789ab",
    "answers": [{"status": 200, "release": "0123456789ab", "body": ""}] * 2,
    "units": {
        "toll-app.service": {"ActiveState": "active"},
        "toll-app.socket": {"ActiveState": "active"},
        "nginx.service": {"ActiveState": "active"},
        "toll-app-standby.service": {"ActiveState": "inactive"},
        "toll-app-handover.service": {"ActiveState": "inactive"},
    },
    "workers": 5,
}


def test_a_host_at_rest_is_healthy():
    assert unsettled(HEALTHY) == ""


@pytest.mark.parametrize(
    ("unit", "state", "said"),
    [
        ("toll-app.service", "activating", "toll-app.service is activating"),
        ("toll-app.socket", "failed", "toll-app.socket is failed"),
        ("toll-app-standby.service", "active", "toll-app-standby.service is active"),
        ("toll-app-handover.service", "activating", "toll-app-handover.service is activating"),
        ("toll-app-standby.service", "deactivating", "toll-app-standby.service is deactivating"),
    ],
)
def test_a_unit_that_is_not_at_rest(unit, state, said):
    found = copy.deepcopy(HEALTHY)
    found["units"][unit]["ActiveState"] = state
    assert unsettled(found) == said


def test_one_worker_that_answers_otherwise_is_enough():
    found = copy.deepcopy(HEALTHY)
    found["answers"][1] = {"status": 503, "release": "", "body": "no"}
    assert "503" in unsettled(found)
    found["answers"][1] = {"status": 200, "release": "ba9876543210", "body": ""}
    assert unsettled(found) == "ba9876543210 answers, and current is 0123456789ab"


def test_no_workers_is_not_healthy():
    assert "no workers" in unsettled({**HEALTHY, "workers": 0})


def run(script: str) -> Running:
    return Running([sys.executable, "-c", script])


def test_a_program_is_waited_for():
    done = run("print('changed=2'); print('changed=1'); raise SystemExit(3)").wait(30)
    assert (done.returncode, done.changed) == (3, 3)
    assert done.output.splitlines() == ["changed=2", "changed=1"]


def test_a_line_is_waited_for_and_the_rest_is_killed():
    running = run("import time; print('TASK [x : ship | Do]', flush=True); time.sleep(600)")
    assert running.wait_for(r"TASK \[.*\bship \|", 30)
    running.kill()
    assert running.wait(30).returncode == -9


def test_a_line_that_never_comes():
    running = run("print('something else')")
    assert running.wait_for("ship", 30) is False
    assert running.wait(30).returncode == 0
