"""Has a template compute each variable once, however deep in other variables it is read.

A variable's value is a template that reads other variables, whose values are templates too. Ansible
hands all variables to each of them anew: it wraps some 700 values, and computes again what another
one has computed. Within one template it keeps what it has computed already; this has those that are
read on its way keep the same.

Where ansible-core is otherwise, everything works as without it. See docs/decisions/0110.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Fewer are a layer of a loop or of an include, which costs nothing.
MANY = 50


def share() -> bool:
    """Do so from now on; returns whether that is possible here."""
    try:
        from ansible._internal._templating import _jinja_bits as engine
        from ansible._internal._templating._lazy_containers import _AnsibleLazyTemplateMixin
        from ansible._internal._templating._utils import TemplateContext

        ansibles = engine._flatten_and_lazify_vars
        kinds = (dict, engine._AnsibleTaggedDict)
        wrapped = _AnsibleLazyTemplateMixin._try_create
    except (ImportError, AttributeError):
        return False
    if getattr(ansibles, "shares", False):
        return True

    def layers(mapping: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        context = TemplateContext.current(optional=True)
        if context is None or type(mapping) not in kinds or len(mapping) < MANY:
            yield from ansibles(mapping)
            return
        templar = context.templar
        while context._parent_ctx:
            context = context._parent_ctx
        # Kept with the outermost template, and gone with it.
        known = context.__dict__.setdefault("wsgi_host_variables", {})
        key = (id(mapping), id(templar))
        if key not in known:
            # With what the key is made of, so that nothing else comes to its place in memory.
            known[key] = (wrapped(mapping), mapping, templar)
        yield known[key][0]

    layers.shares = True  # type: ignore[attr-defined]
    engine._flatten_and_lazify_vars = layers
    return True
