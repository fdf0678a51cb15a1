#!/usr/bin/python
"""Asks a service over HTTP until its answers are good, or says what was wrong with the last one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: judge
short_description: Ask a service over HTTP until its answers are good
version_added: "0.1.0"
description:
  - That a unit is active says only that a process exists. This asks the service itself, from its host,
    over a unix socket or TCP, with or without TLS, and wants O(count) good answers in a row.
  - A failure names the last answer and ends with the journal of O(unit).
  - Never changes anything. In check mode nothing is requested, since what would answer may not be there yet.
options:
  connect:
    description: Where to connect, C(unix:/path), C(address:port) or C([address]:port).
    type: str
    required: true
  path:
    description: Path and query to ask for.
    type: str
    default: /
  name:
    description: Name of the site, sent as C(Host) and, with O(tls), as the server name of the handshake.
    type: str
    default: localhost
  tls:
    description: >-
      Speak TLS. The certificate is not verified: this judges the service, and a first certificate may be
      a placeholder.
    type: bool
    default: false
  status:
    description: The status of a good answer.
    type: int
    default: 200
  json:
    description: Members of the JSON object in a good answer, with their values.
    type: dict
    default: {}
  count:
    description: Required number of good answers in a row.
    type: int
    default: 1
  interval_seconds:
    description: Seconds between two requests.
    type: float
    default: 0.2
  time_limit_seconds:
    description: >-
      Seconds after which the service is judged to be bad, even in the middle of an answer. One answer may
      take 10 seconds of them.
    type: float
    default: 30
  unit:
    description: The systemd unit whose journal is shown with a failure.
    type: str
  journal_lines:
    description: Number of lines of that journal to show.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: check | Ask for the new release through nginx
  wsgi.host.judge:
    connect: 127.0.0.1:443
    tls: true
    name: app.example.com
    path: /readyz
    json: {release: "{{ release_id }}"}
    unit: toll-app.service
"""

RETURN = r"""
answer:
  description: The last answer, C(status) and the first 2000 characters of C(body).
  type: dict
  returned: always
asked:
  description: How many questions were asked.
  type: int
  returned: always
seconds:
  description: How long it took until the verdict.
  type: float
  returned: always
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.apphost.http import (
    LateError,
    NoAnswerError,
    get,
)

ANSWER_TIMEOUT = 10.0  # seconds that one answer may take before it counts as bad
BODY_LIMIT = 2000  # characters of an answer that are shown


def judge(params: dict[str, Any]) -> dict[str, Any]:
    """Asks until `count` good answers in a row or the time limit. The result has `fault` if bad."""
    start = time.monotonic()
    good = asked = 0
    status, body, wrong = 0, "", ""
    while True:
        left = params["time_limit_seconds"] - (time.monotonic() - start)
        asked += 1
        try:
            answer = get(
                params["connect"],
                params["path"],
                deadline=max(0.1, min(ANSWER_TIMEOUT, left)),
                name=params["name"],
                tls=params["tls"],
                agent="judge",
            )
            status, body = answer.status, answer.text
            wrong = answer.fault(params["status"], params["json"])
        except NoAnswerError as error:
            # A question that the time limit cut off says less than the answer before it.
            cut_off = isinstance(error, LateError) and left < ANSWER_TIMEOUT
            if not (cut_off and status and wrong):
                status, body, wrong = 0, "", error.words
        good = 0 if wrong else good + 1
        seconds = time.monotonic() - start
        if (
            good >= params["count"]
            or seconds + params["interval_seconds"] > params["time_limit_seconds"]
        ):
            break
        time.sleep(params["interval_seconds"])
    result: dict[str, Any] = {
        "changed": False,
        "asked": asked,
        "seconds": round(seconds, 3),
        "answer": {"status": status, "body": body[:BODY_LIMIT]},
    }
    if good < params["count"]:
        result["fault"] = wrong or f"gave {good} good answers of {params['count']}"
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connect": {"type": "str", "required": True},
            "path": {"type": "str", "default": "/"},
            "name": {"type": "str", "default": "localhost"},
            "tls": {"type": "bool", "default": False},
            "status": {"type": "int", "default": 200},
            "json": {"type": "dict", "default": {}},
            "count": {"type": "int", "default": 1},
            "interval_seconds": {"type": "float", "default": 0.2},
            "time_limit_seconds": {"type": "float", "default": 30.0},
            "unit": {"type": "str"},
            "journal_lines": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="Nothing is asked in check mode.")
    result = judge(params)
    wrong = result.pop("fault", None)
    if wrong is None:
        module.exit_json(**result)
    lines = [
        f"{params['path']} at {params['connect']} {wrong}, after {result['asked']} questions "
        f"in {result['seconds']} s."
    ]
    if result["answer"]["body"]:
        lines.append(f"The last answer: {result['answer']['body'][:300]}")
    if params["unit"]:
        journalctl = ["journalctl", "--no-pager", "-o", "short-iso", "-u", params["unit"]]
        # What a unit printed waits behind what systemd says of its end.
        module.run_command(["journalctl", "--sync"])
        _, journal, _ = module.run_command([*journalctl, "-n", str(params["journal_lines"])])
        lines.append(f"The end of the journal of {params['unit']}:\n{journal.strip()}")
    module.fail_json(msg="\n".join(lines), **result)


if __name__ == "__main__":
    environment.apply()
    main()
