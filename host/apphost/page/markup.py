"""HTML in which every value is escaped unless it was made here."""

from __future__ import annotations

import html
from typing import Union

# Without an end. Elements of SVG have one, or what follows would be in them.
VOID = frozenset({"meta"})


class Markup(str):
    """Text that is HTML already."""


Content = Union[str, int, float, Markup, None]  # noqa: UP007 (Python 3.9)


def escape(content: Content) -> Markup:
    """A value as HTML; nothing for None."""
    if isinstance(content, Markup):
        return content
    return Markup("" if content is None else html.escape(str(content), quote=True))


def tag(element: str, /, *contents: Content, **attributes: Content) -> Markup:
    """An element. `_` at the end of an attribute's name is left out, in it it becomes `-`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(each) for each in contents)
    start = f"<{element}{written}>"
    return Markup(start if element in VOID else f"{start}{inner}</{element}>")


def joined(*contents: Content) -> Markup:
    """Some content after each other."""
    return Markup("".join(escape(each) for each in contents))
