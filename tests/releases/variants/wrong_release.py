"""Healthy, but says that it is another release: whoever judges it has not reached what he meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import marked


def apply(app: Any) -> None:
    marked.apply(app)
    inner: marked.Wsgi = app.wsgi_app

    def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in ("/readyz", "/healthz", "/version"):
            return inner(environ, start)
        body = b"".join(inner(environ, lambda *_: None)).decode()
        other = re.sub(r'"release": *"[^"]*"', '"release": "0123456789ab"', body)
        return marked.answer(start, "200 OK", other)

    app.wsgi_app = wsgi
