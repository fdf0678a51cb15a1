"""Blocks of shell commands in the guides, and whether a test runs or checks each of them.

A block says what it is in one of these ways, the nearest first:

    <!-- commands: molecule/setup/tests/test_walk.py -->    a test that types them
    <!-- commands: not run: they need a second provider -->

right above it, or right below the title for all of a page. Without one, a section that says
"Rehearsed: `molecule/default/tests/test_backup.py`" speaks for its blocks. What is left is checked
for what files can tell: playbooks, variables, targets of make.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SHELL = ("sh", "bash", "console")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$", re.M | re.S)
MARK = re.compile(r"<!-- commands: (?:(?P<not_run>not run): (?P<why>[^>]+?)|(?P<test>\S+)) -->")
JUST_ABOVE = re.compile(MARK.pattern + r"\s*\Z")
# A sentence of a guide that names what ran its section; the tests are files of the repository.
REHEARSED = re.compile(r"Rehearsed\b.*?(?:\n\n|\Z)", re.S)
TEST = re.compile(r"`((?:molecule|tests|app/tests|tools)/[\w./-]+\.\w+)`")
HEADING = re.compile(r"^#{2,} .*$", re.M)

RUN, REHEARSED_BY, CHECKED, NOT_RUN, UNKNOWN = "run", "rehearsed", "checked", "not run", "unknown"
# Commands that a file of the repository can vouch for: what they name is there.
SIMPLE = ("ansible-playbook", "make", "toll-app", "shop")
PLAYBOOK = re.compile(r"(?:^|[\s`/(])ansible-playbook ([^`\n;|)]*)")


@dataclass(frozen=True)
class Block:
    """A block of commands.

    Attributes:
        line: of its first command, from 1.
        end: place in the page's text after its closing fence.
        indent: spaces before the fence.
        text: the commands.
        state: RUN, REHEARSED_BY, CHECKED, NOT_RUN or UNKNOWN.
        tests: files that run it, if there are any.
        why: the reason why none does.
    """

    line: int
    end: int
    indent: str
    text: str
    state: str
    tests: tuple[str, ...] = ()
    why: str = ""


def blocks(text: str) -> Iterator[Block]:
    """The blocks of commands of a page, in its order."""
    fenced = [(match.start(), match.end()) for match in FENCE.finditer(text)]

    def outside(place: int) -> bool:
        return not any(start <= place < end for start, end in fenced)

    headings = [each.start() for each in HEADING.finditer(text) if outside(each.start())]
    whole = re.match(rf"# .*\n+{MARK.pattern}", text)
    for match in FENCE.finditer(text):
        if match["language"] not in SHELL:
            continue
        start = max((each for each in headings if each < match.start()), default=0)
        end = min((each for each in headings if each > match.start()), default=len(text))
        mark = JUST_ABOVE.search(text, 0, match.start()) or whole
        line = text.count("\n", 0, match.start()) + 2
        state = state_of(match["text"], mark, text[start:end])
        yield Block(line, match.end(), match["indent"], match["text"], *state)


def state_of(
    commands: str, mark: re.Match[str] | None, section: str
) -> tuple[str, tuple[str, ...], str]:
    """A block's state, the tests that run it, and the reason why none does."""
    if mark:
        return (NOT_RUN, (), mark["why"]) if mark["not_run"] else (RUN, (mark["test"],), "")
    claims = REHEARSED.findall(section)
    if tests := tuple(dict.fromkeys(TEST.findall(" ".join(claims)))):
        return REHEARSED_BY, tests, ""
    return (CHECKED if is_simple(commands) else UNKNOWN), (), ""


def lines(commands: str) -> Iterator[list[str]]:
    """The words of each line, without `sudo`, a folder of programs, and what is after `#`."""
    for line in commands.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        words = words[1:] if words[:1] == ["sudo"] else words
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def is_simple(commands: str) -> bool:
    """Whether the repository's files can vouch for each command of a block."""
    try:
        return all(
            words[0] in SIMPLE and not {"|", ";", "&&", "<", ">"} & set(words)
            for words in lines(commands)
        )
    except ValueError:  # a quotation over several lines
        return False


@functools.cache
def variables() -> frozenset[str]:
    """The variables that roles take."""
    names: set[str] = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for entry in entries.values():
            names |= set(entry.get("options", {}))
    return frozenset(names)


def faults(text: str) -> Iterator[str]:
    """What is wrong with the calls of ansible-playbook and make in a page."""
    for match in PLAYBOOK.finditer(text):
        # A quotation that goes on elsewhere in prose is no shell.
        words = re.split(r"\s+", match[1].replace("'", " ").strip())
        books = [
            word.rstrip(".,:")
            for before, word in zip(["", *words], words, strict=False)
            if before not in ("-i", "--inventory", "-e")
            and (word.rstrip(".,:").endswith(".yml") or word.startswith("wsgi.host."))
        ]
        paths = [
            ROOT / (f"playbooks/{book[10:]}.yml" if book.startswith("wsgi.host.") else book)
            for book in books
        ]
        for book, path in zip(books, paths, strict=True):
            if not path.is_file():
                yield f"{match[0].strip()}: there is no playbook {book}"
        said = "".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
        for name in re.findall(r"-e (\w+)=", match[0].replace("'", "")):
            if name not in variables() and not re.search(rf"\b{name}\b", said):
                yield f"{match[0].strip()}: no playbook and no role has a variable {name}"
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    known = set(targets[1].split()) if targets else set()
    for target in re.findall(r"(?:^|`|&& )make ([a-z][a-z-]*)\b(?!\.)", text, re.M):
        if target not in known:
            yield f"make {target}: there is no such target"
