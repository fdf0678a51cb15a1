"""JSON log lines on standard error, each naming the request that it belongs to.

nginx's access log has a line for each request; this one has what needs somebody's attention.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import uuid
from datetime import UTC, datetime
from typing import TextIO

from flask import Flask, Response, g, has_request_context, request

from toll.proxy import from_proxy
from toll.settings import Settings

# What nginx and load balancers send. Anything else could forge lines in somebody's log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class JsonFormatter(logging.Formatter):
    """One JSON object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its time (UTC), its request and its traceback."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if has_request_context():
            line |= {
                "request_id": request_id(),
                "method": request.method,
                "path": request.path,
                "client": request.remote_addr or "",
            }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class JournalFormatter(JsonFormatter):
    """The same behind the priority that journald takes from a line's beginning (sd-daemon(3)), so
    that `journalctl --priority=err` finds what failed."""

    PRIORITIES = (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
    )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with its priority; journald takes that off again."""
        priority = next((each for level, each in self.PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{super().format(record)}"


def is_journal(stream: TextIO) -> bool:
    """Whether journald reads the stream. The variable alone may be inherited from a parent."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def request_id() -> str:
    """Return the id that the proxy gave the request, or one made here."""
    if "request_id" not in g:
        # From anybody else it could be the id of somebody else's request.
        given = request.headers.get("X-Request-Id", "") if from_proxy() else ""
        g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return str(g.request_id)


def init_app(app: Flask, settings: Settings) -> None:
    """Send the package's records to standard error and name the request in each answer."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.development:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    else:
        handler.setFormatter(JournalFormatter() if is_journal(sys.stderr) else JsonFormatter())
    logger = logging.getLogger("toll")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)

    @app.after_request
    def name_request(response: Response) -> Response:
        response.headers["X-Request-Id"] = request_id()
        return response
