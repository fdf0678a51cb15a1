"""Each worker answers at first, and dies a second after it was started."""

from __future__ import annotations

import os
import threading
from typing import Any

import marked


def apply(app: Any) -> None:
    marked.apply(app)

    def later() -> None:
        timer = threading.Timer(1.0, os._exit, (1,))
        timer.daemon = True
        timer.start()

    os.register_at_fork(after_in_child=later)
