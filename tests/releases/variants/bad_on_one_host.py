"""Good everywhere but on the host that is called debian13, where it is never ready."""

from __future__ import annotations

import importlib
import socket
from typing import Any

BAD = "debian13"


def apply(app: Any) -> None:
    name = "never_ready" if socket.gethostname() == BAD else "marked"
    importlib.import_module(name).apply(app)
