"""Compiles each Jinja template of the tests once, and looks for each filter once.

Ansible compiles a template each time it is rendered, and searches the collections for its filters
whenever there is a new environment. That is most of the time of the tests that hold some thousand
values against the roles' rules. What a template compiles to depends on its text and on the settings
of its environment; only what compiles is remembered. Filters depend on their names alone.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

from ansible._internal._templating._jinja_bits import AnsibleEnvironment, _TemplateCompileContext
from ansible.plugins.loader import Jinja2Loader
from jinja2 import Environment, nodes
from jinja2.environment import TemplateExpression
from jinja2.parser import Parser

SETTINGS = (
    *("block_start_string", "block_end_string", "variable_start_string", "variable_end_string"),
    *("comment_start_string", "comment_end_string", "trim_blocks", "lstrip_blocks"),
    *("keep_trailing_newline", "newline_sequence"),
)
KNOWN: dict[Any, CodeType] = {}
# Filters and tests by their kind and name, None for those that no collection has.
PLUGINS: dict[tuple[str, str], Any] = {}


def remember() -> None:
    """Do so from now on."""
    compile_any = Environment.compile

    def compiled(self: Any, source: Any, *rest: Any, **more: Any) -> Any:
        if not isinstance(source, str):
            return compile_any(self, source, *rest, **more)
        key = (*key_of(self, source), rest, *sorted(more.items()))
        if key not in KNOWN:
            KNOWN[key] = compile_any(self, source, *rest, **more)
        return KNOWN[key]

    def expression(self: Any, source: str, undefined_to_none: bool = True) -> TemplateExpression:
        key = ("expression", *key_of(self, source))
        if key not in KNOWN:
            parser = Parser(self, source, state="variable")
            parsed = parser.parse_expression()
            if not parser.stream.eos:
                return compile_expression(self, source, undefined_to_none)
            parsed.set_environment(self)
            body = [nodes.Assign(nodes.Name("result", "store"), parsed, lineno=1)]
            KNOWN[key] = compile_any(self, nodes.Template(body, lineno=1))
        template = self.template_class.from_code(self, KNOWN[key], self.make_globals(None), None)
        return TemplateExpression(template, undefined_to_none)

    def plugin(self: Any, name: str, *rest: Any, **more: Any) -> Any:
        key = (self.type, name)
        if key not in PLUGINS:
            try:
                PLUGINS[key] = get(self, name, *rest, **more)
            except KeyError:
                # Jinja then turns to its own, as it does where nothing is returned.
                PLUGINS[key] = None
        return PLUGINS[key]

    get = Jinja2Loader.get
    Jinja2Loader.get = plugin
    compile_expression = Environment.compile_expression
    AnsibleEnvironment.compile = compiled
    AnsibleEnvironment.compile_expression = expression


def key_of(environment: Any, source: str) -> tuple[Any, ...]:
    """What the code of a template depends on."""
    context = _TemplateCompileContext.current(optional=True)
    escapes = None if context is None else context.escape_backslashes
    settings = (getattr(environment, name) for name in SETTINGS)
    return (type(environment), str(source), escapes, *settings)
