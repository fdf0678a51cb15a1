"""The package runs wherever a host's Python does, whatever else an upgrade has taken away."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import apphost
import pytest

PACKAGE = Path(apphost.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
OLDEST = (3, 9)
MOST_LINES = 400


def imported(tree: ast.Module) -> Iterator[str]:
    """The names of what a module imports, anywhere in it, but for its own package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_module_is_short_self_sufficient_and_for_an_old_python(path: Path) -> None:
    """A host has nothing but its own Python, and people read what runs there as root."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source, str(path), feature_version=OLDEST)
    foreign = {name.partition(".")[0] for name in imported(tree)} - sys.stdlib_module_names
    assert foreign <= {"apphost"}, "a host may not have it"
    assert len(source.splitlines()) <= MOST_LINES, "split it by concern"
    # Without it, an annotation such as `str | None` is evaluated at once, and fails on 3.9.
    if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body):
        assert "from __future__ import annotations\n" in source
