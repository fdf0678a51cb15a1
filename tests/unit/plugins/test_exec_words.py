"""Commands in unit files: each word reaches the program as it was written."""

from __future__ import annotations

import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.wsgi.host.plugins.filter.exec_words import exec_words

SLOT = "/opt/shop/state/workers/%i"


def read(line: str) -> list[str]:
    """What systemd makes of a command line, by systemd.syntax(7) and systemd.service(5)."""
    words = []
    escapes = {"n": "\n", "t": "\t"}
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line):
        word = re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[1]), quoted or plain)
        word = re.sub(r"%(.)", lambda match: {"%": "%", "i": "gen-1"}[match[1]], word)
        assert not re.sub(r"\$\$", "", word).count("$"), "a variable would be put in"
        words.append(word.replace("$$", "$"))
    return words


@pytest.mark.parametrize(
    "word",
    [
        *("plain", "--queue=mail", "a@b", "", "a b", "tab\there", "line\nbreak", ";", "|", "~"),
        *('say "hi"', "it's", "back\\slash", "\\n", "100%", "%i", "$HOME", "${HOME}", "$$", "-"),
        *("ä€", "#", "trailing\\"),
    ],
)
def test_a_word_arrives_as_it_was_written(word: str) -> None:
    assert read(exec_words(["python", word, "end"], SLOT))[1:] == [word, "end"]


def test_the_instance_is_named_where_it_is_asked_for() -> None:
    assert read(exec_words(["celery", "-n", "{instance}@%h"], SLOT))[1:] == ["-n", "gen-1@%h"]


@pytest.mark.parametrize(
    ("program", "path"),
    [
        ("celery", f"{SLOT}/bin/celery"),
        ("tools/run", f"{SLOT}/app/tools/run"),
        ("/usr/bin/env", "/usr/bin/env"),
    ],
)
def test_a_program_is_looked_for_in_the_release(program: str, path: str) -> None:
    assert exec_words([program], SLOT) == path


@pytest.mark.parametrize("words", [[], [""], ["python worker.py"], ["@python"], ["-x"], ["a$b"]])
def test_what_is_no_program_is_refused(words: list[str]) -> None:
    with pytest.raises(AnsibleFilterError, match="cannot be a program"):
        exec_words(words, SLOT)
