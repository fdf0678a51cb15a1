"""The master starts, and each worker dies as soon as there is one."""

from __future__ import annotations

import os
from typing import Any

import marked


def apply(app: Any) -> None:
    marked.apply(app)
    os.register_at_fork(after_in_child=lambda: os._exit(1))
