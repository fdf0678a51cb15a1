"""Raises while the application is made."""

from __future__ import annotations

from typing import Any


def apply(app: Any) -> None:
    raise RuntimeError("this release cannot start")
