"""What goes wrong at night: processes that die, hands on the units, a host that restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Service


def test_a_killed_worker_is_replaced(plain: Service, as_root: Callable[[str], str]) -> None:
    """Lost is what it was working on, no more than its threads; what waits is served by others."""
    master, victim = plain.master, plain.children()[0]
    with plain.load() as load:
        as_root(f"kill -9 {victim}")
        plain.wait(lambda: len(set(plain.children()) - {victim}) == plain.workers)
    assert plain.master == master
    assert sum(load.bad.values()) <= plain.threads, load


def test_a_killed_master_loses_no_request(plain: Service, as_root: Callable[[str], str]) -> None:
    """Its workers finish, further connections wait in the sockets, and systemd starts it again."""
    master = plain.master
    with plain.load() as load:
        as_root(f"kill -9 {master}")
        plain.wait(lambda: plain.master not in (0, master))
    assert load.bad == {}
    assert len(plain.children()) == plain.workers


def test_a_service_that_keeps_dying_keeps_its_sockets(
    plain: Service, as_root: Callable[[str], str]
) -> None:
    """With a start limit, systemd would close them after five times."""
    for _ in range(7):
        # At once: between a question and the next it may be dead already.
        as_root(
            "until master=$(systemctl show --value --property=MainPID plain.service)"
            " && test $master -gt 0; do sleep 0.1; done; kill -9 $master"
        )
    assert plain.ask().status == 200
    assert plain.show("ActiveState", unit="plain.socket") == {"ActiveState": "active"}


def test_a_stop_finishes_what_was_begun(plain: Service, as_root: Callable[[str], str]) -> None:
    """Stopping the sockets stops the service with them; that is how to take it down."""
    # What an earlier test killed is back, so that a worker takes the request at once.
    plain.wait(lambda: len(plain.children()) == plain.workers)
    assert plain.ask().status == 200
    answers: list[Any] = []
    slow = threading.Thread(target=lambda: answers.append(plain.ask("/slow?seconds=5")))
    slow.start()
    taken = "ss -Hxn state established | grep -c /run/gunicorn/plain.sock || true"
    plain.wait(lambda: int(as_root(taken)) > 0)
    # From the socket's queue to a worker.
    time.sleep(1)
    as_root("systemctl stop plain.socket")
    slow.join()
    assert [answer.status for answer in answers] == [200]
    assert plain.show("ActiveState")["ActiveState"] == "inactive"
    as_root("systemctl start plain.service")
    assert plain.ask().status == 200


@pytest.mark.one_system(13)
def test_a_missing_release_is_named(
    host: Host, plain: Service, as_root: Callable[[str], str]
) -> None:
    """And once it is there, the service comes up without anybody's hand."""
    as_root("mv /opt/plain/current /opt/plain/away")
    try:
        assert host.run("systemctl restart plain.service").rc != 0
        assert "There is no /opt/plain/current/app: deploy a release." in plain.journal(
            "--priority=err -n 20"
        )
    finally:
        as_root("mv /opt/plain/away /opt/plain/current")
    assert plain.ask().status == 200


def test_memory_runs_out_for_one_worker_only(host: Host, tuned: Service) -> None:
    """The kernel kills the worker that took too much; the service goes on."""
    if not tuned.show("MemoryCurrent")["MemoryCurrent"].isdigit():
        pytest.skip("the test machine's cgroups give systemd no control of memory")
    master = tuned.master
    with pytest.raises(AssertionError):
        tuned.ask("/memory?mib=400")
    assert tuned.ask().status == 200
    assert tuned.master == master


@pytest.mark.one_system(13)
def test_what_somebody_stopped_is_started_by_the_next_run(
    host: Host, plain: Service, play: Callable[..., Any], as_root: Callable[[str], str]
) -> None:
    """Green over a service that does not run would be the worst answer."""
    as_root("systemctl disable --now plain.socket plain.service")
    run = play()
    assert run.returncode == 0, run.output
    assert run.changed > 0
    assert "plain.socket and plain.service will be started" in run.output
    for unit in ("plain.socket", "plain.service"):
        assert host.service(unit).is_running
        assert host.service(unit).is_enabled
    assert play().changed == 0


def test_everything_comes_back_after_a_reboot(
    host: Host,
    plain: Service,
    tuned: Service,
    reboot: Callable[[], None],
    as_root: Callable[[str], str],
) -> None:
    """With the same secrets, and without anybody's hand."""
    secrets = tuned.ask("/secrets").json()
    reboot()
    for service in (plain, tuned):
        for where in service.everywhere:
            assert service.ask(via=where).status == 200
        assert host.service(service.unit).is_running
    assert tuned.ask("/secrets").json() == secrets
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""
