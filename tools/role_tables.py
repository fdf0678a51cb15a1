#!/usr/bin/env python3
"""Writes the table of each role's variables into its README, from its argument specification.

The table stands between `<!-- variables -->` and `<!-- /variables -->`. A role with
meta/description.yml has a second one, between `<!-- description -->` and `<!-- /description -->`.
With `--check` nothing is written, and the exit status is 1 if a table is not up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
VARIABLES, DESCRIPTION = "variables", "description"
LONG = 60  # characters of a default that a cell of the table holds


class TableError(Exception):
    """A role whose README has no place for the table, or that documents no variables."""


def roles(folder: Path) -> list[Path]:
    """The folders of the roles, by name."""
    return sorted(path.parent.parent for path in folder.glob("*/meta/argument_specs.yml"))


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of a role's entry point `main`.

    Raises TableError if it has none.
    """
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    try:
        found: dict[str, dict[str, Any]] = specs["argument_specs"]["main"]["options"]
    except (KeyError, TypeError) as error:
        raise TableError(f"{role.name}: no options of the entry point main") from error
    return found


def text(description: str | list[str]) -> str:
    """A description as Markdown in one line, with Ansible's markup turned into code."""
    joined = " ".join([description] if isinstance(description, str) else description)
    plain = " ".join(joined.split())
    return re.sub(r"\b[BCIMOPV]\(([^)]*)\)", r"`\1`", plain).replace("|", "\\|")


def type_name(option: Mapping[str, Any]) -> str:
    """A type as a reader says it: `list of dict`, or the choices."""
    name = str(option.get("type", "str"))
    if name == "list" and "elements" in option:
        name = f"list of {option['elements']}"
    return name


def default(option: Mapping[str, Any]) -> str:
    """The default for a cell of the table."""
    if option.get("required"):
        return "**required**"
    if option.get("default") is None:
        return ""
    value = option["default"]
    shown = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    shown = " ".join(str(shown).split())
    if len(shown) > LONG:
        shown = f"{shown[:LONG]}..."
    return f"`{shown}`".replace("|", "\\|")


def rows(found: Mapping[str, Mapping[str, Any]], prefix: str = "") -> Iterator[str]:
    """A row per option, each followed by those below it: `sites[].name`.

    Siblings whose members are the same have rows for them once.
    """
    told: list[tuple[str, Any]] = []
    for name, option in found.items():
        full = f"{prefix}{name}"
        about = text(option.get("description", ""))
        below = option.get("options", {})
        same = next((each for each, members in told if below and members == below), "")
        told.append((full, below))
        if same:
            about += f" Its members are those of `{same}`."
        if "choices" in option:
            about += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
        if option.get("no_log"):
            about += " A secret: never shown, belongs into a vault."
        yield f"| `{full}` | {type_name(option)} | {default(option)} | {about} |"
        if not same:
            step = "[]." if option.get("type") == "list" else "."
            yield from rows(below, f"{full}{step}")
        if "values" in option:
            yield from rows(option["values"], f"{full}.NAME.")
        if "families" in option:
            yield from rows({"FAMILY": option["families"]}, f"{full}.")


def tables(role: Path) -> Iterator[tuple[str, str]]:
    """The tables of a role, each with what its place in the README is called."""
    head = ["| variable | type | default | what it is for |", "| --- | --- | --- | --- |"]
    yield VARIABLES, "\n".join([*head, *rows(options(role))])
    described = role / "meta" / "description.yml"
    if described.is_file():
        head[0] = head[0].replace("variable", "member")
        members = yaml.safe_load(described.read_text(encoding="utf-8"))
        yield DESCRIPTION, "\n".join([*head, *rows(members)])


def with_table(readme: str, place: str, wanted: str) -> str:
    """A README's text with this table between the markers of a place.

    Raises TableError if there is no such place, or more than one.
    """
    start, end = f"<!-- {place} -->", f"<!-- /{place} -->"
    if readme.count(start) != 1 or readme.count(end) != 1 or readme.find(start) > readme.find(end):
        raise TableError(f"put {start} and {end} where the table belongs, once")
    before, rest = readme.split(start)
    return f"{before}{start}\n{wanted}\n{end}{rest.split(end)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, say what is out of date"
    )
    parser.add_argument("--roles", type=Path, default=PROJECT / "roles", help="folder of the roles")
    chosen = parser.parse_args(arguments)
    status = 0
    for role in roles(chosen.roles):
        path = role / "README.md"
        try:
            before = path.read_text(encoding="utf-8")
            after = before
            for place, wanted in tables(role):
                after = with_table(after, place, wanted)
        except (OSError, TableError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            status = 1
            continue
        if before == after:
            continue
        if chosen.check:
            print(f"{path}: out of date; run tools/role_tables.py", file=sys.stderr)
            status = 1
        else:
            path.write_text(after, encoding="utf-8")
            print(f"{path}: written")
    return status


if __name__ == "__main__":
    sys.exit(main())
