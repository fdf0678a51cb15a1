"""Takes longer to start than anybody waits."""

from __future__ import annotations

import time
from typing import Any

import marked


def apply(app: Any) -> None:
    time.sleep(3600)
    marked.apply(app)
