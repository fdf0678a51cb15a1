"""`wsgi.host.rendered`: a template's text."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rendered
short_description: Render a template of a role
version_added: "0.1.0"
description:
  - Does what P(ansible.builtin.template#lookup) does, without copying all variables each time. A
    variable that is made of a template is rendered wherever it is read.
options:
  _terms:
    description: Paths of templates.
    type: list
    elements: path
    required: true
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
shop_settings: "{{ lookup('wsgi.host.rendered', role_path ~ '/settings.yml.j2') | from_yaml }}"
"""

RETURN = r"""
_raw:
  description: The text of each.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.wsgi.host.plugins.plugin_utils.rendering import rendered


class LookupModule(LookupBase):
    """The lookup `wsgi.host.rendered`."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        return [
            rendered(Path(term), self._templar, self._loader, variables or {}) for term in terms
        ]
