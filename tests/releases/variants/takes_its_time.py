"""Good, but needs some seconds to start."""

from __future__ import annotations

import time
from typing import Any

import marked


def apply(app: Any) -> None:
    time.sleep(4)
    marked.apply(app)
