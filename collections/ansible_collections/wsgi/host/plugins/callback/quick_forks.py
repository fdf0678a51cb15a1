"""Makes forks cheaper: nothing is collected, compiled or computed twice without need."""

from __future__ import annotations

DOCUMENTATION = r"""
name: quick_forks
type: aggregate
short_description: Make each task's fork cheaper
version_added: "0.1.0"
description:
  - Ansible forks for each task and host. A fork shares memory with its parent until one of them writes to it, and Python's
    garbage collector writes to every object that it looks at, in each fork anew.
  - This puts everything that is there when a play begins out of the collector's reach, and has it look less often
    at what comes later. What has no cycles is freed as always.
  - It takes a sixth of the processor time of a run that changes nothing, and 3 MB more memory.
  - What Jinja has compiled of the templates of this collection is kept below C(wsgi-host) in Ansible's home, for forks and
    later runs. Templates of inventories are not kept, because they may hold secrets. Nothing is kept where others could
    write to that directory.
  - Within one template each variable is computed once, also where other variables read it.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
# In ansible.cfg:
# [defaults]
# callbacks_enabled = wsgi.host.quick_forks
"""

import gc
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.wsgi.host.plugins.plugin_utils import compiled_templates, shared_variables

# Objects that are made before the collector looks at the youngest, in place of 700. A fork makes fewer.
YOUNGEST = 100_000


class CallbackModule(CallbackBase):
    """The callback behind wsgi.host.quick_forks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "wsgi.host.quick_forks"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Called in the parent, before the play's first fork."""
        compiled_templates.keep()
        shared_variables.share()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNGEST, *gc.get_threshold()[1:])
