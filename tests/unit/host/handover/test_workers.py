"""Background workers and timers in a handover: who runs, also wherever it is interrupted."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from apphost import files, trees

from .world import TIMER, WORKER, Killed, Process, World

TWO = {"mail": 2, "index": 1}
NIGHTLY = {"nightly": "[Timer]\nOnCalendar=*-*-* 03:00:00 UTC\n"}


@pytest.fixture
def live(world: World) -> World:
    """The host with release `old`, three processes of two workers, and a timer."""
    world.prepare_jobs(TWO, NIGHTLY)
    assert world.run("old", "gen0").code == 0
    world.clock += 1000
    world.steps.clear()
    return world


def names(generation: str) -> set[str]:
    instances = [f"mail@{generation}-1", f"mail@{generation}-2", f"index@{generation}-1"]
    return {f"shop-worker-{instance}.service" for instance in instances}


def check(world: World, generation: str, release: str, where: str = "") -> None:
    """Exactly that generation runs, of that release, now and after a boot."""
    assert world.running() == dict.fromkeys(names(generation), release), where
    assert {each for each in world.enabled if "-worker-" in each} == names(generation), where
    assert world.generation == generation, where
    assert world.unit("shop-timer-nightly.timer").active == "active", where
    assert "shop-timer-nightly.timer" in world.enabled, where


def test_the_first_handover_starts_workers_and_timers(live: World) -> None:
    check(live, "gen0", "old")
    assert os.readlink(live.root / "state/workers/gen0-2") == str(live.root / "releases/old")
    known = json.loads((live.root / "state/jobs/nightly.json").read_text())
    assert set(known) == {"known_since"}
    assert live.run().changed is False


def test_a_new_generation_runs_beside_the_old_one_until_it_is_judged(live: World) -> None:
    assert live.run("new", "gen1").code == 0
    check(live, "gen1", "new")
    order = [
        step.partition(" ")[0] + (" new" if "gen1" in step else " old" if "gen0" in step else "")
        for step in live.steps
        if "-worker-" in step
    ]
    assert order == ["start new", *["unlink old"] * 3, "stop old"]
    started = next(at for at, step in enumerate(live.steps) if "gen1" in step and "start" in step)
    assert live.steps.index("start shop-standby.service") < started < live.steps.index("open")
    # Nothing of the timer has changed, so its next run stays where it is.
    assert not [step for step in live.steps if step.endswith(".timer")]


def test_workers_that_are_already_gone_leave_no_slot(live: World) -> None:
    """Removed by the next handover, since they may take minutes to finish."""
    assert live.run("new", "gen1").code == 0
    slow = live.unit("shop-worker-mail@gen0-1.service")
    slow.active, slow.sub = "deactivating", "stop-sigterm"
    assert live.run("third", "gen2").code == 0
    slots = {path.name for path in (live.root / "state/workers").iterdir()}
    assert slots == {"gen0-1", "gen1-1", "gen1-2", "gen2-1", "gen2-2"}


@pytest.mark.parametrize(("after", "stage"), [(0, "workers"), (4, "bake")])
def test_workers_that_do_not_stay_up_are_bad_and_the_old_ones_untouched(
    live: World, after: int, stage: str
) -> None:
    live.crashes["new"] = lambda age: int(age >= after)
    before = copy.deepcopy({name: live.unit(name) for name in names("gen0")})
    result = live.run("new", "gen1")
    assert (result.code, result.stage) == (1, stage)
    assert "has a worker that does not stay up, shop-worker-" in result.msg
    assert result.journal.startswith("journal of shop-worker-")
    check(live, "gen0", "old")
    assert {name: live.unit(name) for name in before} == before
    assert ("new" in live.served) is (stage == "bake")
    assert live.run("old").changed is False


@pytest.mark.parametrize("how", ["inactive", "activating"])
def test_a_worker_that_does_not_start_is_bad(live: World, how: str) -> None:
    """The web processes of the release are well, since they are other programs."""
    real = live._come_up

    def come_up(name: str, unit: object) -> None:
        live.starts["new"] = how if "-worker-" in name else "active"
        real(name, unit)  # type: ignore[arg-type]

    live._come_up = come_up  # type: ignore[method-assign]
    result = live.run("new", "gen1")
    assert (result.code, result.stage) == (1, "workers")
    check(live, "gen0", "old")


def test_without_a_bake_they_have_to_stay_up_all_the_same(live: World) -> None:
    live.prepare_jobs(TWO, NIGHTLY)
    config = json.loads(Path(live.path("/etc/shop/handover.json")).read_text())
    live.put("/etc/shop/handover.json", json.dumps({**config, "bake_time": 0}))
    live.crashes["new"] = lambda age: int(age > 2)
    assert live.run("new", "gen1").code == 1
    check(live, "gen0", "old")


@pytest.mark.parametrize("unit", ["shop-worker-mail@gen0-2.service", "shop-timer-nightly.timer"])
def test_who_was_stopped_is_a_reason(live: World, unit: str) -> None:
    live._end(unit, "inactive")
    result = live.run(request="gen1")
    assert result.changed
    assert f"{unit} is stopped" in live.reported[-1] + "".join(live.reported)
    check(live, "gen1", "old")


def test_who_restarts_is_no_reason(live: World) -> None:
    unit = live.unit("shop-worker-mail@gen0-2.service")
    unit.active, unit.sub = "activating", "auto-restart"
    assert live.run().changed is False


def test_who_would_not_start_at_boot_does_so_again(live: World) -> None:
    live.enabled.discard("shop-worker-mail@gen0-2.service")
    live.enabled.discard("shop-timer-nightly.timer")
    assert live.run().changed
    check(live, "gen0", "old")


def test_another_calendar_starts_its_timer_again(live: World) -> None:
    live.prepare_jobs(TWO, {"nightly": "[Timer]\nOnCalendar=*-*-* 04:00:00 UTC\n"})
    assert live.run(request="gen1").code == 0
    assert "restart shop-timer-nightly.timer" in live.steps


def test_kinds_and_timers_that_are_gone_end_as_they_were_told(live: World) -> None:
    """systemd has no file of them any more, and must not kill what they are doing."""
    live.prepare_jobs({"index": 1}, {})
    assert live.run("new", "gen1").code == 0
    assert set(live.running()) == {"shop-worker-index@gen1-1.service"}
    assert live.unit("shop-timer-nightly.timer").active == "inactive"
    assert "shop-timer-nightly.timer" not in live.enabled
    kept = live.folder / "run/systemd/system/shop-worker-mail@.service"
    assert kept.read_text() == "[Service]\n"
    assert live.run("third", "gen2").code == 0
    assert not kept.exists()


def test_a_rejected_change_of_the_kinds_is_reverted(live: World) -> None:
    live.prepare_jobs({"other": 4}, {"hourly": "[Timer]\n"}, "broken")
    assert live.run(request="gen1").code == 1
    check(live, "gen0", "old")
    assert not Path(live.path(f"{WORKER}other@.service")).exists()
    assert Path(live.path(f"{TIMER}nightly.timer")).exists()
    assert live.run().changed is False


def test_a_worker_that_has_loaded_settings_that_were_bad_starts_again(live: World) -> None:
    """It died between the change and the verdict."""
    live.prepare_jobs(TWO, NIGHTLY, "broken")
    live.clock += 10
    name = "shop-worker-mail@gen0-2.service"
    live._end(name, "inactive")
    live._start(name)
    live.show(name)
    live.clock += 10
    assert live.run(request="gen1").code == 1
    check(live, "gen0", "old")
    assert live.unit(name).settings == "SETTING=first\n"


def test_a_request_that_has_had_its_generation_gets_another(live: World) -> None:
    """Killed behind its commit, the handover is started again."""
    assert live.run(request="gen0", restart=True).code == 0
    generation = live.generation
    assert generation != "gen0"
    check(live, generation, "old")


def test_the_tree_counts_as_settled_once_it_was_judged(live: World) -> None:
    path, name = live.config.tree, "/etc/shop/environment"

    def wrote(setting: str) -> dict[str, str]:
        """What config_tree does."""
        live.prepare_jobs(TWO, NIGHTLY, setting)
        written = {name: files.digest(Path(live.path(name)))}
        trees.write(path, trees.Record(written, pending=True))
        return written

    written = wrote("first")
    assert live.run().changed is False
    assert trees.read(path) == trees.Record(written, applied=written)
    wrote("broken")
    assert live.run(request="gen1").code == 1
    # What was written is not there any more, also for a handover that has nothing to do then.
    assert trees.read(path).pending
    assert live.run().changed is False
    assert trees.read(path).pending
    wrote("second")
    assert live.run(request="gen2").code == 0
    assert not trees.read(path).pending


# Who is alone

SCHEDULER = {"beat": 1, **TWO}


@pytest.fixture
def scheduled(world: World) -> World:
    """The same with a worker of which two generations never run at once."""
    world.alone = {"beat"}
    world.prepare_jobs(SCHEDULER, NIGHTLY)
    assert world.run("old", "gen0").code == 0
    world.clock += 1000
    world.steps.clear()
    return world


def beat(generation: str) -> str:
    return f"shop-worker-beat@{generation}-1.service"


def test_the_way_back_is_not_barred_by_a_worker_that_came_later(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older release lacks its program; it was judged bad for that, and the newer one stayed."""
    come_up = World._come_up

    def lacks_it(world: World, name: str, unit: Process) -> None:
        if "-worker-export@" in name and unit.release == "old" and unit.sub == "start":
            world._end(name, "failed")
        else:
            come_up(world, name, unit)

    monkeypatch.setattr(World, "_come_up", lacks_it)
    live.prepare_jobs({**TWO, "export": 1}, NIGHTLY)
    # With the release that is live, a worker that dies is as bad as ever.
    assert live.run("old", "gen1").verdict == "bad"
    live.prepare_jobs({**TWO, "export": 1}, NIGHTLY)
    assert live.run("new", "gen2").code == 0
    back = live.run("old", "gen3", exclude=True)
    assert (back.code, back.verdict, live.current) == (0, "healthy", "old")
    assert any("export: not judged, old was healthy without" in line for line in live.reported)
    assert set(live.running("[im]*")) == names("gen3")
    # A restore of data starts the same release again, and would fail for it.
    again = live.run("old", "again", restart=True)
    assert (again.code, again.verdict, live.current) == (0, "healthy", "old")
    live.put("/etc/systemd/system/shop-worker-export@.service", "[Service]\nNice=1\n")
    assert live.run("old", "changed").verdict == "bad"
    # Nor does it count as one that the release has had.
    assert live.run("new", "gen4").code == 0
    assert live.run("old", "gen5").code == 0


def test_who_is_alone_has_ended_before_the_next_one_starts(scheduled: World) -> None:
    assert scheduled.run("new", "gen1").code == 0
    assert scheduled.running("beat") == {beat("gen1"): "new"}
    order = [step for step in scheduled.steps if "worker" in step and "unlink" not in step]
    # The others first: were they bad, it would never have been stopped.
    assert [step.partition("@")[0] for step in order] == [
        *("start shop-worker-mail", "stop shop-worker-beat", "start shop-worker-beat"),
        "stop shop-worker-index",
    ]
    assert scheduled.together == []


def test_who_is_alone_comes_back_when_the_release_is_bad(scheduled: World) -> None:
    scheduled.behaviour["new"] = lambda age: "answered 500, not 200" if age > 4 else ""
    assert scheduled.run("new", "gen1").code == 1
    assert scheduled.running("beat") == {beat("gen0"): "old"}
    assert beat("gen0") in scheduled.enabled
    assert scheduled.together == []
    assert scheduled.run("old").changed is False


def test_other_workers_that_are_bad_do_not_stop_who_is_alone(scheduled: World) -> None:
    before = copy.deepcopy(scheduled.unit(beat("gen0")))
    scheduled.crashes["new"] = lambda age: 1
    assert scheduled.run("new", "gen1").code == 1
    assert scheduled.unit(beat("gen0")) == before


def test_a_worker_that_is_to_be_alone_from_now_on_is_so_at_once(live: World) -> None:
    live.alone = {"index"}
    live.prepare_jobs(TWO, NIGHTLY)
    assert live.run(request="gen1").code == 0
    check(live, "gen1", "old")
    assert live.together == []


@pytest.mark.parametrize("afterwards", ["again", "reboot"])
def test_wherever_it_is_killed_who_is_alone_is_alone(scheduled: World, afterwards: str) -> None:
    world = scheduled
    for at in range(80):
        world.kill_at = at
        world.crashes["new"] = lambda age: int(age > 4)
        world.steps.clear()
        try:
            world.run("new", f"gen{at + 1}")
        except Killed:
            if afterwards == "reboot":
                world.reboot()
            world.kill_at = -1
            world.run("old", f"gen{at + 1}")
        else:
            assert at > 20
            break
        assert list(world.running("beat").values()) == ["old"], at
        assert world.together == [], at
        world.clock += 1000
    else:
        pytest.fail("it never came to its end")


HOW = ["release", "settings", "bad worker", "late worker", "kinds"]


def begin(world: World, how: str) -> str | None:
    """Prepare one kind of handover; returns the release to hand over to."""
    if how == "settings":
        world.prepare_jobs(TWO, NIGHTLY, "second")
        return None
    if how == "kinds":
        world.prepare_jobs({"other": 1}, {"hourly": "[Timer]\n"}, "broken")
        return None
    if how != "release":
        world.crashes["new"] = lambda age: int(age > (0 if how == "bad worker" else 4))
    return "new"


@pytest.mark.parametrize("afterwards", ["again", "reboot"])
@pytest.mark.parametrize("how", HOW)
def test_wherever_it_is_killed_one_generation_runs(
    tmp_path_factory: pytest.TempPathFactory, how: str, afterwards: str, live: World
) -> None:
    """The one of the release that serves, and the same after the next boot."""
    world = live
    kept = tmp_path_factory.mktemp("kept") / "host"
    shutil.copytree(world.folder, kept, symlinks=True)
    units, enabled, clock = copy.deepcopy(world.units), set(world.enabled), world.clock
    at = 0
    while True:
        for entry in world.folder.iterdir():
            shutil.rmtree(entry)
        shutil.copytree(kept, world.folder, symlinks=True, dirs_exist_ok=True)
        world.units, world.enabled = copy.deepcopy(units), set(enabled)
        world.clock, world.crashes = clock, {}
        world.steps.clear()
        world.stalls = 0
        wanted = begin(world, how)
        world.kill_at = at
        try:
            world.run(wanted, "gen1")
        except Killed as killed:
            where = f"{how}, killed at {at}, before: {killed}"
        else:
            assert world.kill_at == at, "not killed"
            break
        begun = (world.root / "state/handover.json").exists()
        if afterwards == "reboot":
            world.reboot()
        elif begun:
            world.run(wanted, "gen1")
        if begun:
            generation = world.generation
            release = world.unit("shop.service").release
            assert generation in ("gen0", "gen1"), where
            good = generation == "gen1"
            assert not (good and how not in ("release", "settings")), where
            check(world, generation, "new" if good and how == "release" else "old", where)
            assert release == ("new" if good and how == "release" else "old"), where
            world.reboot()
            check(world, generation, release, where)
        at += 1
    world.kill_at = -1
    assert at > 20


def test_settings_that_go_back_keep_the_workers(live: World) -> None:
    """A run failed before its handover, and somebody had restarted the service meanwhile."""
    live.prepare_jobs(TWO, NIGHTLY, "second")
    live.config.tree.parent.mkdir(parents=True, exist_ok=True)
    live.config.tree.write_text('{"pending": true}')
    live.clock += 10
    live._end("shop.service", "inactive")
    live._start("shop.service")
    live.show("shop.service")
    live.clock += 10
    live.boot()
    assert set(live.running().values()) == {"old"}
    assert len(live.running()) == 3
