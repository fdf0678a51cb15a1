"""Base images for test hosts, made from the distribution's own packages and cached by content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine import CACHE, LABEL_PROJECT, Engine, TestHostsError, locked

RECIPES = Path(__file__).resolve().parent / "images"


@dataclass(frozen=True)
class Recipe:
    """How an image is made: `packages` of `suite` and `setup`, or `containerfile` over `base`."""

    name: str
    suite: str = ""
    base: str = ""


# What a cloud image holds; nothing that a role should install.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# mmdebstrap's options, to which the hooks that need a path are added.
OPTIONS = (
    "--variant=minbase",
    f"--include={','.join(PACKAGES)}",
    # A host whose lists are empty but new would make apt's cache_valid_time skip the update and
    # then find no package.
    "--skip=cleanup/apt/lists",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=force-unsafe-io",
)
CHANGES = (
    'CMD=["/usr/local/sbin/start-host"]',
    # systemd halts on this one.
    "STOPSIGNAL=SIGRTMIN+3",
    f"LABEL={LABEL_PROJECT}=image",
)
RECIPES_BY_NAME = {
    recipe.name: recipe
    for recipe in (
        Recipe("debian12", suite="bookworm"),
        Recipe("debian13", suite="trixie"),
        Recipe("acme", base="debian13"),
    )
}


@dataclass(frozen=True)
class Target:
    """One package index that apt is configured with, as `apt-get indextargets` shows it."""

    uri: str
    suite: str
    codename: str
    component: str
    origin: str


def parse_targets(text: str) -> list[Target]:
    """Read `apt-get indextargets --format` output, one target per line with `|` between fields."""
    targets = []
    for line in text.splitlines():
        created_by, uri, suite, codename, component, origin = line.split("|")
        if created_by == "Packages":
            targets.append(Target(uri.rstrip("/"), suite, codename, component, origin))
    return targets


def sources(
    targets: Iterable[Target],
    machine_codename: str,
    suite: str,
    read: Callable[[str], str],
) -> list[str]:
    """Lines of a sources.list for `suite`, with the mirrors that this machine itself uses.

    Args:
        targets: what apt is configured with here.
        machine_codename: this machine's release, for instance "bookworm".
        suite: the release that is wanted.
        read: returns a file's text, for mirrors that are given as a list in a file.

    Raises:
        TestHostsError: no mirror of Debian is configured.
    """
    mirrors: dict[str, str] = {}
    for target in targets:
        if target.component != "main" or target.origin not in (
            "Debian",
            "$(ORIGIN)",
            "",
        ):
            continue
        names = {target.suite, target.codename}
        for suffix in ("", "-updates", "-security"):
            if f"{machine_codename}{suffix}" in names or f"stable{suffix}" in names:
                mirrors.setdefault(suffix, plain_mirror(target.uri, read))
    if "" not in mirrors:
        raise TestHostsError(
            "apt on this machine knows no Debian mirror to make an image from. "
            "Set TESTHOSTS_MIRROR (and TESTHOSTS_SECURITY_MIRROR) to one."
        )
    return [
        f"deb {mirrors[suffix]} {suite}{suffix} main"
        for suffix in ("", "-updates", "-security")
        if suffix in mirrors
    ]


def plain_mirror(uri: str, read: Callable[[str], str]) -> str:
    """A mirror's address; Debian's cloud images name it in a file (`mirror+file:`)."""
    if uri.startswith("mirror+file:"):
        path = "/" + uri.removeprefix("mirror+file:").lstrip("/")
        for line in read(path).splitlines():
            if words := line.split("#")[0].split():
                return words[0].rstrip("/")
        raise TestHostsError(f"{path} names no mirror.")
    return uri


@cache
def machine_sources(suite: str) -> list[str]:
    """`sources` for this machine, or from the variables that override its configuration.

    Raises:
        TestHostsError: no mirror of Debian is configured.
    """
    if mirror := os.environ.get("TESTHOSTS_MIRROR"):
        lines = [f"deb {mirror} {suite} main", f"deb {mirror} {suite}-updates main"]
        if security := os.environ.get("TESTHOSTS_SECURITY_MIRROR"):
            lines.append(f"deb {security} {suite}-security main")
        return lines
    fields = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", fields],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    release = Path("/etc/os-release").read_text()
    codename = re.search(r'^VERSION_CODENAME="?([\w.-]+)', release, re.MULTILINE)
    return sources(
        parse_targets(listed),
        codename[1] if codename else "",
        suite,
        lambda path: Path(path).read_text(),
    )


def content_hash(recipe: Recipe, given: Mapping[str, object], directory: Path = RECIPES) -> str:
    """Twelve hexadecimal digits that change with anything that the image is made from.

    Args:
        recipe: the image's recipe.
        given: what else it depends on: options, sources, the base image's name.
        directory: where `debian/` or `<name>/` holds the recipe's files.
    """
    digest = hashlib.sha256(json.dumps([recipe.name, given], sort_keys=True).encode())
    folder = directory / (recipe.name if recipe.base else "debian")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            digest.update(f"{name} {path.stat().st_mode & 0o111:o} ".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def reference(name: str) -> str:
    """The full name of an image as its recipe stands now, made or not.

    Raises:
        TestHostsError: there is no such recipe, or no mirror.
    """
    recipe = RECIPES_BY_NAME.get(name)
    if recipe is None:
        raise TestHostsError(f"No image {name!r}: there are {', '.join(sorted(RECIPES_BY_NAME))}.")
    given: dict[str, object]
    if recipe.base:
        given = {"base": reference(recipe.base)}
    else:
        given = {
            "options": OPTIONS,
            "changes": CHANGES,
            "sources": machine_sources(recipe.suite),
        }
    return f"localhost/testhost-{name}:{content_hash(recipe, given)}"


def ensure(engine: Engine, name: str, say: Callable[[str], None], fresh: bool = False) -> str:
    """Make an image unless it is there, and remove what its recipe made before.

    Args:
        engine: the engine.
        name: the image.
        say: tells the user a line.
        fresh: make it anew, for instance to have today's packages; what it is built on stays.

    Returns:
        Its full name, tag included.

    Raises:
        TestHostsError: it could not be made.
    """
    full = reference(name)
    recipe = RECIPES_BY_NAME[name]
    base = ensure(engine, recipe.base, say) if recipe.base else ""
    with locked(f"image-{name}"):
        if not fresh and engine.podman("image", "exists", full, check=False).returncode == 0:
            return full
        start = time.monotonic()
        say(f"image {name}: making it")
        if base:
            _build(engine, recipe, base, full)
        else:
            _bootstrap(engine, recipe, full)
        _remove_old(engine, full)
        say(f"image {name}: made in {time.monotonic() - start:.0f} s")
    return full


def ensure_all(
    engine: Engine, names: Iterable[str], say: Callable[[str], None], fresh: bool = False
) -> list[str]:
    """`ensure` for several images, side by side; those that others are built on come first.

    Returns:
        Their full names, tags included.

    Raises:
        TestHostsError: one could not be made.
    """
    wanted = sorted(set(names), key=lambda name: (bool(RECIPES_BY_NAME[name].base), name))
    made: list[str] = []
    with ThreadPoolExecutor() as pool:
        for derived in (False, True):
            group = [name for name in wanted if bool(RECIPES_BY_NAME[name].base) is derived]
            made += pool.map(lambda name: ensure(engine, name, say, fresh), group)
    return made


def _run(argv: list[str], what: str) -> None:
    done = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise TestHostsError(f"{what} failed (exit code {done.returncode}):\n{tail}")


def _bootstrap(engine: Engine, recipe: Recipe, full: str) -> None:
    folder = RECIPES / "debian"
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{recipe.name}-") as temporary:
        archive = Path(temporary, "root.tar")
        _run(
            engine.as_root(
                [
                    "mmdebstrap",
                    *OPTIONS,
                    # Unlike copy-in it leaves owner and mode of existing directories alone.
                    f"""--customize-hook=cp -R --no-preserve=ownership '{folder}/files/.' "$1/\"""",
                    f"""--customize-hook=chroot "$1" sh -eu < '{folder}/setup'""",
                    recipe.suite,
                    str(archive),
                    *machine_sources(recipe.suite),
                ]
            ),
            "mmdebstrap",
        )
        engine.podman(
            "import",
            *(f"--change={change}" for change in CHANGES),
            str(archive),
            full,
        )
        # Through sudo it belongs to root, and the folder could not be removed.
        subprocess.run(engine.as_root(["rm", "-f", str(archive)]), check=True)


def _build(engine: Engine, recipe: Recipe, base: str, full: str) -> None:
    folder = RECIPES / recipe.name
    _run(
        engine.command(
            "build",
            "--network=host",
            # A cached layer would hold on to packages of the day that it was made.
            "--no-cache",
            # A build does not read them from containers.conf.
            *(f"--ulimit={limit}" for limit in engine.ulimits),
            "--build-arg",
            f"BASE={base}",
            f"--label={LABEL_PROJECT}=image",
            f"--tag={full}",
            str(folder),
        ),
        "podman build",
    )


def _made(engine: Engine) -> list[str]:
    """What names the images that were made here: of a replaced one, its id."""
    listed = engine.podman(
        "images",
        f"--filter=label={LABEL_PROJECT}=image",
        "--format={{.Repository}}:{{.Tag}} {{.ID}}",
    )
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [identity if name.startswith("<none>") else name for name, identity in pairs]


def _remove_old(engine: Engine, full: str) -> None:
    repository = full.rpartition(":")[0]
    for name in _made(engine):
        if name != full and (name.startswith(f"{repository}:") or ":" not in name):
            # Refused while a host runs on it.
            engine.podman("rmi", name, check=False)


def remove_all(engine: Engine) -> list[str]:
    """Remove every image that was made here, except those that a host still needs.

    Returns:
        The names of those that went.
    """
    return [
        name
        # An image goes only after those that are built on it.
        for name in sorted(_made(engine))
        if engine.podman("rmi", name, check=False).returncode == 0
    ]
