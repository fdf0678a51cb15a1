"""`wsgi.host.program`: real programs on this machine, run as a playbook would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Play

SECRET = "hush-hush-7f3a"


def program(path: Path, body: str) -> str:
    """A shell script of that body; returns its path."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def task(*argv: str, **options: Any) -> dict[str, Any]:
    return {"wsgi.host.program": {"argv": list(argv), **options}, "register": "it"}


def test_answer_becomes_the_result(play: Play, tmp_path: Path) -> None:
    path = program(tmp_path / "say", """echo '{"changed": '$1', "msg": "did it", "more": 7}'""")
    done = play(
        task(path, "true"),
        {"assert": {"that": ["it is changed", "it.answer.more == 7", "it.msg == 'did it'"]}},
        task(path, "false"),
        {"assert": {"that": ["it is not changed"]}},
    )
    assert done.code == 0, done.output


def test_secret_arrives_and_is_never_shown(play: Play, tmp_path: Path) -> None:
    """Not even by a program that repeats it, in the most talkative run."""
    seen = tmp_path / "seen"
    body = f"""cat > {seen}; printf '{{"changed": true, "msg": "got %s"}}' "$(cat {seen})" """
    done = play(
        task(program(tmp_path / "tell", body), stdin="{{ secret }}"),
        inventory={"secret": SECRET},
        arguments=("-vvv", "--diff"),
    )
    assert done.code == 0, done.output
    assert seen.read_text() == SECRET
    assert SECRET not in done.output


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("""echo '{"changed": false, "msg": "the disk is full"}'; exit 1""", "the disk is full"),
        ("echo oh dear >&2; exit 3", "ended with exit code 3"),
        ("echo oh dear >&2; exit 3", "oh dear"),
        ("echo fine", "did not answer with a JSON object"),
        ("""echo '{"changed": "yes"}'""", "did not answer with a JSON object"),
        ("echo '[1]'", "did not answer with a JSON object"),
    ],
)
def test_failure_says_what_the_program_said(
    body: str, expected: str, play: Play, tmp_path: Path
) -> None:
    done = play(task(program(tmp_path / "fail", body)))
    assert done.code == 2
    assert expected in done.output


def test_a_failure_shows_its_words_no_more_often_than_ansible(play: Play, tmp_path: Path) -> None:
    """Ansible does so in its error and in the result. They may end with a page of a journal."""
    body = """echo '{"changed": true, "msg": "the disk is full", "stage": "bake"}'; exit 1"""
    done = play(task(program(tmp_path / "fail", body)))
    assert done.code == 2
    assert "bake" in done.output
    assert done.output.count("the disk is full") == 2


def test_check_mode_asks_the_program(play: Play, tmp_path: Path) -> None:
    done_it = tmp_path / "done"
    body = (
        """case "$*" in *--check) echo '{"changed": true, "msg": "would"}';; """
        f"""*) touch {done_it}; echo '{{"changed": true}}';; esac"""
    )
    path = program(tmp_path / "do", body)
    checked = play(task(path), {"assert": {"that": ["it.msg == 'would'"]}}, arguments=("--check",))
    assert checked.code == 0, checked.output
    assert not done_it.exists()
    assert play(task(path)).code == 0
    assert done_it.exists()


def test_check_mode_on_a_bare_host_counts_as_a_change(play: Play) -> None:
    done = play(
        task("/nowhere/program"), {"assert": {"that": ["it is changed"]}}, arguments=("--check",)
    )
    assert done.code == 0, done.output


@pytest.mark.parametrize("argv", ["/nowhere/program", "program"])
def test_program_that_is_not_there_is_named(argv: str, play: Play) -> None:
    done = play(task(argv))
    assert done.code == 2
    assert argv in done.output


def test_what_a_program_does_is_shown_as_a_difference(play: Play, tmp_path: Path) -> None:
    path = program(tmp_path / "do", """echo '{"changed": true, "msg": "Would remove abc."}'""")
    done = play(task(path), arguments=("--check", "--diff"))
    assert done.code == 0, done.output
    assert "Would remove abc." in done.output


@pytest.mark.parametrize("code", [2, 64])
def test_an_older_program_that_cannot_foretell_is_a_change(
    play: Play, tmp_path: Path, code: int
) -> None:
    """The run itself would replace it first, so check mode must not fail on it."""
    path = program(tmp_path / "old", f"echo 'unrecognized arguments: --preview' >&2; exit {code}")
    is_changed = {"assert": {"that": ["it is changed", "'another version' in it.msg"]}}
    done = play(task(path), is_changed, arguments=("--check",))
    assert done.code == 0, done.output
    assert play(task(path)).code == 2
