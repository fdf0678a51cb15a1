"""Compiles each Jinja template of the tests once; the same few hundred are rendered all the time.

Ansible compiles a template each time it is rendered, which is half of the time of the tests that
hold some thousand values against the roles' rules. What a template compiles to depends on its text
and on the settings of its environment; only what compiles is remembered.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

from ansible._internal._templating._jinja_bits import AnsibleEnvironment, _TemplateCompileContext
from jinja2 import Environment, nodes
from jinja2.environment import TemplateExpression
from jinja2.parser import Parser

SETTINGS = (
    *("block_start_string", "block_end_string", "variable_start_string", "variable_end_string"),
    *("comment_start_string", "comment_end_string", "trim_blocks", "lstrip_blocks"),
    *("keep_trailing_newline", "newline_sequence"),
)
KNOWN: dict[Any, CodeType] = {}


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

    compile_expression = Environment.compile_expression
    AnsibleEnvironment.compile = compiled
    AnsibleEnvironment.compile_expression = expression


def key_of(environment: Any, source: str) -> tuple[Any, ...]:
    """What the code of a template depends on."""
    context = _TemplateCompileContext.current(optional=True)
    escapes = None if context is None else context.escape_backslashes
    settings = (getattr(environment, name) for name in SETTINGS)
    return (type(environment), str(source), escapes, *settings)
