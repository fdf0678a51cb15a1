"""Every link of a Markdown file leads somewhere: to a file of the repository, and to a heading."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import PROJECT

FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.M | re.S)
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(?:a|img)\b[^>]*?(?:href|src)=\"([^\"]+)\""
)
CODE = re.compile(r"`[^`\n]*`")


def prose(text: str) -> str:
    """The text without blocks of code."""
    return FENCED.sub("", text)


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """What a link may name after `#`, as forges make it of headings."""
    text = prose(path.read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    names = set(re.findall(r"<a\b[^>]*?(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.M):
        shown = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return frozenset(names)


def faults(file: Path, text: str) -> Iterator[str]:
    """What is wrong with the links of a file."""
    for match in LINK.finditer(CODE.sub("", prose(text))):
        target = match[1] or match[2]
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        path = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if not path.exists() or PROJECT not in (path, *path.parents):
            yield f"{target}: there is no such file"
        elif parts.fragment and parts.fragment not in anchors(path):
            yield f"{target}: there is no such heading"


def test_links_lead_somewhere() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    files = [PROJECT / name for name in listed if (PROJECT / name).is_file()]
    assert len(files) > 50
    wrong = [
        f"{file.relative_to(PROJECT)}: {fault}"
        for file in files
        for fault in faults(file, file.read_text(encoding="utf-8"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](docs/NOWHERE.md)", "docs/NOWHERE.md: there is no such file"),
        ("[a](docs/FLEET.md#nowhere)", "docs/FLEET.md#nowhere: there is no such heading"),
        ("![a](docs/nowhere.png)", "docs/nowhere.png: there is no such file"),
        ("[a](#nowhere)", "#nowhere: there is no such heading"),
        ("[a](../elsewhere.md)", "../elsewhere.md: there is no such file"),
        ('<img src="nowhere.svg">', "nowhere.svg: there is no such file"),
        ("[a](docs/FLEET.md#not-yet), [b](https://example.com/x), `[c](d)`", ""),
        ("```\n[a](nowhere)\n```\n", ""),
    ],
)
def test_what_leads_nowhere_is_found(text: str, problem: str) -> None:
    assert "".join(faults(PROJECT / "README.md", text)) == problem


# The first page -----------------------------------------------------------------------------------


def test_the_first_page_is_short() -> None:
    """Who finds the project reads one screen, and then decides."""
    above = (PROJECT / "README.md").read_text().split("## Documentation")[0]
    assert len(above.split()) <= 400


def test_the_first_page_describes_what_the_guide_does() -> None:
    """molecule/application types the guide: what the first page shows has run."""
    guide = (PROJECT / "docs" / "APPLICATIONS.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(), re.S)
    (typed,) = re.findall(r"<<'YAML'\n---\n(.*?)YAML", guide, re.S)
    assert shown == typed
