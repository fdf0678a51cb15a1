"""Install a bundle as an immutable release and make it the current one."""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import fcntl
import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import (
    environment,
    records,
    times,
)
from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import digest, held, point
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

DOCUMENTATION = r"""
---
module: release
short_description: Install a bundle as an immutable release and make it the current one
description:
  - Ships an archive that M(wsgi.host.bundle) built, if the host does not have that release yet,
    and unpacks it to C(<root>/releases/<id>), a virtual environment of its own with the
    application in C(app/) and the packages' commands in C(bin/), compiled, owned by root and
    readable by all.
  - The archive's hash and each file's hash are verified. A release appears under its name only
    when it is complete and on disk, so that an interrupted run leaves nothing that counts.
  - O(activate) points the symbolic link C(<root>/current) at the release, in one step.
  - A release that is there is not looked at again, except with O(verify).
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
  keep_left:
    description:
      - Return as RV(left) that somebody has rolled back from the release, or has left it with
        C(toll-app releases leave). A release that a failed deploy has left may be tried again, and is
        not meant.
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
author:
  - The maintainers of this project
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
left:
  description:
    - With O(keep_left), the record of this release if somebody has left it on purpose, or of one of
      the same content for another Python. Null if there is none, if this release is the current one,
      or if only one for another Python was left and the current one has its content.
  returned: success
  type: dict
releases:
  description: Ids of the releases on the host, this one included.
  returned: success
  type: list
  elements: str
"""

FORMAT = 1
MANIFEST = "manifest.json"
TEMPORARY = ".new-"
# As the application writes them into addresses.
STATIC_DIGITS = 8
# Compiled files are about as large as their sources.
SPACE_FACTOR = 2.2
SPACE_MARGIN = 20 * 1024 * 1024
# More than that nobody reads.
PREVIEW_LINES = 60
# The lock of apt and its like, which dpkg takes as well unless it is told that its caller has it.
PACKAGES_LOCK = "/var/lib/dpkg/lock-frontend"
PACKAGES_LOCK_SECONDS = 300
LOCK_SECONDS = 60
CONTROL = """\
Package: {name}
Version: 1
Architecture: all
Maintainer: Ansible <root@localhost>
Priority: optional
Section: misc
Protected: yes
Depends: {depends}
Description: Python that the releases in {root} run on
 Made by Ansible (wsgi.host.release), so that the interpreter of a release is not removed while the
 release may still be started. A deploy lets go what is no longer needed.
"""


class ReleaseError(Exception):
    """The release cannot be installed; the message names the cause and the remedy."""


def find_python(version: str) -> str:
    """Return the path of the host's interpreter of that version, outside any environment."""
    if "{}.{}".format(*sys.version_info) == version:
        beside = os.path.join(sys.base_prefix, "bin", "python" + version)
        return beside if os.access(beside, os.X_OK) else os.path.realpath(sys.executable)
    found = shutil.which("python" + version)
    if found:
        return os.path.realpath(found)
    raise ReleaseError(
        "The bundle is built for Python {}, which this host does not have (the module runs on "
        "{}.{}). Install it, or build the bundle for this host's version.".format(
            version, *sys.version_info
        )
    )


def free_bytes(path: str) -> int:
    """Return the free bytes of the file system that holds path, or will hold it."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def check_space(root: str, unpacked: int | None) -> None:
    """Raise ReleaseError if the release will not fit."""
    needed = int((unpacked or 0) * SPACE_FACTOR) + SPACE_MARGIN
    free = free_bytes(root)
    if free < needed:
        raise ReleaseError(
            f"{root} has {free >> 20} MiB free, and the release needs {needed >> 20} MiB. Remove "
            f"releases that are no longer needed, or enlarge the file system."
        )


def read_manifest(path: str) -> dict[str, Any] | None:
    """Return the manifest of an installed release, or None if there is no complete release."""
    try:
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
        complete = "archive_sha256" in manifest and os.path.lexists(path + "/bin/python")
        return manifest if complete else None
    except (OSError, ValueError, TypeError):
        return None


def can_be_used(path: str) -> bool:
    """Whether a release is complete, and its interpreter is on the host."""
    return read_manifest(path) is not None and os.path.exists(os.path.join(path, "bin/python"))


def member_path(name: str, python: str) -> str:
    """Return where a file of the archive goes in the release; raise ReleaseError if nowhere.

    Only plain relative paths below app/ and site-packages/ have a place, so that no archive can
    write outside its release or replace its interpreter.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or len(parts) < 2:
        raise ReleaseError(f"The archive holds an unsafe path: {name!r}. Build the bundle anew.")
    if parts[0] == "app":
        return name
    if parts[0] == "site-packages":
        return f"lib/python{python}/{name}"
    raise ReleaseError(f"The archive holds an unexpected path: {name!r}. Build the bundle anew.")


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the content of a regular file in the archive."""
    file = archive.extractfile(member)
    if file is None:
        raise ReleaseError(f"The archive holds something not a file: {member.name!r}.")
    return file.read()


def unpack(archive: str, target: str, python: str) -> dict[str, Any]:
    """Unpack the archive below target, checking each file's hash; return its manifest."""
    # Not "r|gz", which reads only the first member of a gzip file.
    with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as members:
        entries = iter(members)
        first = next(entries, None)
        if first is None or first.name != MANIFEST or not first.isreg():
            raise ReleaseError("The archive does not begin with a manifest: it is not a bundle.")
        manifest = json.loads(read_member(members, first))
        if manifest.get("format") != FORMAT:
            raise ReleaseError(
                f"The bundle's format is {manifest.get('format')}, and this module knows "
                f"{FORMAT}. Build the bundle with the same version of the project."
            )
        missing = dict(manifest["files"])
        made = {target}
        for member in entries:
            if not member.isreg():
                raise ReleaseError(f"The archive holds something not a file: {member.name!r}.")
            path = os.path.join(target, member_path(member.name, python))
            content = read_member(members, member)
            if hashlib.sha256(content).hexdigest() != missing.pop(member.name, None):
                raise ReleaseError(f"{member.name} in the archive is not what the manifest says.")
            folder = os.path.dirname(path)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            with open(path, "xb") as file:
                file.write(content)
    if missing:
        raise ReleaseError(f"The archive lacks {sorted(missing)[0]} of its manifest.")
    return manifest


def make_environment(target: str, interpreter: str, python: str) -> None:
    """Make target a virtual environment.

    This is what `python -m venv --without-pip --symlinks` makes, without the activation scripts,
    which would hold the temporary path.
    """
    os.makedirs(f"{target}/bin")
    os.makedirs(f"{target}/lib/python{python}/site-packages", exist_ok=True)
    os.symlink("lib", f"{target}/lib64")
    os.symlink(interpreter, f"{target}/bin/python")
    for name in ("python3", "python" + python):
        os.symlink("python", f"{target}/bin/{name}")
    with open(f"{target}/pyvenv.cfg", "w", encoding="utf-8") as file:
        file.write(
            f"home = {os.path.dirname(interpreter)}\n"
            f"include-system-site-packages = false\n"
            f"version = {python}\n"
            f"executable = {interpreter}\n"
        )


def make_scripts(target: str, final: str, python: str) -> None:
    """Write the packages' commands to bin/, as an installer would, for the release's Python."""
    packages = f"{target}/lib/python{python}/site-packages"
    for path in glob.glob(f"{packages}/*.dist-info/entry_points.txt"):
        parser = configparser.RawConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(path, encoding="utf-8")
        commands = parser.items("console_scripts") if parser.has_section("console_scripts") else []
        for name, reference in commands:
            match = re.fullmatch(r"([\w.]+)\s*:\s*(\w+)([\w.]*)(\s*\[.*\])?", reference)
            if match is None or not re.fullmatch(r"[\w.-]+", name) or name.startswith("python"):
                raise ReleaseError(f"{os.path.basename(os.path.dirname(path))}: bad command {name}")
            script = f"{target}/bin/{name}"
            with open(script, "w", encoding="utf-8") as file:
                file.write(
                    f"#!{final}/bin/python\n"
                    f"import sys\n"
                    f"from {match[1]} import {match[2]}\n\n"
                    f"sys.exit({match[2]}{match[3]}())\n"
                )


def compiled_path(path: str, python: str) -> str:
    """Return where Python keeps a source file compiled."""
    folder, name = os.path.split(path)
    tag = "cpython-" + python.replace(".", "")
    return os.path.join(folder, "__pycache__", f"{name[: -len('.py')]}.{tag}.pyc")


def sources(manifest: dict[str, Any], top: str) -> list[str]:
    """Return the Python files of the archive below app or site-packages."""
    return [name for name in manifest["files"] if name.startswith(top) and name.endswith(".py")]


def reuse_compiled(target: str, releases: str, manifest: dict[str, Any]) -> set[str]:
    """Copy what other releases have compiled of the same packages; return whose names.

    Compiling is most of the work of an installation, and packages seldom change. A copy is taken
    only if it still is what was compiled then. Python puts the path right when it loads it.
    """
    python = manifest["python"]
    wanted = {name: manifest["files"][name] for name in sources(manifest, "site-packages/")}
    found: set[str] = set()
    for entry in sorted(os.listdir(releases)):
        path = os.path.join(releases, entry)
        other = None if entry.startswith(TEMPORARY) else read_manifest(path)
        if not other or other.get("python") != python or not wanted.keys() - found:
            continue
        compiled = other.get("compiled", {})
        for name in wanted.keys() - found:
            if name not in compiled or other["files"].get(name) != wanted[name]:
                continue
            if compiled[name] is None:
                found.add(name)
                continue
            place = compiled_path(member_path(name, python), python)
            try:
                with open(os.path.join(path, place), "rb") as file:
                    content = file.read()
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() != compiled[name]:
                continue
            copy = os.path.join(target, place)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            with open(copy, "wb") as file:
                file.write(content)
            found.add(name)
    return found


def compiled_hashes(target: str, manifest: dict[str, Any]) -> dict[str, str | None]:
    """Return the hash of each compiled file, by the name of its source in the archive.

    None for a source that cannot be compiled: packages may ship files for other Python versions.
    """
    python = manifest["python"]
    found: dict[str, str | None] = {}
    for name in sources(manifest, ""):
        path = os.path.join(target, compiled_path(member_path(name, python), python))
        try:
            with open(path, "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
        except FileNotFoundError:
            found[name] = None
    return found


def compile_files(target: str, final: str, manifest: dict[str, Any], ready: set[str]) -> None:
    """Compile the Python files, but for those that are ready.

    Raises ReleaseError if one of the application has no valid syntax. Unchecked: the files never
    change, so Python need not look at the sources at each start.
    """
    python = manifest["python"]
    options = [
        *("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", target, "-p", final),
    ]
    command = [f"{target}/bin/python", "-I", "-m", "compileall", *options]
    if os.path.isdir(f"{target}/app"):
        done = subprocess.run([*command, f"{target}/app"], capture_output=True, text=True)
        if done.returncode != 0:
            words = (done.stdout + done.stderr).strip().replace(target + "/", "")
            raise ReleaseError(f"The application cannot be compiled by Python {python}:\n{words}")
    packages = [
        os.path.join(target, member_path(name, python))
        for name in sources(manifest, "site-packages/")
        if name not in ready
    ]
    if not packages:
        return
    # A file that cannot be compiled is no error here: packages may ship files for other Python
    # versions, which nobody imports. That the compiler does not come to its end is one.
    to_the_end = [f"{target}/bin/python", "-I", "-c", "import compileall; compileall.main()"]
    done = subprocess.run(
        [*to_the_end, *options, "-i", "-"],
        input="\n".join(packages),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ReleaseError(
            f"The packages were not compiled (status {done.returncode}). Look for a lack of memory "
            f"in the host's journal, then run again.\n{done.stderr.strip()[-1000:]}"
        )


def set_permissions(target: str) -> None:
    """Give all below target to root, readable by all and writable by root, whatever the umask."""
    scripts = os.path.join(target, "bin")
    for folder, _directories, files in os.walk(target):
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o755)
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chown(path, 0, 0)
                os.chmod(path, 0o755 if folder == scripts else 0o644)


def sync(path: str) -> None:
    """Write the file system that holds path to disk; raise OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Python has no os.syncfs, and one fsync per file costs seconds.
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", path)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: str) -> None:
    """Make a directory that is root's and readable by all, unless it is there."""
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chown(path, 0, 0)
        os.chmod(path, 0o755)


def locked(releases: str) -> AbstractContextManager[None]:
    """Hold the lock of the releases; raise ReleaseError if another run holds it for a minute."""
    # Nobody else may hold it and so keep deploys from happening.
    busy = ReleaseError(
        f"Another run has been installing a release in {releases} for a minute. Wait for it to "
        f"end, then run again."
    )
    return held(Path(releases, ".lock"), LOCK_SECONDS, busy)


def install(releases: str, bundle: dict[str, Any], archive: str, interpreter: str) -> None:
    """Make the release from the archive, under a temporary name until it is complete."""
    arrived = digest(Path(archive))
    if arrived != bundle["sha256"]:
        raise ReleaseError(
            f"The archive arrived with SHA-256 {arrived} in place of {bundle['sha256']}. Run again."
        )
    final = os.path.join(releases, bundle["id"])
    # The lock makes any of these a leftover.
    for name in os.listdir(releases):
        if name.startswith(TEMPORARY):
            shutil.rmtree(os.path.join(releases, name))
    target = tempfile.mkdtemp(prefix=f"{TEMPORARY}{bundle['id']}-", dir=releases)
    try:
        manifest = unpack(archive, target, bundle["python"])
        for key in ("id", "python", "architecture"):
            if manifest[key] != bundle[key]:
                raise ReleaseError(
                    f"The archive's {key} is {manifest[key]!r} in place of {bundle[key]!r}."
                )
        make_environment(target, interpreter, bundle["python"])
        make_scripts(target, final, bundle["python"])
        ready = reuse_compiled(target, releases, manifest)
        compile_files(target, final, manifest, ready)
        manifest["compiled"] = compiled_hashes(target, manifest)
        manifest["archive_sha256"] = bundle["sha256"]
        manifest["installed_at"] = times.stamp()
        with open(os.path.join(target, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.write("\n")
        set_permissions(target)
        sync(target)
        if os.path.lexists(final):
            # Somebody has removed a part of it, or its interpreter.
            os.rename(final, tempfile.mkdtemp(prefix=TEMPORARY, dir=releases) + "/damaged")
        os.rename(target, final)
        sync(releases)
    finally:
        for name in os.listdir(releases):
            if name.startswith(TEMPORARY):
                shutil.rmtree(os.path.join(releases, name), ignore_errors=True)


def published_names(manifest: dict[str, Any], static: str) -> dict[str, str]:
    """Return where each static file of a release goes below <root>/static, by its own path."""
    above = static.strip("/") + "/"
    return {
        name: f"{digest[:STATIC_DIGITS]}/{name[len(above) :]}"
        for name, digest in manifest["files"].items()
        if static and name.startswith(above)
    }


def missing_static(root: str, manifest: dict[str, Any], static: str) -> list[str]:
    """Return the static files of a release that are not below <root>/static yet."""
    return sorted(
        name
        for name in published_names(manifest, static).values()
        if not os.path.isfile(os.path.join(root, "static", name))
    )


def publish(root: str, path: str, manifest: dict[str, Any], static: str) -> None:
    """Copy the static files of a release to <root>/static, each complete under its name or absent.

    Must run under the lock. Files that none of the releases holds are removed.
    """
    target = os.path.join(root, "static")
    for name, place in published_names(manifest, static).items():
        final = os.path.join(target, place)
        if os.path.isfile(final):
            continue
        folder = target
        make_directory(folder)
        for part in place.split("/")[:-1]:
            folder = os.path.join(folder, part)
            make_directory(folder)
        temporary = os.path.join(target, TEMPORARY + place.split("/")[0])
        shutil.copyfile(os.path.join(path, name), temporary)
        os.chmod(temporary, 0o644)
        # Never renamed before its content is on the disk: it is kept for a year by those who get it.
        with open(temporary, "rb") as copied:
            os.fsync(copied.fileno())
        os.rename(temporary, final)
    releases = os.path.join(root, "releases")
    wanted = set()
    for entry in os.listdir(releases):
        each = read_manifest(os.path.join(releases, entry))
        wanted |= set(published_names(each, static).values()) if each else set()
    for folder, _directories, files in os.walk(target, topdown=False):
        for name in files:
            if os.path.relpath(os.path.join(folder, name), target) not in wanted:
                os.unlink(os.path.join(folder, name))
        if folder != target and not os.listdir(folder):
            os.rmdir(folder)


def differences(path: str, manifest: dict[str, Any]) -> list[str]:
    """Return what differs between an installed release and its manifest, one line each."""
    expected = {
        member_path(name, manifest["python"]): digest for name, digest in manifest["files"].items()
    }
    compiled = {
        compiled_path(member_path(name, manifest["python"]), manifest["python"]): digest
        for name, digest in manifest.get("compiled", {}).items()
    }
    found: list[str] = []
    for top in ("app", f"lib/python{manifest['python']}/site-packages"):
        for folder, _directories, files in os.walk(os.path.join(path, top)):
            for name in files:
                relative = os.path.relpath(os.path.join(folder, name), path)
                digest = expected.pop(relative, compiled.get(relative))
                # Python compiles what was not, and one that is missing harms nobody.
                if digest is None and os.path.basename(folder) == "__pycache__":
                    continue
                if digest is None:
                    found.append(f"added: {relative}")
                    continue
                with open(os.path.join(folder, name), "rb") as file:
                    if hashlib.sha256(file.read()).hexdigest() != digest:
                        found.append(f"changed: {relative}")
    return sorted(found + [f"missing: {name}" for name in expected])


def current_release(root: str) -> str | None:
    """Return the id that `current` points at, or None."""
    link = os.path.join(root, "current")
    try:
        return os.path.basename(os.readlink(link))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(
            f"{link} is not a symbolic link. Move what is there away, then run again."
        ) from error


def activate(root: str, name: str) -> None:
    """Point `current` at a release in one step."""
    point(Path(root, "current"), Path("releases", name))


def read_record(root: str, name: str) -> dict[str, Any] | None:
    """Return the record of a release, None if there is none that can be read."""
    record = records.read(Path(root, "state"), name)
    return record if record.get("id") == name else None


def write_record(root: str, record: dict[str, Any]) -> None:
    """Write the record of a release, complete or not at all."""
    path = records.path_of(Path(root, "state"), record["id"])
    make_directory(str(path.parent.parent))
    make_directory(str(path.parent))
    records.write(path, record)


def left_on_purpose(
    root: str, name: str, content: str, current: str | None
) -> dict[str, Any] | None:
    """Return the record of the release, or of one of its content, that somebody has left.

    None without one, and where the current release is what was asked for.
    """
    own = read_record(root, name)
    if name == current or (own and records.is_decision(own)):
        return own if name != current else None
    folder = os.path.join(root, "state", "releases")
    files = os.listdir(folder) if os.path.isdir(folder) else []
    found = [read_record(root, file[: -len(".json")]) for file in files if file.endswith(".json")]
    same = [each for each in found if each and (each.get("content") or each["id"]) == content]
    if any(each["id"] == current for each in same):
        return None
    return next((each for each in same if records.is_decision(each)), None)


def wanted_record(found: dict[str, Any] | None, bundle: dict[str, Any], by: str) -> dict[str, Any]:
    """Return what the record of a release that is shipped has to be.

    That somebody has left it stays until it is live again, which shipping it is not.
    """
    if found is not None and records.is_decision(found):
        return found
    if found is not None:
        return {key: value for key, value in found.items() if not key.startswith("left_")}
    return {
        "schema": 1,
        "id": bundle["id"],
        "content": bundle.get("content") or bundle["id"],
        "revision": bundle.get("revision"),
        "lock_sha256": bundle.get("lock_hash"),
        "python": bundle["python"],
        "architecture": bundle["architecture"],
        "archive_sha256": bundle["sha256"],
        "built_by": bundle.get("built_by"),
        "shipped_by": by,
        "shipped_at": times.stamp(),
        "verdict": "unjudged",
    }


def packages_of(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the version of each package of an installed release."""
    found = (
        re.match(r"site-packages/([^/]+)-([^-/]+)\.dist-info/METADATA$", name)
        for name in manifest["files"]
    )
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


def preview(
    bundle: dict[str, Any], before: str | None, manifest: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what a release that would be installed has other than the current one, in words.

    Args:
        bundle: with its `contents`, where the control node knows them.
        before: the id of the current release.
        manifest: what is in that.
    """
    name = f"release {bundle['id']} ({bundle.get('revision') or 'no revision'})"
    contents = bundle.get("contents")
    if not contents:
        return {"preview": [f"{name} would be installed"]}
    files, packages = contents["files"], contents["packages"]
    if manifest is None:
        return {
            "preview": [
                f"{name} would be installed: {len(files)} files of the application, "
                f"{len(packages)} packages"
            ]
        }
    there = {key: value for key, value in manifest["files"].items() if key.startswith("app/")}
    had = packages_of(manifest)
    lines = [f"{name} would follow {before}"]
    for package in sorted({*packages, *had}):
        old, new = had.get(package), packages.get(package)
        if old != new:
            lines.append(f"package {package}: {old or 'none'} -> {new or 'none'}")
    changed = [path for path in sorted({*files, *there}) if files.get(path) != there.get(path)]
    for path in changed:
        what = "changed" if path in files and path in there else "new" if path in files else "gone"
        lines.append(f"{path}: {what}")
    if len(lines) == 1:
        lines.append("the same files and packages")
    more = len(lines) - PREVIEW_LINES
    shown = [*lines[:PREVIEW_LINES], *([f"... and {more} more"] if more > 0 else [])]
    return {"preview": shown, "changed_files": changed}


def installed(releases: str, also: str) -> list[str]:
    """Return the ids of the complete releases, and of the one that is to be one."""
    names = os.listdir(releases) if os.path.isdir(releases) else []
    complete = {name for name in names if read_manifest(os.path.join(releases, name)) is not None}
    return sorted(complete | {also})


def described_packages(names: list[str]) -> dict[str, list[str]]:
    """Return what each installed package of these depends on, by name; those not installed lack."""
    shown = subprocess.run(
        [
            "dpkg-query",
            "--show",
            "--showformat=${Package}|${db:Status-Abbrev}|${Depends}\\n",
            *names,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in shown.stdout.splitlines():
        name, status, depends = line.split("|", 2)
        # What is wanted, then what there is: "ii", "hi" for a package on hold, "rc" for one removed.
        if status[1:2] == "i":
            found[name] = [each.strip() for each in depends.split(",") if each.strip()]
    return found


def needed_pythons(root: str, also: str, current: str | None, *, each: bool) -> set[str]:
    """Return the Python versions of releases that may be started: of each one, or the current."""
    releases = os.path.join(root, "releases")
    names = os.listdir(releases) if each and os.path.isdir(releases) else [current or ""]
    manifests = [read_manifest(os.path.join(releases, name)) for name in names if name]
    return {also, *(str(manifest["python"]) for manifest in manifests if manifest)}


def missing_interpreters(
    package: str, pythons: set[str], *, exact: bool
) -> tuple[list[str] | None, list[str] | None]:
    """Return what a package depends on, None without it, and what it should depend on instead.

    The latter is None if it may stay as it is. Unless exact, it may keep more than is needed.
    """
    if not package or shutil.which("dpkg-query") is None:
        return None, None
    known = described_packages([package, *(f"python{version}" for version in sorted(pythons))])
    kept = known.pop(package, None)
    wanted = sorted(known)
    enough = wanted == kept if exact else set(wanted) <= set(kept or [])
    return kept, None if enough or not wanted else wanted


@contextlib.contextmanager
def packages_locked() -> Iterator[None]:
    """Hold the lock of the package manager; raise ReleaseError if another process keeps it."""
    with open(PACKAGES_LOCK, "a", encoding="utf-8") as file:
        end = time.monotonic() + PACKAGES_LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > end:
                    raise ReleaseError(
                        f"Another process has been installing packages for "
                        f"{PACKAGES_LOCK_SECONDS} s ({PACKAGES_LOCK} is locked). Wait for it to "
                        f"end, then run again."
                    ) from None
                time.sleep(0.2)
        yield


def keep_interpreters(package: str, depends: list[str], root: str) -> None:
    """Install a package that depends on these, and on nothing else."""
    with tempfile.TemporaryDirectory(prefix="interpreters-") as folder:
        os.makedirs(f"{folder}/tree/DEBIAN")
        for path in (f"{folder}/tree", f"{folder}/tree/DEBIAN"):
            os.chmod(path, 0o755)
        with open(f"{folder}/tree/DEBIAN/control", "w", encoding="utf-8") as file:
            file.write(CONTROL.format(name=package, depends=", ".join(depends), root=root))
        build = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", f"{folder}/tree"]
        commands = [[*build, f"{folder}/{package}.deb"]]
        commands.append(["dpkg", "--install", f"{folder}/{package}.deb"])
        with packages_locked():
            for command in commands:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    env={
                        **os.environ,
                        # Where dpkg expects its helpers.
                        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
                        "DPKG_FRONTEND_LOCKED": "1",
                    },
                )
                if done.returncode:
                    words = (done.stdout + done.stderr).strip()[-1000:]
                    raise ReleaseError(
                        f"The package {package}, which keeps {', '.join(depends)} on this host, "
                        f"cannot be installed. If packages are half configured, run "
                        f"`dpkg --configure -a`, then run again.\n{words}"
                    )


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what the options ask for; return the result."""
    root, bundle = module.params["root"], module.params["bundle"]
    archive = module.params["archive"]
    releases = os.path.join(root, "releases")
    path = os.path.join(releases, bundle["id"])
    for owned in (root, releases, os.path.join(root, "static"), os.path.join(root, "state")):
        require_own(owned, itself=True)
    before = current_release(root)
    manifest = read_manifest(path)
    install_it = not can_be_used(path) or (manifest or {}).get("id") != bundle["id"]
    if install_it:
        interpreter = find_python(bundle["python"])
        check_space(root, bundle["unpacked_bytes"])
        if not module.check_mode:
            if archive is None:
                return {"changed": False, "archive_needed": True}
            make_directory(root)
            make_directory(releases)
            with locked(releases):
                # Another run may have installed it while this one waited.
                if not can_be_used(path):
                    install(releases, bundle, archive, interpreter)
    elif manifest is not None and module.params["verify"]:
        found = differences(path, manifest)
        if found:
            more = f"\n... and {len(found) - 20} more" if len(found) > 20 else ""
            listed = "\n".join(found[:20])
            raise ReleaseError(
                f"{path} is not what was installed:\n{listed}{more}\n"
                f"Find out who changed it. To install it anew, remove its {MANIFEST} and run again."
            )
    static = module.params["static"]
    manifest = read_manifest(path)
    # What cannot be told in check mode goes with the installation.
    published = missing_static(root, manifest, static) if manifest and static else []
    if published and manifest and not module.check_mode:
        with locked(releases):
            publish(root, path, manifest, static)
        sync(root)
    package = module.params["interpreter_package"]
    pythons = needed_pythons(root, bundle["python"], before, each=module.params["records"])
    if module.params["activate"] and not module.params["records"]:
        pythons = {bundle["python"]}
    # What is kept for nobody goes with an installation, so that a second run changes nothing.
    kept, keep = missing_interpreters(package, pythons, exact=install_it)
    if keep and not module.check_mode:
        keep_interpreters(package, keep, root)
    record, record_it = None, False
    if module.params["records"]:
        record = read_record(root, bundle["id"])
        wanted = wanted_record(record, bundle, module.params["shipped_by"])
        record_it = wanted != record
        if record_it and not module.check_mode:
            write_record(root, wanted)
            record = wanted
    content = bundle.get("content") or bundle["id"]
    left = (
        left_on_purpose(root, bundle["id"], content, before) if module.params["keep_left"] else None
    )
    activate_it = module.params["activate"] and before != bundle["id"]
    if activate_it and not module.check_mode:
        activate(root, bundle["id"])
    after = bundle["id"] if activate_it else before

    def state(installed: bool, current: str | None, kept: list[str] | None) -> str:
        lines = [f"release {bundle['id']}: {'installed' if installed else 'absent'}"]
        lines.append(f"current: {current or 'none'}")
        if package:
            lines.append(f"interpreters kept: {', '.join(kept or []) or 'none'}")
        return "\n".join([*lines, ""])

    foreseen = {}
    if module.check_mode and install_it:
        current = read_manifest(os.path.join(releases, before)) if before else None
        foreseen = preview(bundle, before, current)

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
        "left": left,
        "kept_interpreters": keep or kept,
        "releases": installed(releases, bundle["id"]),
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
            "keep_left": {"type": "bool", "default": False},
            "interpreter_package": {"type": "str", "default": ""},
            "archive": {"type": "path"},
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
