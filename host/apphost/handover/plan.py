"""What there is to do so that a release is live with the settings on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ..errors import RefusedError
from ..systemd import Unit
from . import settings, workers
from .service import Service
from .settings import Healthy, Settings


@dataclass
class Plan:
    """What there is to do, and why.

    Attributes:
        changed: files that differ from the settings that were judged healthy.
        reasons: nothing is to be done without any.
        generation: of the workers that are live.
        invocation: the run of the service that is live.
        disabled: units that do not start at boot, and should; looked at where there is no reason.
        bridged: a standby can serve meanwhile.
        reopen: the unit of the clients' socket differs.
        reload: systemd has to read its unit files again.
    """

    release: str | None
    previous: str | None
    settings: Settings
    changed: list[str]
    reasons: list[str] = field(default_factory=list)
    generation: str = ""
    invocation: str = ""
    disabled: list[str] = field(default_factory=list)
    bridged: bool = False
    reopen: bool = False
    reload: bool = False

    @property
    def title(self) -> str:
        """From where to where, in words."""
        to = f"release {self.release}" if self.release else "the settings on disk"
        if self.previous and self.previous != self.release:
            return f"from release {self.previous} to {to}"
        return f"to {to}"


def live_and_healthy(release: str | None) -> str:
    """A sentence without its end."""
    what = f"Release {release} is" if release else "The settings on disk are"
    return f"{what} live and healthy"


@dataclass(frozen=True)
class _Seen:
    """How the host is before anything is done."""

    main: Unit
    shared: Unit
    healthy: Healthy | None
    running: str | None
    current: str | None


def make_plan(service: Service, release: str | None, restart: bool = False) -> Plan:
    """What it takes. Raises RefusedError where there is no such release, or it cannot start.

    Args:
        release: the current one if left out.
        restart: start it again also where it is live already.
    """
    config, systemd = service.config, service.systemd
    main = systemd.show(config.main)
    seen = _Seen(
        main,
        systemd.show(config.sockets[0]),
        Healthy.read(config.healthy),
        service.running(main),
        service.current(),
    )
    wanted = _checked(service, release, seen.current)
    healthy = seen.healthy
    before = healthy.settings if healthy else {}
    on_disk = service.settings_on_disk(before)
    previous = seen.running or (healthy.release if healthy else None) or seen.current
    plan = Plan(wanted, previous, on_disk, settings.changed(before, on_disk))
    plan.invocation = main.invocation
    plan.generation = generation = healthy.generation if healthy else ""
    unit = str(config.units / config.sockets[0])
    if healthy:
        plan.reopen = settings.directives(before, unit) != settings.directives(on_disk, unit)
    elif unit in on_disk and not seen.shared.stopped:
        plan.reopen = on_disk[unit].written_at > seen.shared.since
    plan.bridged = not (plan.reopen or seen.shared.stopped or main.stopped)
    plan.reload = main.stale or seen.shared.stale or bool(plan.changed)
    plan.reasons = [*_reasons_of_release(service, plan, seen), *_reasons_of_settings(plan, seen)]
    if not plan.reasons:
        plan.reasons = [*_reasons_of_run(plan, seen), *workers.missing(service, generation)]
    if restart and not plan.reasons:
        plan.reasons.append("it is to be started again")
    if not plan.reasons:
        plan.disabled = systemd.disabled(workers.at_boot(config, generation))
    return plan


def _checked(service: Service, release: str | None, current: str | None) -> str | None:
    """The release to hand over to, which is on this host and can start."""
    root = service.config.root
    if root is None:
        if release is not None:
            raise RefusedError(
                f"{service.config.name} has no releases (gunicorn_systemd_release_root): name none"
            )
        return None
    wanted = release or current
    if wanted is None:
        raise RefusedError(f"No release is live in {root}: name one")
    python = root / "releases" / wanted / "bin/python"
    if python.is_symlink() and not python.exists():
        raise RefusedError(
            f"Release {wanted} cannot start: its interpreter {os.path.realpath(python)} is not on "
            f"this host. Name another release, or deploy this one again"
        )
    releases = service.releases()
    if wanted not in releases:
        present = ", ".join(releases) or "none"
        raise RefusedError(f"There is no release {wanted!r} in {root}; there are: {present}")
    return wanted


def _reasons_of_release(service: Service, plan: Plan, seen: _Seen) -> list[str]:
    """Why another release than the one that is live, or none, would be served."""
    config = service.config
    if seen.main.stopped or seen.shared.stopped:
        return [f"{config.main if seen.main.stopped else config.sockets[0]} is stopped"]
    if not seen.main.lives:
        return [f"{config.main} does not stay up"]
    if config.root is None:
        return []
    if seen.running != plan.release:
        return [f"release {seen.running or 'none'} is live"]
    if seen.current != plan.release:
        return [f"current points at {seen.current}"]
    return []


def _reasons_of_settings(plan: Plan, seen: _Seen) -> list[str]:
    """Why what is on disk was not judged so far."""
    if seen.healthy is None:
        return ["nothing was judged so far"]
    if plan.changed:
        return [f"changed: {', '.join(plan.changed)}"]
    if seen.healthy.release != plan.release:
        return [f"release {plan.release} was not judged with these settings"]
    return []


def _reasons_of_run(plan: Plan, seen: _Seen) -> list[str]:
    """Why what runs is not what is on disk, though both are the same release."""
    if seen.healthy is not None and seen.main.invocation != seen.healthy.invocation:
        # It was started again since, by itself, with the settings that were there then.
        newer = [p for p, s in plan.settings.items() if s.written_at > seen.main.since]
        if newer:
            return [f"it was started before {newer[0]} was written"]
    return ["its unit was changed"] if seen.main.stale else []
