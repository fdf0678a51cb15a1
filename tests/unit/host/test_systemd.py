"""What is read of systemd's output, where systemd has little to say as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apphost.systemd import Systemd, SystemdError, all_properties, properties


def test_each_property_has_a_value_though_it_may_be_empty(programs: Any) -> None:
    """A unit that does not exist has few; callers need not check for each of them."""
    (programs.folder / "properties").write_text("ActiveState=active\nExecStart={ a=b }\nMainPID=\n")
    assert properties("shop.service", "ActiveState", "ExecStart", "MainPID", "NRestarts") == {
        "ActiveState": "active",
        "ExecStart": "{ a=b }",
        "MainPID": "",
        "NRestarts": "",
    }
    [call] = programs.calls("systemctl")
    assert call == "show --property=ActiveState,ExecStart,MainPID,NRestarts shop.service"


def test_a_unit_that_does_not_exist_is_stopped(programs: Any) -> None:
    programs.put("systemctl", "#!/bin/sh\nexit 1\n")
    unit = Systemd().show("shop.service")
    assert (unit.active, unit.stopped, unit.lives, unit.pid) == ("inactive", True, False, 0)


def test_units_without_an_answer_do_not_start_at_boot(programs: Any) -> None:
    programs.put("systemctl", "#!/bin/sh\necho enabled\necho disabled\nexit 1\n")
    assert Systemd().disabled(["a", "b", "c"]) == ["b", "c"]


def test_a_command_that_fails_is_quoted(programs: Any) -> None:
    programs.put("systemctl", "#!/bin/sh\necho 'Unit shop.service is masked.' >&2\nexit 1\n")
    with pytest.raises(SystemdError, match=r"systemctl start shop\.service: Unit .* is masked"):
        Systemd().start("shop.service")
    Systemd().stop("shop.service")


def test_processes_are_those_of_the_host(tmp_path: Path) -> None:
    process = tmp_path / "proc/7"
    (process / "task/7").mkdir(parents=True)
    (process / "task/7/children").write_text("8 9 ")
    (process / "cwd").symlink_to("/opt/shop/releases/a/app")
    systemd = Systemd(tmp_path)
    assert (systemd.workers(7), systemd.workers(8)) == ({8, 9}, set())
    assert (systemd.directory(7), systemd.directory(8)) == (Path("/opt/shop/releases/a/app"), None)


def test_units_that_are_only_referred_to_are_not_loaded(programs: Any) -> None:
    """systemd refuses to stop them: "not loaded"."""
    programs.put(
        "systemctl",
        "#!/bin/sh\n"
        "echo 'a-worker-x@1.service loaded    active   running A worker'\n"
        "echo 'a-worker-x@2.service not-found inactive dead    a-worker-x@2.service'\n"
        "echo 'a-worker-x@3.service not-found active   running a-worker-x@3.service'\n",
    )
    assert Systemd().loaded("a-worker-*") == ["a-worker-x@1.service", "a-worker-x@3.service"]


def test_links_to_units_that_are_gone_are_removed(tmp_path: Path, programs: Any) -> None:
    """They would be looked for at each boot."""
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for name in ("shop-worker-mail@gen0-1.service", "shop-worker-mail@gen1-1.service"):
        (wants / name).symlink_to("/etc/systemd/system/nowhere@.service")
    systemd = Systemd(tmp_path)
    assert len(systemd.linked("shop-worker-*@*.service")) == 2
    systemd.unlink(["shop-worker-mail@gen0-1.service"])
    assert systemd.linked("shop-worker-*@*.service") == ["shop-worker-mail@gen1-1.service"]
    assert programs.calls("systemctl") == ["daemon-reload"]
    systemd.unlink(["shop-worker-mail@gen0-1.service"])
    assert programs.calls("systemctl") == []


def test_properties_of_several_units_are_told_apart(programs: Any) -> None:
    programs.put("systemctl", "#!/bin/sh\nprintf 'Id=b\\nA=2\\n\\nId=a\\nA=1\\nOther=x\\n'\n")
    assert all_properties(["a", "b", "c"], "A", "B") == {
        "a": {"A": "1", "B": ""},
        "b": {"A": "2", "B": ""},
        "c": {"A": "", "B": ""},
    }
    assert all_properties([], "A") == {}


def test_the_journal_is_read_once_all_is_written(programs: Any) -> None:
    """What a release printed last arrives after systemd's line that it died."""
    programs.put("journalctl", '#!/bin/sh\necho "$*" >> "$0.calls"\n')
    Systemd().journal("shop.service", "0a1b")
    sync, read = programs.calls("journalctl")
    assert sync == "--sync"
    assert read.endswith("_SYSTEMD_INVOCATION_ID=0a1b + INVOCATION_ID=0a1b")
