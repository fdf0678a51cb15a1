"""One call of the module: its settings, and the account of what it decides and does."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import rehearsal
from ansible_collections.wsgi.host.plugins.module_utils.apphost.times import UTC
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import Wanted


class Run:
    """What all steps of one call share.

    Attributes:
        placeholders: directory of the self-signed pairs.
        kept: directory of the copies of what links led to.
        marker: file that says that the web server has still to reload.
        wanted: one for each certificate of the task.
        done: what was done (in check mode, would be), in words.
        failures: by name, why a certificate could not be obtained.
        before: what each link led to, in words.
        rehearsed: by certificate, what the last rehearsal of its renewal failed with.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.configuration = Path(self.params["configuration_directory"])
        self.links = Path(self.params["links_directory"])
        self.placeholders = self.links / ".placeholder"
        self.kept = self.links / ".kept"
        self.marker = Path(self.params["reload_marker"])
        self.rehearsed = rehearsal.verdict(Path(self.params["state_directory"]))[1]
        self.now = datetime.datetime.now(UTC)
        self.wanted = [
            Wanted(
                name=entry["name"],
                domains=entry["domains"],
                link=self.links / entry["name"],
            )
            for entry in self.params["certificates"]
        ]
        self.done: list[str] = []
        self.failures: dict[str, str] = {}
        self.before: list[str] = []

    def remember_reload(self) -> None:
        """Leaves the marker, which outlives an interrupted run."""
        self.marker.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.marker.touch()
