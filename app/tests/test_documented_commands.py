"""Every command that a document names is there, with every option that it names."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from toll import cli

REPOSITORY = Path(__file__).resolve().parents[2]
# `toll-app flask toll user create …`, `flask --app app toll migrate`, `flask toll key create`.
COMMAND = re.compile(r"flask(?: --app app)? toll((?:\s+(?:[^\s`|&;)\"'<>…]+|<[^>`]*>))*)")
# What tells a person how to use the program: documents, and the program's own words.
READ = ("*.md", "*.py", "*.sh", "*.yml", "*.html", "*.j2")


def documented() -> list[tuple[str, str]]:
    """Return the commands that are named, with where."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *READ], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = []
    for name in listed.stdout.splitlines():
        if "/tests/" in f"/{name}":
            continue
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        found += [(name, match[1].strip()) for match in COMMAND.finditer(text)]
    return found


def follow(words: list[str]) -> str | None:
    """Return what is wrong with a command's words, or None."""
    command: click.Command = cli.toll
    while words and isinstance(command, click.Group):
        if words[0].startswith("-"):
            break
        following = command.commands.get(words[0])
        if following is None:
            return f"there is no {words[0]!r} among {', '.join(sorted(command.commands))}"
        command, words = following, words[1:]
    options = {each for parameter in command.params for each in parameter.opts} | {"--help"}
    unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - options
    return f"{command.name} has no {', '.join(sorted(unknown))}" if unknown else None


def test_commands_in_documents_are_there():
    """A guide that is followed at night must not end at "No such command"."""
    commands = documented()
    assert len({text for _, text in commands}) > 10, "the documents are not found"
    wrong = []
    for name, text in commands:
        words = shlex.split(text.replace("'", ""))
        # The end of a sentence is not the command's.
        words = [word.rstrip(".,:") for word in words if word.rstrip(".,:")]
        if words and re.fullmatch(r"[a-z-]+", words[0]) and (problem := follow(words)):
            wrong.append(f"{name}: {text!r}: {problem}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("user logut anna", "there is no 'logut'"),
        ("user logout --everyone", "logout has no --everyone"),
        ("tarif list", "there is no 'tarif'"),
    ],
)
def test_a_command_that_is_not_there_is_found(text, problem):
    assert problem in str(follow(text.split()))
