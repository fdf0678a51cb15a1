"""What a run changes, while clients ask; and what it refuses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Service

SCENARIO = Path(__file__).parents[1]


@pytest.mark.one_system(13)
def test_a_changed_setting_loses_no_request(plain: Service, again: Callable[..., Any]) -> None:
    """A handover; the sockets are the same ones before and after."""
    sockets = plain.client("inodes", to=plain.everywhere)
    assert sorted(sockets) == sorted(plain.everywhere)
    master = plain.master
    with plain.load(until=True) as load:
        run = again(gunicorn_systemd_workers=2)
    assert run.returncode == 0, run.output
    assert load.bad == {}
    assert plain.master != master
    assert len(plain.children()) == 2
    assert plain.client("inodes", to=plain.everywhere) == sockets


@pytest.mark.one_system(12)
def test_another_port_replaces_the_one_before(plain: Service, again: Callable[..., Any]) -> None:
    """Only this closes the sockets: they are opened anew between a stop and a start."""
    run = again(gunicorn_systemd_bind=["127.0.0.1:5001"])
    assert run.returncode == 0, run.output
    assert plain.ask(via="127.0.0.1:5001").status == 200
    assert plain.ask().status == 200
    assert plain.told("bind")[0] not in plain.client("ports")
    shown = plain.show("ActiveState", "NRestarts")
    assert shown == {"ActiveState": "active", "NRestarts": "0"}


def broken(folder: Path) -> str:
    """A copy of the application that cannot be imported."""
    shutil.copytree(SCENARIO / "app", folder / "app")
    (folder / "app" / "app.py").write_text("import something_missing\n")
    return str(folder / "app")


@pytest.mark.one_system(13)
def test_a_broken_release_fails_the_run_and_says_why(
    plain: Service, again: Callable[..., Any], tmp_path: Path
) -> None:
    """And what was live before still is."""
    before, master = plain.ask().json()["release"], plain.master
    with plain.load(until=True) as load:
        run = again(source=broken(tmp_path))
    assert run.returncode != 0
    assert "was judged bad in stage standby: it died" in run.output
    assert f"release {before} is live as before" in run.output
    assert "No module named 'something_missing'" in run.output
    assert load.bad == {}
    assert (plain.ask().json()["release"], plain.master) == (before, master)


@pytest.mark.one_system(12)
def test_settings_that_are_judged_bad_are_put_back(
    host: Host, plain: Service, again: Callable[..., Any]
) -> None:
    """Active is not healthy: systemd is content before there is a single worker. The next run does
    not take it for done, nor what was put back for somebody's edit."""
    path = "/etc/plain/gunicorn.conf.py"
    before = host.file(path).content
    bad = {
        "gunicorn_systemd_workers": 2,
        "gunicorn_systemd_check_path": "/nowhere",
        "gunicorn_systemd_check_time_limit_seconds": 2,
    }
    for _ in range(2):
        run = again(**bad)
        assert run.returncode != 0
        assert "it answered 404, not 200, within 2 s" in run.output
        assert "with the settings of before" in run.output
        assert host.file(path).content == before
        assert "written by somebody else" not in run.output
    # Also what another test has changed is as it was, which the tests of connections count on.
    run = again(gunicorn_systemd_workers=2)
    assert run.returncode == 0, run.output
    assert run.changed > 0
    assert len(plain.children()) == 2


@pytest.mark.one_system(13)
def test_a_run_that_was_cut_off_is_finished_by_the_next(
    host: Host, plain: Service, control: Any, again: Callable[..., Any], tmp_path: Path
) -> None:
    """Files that were written without the restart would look done to a run that only compares."""
    told = {
        key: value
        for task in yaml.safe_load((SCENARIO / "converge.yml").read_text())[0]["tasks"]
        for key, value in task.get("vars", {}).items()
        if "plain" in task.get("tags", [])
    }
    name = plain.ask().json()["directory"].split("/")[4]
    told |= {"gunicorn_systemd_release": name, "gunicorn_systemd_workers": 3}
    role = {"name": "gunicorn_systemd", "tasks_from": "prepare"}
    tasks = [{"import_role": role, "vars": told}, {"fail": {"msg": "cut off here"}}]
    playbook = tmp_path / "cut_off.yml"
    playbook.write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "become": True, "tasks": tasks}])
    )
    master, workers = plain.master, len(plain.children())
    limit = host.ansible.get_variables()["inventory_hostname"]
    run = control.run_playbook(playbook, limit=limit)
    assert "cut off here" in run.output, run.output
    assert plain.master == master, "nothing restarts the service but the handover"
    assert len(plain.children()) == workers
    run = again(gunicorn_systemd_workers=3)
    assert run.returncode == 0, run.output
    assert len(plain.children()) == 3


@pytest.mark.one_system(12)
def test_a_unit_that_systemd_does_not_understand_never_goes_live(
    host: Host, plain: Service, play: Callable[..., Any]
) -> None:
    path = "/etc/systemd/system/plain.service"
    before, master = host.file(path).content, plain.master
    run = play(gunicorn_systemd_unit_options={"ProtectHome": "perhaps"})
    assert run.returncode != 0
    assert "refused the configuration; nothing was changed" in run.output
    assert re.search(rf"{path}:\d+: Failed to parse .*perhaps", run.output)
    assert host.file(path).content == before
    assert plain.master == master


@pytest.mark.one_system(13)
def test_the_port_of_another_program_is_refused(
    plain: Service, play: Callable[..., Any], as_root: Callable[[str], str]
) -> None:
    """Before anything is changed, with its name."""
    as_root(
        "systemd-run --unit=squatter python3 -m http.server --bind 127.0.0.1 --directory /srv 5001"
    )
    plain.wait(lambda: "127.0.0.1:5001" in plain.client("ports"))
    try:
        run = play(gunicorn_systemd_bind=["127.0.0.1:5001"])
    finally:
        as_root("systemctl stop squatter.service")
    assert run.returncode != 0
    assert re.search(r"gunicorn_systemd_bind needs port 5001, but python3.*squatter", run.output)
    assert "Nothing was changed" in run.output
    assert plain.ask(via=plain.told("bind")[0]).status == 200


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_a_connection_to_a_stopped_service_starts_it(
    plain: Service, as_root: Callable[[str], str], where: str
) -> None:
    """It waits in the socket, which systemd holds, until there are workers."""
    via = plain.unix if where == "unix" else plain.told("bind")[0]
    as_root("systemctl stop plain.service & true")
    for _ in range(5):
        assert plain.ask(via=via).status == 200
    assert plain.show("ActiveState")["ActiveState"] == "active"
