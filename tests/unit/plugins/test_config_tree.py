"""`wsgi.host.config_tree`: what is compared, checked, swapped, put back and reported."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import TreeError
from ansible_collections.wsgi.host.plugins.module_utils.config_trees import (
    comparing,
    records,
    swapping,
)
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import decode
from ansible_collections.wsgi.host.plugins.modules import config_tree


class Host:
    """The module's view of a host: a folder for the tree, records and the answers of the checks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: list[str] = []
        self.check_mode = False
        self.params: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        return self.root / "etc" / name

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def selinux_enabled(self) -> bool:
        return False

    def run_command(
        self, argv: list[str], environ_update: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(environ_update or {})},
        )
        return done.returncode, done.stdout, done.stderr

    def apply(self, files: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Puts `files` (name: text, or name: options) in place as the module would."""
        wanted = []
        for name, given in files.items():
            entry = dict(given) if isinstance(given, dict) else {"content": given}
            if "content" in entry:
                entry["content"] = base64.b64encode(entry["content"].encode()).decode()
            me = {"owner": str(os.getuid()), "group": str(os.getgid())}
            base = {"dest": str(self.path(name)), "mode": "0644", "secret": False, **me}
            wanted.append({**base, **entry})
        payload = base64.b64encode(zlib.compress(json.dumps(wanted).encode())).decode()
        self.params = {
            "name": "tree",
            "directories": [],
            "inputs": {},
            "stage": [],
            "checks": [],
            "needs_apply": False,
            "units": [],
            "revertible": False,
            **options,
        }
        return config_tree.put_in_place(self, decode(payload))

    def mark_applied(self, *units: str) -> dict[str, Any]:
        self.params = {"units": list(units)}
        return config_tree.mark_applied(self, "tree")

    def revert(self) -> dict[str, Any]:
        return config_tree.revert(self, "tree")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(comparing, "DPKG_STATUS", tmp_path / "status")
    return Host(tmp_path)


def contents(host: Host) -> dict[str, str]:
    folder = host.root / "etc"
    return {p.name: p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_second_run_changes_nothing(host: Host) -> None:
    assert host.apply({"a": "1", "b": "2"})["changed"]
    result = host.apply({"a": "1", "b": "2"})
    assert not result["changed"]
    assert result["files"] == {}
    assert result["diff"] == []


def test_check_mode_reports_and_writes_nothing(host: Host) -> None:
    host.check_mode = True
    result = host.apply({"a": "1"})
    assert result["changed"]
    assert result["files"] == {str(host.path("a")): "created"}
    assert not host.path("a").exists()
    assert not records.RECORDS.exists()


def test_permissions_alone_are_a_change_and_are_mended(host: Host) -> None:
    host.apply({"a": "1"})
    host.path("a").chmod(0o666)
    result = host.apply({"a": "1"})
    assert result["files"] == {str(host.path("a")): "permissions"}
    assert stat.S_IMODE(host.path("a").stat().st_mode) == 0o644


def test_file_that_is_no_longer_wanted_goes(host: Host) -> None:
    """Otherwise a site that left the inventory would be served for ever."""
    host.apply({"a": "1", "b": "2"})
    result = host.apply({"a": "1"})
    assert result["files"] == {str(host.path("b")): "removed"}
    assert contents(host) == {"a": "1"}


def test_file_of_somebody_else_stays(host: Host) -> None:
    host.apply({"a": "1"})
    host.path("foreign").write_text("mine")
    assert not host.apply({"a": "1"})["changed"]
    assert contents(host) == {"a": "1", "foreign": "mine"}


def test_edit_by_hand_is_reported_and_kept(host: Host) -> None:
    """An emergency change at night must not vanish without a trace."""
    host.apply({"a": "1"})
    host.path("a").write_text("emergency")
    result = host.apply({"a": "1"})
    copy = Path(result["edited"][str(host.path("a"))])
    assert copy.read_text() == "emergency"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "had been written by somebody else" in host.warnings[0]
    assert str(copy) in host.warnings[0]


def test_distributions_own_file_is_replaced_without_a_word(host: Host, tmp_path: Path) -> None:
    host.path("a").parent.mkdir()
    host.path("a").write_text("stock\n")
    md5 = hashlib.md5(b"stock\n", usedforsecurity=False).hexdigest()
    (tmp_path / "status").write_text(f"Package: x\nConffiles:\n {host.path('a')} {md5}\n")
    assert host.apply({"a": "1"})["edited"] == {}
    assert host.warnings == []


def test_failed_check_changes_nothing_and_names_the_file(host: Host) -> None:
    host.apply({"a": "good", "b": "good"})
    check = {"argv": ["grep", "-rL", "good", "{stage}" + str(host.root / "etc")]}
    fails = {"argv": ["sh", "-c", f"! {' '.join(check['argv'])} | grep ."]}
    with pytest.raises(TreeError) as error:
        host.apply({"a": "good", "b": "broken", "c": "good"}, checks=[fails])
    assert str(host.path("b")) in str(error.value)
    assert "nothing was changed" in str(error.value)
    assert "config-tree-" not in str(error.value)
    assert contents(host) == {"a": "good", "b": "good"}


def test_checks_see_foreign_files_and_not_the_removed(host: Host) -> None:
    """One foreign file that is broken breaks the service as surely as one of ours."""
    host.apply({"a": "1", "gone": "2"})
    host.path("foreign").write_text("mine")
    listing = host.root / "listing"
    etc = str(host.root / "etc")
    host.apply(
        {"a": "2"},
        stage=[etc],
        checks=[{"argv": ["sh", "-c", f"ls {{stage}}{etc} > {listing}"]}],
    )
    assert listing.read_text().split() == ["a", "foreign"]


def test_missing_program_of_a_check(host: Host) -> None:
    checks = [{"argv": ["/nowhere/nginx", "-t"]}]
    with pytest.raises(TreeError, match="/nowhere/nginx is not installed"):
        host.apply({"a": "1"}, checks=checks)
    assert not host.path("a").exists()
    host.check_mode = True
    assert host.apply({"a": "1"}, checks=checks)["changed"]
    assert "not installed yet" in host.warnings[0]


def test_needs_of_a_check_matter_in_check_mode_only(host: Host) -> None:
    """A certificate that the run itself would make must not fail the dry run."""
    checks = [{"argv": ["false"], "needs": [str(host.root / "certificate")]}]
    with pytest.raises(TreeError, match="false refused"):
        host.apply({"a": "1"}, checks=checks)
    host.check_mode = True
    assert host.apply({"a": "1"}, checks=checks)["changed"]
    (host.root / "certificate").touch()
    with pytest.raises(TreeError, match="false refused"):
        host.apply({"a": "1"}, checks=checks)


def test_failed_write_puts_everything_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply({"a": "1", "b": "1", "c": "1"})
    write = swapping.write_bytes

    def full_disk(path: Path, *rest: Any) -> None:
        if path.name == "c" and rest[0] == b"2":
            raise OSError(28, "No space left on device")
        write(path, *rest)

    monkeypatch.setattr(swapping, "write_bytes", full_disk)
    with pytest.raises(TreeError, match="No space left on device"):
        host.apply({"a": "2", "c": "2", "d": "2"})
    assert contents(host) == {"a": "1", "b": "1", "c": "1"}


def test_lost_handlers_run_in_the_next_run(host: Host) -> None:
    """A run that was cut off after writing leaves a service that runs with the old files."""
    assert host.apply({"a": "1"}, needs_apply=True)["changed"]
    again = host.apply({"a": "1"}, needs_apply=True)
    assert again["changed"]
    assert again["pending"]
    assert "did not finish" in again["msg"]
    host.mark_applied()
    assert not host.apply({"a": "1"}, needs_apply=True)["changed"]


def test_interrupted_swap_is_not_taken_for_an_edit(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.apply({"a": "1", "b": "1"}, needs_apply=True)
    host.mark_applied()

    class PowerCut(BaseException):
        pass

    write = swapping.write_bytes

    def cut(path: Path, *rest: Any) -> None:
        if path.name == "b":
            raise PowerCut
        write(path, *rest)

    monkeypatch.setattr(swapping, "write_bytes", cut)
    with pytest.raises(PowerCut):
        host.apply({"a": "2", "b": "2"}, needs_apply=True)
    monkeypatch.setattr(swapping, "write_bytes", write)
    assert contents(host) == {"a": "2", "b": "1"}
    result = host.apply({"a": "3", "b": "3"}, needs_apply=True)
    assert result["edited"] == {}
    assert contents(host) == {"a": "3", "b": "3"}


def test_what_was_put_back_after_a_bad_verdict_is_not_taken_for_an_edit(host: Host) -> None:
    """A handover puts back what was applied last. The next run writes the new files again, and
    takes away what only those of before had."""
    host.apply({"a": "1", "old": "1"}, needs_apply=True)
    host.mark_applied()
    host.apply({"a": "2", "new": "2"}, needs_apply=True)
    host.path("a").write_text("1")
    host.path("old").write_text("1")
    host.path("new").unlink()
    result = host.apply({"a": "2", "new": "2"}, needs_apply=True)
    assert result["changed"]
    assert result["edited"] == {}
    assert contents(host) == {"a": "2", "new": "2"}


REVERTIBLE = {"needs_apply": True, "revertible": True}


def test_what_a_service_cannot_run_with_is_reverted(host: Host) -> None:
    """Also over several runs, and the next run sees what it has to do."""
    host.apply({"a": "1", "old": {"content": "1", "mode": "0600"}}, **REVERTIBLE)
    host.mark_applied()
    host.apply({"a": "2", "old": {"content": "1", "mode": "0600"}}, **REVERTIBLE)
    host.apply({"a": "3", "new": "3"}, **REVERTIBLE)
    host.check_mode = True
    preview = host.revert()
    host.check_mode = False
    assert contents(host) == {"a": "3", "new": "3"}
    done = host.revert()
    assert done == preview
    assert done["files"] == {
        str(host.path("a")): "reverted",
        str(host.path("old")): "reverted",
        str(host.path("new")): "removed",
    }
    assert contents(host) == {"a": "1", "old": "1"}
    assert stat.S_IMODE(host.path("old").stat().st_mode) == 0o600
    assert not host.revert()["changed"]
    again = host.apply({"a": "3", "new": "3"}, **REVERTIBLE)
    assert (again["changed"], again["pending"], again["edited"]) == (True, False, {})


def test_what_no_service_has_run_with_is_not_reverted(host: Host) -> None:
    """After the first run there is nothing to go back to, and after a good one no reason."""
    host.apply({"a": "1"}, **REVERTIBLE)
    host.apply({"a": "2"}, **REVERTIBLE)
    assert not host.revert()["changed"]
    host.mark_applied()
    host.apply({"a": "3"}, **REVERTIBLE)
    host.mark_applied()
    assert not host.revert()["changed"]
    assert contents(host) == {"a": "3"}


def test_what_is_kept_to_go_back_to_is_for_root_alone(host: Host) -> None:
    host.apply({"a": {"content": "1", "secret": True}}, **REVERTIBLE)
    host.mark_applied()
    host.apply({"a": {"content": "2", "secret": True}}, **REVERTIBLE)
    kept = host.root / "records" / "tree.before"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    host.mark_applied()
    assert not kept.exists()


def test_changed_input_is_a_change_of_the_tree(host: Host) -> None:
    host.apply({"a": "1"}, inputs={"release": "x"})
    result = host.apply({"a": "1"}, inputs={"release": "y"})
    assert result["changed"]
    assert not host.apply({"a": "1"}, inputs={"release": "y"})["changed"]


def test_random_file_is_made_once(host: Host) -> None:
    entry = {"random_bytes": 32, "mode": "0600", "secret": True}
    host.apply({"key": entry})
    key = host.path("key").read_text()
    assert len(key) == 64
    assert not host.apply({"key": entry})["changed"]
    assert host.path("key").read_text() == key


def test_no_diff_shows_a_secret(host: Host) -> None:
    """Neither when it is written, nor when it changes, nor when it goes."""
    said = ""
    for files in (
        {"s": {"content": "hunter2-old", "secret": True}},
        {"s": {"content": "hunter2-new", "secret": True}},
        {},
    ):
        result = host.apply(files)
        assert result["changed"]
        said += json.dumps(result)
    assert "hunter2" not in said


def test_link_is_replaced_by_a_file(host: Host) -> None:
    target = host.root / "target"
    target.write_text("theirs")
    host.path("a").parent.mkdir()
    host.path("a").symlink_to(target)
    host.apply({"a": "1"})
    assert not host.path("a").is_symlink()
    assert target.read_text() == "theirs"


def test_unknown_owner_is_named_before_anything_changes(host: Host) -> None:
    with pytest.raises(TreeError, match="there is no user 'nobody-here'"):
        host.apply({"a": "1", "b": {"content": "2", "owner": "nobody-here"}})
    assert not host.path("a").exists()


def test_directory_in_the_way_is_named(host: Host) -> None:
    host.path("a").mkdir(parents=True)
    with pytest.raises(TreeError, match="is not a file"):
        host.apply({"a": "1"})


def test_unreadable_record_is_named(host: Host) -> None:
    records.RECORDS.mkdir()
    (records.RECORDS / "tree.json").write_text("{")
    with pytest.raises(TreeError, match=r"tree\.json cannot be read"):
        host.apply({"a": "1"})


def test_a_program_is_a_line_in_a_difference(host: Host) -> None:
    """Thousands of lines of programs would hide the two of a setting."""
    old, new = "print(1)\n" * 400, "print(2)\n" * 401
    host.apply({"a": {"content": old, "program": True}})
    [shown] = host.apply({"a": {"content": new, "program": True}})["diff"]
    for text, side, lines in ((old, "before", 400), (new, "after", 401)):
        version = hashlib.sha256(text.encode()).hexdigest()[:12]
        assert shown[side] == f"version {version}, {lines} lines\n"
    assert shown["after_header"] == f"{host.path('a')} (updated)"


# Units that run with a tree -----------------------------------------------------------------------

SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
case $1 in
    show) cat "$here/shown" ;;
    *) echo "$*" >> "$here/calls" ;;
esac
[ ! -e "$here/broken-$1" ] || { echo "Job for shop.timer failed." >&2; exit 1; }
"""


class Units:
    """A `systemctl` that notes what it is asked to do with `shop.timer`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "systemctl").write_text(SYSTEMCTL)
        (folder / "systemctl").chmod(0o755)

    def be(self, active: str, enabled: str) -> None:
        shown = f"Id=shop.timer\nActiveState={active}\nUnitFileState={enabled}\n"
        (self.folder / "shown").write_text(shown)

    def be_of_type(self, types: dict[str, str]) -> None:
        shown = "\n".join(f"Id={name}\nType={kind}\n" for name, kind in types.items())
        (self.folder / "shown").write_text(shown)

    def calls(self) -> list[str]:
        """Since the last question."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Units:
    made = Units(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    made.be("active", "enabled")
    return made


TIMER = ["shop.timer"]


def test_units_start_anew_with_what_changed_and_rest_otherwise(host: Host, units: Units) -> None:
    units.be("inactive", "disabled")
    assert host.apply({"a": "1"}, units=TIMER)["changed"] is True
    assert units.calls() == ["enable --quiet shop.timer", "restart shop.timer"]
    units.be("active", "enabled")
    assert host.apply({"a": "1"}, units=TIMER)["changed"] is False
    assert units.calls() == []
    assert host.apply({"a": "2"}, units=TIMER)["units"] == TIMER
    assert units.calls() == ["restart shop.timer"]


def test_systemd_reads_unit_files_again_that_changed(
    host: Host, units: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_tree, "UNITS", str(host.path("systemd")))
    host.apply({"a": "1"}, units=TIMER)
    assert units.calls() == ["restart shop.timer"]
    host.apply({"a": "1", "systemd/shop.timer": "[Timer]"}, units=TIMER)
    assert units.calls() == ["daemon-reload", "restart shop.timer"]


@pytest.mark.parametrize("state", [("inactive", "enabled"), ("active", "disabled")])
def test_unit_that_somebody_stopped_or_disabled_runs_again(
    host: Host, units: Units, state: tuple[str, str]
) -> None:
    host.apply({"a": "1"}, units=TIMER)
    units.calls()
    units.be(*state)
    host.check_mode = True
    assert host.apply({"a": "1"}, units=TIMER)["changed"] is True
    assert units.calls() == []
    host.check_mode = False
    assert host.apply({"a": "1"}, units=TIMER)["units"] == TIMER
    enabled = ["enable --quiet shop.timer"] if state[1] == "disabled" else []
    assert units.calls() == [*enabled, "start shop.timer"]


def test_unit_whose_file_goes_does_nothing_any_more(
    host: Host, units: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it goes on without a file, and may fail, which is an alarm until the next boot."""
    monkeypatch.setattr(config_tree, "UNITS", f"{host.path('systemd')}/")
    own = {"systemd/shop.service": "", "systemd/nginx.service.d/shop.conf": "", "a": "1"}
    units.be_of_type({"web.service": "notify", "watch.service": "oneshot", "watch.timer": ""})
    host.apply(
        {**own, "systemd/web.service": "", "systemd/watch.service": "", "systemd/watch.timer": ""}
    )
    host.apply(own)
    assert units.calls() == [
        *("stop watch.timer", "reset-failed watch.timer"),
        *("stop watch.service", "reset-failed watch.service"),
        # Who hands over from it stops it.
        "reset-failed web.service",
    ]
    host.params = {"name": "tree", "units": []}
    config_tree.remove(host)
    assert units.calls() == ["stop shop.service", "reset-failed shop.service"]


def test_unit_that_cannot_be_enabled_is_left(host: Host, units: Units) -> None:
    units.be("active", "static")
    host.apply({"a": "1"}, units=TIMER)
    assert units.calls() == ["restart shop.timer"]


def test_unit_that_does_not_start_is_tried_again(host: Host, units: Units) -> None:
    """The files are there by then, and without a mark the next run would find nothing to do."""
    (units.folder / "broken-restart").touch()
    with pytest.raises(TreeError, match=r"failed.*systemctl status shop.timer"):
        host.apply({"a": "1"}, units=TIMER)
    (units.folder / "broken-restart").unlink()
    units.calls()
    again = host.apply({"a": "1"}, units=TIMER)
    assert (again["changed"], again["pending"]) == (True, False)
    assert "restart shop.timer" in units.calls()
    assert host.apply({"a": "1"}, units=TIMER)["changed"] is False


def test_handlers_start_units_that_had_to_wait(host: Host, units: Units) -> None:
    host.apply({"a": "1"}, needs_apply=True)
    assert units.calls() == []
    assert host.mark_applied(*TIMER)["changed"] is True
    assert units.calls() == ["daemon-reload", "restart shop.timer"]
    assert host.apply({"a": "1"}, needs_apply=True)["pending"] is False


def test_units_start_anew_without_what_was_removed(host: Host, units: Units) -> None:
    host.apply({"a": "1"}, units=TIMER)
    units.calls()
    host.params["units"] = TIMER
    assert config_tree.remove(host)["changed"] is True
    assert units.calls() == ["restart shop.timer"]
    assert config_tree.remove(host)["changed"] is False
    assert units.calls() == []
