"""The verb `maintenance`: nginx answers in the application's place as long as a file is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from apphost import maintenance, metrics, seal, status

from .conftest import Host, describe

# What the status knows of an application that serves its clients.
WELL: dict[str, Any] = {
    "health": {"ok": True},
    "service": "active",
    "site": None,
    "drift": [],
    "maintenance": None,
    "drained": None,
}


@pytest.fixture
def flag(host: Host) -> Path:
    """The file, on a host whose nginx looks for it."""
    folder = host.application.host / "etc/nginx/maintenance"
    folder.mkdir(parents=True)
    return folder / "shop.on"


def test_it_is_turned_on_and_off(host: Host, flag: Path, as_root: None, capsys: Any) -> None:
    words = ("--by", "anna", "--reason", "new disk")
    code, answer = host.run(capsys, "maintenance", "on", *words)
    assert (code, answer["changed"]) == (0, True)
    assert flag.stat().st_mode & 0o777 == 0o644
    assert json.loads(flag.read_text())["reason"] == "new disk"
    since = json.loads(flag.read_text())["since"]
    # Again it stays as it is: whoever looks wants to know when it began.
    code, answer = host.run(capsys, "maintenance", "on", "--by", "ben")
    assert (code, answer["changed"]) == (0, False)
    assert answer["maintenance"] == {
        "since": since,
        "by": "anna",
        "reason": "new disk",
        "described": False,
    }
    code, answer = host.run(capsys, "maintenance")
    assert "is on since" in answer["msg"]
    assert "by anna: new disk" in answer["msg"]
    for changed in (True, False):
        code, answer = host.run(capsys, "maintenance", "off")
        assert (code, answer["changed"], answer["maintenance"]) == (0, changed, None)
    assert not flag.exists()


def test_check_changes_nothing(host: Host, flag: Path, as_root: None, capsys: Any) -> None:
    code, answer = host.run(capsys, "maintenance", "on", "--check")
    assert (code, answer["changed"], answer["msg"]) == (0, True, "Would turn maintenance on.")
    assert not flag.exists()
    flag.touch()
    code, answer = host.run(capsys, "maintenance", "off", "--check")
    assert (answer["changed"], flag.exists()) == (True, True)


def test_what_the_description_wants_is_not_turned_off_here(
    host: Host, flag: Path, as_root: None, capsys: Any
) -> None:
    """The next request would get the page all the same."""
    describe(host.application, site={"maintenance": True})
    code, answer = host.run(capsys, "maintenance", "off")
    assert code == 2
    assert "remove `maintenance: true` from its site and run site.yml" in answer["msg"]
    code, answer = host.run(capsys, "maintenance", "status")
    assert "as its description says" in answer["msg"]


def test_it_refuses_what_it_cannot_do(host: Host, as_root: None, capsys: Any) -> None:
    code, answer = host.run(capsys, "maintenance", "on")
    assert code == 2
    assert "run site.yml, which sets nginx up for this" in answer["msg"]


def test_only_root_switches_it(
    host: Host, flag: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for wanted in ("on", "off"):
        code, answer = host.run(capsys, "maintenance", wanted)
        assert (code, "use sudo" in answer["msg"]) == (2, True)
    assert host.run(capsys, "maintenance")[0] == 0


def test_whoever_looks_is_told(host: Host, flag: Path) -> None:
    """By the status in its first line, and by the numbers."""
    facts = {**WELL}
    assert status.headline("shop", facts) == "shop is up."
    flag.touch()
    facts["maintenance"] = maintenance.look(host.application)
    assert status.headline("shop", facts) == (
        "shop is up, and in maintenance: its clients get 503."
    )
    assert maintenance.words(facts["maintenance"]) == "on"
    numbers = {
        metric.name: metric.value
        for metric in metrics.metrics(host.application, dict.fromkeys(metrics.PROPERTIES, ""))
    }
    assert numbers["app_in_maintenance"] == 1
    flag.unlink()
    numbers = {
        metric.name: metric.value
        for metric in metrics.metrics(host.application, dict.fromkeys(metrics.PROPERTIES, ""))
    }
    assert numbers["app_in_maintenance"] == 0


def test_a_run_of_the_playbook_has_nothing_to_do_because_of_it(host: Host, flag: Path) -> None:
    """The seal lists what else lies in nginx's directories, and holds all the same."""
    root = host.application.host
    record = root / "var/lib/config-tree/nginx.json"
    record.parent.mkdir(parents=True)
    places = ["/etc/nginx/maintenance", "/etc/nginx/sites"]
    (root / "etc/nginx/sites").mkdir()
    written: dict[str, Any] = {"/etc/nginx/nginx.conf": {}}
    record.write_text(json.dumps({"files": written, "directories": places}))
    before = seal.noted(root, {"units": {}})
    flag.touch()
    (root / maintenance.DRAINED).touch()
    assert seal.noted(root, {"units": {}}) == before
    for other in ("etc/nginx/sites/other.conf", "etc/nginx/other.conf"):
        (root / other).touch()
        assert seal.noted(root, {"units": {}}) != before
        (root / other).unlink()


def test_status_says_that_the_host_is_drained(host: Host, flag: Path) -> None:
    """It is not forgotten there: the application is up, and serves nobody."""
    assert maintenance.drained(host.application) is None
    assert [each.value for each in metrics.of_the_host(host.application)] == [None]
    drained = flag.parent.with_name("drained.on")
    drained.touch()
    os.utime(drained, (0, 0))
    since = maintenance.drained(host.application)
    (told,) = metrics.of_the_host(host.application)
    assert (told.name, told.value) == ("app_host_drained_timestamp_seconds", 0)
    assert since == "1970-01-01T00:00:00Z"
    assert status.headline("shop", {**WELL, "drained": since}) == (
        "shop is up, and its host is drained: balancers send nobody here."
    )
