#!/usr/bin/env python3
"""`make collection` and `make sanity`: the roles, playbooks and plugins as one collection.

    tools/collection.py [build [--to FOLDER] | sanity [--test NAME]...]

A collection has roles, playbooks and plugins side by side; here the roles lie where people look for
them. `build` lays the repository's own files out as a collection in a temporary folder, has
ansible-galaxy pack it, and prints the archive's path. `sanity` has ansible-test look at the same
tree. docs/decisions/0078 says why it is done this way.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
ARCHIVES = ROOT / ".cache" / "collection"
SOURCE = "collections/ansible_collections/wsgi/host"
# What else belongs to it, each at the same place below the collection.
PARTS = ("playbooks", "roles", "docs", "LICENSE", "CHANGELOG.md", "requirements.yml")
# toll_app describes the application of this repository, which a collection does not carry; these
# pages are about the repository itself.
LEFT_OUT = (
    *("roles/toll_app/", "docs/screenshots/", "docs/comparison", "docs/BENCHMARKS.md"),
    *("docs/site/", "docs/CODE_MAP.md", "docs/GETTING_STARTED.md", "docs/PRODUCTION_SETUP.md"),
)
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")
# What ansible-test asks for and this collection does otherwise, by its line, and why.
ACCEPTED = {
    "missing-gplv3-license": "the licence is MIT",
    r"nonexistent-parameter-documented|(apt|deploy_lock)\.py:.*doc-required-mismatch": (
        "the options are those of the action plugin, which hands the module what it needs"
    ),
    r"plugins/(plugin_utils|action)/.*No module named '(packaging|cryptography)'": (
        "ansible-core brings packaging and cryptography; ansible-test takes them away"
    ),
    "ansible-bad-function|unexpected non-module shebang": (
        "a program of its own, which prints and exits"
    ),
    'disallowed-name: Disallowed name "_"': "`_` is what nobody reads",
    r"unused-import.*plugin_utils\.versions": "the import itself checks the versions",
    "raise AssertionError instead of: assert": "it tells a type checker, and holds by construction",
    "use-run-command-not-popen": "run_command would wait for the program",
    r"sandbox\.py:.*subprocess-run-check": "the value is among the options",
    "using-constant-test": "pylint does not know these attributes' types",
}


def listed(*folders: str) -> list[str]:
    """The files of the repository below some folders: no caches, and nothing that git ignores."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(set(done.stdout.split("\0")) - {""})
    return [name for name in names if (ROOT / name).exists() and not name.startswith(LEFT_OUT)]


def copy(name: str, place: Path) -> None:
    """Copy a file of the repository, or what a link in its place leads to."""
    source = ROOT / name
    if source.is_dir():
        # A link to a package, whose own files are listed where it is.
        target = source.resolve().relative_to(ROOT)
        for inner in listed(str(target)):
            copy(inner, place / Path(inner).relative_to(target))
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".md":
        depth = len(Path(SOURCE).parts)
        text = source.read_text(encoding="utf-8")
        # The page of the collection lies deeper here than in the collection.
        place.write_text(text.replace("../" * depth, "") if name.startswith(SOURCE) else text)
        return
    shutil.copy(source, place)


def lay_out(folder: Path) -> Path:
    """Lay the collection out below a folder, as Ansible finds it there, and return its place."""
    place = folder / "ansible_collections" / "wsgi" / "host"
    for name in listed(SOURCE):
        copy(name, place / Path(name).relative_to(SOURCE))
    for name in listed(*PARTS):
        copy(name, place / name)
    for page in place.rglob("*.md"):
        page.write_text(without_dead_links(page), encoding="utf-8")
    return place


def without_dead_links(page: Path) -> str:
    """The text of a page, in which links to what the collection has not are words alone."""

    def kept(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        path, _, _ = target.partition("#")
        if not path or ":" in path or (page.parent / path).exists():
            return match[0]
        return "" if image else words

    return LINK.sub(kept, page.read_text(encoding="utf-8"))


def build(to: Path) -> Path:
    """Pack the collection.

    Args:
        to: folder for the archive.

    Raises:
        SystemExit: ansible-galaxy could not.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = lay_out(Path(scratch))
        to = to.resolve()
        to.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [BIN / "ansible-galaxy", "collection", "build", "--force", "--output-path", str(to)],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
            env=plain(),
        )
    found = re.search(r"Created collection for \S+ at (\S+)", done.stdout)
    if done.returncode or not found:
        raise SystemExit(
            f"ansible-galaxy ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return Path(found[1])


def sanity(tests: Sequence[str]) -> int:
    """Have ansible-test look at the collection; say what it found, and return 1 if that is new.

    Args:
        tests: by name; all that need no container if there are none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = lay_out(Path(scratch))
        # It wants to know which files are the collection's.
        subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
        subprocess.run(["git", "add", "--all", "--force"], cwd=place, check=True)
        chosen = [option for name in tests for option in ("--test", name)]
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        command = [BIN / "ansible-test", "sanity", "--local", "--python", python, "--lint", *chosen]
        found, whole = Path(scratch, "found"), False
        with (
            found.open("w") as output,
            subprocess.Popen(
                [str(word) for word in command],
                cwd=place,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                env=with_home(),
            ) as process,
        ):
            assert process.stderr is not None
            for said in process.stderr:
                if said.startswith(("Running", "FATAL")):
                    print(said, end="", flush=True)
                whole = whole or "sanity test(s) listed below" in said
        new, accepted = sorted_out(found.read_text().splitlines())
    for reason, count in accepted.items():
        print(f"accepted: {count:3} {reason}")
    for line in new:
        print(line)
    print(f"{len(new)} found, {sum(accepted.values())} accepted")
    # It ends with 1 for what is accepted as well; without its summary it broke off.
    return 1 if new or (process.returncode and not whole) else 0


def sorted_out(lines: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """What is new among the lines of ansible-test, and how many are accepted for which reason."""
    new: list[str] = []
    accepted: Counter[str] = Counter()
    for line in lines:
        for pattern, reason in ACCEPTED.items():
            if re.search(pattern, line):
                accepted[reason] += 1
                break
        else:
            new.append(line)
    return new, accepted


def with_home() -> dict[str, str]:
    """The environment with a home of its own, where ansible-test keeps its environments.

    It would download a program that installs pip into them; Python brings one.
    """
    home = ARCHIVES / "home"
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = Path(*package_of("ansible_test"), "_internal", "python_requirements.py").read_text()
    for version in re.findall(r"\bpip='([0-9.]+)'", wanted):
        program = cache / f"get_pip_{version.replace('.', '_')}.py"
        program.write_text("import ensurepip\n\nensurepip.bootstrap()\n")
    # Where pip finds packages says the person's own configuration.
    settings = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return {**plain(), "HOME": str(home), "XDG_CONFIG_HOME": settings}


def package_of(name: str) -> Iterable[str]:
    """Where a package of this Python is."""
    spec = importlib.util.find_spec(name)
    return (spec and spec.submodule_search_locations) or ()


def plain() -> dict[str, str]:
    """The environment without settings of this project, which a collection is used without."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}"}


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("build", "sanity"), default="build")
    parser.add_argument("--to", type=Path, default=ARCHIVES, help="folder for the archive")
    parser.add_argument("--test", action="append", help="a test of ansible-test sanity")
    options = parser.parse_args(arguments)
    if options.what == "sanity":
        return sanity(options.test or ())
    print(build(options.to))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
