"""`wsgi.host.firewall`: how rules are tried, and what is said of those that lock the run out."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.wsgi.host.plugins.action import firewall as action_plugin
from ansible_collections.wsgi.host.plugins.modules import firewall
from conftest import action_of

WANTED = {
    "rules": "table inet host_firewall\n",
    "kept": "/etc/host-firewall/rules.nft",
    "without": "table inet host_firewall; delete table inet host_firewall",
    "seconds": 60,
    "ports": [22, 2222],
    "sources": ["office", "192.0.2.7"],
    "networks": ["198.51.100.0/24", "192.0.2.7"],
}


def process(proc: Path, pid: int, parent: int, name: str, began: int, environ: str = "") -> None:
    place = proc / str(pid)
    place.mkdir()
    rest = ["S", str(parent), *["0"] * 17, str(began), *["0"] * 30]
    (place / "stat").write_text(f"{pid} ({name}) {' '.join(rest)}\n")
    (place / "comm").write_text(f"{name}\n")
    (place / "environ").write_text(environ)


@pytest.mark.parametrize("daemon", ["sshd", "sshd-session"])
def test_the_connection_is_that_of_the_closest_daemon(daemon: str, tmp_path: Path) -> None:
    """All commands of one connection have it; the one that listens is as old as the host."""
    said = "HOME=/home/ops\0SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 2222\0LANG=C\0"
    process(tmp_path, 10, 1, "sshd", 100)
    process(tmp_path, 20, 10, daemon, 5000)
    process(tmp_path, 21, 20, daemon, 5010)
    process(tmp_path, 30, 21, "sh) (x", 5020, said)
    process(tmp_path, 31, 30, "sudo", 5030, said)
    process(tmp_path, 40, 31, "python3", 5040, "HOME=/root\0")
    assert firewall.session(40, str(tmp_path)) == {
        "client": "192.0.2.9",
        "port": 2222,
        "began": 5010,
    }


def test_without_ssh_there_is_no_connection(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, "cron", 100)
    process(tmp_path, 20, 10, "python3", 200, "OLD_SSH_CONNECTION=192.0.2.9 1 192.0.2.1 22\0")
    assert firewall.session(20, str(tmp_path)) == {"client": "", "port": 0, "began": 0}


def test_a_real_process_is_read() -> None:
    parent, began = firewall.parent_and_start(os.getpid())
    assert parent == os.getppid()
    assert began >= firewall.parent_and_start(parent)[1] > 0
    assert firewall.session(os.getpid())["port"] >= 0


@pytest.mark.parametrize(
    ("client", "port", "kept_out"),
    [
        ("192.0.2.7", 22, False),
        ("198.51.100.200", 2222, False),
        ("198.51.100.200", 2200, True),
        ("192.0.2.8", 22, True),
        ("2001:db8::1", 22, True),
        # Nobody is logged in: a timer started it.
        ("", 0, False),
    ],
)
def test_who_is_logged_in_where_ansible_runs_on_the_host_itself(
    client: str, port: int, kept_out: bool
) -> None:
    said = firewall.shut_out({"client": client, "port": port}, WANTED)
    assert bool(said) is kept_out
    if kept_out:
        assert said.startswith("firewall_ssh_sources or firewall_ssh_ports would lock you out: ")
        assert f"you are logged in from {client} at port {port}" in said
        assert "SSH is open to office, 192.0.2.7 on 22, 2222. Add what is missing." in said


class FailedError(Exception):
    pass


def fail(msg: str) -> None:
    raise FailedError(msg)


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> list[list[str]]:
    """The commands of a trial, of which one that has a word fails."""
    called: list[list[str]] = []

    def run(argv: Any, **_: Any) -> Any:
        called.append([str(word) for word in argv])
        failed = failing and failing in called[-1]
        return subprocess.CompletedProcess(argv, int(bool(failed)), "", "it says why\n")

    monkeypatch.setattr(firewall, "PLACE", str(tmp_path / "place"))
    monkeypatch.setattr(firewall, "CANDIDATE", str(tmp_path / "place" / "candidate.nft"))
    monkeypatch.setattr(firewall.subprocess, "run", run)
    try:
        firewall.begin(SimpleNamespace(params=WANTED, fail_json=fail))
    except FailedError as error:
        called.append([str(error)])
    return called


def test_the_way_back_is_there_before_the_rules_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed between the two would leave a host that nobody can reach."""
    called = begun(tmp_path, monkeypatch)
    candidate = str(tmp_path / "place" / "candidate.nft")
    checked = [firewall.NFT, "--check", "--file", candidate]
    loaded = [firewall.NFT, "--file", candidate]
    timer = next(argv for argv in called if argv[0] == "systemd-run")
    assert called.index(checked) < called.index(timer) < called.index(loaded)
    assert called[-1] == loaded
    assert "--on-active=60" in timer
    # A timer of an earlier trial would end this one.
    stopped = next(argv for argv in called if argv[:2] == ["systemctl", "stop"])
    assert called.index(stopped) < called.index(timer)
    place = tmp_path / "place"
    assert (place.stat().st_mode & 0o777, Path(candidate).stat().st_mode & 0o777) == (0o700, 0o600)
    assert Path(candidate).read_text() == WANTED["rules"]


@pytest.mark.parametrize("kept", [True, False])
def test_going_back_is_loading_what_lasts(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = next(argv for argv in begun(tmp_path, monkeypatch) if argv[0] == "systemd-run")
    monkeypatch.undo()
    shell, _, back, _, place, without = timer[-6:]
    path = tmp_path / "kept"
    if kept:
        path.touch()
    assert place == WANTED["kept"]
    done = subprocess.run(
        [shell, "-c", back, "/bin/echo", str(path), without],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (f"--file {path}" if kept else WANTED["without"])


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ("--check", "nft does not take the rules: it says why"),
        ("systemd-run", "The host could not be told to go back, so nothing was changed"),
    ],
)
def test_nothing_is_loaded_where_it_could_not_be_taken_back(
    failing: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = begun(tmp_path, monkeypatch, failing)
    assert called[-1][0].startswith(said)
    assert [argv for argv in called if argv[:2] == [firewall.NFT, "--file"]] == []


# The action


def tried(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Any],
    client: str = "192.0.2.9",
    back: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """What an action returns whose host gives these answers to new connections, and what it did.

    Args:
        back: the answer once the host has gone back.
    """
    did: list[str] = []
    clock = itertools.count(0, 1)
    action = action_of(action_plugin.ActionModule, WANTED, {})
    action._connection._remote_is_local = False
    action._connection.reset = lambda: did.append("reset")
    monkeypatch.setattr(action_plugin.time, "monotonic", lambda: float(next(clock)))
    pauses = {action_plugin.PAUSE_SECONDS: "sleep"}
    monkeypatch.setattr(
        action_plugin.time, "sleep", lambda seconds: did.append(pauses.get(seconds, "wait"))
    )

    def execute(**call: Any) -> dict[str, Any]:
        arguments = call["module_args"]
        if "since" not in arguments:
            did.append("begin")
            return {"changed": True, "since": 77, "client": client, "port": 22}
        assert arguments["since"] == 77
        did.append("come in")
        if "wait" in did and back:
            return dict(back)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    action._execute_module = execute
    return action.run(task_vars={}), did


def test_rules_stay_when_a_new_connection_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    result, did = tried(monkeypatch, [{"new": True}])
    assert (result["changed"], result["new"], result.get("failed")) == (True, True, None)
    assert did == ["begin", "reset", "come in"]


def test_a_connection_that_was_kept_open_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = tried(monkeypatch, [{"new": False}])
    assert result["failed"]
    assert "no new SSH connection got through (the connection was not a new one)" in result["msg"]


def test_one_that_is_lost_on_the_way_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    result, did = tried(monkeypatch, [AnsibleConnectionFailure("lost"), {"new": True}])
    assert result["new"]
    assert did == ["begin", "reset", "come in", "sleep", "reset", "come in"]


def test_who_is_locked_out_is_told_by_the_names_of_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = AnsibleConnectionFailure("port 22: Connection refused")
    result, did = tried(monkeypatch, [refused], back={"new": False, "client": "192.0.2.9"})
    assert did.count("wait") == 1
    assert did[-3:] == ["wait", "reset", "come in"]
    assert result["failed"]
    assert result["msg"].startswith(
        "firewall_ssh_sources or firewall_ssh_ports would lock this run"
    )
    assert "(port 22: Connection refused)" in result["msg"]
    assert (
        "reverted them by itself after 60 s. The previous rules are back in force" in result["msg"]
    )
    assert (
        "connect from 192.0.2.9 to its port 22; SSH is open to office, 192.0.2.7 on 22, 2222"
        in (result["msg"])
    )


def test_a_host_that_stays_away_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = tried(monkeypatch, [AnsibleConnectionFailure("timed out")])
    assert "It has not answered since then either (timed out)" in result["msg"]


def test_over_other_connections_there_is_nothing_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    result, did = tried(monkeypatch, [], client="")
    assert (result["changed"], result["new"]) == (True, False)
    assert did == ["begin"]
