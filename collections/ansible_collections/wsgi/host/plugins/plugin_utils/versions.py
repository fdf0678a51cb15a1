"""What the control node needs, said before anything that needs it is imported.

Action plugins import this module first: an older ansible-core would end with an ImportError of
whichever came first.
"""

from __future__ import annotations

import re
import sys

from ansible.errors import AnsibleError
from ansible.release import __version__

ANSIBLE_CORE = (2, 19)
PYTHON = (3, 11)


def problem(core: str, python: tuple[int, ...]) -> str:
    """Return what is wrong with the versions of a control node and what to do; empty if nothing."""
    found = tuple(int(number) for number in re.findall(r"\d+", core)[:2])
    if found >= ANSIBLE_CORE and python >= PYTHON:
        return ""
    return (
        f"This control node has ansible-core {core} and Python {'.'.join(map(str, python[:2]))}; "
        f"ansible-core {'.'.join(map(str, ANSIBLE_CORE))} and Python "
        f"{'.'.join(map(str, PYTHON))} or newer are needed. Make an environment with them, beside "
        f"the one that is there: python3 -m venv .venv && .venv/bin/pip install -r "
        f"requirements.txt, then run .venv/bin/ansible-playbook. Nothing was changed."
    )


if wrong := problem(__version__, sys.version_info[:2]):
    raise AnsibleError(wrong)
