"""Measurements in the format of Prometheus, for node_exporter's textfile collector.

The names are the same for all applications; a label says which one it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """One measurement.

    Attributes:
        kind: `gauge` or `counter`.
        about: what it is, in a sentence.
        value: None for one that is not known, which is left out: a zero in its place would end an
            alert.
        labels: besides the application.
    """

    name: str
    kind: str
    about: str
    value: float | None
    labels: dict[str, str] = field(default_factory=dict)


def text(application: str, metrics: Iterable[Metric]) -> str:
    """The content of a file with these measurements of an application."""
    lines = []
    for metric in metrics:
        if metric.value is None:
            continue
        labels = {"application": application, **metric.labels}
        inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        lines += [
            f"# HELP {metric.name} {metric.about}",
            f"# TYPE {metric.name} {metric.kind}",
            f"{metric.name}{{{inner}}} {metric.value}",
        ]
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
