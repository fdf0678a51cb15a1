"""`shop restore`: the copy is the database afterwards, or everything is as it was."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from apphost.backup import commands, restore
from apphost.errors import REFUSED
from apphost.http import LateError

from .backup_host import DESCRIPTION, BackupHost

LISTING = "systemctl list-units --all --plain --full --no-legend --no-pager"
STOPPING = [
    f"{LISTING} shop-timer-*.timer",
    f"{LISTING} shop-timer-*.timer",
    f"{LISTING} shop-worker-*@*.service",
    f"{LISTING} shop-timer-*.service",
    "systemctl stop shop.socket shop-check.socket shop.service",
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupHost:
    return BackupHost(tmp_path, monkeypatch)


def test_a_restore_brings_back_the_rows_and_keeps_what_it_replaces(host: BackupHost) -> None:
    name = host.back_up()
    host.order("D")
    host.calls()
    answer = host.good("restore", name, "--by", "anna")
    assert host.customers() == ["A", "B", "C"]
    assert host.calls() == [
        "shopctl schema --code",
        *STOPPING,
        "shopctl backup -",
        "shopctl restore - --no-keep",
        "shop migrate --json",
        "shopctl counts",
        f"shop handover --json --wait=600 --reason restore of {name} --by anna",
    ]
    # And the way back from the way back.
    host.good("restore", answer["replaced"])
    assert host.customers() == ["A", "B", "C", "D"]


def test_commands_that_an_application_does_not_have_are_not_needed(host: BackupHost) -> None:
    """Of those that change nothing: a schema, counts, migrations."""
    words = {verb: DESCRIPTION["commands"][verb] for verb in ("backup", "restore")}
    host.describe(commands=words, database={"kind": "sqlite", "file": "shop.db"})
    name = host.back_up()
    host.order("D")
    host.calls()
    host.good("restore", name, "--by", "anna")
    assert host.customers() == ["A", "B", "C"]
    assert [" ".join(line.split()[:2]) for line in host.calls()] == [
        *["systemctl list-units"] * 4,
        "systemctl stop",
        "shopctl backup",
        "shopctl restore",
        "shop handover",
    ]


def test_an_application_that_cannot_restore_is_not_stopped(host: BackupHost) -> None:
    name = host.back_up()
    host.describe(commands={"backup": ["shopctl", "backup"]})
    code, answer = host.run("restore", name)
    assert code == 2
    assert "no command for restore in its description" in answer["msg"]
    assert not host.stopped()


@pytest.mark.parametrize("verb", ["restore", "migrate", "counts", "handover"])
def test_what_was_there_is_back_after_a_failure(host: BackupHost, verb: str) -> None:
    name = host.back_up()
    host.order("D")
    copies = host.files()
    host.break_(verb, "no luck")
    host.calls()
    if verb in ("restore", "handover"):
        # The first time only: else there would be no way back.
        module, target = (commands, "load") if verb == "restore" else (restore, "start")
        original = getattr(module, target)
        tries = []

        def once(*arguments: Any, **options: Any) -> None:
            tries.append(1)
            if len(tries) > 1 and (host.root / f"broken-{verb}").exists():
                host.mend(verb)
            original(*arguments, **options)

        host.monkeypatch.setattr(module, target, once)
    code, answer = host.run("restore", name)
    assert code == 1
    assert "no luck" in answer["msg"]
    assert "The data are as they were before, and the service runs." in answer["msg"]
    assert host.customers() == ["A", "B", "C", "D"]
    assert host.calls()[-1].startswith("shop handover")
    assert host.files() == copies


def test_the_service_starts_where_the_way_back_fails_too(host: BackupHost) -> None:
    """Whether the application's own command changed anything, only the application knows."""
    name = host.back_up()
    host.break_("restore", "no luck")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "The data from before could not be loaded again: The application's" in answer["msg"]
    assert "The service runs: look at what data it has. But the restore of" in answer["msg"]
    assert host.calls()[-1].startswith("shop handover")
    # What is half of a copy is not copied, and the way back stays.
    assert host.run("backup")[0] == 2
    [kept] = [each for each in host.files() if each.endswith("before-restore.sqlite")]
    host.mend("restore")
    host.good("restore", kept)
    host.good("backup")


def test_rows_that_differ_after_the_restore_undo_it(host: BackupHost) -> None:
    name = host.back_up()
    text = host.shopctl.read_text()
    host.shopctl.write_text(text.replace('"orders": count', '"orders": count + 1'))
    host.order("D")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "other rows than the copy" in answer["msg"]
    assert host.customers() == ["A", "B", "C", "D"]


def test_when_nothing_helps_it_says_where_the_data_are(host: BackupHost) -> None:
    name = host.back_up()
    host.order("D")
    host.break_("handover", "no luck")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "the service does not run" in answer["msg"]
    kept = [each for each in host.files() if each.endswith("before-restore.sqlite")]
    assert kept
    assert kept[0] in answer["msg"]


def test_the_message_of_a_verb_is_quoted_without_its_json(host: BackupHost) -> None:
    """People read it."""
    name = host.back_up()
    host.application.command.write_text(
        '#!/bin/sh\necho \'{"changed": false, "msg": "No worker came up."}\'\nexit 1\n'
    )
    _, answer = host.run("restore", name)
    assert "Migrating the data with `shop migrate` failed: No worker came up." in answer["msg"]
    assert "{" not in answer["msg"]


def test_a_database_past_reading_is_put_aside_and_replaced(host: BackupHost) -> None:
    """This is when one needs the copy most."""
    name = host.back_up()
    host.live.write_bytes(os.urandom(8192))
    host.calls()
    answer = host.good("restore", name)
    assert host.customers() == ["A", "B", "C"]
    assert "shopctl restore -" in host.calls(), "which keeps what it replaces"
    assert Path(f"{host.live}.replaced").stat().st_size == 8192
    assert answer["replaced"] is None


# The service --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, '{"release": "r1"}', ""),
        (200, '{"release": "r0"}', "answers as release r0 in place of r1"),
        (200, "[]", "names no release: []"),
        (200, "fine", "names no release: fine"),
        (503, '{"release": "r1"}', 'answers 503 in place of 200: {"release": "r1"}'),
    ],
)
def test_the_service_has_to_answer_as_the_live_release(
    host: BackupHost, status: int, body: str, fault: str
) -> None:
    host.serve(status, body)
    assert restore.ask(host.store().application, "r1") == fault


def test_a_health_check_that_names_no_release_is_judged_by_its_status(host: BackupHost) -> None:
    host.describe(health={"path": "/up", "status": 204})
    host.serve(204, "")
    assert restore.ask(host.store().application, "r1") == ""


def test_a_service_that_drips_its_answer_is_given_up_in_time(host: BackupHost) -> None:
    """The data are there again, and somebody waits."""
    deadlines = []

    def get(connect: str, path: str, *, deadline: float, name: str) -> None:
        deadlines.append(deadline)
        raise LateError(f"no answer within {deadline} s")

    host.monkeypatch.setattr(restore, "get", get)
    fault = restore.ask(host.store().application, "r1")
    assert fault == f"gave no answer within {restore.ANSWER_SECONDS} s"
    assert deadlines == [restore.ANSWER_SECONDS]


def test_a_service_that_is_not_healthy_afterwards_undoes_the_restore(host: BackupHost) -> None:
    name = host.back_up()
    host.order("D")
    host.serve(503, "no stock")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "After the start, /readyz answers 503 in place of 200: no stock" in answer["msg"]
    assert host.customers() == ["A", "B", "C", "D"]


def test_a_restore_and_a_handover_keep_out_of_each_others_way(host: BackupHost) -> None:
    """One that is under way would start the service on data that are being replaced."""
    host.good("backup")
    host.calls()
    lock = host.application.handover_lock
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, answer = host.run("restore", "latest")
        assert code == REFUSED
        assert "A handover has been under way" in answer["msg"]
    assert not [call for call in host.calls() if call.startswith(("systemctl", "shop handover"))]
    seen: list[tuple[str, bool]] = []
    real = subprocess.run

    def look(argv: Any, *rest: Any, **options: Any) -> Any:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
        seen.append((f"{Path(argv[0]).name} {argv[1]}", free))
        return real(argv, *rest, **options)

    host.monkeypatch.setattr(subprocess, "run", look)
    host.good("restore", "latest")
    held = {call for call, free in seen if not free}
    assert {"systemctl stop", "shop migrate", "shopctl restore"} <= held
    assert ("shop handover", True) in seen
    assert "shop handover" not in held


# Before anything is stopped -----------------------------------------------------------------------


def test_no_room_stops_nothing(host: BackupHost) -> None:
    name = host.back_up()
    host.monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    host.calls()
    code, answer = host.run("restore", name)
    assert code == 2
    assert "make room first" in answer["msg"]
    assert not host.stopped()


def test_restore_in_check_mode_looks_only(host: BackupHost) -> None:
    name = host.back_up()
    host.order("D")
    host.calls()
    answer = host.good("restore", name, "--check")
    assert "would be restored" in answer["msg"]
    assert host.customers() == ["A", "B", "C", "D"]
    assert host.calls() == ["shopctl schema --code"]


def test_a_copy_that_is_still_to_be_handed_over_can_be_previewed(host: BackupHost) -> None:
    """In check mode nothing is copied to the host, so there is nothing to read."""
    name = host.back_up()
    host.calls()
    answer = host.good("restore", "20300101T000000Z-2.sqlite", "--preview")
    assert answer["changed"] is True
    assert "20300101T000000Z-2.sqlite would be copied to this host" in answer["msg"]
    assert host.calls() == []
    assert f"{name} is whole" in host.good("restore", name, "--preview")["msg"]
    assert not host.stopped()


def test_nobody_interrupts_a_restore_half_way() -> None:
    with restore.undisturbed():
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
