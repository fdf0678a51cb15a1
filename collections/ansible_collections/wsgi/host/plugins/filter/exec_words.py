"""`wsgi.host.exec_words`: a command as systemd reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: exec_words
short_description: Write a command for ExecStart
version_added: "0.1.0"
description:
  - systemd has blanks, quotes, backslashes, percent signs and dollars of its own. This writes words
    so that the program gets each of them as it is.
  - The first word is the program. With an absolute path it stays, with another slash it is a file
    of the release's C(app/), and without one it is looked for in the release's C(bin/).
  - C({instance}) in a further word stands for the name of the unit's instance.
positional: directory
options:
  _input:
    description: The words.
    type: list
    elements: str
    required: true
  directory:
    description:
      - Of the release, as systemd's own text, such as C(/opt/shop/state/workers/%i). Empty for a
        path below it.
    type: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
ExecStart: "{{ ['celery', '-A', 'shop', 'worker'] | wsgi.host.exec_words('/opt/shop/current') }}"
"""

RETURN = r"""
_value:
  description: The words in one line.
  type: str
"""

PROGRAM = re.compile(r"[A-Za-z0-9_./+][A-Za-z0-9_./+-]*")
PLAIN = re.compile(r"[A-Za-z0-9_./+:=,@-]+")
INSTANCE = "{instance}"


def exec_words(words: Sequence[Any], directory: str) -> str:
    """Return the words as a line for systemd. Raises AnsibleFilterError without a program."""
    program, *rest = [str(word) for word in words] or [""]
    if not PROGRAM.fullmatch(program):
        raise AnsibleFilterError(f"exec_words: {program!r} cannot be a program's name or path")
    if not program.startswith("/"):
        folder = "app" if "/" in program else "bin"
        program = "/".join(part for part in (directory, folder, program) if part)
    return " ".join([program, *map(_quoted, rest)])


def _quoted(word: str) -> str:
    """One word, so that nothing in it means anything to systemd."""
    parts = [
        re.sub(r"[\\\"]", r"\\\g<0>", part).replace("%", "%%").replace("$", "$$")
        for part in word.split(INSTANCE)
    ]
    text = "%i".join(parts).replace("\n", r"\n").replace("\t", r"\t")
    return text if PLAIN.fullmatch(word) else f'"{text}"'


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"exec_words": exec_words}
