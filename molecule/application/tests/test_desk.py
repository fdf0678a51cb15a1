"""One application with all that a description can ask for, deployed while its workers work."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host
from workplace import PROJECT, Visitors, Workplace, ask, connected

testinfra_hosts = ["ansible://debian12"]

SITE = "desk.example.com"
SOURCE = PROJECT / "molecule" / "application" / "files" / "desk"
DESCRIPTION: dict[str, Any] = {
    "source": {
        "directory": "../desk",
        "build": [["python", "-c", "open('built.txt', 'w').write('built')"]],
    },
    "asgi": "app:app",
    "domains": [SITE],
    "site": {"websockets": True},
    "web": {"workers": 2},
    "packages": ["tree"],
    "redis": True,
    "workers": {"clerk": {"command": ["python", "worker.py", "{instance}"], "count": 2}},
    "timers": {"often": {"command": ["python", "note.py", "often"], "calendar": "*:*:0/5"}},
    "data": {"sqlite": "desk.db", "directories": ["uploads"]},
    "hooks": {
        "before_handover": {"command": ["python", "note.py", "before"], "where": "host"},
        "after_handover": ["sh", "-c", 'echo "$STAGE $APPLICATION $RELEASE $HOSTS" >> told'],
    },
}
PLAY = ".venv/bin/ansible-playbook -i inventory/production"
SECONDS = 60
# Of RFC 6455: what a server says that goes and comes back.
RESTART = 1012


class Line:
    """A WebSocket to the site, as simple as RFC 6455 lets it be."""

    def __init__(self, address: str) -> None:
        self.socket = connected(address, SITE)
        head = (
            f"GET / HTTP/1.1\r\nHost: {SITE}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self.file = self.socket.makefile("rb")
        self.status = self.file.readline().decode().strip()
        while self.file.readline().strip():
            pass

    def say(self, text: str) -> tuple[int, bytes]:
        """Send a text; return the kind and the payload of the next frame, (0, b"") at an end."""
        # A mask of zeros leaves the text as it is.
        self.socket.sendall(struct.pack("!BBI", 0x81, 0x80 | len(text), 0) + text.encode())
        return self.hear()

    def hear(self) -> tuple[int, bytes]:
        """The next frame."""
        head = self.file.read(2)
        if len(head) < 2:
            return 0, b""
        return head[0] & 0xF, self.file.read(head[1] & 0x7F)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Talk:
    """Somebody who talks over a WebSocket all the time, and connects again when it is closed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.said = 0
        self.codes: list[int] = []
        self.faults: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def _talk(self) -> None:
        while not self._over.is_set():
            line = Line(self.address)
            if not line.status.startswith("HTTP/1.1 101"):
                self.faults.append(line.status)
            while not self._over.is_set() and not self.faults:
                kind, payload = line.say(f"word {self.said}")
                if kind == 8:
                    self.codes.append(struct.unpack("!H", payload[:2])[0])
                    break
                if (kind, payload) != (1, f"word {self.said}".encode()):
                    self.faults.append(f"{kind} {payload!r} after {self.said}")
                self.said += 1
                time.sleep(0.05)
            line.close()
            if self.faults:
                return

    def __enter__(self) -> Talk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Jobs:
    """Hands in jobs one after the other, each with a name of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.names: list[str] = []
        self.faults: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hand_in)

    def _hand_in(self) -> None:
        while not self._over.is_set():
            name = f"job-{len(self.names)}"
            status, body = ask(self.address, SITE, f"/jobs/{name}", "POST")
            if status == 202:
                self.names.append(name)
            else:
                self.faults.append(f"{status} {body[:80]}")
            time.sleep(0.3)

    def __enter__(self) -> Jobs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def workplace(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The application on a host that was bare."""
    place = Workplace(tmp_path_factory.mktemp("desk"), dict(host.ansible.get_variables()))
    shutil.copytree(SOURCE, place.project.parent / "desk")
    place.type("cp -r inventory/example inventory/production")
    inventory = place.project / "inventory/production/group_vars/web/main.yml"
    inventory.write_text("applications: {}\ncertbot_email: ops@example.com\n")
    place.write_host()
    place.describe(desk=DESCRIPTION)
    place.type(f"{PLAY} site.yml")
    return place


@pytest.fixture(scope="module")
def web(workplace: Workplace) -> str:
    """The host's address."""
    return str(workplace.host["ansible_host"])


def until(what: Callable[[], Any], wanted: Any) -> None:
    """Wait for an answer. Raises AssertionError with the last one."""
    end = time.monotonic() + SECONDS
    while (got := what()) != wanted:
        assert time.monotonic() < end, got
        time.sleep(1)


def edit(workplace: Workplace, name: str, old: str, new: str) -> None:
    path = workplace.project.parent / "desk" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def jobs(as_root: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(as_root("desk jobs --json"))
    return found


def working(as_root: Any) -> set[tuple[str, str]]:
    """The processes of workers that are live, each with its start."""
    return {(each["unit"], each["since"]) for each in jobs(as_root)["workers"] if each["live"]}


def lines(as_root: Any, name: str) -> list[str]:
    found: list[str] = as_root(f"cat /var/lib/desk/{name}").splitlines()
    return found


def live(as_root: Any) -> str:
    return str(json.loads(as_root("desk status --json"))["live"])


def test_everything_that_was_asked_for_is_there(
    host: Host, workplace: Workplace, web: str, as_root: Any
) -> None:
    assert ask(web, SITE) == (200, "desk 1\n")
    assert ask(web, SITE, "/built") == (200, "built")
    assert ask(web, SITE, "/uploads/first", "PUT", b"a file")[0] == 201
    line = Line(web)
    assert line.status.startswith("HTTP/1.1 101")
    assert line.say("hello") == (1, b"hello")
    line.close()
    assert host.package("tree").is_installed
    # Its Redis is on no port, and nobody else's.
    assert "redis" not in as_root("ss -Hltnp")
    assert "desk" in as_root("stat -c %U /run/desk-redis/redis.sock")
    assert host.run("sudo -u nobody test -w /run/desk-redis/redis.sock").rc != 0
    release = live(as_root)
    assert lines(as_root, "before") == [f"{release} handover"]
    told = (workplace.project / "told").read_text()
    assert told == f"handover desk {release} web1\n"
    assert "changed=0" in workplace.type(f"{PLAY} site.yml")
    assert lines(as_root, "before") == [f"{release} handover"]


def test_workers_and_timers_are_shown(as_root: Any) -> None:
    """With what they run, and a job is done by one of them."""
    release = live(as_root)
    until(lambda: [each["state"] for each in jobs(as_root)["workers"]], ["active", "active"])
    assert {each["release"] for each in jobs(as_root)["workers"]} == {release}
    until(lambda: (jobs(as_root)["timers"][0]["last"] or {}).get("result"), "success")
    table = as_root("desk jobs")
    assert re.search(r"^often ", table, re.M), table
    assert "2 of 2 worker processes run, 1 timer." in as_root("desk")
    assert set(lines(as_root, "often")) == {f"{release} -"}


def test_nothing_is_lost_in_deploys(workplace: Workplace, web: str, as_root: Any) -> None:
    """Not a request, a job or a word, with a worker that is judged bad and a rollback as well."""
    first = live(as_root)
    with Visitors(web, SITE) as visitors, Talk(web) as talk, Jobs(web) as handed:
        edit(workplace, "app.py", 'VERSION = "1"', 'VERSION = "2"')
        workplace.type(f"{PLAY} playbooks/deploy.yml")
        second = live(as_root)
        assert ask(web, SITE) == (200, "desk 2\n")
        before = working(as_root)
        edit(workplace, "worker.py", "\nmain()", "\nsys.exit(7)\nmain()")
        output = workplace.type(f"{PLAY} playbooks/deploy.yml", status=2)
        # It may live long enough to be called started.
        assert re.search("was judged bad in stage (workers|bake)", output), output[-3000:]
        assert "clerk" in output
        assert live(as_root) == second
        assert working(as_root) == before
        edit(workplace, "worker.py", "\nsys.exit(7)\nmain()", "\nmain()")
        moment = workplace.moment(as_root)
        workplace.type(f"{PLAY} playbooks/rollback.yml")
        assert live(as_root) == first
        # In a hurry every trip counts: look, lock and choose, hand over; then ask and free it.
        assert workplace.trips(as_root, moment) == {
            "wsgi.host.probe": 1,
            "wsgi.host.deploy_lock": 2,
            "wsgi.host.program": 1,
            "wsgi.host.judge": 1,
        }
    assert visitors.bad == []
    assert visitors.asked > 200
    assert (talk.faults, handed.faults) == ([], [])
    assert talk.said > 100
    # Clients are told to come back, and not that something is wrong.
    assert talk.codes
    assert set(talk.codes) == {RESTART}
    until(lambda: len(lines(as_root, "done")) >= len(handed.names), True)
    done = Counter(line.split()[0] for line in lines(as_root, "done"))
    assert set(done) == set(handed.names)
    assert max(done.values()) == 1
    assert {line.split()[1] for line in lines(as_root, "done")} == {"1", "2"}
    until(lambda: len(jobs(as_root)["workers"]), 2)


def test_a_timer_runs_what_is_live(as_root: Any) -> None:
    """After the rollback it is the first release again."""
    count = len(lines(as_root, "often"))
    until(lambda: len(lines(as_root, "often")) > count + 1, True)
    assert lines(as_root, "often")[-1] == f"{live(as_root)} -"


def test_rows_and_files_come_back_together(host: Host, web: str, as_root: Any) -> None:
    """And what is in the queue stays."""
    assert ask(web, SITE, "/uploads/second", "PUT", b"before the copy")[0] == 201
    answer = json.loads(as_root("desk backup --json"))
    assert answer["msg"]
    assert "desk.db" in as_root("tar -tf $(ls -t /var/backups/desk/*.tar | head -n 1)")
    ask(web, SITE, "/uploads/second", "PUT", b"after the copy")
    ask(web, SITE, "/uploads/third", "PUT", b"after the copy")
    as_root("rm /var/lib/desk/uploads/first")
    as_root("desk restore latest")
    status, body = ask(web, SITE, "/uploads")
    assert status == 200
    assert json.loads(body) == {"first": "a file", "second": "before the copy"}
    assert sorted(as_root("ls /var/lib/desk/uploads").split()) == ["first", "second"]
    assert all(each["state"] == "active" for each in jobs(as_root)["workers"])


def test_a_kind_that_is_gone_finishes_and_goes(
    host: Host, workplace: Workplace, web: str, as_root: Any
) -> None:
    """Workers, timer and Redis, while the site goes on."""
    place = workplace.project / "inventory/production/group_vars/web/main.yml"
    described = place.read_text()
    with contextlib.ExitStack() as later:
        later.callback(place.write_text, described)
        workplace.describe(desk={"workers": {}, "timers": {}})
        with Visitors(web, SITE) as visitors:
            workplace.type(f"{PLAY} site.yml")
        assert visitors.bad == []
        until(lambda: as_root("systemctl list-units --plain --no-legend 'desk-worker*'"), "")
        left = as_root("find /etc/systemd/system -name 'desk-worker*' -o -name 'desk-timer*'")
        assert left == ""
        assert "no workers and no timers" in as_root("desk jobs")


def test_nothing_is_left_of_it(host: Host, workplace: Workplace, as_root: Any) -> None:
    workplace.type(
        f"{PLAY} playbooks/remove.yml "
        "-e application_remove=everything -e application_remove_data=yes"
    )
    assert not host.user("desk").exists
    left = as_root(
        "find / -xdev '(' -path /proc -o -path /sys -o -path /var/log ')' -prune"
        " -o -regex '.*[^a-z]desk[^a-z].*' -print -o -regex '.*/desk' -print"
    )
    assert left == ""
    units = as_root("systemctl list-units --all --plain --no-legend 'desk*'").splitlines()
    # systemd remembers the names that other units have said.
    assert [unit for unit in units if "not-found" not in unit] == []
