"""The file of what Jinja has compiled. That it is used: test_quick_forks.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.paths import ForeignPathError
from ansible_collections.wsgi.host.plugins.plugin_utils.compiled_templates import Store

KEYS = [bytes([number]) * 16 for number in range(3)]


def test_forks_and_later_runs_know_what_was_compiled(tmp_path: Path) -> None:
    path = tmp_path / "home" / "a.codes"
    parent = Store(path)
    assert parent.get(KEYS[0]) is None
    if not (child := os.fork()):
        parent.add(KEYS[0], b"code")
        os._exit(0)
    os.waitpid(child, 0)
    assert parent.get(KEYS[0]) == b"code"
    assert Store(path).get(KEYS[0]) == b"code"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_half_a_record_costs_that_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.codes"
    first = Store(path)
    first.add(KEYS[0], b"whole")
    first.add(KEYS[1], b"in the middle of this the power was cut")
    os.truncate(path, path.stat().st_size - 5)
    again = Store(path)
    assert (again.get(KEYS[0]), again.get(KEYS[1])) == (b"whole", None)
    again.add(KEYS[2], b"later")
    assert Store(path).get(KEYS[2]) == b"later"


def test_a_changed_byte_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.codes"
    Store(path).add(KEYS[0], b"code")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"code", b"cose"))
    assert Store(path).get(KEYS[0]) is None


@pytest.mark.parametrize("mode", [0o660, 0o606])
def test_what_others_can_write_to_is_not_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.codes"
    Store(path)
    path.chmod(mode)
    with pytest.raises(ForeignPathError):
        Store(path)


def test_a_directory_that_others_can_change_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ForeignPathError):
        Store(tmp_path / "home" / "a.codes")
    assert not (tmp_path / "home").exists()
