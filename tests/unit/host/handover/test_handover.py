"""The handover's order of events, its verdicts, and what is left wherever it is interrupted."""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from apphost import files, records
from apphost.application import Application
from apphost.cli import parser_of
from apphost.errors import RefusedError
from apphost.handover import command, judge
from apphost.handover import unit as handover_unit
from apphost.handover.config import Config
from apphost.handover.state import State

from .world import UNITS, Killed, World


def state(world: World) -> tuple[str | None, str, str, str]:
    """`current`, the release and the settings that the service runs with, those on disk."""
    main = world.unit("shop.service")
    assert main.active == "active", main
    return world.current, main.release, main.settings, world.settings


OLD = ("old", "old", "SETTING=first\n", "SETTING=first\n")


def test_the_first_start_opens_the_sockets_and_enables_the_units(world: World) -> None:
    result = world.run("old")
    assert (result.code, result.changed, result.verdict) == (0, True, "healthy")
    assert state(world) == OLD
    assert world.enabled == {"shop.socket", "shop.service", "shop-handover-boot.service"}
    assert "start shop-standby.service" not in world.steps
    record = world.record("old")
    assert (record["verdict"], record["activated_by"], record["reason"]) == (
        *("healthy", "somebody"),
        "because",
    )


def test_a_first_start_that_fails_leaves_nothing_that_would_serve(world: World) -> None:
    """Also not after a reboot, or when somebody connects."""
    world.behaviour["old"] = lambda age: "answered 503, not 200"
    result = world.run("old")
    assert (result.code, result.verdict) == (1, "bad")
    assert "Nothing was live before, so shop is stopped" in result.msg
    assert world.current is None
    assert not world.enabled
    for unit in ("shop.service", "shop.socket", "shop-check.socket"):
        assert world.unit(unit).active == "inactive"


def test_a_release_replaces_another_while_somebody_always_accepts(live: World) -> None:
    result = live.run("new")
    assert (result.code, result.release, result.previous) == (0, "new", "old")
    assert state(live)[:2] == ("new", "new")
    assert live.stalls == 0
    assert live.unit("shop-standby.service").active == "inactive"
    assert not (live.root / "state/handover.json").exists()
    order = [
        s for s in live.steps if not s.startswith(("ask", "write", "remove", "point", "daemon"))
    ]
    assert order == [
        "start shop-standby.service",
        "open",
        "restart shop.service",
        "stop shop-standby.service shop-standby.socket",
        # For a killed one, which that leaves among the failed units.
        "stop shop-standby.service",
    ]


def test_what_the_web_server_keeps_is_of_one_release(live: World) -> None:
    """While both answer it keeps either's; from then on nothing of before is used again."""
    first = live.cache_key
    assert live.run("new").code == 0
    second = live.cache_key
    live.look()
    assert {who for who, _ in live.answered[first]} == {"old", "new"}
    assert {who for who, _ in live.answered[second]} == {"new"}
    # What is judged bad once clients had it leaves nothing either.
    live.behaviour["third"] = lambda age: "" if age < 3 else "broken"
    assert live.run("third").code == 1
    live.look()
    assert {who for who, _ in live.answered[live.cache_key]} == {"new"}
    assert live.run("old").code == 0
    assert live.cache_key not in (first, second)
    assert Path(live.cache_key).name.startswith("old.")
    # The one before is still there for a request that resolves it at this moment, and no other.
    assert len(list((live.root / "cache-keys").iterdir())) == 2
    assert (live.root / "cache-keys").stat().st_mode & 0o777 == 0o755
    assert Path(live.cache_key).stat().st_mode & 0o777 == 0o755


def test_a_database_that_another_host_prepared_is_the_one_that_serves(live: World) -> None:
    """Else each run would say that the rows are in the file of before."""
    described = {"database": {"kind": "sqlite", "files": ["shop.db"]}}
    live.put("/etc/shop/application.json", json.dumps(described))
    stamp = live.root / "state/data.json"
    stamp.write_text(json.dumps({"database": "file:1:2", "seeds": {"demo": ""}}))
    live.run("new")
    assert json.loads(stamp.read_text())["database"] == "file:1:2"
    live.put("/etc/shop/credentials/database_url", "postgresql://u:p@db/shop")
    live.run("third")
    noted = json.loads(stamp.read_text())
    assert noted["database"].startswith("url:")
    assert noted["seeds"] == {}
    stamp.write_text(json.dumps({**noted, "seeds": {"demo": ""}}))
    live.run("old")
    assert json.loads(stamp.read_text())["seeds"] == {"demo": ""}, "its own seeds are forgotten"


def test_a_host_that_has_no_key_yet_gets_one(live: World) -> None:
    (live.root / "cache-key").unlink()
    assert live.run("old").changed is False
    assert Path(live.cache_key).name.startswith("old.")


def test_a_standby_that_is_killed_in_the_end_is_no_failed_unit(live: World) -> None:
    begin = live.begin

    def strike(verb: str, *names: str) -> None:
        begin(verb, *names)
        if verb == "restart":
            live.units["shop-standby.service"].active = "failed"

    live.begin = strike  # type: ignore[method-assign]
    assert live.run("new").code == 0
    assert live.unit("shop-standby.service").active == "inactive"


def test_nothing_to_do_does_nothing(live: World) -> None:
    before = dict(live.units)
    for release in ("old", None):
        result = live.run(release)
        assert (result.code, result.changed) == (0, False)
    assert live.steps == []
    assert live.units == before


def test_an_application_that_works_in_another_directory_is_known_by_its_run(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run handed over anew to one that calls os.chdir() while it is imported."""
    monkeypatch.setattr(live, "directory", lambda pid: Path("/var/lib/shop"))
    again = live.run("old")
    assert (again.code, again.changed) == (0, False)
    # systemd has started it by itself since: nobody has judged what.
    live.unit("shop.service").invocation = "another"
    assert live.run("old").changed


def test_it_is_started_again_when_asked_to(live: World) -> None:
    """What hangs has nothing new to hand over to; a standby stands in all the same."""
    before = live.unit("shop.service").invocation
    result = live.run("old", restart=True)
    assert (result.code, result.verdict) == (0, "healthy")
    assert live.unit("shop.service").invocation != before
    assert state(live) == OLD
    assert live.stalls == 0


def test_changed_settings_go_the_same_way(live: World) -> None:
    live.prepare("second")
    result = live.run()
    assert (result.code, result.changed) == (0, True)
    assert state(live) == ("old", "old", "SETTING=second\n", "SETTING=second\n")
    assert live.stalls == 0
    assert live.run().changed is False


def test_settings_that_are_judged_bad_are_reverted(live: World) -> None:
    """A crash or a reboot later must not load them."""
    before = {path: Path(live.path(path)).stat().st_mtime for path in ("/etc/shop/environment",)}
    live.prepare("broken", bake_time=9)
    result = live.run()
    assert (result.code, result.stage) == (1, "standby")
    assert "with the settings of before" in result.msg
    assert state(live) == OLD
    assert json.loads(Path(live.path("/etc/shop/handover.json")).read_text())["bake_time"] == 5
    # The release is not to blame.
    assert live.record("old")["verdict"] == "healthy"
    # What was reverted to is what runs, so there is nothing to do.
    assert Path(live.path("/etc/shop/environment")).stat().st_mtime in before.values()
    assert live.run().changed is False
    live.reboot()
    assert state(live) == OLD


def test_a_file_that_only_the_bad_settings_had_goes(live: World) -> None:
    more = live.path("/etc/shop/credentials/key")
    live.put("/etc/shop/credentials/key", "secret")
    config = json.loads(Path(live.path("/etc/shop/handover.json")).read_text())
    live.prepare("broken", settings=[*config["settings"], more])
    assert live.run().code == 1
    assert not Path(more).exists()


@pytest.mark.parametrize(("lasts", "code"), [(1, 1), (40, 0)])
def test_workers_that_die_one_after_the_other_are_no_health(
    live: World, monkeypatch: pytest.MonkeyPatch, lasts: int, code: int
) -> None:
    """Others answer meanwhile, so that no answer is bad. One that ends is no loop."""
    looks = itertools.count()
    real = live.workers

    def workers(pid: int) -> set[int]:
        baking = live.current == "new" and pid != 2
        return {1000 + next(looks) // lasts} if baking else real(pid)

    monkeypatch.setattr(live, "workers", workers)
    result = live.run("new")
    assert result.code == code
    assert live.current == ("old" if code else "new")
    if code:
        assert result.stage == "bake"
        assert "3 of its workers ended while baking" in result.msg


BROKEN: dict[str, tuple[str, Any, str]] = {
    "does-not-start": ("inactive", None, "standby"),
    "never-started": ("activating", None, "standby"),
    "never-ready": ("active", lambda age: "answered 503, not 200", "standby"),
    "fails-in-the-bake": ("active", lambda age: "answered 500, not 200" if age > 4 else "", "bake"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_release_is_rolled_back(live: World, kind: str) -> None:
    starts, behaviour, stage = BROKEN[kind]
    live.starts["new"] = starts
    if behaviour:
        live.behaviour["new"] = behaviour
    result = live.run("new")
    assert (result.code, result.verdict, result.stage) == (1, "bad", stage)
    assert state(live) == OLD
    assert live.stalls == 0
    assert live.unit("shop-standby.service").active in ("inactive", "failed")
    assert ("new" in live.served) is (stage == "bake")
    record = live.record("new")
    assert record["verdict"] == "bad"
    assert record["failure"]["stage"] == stage
    assert record["failure"]["journal"].startswith("journal of shop")
    assert live.record("old")["verdict"] == "healthy"
    assert [line["verdict"] for line in live.history()] == ["healthy", "bad"]
    assert live.run("old").changed is False


def test_an_accident_in_the_bake_is_asked_about_once(live: World) -> None:
    """However soon one good answer is to follow another before it."""
    check = {"path": "/", "count": 2, "interval": 0.05, "time_limit": 10}
    live.prepare("first", check=check)
    live.behaviour["new"] = lambda age: "answered 502, not 200" if 2 < age < 2.15 else ""
    assert (live.run("new").code, live.current) == (0, "new")


def test_another_release_that_answers_is_not_taken_for_this_one(live: World) -> None:
    live.behaviour["new"] = lambda age: "answered as release 'third', not 'new'"
    result = live.run("new")
    assert result.code == 1
    assert "answered as release 'third', not 'new'" in result.msg


def test_a_question_that_is_cut_off_does_not_hide_the_answer_before_it(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.behaviour["new"] = lambda age: "answered 503, not 200"

    def ask(path: Path, check: Any, release: str | None, timeout: float) -> tuple[str, str]:
        if timeout < 1:
            live.clock += timeout
            return f"gave no answer within {timeout:g} s", ""
        return live.ask(path, check, release, timeout)

    monkeypatch.setattr(judge, "ask", ask)
    result = live.run("new")
    assert "answered 503, not 200, within 10 s" in result.msg
    assert live.record("new")["failure"]["answer"] == "answer of new"


def test_when_the_release_of_before_is_bad_by_now_it_is_said(live: World) -> None:
    """The database went away, perhaps: it is live again, and nobody is told that all is well."""
    live.behaviour["new"] = lambda age: "answered 500, not 200" if age > 4 else ""
    live.behaviour["old"] = lambda age: "answered 500, not 200"
    result = live.run("new")
    assert result.code == 1
    assert "Release old is back, but it answered 500, not 200" in result.msg
    assert state(live) == OLD


def test_another_port_reopens_the_sockets(live: World) -> None:
    live.put(UNITS[0], "# a comment\n[Socket]\nListenStream=127.0.0.1:5000\n")
    assert live.run().code == 0
    assert "stop shop.socket shop-check.socket" not in live.steps
    live.put(UNITS[0], "[Socket]\nListenStream=127.0.0.1:5001\n")
    assert live.run().code == 0
    assert "stop shop.socket shop-check.socket" in live.steps


def test_what_crashed_with_settings_of_in_between_is_started_anew(live: World) -> None:
    """The service came up by itself with files that nobody judged, and they are gone again."""
    live.prepare("second")
    live.clock += 10
    live._end("shop.service", "inactive")
    live._start("shop.service")
    live.show("shop.service")
    live.clock += 10
    live.prepare("first")
    result = live.run()
    assert result.changed is True
    assert state(live) == OLD


def started_again(world: World) -> None:
    """By somebody else: needrestart, an operator, systemd after a crash."""
    world.clock += 10
    world._end("shop.service", "inactive")
    world._start("shop.service")
    world.show("shop.service")
    world.clock += 10


def test_bad_settings_that_were_loaded_before_they_were_judged_do_not_stay(live: World) -> None:
    live.prepare("broken")
    started_again(live)
    assert live.unit("shop.service").settings != live.unit("shop-standby.service").settings
    result = live.run()
    assert result.code == 1
    assert state(live) == OLD
    assert live.run().changed is False


def test_unjudged_settings_that_were_loaded_do_not_stay(live: World) -> None:
    """Of a run that has failed before its handover."""
    live.prepare("second")
    (live.folder / "var/lib/config-tree/shop.json").write_text('{"pending": true}')
    started_again(live)
    live.boot()
    assert state(live) == OLD
    assert live.stalls == 0


@pytest.mark.parametrize("steps", range(4, 24, 2))
def test_reverting_on_a_running_host_recovers_from_what_was_begun(live: World, steps: int) -> None:
    """The handover was stopped by an operator, and nobody starts it again."""
    live.kill_at = len(live.steps) + steps
    with pytest.raises(Killed):
        live.run("new")
    live.boot()
    current, running, *_ = state(live)
    assert current == running
    assert live.unit("shop-standby.service").active in ("inactive", "failed")
    assert live.stalls == 0
    assert live.run(running).changed is False


@pytest.mark.parametrize("stage", ["open", "main", "bake"])
def test_a_full_disk_rolls_back(live: World, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the state cannot be written any more."""
    write = files.write
    full_since: list[str] = []

    def full(path: Path, text: str, mode: int = 0o644) -> None:
        if path.name == "handover.json" and f'"stage": "{stage}"' in text:
            full_since.append(stage)
        if full_since and live.root / "state" in path.parents:
            raise OSError(28, "No space left on device")
        write(path, text, mode)

    monkeypatch.setattr(files, "write", full)
    result = live.run("new")
    assert result.code == 1
    assert "No space left on device" in result.msg
    assert state(live) == OLD
    assert live.stalls == 0


def test_what_a_failed_release_said_is_roots_alone(live: World) -> None:
    live.behaviour["new"] = lambda _age: "answered 500, not 200"
    live.run("new")
    path = live.root / "state/releases"
    assert live.record("new")["failure"]["journal"]
    assert (path / "new.json").stat().st_mode & 0o777 == 0o600
    assert (path / "old.json").stat().st_mode & 0o777 == 0o644


def test_whoever_goes_live_again_is_not_left_any_more(live: World) -> None:
    path = live.root / "state/releases/new.json"
    path.write_text(
        json.dumps({"id": "new", "excluded_at": "2026-11-25T09:00:00Z", "excluded_by": "x"})
    )
    live.run("new")
    assert not {"excluded_at", "excluded_by"} & live.record("new").keys()


def test_what_a_rollback_goes_back_from_is_left_once_the_other_is_healthy(live: World) -> None:
    """No later rollback leads to it, and nobody has to take the mark back after a failure."""
    live.behaviour["third"] = lambda _age: "answered 503, not 200"
    assert live.run("third", "one", exclude=True).code == 1
    assert "excluded_at" not in live.record("old")
    assert live.run("old", "two", exclude=True).changed is False
    assert "excluded_at" not in live.record("old")
    assert live.run("new", "three", exclude=True).code == 0
    record = live.record("old")
    assert (record["excluded_by"], record["excluded_reason"], record["excluded_kind"]) == (
        "somebody",
        "because",
        "decision",
    )
    # A deploy leaves nothing.
    assert live.run("old", "four").code == 0
    assert "excluded_at" not in live.record("new")


def test_a_release_whose_interpreter_is_gone_is_refused_by_that_name(live: World) -> None:
    """An upgrade of the system removed it. "There is no release" would send people elsewhere."""
    python = live.root / "releases/new/bin/python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")
    with pytest.raises(RefusedError, match=r"new cannot start: .*/usr/bin/python3\.0 is not"):
        live.run("new")


@pytest.mark.parametrize("release", ["fourth", ".."])
def test_an_unknown_release_is_refused(live: World, release: str) -> None:
    with pytest.raises(RefusedError, match="there are: new, old, third"):
        live.run(release)
    assert live.steps == []


HOW = ["release", "settings", "bad release", "bad settings", "late"]


def begin(world: World, how: str) -> str | None:
    """Prepare one kind of handover; returns the release to hand over to."""
    if how == "release":
        return "new"
    if how == "bad release":
        world.behaviour["new"] = lambda age: "answered 503, not 200"
        return "new"
    if how == "late":
        world.behaviour["new"] = lambda age: "answered 500, not 200" if age > 4 else ""
        return "new"
    world.prepare("broken" if how == "bad settings" else "second")
    return None


@pytest.mark.parametrize("afterwards", ["again", "reboot"])
@pytest.mark.parametrize("how", HOW)
def test_wherever_it_is_killed_the_host_comes_to_a_known_state(
    tmp_path_factory: pytest.TempPathFactory,
    how: str,
    afterwards: str,
    world: World,
) -> None:
    """Killed before each of its steps in turn; then it is started again, or the host boots."""
    assert world.run("old").code == 0
    world.clock += 1000
    kept = tmp_path_factory.mktemp("kept") / "host"
    shutil.copytree(world.folder, kept, symlinks=True)
    units, enabled, clock = copy.deepcopy(world.units), set(world.enabled), world.clock
    good = {"release": ("new", "SETTING=first\n"), "settings": ("old", "SETTING=second\n")}
    at = 0
    while True:
        for entry in world.folder.iterdir():
            shutil.rmtree(entry)
        shutil.copytree(kept, world.folder, symlinks=True, dirs_exist_ok=True)
        world.units, world.enabled = copy.deepcopy(units), set(enabled)
        world.clock, world.behaviour = clock, {}
        world.steps.clear()
        world.served.clear()
        world.answered.clear()
        world.stalls = 0
        wanted = begin(world, how)
        world.kill_at = at
        try:
            world.run(wanted, exclude=True)
        except Killed as killed:
            where = f"killed at {at}, before: {killed}"
        else:
            assert world.kill_at == at, "not killed"
            break
        if afterwards == "reboot":
            world.reboot()
        else:
            world.run(wanted, exclude=True)
        current, running, loaded, on_disk = state(world)
        assert not (world.root / "state/handover.json").exists(), where
        assert world.stalls == 0 or afterwards == "reboot", where
        assert (current, loaded) == (running, on_disk), where
        allowed = {("old", "SETTING=first\n")} | ({good[how]} if how in good else set())
        # Killed before anything was begun, what config_tree had written is there as it wrote it.
        if afterwards == "again" or world.history()[1:]:
            assert (running, loaded) in allowed, where
            world.look()
            assert world.answered[world.cache_key] == {(running, loaded)}, where
        if how in ("bad release", "bad settings"):
            assert "new" not in world.served, where
        assert world.unit("shop-standby.service").active in ("inactive", "failed"), where
        assert bool(world.record("old").get("excluded_at")) == (running == "new"), where
        at += 1
    world.kill_at = -1
    assert at > 15


def test_a_reboot_before_the_handover_loads_no_settings_that_were_not_judged(live: World) -> None:
    """config_tree has written them, and notes that no handover has judged them."""
    live.prepare("broken")
    (live.folder / "var/lib/config-tree/shop.json").write_text('{"pending": true}')
    live.reboot()
    assert state(live) == OLD


def test_what_is_interrupted_twice_is_recovered_from(live: World) -> None:
    live.kill_at = len(live.steps) + 12
    with pytest.raises(Killed):
        live.run("new", "one")
    live.kill_at = len(live.steps) + 3
    with pytest.raises(Killed):
        live.run("new", "two")
    result = live.run("third", "three")
    assert result.code == 0
    assert state(live)[:2] == ("third", "third")
    assert [line["event"] for line in live.history()] == ["handover", "undone", "handover"]


@pytest.mark.parametrize("steps", range(1, 24, 2))
@pytest.mark.parametrize("written_again", [True, False])
def test_settings_of_whoever_asks_next_survive_an_interruption(
    live: World, steps: int, written_again: bool
) -> None:
    """They went with those of the handover that was interrupted, and the run was green."""
    live.prepare("second")
    live.kill_at = len(live.steps) + steps
    with contextlib.suppress(Killed):
        live.run(None, "one")
    live.kill_at = -1
    live.clock += 10
    if written_again:
        live.prepare("third")
    result = live.run(None, "two")
    assert result.code == 0, result.msg
    setting = live.unit("shop.service").settings
    assert ("third" if written_again else "second") in str(setting)
    assert live.stalls == 0
    assert live.run(None, "three").changed is False


def test_settings_that_were_reverted_twice_are_said_to_be_gone(live: World) -> None:
    """Nobody knows on which side of that way back they belong."""
    digest = hashlib.sha256(b"SETTING=broken\n").hexdigest()
    tree = {"files": {live.path("/etc/shop/environment"): digest}}
    live.prepare("broken")
    (live.folder / "var/lib/config-tree/shop.json").write_text(json.dumps(tree))
    write = State.write

    def killed(self: State, config: Config) -> None:
        write(self, config)
        if self.stage == "back":
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "write", killed)
        with pytest.raises(Killed):
            live.run(None, "one")
    result = live.run(None, "two")
    assert (result.code, state(live)) == (1, OLD)
    assert "write them again" in result.msg


def test_started_again_after_a_kill_the_same_request_is_rolled_back(live: World) -> None:
    """systemd does that. Whoever follows it is told, and may ask again."""
    live.kill_at = len(live.steps) + 12
    with pytest.raises(Killed):
        live.run("new", "one")
    result = live.run("new", "one")
    assert result.code == 1
    assert "interrupted in stage" in result.msg
    assert state(live) == OLD
    assert live.run("new", "two").code == 0


def test_what_others_wrote_in_a_record_stays(live: World) -> None:
    path = live.root / "state/releases/new.json"
    path.write_text(json.dumps({"id": "new", "shipped_by": "ops", "verdict": "unjudged"}))
    live.run("new")
    assert live.record("new")["shipped_by"] == "ops"
    assert live.record("new")["verdict"] == "healthy"


def test_settings_of_another_version_of_the_program_are_read(live: World) -> None:
    """After an upgrade settings of before may be reverted to; they must not stop it."""
    config = json.loads(Path(live.path("/etc/shop/handover.json")).read_text())
    config["check"].pop("count")
    config["unheard_of"] = config["check"]["unheard_of"] = 1
    live.put("/etc/shop/handover.json", json.dumps(config))
    assert live.run().code == 0


def test_the_copy_of_the_settings_is_roots_alone(live: World) -> None:
    """It holds the credentials."""
    path = live.folder / "var/lib/gunicorn-handover/shop/healthy.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def parse(*words: str) -> argparse.Namespace:
    """The options of the verb; nothing is reported meanwhile."""
    return parser_of(Application("shop"), "handover", command).parse_intermixed_args(
        [*words, "--json"]
    )


def test_a_release_that_is_still_to_be_shipped_can_be_previewed(live: World) -> None:
    """A preview of a deploy comes before the release does, and must not fail on that."""
    before = state(live)
    result = command.request(live.config, live, parse("newer", "--preview"))
    assert result.changed
    assert "would hand over to release newer when it is here: release old is live" in result.msg
    assert not command.request(live.config, live, parse("old", "--preview")).changed
    result = command.request(live.config, live, parse("old", "--preview", "--new-settings"))
    assert result.changed
    assert result.msg.endswith(": its settings change.")
    with pytest.raises(RefusedError, match="no release 'newer'"):
        command.request(live.config, live, parse("newer", "--check"))
    assert state(live) == before
    assert live.steps == []


def test_what_is_live_no_more_is_not_replaced(live: World) -> None:
    """Whoever decided about one release has said nothing of another."""
    before = state(live)
    with pytest.raises(RefusedError, match="old is live by now, and no longer third: look at"):
        command.request(live.config, live, parse("new", "--instead-of", "third"))
    assert command.request(live.config, live, parse("old", "--instead-of", "old")).code == 0
    assert state(live) == before


@pytest.mark.parametrize("name", ["candidate.json", "handover.json"])
def test_a_full_disk_before_the_first_stage_is_named(
    live: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit leaves a result, or whoever follows it would be told that nothing was tried."""
    write = files.write

    def full(path: Path, text: str, mode: int = 0o644) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write(path, text, mode)

    monkeypatch.setattr(files, "write", full)
    handover_unit.work(live.config, live, parse("new", "--run", "id"))
    result = handover_unit.follow(live.config, live, "id", print)
    assert result.code == 1
    assert "No space left on device. Put that right, then run this again" in result.msg
    assert state(live) == OLD


def test_a_host_without_room_goes_back_at_boot(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.kill_at = 12
    with pytest.raises(Killed):
        live.run("new")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "append", full)
    live.kill_at = -1
    live.reboot()
    assert not live.config.begun.exists()
    assert live.current == "old"
