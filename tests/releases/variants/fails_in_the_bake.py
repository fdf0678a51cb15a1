"""Ready at first; some seconds after a process has started, it is not any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import marked

# Longer than it mostly takes to judge (judged bad for it, it does not get through either), and
# shorter than the bake.
GOOD_SECONDS = 4.0


def apply(app: Any) -> None:
    marked.apply(app)
    inner: marked.Wsgi = app.wsgi_app
    end = time.monotonic() + GOOD_SECONDS

    def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/readyz" and time.monotonic() > end:
            return marked.answer(start, "503 Service Unavailable", '{"status": "gone bad"}')
        return inner(environ, start)

    app.wsgi_app = wsgi
