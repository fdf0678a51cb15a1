"""Batches of hosts, and what becomes of all of them when one fails: the role's own tasks, run.

The hosts are names for this machine, and the programs on them a script that keeps a diary.
"""

from __future__ import annotations

import http.server
import itertools
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT, trusted

from .render import ROLES, evaluate

# Stands for the command of an application. A file says on which host a release is bad.
PROGRAM = """#!{python}
import json, pathlib, sys
host, words = pathlib.Path(sys.argv[0]).name.removeprefix("program-"), sys.argv[1:]
what, release = [*words[words[0] == "releases" :], ""][:2]
with open({diary!r}, "a") as diary:
    print(host, what, release, file=diary)
live = pathlib.Path({here!r}, "live-" + host)
before = live.read_text() if live.exists() else ""
if what != "handover" or release == "--boot":
    print(json.dumps({{"changed": True, "msg": "left"}}))
elif (bad := pathlib.Path({here!r}, f"bad-{{host}}-{{release}}")).exists():
    print(json.dumps({{"changed": False, "msg": bad.read_text()}}))
    sys.exit(1)
else:
    live.write_text(release)
    moved = before != release
    print(json.dumps({{"changed": moved, "msg": release + " is live", "release": release}}))
"""


class Answers(http.server.BaseHTTPRequestHandler):
    """nginx with the application behind it: names the release that `server.release` is."""

    def do_GET(self) -> None:
        body = json.dumps({"release": self.server.release}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=x", "-keyout", path, "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def server(certificate: Path) -> Iterator[http.server.HTTPServer]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    made.release = "new"  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


TASKS = ROLES / "application" / "tasks"
# Of site.yml alone.
REMEMBER = yaml.safe_load((TASKS / "provision.yml").read_text())[0]["block"][-1]
LAST_WORDS = yaml.safe_load((TASKS / "closing.yml").read_text())[-1]


class Fleet:
    """Hosts of which some serve `old`, and a deploy of `new`."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.diary = root / "diary"
        program = root / "program"
        program.write_text(
            PROGRAM.format(python=sys.executable, diary=str(self.diary), here=str(root))
        )
        program.chmod(0o755)
        other = "{{ '' if __application_name == 'shop' else __application_name ~ '-' }}"
        self.key = f"{other}{{{{ inventory_hostname }}}}"
        health = {"path": "/", "status": 200, "release_member": "release", "time_limit_seconds": 2}
        described = {
            name: {
                "name": name,
                "domains": [f"{name}.example.com"],
                "health": health,
                "hooks": {},
                "https_port": port,
                "address": f"https://{name}.example.com/",
            }
            for name in ("shop", "blog")
        }
        self.described = {"applications": described}
        self.variables = {
            "__application_handover_argv": [f"{program}-{self.key}", "handover"],
            "__application_program": f"{program}-{self.key}",
            "__application_lock_path": f"{root}/{other}lock.json",
            "__application_lock_host": "web1",
            "application_reason": "deploy of new",
        }

    def bad(self, host: str, release: str = "new", words: str = "") -> None:
        words = words or f"{release} was judged bad\nits journal"
        (self.root / f"bad-{host}-{release}").write_text(words)

    def deploy(
        self,
        count: int,
        *arguments: str,
        way: str = "deploy",
        left_on: tuple[str, ...] = (),
        names: tuple[str, ...] = ("shop",),
        **variables: Any,
    ) -> tuple[int, str]:
        """Run the stages of a release from the lock to the end; all hosts serve `old` before.

        Args:
            way: `main`, as site.yml does, or `deploy`.
            left_on: hosts on which somebody has rolled back from `new`.
            names: of the applications that each host has. Files of another than the shop have its
                name in front of the host's.
        """
        hosts: dict[str, Any] = {f"web{number}": {} for number in range(1, count + 1)}
        for name, host in itertools.product(names, hosts):
            key = host if name == "shop" else f"{name}-{host}"
            link = self.root / f"program-{key}"
            if not link.exists():
                link.symlink_to("program")
            live = self.root / f"live-{key}"
            if not live.exists():
                live.write_text("old")

        def stage(name: str) -> dict[str, Any]:
            role = {"name": "application", "tasks_from": name, "rolespec_validate": False}
            return {"ansible.builtin.import_role": role}

        left = {"excluded_at": "2026-11-25", "excluded_by": "anna@desk", "excluded_reason": "slow"}
        shipped = {
            "id": "new",
            "current": "{{ lookup('file', live) or none }}",
            # As the module returns it: deploy.yml does not ask.
            "excluded": "{{ left if inventory_hostname in left_on and "
            "(__application_does_everything | default(false)) else none }}",
        }

        def outer(file: str) -> dict[str, Any]:
            tasks = yaml.safe_load((TASKS / f"{file}.yml").read_text())
            [found] = [task for task in tasks if "block" in task]
            return dict(found["vars"])

        def release(name: str) -> dict[str, Any]:
            """From what ship.yml brings to what becomes of it."""
            return {
                "vars": {
                    **outer("provision" if way == "main" else "deploy"),
                    "__application_name": name,
                },
                "block": [
                    *([] if way == "main" else [stage("lock")]),
                    {
                        "ansible.builtin.set_fact": {"__application_release": shipped},
                        "vars": {
                            "live": f"{self.root}/live-{self.key}",
                            "left": left,
                            "left_on": list(left_on),
                        },
                    },
                    # ship.yml ends with it in both, and in a deploy nothing is left.
                    stage("rolled_back"),
                    stage("handover"),
                    *([REMEMBER] if way == "main" else []),
                ],
                "rescue": [stage("recover")],
            }

        book = [
            {
                "hosts": "all",
                "gather_facts": False,
                "any_errors_fatal": True,
                "tasks": [
                    {
                        "vars": outer("main") if way == "main" else {},
                        "block": [
                            *([stage("lock")] if way == "main" else []),
                            *map(release, names),
                        ],
                        "always": [stage("unlock")],
                    },
                    *([LAST_WORDS] if way == "main" else []),
                ],
            }
        ]
        told = {
            "applications": {name: {} for name in names},
            "__application_descriptions": self.described,
            "__application_forgotten": [],
            "__application_bundles": {
                "results": [{"__application_each": name, "bundle": {}} for name in names]
            },
            **self.variables,
            **variables,
        }
        (self.root / "play.yml").write_text(yaml.safe_dump(book, sort_keys=False))
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"web": {"hosts": hosts, "vars": local}}
        (self.root / "hosts.yml").write_text(yaml.safe_dump(inventory))
        done = subprocess.run(
            [
                *(
                    Path(sys.executable).with_name("ansible-playbook"),
                    "play.yml",
                    "-i",
                    "hosts.yml",
                ),
                *("--extra-vars", json.dumps(told), *arguments),
            ],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / "collections"),
                "ANSIBLE_ROLES_PATH": str(ROLES),
                "ANSIBLE_HOME": str(self.root / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
            },
        )
        return done.returncode, done.stdout + done.stderr

    def written(self) -> list[str]:
        """Who was told what, but for settings."""
        return [line for line in self._lines() if "--boot" not in line]

    def reverted(self) -> list[str]:
        """The hosts whose settings were put back if nobody had judged them."""
        return sorted(line.split()[0] for line in self._lines() if "--boot" in line)

    def _lines(self) -> list[str]:
        return self.diary.read_text().splitlines() if self.diary.exists() else []

    def live(self) -> str:
        """What the hosts serve, in their order."""
        return " ".join(path.read_text() for path in sorted(self.root.glob("live-*")))


@pytest.fixture
def fleet(tmp_path: Path, server: http.server.HTTPServer) -> Fleet:
    return Fleet(tmp_path, server.server_address[1])


def test_one_host_first_then_the_others(fleet: Fleet) -> None:
    code, output = fleet.deploy(3)
    assert code == 0, output
    first, *others = fleet.written()
    assert first == "web1 handover new"
    assert sorted(others) == ["web2 handover new", "web3 handover new"]
    assert not (fleet.root / "lock.json").exists()


def test_batches_come_in_the_order_of_their_hosts(fleet: Fleet) -> None:
    code, output = fleet.deploy(3, application_serial="34%")
    assert code == 0, output
    assert fleet.written() == [f"web{number} handover new" for number in (1, 2, 3)]


def test_nothing_changes_where_it_is_live(fleet: Fleet) -> None:
    for number in (1, 2):
        (fleet.root / f"live-web{number}").write_text("new")
    code, output = fleet.deploy(2)
    assert code == 0, output
    assert output.count("changed=0") == 2


def test_failed_host_takes_all_back_and_the_rest_stay_as_they_are(fleet: Fleet) -> None:
    """All hosts serve the same again, and the run says so and fails."""
    fleet.bad("web2")
    code, output = fleet.deploy(4, application_serial=1)
    assert code == 2
    assert fleet.written() == [
        "web1 handover new",
        "web2 handover new",
        "web1 exclude new",
        "web1 handover old",
    ]
    assert fleet.live() == "old old old old"
    assert fleet.reverted() == ["web2", "web3", "web4"]
    said = " ".join(output.rpartition("Deploy of new failed")[2].split())
    assert 'Failed on web2, task "switch | Hand over": new was judged bad' in said
    assert "Rolled back to what served before: web1." in said
    assert "As before: web3, web4." in said
    assert not (fleet.root / "lock.json").exists()


def test_hosts_that_switch_together_go_back_together(fleet: Fleet) -> None:
    """No task after the handover runs on those where it went well."""
    fleet.bad("web3")
    code, output = fleet.deploy(4)
    assert code == 2
    assert fleet.live() == "old old old old"
    assert sorted(fleet.written()) == sorted(
        [
            *(f"web{number} handover new" for number in (1, 2, 3, 4)),
            *(
                f"web{number} {what}"
                for number in (1, 2, 4)
                for what in ("exclude new", "handover old")
            ),
        ]
    )
    assert fleet.reverted() == ["web3"]
    said = " ".join(output.rpartition("Deploy of new failed")[2].split())
    assert 'Failed on web3, task "switch | Hand over": new was judged bad' in said
    assert "Rolled back to what served before: web1, web2, web4." in said
    assert "As before" not in said


def test_reason_that_a_program_gave_is_in_the_last_message(fleet: Fleet) -> None:
    """A first line that only announces it leaves somebody to search the output for it."""
    fleet.bad("web1", words="It failed. Output:\n  a line of its code\nKeyError: 'plaza'")
    code, output = fleet.deploy(1)
    assert code == 2
    said = " ".join(output.rpartition("Deploy of new failed")[2].split())
    assert said.count("It failed. Output: a line of its code KeyError: 'plaza'") == 1


def test_message_of_several_lines_stays_whole_and_names_keep_their_case(fleet: Fleet) -> None:
    """A branch in lower case is another branch; a line in the middle may name the other host."""
    words = "release is 'Fix-Login'. On the others are:\n- Web1: none\n- Web2: none\nName one."
    for host in ("web1", "web2"):
        fleet.bad(host, words=words)
    code, output = fleet.deploy(
        2, application_serial=2, application_reason="deploy of Fix-Login by Anna"
    )
    assert code == 2
    said = output.rpartition("Deploy of Fix-Login by Anna failed")[2]
    assert said, "the branch is not named as it was typed"
    assert 'Failed on web1 and web2, task "switch | Hand over":' in said
    for line in words.splitlines():
        assert said.count(line) == 1, said


def test_host_that_cannot_go_back_is_named(fleet: Fleet) -> None:
    """The others go back all the same."""
    fleet.bad("web3")
    fleet.bad("web1", "old")
    code, output = fleet.deploy(3, application_serial=1)
    assert code == 2
    assert fleet.live() == "new old old"
    said = " ".join(output.rpartition("Deploy of new failed")[2].split())
    assert "NOT ROLLED BACK: web1: old was judged bad" in said
    assert "Rolled back to what served before: web2." in said


def test_site_that_does_not_name_the_release_is_a_failure(
    fleet: Fleet, server: http.server.HTTPServer
) -> None:
    """The service may be well, and nginx lead elsewhere."""
    server.release = "other"  # type: ignore[attr-defined]
    code, output = fleet.deploy(2)
    assert code == 2
    assert fleet.written() == ["web1 handover new", "web1 exclude new", "web1 handover old"]
    assert "Rolled back to what served before: web1." in output


def test_first_release_has_nothing_to_go_back_to(fleet: Fleet) -> None:
    for number in (1, 2):
        (fleet.root / f"live-web{number}").write_text("")
    fleet.bad("web2")
    code, output = fleet.deploy(2)
    assert code == 2
    assert fleet.written() == ["web1 handover new", "web2 handover new"]
    assert "Failed on web2" in output


def test_lock_of_another_stops_it_before_anything(fleet: Fleet) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    told = {"token": "x", "owner": "ben@desk", "since": "2026", "renewed_at": 4e9}
    told |= {"boot": boot, "renewed_uptime": 4e9}
    (fleet.root / "lock.json").write_text(json.dumps(told))
    code, output = fleet.deploy(2)
    assert code == 2
    assert fleet.written() == []
    assert fleet.reverted() == [], "the other run's settings wait for its handover"
    assert "does not hold the lock" in output
    assert "is held by ben@desk since 2026" in output
    assert json.loads((fleet.root / "lock.json").read_text()) == told


def test_lock_that_was_just_taken_is_not_asked_about(fleet: Fleet) -> None:
    """A trip of each deploy; another batch may come much later."""
    asked = "Make sure that the lock is still held"
    assert asked not in fleet.deploy(2, application_serial=2)[1]


def test_lock_is_asked_about_before_each_further_batch(fleet: Fleet) -> None:
    """Hosts before may have taken long, or this run was stopped and continued."""
    _, output = fleet.deploy(3, application_serial=1)
    assert output.count("Make sure that the lock is still held") == 2


def test_lost_lock_stops_it_before_the_next_batch(fleet: Fleet, tmp_path: Path) -> None:
    """Two runs at once would undo each other's hosts."""
    program = tmp_path / "program"
    thief = f'pathlib.Path({str(tmp_path / "lock.json")!r}).write_text(\'{{"token": "x"}}\')\n'
    program.write_text(program.read_text() + thief)
    code, output = fleet.deploy(2, application_serial=1)
    assert code == 2
    assert "This run has lost the lock" in output
    assert "does not hold the lock" in output
    assert fleet.written() == ["web1 handover new"], "the other run may have deployed since"
    assert fleet.reverted() == []


# What somebody has rolled back from ---------------------------------------------------------------


def test_site_does_not_deploy_what_somebody_has_rolled_back_from(fleet: Fleet, server: Any) -> None:
    """Who changes a header of nginx on Friday must not bring the bad release back."""
    server.release = "old"
    # On web2 somebody went back by hand, or it has not been there for long.
    code, output = fleet.deploy(2, way="main", left_on=("web1",))
    assert code == 0, output
    # Settings may have changed, so that each host is handed over, to what it serves.
    assert fleet.written() == ["web1 handover old", "web2 handover old"]
    said = " ".join(output.split())
    assert (
        "NOT DEPLOYED: new of shop was excluded at 2026-11-25 by anna@desk, slow, so old still"
        in said
    )
    assert "playbooks/deploy.yml" in said


def test_deploy_says_that_it_is_meant(fleet: Fleet) -> None:
    code, output = fleet.deploy(2, left_on=("web1", "web2"))
    assert code == 0, output
    assert fleet.live() == "new new"
    assert "NOT DEPLOYED" not in output


def test_site_deploys_where_nobody_has_rolled_back(fleet: Fleet) -> None:
    code, output = fleet.deploy(2, way="main")
    assert code == 0, output
    assert fleet.live() == "new new"
    assert "NOT DEPLOYED" not in output


def test_new_host_does_not_get_what_was_bad_on_the_others(fleet: Fleet) -> None:
    """It has nothing else, and a fleet must not serve two releases without anybody's knowledge."""
    (fleet.root / "live-web2").write_text("")
    code, output = fleet.deploy(2, way="main", left_on=("web1",))
    assert code == 2
    said = " ".join(output.split())
    assert (
        "new was excluded at 2026-11-25 by anna@desk, slow, and web2 has no other release" in said
    )
    assert "playbooks/deploy.yml -e application=shop -e application_revision=REVISION" in said
    assert fleet.written() == []


# Several applications -----------------------------------------------------------------------------


def test_each_application_of_a_host_has_its_own_release_and_lock(fleet: Fleet) -> None:
    code, output = fleet.deploy(2, way="main", names=("shop", "blog"), application_serial=2)
    assert code == 0, output
    assert [sorted(fleet.written()[:2]), sorted(fleet.written()[2:])] == [
        ["web1 handover new", "web2 handover new"],
        ["blog-web1 handover new", "blog-web2 handover new"],
    ]
    assert not list(fleet.root.glob("*lock.json"))


def test_a_failure_of_one_does_not_take_the_other_back(fleet: Fleet) -> None:
    """The other serves its new release by then, and was judged healthy."""
    fleet.bad("blog-web2")
    code, output = fleet.deploy(2, way="main", names=("shop", "blog"), application_serial=1)
    assert code == 2
    assert fleet.live() == "old old new new"
    assert fleet.written()[-2:] == ["blog-web1 exclude new", "blog-web1 handover old"]
    said = " ".join(output.rpartition("Deploy of new failed")[2].split())
    assert "Rolled back to what served before: web1." in said
    assert not list(fleet.root.glob("*lock.json"))


def test_what_the_first_one_moved_is_not_said_of_the_second(fleet: Fleet, tmp_path: Path) -> None:
    """Its hosts are as before, whatever became of another application on them."""
    program = tmp_path / "program"
    thief = f'pathlib.Path({str(tmp_path / "blog-lock.json")!r}).write_text(\'{{"token": "x"}}\')\n'
    program.write_text(program.read_text() + thief)
    code, output = fleet.deploy(2, way="main", names=("shop", "blog"), application_serial=2)
    assert code == 2
    assert fleet.live() == "old old new new"
    said = output.rpartition("Deploy of new failed")[2]
    assert "This run has lost the lock" in said
    assert "Switched before that" not in said


def test_a_lock_of_one_application_does_not_keep_a_deploy_of_another_away(fleet: Fleet) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    told = {"token": "x", "owner": "ben@desk", "since": "2026", "renewed_at": 4e9}
    told |= {"boot": boot, "renewed_uptime": 4e9}
    (fleet.root / "blog-lock.json").write_text(json.dumps(told))
    code, output = fleet.deploy(1, application_name="shop")
    assert code == 0, output
    assert json.loads((fleet.root / "blog-lock.json").read_text()) == told


@pytest.mark.parametrize("file", ["deploy", "provision"])
@pytest.mark.parametrize("registered", [{}, {"__application_release": {"failed": True}}])
def test_a_release_that_was_never_unpacked_hides_no_reason(
    file: str, registered: dict[str, Any]
) -> None:
    """A lock file that cannot be built, or a syntax error, ended with "has no attribute 'id'"."""
    tasks = yaml.safe_load((ROLES / f"application/tasks/{file}.yml").read_text())
    given = trusted(next(task["vars"] for task in tasks if "block" in task))
    given |= {
        "__application_name": "shop",
        "__application_rolled_back": False,
        "ansible_check_mode": False,
    }
    assert evaluate("application", "__application_switched", "Debian", **given, **registered) is (
        False
    )
