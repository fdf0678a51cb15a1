"""The steps of a handover in either direction: a standby stands in, the service is started."""

from __future__ import annotations

import signal
import time

from .. import files
from .judge import POLL_SECONDS, judge, judged_bad
from .service import Service
from .state import State


def stand_in(service: Service, state: State, stage: str, release: str | None) -> None:
    """Start the standby and judge it on its private socket. Raises JudgedBadError.

    Args:
        stage: `standby`, or `back` in the other direction.
    """
    config, systemd = service.config, service.systemd
    state.serving = False
    service.enter(state, stage)
    before = systemd.show(config.standby)
    if not before.stopped:
        systemd.stop(config.standby)
        before = systemd.show(config.standby)
    if config.root is not None and release is not None:
        config.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.point(config.standby_release, config.root / "releases" / release)
    systemd.begin("start", config.standby)
    socket = config.application.standby_socket
    judge(service, config.standby, socket, release, before.invocation)


def open_standby(service: Service, state: State, release: str | None) -> None:
    """Have the standby accept clients. Raises JudgedBadError."""
    _accept_clients(service, release)
    state.serving = True


def _accept_clients(service: Service, release: str | None) -> None:
    """Have the standby accept from the shared sockets.

    On SIGHUP its master starts its workers with all sockets, and ends the one that was judged.
    """
    config, systemd = service.config, service.systemd
    standby = systemd.show(config.standby)
    judged = systemd.workers(standby.pid)
    if not standby.lives or not standby.pid:
        raise judged_bad(service, config.standby, "died")
    systemd.signal(standby.pid, signal.SIGHUP)
    end = time.monotonic() + config.stop_time_limit
    while judged & systemd.workers(standby.pid):
        if time.monotonic() > end:
            raise judged_bad(service, config.standby, "did not accept clients in time")
        time.sleep(POLL_SECONDS)
    # Who answers now also has the shared sockets.
    judge(service, config.standby, config.application.standby_socket, release, "", count=1)


def start_main(service: Service, state: State, release: str | None) -> None:
    """Start the service with what is on disk, while the standby serves if there is one.

    Raises JudgedBadError or SystemdError.
    """
    config, systemd = service.config, service.systemd
    before = systemd.show(config.main)
    if state.bridged:
        systemd.begin("restart", config.main)
    else:
        systemd.stop(config.main)
        if state.reopen:
            systemd.stop(*config.sockets)
        systemd.start(*config.sockets)
        systemd.begin("start", config.main)
    judge(service, config.main, config.application.check_socket, release, before.invocation)
