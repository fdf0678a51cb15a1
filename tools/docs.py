#!/usr/bin/env python3
"""`make docs`: the guides, the reference and the decisions as a site that needs no network.

    tools/docs.py [--to FOLDER]

The pages are the repository's Markdown, in the order of docs/site/navigation.yml. They are laid out
in a temporary folder as they lie here, so that their links lead where they lead on a forge; the
plugins' pages come from their documentation, by antsibull-docs. Sphinx builds with warnings as
errors: a link to nothing fails. docs/decisions/0091 says why it is done this way.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import collection
import guides
import yaml

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
CONFIGURATION = ROOT / "docs" / "site"
SITE = ROOT / ".cache" / "site"
FIRST, PLUGINS, LIST = "index.md", "plugins", "index.md"
LINK = re.compile(r"(!?\[[^]]*\]\()([^)\s]+)(\))")
IMAGE = re.compile(r"(<img\b[^>]*?src=\")([^\"]+)(\")")
# What loads something, in a page, a style sheet or a script.
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"']?(?:https?:)?//[^\"'\s>]+"
    r"|<link\b(?=[^>]*?rel=[\"']?(?:stylesheet|icon|preload|preconnect|manifest))[^>]*?"
    r"href=[\"']?(?:https?:)?//[^\"'\s>]+"
    r"|(?:@import\s+|url\()[\"']?(?:https?:)?//[^\"')\s]+",
    re.I,
)
WORDS = {
    guides.RUN: "Run as written by {tests}.",
    guides.REHEARSED_BY: "Rehearsed by {tests}.",
    guides.CHECKED: "Not run here; a test checks that the playbooks, variables and targets exist.",
    guides.NOT_RUN: "Not run by a test: {why}.",
    guides.UNKNOWN: "Not run by a test.",
}


class SiteError(Exception):
    """The site could not be built; what the programs said has been shown or is in the message."""


def navigation() -> dict[str, Any]:
    """What the site has, as docs/site/navigation.yml says it."""
    read: dict[str, Any] = yaml.safe_load((CONFIGURATION / "navigation.yml").read_text())
    return read


def tracked() -> list[str]:
    """The Markdown files of the repository."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})


def pages_of(entry: str, files: list[str]) -> list[str]:
    """The pages that an entry of the navigation stands for."""
    if entry.endswith(".md"):
        return [entry]
    return [name for name in files if name.startswith(f"{entry}/")]


def chosen(nav: Mapping[str, Any], files: list[str]) -> list[str]:
    """Every page of the site that is a file of the repository, in its order."""
    entries = [entry for section in nav["sections"] for entry in section["pages"]]
    found = [page for entry in entries if entry != PLUGINS for page in pages_of(entry, files)]
    return [nav["first"], *found]


# Pages --------------------------------------------------------------------------------------------


def with_states(text: str) -> str:
    """A page in which each block of commands says whether a test runs it."""
    for block in reversed(list(guides.blocks(text))):
        tests = " and ".join(f"<code>{each}</code>" for each in block.tests)
        words = WORDS[block.state].format(tests=tests, why=block.why)
        kind = block.state.replace(" ", "-")
        note = f'\n\n{block.indent}<p class="commands {kind}">{words}</p>\n'
        text = text[: block.end] + note + text[block.end :]
    return text


def with_places(text: str) -> str:
    """A page in which the tables that are generated can be styled: they are wide."""

    def name(match: re.Match[str]) -> str:
        # A long name breaks after its parts.
        parts = re.sub(r"([._])", r"\1<wbr>", match[1])
        return f'| <code class="literal">{parts}</code> |'

    def table(match: re.Match[str]) -> str:
        named = re.sub(r"^\| `([^`]+)` \|", name, match[2], flags=re.M)
        return f'<div class="variables">\n\n{named}\n\n</div>'

    return re.sub(r"<!-- (variables|description) -->\n(.*?)\n<!-- /\1 -->", table, text, flags=re.S)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """A page with its prose changed, and its blocks of code as they are."""
    parts, at = [], 0
    for match in guides.FENCE.finditer(text):
        parts += [change(text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, change(text[at:])])


def relinked(page: str, text: str, pages: Mapping[str, str]) -> tuple[str, set[str]]:
    """A page whose links lead to what the site has, and the other files that they lead to.

    Args:
        page: its path in the repository.
        text: of the page.
        pages: where each page and each folder of the repository lies on the site.

    Returns:
        The text, and paths of files that have to be laid out beside it.
    """
    files: set[str] = set()
    here = Path(pages[page]).parent

    def lead(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        path, mark, heading = target.partition("#")
        if ":" in path or not path:
            return match[0]
        name = os.path.normpath(Path(page).parent / path)
        if name in pages:
            return f"{before}{os.path.relpath(pages[name], here)}{mark}{heading}{after}"
        if not (ROOT / name).is_file():
            # A folder of sources: the page names it, and the site has no page for it.
            return re.sub(r"^!?\[(.*)\]\($", r"\1", before) if before.endswith("](") else match[0]
        files.add(name)
        return f"{before}{os.path.relpath(name, here)}{after}"

    changed = outside_code(text, lambda prose: IMAGE.sub(lead, LINK.sub(lead, prose)))
    drawn = "In Mermaid's notation, which forges draw:\n\n```text"
    return changed.replace("```mermaid", drawn), files


def title_of(page: str) -> str:
    """The heading of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(r"^# (.*)$", text, re.M)
    if not found:
        raise SiteError(f"{page} has no heading of level 1")
    return found[1]


def tree(caption: str, entries: list[str], hidden: bool = True) -> str:
    """A table of contents for Sphinx."""
    options = [*([":hidden:"] if hidden else []), *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", ":maxdepth: 1", *options, "", *entries, "```", ""])


def entry_of(entry: str, pages: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """A line of a table of contents: a page, with a title of its own if it has one."""
    page = f"/{pages.get(entry, f'{entry}/index')}"
    return f"{titles[entry]} <{page}>" if entry in titles else page


def lay_out(folder: Path) -> None:
    """Write the source of the site below a folder."""
    nav, files = navigation(), tracked()
    pages = {page: page for page in chosen(nav, files)}
    pages[nav["first"]] = FIRST
    pages |= {name: f"{name}/{LIST}" for name in nav["folders"]}
    beside: set[str] = set()
    for page in chosen(nav, files):
        text = with_places(with_states((ROOT / page).read_text(encoding="utf-8")))
        text, needed = relinked(page, text, pages)
        beside |= needed
        if page == nav["first"]:
            text += "".join(
                tree(
                    section["title"],
                    [entry_of(entry, pages, nav["titles"]) for entry in section["pages"]],
                )
                for section in nav["sections"]
            )
        write(folder / pages[page], text)
    for name, about in nav["folders"].items():
        inner = [f"/{page}" for page in pages_of(name, files)]
        text = f"# {about['title']}\n\n{about['about']}\n{tree('', inner, hidden=False)}"
        write(folder / name / LIST, text)
    for name in sorted(beside):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def write(path: Path, text: str) -> None:
    """Write a file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def lay_out_plugins(folder: Path, scratch: Path) -> None:
    """Write a page for each plugin, from its documentation."""
    place = collection.lay_out(scratch)
    # The roles' pages are their READMEs, whose tables come from the argument specifications.
    shutil.rmtree(place / "roles")
    target = folder / PLUGINS
    target.mkdir(mode=0o700)
    run(
        [
            BIN / "antsibull-docs", "collection", "--use-current", "--squash-hierarchy",
            "--fail-on-error", "--no-breadcrumbs", "--dest-dir", target, "wsgi.host",
        ],
        scratch,
        {"ANSIBLE_COLLECTIONS_PATH": str(scratch)},
    )  # fmt: skip
    texts = {page: page.read_text(encoding="utf-8") for page in target.glob("*.rst")}
    labels = set(re.findall(r"^\.\. _(.+):$", "\n".join(texts.values()), re.M))
    for page, text in texts.items():
        page.write_text(with_own_links(without_galaxy(text), labels), encoding="utf-8")


def with_own_links(text: str, labels: set[str]) -> str:
    """A page of a plugin in which links to Ansible's own documentation are words alone."""

    def kept(match: re.Match[str]) -> str:
        return match[0] if match[2] in labels else match[1]

    text = re.sub(r":ref:`([^`<]+?)\s*<([^`>]+)>`", kept, text)
    text = re.sub(
        r":ref:`(?:action_plugins|callback_plugins|ansible_configuration_settings)`",
        "Ansible's documentation",
        text,
    )
    return re.sub(r":ans(?:plugin|opt|retval):`(ansible\.[^`#]+)#[^`]*`", r":literal:`\1`", text)


def without_galaxy(text: str) -> str:
    """A page of a plugin without what only a published collection has."""
    text = re.sub(
        r"^\.\. Collection note\n.*?(?=^\.\. version_added$|\Z)", "", text, flags=re.M | re.S
    )
    # The theme has a table of contents of its own.
    text = re.sub(r"^\.\. contents::\n(?:   .*\n)+", "", text, flags=re.M)
    text = text.replace("Wsgi.Host\n=========\n", "Plugins\n=======\n")
    text = re.sub(r"^Collection links\n~+\n.*\Z", "", text, flags=re.M | re.S)
    return re.sub(r"^\.\. ansible-links::\n\n(?:  .*\n|\n)+", "", text, flags=re.M)


# The build ----------------------------------------------------------------------------------------


def run(
    command: list[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a program; raise SiteError with its output if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SiteError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")


def external(site: Path) -> Iterator[str]:
    """What the site would load from elsewhere, by file."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            for match in LOADS.finditer(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(site)}: {match[0]}"


def build(to: Path) -> Path:
    """Build the site.

    Args:
        to: folder for it; one that is there is replaced.

    Returns:
        Its first page.

    Raises:
        SiteError: a link leads nowhere, or another warning.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source, made = scratch / "source", scratch / "site"
        lay_out(source)
        lay_out_plugins(source, scratch / "collection")
        run(
            [
                BIN / "sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "--jobs=auto",
                "--conf-dir", CONFIGURATION, "--doctree-dir", scratch / "doctrees", source, made,
            ],
            ROOT,
        )  # fmt: skip
        if found := list(external(made)):
            raise SiteError("The site would load from elsewhere:\n" + "\n".join(found))
        shutil.rmtree(to, ignore_errors=True)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, to)
    return to / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, default=SITE, help="folder for the site")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        page = build(options.to)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{page} ({time.monotonic() - start:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
