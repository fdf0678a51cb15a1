"""Why nothing can be run on a host, found out step by step, with what to do about it.

A module that was not even started leaves what sudo, a shell or Python said in place of its answer,
and Ansible says that it is no JSON. Each step here is a command whose exit code is looked at. What
programs say is only quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# Runs a few bytes of Python that need a temporary file, as every module does.
WRITES = "import tempfile; tempfile.TemporaryFile().write(b'x' * 65536)"
QUOTED = 600  # characters


class _Fault(Exception):
    """The first step that fails: cause, remedy, and what was said."""

    def __init__(self, cause: str, remedy: str, said: str, *, unreachable: bool = False) -> None:
        super().__init__(cause)
        quote = said.strip()[-QUOTED:]
        self.text = f"{cause}. {remedy}." + (f" Output:\n{quote}" if quote else "")
        self.unreachable = unreachable


def run_module(
    action: ActionBase,
    name: str,
    task_vars: dict[str, Any] | None,
    module_args: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a module as an action does; where none was started, return why and what to do about it.

    Raises AnsibleError for what is not the host's fault.
    """
    variables = task_vars or {}
    try:
        result: dict[str, Any] = action._execute_module(
            module_name=name, module_args=module_args, task_vars=task_vars
        )
    except AnsibleError as error:
        fault = _first_fault(action, variables, str(error))
        if fault is None:
            raise
    else:
        if result.get("unreachable"):
            fault = _unreachable(action, str(result.get("msg") or ""))
            return {**result, "msg": fault.text}
        started = "module_stdout" not in result and "module_stderr" not in result
        if started or not result.get("failed"):
            return result
        said = [str(result.get(key) or "") for key in ("module_stderr", "module_stdout")]
        words = "\n".join(filter(str.strip, said)) or str(result.get("msg") or "")
        fault = _first_fault(action, variables, words) or _Fault(
            "A module started but returned no result",
            "Check whether something kills it (`journalctl -k` on the host), and whether root's "
            "shell prints something of its own",
            words,
        )
    told = {"unreachable": True} if fault.unreachable else {"failed": True}
    return {"changed": False, **told, "msg": fault.text}


def _first_fault(action: ActionBase, task_vars: Mapping[str, Any], said: str) -> _Fault | None:
    """Return the first step that fails, None if none does."""
    user = _user(action)
    python = _interpreter(task_vars)
    try:
        done = action._low_level_execute_command("true", sudoable=False)
    except AnsibleError as error:
        return _unreachable(action, str(error))
    if done["rc"] != 0:
        return _Fault(
            f"{user} cannot run any command",
            "Log in by hand to see why: an expired password, an invalid shell or a full disk",
            _words(done) or said,
        )
    steps = (
        (
            "true",
            f"{user} cannot become root",
            f"Let it do so without a password and without a terminal, by `visudo -f "
            f"/etc/sudoers.d/{user}` with the lines `{user} ALL=(ALL) NOPASSWD: ALL` and "
            f"`Defaults:{user} !requiretty`; or pass --ask-become-pass if it has a password",
        ),
        (
            f"{python} -c ''",
            f"{python} is not a working Python",
            "Install python3 there, or name another one in ansible_python_interpreter",
        ),
        (
            f'{python} -c "{WRITES}"',
            "No temporary file can be written",
            "Free space and inodes (`df -h / /tmp`, `df -i / /tmp`), and check that /tmp can be "
            "written",
        ),
    )
    for command, cause, remedy in steps:
        try:
            # With input there is no terminal, as for a module that is sent through a pipe.
            done = action._low_level_execute_command(command, sudoable=True, in_data=b"\n")
        except AnsibleError as error:
            return _Fault(cause, remedy, str(error))
        if done["rc"] != 0:
            return _Fault(cause, remedy, _words(done) or said)
    return None


def _unreachable(action: ActionBase, said: str) -> _Fault:
    return _Fault(
        "The host was not reached",
        "Check that it is running, that its name and port in the inventory are right, and that "
        f"SSH lets you in: `{_login(action)} true` has to work without a prompt"
        + (" (docs/MAINTENANCE.md, The first connection)" if "host key" in said.lower() else ""),
        said,
        unreachable=True,
    )


def _login(action: ActionBase) -> str:
    """What a person types for a shell on the host, with the address and port of the inventory."""
    context = action._play_context
    port = f"-p {context.port} " if context.port not in (None, 22) else ""
    return f"ssh {port}{_user(action)}@{context.remote_addr or 'HOST'}"


def _user(action: ActionBase) -> str:
    return action._get_remote_user() or "USER"


def _words(done: Mapping[str, Any]) -> str:
    return f"{done.get('stderr', '')}\n{done.get('stdout', '')}".strip()


def _interpreter(task_vars: Mapping[str, Any]) -> str:
    found = str(task_vars.get("ansible_python_interpreter") or "/usr/bin/python3")
    return found if found.startswith("/") else "/usr/bin/python3"
