"""Where a bundle comes from if not from the working tree: a git revision, or one built before."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .addresses import without_login

SHA256 = re.compile(r"[0-9a-f]{64}")
# As much of a manifest as a host and this project rely on.
NEEDED = ("format", "id", "name", "python", "architecture", "unpacked_bytes", "lock_sha256")


class SourceError(Exception):
    """There is no such source; the message names the variable, its value and the remedy."""


def git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a directory; raise SourceError where it is not installed."""
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            # Nobody is there to answer a question.
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except OSError as error:
        raise SourceError(f"git cannot be run: {error.strerror}. Install it") from error


def words(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git complained of, in one line."""
    return (
        " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
    )


def export(source: Path, revision: str, target: Path, variable: str) -> str:
    """Write what a directory of a repository held at a revision to `target`; return the commit.

    Args:
        source: the directory as it is in the working tree.
        revision: anything that git resolves to a commit.
        target: where the files go.
        variable: what the operator set, for messages.

    Raises SourceError if there is no such revision, or no such directory in it.
    """
    prefix = git(source, "rev-parse", "--show-toplevel", "--show-prefix")
    if prefix.returncode:
        raise SourceError(
            f"{variable} is {revision!r}, but {source} is in no git repository ({words(prefix)}). "
            f"Work in a checkout, or leave {variable} out"
        )
    named = git(
        source, "rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}"
    )
    if named.returncode:
        raise SourceError(
            f"{variable} is {revision!r}, which the repository of {source} does not know. Fetch it "
            f"(git fetch --tags), or name a commit, a tag or a branch that `git log` shows"
        )
    commit = named.stdout.decode().strip()
    # The second line is empty for the top itself.
    top, folder, *_ = prefix.stdout.decode().split("\n")
    _unpack(Path(top), commit, folder.rstrip("/"), target, f"{variable} is {revision!r}")
    return commit


def fetched(repository: str, cache: Path) -> Path:
    """Return a mirror of a repository, as it is now.

    Args:
        repository: anything that git can clone: an address, or a path.
        cache: a directory of mirrors.

    Raises SourceError where it is not reached. A password in the address is not in the message.
    """
    shown = without_login(repository)
    if repository.startswith("-"):
        raise SourceError(f"source.repository is {shown!r}. Name an address or a path")
    mirror = cache / hashlib.sha256(repository.encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    if not (mirror / "HEAD").exists():
        git(cache, "init", "--quiet", "--bare", str(mirror))
    # Whatever was there before: tags that moved, branches that are gone.
    refs = [
        "+HEAD:refs/remotes/origin/HEAD",
        "+refs/heads/*:refs/heads/*",
        "+refs/tags/*:refs/tags/*",
    ]
    done = git(mirror, "fetch", "--quiet", "--prune", "--update-head-ok", "--", repository, *refs)
    if done.returncode:
        said = without_login(words(done))
        raise SourceError(
            f"source.repository is {shown!r}, which cannot be fetched: {said}. Check that `git "
            f"ls-remote` can read it from the control node without a prompt"
        )
    git(mirror, "symbolic-ref", "HEAD", "refs/remotes/origin/HEAD")
    return mirror


def export_tree(mirror: Path, revision: str, folder: str, target: Path, variable: str) -> str:
    """Write what a directory of a mirror held at a revision to `target`; return the commit.

    Args:
        folder: below the root of the repository; empty for all of it.
        variable: what the operator set, for messages.

    Raises SourceError if there is no such revision, or no such directory in it.
    """
    for name in (revision, f"refs/remotes/origin/{revision}"):
        named = git(
            mirror, "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}"
        )
        if named.returncode == 0:
            break
    else:
        raise SourceError(
            f"{variable} is {revision!r}, which the repository does not have. Push it, or name a "
            f"commit, a tag or a branch that `git ls-remote` shows"
        )
    commit = named.stdout.decode().strip()
    _unpack(mirror, commit, folder.strip("/"), target, f"{variable} is {revision!r}")
    return commit


def _unpack(repository: Path, commit: str, folder: str, target: Path, subject: str) -> None:
    # The directory becomes the root of the archive.
    tree = f"{commit}:{folder}" if folder else commit
    packed = git(repository, "archive", "--format=tar", tree)
    if packed.returncode:
        raise SourceError(
            f"{subject} (commit {commit[:12]}), which has no directory {folder}/ "
            f"({words(packed)}). Name a later revision"
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        for member in archive:
            path = target / member.name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                path.parent.mkdir(parents=True, exist_ok=True)
                file = archive.extractfile(member)
                assert file is not None
                path.write_bytes(file.read())
                if member.mode & stat.S_IXUSR:
                    path.chmod(0o755)
            elif member.issym():
                # Refused with all others, and with a message, where the files are gathered.
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(member.linkname)


@dataclass(frozen=True)
class Built:
    """A bundle that was built before.

    Attributes:
        archive: its path.
        sha256: of the archive, checked.
        manifest: that the archive begins with.
    """

    archive: Path
    sha256: str
    manifest: dict[str, Any]


def read_manifest(archive: Path) -> dict[str, Any]:
    """Return the manifest that an archive begins with; raise SourceError if it is no bundle."""
    try:
        with tarfile.open(archive, "r|gz") as members:
            first = members.next()
            file = members.extractfile(first) if first and first.name == "manifest.json" else None
            manifest = json.loads(file.read()) if file else None
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise SourceError(f"it cannot be read as a bundle ({error})") from error
    if not isinstance(manifest, dict) or any(key not in manifest for key in NEEDED):
        raise SourceError("it does not start with a bundle's manifest")
    return manifest


def expected_hash(archive: Path) -> str | None:
    """Return the hash that the build wrote beside the archive, None if there is none."""
    record = archive.with_name(archive.name.removesuffix(".tar.gz") + ".json")
    try:
        found = json.loads(record.read_text(encoding="utf-8")).get("sha256")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def find_built(
    place: Path,
    *,
    name: str,
    python: str,
    architecture: str,
    sha256: str,
    variable: str,
    hash_variable: str,
) -> Built:
    """Return the bundle at `place`, or the one in that directory that fits the host.

    Args:
        place: an archive, or a directory of archives for hosts that differ.
        name: what the bundle has to be called.
        python: version of the host, for example 3.13.
        architecture: of the host.
        sha256: what the archive's hash has to be. Empty: as the record beside the archive says.
        variable: what the operator set to `place`, for messages.
        hash_variable: the same for `sha256`.

    Raises SourceError if it is not there, is another one, or is not what its hash says.
    """
    wanted = f"{name} for Python {python} on {architecture}"
    set_to = f"{variable} is {str(place)!r}"
    if sha256 and not SHA256.fullmatch(sha256):
        raise SourceError(
            f"{hash_variable} is {sha256!r}, which is not a SHA-256. Use its 64 hexadecimal "
            f"digits, as `sha256sum` prints them"
        )
    if not place.exists():
        raise SourceError(
            f"{set_to}, which does not exist on the control node. Use an archive that was built "
            f"before, for instance one of .cache/bundles/, or leave {variable} out to build one"
        )
    archives = sorted(place.glob("*.tar.gz")) if place.is_dir() else [place]
    fitting: list[tuple[Path, dict[str, Any]]] = []
    others: list[str] = []
    for archive in archives:
        try:
            manifest = read_manifest(archive)
        except SourceError as error:
            if place.is_dir():
                continue
            # The hash tells more than the message of a damaged archive.
            known = sha256 or expected_hash(archive)
            if known and known != digest(archive):
                check_hash(archive, sha256, set_to, hash_variable)
            raise SourceError(f"{set_to}, but {error}. Build the bundle anew") from error
        is_for = (manifest["name"], manifest["python"], manifest["architecture"])
        if is_for == (name, python, architecture):
            fitting.append((archive, manifest))
        else:
            others.append("{} for Python {} on {}".format(*is_for))
    if not fitting:
        there = ", ".join(dict.fromkeys(others)) or "no bundle"
        raise SourceError(
            f"{set_to}, which holds {there}, and this host needs {wanted}. Build that one as well "
            f"and put both into one directory for {variable}, or limit the run to fitting hosts"
        )
    if len(fitting) > 1:
        listed = ", ".join(archive.name for archive, _ in fitting)
        raise SourceError(
            f"{set_to}, which holds more than one bundle of {wanted}: {listed}. Name one of them"
        )
    [(archive, manifest)] = fitting
    return Built(archive, check_hash(archive, sha256, set_to, hash_variable), manifest)


def digest(archive: Path) -> str:
    """Return the SHA-256 of a file."""
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(archive: Path, sha256: str, set_to: str, hash_variable: str) -> str:
    """Return the archive's hash; raise SourceError if it is another one, or nothing tells it."""
    expected = sha256 or expected_hash(archive)
    if not expected:
        record = archive.name.removesuffix(".tar.gz") + ".json"
        raise SourceError(
            f"{set_to}, and its expected hash is not known. Set {hash_variable} to the "
            f"SHA-256 of {archive.name} as its builder reported it, or put the record {record} "
            f"that the build wrote beside it"
        )
    found = digest(archive)
    if found != expected:
        says = hash_variable if sha256 else "the record beside it"
        raise SourceError(
            f"{set_to}, whose SHA-256 is {found} in place of {expected}, which {says} says. It is "
            f"not the bundle that was built: fetch it again, or find out who changed it"
        )
    return found
