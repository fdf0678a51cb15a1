"""Packages of the distribution that a description lists."""

from __future__ import annotations

from typing import Any

import pytest

from .described import NAME, problems, whole
from .render import FACTS, FAMILIES, evaluate


def missing(own: dict[str, Any], family: str) -> list[str]:
    variables = {
        "__application_entry": whole({**own, "backup": {"enabled": False}}, family),
        "__application_name": NAME,
        "__application_data_host": "web1",
        "inventory_hostname": "web1",
    }
    found: list[str] = evaluate(
        "application", "__application_missing_packages", family, **variables
    )
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_list_is_for_all_families(family: str) -> None:
    assert missing({"packages": ["libpq5", "curl"]}, family) == ["libpq5", "curl"]
    assert missing({}, family) == []


@pytest.mark.parametrize(("family", "names"), [("Debian", ["libpq5"]), ("RedHat", ["libpq"])])
def test_each_family_has_its_own_names(family: str, names: list[str]) -> None:
    assert missing({"packages": {"Debian": ["libpq5"], "RedHat": ["libpq"]}}, family) == names


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_installed_costs_no_call(family: str) -> None:
    """Each run would wait for the locks of the package manager, and fetch its lists."""
    there = next(iter(FACTS[family]["packages"]))
    assert missing({"packages": [there]}, family) == []


@pytest.mark.parametrize("name", ["--allow-downgrades", "libpq5=15.1", "libpq5 curl", ""])
def test_nothing_but_names_reaches_the_package_manager(name: str) -> None:
    """A word that begins with a hyphen would be an option of apt's."""
    [said] = problems({"packages": {"Debian": [name]}}, "packages")
    assert "is not the name of a package" in said


def test_good_names_pass() -> None:
    assert (
        problems({"packages": ["libstdc++6", "python3.11", "g++", "libc6:amd64"]}, "packages") == []
    )
