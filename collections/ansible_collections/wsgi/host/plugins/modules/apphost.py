#!/usr/bin/python
"""Puts the package that runs on a host in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apphost
short_description: Put the package that runs on a host in place
version_added: "0.1.0"
description:
  - Releases, handovers, health checks, data and copies of applications are the business of one Python package on the
    host, C(host/) of this repository. This installs it as C(/usr/local/lib/apphost/<version>), compiled, and has
    C(/usr/local/lib/apphost/current) lead there in one step.
  - The version is a digest of the content. If M(wsgi.host.preflight) has seen that it is there, no trip is made.
  - The previous version stays for commands that still run.
options:
  version:
    description: The digest; filled in by the action, not for users.
    type: str
  payload:
    description: The files; filled in by the action, not for users.
    type: str
attributes:
  check_mode:
    support: full
    description: Reports what would change, and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes, before and after.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: install | Install the programs of the host
  wsgi.host.apphost:
"""

RETURN = r"""
version:
  description: The version that is (or in check mode, would be) in place.
  type: str
  returned: always
"""

import base64
import json
import os
import shutil
import subprocess
import zlib
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment, files
from ansible_collections.wsgi.host.plugins.module_utils.apphost.installation import (
    PLACE,
    digest,
    installed,
)
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

# What the commands start with.
PYTHON = "/usr/bin/python3"
COMPILE = (PYTHON, "-IXutf8", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash")
TEMPORARY = ".new-"


def unpack(place: Path, version: str, content: dict[str, bytes]) -> None:
    """Write a version beside the others, compiled, complete or not at all."""
    for leftover in place.glob(TEMPORARY + "*"):
        shutil.rmtree(leftover)
    temporary = place / (TEMPORARY + version)
    for name, text in content.items():
        path = temporary / "apphost" / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(text)
        path.chmod(0o644)
    # The content never changes, so nobody has to compare times.
    subprocess.run(
        [*COMPILE, temporary],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    for path in [*sorted(temporary.rglob("*")), temporary]:
        files.sync(path)
    if (place / version).exists():
        # Somebody has changed a file of it.
        os.rename(place / version, place / f"{TEMPORARY}changed")
    os.rename(temporary, place / version)


def install(place: Path, version: str, content: dict[str, bytes]) -> None:
    """Have `current` lead to the version; keep the one before for commands that still run."""
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    before = os.path.basename(os.path.realpath(place / "current"))
    unpack(place, version, content)
    files.point(place / "current", Path(version))
    for other in place.iterdir():
        if other.name not in (version, before, "current"):
            shutil.rmtree(other)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"version": {"type": "str"}, "payload": {"type": "str"}},
        supports_check_mode=True,
    )
    if not module.params["payload"]:
        module.fail_json(msg="Nothing was handed over. Call this by its name, wsgi.host.apphost.")
    version = module.params["version"]
    packed = json.loads(zlib.decompress(base64.b64decode(module.params["payload"])))
    content = {name: text.encode() for name, text in packed.items()}
    if digest(content) != version:
        module.fail_json(msg=f"What arrived is not version {version}. Run the playbook again.")
    try:
        require_own(str(PLACE), itself=True)
    except ForeignPathError as error:
        module.fail_json(msg=str(error))
    before = installed()
    if before != version and not module.check_mode:
        try:
            install(PLACE, version, content)
        except subprocess.CalledProcessError as error:
            # compileall writes what is wrong to standard output.
            words = (error.stdout + error.stderr).decode(errors="replace").strip()
            module.fail_json(msg=f"{PYTHON} cannot compile {PLACE}/{version}: {words}")
    module.exit_json(
        changed=before != version,
        version=version,
        diff={
            "before": f"{PLACE}: {before or 'nothing'}\n",
            "after": f"{PLACE}: {version}\n",
        },
    )


if __name__ == "__main__":
    environment.apply()
    main()
