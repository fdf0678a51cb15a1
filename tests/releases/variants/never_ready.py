"""Starts, answers, and is never ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import marked


def apply(app: Any) -> None:
    marked.apply(app)
    inner: marked.Wsgi = app.wsgi_app

    def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/readyz":
            return marked.answer(start, "503 Service Unavailable", '{"status": "never"}')
        return inner(environ, start)

    app.wsgi_app = wsgi
