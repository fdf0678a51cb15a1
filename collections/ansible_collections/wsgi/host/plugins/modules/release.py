"""Install a bundle as an immutable release and make it the current one."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release
short_description: Install a bundle as an immutable release and make it the current one
description:
  - Ships an archive that M(wsgi.host.bundle) built, if the host does not have that release yet,
    and unpacks it to C(<root>/releases/<id>), a virtual environment of its own with the
    application in C(app/) and the packages' commands in C(bin/), compiled, owned by root and
    readable by all.
  - Where a release of the host has the very same packages, they are copied from it, and only the
    rest of the archive is sent.
  - The archive's hash and each file's hash are verified. A release appears under its name only
    when it is complete and on disk, so that an interrupted run leaves nothing that counts.
  - O(activate) points the symbolic link C(<root>/current) at the release, in one step.
  - O(root) has to be root's alone, with all directories above it; root runs what is in it.
  - A release that is there is not looked at again, except with O(verify), and for its interpreter.
    One whose interpreter is gone is installed anew, with the one that the host has now.
  - O(static) names files of the application that a web server serves. They are copied to
    C(<root>/static/<hash>/<file>), with the first 8 digits of each file's SHA-256. Such an address
    has one content for ever, also while two releases answer side by side or after one goes back,
    so it may be kept for ever. Files that no release holds any more are removed with the next
    installation.
options:
  root:
    description: Directory of the releases and of C(current).
    type: path
    required: true
  bundle:
    description: What M(wsgi.host.bundle) returned as RV(wsgi.host.bundle#module:bundle).
    type: dict
    required: true
  activate:
    description: Make the release the current one.
    type: bool
    default: true
  verify:
    description:
      - Compare every file of a release that is there with its manifest, and fail if one differs,
        is missing or was added.
    type: bool
    default: false
  static:
    description: Directory of static files within the release, for example C(app/shop/static).
    type: str
    default: ""
  records:
    description:
      - Keep a record of each release in C(<root>/state/releases/<id>.json), for what becomes of it
        after it was shipped. It begins as V(unjudged); whoever hands over to the release writes the
        verdict. That somebody has rolled back from it stays until it is live again.
    type: bool
    default: false
  keep_excluded:
    description:
      - Return as RV(excluded) that somebody has rolled back from the release, or has excluded it with
        C(toll-app releases exclude). One that a failed deploy excluded may be tried again, and does not
        count.
    type: bool
    default: false
  interpreter_package:
    description:
      - Name of a package that this module makes and installs on Debian and what derives from it. It
        holds nothing but a dependency on the interpreters that the releases link to, so that neither
        an upgrade of the system nor C(apt autoremove) takes one away, and removing it by hand needs
        a deliberate yes.
      - Interpreters of all releases are kept with O(records), since each may be gone back to;
        otherwise only that of the current one. One that is no longer needed is let go by the next
        installation; C(apt autoremove) may remove it then.
      - Without a name, on other systems, and for an interpreter that no package owns, nothing is done.
    type: str
    default: ""
  archive:
    description: Path of the archive on the host. The action plugin sets it; leave it out.
    type: path
  partial:
    description:
      - Whether O(archive) is without the packages. The action plugin sets it; leave it out.
    type: bool
    default: false
  beginning:
    description:
      - The archive without the packages, in Base64. The action plugin sets it; leave it out.
    type: str
    default: ""
  shipped_by:
    description: Who ships, for the record. The action plugin sets it; leave it out.
    type: str
    default: ""
notes:
  - The host needs the bundle's Python version, with nothing but its standard library.
  - Contexts of SELinux are those that the files inherit.
attributes:
  check_mode:
    support: full
    description: Says whether the release would be installed or made current.
  diff_mode:
    support: full
    description: Shows the current release before and after.
seealso:
  - module: wsgi.host.bundle
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: release | Install the release
  wsgi.host.release:
    root: /opt/toll-app
    bundle: "{{ shop_bundle.bundle }}"
    activate: false

- name: release | Find out whether somebody has edited the live release
  wsgi.host.release:
    root: /opt/toll-app
    bundle: "{{ shop_bundle.bundle }}"
    verify: true
  check_mode: true
"""

RETURN = r"""
id:
  description: Id of the release.
  returned: success
  type: str
path:
  description: Directory of the release.
  returned: success
  type: str
installed:
  description: Whether the release was (or in check mode, would be) installed by this task.
  returned: success
  type: bool
activated:
  description: Whether C(current) was (or in check mode, would be) moved by this task.
  returned: success
  type: bool
published:
  description: Static files that were (or in check mode, would be) copied, below C(<root>/static).
  returned: success
  type: list
  elements: str
current:
  description: Id of the release that was current before, null if there was none.
  returned: success
  type: str
preview:
  description: >-
    In check mode, what the release that would be installed has other than the current one, a line for each
    package and file.
  returned: in check mode, if it would be installed
  type: list
  elements: str
changed_files:
  description: Files of the application that differ from the current release, if it is known which.
  returned: as RV(preview)
  type: list
  elements: str
record:
  description: The release's record with O(records), as it is (or in check mode, was) on the host.
  returned: success
  type: dict
kept_interpreters:
  description: >-
    Packages that O(interpreter_package) depends on (or in check mode, would depend on), null without
    that package.
  returned: success
  type: list
  elements: str
excluded:
  description:
    - With O(keep_excluded), the record of this release if somebody has excluded it on purpose, or of one of
      the same content for another Python. Null if there is none, if this release is the current one,
      or if only one for another Python was excluded and the current one has its content.
  returned: success
  type: dict
releases:
  description: Ids of the releases on the host, this one included.
  returned: success
  type: list
  elements: str
"""

import os
import tarfile
import zlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases import (
    arriving,
    current,
    disk,
    environments,
    installing,
    interpreters,
    manifests,
    previewing,
    records,
    static,
    verifying,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what the options ask for; return the result."""
    root, bundle = module.params["root"], module.params["bundle"]
    releases = os.path.join(root, "releases")
    path = os.path.join(releases, bundle["id"])
    for owned in (root, releases, os.path.join(root, "static"), os.path.join(root, "state")):
        require_own(owned, itself=True)
    before = current.current_release(root)
    manifest = manifests.read_manifest(path)
    install_it = not manifests.can_be_used(path) or (manifest or {}).get("id") != bundle["id"]
    if install_it:
        interpreter = environments.find_python(bundle["python"])
        disk.check_space(root, bundle["unpacked_bytes"])
        if not module.check_mode:
            needed = arriving.lacking(releases, module.params)
            if needed:
                return {"changed": False, "needed": needed}
            disk.make_directory(root)
            disk.make_directory(releases)
            with installing.locked(releases):
                # Another run may have installed it while this one waited.
                again = not manifests.can_be_used(path) and arriving.arrive(
                    releases, module.params, interpreter
                )
            if again:
                return {"changed": False, "needed": arriving.ALL}
    elif manifest is not None and module.params["verify"]:
        found = verifying.differences(path, manifest)
        if found:
            more = f"\n... and {len(found) - 20} more" if len(found) > 20 else ""
            listed = "\n".join(found[:20])
            raise ReleaseError(
                f"{path} is not what was installed:\n{listed}{more}\n"
                f"Find out who changed it. To install it anew, remove its {manifests.MANIFEST} and run "
                f"again."
            )
    directory = module.params["static"]
    manifest = manifests.read_manifest(path)
    # What cannot be told in check mode goes with the installation.
    published = static.missing_static(root, manifest, directory) if manifest and directory else []
    if published and manifest and not module.check_mode:
        with installing.locked(releases):
            static.publish(root, path, manifest, directory)
        disk.sync(root)
    package = module.params["interpreter_package"]
    pythons = interpreters.needed_pythons(
        root, bundle["python"], before, each=module.params["records"]
    )
    if module.params["activate"] and not module.params["records"]:
        pythons = {bundle["python"]}
    # What is kept for nobody goes with an installation, so that a second run changes nothing.
    kept, keep = interpreters.missing_interpreters(package, pythons, exact=install_it)
    if keep and not module.check_mode:
        interpreters.keep_interpreters(package, keep, root)
    record, record_it = None, False
    if module.params["records"]:
        record = records.read_record(root, bundle["id"])
        wanted = records.wanted_record(record, bundle, module.params["shipped_by"])
        record_it = wanted != record
        if record_it and not module.check_mode:
            records.write_record(root, wanted)
            record = wanted
    content = bundle.get("content") or bundle["id"]
    left = (
        records.excluded_on_purpose(root, bundle["id"], content, before)
        if module.params["keep_excluded"]
        else None
    )
    activate_it = module.params["activate"] and before != bundle["id"]
    if activate_it and not module.check_mode:
        current.activate(root, bundle["id"])
    after = bundle["id"] if activate_it else before

    def state(installed: bool, live: str | None, kept: list[str] | None) -> str:
        lines = [f"release {bundle['id']}: {'installed' if installed else 'absent'}"]
        lines.append(f"current: {live or 'none'}")
        if package:
            lines.append(f"interpreters kept: {', '.join(kept or []) or 'none'}")
        return "\n".join([*lines, ""])

    foreseen = {}
    if module.check_mode and install_it:
        live = manifests.read_manifest(os.path.join(releases, before)) if before else None
        foreseen = previewing.preview(bundle, before, live)

    return {
        **foreseen,
        "changed": bool(install_it or activate_it or published or record_it or keep),
        "id": bundle["id"],
        "path": path,
        "installed": install_it,
        "activated": activate_it,
        "published": published,
        "current": before,
        "record": record,
        "excluded": left,
        "kept_interpreters": keep or kept,
        "releases": manifests.installed(releases, bundle["id"]),
        "diff": {
            "before_header": root,
            "after_header": root,
            "before": state(not install_it, before, kept),
            "after": state(True, after, keep or kept),
        },
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "bundle": {"type": "dict", "required": True},
            "activate": {"type": "bool", "default": True},
            "verify": {"type": "bool", "default": False},
            "static": {"type": "str", "default": ""},
            "records": {"type": "bool", "default": False},
            "keep_excluded": {"type": "bool", "default": False},
            "interpreter_package": {"type": "str", "default": ""},
            "archive": {"type": "path"},
            "partial": {"type": "bool", "default": False},
            # Not secret, and nothing that a log should hold.
            "beginning": {"type": "str", "default": "", "no_log": True},
            "shipped_by": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (ReleaseError, ForeignPathError) as error:
        module.fail_json(msg=str(error))
    except (OSError, tarfile.TarError, zlib.error, EOFError, ValueError, KeyError) as error:
        root = module.params["root"]
        module.fail_json(msg=f"The release cannot be installed in {root}: {error!r}")
    module.exit_json(**result)


if __name__ == "__main__":
    environment.apply()
    main()
