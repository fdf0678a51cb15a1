"""A good release of its own: says who it is in each answer, and can take its time.

Every variant is a file that tests/releases/variants.py puts beside app.py, which then calls
`apply(app)`. This one goes with all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

MARK = Path(__file__).with_name("mark")

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def answer(start: Callable[..., Any], status: str, body: str, mark: str = "") -> list[bytes]:
    """A JSON answer in place of the application's."""
    content = body.encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start(status, [*headers, ("X-Release", mark)])
    return [content]


class Marked:
    """Adds the mark to each answer; `/proof/slow?seconds=20` takes that long."""

    def __init__(self, wsgi: Wsgi) -> None:
        self.wsgi = wsgi
        self.mark = MARK.read_text().strip()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/proof/slow":
            time.sleep(float(parse_qs(environ["QUERY_STRING"])["seconds"][0]))
            return answer(start, "200 OK", '{"slept": true}', self.mark)

        def marked(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start(status, [*headers, ("X-Release", self.mark)], *more)

        return self.wsgi(environ, marked)


def apply(app: Any) -> None:
    """Wrap the application."""
    app.wsgi_app = Marked(app.wsgi_app)
