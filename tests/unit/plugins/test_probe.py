"""`wsgi.host.probe`: what is read from a host's files, and that this machine can be read."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.modules import probe


def test_os_release_without_quotation_marks_and_comments() -> None:
    text = "# ID=other\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID='13'\n\nX\n"
    assert probe.os_release(text) == {
        "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)",
        "VERSION_ID": "13",
    }


def test_only_installed_packages_count() -> None:
    """A removed package leaves its settings, and its entry, behind."""
    status = """\
Package: nginx
Status: install ok installed
Version: 1.26.3-3
Description: web server
 Version: not this one

Package: apache2
Status: deinstall ok config-files
Version: 2.4.1

Package: held
Status: hold ok installed
Version: 1:2.0

Package: broken
Status: install ok half-configured
Version: 3
"""
    assert probe.dpkg_packages(status) == {"nginx": "1.26.3-3", "held": "1:2.0"}


def test_packages_of_an_rpm_database() -> None:
    listed = "nginx 1.20.1-20.el9\ngpg-pubkey 8483c65d-5ccc5b19\n"
    assert probe.rpm_packages(listed)["nginx"] == "1.20.1-20.el9"


def test_units_are_active_and_enabled_apart_from_each_other() -> None:
    listed = """\
nginx.service loaded active running A high performance web server
cron.service loaded inactive dead Cron
broken.service loaded failed failed Broken
gone.service not-found inactive dead gone.service
busy.service loaded reloading reload Busy
"""
    assert probe.unit_states(listed, {"nginx.service", "certbot.timer"}) == {
        "nginx.service": {"active": True, "enabled": True, "state": "active"},
        "cron.service": {"active": False, "enabled": False, "state": "inactive"},
        "broken.service": {"active": False, "enabled": False, "state": "failed"},
        "busy.service": {"active": True, "enabled": False, "state": "reloading"},
        "certbot.timer": {"active": False, "enabled": True, "state": "inactive"},
    }


def test_enabled_are_units_that_another_pulls_in(tmp_path: Path) -> None:
    """The unit's own file, and a link to it under another name, enable nothing."""
    for link in (
        "multi-user.target.wants/nginx.service",
        "sockets.target.requires/toll-app.socket",
        "timers.target.upholds/certbot.timer",
        "multi-user.target.wants/remote-fs.target",
        "nginx.service.d/limits.conf",
    ):
        (tmp_path / link).parent.mkdir(exist_ok=True)
        (tmp_path / link).symlink_to("/dev/null")
    (tmp_path / "alias.service").symlink_to("/dev/null")
    assert probe.enabled_units([str(tmp_path), str(tmp_path / "missing")]) == {
        "nginx.service",
        "toll-app.socket",
        "certbot.timer",
    }


@pytest.mark.skipif(sys.byteorder != "little", reason="the samples come from such a machine")
def test_listeners_of_the_kernels_tables() -> None:
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 0100007F:1388 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1
"""
    assert probe.listening(table) == [("127.0.0.1", 5000, "111"), ("0.0.0.0", 80, "222")]
    assert probe.address("00000000000000000000000001000000") == "::1"
    assert probe.address("B80D01200000000000000000100000AA") == "2001:db8::aa00:10"


def test_a_listener_is_found_with_the_program_that_holds_it() -> None:
    """What a message says about a port that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = [one for one in probe.listeners() if one["port"] == port]
    comm = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert [(one["address"], one["pid"], one["program"]) for one in found] == [
        ("127.0.0.1", os.getpid(), comm)
    ]


def test_sockets_that_systemd_holds_are_known_by_their_unit() -> None:
    listed = """\
/run/systemd/private - -
[::]:22 ssh.socket ssh.service
127.0.0.1:5000 toll-app.socket toll-app.service
/run/gunicorn/toll-app.sock toll-app.socket toll-app.service
"""
    assert probe.socket_units(listed) == {22: "ssh.socket", 5000: "toll-app.socket"}


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", "session-1.scope"),
        ("0::/user.slice/user@0.service/app.slice/web.service\n", "web.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process(cgroup: str, unit: str) -> None:
    assert probe.unit_of(cgroup) == unit


def test_free_space_of_file_systems_that_hold_files(tmp_path: Path) -> None:
    """Network file systems are left out: asking one whose server is gone blocks the run."""
    folder = tmp_path / "with blank"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    table = f"""\
/dev/sda1 {escaped} ext4 rw 0 0
proc /proc proc rw 0 0
server:/x {tmp_path} nfs4 rw 0 0
/dev/sda1 /no/such/place ext4 rw 0 0
/dev/sda1 /etc/hostname ext4 rw 0 0
"""
    state = os.statvfs(folder)
    free = probe.free_mib(table)
    assert list(free) == [str(folder)]
    assert abs(free[str(folder)] - state.f_bavail * state.f_frsize // 2**20) < 64


@pytest.mark.parametrize(
    ("package", "version"), [("257.13-1~deb13u1", 257), ("252-46.el9_5.2", 252), ("1:255.4", 255)]
)
def test_systemd_version_of_its_package(package: str, version: int) -> None:
    assert probe.systemd_version({"systemd": package}) == version


def test_this_machine_can_be_read() -> None:
    """Whatever it is: nothing may stop the preflight from saying what is wrong with it."""
    facts = probe.probe()
    assert facts["python"]["version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert facts["architecture"] == os.uname().machine
    assert facts["cpus"] >= 1
    assert facts["memory_mib"] > 0
    assert "root" in facts["users"]
    assert "root" in facts["groups"]
    assert facts["mounts"]["/"] >= 0
    assert facts["systemd"]["running"] == Path("/run/systemd/system").is_dir()
    assert facts["root"] == (os.geteuid() == 0)


def test_what_was_found_is_in_the_fact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each finder has tests of its own, which do not notice one that nobody asks."""
    (tmp_path / "shop.example.com.conf").write_text(
        "[renewalparams]\nauthenticator = nginx\ninstaller = nginx\n"
        "[[webroot_map]]\nshop.example.com = /srv\n"
    )
    (tmp_path / "status").touch()
    exists = os.path.exists
    monkeypatch.setattr(probe, "RENEWALS", str(tmp_path / "*.conf"))
    monkeypatch.setattr(probe, "DPKG_STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/etc/nginx" or exists(path))
    monkeypatch.setattr(probe, "recorded", lambda: (["shop"], {"/etc/mine"}))
    monkeypatch.setattr(probe, "shipped_files", lambda _: {"/etc/nginx/nginx.conf": "hash"})
    monkeypatch.setattr(probe, "foreign_files", lambda ours: [f"beside {sorted(ours)[0]}"])
    monkeypatch.setattr(probe, "edited_files", lambda *told: [f"edited {told[1]} {len(told[0])}"])
    monkeypatch.setattr(probe, "journal_limits", lambda ours: [f"limit beside {len(ours)}"])
    monkeypatch.setattr(probe.installation, "installed", lambda: "0123456789ab")
    facts = probe.probe()
    assert facts["trees"] == ["shop"]
    assert facts["apphost"] == "0123456789ab"
    assert facts["foreign_files"] == ["beside /etc/mine"]
    assert facts["edited_files"] == ["edited ['shop'] 1"]
    assert facts["journal_limits"] == ["limit beside 1"]
    assert facts["renewals"] == {"shop.example.com": {"plugins": ["nginx"], "webroots": ["/srv"]}}
    monkeypatch.setattr(probe, "recorded", lambda: (["certbot"], set()))
    monkeypatch.setattr(probe, "foreign_files", lambda _: [])
    assert probe.probe()["renewals"] == {}


def test_a_program_that_is_missing_has_no_output() -> None:
    assert probe.Command("/no/such/program").output() == ""


def test_a_descriptor_that_closes_meanwhile_hides_no_other(tmp_path: Path) -> None:
    """PID 1 opens and closes some all the time; its sockets must not be taken for a service's."""
    for pid in ("1", "20"):
        (tmp_path / pid / "fd").mkdir(parents=True)
        for number in range(3, 9):
            # Reading it as a link fails, as it does for one that was closed.
            (tmp_path / pid / "fd" / str(number)).touch()
        (tmp_path / pid / "fd" / "99").symlink_to("socket:[7]")
        (tmp_path / pid / "fd" / "0").symlink_to("socket:[8]")
    assert probe.holders({"7", "8"}, str(tmp_path)) == {"7": 1, "8": 1}


def written(root: Path, path: str, text: str) -> str:
    """A file below a host's root."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def shipped(*paths: str) -> dict[str, str]:
    """What dpkg says of packages that brought these files as they are now."""
    digests = {path: hashlib.md5(Path(path).read_bytes()).hexdigest() for path in paths}
    listed = "".join(f" {path} {digest}\n" for path, digest in digests.items())
    found = probe.shipped_files(f"Package: nginx\nConffiles:\n{listed} /etc/x newconffile\n")
    assert found == digests
    return found


def test_a_configuration_of_haproxy_that_somebody_wrote_is_found(tmp_path: Path) -> None:
    root = str(tmp_path)
    main = written(tmp_path, "/etc/haproxy/haproxy.cfg", "the package's\n")
    known = shipped(main)
    assert probe.edited_files(known, [], set(), root) == []
    Path(main).write_text("edited\n")
    assert probe.edited_files(known, [], set(), root) == [main]
    assert probe.edited_files(known, ["haproxy"], set(), root) == []


def test_a_configuration_of_nginx_that_somebody_wrote_is_found(tmp_path: Path) -> None:
    """It would be switched off; what the package brought is nobody's."""
    root = str(tmp_path)
    assert probe.edited_files({}, [], set(), root) == []
    main = written(tmp_path, "/etc/nginx/nginx.conf", "the package's\n")
    default = written(tmp_path, "/etc/nginx/sites-available/default", "welcome\n")
    enabled = tmp_path / "etc/nginx/sites-enabled"
    enabled.mkdir()
    (enabled / "default").symlink_to(default)
    known = shipped(main, default)
    assert probe.edited_files(known, [], set(), root) == []
    shop = written(tmp_path, "/etc/nginx/sites-enabled/shop", "server {}\n")
    assert probe.edited_files(known, [], set(), root) == [shop]
    Path(main).write_text("edited\n")
    Path(default).write_text("edited too\n")
    found = [main, str(enabled / "default"), shop]
    assert probe.edited_files(known, [], set(), root) == found
    assert probe.edited_files(known, [], {main}, root) == found[1:]
    # From then on config_tree tells what somebody changes.
    assert probe.edited_files(known, ["nginx"], set(), root) == []


def test_a_configuration_of_prometheus_that_somebody_wrote_is_found(tmp_path: Path) -> None:
    root = str(tmp_path)
    main = written(tmp_path, "/etc/prometheus/prometheus.yml", "the package's\n")
    arguments = written(tmp_path, "/etc/default/prometheus", "ARGS=\n")
    known = shipped(main, arguments)
    assert probe.edited_files(known, [], set(), root) == []
    Path(arguments).write_text("ARGS=--web.listen-address=:9090\n")
    assert probe.edited_files(known, [], set(), root) == [arguments]
    assert probe.edited_files(known, ["monitoring"], set(), root) == []


def test_units_and_programs_that_somebody_wrote_are_found(tmp_path: Path) -> None:
    ours = written(tmp_path, "/etc/systemd/system/toll-app.service", "")
    theirs = written(tmp_path, "/etc/systemd/system/certbot.timer", "")
    program = written(tmp_path, "/usr/local/bin/certbot", "")
    (tmp_path / "etc/systemd/system/link.service").symlink_to(theirs)
    assert probe.foreign_files({ours}, str(tmp_path)) == [theirs, program]


def test_what_is_ours_stands_in_the_records(tmp_path: Path) -> None:
    """Also what a run wrote that was cut off. A record that is broken is told elsewhere."""
    record = {"files": {"/a": "1"}, "written": {"/b": "2"}, "applied": {"/c": "3"}, "pending": True}
    written(tmp_path, "toll-app.json", json.dumps(record))
    written(tmp_path, "certbot.json", "{")
    written(tmp_path, "nginx.json", json.dumps({"files": {"/d": "4"}}))
    trees = ["certbot", "nginx", "toll-app"]
    assert probe.recorded(str(tmp_path)) == (trees, {"/a", "/b", "/c", "/d"})


def test_limits_of_the_journal_that_somebody_set_are_found(tmp_path: Path) -> None:
    main = written(tmp_path, "/etc/systemd/journald.conf", "[Journal]\n#SystemMaxUse=\n")
    ours = written(tmp_path, "/etc/systemd/journald.conf.d/50-a.conf", "SystemMaxUse=1G\n")
    theirs = written(tmp_path, "/etc/systemd/journald.conf.d/b.conf", "MaxRetentionSec = 1year\n")
    assert probe.journal_limits({ours}, str(tmp_path)) == [theirs]
    Path(main).write_text("[Journal]\nSystemMaxUse=4G\n")
    assert probe.journal_limits({ours}, str(tmp_path)) == [main, theirs]


def test_who_can_log_in_is_told() -> None:
    passwd = """root:x:0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
sync:x:4:65534:sync:/bin:/bin/sync
old:x:70:70::/home/old:
anna:x:1000:1000:Anna,,,:/home/anna:/usr/bin/zsh
"""
    assert probe.logins(passwd) == ["root", "old", "anna"]


def test_a_file_system_without_programs_is_told() -> None:
    mounts = "/dev/a / ext4 rw 0 0\n/dev/b /opt ext4 rw,noexec\n/c /my\\040disk ext4 noexec 0 0\n"
    assert probe.noexec(mounts, ["/", "/opt", "/my disk"]) == ["/opt", "/my disk"]
    remounted = mounts + "/dev/b /opt ext4 rw 0 0\n"
    assert probe.noexec(remounted, ["/opt"]) == []
