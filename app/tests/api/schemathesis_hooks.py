"""Lets Schemathesis know what there is: a made-up plaza is refused, however well it is written.

Only what fits the document is replaced, and only sometimes: what is wrong stays wrong.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*", re.ASCII)
KNOWN = {
    "plaza": (CODE, "harbour-bridge"),
    "class": (CODE, "car"),
    # Any text without control characters fits the document, and few of them are plates.
    "plate": (re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,40}"), "AB-12-CD"),
}
# Opaque, so the document cannot say which text is one: 2026-05-04T07:15:00+00:00 7.
CURSOR = (
    re.compile(r"[A-Za-z0-9_=.:-]{1,100}", re.ASCII),
    "MjAyNi0wNS0wNFQwNzoxNTowMCswMDowMCA3",
)


def known(fields: Any) -> Any:
    """Return an object with plazas and classes that there are, and times that have a tariff."""
    # By what it holds, so that a run can be repeated.
    if not isinstance(fields, dict) or len(str(fields)) % 3 == 0:
        return fields
    fields = dict(fields)
    for name, (pattern, value) in KNOWN.items():
        if isinstance(fields.get(name), str) and pattern.fullmatch(fields[name]):
            fields[name] = value
    passed_at = fields.get("passed_at")
    if isinstance(passed_at, str) and MOMENT.fullmatch(passed_at):
        fields["passed_at"] = f"2026-05-04{passed_at[10:]}"
    return fields


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Change a body, and what is listed in it."""
    if isinstance(body, dict) and isinstance(body.get("passages"), list):
        return body | {"passages": [known(each) for each in body["passages"]]}
    return known(body)


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: Any) -> Any:
    """Change a query."""
    pattern, cursor = CURSOR
    if isinstance(query, dict) and pattern.fullmatch(str(query.get("cursor", ""))):
        query = query | {"cursor": cursor}
    return known(query)
