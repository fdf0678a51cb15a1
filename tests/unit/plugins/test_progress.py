"""`wsgi.host.progress`: what a person reads while a playbook runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.wsgi.host.plugins.callback.progress import Steps
from conftest import PROJECT

STEPS = [
    {"words": "Checking", "stages": ["*/preflight"]},
    {"words": "Preparing", "stages": ["certbot/*"]},
    {"words": "Serving", "stages": ["web/site", "web/service"]},
    {"words": "Obtaining", "stages": ["certbot/obtain"]},
]


def run(
    folder: Path, tasks: dict[str, list[dict[str, object]]], **settings: str
) -> tuple[str, str]:
    """Run roles with these tasks; return what the person and what the log gets."""
    for role, listed in tasks.items():
        (folder / "roles" / role / "tasks").mkdir(parents=True)
        (folder / "roles" / role / "tasks/main.yml").write_text(yaml.safe_dump(listed))
    play = {"hosts": "localhost", "gather_facts": False, "roles": list(tasks)}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    (folder / "steps.yml").write_text(yaml.safe_dump(STEPS))
    reading, writing = os.pipe()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "--inventory",
            "localhost,",
            "play.yml",
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        pass_fds=[writing],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / "collections"),
            "ANSIBLE_CALLBACKS_ENABLED": "wsgi.host.progress",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            "WSGI_PROGRESS_FD": str(writing),
            "WSGI_PROGRESS_STEPS": str(folder / "steps.yml"),
            **settings,
        },
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return pipe.read(), done.stdout


def say(name: str, **task: object) -> dict[str, object]:
    """A task that succeeds, unless it is told otherwise."""
    return {"name": name, "connection": "local", **(task or {"ansible.builtin.debug": {}})}


def test_steps_have_numbers_and_seconds(tmp_path: Path) -> None:
    """They count from where the caller is, and what was passed over keeps its number."""
    told, log = run(
        tmp_path,
        {
            "web": [
                say("preflight | Look"),
                say("site | Write"),
                say("site | Write more"),
                say("Other"),
            ],
            "certbot": [say("obtain | Ask")],
        },
        WSGI_PROGRESS_FIRST="4",
        WSGI_PROGRESS_TOTAL="9",
    )
    assert re.sub(r"\d+\.\d s", "N s", told).splitlines() == [
        "step 4 of 9: Checking ... N s",
        "step 6 of 9: Serving ... N s",
        "step 7 of 9: Obtaining ... N s",
    ]
    assert "PLAY RECAP" in log


def test_a_failure_is_told_when_the_run_has_failed(tmp_path: Path) -> None:
    """Only what was not rescued or ignored: anything else would send people the wrong way."""
    told, _ = run(
        tmp_path,
        {
            "web": [
                say(
                    "site | Ignore",
                    **{"ansible.builtin.fail": {"msg": "ignored"}, "ignore_errors": True},
                ),
                say("site | Fail", **{"ansible.builtin.fail": {"msg": "the remedy"}}),
                say("service | Never reached"),
            ]
        },
    )
    assert re.sub(r"\d+\.\d s", "N s", told) == "step 3 of 4: Serving ... N s\n\nthe remedy\n"


def test_what_was_rescued_is_not_told(tmp_path: Path) -> None:
    block: dict[str, object] = {
        "block": [say("site | Fail", **{"ansible.builtin.fail": {"msg": "mended"}})],
        "rescue": [say("site | Mend")],
    }
    told, _ = run(tmp_path, {"web": [block]})
    assert "mended" not in told


def test_a_secret_is_not_told(tmp_path: Path) -> None:
    # Put together on the host, as the log quotes the task itself.
    secret = {"ansible.builtin.shell": "printf hunt%s er2 >&2; exit 1", "no_log": True}
    told, log = run(tmp_path, {"web": [say("site | Fail", **secret)]})
    assert "hunter2" not in told + log
    assert told.endswith("\n\nweb : site | Fail: failed, and may hold a secret.\n")


def test_without_a_descriptor_nothing_is_told(tmp_path: Path) -> None:
    told, log = run(tmp_path, {"web": [say("site | Write")]}, WSGI_PROGRESS_FD="0")
    assert told == ""
    assert "failed=0" in log


def test_a_stage_that_comes_again_belongs_to_the_later_step() -> None:
    """certbot is prepared before the web server, and asked after it."""
    steps = Steps(STEPS)
    passed = []
    for role, task in [
        ("certbot", "preflight | Check"),
        ("certbot", "install | Install"),
        ("web", "preflight | Check"),
        ("web", "site | Write"),
        ("certbot", "install | Install"),
        ("certbot", "obtain | Ask"),
    ]:
        steps.enter(role, task)
        passed.append(steps.current)
    assert passed == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("listed", [["words"], [{"words": "x"}], [{"words": "x", "stages": None}]])
def test_a_file_without_steps_is_refused(listed: list[dict[str, object]]) -> None:
    with pytest.raises(AnsibleError, match="each step has `words` and a list of `stages`"):
        Steps(listed)
