"""Tells a person how far a run is, in plain words, beside the usual output."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: notification
short_description: Tell a person how far a run is
version_added: "0.1.0"
description:
  - Writes a line for each step, with its number, words and seconds, to a file descriptor, while the usual
    output goes where it always goes. At the end of a run that failed it writes what the failed tasks said.
  - A step is one or more stages of roles, listed in a file. A task belongs to the stage that its name begins
    with, as in C(install | Install the packages) of the role C(nginx), which is C(nginx/install). Steps are
    passed in their order; a stage that no step names belongs to the step that is under way.
options:
  fd:
    description: File descriptor to write to. Without one nothing is written.
    type: int
    default: 0
    env: [{name: WSGI_PROGRESS_FD}]
  steps:
    description:
      - YAML file with a list of steps, each with C(words), what a person reads, and C(stages), a list of
        C(role/stage) in which C(*) stands for anything.
    type: path
    env: [{name: WSGI_PROGRESS_STEPS}]
  first:
    description: Number of the first step of the file.
    type: int
    default: 1
    env: [{name: WSGI_PROGRESS_FIRST}]
  total:
    description: Number of all steps; that of the file's last step when 0.
    type: int
    default: 0
    env: [{name: WSGI_PROGRESS_TOTAL}]
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
# ANSIBLE_CALLBACKS_ENABLED=wsgi.host.progress WSGI_PROGRESS_FD=3 WSGI_PROGRESS_STEPS=steps.yml \
#   ansible-playbook site.yml 3>&1 >site.log
- words: Setting up nginx
  stages: [nginx/*]
- words: Obtaining the certificate
  stages: [certbot/obtain, certbot/certificate]
"""

import os
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.callback import CallbackBase


class Steps:
    """The steps of a run, and the one that is under way."""

    def __init__(self, listed: list[dict[str, Any]]) -> None:
        """Take the list of a steps file.

        Raises:
            AnsibleError: it is not such a list.
        """
        try:
            self.steps = [(str(step["words"]), list(map(str, step["stages"]))) for step in listed]
        except (TypeError, KeyError) as error:
            raise AnsibleError(
                "WSGI_PROGRESS_STEPS: each step has `words` and a list of `stages`"
            ) from error
        self.current = -1

    def enter(self, role: str, task: str) -> bool:
        """Go on to the step of a task; return whether it is another than before.

        The same stage may come again later in a run, so the search starts at the current step.
        """
        stage = f"{role}/{task.partition(' | ')[0]}"
        for number in range(max(self.current, 0), len(self.steps)):
            if any(fnmatchcase(stage, pattern) for pattern in self.steps[number][1]):
                changed = number != self.current
                self.current = number
                return changed
        return False


def each_once(said: list[str]) -> list[str]:
    """Return messages without those that another one holds, as the summary of a deploy does."""
    plain = [" ".join(each.split()) for each in said]
    return [
        each
        for number, each in enumerate(said)
        if plain[number] not in plain[:number]
        and not any(plain[number] in other and other != plain[number] for other in plain)
    ]


class CallbackModule(CallbackBase):
    """The callback behind wsgi.host.progress."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "wsgi.host.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps: Steps | None = None
        self._started: float | None = None
        self._failures: list[str] = []

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        super().set_options(*args, **kwargs)
        self._fd = self.get_option("fd")
        path = self.get_option("steps")
        if not self._fd or not path:
            self.disabled = True
            return
        self._steps = Steps(yaml_load(Path(path).read_text(encoding="utf-8")) or [])
        self._first = self.get_option("first")
        self._total = self.get_option("total") or self._first + len(self._steps.steps) - 1

    def _write(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def _finish(self) -> None:
        if self._started is not None:
            self._write(f" {time.monotonic() - self._started:.1f} s\n")
            self._started = None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        role = task._role.get_name(include_role_fqcn=False) if task._role else ""
        if self._steps is None or not self._steps.enter(role, task.name):
            return
        self._finish()
        self._started = time.monotonic()
        words = self._steps.steps[self._steps.current][0]
        self._write(f"step {self._first + self._steps.current} of {self._total}: {words} ...")

    def _failed(self, result: Any) -> None:
        # A result of a task with no_log comes without what it must not show.
        if "censored" in result._result:
            self._failures.append(f"{result._task.get_name()}: failed, and may hold a secret.")
            return
        told = result._result
        said = [told.get("msg")]
        # `command` announces its error in one, and the program has said it in the other.
        if not told.get("msg") or "cmd" in told:
            said.append(told.get("stderr"))
        text = "\n".join(str(each).strip() for each in said if each)
        self._failures.append(text or f"{result._task.get_name()}: failed.")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        # The last item of a loop has said it already.
        if not ignore_errors and "results" not in result._result:
            self._failed(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._failed(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._finish()
        # What a block has rescued is no failure of the run.
        if stats.failures or stats.dark:
            said = each_once(self._failures) or ["The run failed before its first task."]
            self._write("\n" + "\n\n".join(said) + "\n")
