"""Every command of an application that a document, a message or a unit names is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from apphost import cli, logs
from apphost.application import Application
from conftest import PROJECT

READ = (
    "*.md",
    "*.yml",
    "*.j2",
    "*.sh",
    "host/*.py",
    "roles/*.py",
    "tools/*.py",
    "collections/*.py",
)
# They tell what was, beside what is.
HISTORY = ("CHANGELOG.md", "docs/decisions/")
# The application of the documents, that of a role's README, and what a message puts in.
NAME = r"(?:toll-app|shop|<name>|\{(?:(?:store\.)?application\.|config\.)?name\})"
WORD = r" (?!#|is\b|does\b|was\b|\{)(?:\"[^\"\n]*\"|[^\s`|;<>)(\"…]+)"
COMMAND = re.compile(rf"(?:^|sudo |`){NAME}((?:{WORD})*)", re.MULTILINE)


def commands(name: str, text: str) -> Iterator[list[str]]:
    """The words of each command in a file that people read, without the application's name."""
    if name.endswith(".md"):
        # Elsewhere a line that begins with the application's name is prose.
        blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        text = re.sub(r"^(?=toll-app )", "~", text, flags=re.MULTILINE) + "\n".join(blocks)
    for match in COMMAND.finditer(text):
        words = [word.rstrip(".,:'\\") for word in shlex.split(match[1].replace("'", ""))]
        if words := [word for word in words if word]:
            yield words


def fault(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with a command; empty if nothing is."""
    application = Application("shop", Path("/nowhere"))
    verb, rest = words[0], words[1:]
    if verb in ("help", "VERB", "flask", "exec") or "--help" in rest:
        return ""
    module = cli.module_of(verb)
    if module is None:
        return f"there is no verb {verb!r}"
    try:
        if module is logs:
            logs.parse(application, rest)
        else:
            cli.parser_of(application, verb, module).parse_intermixed_args(rest)
    except SystemExit:
        said = capsys.readouterr().err.splitlines()[-1]
        # Where a sentence is about the verb, it leaves its arguments out.
        return "" if "arguments are required" in said else said
    return ""


def test_commands_that_are_named_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A guide that is followed at night must not end at "there is no verb"."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *READ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    verbs, wrong = set(), []
    for name in sorted(set(listed.stdout.splitlines())):
        path = PROJECT / name
        if not path.is_file() or name.startswith(HISTORY):
            continue
        for words in commands(name, path.read_text(encoding="utf-8")):
            verbs.add(words[0])
            if problem := fault(words, capsys):
                wrong.append(f"{name}: {' '.join(words)}: {problem}")
    assert wrong == []
    known = {verb for of_a_kind in cli.VERBS.values() for verb in of_a_kind}
    assert known - {"exec"} <= verbs, "a verb that no document names is one that nobody finds"


def test_the_help_has_its_explanations_in_one_column() -> None:
    lines = [line for line in cli.overview("shop").splitlines() if line.startswith("  ")]
    columns = {len(line) - len(line.lstrip().partition(" ")[2].lstrip()) for line in lines}
    assert len(columns) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Type `sudo shop rolback`.", "there is no verb 'rolback'"),
        (
            "```\nshop releases prune --keeps 1   # old ones\n```\n",
            "unrecognized arguments: --keeps",
        ),
        ("`shop logs --since`", "expected one argument"),
        ("`shop handover ID --restart`, then `shop`", ""),
        ("shop is down, and toll-app was.", ""),
    ],
)
def test_what_is_wrong_is_found(
    text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = [fault(words, capsys) for words in commands("x.md", text)]
    assert problem in "".join(faults)
    assert bool("".join(faults)) == bool(problem)
