"""Descriptions of applications as the role `application` sees them, without a host."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ansible.template import Templar, trust_as_template
from ansible_collections.wsgi.host.plugins.action.describe import _with_what_follows
from ansible_collections.wsgi.host.plugins.plugin_utils import descriptions, families
from conftest import trusted

from .describing import read
from .render import FACTS, ROLES, evaluate

NAME = "shop"
SHORT: dict[str, Any] = {"source": "/srv/shop", "domains": ["shop.example.com"]}


def whole(own: Mapping[str, Any], family: str = "Debian", **host: Any) -> dict[str, Any]:
    """The whole description of an application, from what a person writes over the shortest one."""
    facts = {"ansible_facts": {"wsgi_host": {**FACTS[family], **host}}, "name": NAME}
    options = families.spread(read(ROLES / "application" / "meta" / "description.yml"))

    def compute(default: Any, so_far: Mapping[str, Any]) -> Any:
        return Templar(variables={**facts, **so_far}).template(default)

    description = descriptions.in_full({**SHORT, **own})
    filled = descriptions.filled(trusted(dict(description)), options, compute)
    return _with_what_follows(NAME, filled, _service(family))


@functools.lru_cache
def _service(family: str) -> dict[str, Any]:
    """The variables of the service's role, as it says them itself."""
    names = list(read(ROLES / "gunicorn_systemd" / "defaults" / "main.yml"))
    values = evaluate(
        "gunicorn_systemd", f"[{', '.join(names)}]", family, gunicorn_systemd_name=NAME
    )
    return dict(
        zip((name.removeprefix("gunicorn_systemd_") for name in names), values, strict=True)
    )


def problems(own: Mapping[str, Any], about: str, family: str = "Debian", **host: Any) -> list[str]:
    """What preflight's rules say to a description about one of its members."""
    [task] = [
        task
        for task in read(ROLES / "application" / "tasks" / "preflight.yml")
        if "wsgi.host.preflight" in task
    ]
    rules = task["wsgi.host.preflight"]["each"]["rules"]
    description = whole(own, family, **host)
    variables: dict[str, Any] = {
        "__application_entries": {NAME: description},
        "__application_entry": description,
        "__application_name": NAME,
        "wsgi_host": host,
    }
    found = []
    for rule in rules:
        if rule["variable"].split(".")[0] != about.split(".")[0] or rule["variable"] != about:
            continue
        if not evaluate("application", f"({rule['that']}) | bool", family, **variables):
            problem = _text(rule["problem"], family, variables)
            found.append(f"{problem}: {_text(rule['remedy'], family, variables)}")
    return found


def _text(text: str, family: str, variables: Mapping[str, Any]) -> str:
    variables = {**variables, "__text": trust_as_template(text)}
    return str(evaluate("application", "__text", family, **variables))
