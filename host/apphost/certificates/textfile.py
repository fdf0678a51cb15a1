"""Measurements for node_exporter's textfile collector, for a host and not for an application."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Gauge:
    """One measurement; `about` is a sentence."""

    name: str
    about: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def text(gauges: Iterable[Gauge]) -> str:
    """The content of a file with these measurements."""
    lines: list[str] = []
    known = set()
    # All of one name have to follow one another.
    for gauge in sorted(gauges, key=lambda each: each.name):
        if gauge.name not in known:
            known.add(gauge.name)
            lines += [f"# HELP {gauge.name} {gauge.about}", f"# TYPE {gauge.name} gauge"]
        inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in gauge.labels.items())
        lines.append(
            f"{gauge.name}{{{inner}}} {gauge.value}" if inner else f"{gauge.name} {gauge.value}"
        )
    return "".join(f"{line}\n" for line in lines)


def write(path: Path, gauges: Iterable[Gauge]) -> None:
    """Replaces a file in one step, readable by everybody. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o644)
        stream.write(text(gauges))
    os.replace(fresh, path)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
