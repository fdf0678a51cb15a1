"""Run a command that a description has for a stage of a deploy.

What the options mean is documented with the module, `plugins/modules/hook.py`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import project_of
from ansible_collections.wsgi.host.plugins.plugin_utils.reach import run_module
from ansible_collections.wsgi.host.plugins.plugin_utils.steps import call, end_of

display = Display()
# The exit code of `exec` for a command that was ended.
ENDED = 124


class ActionModule(ActionBase):
    """The action behind wsgi.host.hook."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what became of it; `hook_failed` says so where that does not fail the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "command": {"type": "list", "elements": "str", "required": True},
                "where": {"type": "str", "choices": ["control", "host"], "required": True},
                "environment": {"type": "dict", "required": True},
                "time_limit_seconds": {"type": "int", "default": 600},
                "program": {"type": "str", "required": True},
                "release": {"type": "str", "default": ""},
                "fatal": {"type": "bool", "default": True},
            }
        )
        where = "the control node" if options["where"] == "control" else "the host"
        shown = f"{options['name']}, `{shlex.join(options['command'])}` on {where},"
        if self._task.check_mode:
            text = f"Would run {shown.removesuffix(',')}"
            return {**result, "changed": True, "msg": text, "_ansible_verbose_always": True}
        variables = {name: str(value or "") for name, value in options["environment"].items()}
        failure, written = (
            self._control(options, variables, task_vars or {})
            if options["where"] == "control"
            else self._host(options, variables, task_vars or {})
        )
        result |= {"changed": True, "hook_failed": ""}
        if not failure:
            return {**result, "output": written}
        text = f"{shown} {failure}\n\n{end_of(written)}"
        if options["fatal"]:
            return {**result, "failed": True, "msg": text}
        display.warning(text)
        return {**result, "hook_failed": text}

    def _control(
        self, options: dict[str, Any], variables: dict[str, str], task_vars: dict[str, Any]
    ) -> tuple[str, str]:
        """Run it as the operator; return what went wrong, and what it wrote."""
        project = project_of(Path(str(task_vars.get("playbook_dir") or ".")))
        limit = options["time_limit_seconds"]
        try:
            code, written = call(options["command"], project, {**os.environ, **variables}, limit)
        except OSError as error:
            return f"cannot be run: {error.strerror}", ""
        return _meaning(ENDED if code is None else code, limit), written

    def _host(
        self, options: dict[str, Any], variables: dict[str, str], task_vars: dict[str, Any]
    ) -> tuple[str, str]:
        """Run it as the service would; return what went wrong, and what it wrote."""
        limit = options["time_limit_seconds"]
        argv = [options["program"], "exec", "--release", options["release"]]
        argv += ["--time-limit", str(limit)]
        argv += [f"--env={name}={value}" for name, value in variables.items()]
        arguments = {"argv": [*argv, "--", *options["command"]]}
        done = run_module(self, "ansible.builtin.command", task_vars, arguments)
        if "rc" not in done:
            return f"cannot be run: {done.get('msg', '')}", ""
        return _meaning(int(done["rc"]), limit), f"{done['stdout']}\n{done['stderr']}"


def _meaning(code: int, limit: int) -> str:
    if code == ENDED:
        return f"was not finished within {limit} s and was stopped"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"failed with exit code {code}" if code else ""
