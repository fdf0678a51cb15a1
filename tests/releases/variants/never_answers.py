"""Starts, and leaves every question without an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any


def apply(app: Any) -> None:
    def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(3600)
        return []

    app.wsgi_app = wsgi
