"""What the test hosts' tool decides without an engine. That hosts work is what Molecule shows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml
from engine import TestHostsError, containers_conf, ulimits, weight
from hosts import (
    Hosts,
    Spec,
    control_paths,
    forget_connections,
    free_address,
    free_ports,
    listener,
    mac_address,
    make_room,
    read_specs,
    scarce,
)
from images import Recipe, Target, content_hash, parse_targets, plain_mirror, sources

PROJECT = Path(__file__).resolve().parents[2]
ALL_CAPABILITIES = 0x1FFFFFFFFFF
WITHOUT_SYS_RESOURCE = ALL_CAPABILITIES & ~(1 << 24)


class TestEngine:
    """An ordinary machine keeps its own defaults; an awkward one gets settings that work."""

    def test_an_ordinary_machine_keeps_its_own_settings(self):
        assert containers_conf("cgroup2fs", ulimits(ALL_CAPABILITIES, 1024, 1024)) is None

    @pytest.mark.parametrize("kind", ["tmpfs", "cgroupfs"])
    def test_an_old_cgroup_hierarchy_gets_runc_and_keeps_its_limits(self, kind):
        """crun refuses to start a container there."""
        conf = containers_conf(kind, ulimits(ALL_CAPABILITIES, -1, -1))
        assert conf is not None
        assert 'runtime = "runc"' in conf
        assert "ulimits" not in conf

    @pytest.mark.parametrize("kind", ["tmpfs", "cgroupfs"])
    def test_hosts_do_not_share_the_weight_of_one_process(self, kind):
        """Of processors, where the machine's own processes are in no group."""
        assert weight(kind) == ["--cgroup-parent=/", "--cpu-shares=4096"]
        assert weight("cgroup2fs") == []

    def test_limits_are_never_raised_without_the_capability(self):
        """Asking for one more than the hard limit is `Operation not permitted`."""
        assert ulimits(WITHOUT_SYS_RESOURCE, 20000, 500) == ["nofile=20000:20000", "nproc=500:500"]

    def test_no_limit_still_gives_a_number(self):
        """The engine knows no word for `unlimited` that every version reads."""
        for limit in ulimits(WITHOUT_SYS_RESOURCE, -1, -1):
            _, soft, hard = limit.replace("=", ":").split(":")
            assert soft == hard
            assert 1000 < int(soft) < 2_000_000

    def test_limits_reach_the_configuration_as_toml(self):
        conf = containers_conf("cgroup2fs", ["nofile=10:10", "nproc=5:5"])
        assert conf == '[containers]\ndefault_ulimits = ["nofile=10:10", "nproc=5:5"]\n'


MIRROR = "http://mirror.example/debian"
SECURITY = "http://mirror.example/debian-security"


def target(
    suite: str, uri: str = MIRROR, origin: str = "Debian", component: str = "main"
) -> Target:
    return Target(uri, suite, suite, component, origin)


def unread(path: str) -> str:
    pytest.fail(f"{path} was read")


class TestSources:
    """Images come from the mirrors that the machine itself uses, for another release as well."""

    def test_every_part_of_the_release_is_taken_over(self):
        configured = [
            target("bookworm"),
            target("bookworm-updates"),
            target("bookworm-security", SECURITY),
        ]
        assert sources(configured, "bookworm", "trixie", unread) == [
            f"deb {MIRROR} trixie main",
            f"deb {MIRROR} trixie-updates main",
            f"deb {SECURITY} trixie-security main",
        ]

    def test_other_peoples_repositories_are_left_out(self):
        """They often name their suite after Debian's, and hold one program."""
        configured = [
            target("bookworm", "http://vendor.example/apt", origin="Vendor"),
            target("bookworm", "http://other.example/apt", component="stable"),
            target("bookworm"),
        ]
        assert sources(configured, "bookworm", "bookworm", unread) == [
            f"deb {MIRROR} bookworm main"
        ]

    def test_a_machine_that_follows_stable(self):
        assert sources([Target(MIRROR, "stable", "trixie", "main", "Debian")], "trixie", "bookworm",
                       unread) == [f"deb {MIRROR} bookworm main"]  # fmt: skip

    def test_before_the_first_update_nothing_says_whose_a_repository_is(self):
        """apt then prints the name of the field."""
        listed = "Packages|http://mirror.example/debian/|bookworm|$(CODENAME)|main|$(ORIGIN)\n"
        assert sources(parse_targets(listed), "bookworm", "bookworm", unread) == [
            f"deb {MIRROR} bookworm main"
        ]

    def test_without_a_mirror_the_message_names_the_remedy(self):
        with pytest.raises(TestHostsError, match="TESTHOSTS_MIRROR"):
            sources([target("noble", origin="Ubuntu")], "noble", "trixie", unread)

    def test_a_mirror_list_in_a_file(self):
        """Debian's own cloud images are configured like this."""
        read: list[str] = []

        def text(path: str) -> str:
            read.append(path)
            return f"# mirrors\n{MIRROR}/ priority:1\nhttp://second.example/debian\n"

        assert plain_mirror("mirror+file:/etc/apt/mirrors/debian.list", text) == MIRROR
        assert read == ["/etc/apt/mirrors/debian.list"]

    def test_only_indexes_of_packages_count(self):
        listed = f"Sources|{MIRROR}|trixie|trixie|main|Debian\n"
        assert parse_targets(listed) == []


class TestContentHash:
    """An image is made again when, and only when, something in it would be another."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        files = tmp_path / "debian" / "files"
        files.mkdir(parents=True)
        (files / "one").write_text("1")
        return tmp_path

    def test_equal_input_gives_an_equal_hash(self, folder: Path):
        recipe = Recipe("debian13", suite="trixie")
        assert content_hash(recipe, {"a": 1}, folder) == content_hash(recipe, {"a": 1}, folder)

    @pytest.mark.parametrize(
        "change",
        [
            lambda files: (files / "one").write_text("2"),
            lambda files: (files / "one").chmod(0o755),
            lambda files: (files / "one").rename(files / "two"),
            lambda files: (files / "more").write_text(""),
        ],
        ids=["content", "mode", "name", "another file"],
    )
    def test_any_change_of_a_file_shows(self, folder: Path, change: Callable[[Path], object]):
        recipe = Recipe("debian13", suite="trixie")
        before = content_hash(recipe, {}, folder)
        change(folder / "debian" / "files")
        assert content_hash(recipe, {}, folder) != before

    def test_what_else_it_is_made_from_shows(self, folder: Path):
        recipe = Recipe("debian13", suite="trixie")
        assert content_hash(recipe, {"a": 1}, folder) != content_hash(recipe, {"a": 2}, folder)

    def test_no_file_of_an_image_names_a_mirror(self):
        """The hash would change with the machine, and the repository would name a host."""
        for path in (PROJECT / "testhosts" / "images").rglob("*"):
            if path.is_file():
                assert "://" not in path.read_text().replace("https://<name>", ""), path


class TestSpec:
    """A wrong specification is refused before anything is made, with all its problems."""

    def test_a_good_one_has_no_problems(self):
        assert Spec("web-1", "debian12", ("a.test",), ("127.0.0.1:8443:443",)).problems() == []

    @pytest.mark.parametrize(
        ("spec", "word"),
        [
            (Spec("web_1", "debian12"), "web_1"),
            (Spec("x" * 64, "debian12"), "63"),
            (Spec("web", "debian11"), "acme, debian12, debian13"),
            (Spec("web", "debian12", publish=("8443:443",)), "8443:443"),
            (Spec("web", "debian12", publish=("127.0.0.1:70000:443",)), "70000"),
        ],
    )
    def test_a_bad_one_says_what_and_how(self, spec: Spec, word: str):
        (problem,) = spec.problems()
        assert word in problem

    def test_the_host_name_has_no_scope(self):
        assert Spec("molecule-nginx-web", "debian12").hostname("molecule-nginx") == "web"
        assert Spec("toll-demo", "debian12").hostname("demo") == "toll-demo"

    def test_the_digest_follows_what_only_a_new_container_takes_up(self):
        spec = Spec("web", "debian12", ("b", "a"))
        assert spec.digest("n") == Spec("web", "debian12", ("a", "b")).digest("n")
        assert spec.digest("n") != spec.digest("m")
        assert spec.digest("n") != Spec("web", "debian12", ("a",)).digest("n")

    def test_a_list_of_platforms_is_read_with_members_of_others_in_it(self):
        text = json.dumps([{"name": "web", "image": "debian12", "groups": ["x"], "aliases": ["a"]}])
        assert read_specs(text, "s") == [Spec("s-web", "debian12", ("a",))]

    @pytest.mark.parametrize("text", ["", "{", "[1]", '[{"name": "x"}]', "null", '["x"]'])
    def test_what_is_no_list_of_hosts_is_refused(self, text: str):
        with pytest.raises(TestHostsError, match="list of hosts"):
            read_specs(text, "s")


class TestAddresses:
    """Each host has its address for good."""

    def test_neither_taken_nor_low_addresses_are_given(self):
        offered: list[str] = []

        def first(usable: list[str]) -> str:
            offered.extend(usable)
            return usable[0]

        assert free_address("10.1.2.0/24", {"10.1.2.10"}, first) == "10.1.2.11"
        assert "10.1.2.1" not in offered
        assert "10.1.2.255" not in offered
        assert len(offered) == 244

    def test_a_full_network_is_said_to_be_full(self):
        taken = {f"10.1.2.{x}" for x in range(256)}
        with pytest.raises(TestHostsError, match=r"10\.1\.2\.0/24"):
            free_address("10.1.2.0/24", taken, min)


class TestConnections:
    """A connection kept open to a host that stopped hangs; it must be found and ended."""

    def test_the_path_is_the_one_that_ansible_takes(self):
        """Otherwise the connection would not be found, and a run after a reboot would hang."""
        ssh = pytest.importorskip("ansible.plugins.connection.ssh")
        for port in (22, None):
            theirs = ssh.Connection._create_control_path("10.0.0.1", port, "ops")
            name = theirs.removeprefix("%(directory)s/")
            assert name in {path.name for path in control_paths("10.0.0.1", 22)}

    def test_the_folders_are_those_that_ansible_takes(self):
        config = yaml.safe_load((PROJECT / ".config" / "molecule" / "config.yml").read_text())
        folder = config["ansible"]["env"]["ANSIBLE_SSH_CONTROL_PATH_DIR"]
        theirs = folder.replace("${MOLECULE_PROJECT_DIRECTORY}", str(PROJECT))
        assert "control_path_dir" not in (PROJECT / "ansible.cfg").read_text()
        by_hand = Path.home() / ".ansible" / "cp"
        parents = {path.parent for path in control_paths("10.0.0.1", 22)}
        assert parents == {Path(theirs), by_hand}

    def test_a_dead_socket_goes_also_for_a_published_port(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(
            "hosts.control_paths", lambda address, port: [tmp_path / f"{address}-{port}"]
        )
        for name in ("10.0.0.1-22", "127.0.0.1-2222", "127.0.0.1-8443"):
            (tmp_path / name).touch()
        forget_connections(
            {"address": "10.0.0.1", "publish": ["127.0.0.1:2222:22", "127.0.0.1:8443:443"]}
        )
        assert [path.name for path in tmp_path.iterdir()] == ["127.0.0.1-8443"]


class TestPorts:
    """A port that is taken is refused before a container is made, and the message says by whom."""

    def test_the_program_that_holds_a_port_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert f"(pid {os.getpid()})" in (listener(port) or "")
            with pytest.raises(TestHostsError, match=rf"Port {port} .*pid {os.getpid()}"):
                free_ports([f"127.0.0.1:{port}:443"])

    def test_a_free_port_is_fine(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        free_ports([f"127.0.0.1:{port}:443"])
        assert listener(port) is None


class TestScarce:
    """A host that starts badly because others use up the machine says so."""

    @pytest.fixture
    def proc(self, tmp_path: Path) -> Path:
        (tmp_path / "sys/fs/inotify").mkdir(parents=True)
        (tmp_path / "sys/fs/inotify/max_user_instances").write_text("5\n")
        (tmp_path / "7/fd").mkdir(parents=True)
        return tmp_path

    @pytest.mark.parametrize(("used", "said"), [(3, False), (4, True)])
    def test_the_remedy_is_named_when_few_are_left(self, proc: Path, used: int, said: bool):
        for number in range(used):
            (proc / f"7/fd/{number}").symlink_to("anon_inode:inotify")
        (proc / "7/fd/9").symlink_to("socket:[1]")
        assert ("max_user_instances" in scarce(proc)) is said


class TestMakeRoom:
    """Scenarios that run side by side need more of the machine than its kernel gives at first."""

    class Root:
        """An engine that is root already."""

        def as_root(self, argv: list[str]) -> list[str]:
            return argv

    @pytest.mark.parametrize(("before", "after"), [(128, 1024), (1024, 1024), (8192, 8192)])
    def test_a_low_limit_is_raised_and_a_high_one_stays(
        self, tmp_path: Path, before: int, after: int
    ):
        limit = tmp_path / "max_user_instances"
        limit.write_text(f"{before}\n")
        make_room(self.Root(), limit)  # type: ignore[arg-type]
        assert int(limit.read_text()) == after


class TestCommandLine:
    """Messages instead of tracebacks."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["up"], "Name a host"),
            (["up", "--from", "-"], "--from needs a --scope"),
            (["down"], "Name the hosts"),
            (["shell", "nowhere"], "There is no host nowhere of this checkout: there "),
        ],
    )
    def test_an_incomplete_command_says_what_is_missing(self, arguments: list[str], message: str):
        if not Path("/usr/bin/podman").exists():
            pytest.skip("podman is looked for first")
        done = subprocess.run(
            [sys.executable, PROJECT / "testhosts" / "testhosts.py", *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_what_hosts_share_is_empty_at_first(monkeypatch):
    """Of hosts that were removed with `podman rm` it was kept, and the next ones had it."""
    asked: list[object] = []
    engine = MagicMock()
    engine.podman = lambda *words, check: asked.append(words)
    hosts = Hosts(engine, "scope", "network", print)
    for module, name in (
        (sys.modules["hosts"], "make_identity"),
        (sys.modules["hosts"], "make_room"),
    ):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr("images.ensure_all", lambda *_: None)
    monkeypatch.setattr(hosts, "_make_network", lambda: "10.0.0.0/24")
    monkeypatch.setattr(hosts, "_up", lambda spec, _: asked.append(spec.name))
    hosts.up([Spec("alone", "debian13")])
    assert asked == ["alone"]
    hosts.up([Spec("one", "debian13", share="/srv/archive")])
    assert asked == ["alone", ("volume", "rm", "scope-share"), "one"]


def test_a_host_keeps_its_card():
    assert mac_address("10.89.3.254") == "02:00:0a:59:03:fe"


def test_make_clean_needs_no_podman():
    """What it removes after the hosts and images, such as .venv, is there without it."""
    done = subprocess.run(
        [sys.executable, PROJECT / "testhosts" / "testhosts.py", "clean"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/nonexistent"},
    )
    assert (done.returncode, done.stderr) == (0, "")
