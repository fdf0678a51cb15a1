"""Good everywhere but on one host of each fleet, where it is never ready."""

from __future__ import annotations

import importlib
import socket
from typing import Any

BAD = ("debian13", "web2")


def apply(app: Any) -> None:
    name = "never_ready" if socket.gethostname() in BAD else "marked"
    importlib.import_module(name).apply(app)
