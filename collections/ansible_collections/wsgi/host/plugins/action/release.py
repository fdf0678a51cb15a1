"""Ship a bundle to a host that lacks it, and have the module of the same name install it.

The options are documented in plugins/modules/release.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.plugin_utils.control import whoami
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules

# What only the record of a release tells; older bundles lack some of it.
TOLD = ("content", "revision", "lock_hash", "built_by", "contents")
NEEDED = ("name", "id", "python", "architecture", "archive", "built", "sha256", "unpacked_bytes")
MODULE = "wsgi.host.release"


class ActionModule(KeptModules):
    """The action behind wsgi.host.release: one trip if the host has the release."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's result, after shipping the archive if the module asks for it."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for own in ("archive", "shipped_by"):
            if own in arguments:
                raise AnsibleActionFail(f"{own} is set by wsgi.host.release itself. Leave it out")
        bundle = arguments.get("bundle")
        if not isinstance(bundle, dict) or any(key not in bundle for key in NEEDED):
            raise AnsibleActionFail(
                "bundle is not what wsgi.host.bundle returns. "
                'Register its result, for example as x, and give "{{ x.bundle }}"'
            )
        arguments["bundle"] = {key: bundle[key] for key in NEEDED}
        arguments["bundle"] |= {key: bundle[key] for key in TOLD if key in bundle}
        arguments["shipped_by"] = whoami()
        outcome = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if outcome.pop("archive_needed", False):
            archive = self._checked_archive(bundle)
            directory = self._make_tmp_path()
            remote = self._connection._shell.join_path(directory, "bundle.tar.gz")
            self._transfer_file(str(archive), remote)
            self._fixup_perms2((directory, remote))
            arguments["archive"] = remote
            outcome = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        result.update(outcome)
        result.pop("invocation", None)
        return result

    @staticmethod
    def _checked_archive(bundle: dict[str, Any]) -> Path:
        """Return the archive's path; raise AnsibleActionFail if it is not what was built."""
        archive = Path(bundle["archive"])
        try:
            with archive.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise AnsibleActionFail(
                f"The bundle {archive} cannot be read: {error.strerror}. Run again to build it"
            ) from error
        if found != bundle["sha256"]:
            raise AnsibleActionFail(
                f"{archive} is damaged: its SHA-256 is {found} in place of {bundle['sha256']}. "
                f"Remove it and run again"
            )
        return archive
