#!/usr/bin/python
"""Runs a program of the host that answers with one JSON object, secrets on its standard input."""

from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Run a program on the host that reports in JSON what it did
version_added: "0.1.0"
description:
  - C(command) knows nothing of what a program did, shows its arguments, and can only be silenced as a whole
    to keep a secret. This runs a program that prints one JSON object with C(changed) and C(msg), and takes
    that for the task's result.
  - A secret goes to the program's standard input. It is in no argument, log, diff or result.
  - What it did, or in check mode would do, is shown as the task's difference (C(--diff)).
  - In check mode the program gets O(check_argument), and must report what it would do. If it is not
    installed yet, or of a version that does not know the argument, it would change something.
options:
  argv:
    description: The program's absolute path and its arguments. Not for secrets.
    type: list
    elements: str
    required: true
  stdin:
    description: What the program reads from its standard input. Kept secret.
    type: str
    default: ""
  check_argument:
    description: The further argument in check mode.
    type: str
    default: --check
attributes:
  check_mode:
    support: full
    description: Reports what would change, and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes, before and after.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: move_out | Check the target database
  wsgi.host.program:
    argv: [/usr/local/sbin/toll-app, migrate, --json, --reach]
    stdin: "{{ vaulted_database_url }}"
"""

RETURN = r"""
msg:
  description: What the program did, or why it failed.
  type: str
  returned: always
rc:
  description: The program's exit code.
  type: int
  returned: when it was run
answer:
  description: The object that the program printed; of a failure without its C(msg), which is the task's.
  type: dict
  returned: when it printed one
program:
  description: Its path, the first of O(argv).
  type: str
  returned: when it went well
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

# Of a program that does not know an option: argparse's, and that of sysexits.h.
USAGE = (2, 64)
OUTPUT_LIMIT = 4000  # characters of what a program said that are shown if it is no answer


def read_answer(output: str) -> dict[str, Any] | None:
    """The JSON object that is the whole output, with a boolean `changed`, or None."""
    try:
        answer = json.loads(output)
    except ValueError:
        return None
    if isinstance(answer, dict) and isinstance(answer.get("changed"), bool):
        return answer
    return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "stdin": {"type": "str", "default": "", "no_log": True},
            "check_argument": {"type": "str", "default": "--check"},
        },
        supports_check_mode=True,
    )
    argv = module.params["argv"]
    if not argv or not os.path.isabs(argv[0]):
        module.fail_json(msg=f"argv is {argv!r}. Begin it with the absolute path of a program.")
    name = os.path.basename(argv[0])
    try:
        require_own(argv[0])
    except ForeignPathError as error:
        module.fail_json(msg=str(error))
    if module.check_mode:
        if not os.path.exists(argv[0]):
            words = f"{argv[0]} would be installed first, then run."
            module.exit_json(changed=True, msg=words, diff={"prepared": words + "\n"})
        argv = [*argv, module.params["check_argument"]]
    if not os.access(argv[0], os.X_OK):
        module.fail_json(
            msg=f"{argv[0]} is not on this host. Run the playbook that sets it up, site.yml."
        )
    code, out, err = module.run_command(argv, data=module.params["stdin"], binary_data=True)
    answer = read_answer(out)
    if code == 0 and answer is not None:
        told = str(answer.get("msg", ""))
        shown = {"diff": {"prepared": told + "\n"}} if answer["changed"] and told else {}
        module.exit_json(
            changed=answer["changed"], msg=told, answer=answer, rc=0, program=argv[0], **shown
        )
    if answer is not None and answer.get("msg"):
        # Ansible shows all of a failure. The message may be a page, and is enough once.
        said = str(answer.pop("msg"))
        module.fail_json(msg=said, answer=answer, rc=code)
    if module.check_mode and code in USAGE and answer is None:
        # The run itself would replace it first.
        words = f"{name} on this host is of another version and cannot say what it would do."
        module.exit_json(changed=True, msg=words, diff={"prepared": words + "\n"})
    words = (out + err).strip()[-OUTPUT_LIMIT:]
    how = f"ended with exit code {code}" if code else "did not answer with a JSON object"
    module.fail_json(msg=f"{name} {how}. Output:\n{words}", rc=code)


if __name__ == "__main__":
    environment.apply()
    main()
