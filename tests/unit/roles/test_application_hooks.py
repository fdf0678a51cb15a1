"""Hooks of a deploy: where they may run, what they are told, and what a failure means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.wsgi.host.plugins.action import hook as plugin
from apphost import sandbox
from apphost.application import Application
from apphost.errors import UsageError

from .described import NAME, problems, whole
from .describing import read
from .render import ROLES, evaluate

STAGES = ("build", "ship", "migrate", "handover", "prune")
DATA = {"data": {"sqlite": "shop.db"}}


def hooks(**told: Any) -> dict[str, Any]:
    return {**DATA, "hooks": told}


def test_a_list_is_a_command_of_the_control_node() -> None:
    described = whole(hooks(before_ship=["./tell", "now"]))["hooks"]
    assert described == {
        "before_ship": {"command": ["./tell", "now"], "where": "control", "time_limit_seconds": 600}
    }


def test_every_stage_has_both() -> None:
    options = read(ROLES / "application" / "meta" / "description.yml")["hooks"]["options"]
    assert list(options) == [f"{when}_{stage}" for stage in STAGES for when in ("before", "after")]


@pytest.mark.parametrize("stage", STAGES)
def test_every_hook_is_called_in_its_place(stage: str) -> None:
    """A stage that also a rollback goes through has its hooks outside."""
    tasks = ROLES / "application" / "tasks"
    name = "live.yml" if stage == "handover" else f"{stage}.yml"
    text = (tasks / name).read_text()
    before, after = (f"__application_hook: {when}_{stage}" for when in ("before", "after"))
    assert (text.count(before), text.count(after)) == (1, 1)
    between = text[text.index(before) : text.index(after)]
    assert re.search(r"wsgi\.host\.|import_tasks: handover\.yml", between)
    for playbook in ("provision.yml", "deploy.yml"):
        whole_way = (tasks / playbook).read_text() + (tasks / "main.yml").read_text()
        assert f"import_tasks: {name}" in whole_way


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (hooks(before_handover={"command": ["a"], "where": "host"}), None),
        (hooks(after_migrate={"command": ["a"], "where": "host"}), None),
        (
            hooks(before_ship={"command": ["a"], "where": "host"}),
            "has before_ship on the host, where the release cannot run yet",
        ),
        ({"hooks": {"before_migrate": ["a"]}}, "but data has no database"),
        (hooks(after_ship=[]), "has a command without words"),
    ],
)
def test_a_hook_runs_where_it_can(told: dict[str, Any], said: str | None) -> None:
    found = problems(told, "hooks")
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_it_is_told_what_is_known() -> None:
    variables: dict[str, Any] = {
        "__application_entry": whole(hooks(after_handover=["a"])),
        "__application_name": NAME,
        "__application_hosts": ["web1", "web2"],
        "__application_reason": "a fix",
        "__application_bundle": {"bundle": {"id": "built", "revision": None}},
        "application_revision": "v1",
    }
    before = evaluate(
        *("application", "__application_hook_environment", "Debian"),
        **variables,
        __application_hook="before_build",
    )
    assert before == {
        "APPLICATION": NAME,
        "RELEASE": "",
        "PREVIOUS_RELEASE": "",
        "REVISION": "v1",
        "HOSTS": "web1 web2",
        "STAGE": "build",
        "REASON": "a fix",
    }
    after = evaluate(
        *("application", "__application_hook_environment", "Debian"),
        **variables,
        __application_hook="after_handover",
        __application_release={"id": "new", "current": "old"},
    )
    assert (after["RELEASE"], after["PREVIOUS_RELEASE"], after["STAGE"]) == (
        "new",
        "old",
        "handover",
    )


class Action(plugin.ActionModule):
    """The action with what a play would hand it."""

    def __init__(self, check_mode: bool = False, **arguments: Any) -> None:
        defaults = {"name": "hooks.x", "where": "control", "program": "/bin/shop"}
        environment = {"STAGE": "ship", "RELEASE": None}
        arguments = {**defaults, "environment": environment, **arguments}
        self._task = MagicMock(check_mode=check_mode, args=arguments)
        self._connection = MagicMock()

    def validate_argument_spec(self, argument_spec: Any = None, **_: Any) -> Any:
        defaults = {key: each.get("default") for key, each in argument_spec.items()}
        return None, {**defaults, **self._task.args}


def result(monkeypatch: pytest.MonkeyPatch, project: Path, **arguments: Any) -> dict[str, Any]:
    monkeypatch.setattr(plugin.ActionBase, "run", lambda *_: {})
    (project / "ansible.cfg").touch()
    (project / "playbooks").mkdir(exist_ok=True)
    return Action(**arguments).run(None, {"playbook_dir": str(project / "playbooks")})


def test_on_the_control_node_it_runs_in_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OF_THE_OPERATOR", "yes")
    command = ["sh", "-c", 'echo "$PWD $STAGE ${RELEASE-unset} $OF_THE_OPERATOR"']
    done = result(monkeypatch, tmp_path, command=command)
    assert done["output"] == f"{tmp_path} ship  yes\n"
    assert not done.get("failed")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sh", "-c", "echo oh; exit 4"], "failed with exit code 4\n\noh"),
        (["./missing"], "cannot be run: No such file or directory"),
        (["sleep", "30"], "was not finished within 1 s and was stopped"),
    ],
)
@pytest.mark.parametrize("fatal", [True, False])
def test_a_failure_fails_the_deploy_or_is_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str], said: str, fatal: bool
) -> None:
    """After the handover the release serves: to go back then would be a second fault."""
    done = result(monkeypatch, tmp_path, command=command, fatal=fatal, time_limit_seconds=1)
    assert done.get("failed", False) == fatal
    assert said in (done["msg"] if fatal else done["hook_failed"])


def test_check_mode_says_what_would_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = result(monkeypatch, tmp_path, check_mode=True, command=["touch", str(tmp_path / "x")])
    assert done["msg"].startswith("Would run hooks.x, `touch ")
    assert not (tmp_path / "x").exists()


def test_on_the_host_it_goes_through_the_sandbox_of_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody but root could do more there, and no command of a description is root's."""
    asked: list[Any] = []

    def run_module(*arguments: Any) -> dict[str, Any]:
        asked.append(arguments[3]["argv"])
        return {"rc": 124, "stdout": "", "stderr": ""}

    monkeypatch.setattr(plugin, "run_module", run_module)
    more = {"where": "host", "release": "new", "command": ["python", "--version"]}
    done = result(monkeypatch, tmp_path, **more, fatal=True, time_limit_seconds=60)
    assert "was not finished within" in done["msg"]
    assert asked == [
        [
            *("/bin/shop", "exec", "--release", "new", "--time-limit", "60"),
            *("--env=STAGE=ship", "--env=RELEASE=", "--", "python", "--version"),
        ]
    ]


def test_exec_takes_variables(tmp_path: Path) -> None:
    words = ["--env", "A=1 2", "--env=B=%h $x=y", "--", "python", "--env=C=3"]
    release, limit, variables, rest = sandbox.parse(words)
    assert (release, limit, rest) == (None, 0, ["python", "--env=C=3"])
    assert variables == {"A": "1 2", "B": "%h $x=y"}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    unit = "[Service]\nUser=shop\nProtectSystem=strict\n"
    argv = sandbox.command(Application("shop"), unit, tmp_path, rest, 0, variables)
    assert {"--setenv=A=1 2", "--setenv=B=%h $x=y", "--property=User=shop"} <= set(argv)
    assert argv.index("--setenv=A=1 2") < argv.index("--")


@pytest.mark.parametrize("wrong", ["A", "1A=x", "=x", "A B=x"])
def test_exec_refuses_what_is_no_variable(wrong: str) -> None:
    with pytest.raises(UsageError, match="Write NAME=VALUE"):
        sandbox.parse(["--env", wrong, "python"])
