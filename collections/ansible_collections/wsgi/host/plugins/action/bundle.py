"""Build an application and its locked dependencies once, on the control node.

The options are documented in plugins/modules/bundle.py.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.wsgi.host.plugins.plugin_utils import sources
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import (
    EXCLUDE,
    Bundle,
    default_cache,
    prebuilt,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.locks import BundleError, pins_on
from ansible_collections.wsgi.host.plugins.plugin_utils.wheels import PLATFORMS

display = Display()


class ActionModule(ActionBase):
    """The action behind wsgi.host.bundle."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the bundle, built unless in check mode."""
        result = super().run(tmp, task_vars)
        options: dict[str, Any]
        _, options = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "lock": {"type": "path"},
                "source": {"type": "path"},
                "repository": {"type": "str", "default": ""},
                "subdirectory": {"type": "str", "default": ""},
                "exclude": {"type": "list", "elements": "str", "default": EXCLUDE},
                "python": {"type": "str", "required": True},
                "architecture": {"type": "str", "required": True, "choices": list(PLATFORMS)},
                "cache": {"type": "path"},
                "revision": {"type": "str", "default": ""},
                "archive": {"type": "path", "default": ""},
                "archive_sha256": {"type": "str", "default": ""},
                "variables": {"type": "dict", "default": {}},
                "build": {"type": "list", "elements": "list", "default": []},
                "needs": {"type": "list", "elements": "str", "default": []},
                "sdists": {"type": "list", "elements": "str", "default": []},
                "build_time_limit_seconds": {"type": "int", "default": 600},
            }
        )
        arguments: dict[str, Any] = self._task.args
        called = {key: key for key in ("revision", "archive", "archive_sha256")} | {
            key: str(value) for key, value in options["variables"].items()
        }
        # Words may be numbers.
        options["build"] = [[str(word) for word in step] for step in options["build"]]
        cache = options["cache"]
        directory = Path((task_vars or {}).get("playbook_dir") or self._loader.get_basedir())
        result["changed"] = False
        try:
            if options["archive"] and options["revision"]:
                raise BundleError(
                    f"{called['revision']} and {called['archive']} are both set "
                    f"({arguments['revision']!r} and {arguments['archive']!r}), and a bundle "
                    f"comes from one of them. Leave one out"
                )
            if options["archive_sha256"] and not options["archive"]:
                raise BundleError(
                    f"{called['archive_sha256']} is set without {called['archive']}, whose hash "
                    f"it is. Set both, or leave it out"
                )
            place = Path(cache) if cache else default_cache(directory)
            if options["archive"]:
                built = prebuilt(options, called)
                if not self._task.check_mode:
                    del built["contents"]
                result["bundle"] = built
            elif options["repository"]:
                result["bundle"] = self._of_repository(options, place, called["revision"])
            elif options["revision"]:
                result["bundle"] = self._of_revision(options, place, called["revision"])
            else:
                result["bundle"] = self._of(self._bundle(options, place))
        except (BundleError, sources.SourceError) as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            raise AnsibleActionFail(f"The bundle cannot be built: {error}") from error
        return result

    def _of_revision(self, options: dict[str, Any], cache: Path, variable: str) -> dict[str, Any]:
        """Return the bundle of the source as it was at a revision."""
        source = Path(options["source"] or "").resolve()
        lock = Path(options["lock"]).resolve() if options["lock"] else None
        if not options["source"] or (lock and not lock.is_relative_to(source)):
            raise BundleError(
                f"{variable}: the lock file {lock} is not below source, so its content at that "
                f"revision is not known. Keep it there"
            )
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            exported = Path(folder, source.name)
            exported.mkdir()
            commit = sources.export(source, options["revision"], exported, variable)
            changes = {"source": exported}
            if lock:
                changes["lock"] = exported / lock.relative_to(source)
            try:
                return self._of(self._bundle({**options, **changes}, cache, commit))
            except BundleError as error:
                # The folder is gone when somebody reads this.
                words = str(error).replace(folder, f"{options['revision']}:")
                raise BundleError(f"{variable} is {options['revision']!r}: {words}") from error

    def _of_repository(self, options: dict[str, Any], cache: Path, variable: str) -> dict[str, Any]:
        """Return the bundle of a directory of a repository at a revision."""
        mirror = sources.fetched(options["repository"], cache.parent / "sources")
        wanted = options["revision"] or "HEAD"
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            exported = Path(folder, "source")
            exported.mkdir()
            commit = sources.export_tree(
                mirror, wanted, options["subdirectory"], exported, variable
            )
            lock = exported / options["lock"] if options["lock"] else None
            try:
                changes = {"source": exported, "lock": lock}
                return self._of(self._bundle({**options, **changes}, cache, commit))
            except BundleError as error:
                # The folder is gone when somebody reads this.
                words = str(error).replace(folder, f"{commit[:12]}:")
                raise BundleError(words) from error

    def _bundle(self, options: dict[str, Any], cache: Path, commit: str | None = None) -> Bundle:
        """Read the inputs of a bundle, after its build steps."""
        if options["build"] and os.geteuid() == 0:
            display.warning(
                f"The steps of source.build of {options['name']} run as root, since Ansible does. "
                f"Run it as another user on the control node."
            )
        bundle = Bundle(options, cache, commit, run_steps=not self._task.check_mode)
        if bundle.steps_missing:
            display.warning(
                f"The steps of source.build of {options['name']} would run first, so the release "
                f"that follows is not the one that would be deployed."
            )
        return bundle

    def _of(self, bundle: Bundle) -> dict[str, Any]:
        """Return what is known of a bundle, built unless in check mode."""
        record = bundle.cached()
        if record is None and not self._task.check_mode:
            record = bundle.build()
        known = record or {"revision": None, "sha256": None, "unpacked_bytes": None}
        first_built = str(known["revision"] or "-dirty")
        return {
            "name": bundle.name,
            "id": bundle.id,
            "content": bundle.content,
            "archive": str(bundle.archive),
            "built": record is not None,
            "sha256": known["sha256"],
            "unpacked_bytes": known["unpacked_bytes"],
            "python": bundle.python,
            "architecture": bundle.architecture,
            # The same content may have been built from a changed working tree, and committed since.
            "revision": bundle.revision()
            if bundle.commit or first_built.endswith("-dirty")
            else first_built,
            "lock_hash": bundle.lock_hash,
            "built_by": known.get("built_by"),
            **({"contents": self._contents(bundle)} if self._task.check_mode else {}),
        }

    @staticmethod
    def _contents(bundle: Bundle) -> dict[str, dict[str, str]]:
        """What a preview compares with the live release: files' hashes, packages' versions."""
        return {
            "files": {
                f"app/{name}": hashlib.sha256(path.read_bytes()).hexdigest()
                for name, path in bundle.files.items()
            },
            "packages": pins_on(bundle.lock, bundle.python, bundle.architecture),
        }
