"""Installs and removes packages as the file of the host's family says.

The options are documented in plugins/modules/packages.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible_collections.wsgi.host.plugins.plugin_utils import families
from ansible_collections.wsgi.host.plugins.plugin_utils.host import FACT, probed
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules


class ActionModule(KeptModules):
    """The action behind wsgi.host.packages."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the family's module does, with the host as it is then if it is asked for."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, told = self.validate_argument_spec(
            {
                "name": {"type": "list", "elements": "str", "default": []},
                "state": {"choices": ["present", "absent", "renewed"], "default": "present"},
                "start_services": {"type": "bool", "default": True},
                "look_again": {"type": "bool", "default": False},
            }
        )
        absent = told["state"] == "absent"
        if told["state"] == "renewed":
            return self._renew(task_vars)
        if not told["name"]:
            return {"changed": False}
        if self._task.check_mode and not absent:
            # No attempt: what it takes may be missing on the host, and no lists are fetched then.
            words = f"Would install {', '.join(told['name'])}"
            return {"changed": True, "msg": words, "_ansible_verbose_always": True}
        manager = families.content(task_vars["ansible_facts"][FACT]["family"])["__family_packages"]
        more = manager["remove" if absent else "install"]
        if not absent and not told["start_services"]:
            more = {**more, **manager["without_services"]}
        arguments = {"name": told["name"], "state": told["state"], **more}
        result = self._run(str(manager["module"]), arguments, task_vars)
        if result.get("failed") or result.get("unreachable") or not told["look_again"]:
            return result
        seen = probed(self, task_vars)
        if seen.get("failed") or seen.get("unreachable"):
            return seen
        facts = {**result.get("ansible_facts", {}), **seen["ansible_facts"]}
        return {**result, "ansible_facts": facts}

    def _renew(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Newer versions of all that is installed."""
        manager = families.content(task_vars["ansible_facts"][FACT]["family"])["__family_packages"]
        arguments = dict(manager["renew"])
        return self._run(str(arguments.pop("module")), arguments, task_vars)

    def _run(
        self, module: str, arguments: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Run a module as a task does that names it: some have a part on the control node."""
        loader = self._shared_loader_obj.action_loader
        task = self._task.copy()
        task.action = module
        task.args = dict(arguments)
        action = loader.get(
            module if loader.has_plugin(module) else "ansible.builtin.normal",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result: dict[str, Any] = action.run(task_vars=task_vars)
        return result
