"""Ship a bundle to a host that lacks it, and have the module of the same name install it.

The options are documented in plugins/modules/release.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import tempfile
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.module_utils.releases.arriving import ALL
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import packages_digest
from ansible_collections.wsgi.host.plugins.plugin_utils.control import whoami
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules

# What only the record of a release tells; older bundles lack some of it.
TOLD = ("content", "revision", "lock_hash", "built_by", "contents")
NEEDED = ("name", "id", "python", "architecture", "archive", "built", "sha256", "unpacked_bytes")
# What the action sets itself.
OWN = ("archive", "partial", "beginning", "shipped_by")
MODULE = "wsgi.host.release"
# Up to this size the beginning of an archive goes along with the question whether it is needed.
ALONG_BYTES = 1 << 20
# What was built within this time has hardly been shipped yet.
NEW_SECONDS = 3600


class ActionModule(KeptModules):
    """The action behind wsgi.host.release: one trip if the host has the release.

    One trip, too, for a release that was just built and changes the application alone.
    """

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's result, after shipping what the module asks for."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for own in OWN:
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
        if not self._task.check_mode and _is_new(bundle):
            arguments = self._with_beginning(arguments, bundle)
        outcome = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        # What is sent grows each time, so this comes to its end.
        while needed := outcome.pop("needed", ""):
            if "packages_digest" not in arguments["bundle"] and needed != ALL:
                arguments = self._with_beginning(arguments, bundle)
            else:
                arguments = self._with_file(arguments, bundle, partial=needed != ALL)
            outcome = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        result.update(outcome)
        result.pop("invocation", None)
        return result

    def _with_beginning(self, arguments: dict[str, Any], bundle: dict[str, Any]) -> dict[str, Any]:
        """The arguments with which packages there are, and with the rest if it is small."""
        content, manifest = beginning_of(self._checked_archive(bundle))
        changed = {
            **arguments,
            "bundle": {**arguments["bundle"], "packages_digest": packages_digest(manifest)},
        }
        if len(content) <= ALONG_BYTES:
            changed["beginning"] = base64.b64encode(content).decode()
        return changed

    def _with_file(
        self, arguments: dict[str, Any], bundle: dict[str, Any], *, partial: bool
    ) -> dict[str, Any]:
        """The arguments with the archive, or its beginning, in a file of the host."""
        archive = self._checked_archive(bundle)
        directory = self._make_tmp_path()
        remote = self._connection._shell.join_path(directory, "bundle.tar.gz")
        with tempfile.NamedTemporaryFile(prefix="wsgi-host-") as part:
            if partial:
                part.write(beginning_of(archive)[0])
                part.flush()
            self._transfer_file(part.name if partial else str(archive), remote)
        self._fixup_perms2((directory, remote))
        changed = {**arguments, "archive": remote, "partial": partial}
        changed.pop("beginning", None)
        return changed

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


def _is_new(bundle: dict[str, Any]) -> bool:
    try:
        return time.time() - Path(bundle["archive"]).stat().st_mtime < NEW_SECONDS
    except OSError:
        # What is missing is told when it is needed.
        return False


def beginning_of(archive: Path) -> tuple[bytes, dict[str, Any]]:
    """Return an archive up to where its packages begin, and its manifest.

    The packages are another member of the gzip file (see plugin_utils/bundles.py). An archive of
    one member has no other beginning than all of it.
    """
    content, plain = bytearray(), bytearray()
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    with archive.open("rb") as file:
        while not unpacking.eof and (chunk := file.read(1 << 16)):
            plain += unpacking.decompress(chunk)
            content += chunk
    del content[len(content) - len(unpacking.unused_data) :]
    with tarfile.open(fileobj=BytesIO(plain), mode="r|") as members:
        first = members.next()
        manifest = members.extractfile(first) if first else None
        if manifest is None:
            raise AnsibleActionFail(f"{archive} does not start with a manifest: build it again")
        return bytes(content), json.loads(manifest.read())
