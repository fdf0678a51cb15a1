"""Which tests of a scenario run on which host, and in which order."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

CONFTEST = Path(__file__).parents[2] / "molecule" / "conftest.py"


@pytest.fixture
def molecule(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """molecule/conftest.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("molecule_conftest", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def item(
    host: str = "",
    one_system: int = 0,
    named: list[str] | None = None,
    needs: tuple[str, ...] = (),
    proof: bool = False,
) -> Any:
    """A test as pytest collects it."""
    backend = SimpleNamespace(get_pytest_id=lambda: f"ansible://{host}")
    parameters = {"_testinfra_host": SimpleNamespace(backend=backend)} if host else {}
    marks = {"one_system": SimpleNamespace(args=(one_system,))} if one_system else {}
    if proof:
        marks["proof"] = SimpleNamespace(args=())
    return SimpleNamespace(
        callspec=SimpleNamespace(params=parameters),
        module=SimpleNamespace(**({"testinfra_hosts": named} if named else {})),
        fixturenames=[*needs],
        get_closest_marker=marks.get,
    )


@pytest.mark.parametrize(
    ("found", "runs"),
    [
        (item(), True),
        (item(proof=True), False),
        (item("debian12"), True),
        (item("debian12", one_system=12), True),
        (item("debian13", one_system=12), False),
        (item("changed-13", one_system=13), True),
        # It has no sibling of another system.
        (item("watcher", one_system=12), True),
        (item("debian12", proof=True), False),
        (item("watcher", named=["ansible://watched"]), False),
        (item("watched", named=["ansible://watched"]), True),
    ],
)
def test_a_test_runs_on_the_hosts_that_it_is_for(molecule, found, runs):
    assert molecule.fits(found) is runs


def test_a_proof_tries_every_system(molecule, monkeypatch):
    monkeypatch.setattr(molecule, "EVERY_SYSTEM", True)
    assert molecule.fits(item("debian13", one_system=12))
    assert molecule.fits(item("debian13", proof=True))
    assert not molecule.fits(item("watcher", named=["ansible://watched"]))


def test_a_stage_that_changes_the_hosts_comes_after_those_that_do_not(molecule):
    """Whatever the names of the files are."""
    a = item(needs=("moved",))
    b = item(needs=("broken",))
    c = item(needs=("host",))
    d = item(needs=("broken", "mended"))
    plugins = [SimpleNamespace(STAGES=("broken", "mended", "moved"), __file__="conftest.py")]
    config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugins=lambda: plugins))
    items = [a, b, c, d]
    molecule.pytest_collection_modifyitems(config, items)
    assert items == [c, b, d, a]


def test_without_stages_the_order_stays(molecule):
    config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugins=lambda: []))
    items = [item(needs=("moved",)), item()]
    expected = list(items)
    molecule.pytest_collection_modifyitems(config, items)
    assert items == expected
