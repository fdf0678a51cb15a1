"""A service that is there and does nothing: who notices, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Service


def test_timer_is_set_for_each_service(host: Host, service: Service) -> None:
    timer = host.service(f"{service.name}-health.timer")
    assert timer.is_enabled
    assert timer.is_running


@pytest.mark.one_system(13)
def test_a_service_that_hangs_is_started_again_and_what_waits_is_answered(
    tuned: Service, as_root: Callable[[str], str]
) -> None:
    """systemd sees a running process, and gunicorn's master, which would see a hanging worker,
    hangs itself."""
    tuned.wait(lambda: len(tuned.children()) == tuned.workers)
    before = tuned.master
    since = as_root("date +'%Y-%m-%d %H:%M:%S'").strip()
    as_root(f"kill -STOP {before} {' '.join(map(str, tuned.children()))}")
    # It waits in the socket, as a client's request does, and is answered by whoever comes next.
    assert tuned.ask("/").json()["ppid"] != before
    tuned.wait(lambda: tuned.master not in (0, before), 60)
    told = "journalctl --no-pager --output=cat -t tuned-health --since"
    tuned.wait(lambda: "It had not answered for" in as_root(f"{told} '{since}'"), 60)
    assert "2 times in a row" in as_root(f"{told} '{since}'")
    assert "tuned is healthy" in as_root("tuned health")


def test_what_an_operator_stopped_stays_stopped(
    host: Host, tuned: Service, as_root: Callable[[str], str]
) -> None:
    """Its sockets are open: a question would start it."""
    as_root("systemctl stop tuned.service")
    try:
        for _ in range(3):
            as_root("systemctl start tuned-health.service")
        assert tuned.show("ActiveState")["ActiveState"] == "inactive"
    finally:
        as_root("systemctl start tuned.service")
    tuned.wait(lambda: tuned.ask("/").status == 200)
