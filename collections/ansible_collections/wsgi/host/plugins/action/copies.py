"""Control node's half of `wsgi.host.copies`: runs it from what stays on the host.

What the options mean is documented with the module, `plugins/modules/copies.py`.
"""

from __future__ import annotations

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import Plain


class ActionModule(Plain):
    """Runs the module as it is."""
