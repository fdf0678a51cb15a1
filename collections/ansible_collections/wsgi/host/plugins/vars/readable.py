"""Says where in `group_vars` and `host_vars` YAML is wrong."""

from __future__ import annotations

DOCUMENTATION = r"""
name: readable
short_description: Name the line of group_vars or host_vars that cannot be read
version_added: "0.1.0"
description:
  - Where a file of P(ansible.builtin.host_group_vars#vars) is no YAML, that plugin says what is wrong and neither in which file nor in
    which line.
  - This one reads the same files before it, each once, and says so. It sets no variables.
  - The line itself is not shown, since it may hold a password.
author: toll-app maintainers (!UNKNOWN)
options:
  stage:
    description: When it looks; without a word, as other plugins for variables do.
    type: str
    choices: [all, inventory, task]
    ini:
      - {key: stage, section: vars_readable}
    env:
      - name: ANSIBLE_VARS_READABLE_STAGE
"""

EXAMPLES = r"""
# In ansible.cfg:
# [defaults]
# vars_plugins_enabled = wsgi.host.readable, host_group_vars
"""

from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.vars import BaseVarsPlugin
from ansible.plugins.vars.host_group_vars import VarsModule as HostGroupVars

# Folders and the names of hosts and groups whose files were read.
READ: set[tuple[str, str, str]] = set()


def where(error: BaseException | None) -> AnsibleError | None:
    """The error that knows a place, of those that led to this one."""
    while error is not None:
        if isinstance(error, AnsibleError) and getattr(error.obj, "line_num", None):
            return error
        error = error.__cause__ or error.__context__
    return None


class VarsModule(BaseVarsPlugin):
    """The plugin behind wsgi.host.readable."""

    is_stateless = True

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Read what these hosts and groups have below a folder; return nothing.

        Raises:
            AnsibleParserError: a file cannot be read.
        """
        super().get_vars(loader, path, entities)
        for entity in entities if isinstance(entities, list) else [entities]:
            known = (path, str(entity.base_type), entity.name)
            if known in READ:
                continue
            try:
                # What it has read, it does not read again.
                HostGroupVars().get_vars(loader, path, entity)
            except AnsibleParserError as error:
                found = where(error)
                if found is None:
                    raise
                raise AnsibleParserError(f"{found.obj}: {found}") from None
            READ.add(known)
        return {}
