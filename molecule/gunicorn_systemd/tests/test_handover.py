"""The handover on the host: releases and settings, good and bad, killed and rebooted in the middle.

Releases are copies of the live one with a few lines more, so that no run of Ansible stands between
the test and what it is about.
"""

from __future__ import annotations

import json
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Service

ROOT = "/opt/plain"
# `make proof` tries on both systems what is tried here on one.
EVERY_SYSTEM = bool(os.environ.get("EVERY_SYSTEM"))
STATE = f"{ROOT}/state/handover.json"

# Answers to the question by which releases are judged, without a change to what clients get.
WRAPPED = """
_whole = app
def app(environ, start_response):
    if environ["PATH_INFO"] == "/" and {condition}:
        {fault}
    return _whole(environ, start_response)
"""
DOWN = 'start_response("503 Down", [("Content-Length", "4")]); return [b"down"]'
# The service is asked three times before it bakes, by any of its workers; what they ask themselves
# when they start does not count.
LATE = """
def _asked():
    path = os.path.join(os.environ["STATE_DIRECTORY"], RELEASE)
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)
"""
# What a release is refused for does not depend on the system: each is tried on one, and on both in
# `make proof`.
TRIED_ON = {
    "import-error": "debian13",
    "exception-at-start": "debian12",
    "slow-start": "debian12",
    "never-ready": "debian13",
    "wrong-release": "debian12",
    "workers-die": "debian13",
    "fails-in-the-bake": "debian12",
}
# What is appended to the application, the stage in which it is found out, and what is said.
BROKEN = {
    "import-error": ("import something_missing", "standby", "No module named 'something_missing'"),
    "exception-at-start": ("raise RuntimeError('no database')", "standby", "no database"),
    "slow-start": ("time.sleep(100)", "standby", "did not start within 30 s"),
    "never-ready": (
        WRAPPED.format(condition="True", fault=DOWN),
        *("standby", "answered 503, not 200, within 10 s"),
    ),
    "wrong-release": ("RELEASE = 'another'", "standby", "answered as release 'another'"),
    "workers-die": (
        WRAPPED.format(condition="True", fault="os._exit(1)"),
        # The last question may find no worker, or one that is about to die: the journal tells.
        *("standby", "exited with code 1"),
    ),
    "fails-in-the-bake": (
        LATE
        + WRAPPED.format(
            condition="'HANDOVER_STANDBY_SOCKET' not in os.environ"
            " and environ.get('HTTP_USER_AGENT') != 'warm-up' and _asked() > 3",
            fault=DOWN,
        ),
        *("bake", "answered 503, not 200, 2 times while baking"),
    ),
}


@dataclass
class Handover:
    """Runs the command on the host, and makes releases for it."""

    host: Host
    plain: Service
    as_root: Callable[[str], str]
    first: str
    made: int = 0

    def make(self, kind: str = "good", appended: str = "") -> str:
        """A release that is the first one with some lines more."""
        self.made += 1
        release = f"made-{self.made}-{kind}"
        to = f"{ROOT}/releases/{release}"
        self.as_root(f"cp -a {ROOT}/releases/{self.first} {to} && rm -rf {to}/app/__pycache__")
        self.as_root(f"printf '%s\n' {shlex.quote(appended)} >> {to}/app/app.py")
        return release

    def run(self, release: str = "", options: str = "") -> dict[str, Any]:
        """Hand over and return what the command says, with its exit code as `code`."""
        done = self.host.run(f"plain handover --json --by test {options} {release}")
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return {**json.loads(done.stdout), "code": done.rc}

    def begin(self, release: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: self.run(release))
        thread.start()
        return thread

    def at(self, stage: str, command: str) -> str:
        """Run a command on the host as soon as a stage has begun."""
        seen = f"""grep -qs '"stage": "{stage}"' {STATE}"""
        return self.as_root(
            f"timeout 60 sh -c {shlex.quote(f'until {seen}; do sleep 0.02; done')}; {command}"
        )

    @property
    def live(self) -> str:
        """The release that answers clients, which `current` has to agree with."""
        answer = self.plain.ask()
        assert answer.status == 200
        release = answer.json()["release"]
        assert self.as_root(f"readlink {ROOT}/current").strip() == f"releases/{release}"
        return str(release)

    def settled(self) -> bool:
        """Nothing is under way, nothing is left over."""
        standby = self.plain.show("ActiveState", unit="plain-standby.service")["ActiveState"]
        under_way = self.plain.show("ActiveState", unit="plain-handover.service")["ActiveState"]
        return (
            not self.host.file(STATE).exists
            and standby in ("inactive", "failed")
            and under_way in ("inactive", "failed")
        )

    def limits(self, **changed: Any) -> None:
        """Other limits in the settings of the handover."""
        path = "/etc/plain/handover.json"
        told = json.loads(self.as_root(f"cat {path}"))
        told["check"] |= {key: changed.pop(key) for key in [*changed] if key in told["check"]}
        self.as_root(f"printf '%s\n' {shlex.quote(json.dumps(told | changed))} > {path}")


@pytest.fixture(scope="module")
def system(host: Host) -> str:
    """The host's name in the inventory, which is its system's."""
    return str(host.ansible.get_variables()["inventory_hostname"])


@pytest.fixture(scope="module")
def handover(host: Host, plain: Service, as_root: Callable[[str], str]) -> Iterator[Handover]:
    """The command with less patience; afterwards release and settings are those of before."""
    first = plain.ask().json()["release"]
    found = Handover(host, plain, as_root, first)
    as_root("cp -p /etc/plain/handover.json /root/handover.json")
    found.limits(time_limit=10, interval=0.4, start_time_limit=30, bake_time=3)
    yield found
    as_root("cp -p /root/handover.json /etc/plain/handover.json")
    result = found.run(first, "--wait 60")
    assert result["code"] == 0, result
    as_root(f"rm -r {ROOT}/releases/made-* {ROOT}/state/releases/made-*")


def test_a_release_replaces_another_under_load(handover: Handover, plain: Service) -> None:
    """Nobody is refused or cut off, one whose request takes 20 seconds neither."""
    before, sockets = handover.live, plain.client("inodes", to=plain.everywhere)
    release = handover.make()
    slow: list[Any] = []
    patient = threading.Thread(target=lambda: slow.append(plain.ask("/slow?seconds=20")))
    with plain.load(until=True) as load:
        patient.start()
        time.sleep(1)
        result = handover.run(release)
    patient.join()
    assert (result["code"], result["previous"]) == (0, before), result
    assert load.bad == {}
    assert [(answer.status, answer.json()["release"]) for answer in slow] == [(200, before)]
    assert handover.live == release
    assert handover.settled()
    assert plain.client("inodes", to=plain.everywhere) == sockets
    print(f"slowest of {load.good} requests: {load.longest} s; stages: {result['seconds']}")
    # Once more: nothing to do.
    assert handover.run(release)["changed"] is False


def test_a_broken_release_is_taken_back_and_nobody_notices(
    handover: Handover, plain: Service, system: str
) -> None:
    """Each kind in turn under one load: it never answers a client, or goes before it does harm."""
    before = handover.live
    with plain.load(until=True) as load:
        for kind, (appended, stage, said) in BROKEN.items():
            if TRIED_ON[kind] != system and not EVERY_SYSTEM:
                continue
            broken = handover.make(kind, appended)
            result = handover.run(broken)
            assert (result["code"], result["verdict"]) == (1, "bad"), result
            assert result["stage"] == stage, result
            assert said in result["msg"], result["msg"]
            assert handover.live == before
            assert handover.settled()
            record = json.loads(handover.as_root(f"cat {ROOT}/state/releases/{broken}.json"))
            assert (record["verdict"], record["failure"]["stage"]) == ("bad", stage)
    assert load.bad == {}


PROGRAM = "systemctl kill --signal=KILL plain-handover"
STANDBY = (
    "until systemctl --quiet is-active plain-standby; do sleep 0.02; done; "
    "systemctl kill --signal=KILL plain-standby"
)
SERVICE = "kill -9 $(systemctl show --value --property=MainPID plain)"
# Who is killed at which stage, and whether the new release is live afterwards; each on one system,
# `make proof` tries every stage everywhere.
KILLED = {
    "debian12": [("main", PROGRAM, False), ("standby", STANDBY, False)],
    "debian13": [("standby", PROGRAM, False), ("bake", PROGRAM, False), ("bake", SERVICE, True)],
}


def test_whoever_is_killed_the_service_comes_to_a_known_state(
    handover: Handover, plain: Service, system: str
) -> None:
    """systemd starts a handover that was killed again, and it goes back to what was live before.
    The same command again goes through."""
    for stage, command, new in KILLED[system]:
        before, release = handover.live, handover.make()
        with plain.load(until=True) as load:
            under_way = handover.begin(release)
            handover.at(stage, command)
            under_way.join()
            plain.wait(handover.settled)
        assert handover.live == (release if new else before), (stage, command)
        assert load.bad == {}, (stage, command)
    assert handover.run(release)["code"] == 0
    assert handover.live == release


@pytest.mark.one_system(12)
def test_settings_that_are_judged_bad_are_not_loaded_later(
    handover: Handover, plain: Service, as_root: Callable[[str], str]
) -> None:
    """Files and unit are those of before, so a crash of the service brings up what was good."""
    for file, line in (
        ("/etc/plain/gunicorn.conf.py", "wsgi_app = 'nowhere:app'"),
        ("/etc/systemd/system/plain-standby.service", "[Service]\nExecStartPre=/bin/false"),
    ):
        as_root(f"cp -p {file} /root/kept && printf {shlex.quote(line)} >> {file}")
        with plain.load(until=True) as load:
            result = handover.run()
        assert (result["code"], result["stage"]) == (1, "standby"), result
        assert "with the settings of before" in result["msg"]
        assert load.bad == {}
        as_root(f"cmp {file} /root/kept")
    as_root(f"kill -9 {plain.master}")
    assert plain.ask().status == 200
    again = handover.run()
    assert again["changed"] is False, again


@pytest.mark.one_system(13)
def test_there_is_one_handover_at_a_time(handover: Handover, plain: Service) -> None:
    """The second is told what is under way, or waits if it was asked to."""
    first = handover.make()
    second = handover.make()
    under_way = handover.begin(first)
    handover.at("main", "true")
    refused = handover.run(second)
    assert refused["code"] == 2
    assert f"Another handover is under way (to {first}, by test, since" in refused["msg"]
    waited = handover.run(second, "--wait 60")
    under_way.join()
    assert (waited["code"], waited["previous"]) == (0, first)
    assert handover.live == second


@pytest.mark.parametrize(
    ("release", "code", "said"),
    [
        ("nowhere", 2, "There is no release 'nowhere' in /opt/plain; there are: "),
        ("../plain", 64, "'../plain' cannot be the name of a release"),
    ],
)
def test_what_cannot_be_is_refused(
    host: Host, plain: Service, release: str, code: int, said: str
) -> None:
    before = plain.master
    result = host.run(f"plain handover {release}")
    assert result.rc == code
    assert said in result.stderr
    assert plain.master == before


@pytest.mark.one_system(12)
def test_a_reboot_in_the_middle_brings_up_what_was_good(
    handover: Handover, plain: Service, reboot: Callable[[], None], as_root: Callable[[str], str]
) -> None:
    """`current` and the settings were the new ones already."""
    before, release = handover.live, handover.make()
    as_root("cp -rp /etc/plain /root/kept-settings && echo MARK=new >> /etc/plain/environment")
    handover.limits(bake_time=100)
    as_root(f"systemd-run --quiet /usr/local/sbin/plain handover {release}")
    handover.at("bake", "true")
    assert as_root(f"readlink {ROOT}/current").strip() == f"releases/{release}"
    assert "MARK" in plain.ask("/environment").json()
    reboot()
    assert handover.live == before
    assert "MARK" not in plain.ask("/environment").json()
    as_root("diff -r /etc/plain /root/kept-settings")
    assert handover.settled()
    assert handover.run()["changed"] is False
