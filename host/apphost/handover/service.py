"""The service that is handed over: which release runs, which is current, and its records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import files, records, trees
from ..errors import RefusedError
from ..systemd import Systemd, Unit
from . import settings
from .config import Config
from .settings import Healthy, Settings
from .state import State
from .suiting import NoQuestion, Question

# Too short to be worth a line.
QUIET_STAGES = ("begin", "commit")


class Service:
    """One service of this host, while it is looked at or handed over.

    Attributes:
        config: as it is on disk; read again when the settings are reverted.
        report: gets a line for each stage.
        seconds: how long each stage took so far.
        question: to the release, about the database.
    """

    def __init__(
        self, config: Config, systemd: Systemd, report: Callable[[str], None] = print
    ) -> None:
        self.config, self.systemd, self.report = config, systemd, report
        self.seconds: dict[str, float] = {}
        self.question: Question | NoQuestion = NoQuestion()
        self._stage = ""
        self._entered = time.monotonic()

    # Stages

    def enter(self, state: State, stage: str) -> None:
        """Begin a stage, on disk first."""
        self.leave()
        state.stage = self._stage = stage
        try:
            state.write(self.config)
        except OSError:
            # The way back is on disk already, and must not need room there.
            if stage != "back":
                raise

    def leave(self) -> None:
        """End a stage, and report how long it took."""
        if self._stage:
            self.seconds[self._stage] = round(time.monotonic() - self._entered, 2)
            if self._stage not in QUIET_STAGES:
                self.report(f"  {self._stage}: {self.seconds[self._stage]} s")
        self._stage = ""
        self._entered = time.monotonic()

    def forget(self) -> None:
        """Nothing is under way any more."""
        files.remove(self.config.begun)
        files.remove(self.config.candidate)

    # Releases

    def releases(self) -> list[str]:
        """Those on this host; none for a service without releases."""
        if self.config.root is None:
            return []
        folder = self.config.root / "releases"
        return sorted(path.name for path in folder.glob("*") if (path / "bin/python").exists())

    def current(self) -> str | None:
        """The release that `current` points at. Raises RefusedError where it is no link."""
        if self.config.root is None:
            return None
        link = self.config.root / "current"
        try:
            return os.path.basename(os.readlink(link))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusedError(f"{link} is not a symbolic link: move it away") from error

    def point(self, release: str | None) -> None:
        """Have `current` point at a release, or at none."""
        root = self.config.root
        if root is None:
            return
        if release is None:
            files.remove(root / "current")
        elif self.current() != release:
            files.point(root / "current", Path("releases", release))

    def running(self, unit: Unit) -> str | None:
        """The release that a unit was started from, wherever links lead by now."""
        if self.config.root is None or not unit.pid:
            return None
        directory = self.systemd.directory(unit.pid)
        releases = Path(os.path.realpath(self.config.root / "releases"))
        if directory is not None and releases in directory.parents:
            return directory.relative_to(releases).parts[0]
        # An application may go elsewhere while it is imported. It is what was judged in this run.
        healthy = Healthy.read(self.config.healthy)
        judged = healthy is not None and healthy.invocation == unit.invocation
        return healthy.release if healthy and judged else None

    # Settings

    def settings_on_disk(self, healthy: Settings) -> Settings:
        """Those that count, and those that counted when they were judged healthy."""
        return settings.read([*self.config.settings, *healthy])

    def changes(self) -> tuple[Settings, Settings, list[str]]:
        """The settings that were judged healthy, those on disk, and the files that differ.

        All of them are empty where nothing was judged so far.
        """
        healthy = Healthy.read(self.config.healthy)
        if healthy is None:
            return {}, {}, []
        on_disk = self.settings_on_disk(healthy.settings)
        return healthy.settings, on_disk, settings.changed(healthy.settings, on_disk)

    def has_loaded_changes(self, unit: str = "") -> bool:
        """Whether it was started after a change of settings that was not judged healthy.

        Args:
            unit: the service itself if left out.
        """
        shown = self.systemd.show(unit or self.config.main)
        _, on_disk, changed = self.changes()
        return shown.lives and any(
            path in on_disk and on_disk[path].written_at <= shown.since for path in changed
        )

    def revert_settings(self) -> list[str]:
        """Write the settings that were judged healthy; return the files that differed."""
        healthy, on_disk, changed = self.changes()
        if changed:
            settings.revert(healthy, on_disk)
            self.config = Config.read(self.config.application)
        return changed

    def settings_meant(self, interrupted: State) -> Settings:
        """Those on disk that whoever asks now has written, or found as they were to be.

        The way back from an interrupted handover reverts them. On one that was interrupted itself,
        only those that neither side of it had.
        """
        _, on_disk, changed = self.changes()
        candidate = Healthy.read(self.config.candidate)
        if interrupted.stage == "back" and candidate is not None:
            ours = settings.changed(candidate.settings, on_disk)
            changed = [path for path in changed if path in ours]
        elif interrupted.stage == "back":
            changed = []
        return {path: on_disk[path] for path in changed if path in on_disk}

    def write_settings(self, wanted: Settings) -> None:
        """Write these files; others stay."""
        if wanted:
            settings.revert(wanted, settings.read(list(wanted)))
            self.config = Config.read(self.config.application)

    def has_its_tree(self) -> bool:
        """Whether the files are those that a playbook wrote last."""
        return trees.is_there(self.config.tree, self.config.application.host)

    def mark_applied(self) -> None:
        """Note that what is on disk was judged, unless somebody has written more since."""
        if not self.changes()[2]:
            trees.mark_applied(self.config.tree, self.config.application.host)

    # Records

    def record(self, release: str | None) -> dict[str, Any]:
        """What is known about a release; empty for a service without releases."""
        if self.config.root is None or release is None:
            return {}
        return records.read(self.config.state, release)

    def update_record(self, release: str | None, facts: dict[str, Any]) -> None:
        """Keep facts in a release's record, beside what others wrote there."""
        if self.config.root is not None and release is not None:
            records.update(self.config.state, release, facts)

    def add_history(self, event: str, state: State, verdict: str | None, **more: Any) -> None:
        """Add a line about a handover that has ended."""
        line = {
            "event": event,
            "release": state.release,
            "previous": state.previous,
            "by": state.by,
            "reason": state.reason,
            "verdict": verdict,
            "settings": state.settings,
            **more,
        }
        records.history(self.config.state, line)
