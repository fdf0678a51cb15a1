"""The ceiling: the WSGI application called in this process, without a server, on one core.

    inprocess.py PATH SECONDS < /dev/null

Runs on the host with a release's Python, in the release's folder. Prints one line of JSON.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import time
from typing import Any


def environment(address: str) -> dict[str, Any]:
    """What a server gives the application with a request."""
    path, _, query = address.partition("?")
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "bench.test",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "bench.test",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1",
        "HTTP_X_FORWARDED_HOST": "bench.test",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def main(address: str, seconds: float) -> None:
    """Call it for some seconds, after half a second that does not count."""
    sys.path.insert(0, ".")
    app = importlib.import_module("app").app

    statuses: list[str] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> None:
        statuses.append(status)

    def once() -> None:
        body = app.wsgi_app(environment(address), start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    warm = time.perf_counter() + 0.5
    while time.perf_counter() < warm:
        once()
    statuses.clear()
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() < start + seconds:
        once()
    took, used = time.perf_counter() - start, time.process_time() - cpu
    wrong = sum(not status.startswith("200") for status in statuses)
    print(json.dumps({"calls": len(statuses), "wrong": wrong, "seconds": took, "cpu": used}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
