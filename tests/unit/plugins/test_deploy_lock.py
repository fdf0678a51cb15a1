"""`wsgi.host.deploy_lock`: the file on the host, and what the control node makes of it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.module_utils.testing import patch_module_args
from ansible_collections.wsgi.host.plugins.action import deploy_lock as action
from ansible_collections.wsgi.host.plugins.module_utils.apphost import releases, seal
from ansible_collections.wsgi.host.plugins.module_utils.apphost.answer import Answer
from ansible_collections.wsgi.host.plugins.module_utils.apphost.errors import RefusedError
from ansible_collections.wsgi.host.plugins.modules import deploy_lock
from ansible_collections.wsgi.host.plugins.plugin_utils import control
from ansible_collections.wsgi.host.plugins.plugin_utils.control import Process, is_gone, this_run
from conftest import Play, action_of

STALE = 600


def claim(name: str, **more: Any) -> dict[str, Any]:
    return {"token": name, "owner": f"{name}@control", "control": {}, **more}


class Lock:
    """A lock in a folder, asked as the module asks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(
        self, state: str, name: str, *, check: bool = False, **more: Any
    ) -> dict[str, Any]:
        asked = claim(name, **more)
        return deploy_lock.change(str(self.path), state, asked, STALE, f"for {name}", check=check)

    @property
    def holder(self) -> str | None:
        found = deploy_lock.read(str(self.path))
        return found["token"] if found else None

    def age(self, seconds: float) -> None:
        """Make the last sign of life that old."""
        found = json.loads(self.path.read_text())
        found["renewed_at"] -= seconds
        found["renewed_uptime"] -= seconds
        self.path.write_text(json.dumps(found))

    def edit(self, **facts: Any) -> None:
        """Change what it says."""
        self.path.write_text(json.dumps(json.loads(self.path.read_text()) | facts))


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    return Lock(tmp_path / "deploy.json")


class TestFile:
    def test_second_is_busy_and_told_about_the_first(self, lock):
        assert lock("held", "anna")["lock"]["owner"] == "anna@control"
        told = lock("held", "ben")
        assert told["busy"]
        assert (told["lock"]["owner"], told["lock"]["reason"]) == ("anna@control", "for anna")
        assert lock.holder == "anna"

    def test_same_run_holds_it_again_and_it_is_as_old_as_before(self, lock):
        since = lock("held", "anna")["lock"]["since"]
        lock.age(5)
        renewed = lock("held", "anna")
        assert "busy" not in renewed
        assert "taken_over" not in renewed
        assert renewed["lock"]["since"] == since
        assert time.time() - renewed["lock"]["renewed_at"] < 5

    def test_is_free_when_freed(self, lock):
        lock("held", "anna")
        assert lock("free", "anna") == {"lock": None}
        assert lock("held", "ben")["lock"]["owner"] == "ben@control"

    def test_who_had_it_last_is_known_when_it_is_free(self, lock):
        """By that a run knows at its end that nobody else has changed anything since."""
        note = lock.path.with_name(seal.LAST_RUN)
        for state, name, last in (
            ("held", "anna", "anna"),
            ("held", "ben", "anna"),
            ("free", "anna", "anna"),
            ("held", "ben", "ben"),
            ("kept", "ben", "ben"),
            ("free", "ben", "ben"),
        ):
            lock(state, name)
            assert json.loads(note.read_text()) == {"token": last}

    def test_nobody_frees_the_lock_of_another(self, lock):
        """A run that failed because of the lock ends with freeing it."""
        lock("held", "anna")
        assert lock("free", "ben")["lock"]["owner"] == "anna@control"
        assert lock.holder == "anna"

    def test_freeing_a_free_lock_is_no_error(self, lock):
        assert lock("free", "anna") == {"lock": None}

    def test_silent_holder_loses_it(self, lock):
        lock("held", "anna")
        lock.age(STALE - 60)
        assert lock("held", "ben")["busy"]
        lock.age(120)
        told = lock("held", "ben")
        assert told["taken_over"]["owner"] == "anna@control"
        assert told["why"] == "silent"
        assert told["silence"] >= STALE
        assert lock.holder == "ben"

    def test_ended_holder_loses_it_at_once(self, lock):
        lock("held", "anna")
        told = lock("held", "ben", over="anna")
        assert (told["taken_over"]["owner"], told["why"]) == ("anna@control", "ended")
        # Somebody else took it meanwhile, whose process has not ended.
        assert lock("held", "cleo", over="anna")["busy"]

    def test_who_has_lost_it_finds_out(self, lock):
        """It must not go on to change hosts that another run now changes."""
        lock("held", "anna")
        assert "lost" not in lock("kept", "anna")
        assert lock("seen", "anna")["mine"]
        seen = lock("seen", "ben")
        assert (seen["mine"], seen["lock"]["owner"]) == (False, "anna@control")
        lock.age(STALE + 1)
        lock("held", "ben")
        told = lock("kept", "anna")
        assert told["lost"]
        assert told["lock"]["owner"] == "ben@control"
        lock("free", "ben")
        assert lock("kept", "anna") == {"lock": None, "lost": True}

    def test_keeping_it_is_a_sign_of_life(self, lock):
        lock("held", "anna")
        lock.age(STALE - 1)
        lock("kept", "anna")
        lock.age(STALE - 1)
        assert lock("held", "ben")["busy"]

    @pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
    def test_damaged_file_keeps_nobody_away(self, lock, damage):
        lock.path.write_text(damage)
        assert lock("held", "anna")["lock"]["owner"] == "anna@control"

    def test_check_mode_tells_and_takes_nothing(self, lock):
        assert lock("held", "anna", check=True)["lock"]["owner"] == "anna@control"
        assert not lock.path.exists()
        lock("held", "anna")
        lock("free", "anna", check=True)
        assert lock("held", "ben", check=True)["busy"]

    @pytest.mark.parametrize("seconds", [-7200, 7200])
    def test_clock_that_was_set_is_no_silence(self, lock, seconds):
        """A live holder keeps it, and one that is gone loses it, whatever the clock says."""
        lock("held", "anna")
        lock.edit(renewed_at=time.time() + seconds)
        told = lock("held", "ben")
        assert told["busy"]
        assert told["silence"] < 60
        lock.edit(renewed_uptime=deploy_lock.uptime()[1] - STALE - 1)
        assert lock("held", "ben")["why"] == "silent"

    @pytest.mark.parametrize(("seconds", "busy"), [(60, True), (STALE + 60, False), (-7200, False)])
    def test_after_a_boot_the_clock_is_all_there_is(self, lock, seconds, busy):
        """One that is set to the future would keep everybody away until then."""
        lock("held", "anna")
        lock.edit(boot="another", renewed_at=time.time() - seconds)
        assert lock("held", "ben").get("busy", False) is busy

    def test_only_one_of_many_gets_it(self, lock):
        """They ask at the same moment, each through a module of its own."""
        got: list[str] = []
        start = threading.Barrier(8)

        def ask(name: str) -> None:
            start.wait()
            with deploy_lock.alone(str(lock.path)):
                told = lock("held", name)
            if "busy" not in told:
                got.append(name)

        threads = [threading.Thread(target=ask, args=(f"run{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        assert lock.holder == got[0]

    def test_directories_are_readable_whatever_the_umask(self, tmp_path):
        before = os.umask(0o077)
        try:
            deploy_lock.make_directory(str(tmp_path / "opt" / "state"))
        finally:
            os.umask(before)
        for path in (tmp_path / "opt", tmp_path / "opt" / "state"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o755


class TestProcess:
    def test_this_run_is_alive_and_told_apart(self):
        own = this_run()
        assert not is_gone(own.to_dict())
        assert own.token() == this_run().token()
        assert own.token() != replace(own, start=own.start + "1").token()

    def test_ended_process_is_gone(self):
        with subprocess.Popen(["sleep", "60"]) as process:
            told = Process.of(process.pid).to_dict()
            assert not is_gone(told)
            process.kill()
        assert is_gone(told)

    def test_number_that_another_process_has_now_is_not_taken_for_it(self):
        assert is_gone(replace(Process.of(os.getpid()), start="1").to_dict())

    def test_machine_that_was_restarted_since_runs_it_no_more(self):
        assert is_gone(replace(this_run(), boot="another").to_dict())

    @pytest.mark.parametrize(
        "change", [{"node": "other"}, {"machine": "other"}, {"namespace": "x"}]
    )
    def test_of_another_machine_or_container_nobody_can_tell(self, change):
        ended = replace(Process.of(os.getpid()), start="1")
        assert not is_gone(replace(ended, **change).to_dict())

    @pytest.mark.parametrize("told", [None, "x", {}, {"pid": 1}])
    def test_what_is_no_process_is_not_gone(self, told):
        assert not is_gone(told)

    def test_worker_speaks_for_the_process_that_the_operator_started(self):
        """Ansible forks a process for each task: the lock must not end with the task."""
        script = (
            "import os, sys\n"
            f"sys.path[:0] = {sys.path!r}\n"
            "from ansible_collections.wsgi.host.plugins.plugin_utils.control import this_run\n"
            "own = os.getpid()\n"
            "if os.fork() == 0:\n"
            "    print(this_run().pid == own, flush=True)\n"
            "    os._exit(0)\n"
            "os.wait()\n"
            "print(this_run().pid == own)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.split() == ["True", "True"], done.stderr

    def test_who_used_sudo_is_named(self, monkeypatch):
        monkeypatch.setenv("SUDO_USER", "anna")
        assert control.whoami().startswith("anna@")


class TestReleases:
    """What a rollback chooses from comes along with the lock, in the same trip."""

    @pytest.fixture
    def call(self, tmp_path, monkeypatch, capsys) -> Callable[..., dict[str, Any]]:
        asked: list[tuple[str, float]] = []

        def listing(application: Any, seconds: float) -> Answer:
            asked.append((application.name, seconds))
            if application.name == "busy":
                raise RefusedError("Another handover is under way")
            return Answer("", facts={"live": "b", "releases": [], "candidates": ["a"]})

        monkeypatch.setattr(deploy_lock, "require_own", lambda *_, **__: None)
        monkeypatch.setattr(releases, "listing", listing)

        def call(name: str, **arguments: Any) -> dict[str, Any]:
            given = {"path": str(tmp_path / "deploy.json"), "claim": claim(name), **arguments}
            with patch_module_args(given), pytest.raises(SystemExit):
                deploy_lock.main()
            return {**json.loads(capsys.readouterr().out), "asked": list(asked)}

        return call

    def test_they_come_along_with_a_lock_that_is_held(self, call):
        told = call("anna", releases="shop")
        assert told["lock"]["owner"] == "anna@control"
        assert told["releases"] == {"live": "b", "releases": [], "candidates": ["a"]}
        # A handover of a run that was killed ends by itself.
        assert told["asked"] == [("shop", 600)]

    @pytest.mark.parametrize("more", [{"releases": "shop"}, {}, {"releases": ""}])
    def test_nobody_else_is_told(self, call, more):
        assert "releases" not in call("anna")
        assert "releases" not in call("ben" if more.get("releases") else "anna", **more)
        assert "releases" not in call("anna", state="kept", **more)
        assert call("anna", state="free", **more)["asked"] == []

    def test_a_handover_that_does_not_end_stops_the_run(self, call):
        told = call("anna", releases="busy")
        assert told["failed"]
        assert told["msg"] == "Another handover is under way"


class TestAction:
    """The part on the control node, with a file in a folder for the host."""

    @pytest.fixture
    def run(self, tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
        path = tmp_path / "deploy.json"

        def run(state: str = "held", *, check: bool = False, **arguments: Any) -> dict[str, Any]:
            given = {"path": str(path), "state": state, "reason": "v2", **arguments}
            plugin = action_of(action.ActionModule, given, check_mode=check, delegate_to="web1")

            def execute(
                _name: str, module_args: dict[str, Any], task_vars: dict[str, Any]
            ) -> dict[str, Any]:
                stale = int(module_args.get("stale_seconds", STALE))
                asked = (module_args["claim"], stale, module_args["reason"])
                told = deploy_lock.change(str(path), state, *asked, check=check)
                return {"changed": False, **told}

            plugin._execute_module = MagicMock(side_effect=execute)
            return dict(plugin.run(task_vars={"inventory_hostname": "web2"}))

        return run

    @pytest.fixture
    def other(self, tmp_path) -> Callable[..., None]:
        """Puts a lock there that another process holds."""

        def other(process: Process | None, token: str = "other") -> None:
            lock = Lock(tmp_path / "deploy.json")
            told = process.to_dict() if process else {"node": "elsewhere"}
            lock("held", token, owner="ben@laptop", control=told)

        return other

    def test_free_lock_costs_one_trip_and_is_no_change(self, run):
        result = run()
        assert result["changed"] is False
        assert result["lock"]["owner"] == result["owner"] == control.whoami()
        assert result["lock"]["reason"] == "v2"
        assert result["host"] == "web1"
        assert "warnings" not in result

    def test_all_tasks_of_a_run_hold_the_same(self, run):
        run()
        assert "warnings" not in run("kept")
        run("free")
        with pytest.raises(AnsibleActionFail, match=r"has lost the lock .* on web1, which is gone"):
            run("kept")

    def test_refusal_names_who_since_when_what_for_and_the_remedy(self, run, other):
        other(None)
        with pytest.raises(AnsibleActionFail) as refusal:
            run(variables={"wait_seconds": "shop_lock_wait"})
        words = str(refusal.value)
        assert "deploy.json on web1 is held by ben@laptop since 20" in words
        assert "for 'for other'" in words
        assert "Nothing was changed" in words
        assert "set shop_lock_wait to a number of seconds" in words

    def test_waits_as_long_as_asked(self, run, other, tmp_path, monkeypatch):
        other(None)
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                Lock(tmp_path / "deploy.json")("free", "other")

        monkeypatch.setattr(action.time, "sleep", sleep)
        assert run(wait_seconds=60)["lock"]["owner"] == control.whoami()
        assert len(waited) == 3

    def test_gives_up_after_the_wait(self, run, other, monkeypatch):
        other(None)
        clock = iter(range(0, 1000, 2))
        monkeypatch.setattr(
            action, "time", MagicMock(monotonic=lambda: next(clock), sleep=lambda _: None)
        )
        with pytest.raises(AnsibleActionFail, match="and this run waited 10 s"):
            run(wait_seconds=10)

    def test_killed_run_of_this_control_node_keeps_nobody_away(self, run, other):
        """The same command again, right after its control process was killed."""
        with subprocess.Popen(["sleep", "60"]) as process:
            told = Process.of(process.pid)
            other(told)
            with pytest.raises(AnsibleActionFail):
                run()
            process.kill()
        result = run()
        assert result["lock"]["owner"] == control.whoami()
        [warning] = result["warnings"]
        assert "Took over the lock" in warning
        assert "ben@laptop since 20" in warning
        assert "has ended without freeing it" in warning

    def test_silent_run_of_elsewhere_is_taken_over_with_a_message(self, run, other, tmp_path):
        other(None)
        Lock(tmp_path / "deploy.json").age(STALE + 1)
        [warning] = run(stale_seconds=STALE)["warnings"]
        assert "Took over the lock" in warning
        assert "gave no sign of life for 60" in warning

    def test_check_mode_warns_and_goes_on(self, run, other):
        other(None)
        [warning] = run(check=True, wait_seconds=60)["warnings"]
        assert "is held by ben@laptop" in warning

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"wait_seconds": "soon"}, "shop_wait is 'soon': give whole seconds, 0 or more"),
            ({"wait_seconds": -1}, "shop_wait is -1"),
            ({"wait_seconds": True}, "shop_wait is True"),
            ({"stale_seconds": 0}, "shop_stale is 0: give whole seconds, 1 or more"),
            ({"claim": {}}, "claim is set by wsgi.host.deploy_lock itself"),
        ],
    )
    def test_wrong_number_is_named(self, run, given, words):
        with pytest.raises(AnsibleActionFail) as refusal:
            run(variables={"wait_seconds": "shop_wait", "stale_seconds": "shop_stale"}, **given)
        assert words in str(refusal.value)


def test_playbook_takes_and_frees_it(play: Play, tmp_path: Path) -> None:
    """Real tasks run in processes of their own, and hold the same lock."""
    path = tmp_path / "state" / "deploy.json"
    task = {"wsgi.host.deploy_lock": {"path": str(path), "reason": "v2"}, "register": "it"}
    kept = {"wsgi.host.deploy_lock": {"path": str(path), "state": "kept"}}
    free = {"wsgi.host.deploy_lock": {"path": str(path), "state": "free"}}
    done = play(task, kept, {"assert": {"that": ["it is not changed", "it.lock.reason == 'v2'"]}})
    assert done.code == 0, done.output
    # That run has ended without freeing it, as a killed one does.
    assert path.exists()
    done = play(task, free)
    assert done.code == 0, done.output
    assert "Took over the lock" in done.output
    assert not path.exists()
