"""What root refuses to touch, tried as the user who would gain from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils import paths
from ansible_collections.wsgi.host.plugins.module_utils.apphost import trees
from ansible_collections.wsgi.host.plugins.module_utils.config_trees import comparing, records
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import Wanted, digest
from ansible_collections.wsgi.host.plugins.modules import (
    certificate,
    config_tree,
    deploy_lock,
    program,
    release,
)
from certifying import webroot

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")


class Stopped(Exception):
    """What ends a module."""


class Module:
    """An AnsibleModule with given parameters."""

    check_mode = False

    def __init__(self, **params: Any) -> None:
        self.params = params

    def fail_json(self, **result: Any) -> None:
        raise Stopped(result["msg"])

    def exit_json(self, **result: Any) -> None:
        raise AssertionError(result)

    def selinux_enabled(self) -> bool:
        return False

    def warn(self, message: str) -> None:
        raise AssertionError(message)


@contextmanager
def attacker() -> Iterator[None]:
    """What is done in here is done by another user."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def root() -> Iterator[Path]:
    """A place like /var/lib that everybody can reach, and only root can write to."""
    folder = Path(tempfile.mkdtemp(prefix="toll-app-paths-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def etc(root: Path) -> Path:
    """What is not to be touched."""
    folder = root / "etc"
    folder.mkdir(mode=0o755)
    (folder / "passwd").write_text("root\n")
    (folder / "passwd").chmod(0o600)
    return folder


@pytest.fixture
def service(root: Path) -> Path:
    """A directory that belongs to a service's user, like /var/lib/prometheus."""
    folder = root / "service"
    folder.mkdir(mode=0o755)
    os.chown(folder, NOBODY, NOBODY)
    return folder


def snapshot(folder: Path) -> list[tuple[str, int, int, bytes]]:
    return sorted(
        (
            str(path.relative_to(folder)),
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    )


# Of wsgi.host.config_tree.
OPTIONS: dict[str, Any] = {
    "name": "tree",
    **{"directories": [], "inputs": {}, "stage": [], "checks": [], "units": []},
    **{"needs_apply": False, "revertible": False},
}


def tree(path: Path, **more: Any) -> None:
    wanted = [Wanted(str(path), 0o644, "0", "0", False, content=b"new\n")]
    module = Module(**{**OPTIONS, **more})
    config_tree.put_in_place(module, wanted)


def directory(path: Path) -> None:
    module = Module(**{**OPTIONS, "directories": [{"path": str(path), "mode": "0777"}]})
    config_tree.put_in_place(module, [])


def removed(path: Path) -> None:
    record = trees.Record(files={str(path): digest(b"root\n")})
    trees.write(records.record_of("tree"), record)
    config_tree.remove(Module(**OPTIONS))


def through_main(module: Any, monkeypatch: pytest.MonkeyPatch, **params: Any) -> None:
    """What `main` of a module makes of these parameters; ends with Stopped."""
    monkeypatch.setattr(module, "AnsibleModule", lambda **_: Module(**params))
    module.main()


BUNDLE = {"id": "abc", "python": "3.11", "sha256": "0", "unpacked_bytes": 0, "architecture": "x"}


@pytest.fixture(autouse=True)
def own_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(comparing, "DPKG_STATUS", tmp_path / "status")


Writer = Callable[[Path, pytest.MonkeyPatch], None]
WRITERS: dict[str, Writer] = {
    "config_tree": lambda path, _: tree(path / "passwd"),
    "config_tree's directory": lambda path, _: directory(path / "new"),
    "config_tree's removal": lambda path, _: removed(path / "passwd"),
    "release": lambda path, patch: through_main(
        release, patch, root=str(path / "app"), bundle=BUNDLE, archive=None
    ),
    "deploy_lock": lambda path, patch: through_main(
        deploy_lock,
        patch,
        path=str(path / "deploy.json"),
        state="held",
        claim={},
        stale_seconds=60,
        reason="",
        wait_seconds=0,
        variables={},
    ),
    "certificate's links": lambda path, patch: through_main(
        certificate, patch, **certificate_options(links_directory=str(path / "links"))
    ),
    "certificate's challenges": lambda path, patch: through_main(
        certificate,
        patch,
        **certificate_options(challenge=webroot(path / "www")),
    ),
    "program": lambda path, patch: through_main(
        program, patch, argv=[str(path / "passwd")], stdin="", check_argument="--check"
    ),
}


def certificate_options(**more: Any) -> dict[str, Any]:
    return {
        "certificates": [],
        "obtain": False,
        "configuration_directory": "/etc/letsencrypt",
        "links_directory": "/etc/ssl/sites",
        "challenge": webroot(Path("/var/lib/challenges")),
        "reload_marker": "/run/certbot/reload-pending",
        "state_directory": "/nonexistent",
        "reload_argv": [],
        **more,
    }


@pytest.mark.parametrize(
    ("mode", "owner", "said"),
    [
        (0o755, "root", ""),
        (0o777, "root", "can be changed by every user, so root does not run it"),
        (0o755, "nobody", "can be changed by nobody, so root does not run it"),
        (0o644, "root", "is no program on this host. Put it there and make it executable"),
    ],
)
def test_a_program_that_others_can_change_is_not_run(
    tmp_path: Path, mode: int, owner: str, said: str
) -> None:
    program = tmp_path / "record"
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    shutil.chown(program, owner)
    link = tmp_path / "link"
    link.symlink_to(program)
    for path in (program, link):
        if said:
            with pytest.raises(paths.ForeignPathError, match=said):
                paths.require_own_program(str(path))
        else:
            paths.require_own_program(str(path))


def test_a_challenge_that_others_can_change_is_not_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "record"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    challenge = {**webroot(tmp_path / "www"), "directory": "", "programs": [str(program)]}
    with pytest.raises(Stopped, match="can be changed by every user, so root does not run it"):
        through_main(certificate, monkeypatch, **certificate_options(challenge=challenge))


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_directory_that_was_swapped_for_a_link_is_refused(
    writer: Writer, root: Path, etc: Path, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that was broken into must not get root to write where it wants."""
    place = service / "exporter"
    place.mkdir()
    with attacker():
        place.rename(service / "away")
        place.symlink_to(etc)
    before = snapshot(etc)
    with pytest.raises((paths.ForeignPathError, Stopped)) as caught:
        writer(place, monkeypatch)
    assert str(place) in str(caught.value)
    assert f"{service} can be changed by nobody" in str(caught.value)
    assert snapshot(etc) == before


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_what_could_be_swapped_in_the_next_moment_is_refused(
    writer: Writer, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at the path alone finds nothing wrong, and then it is too late."""
    place = service / "exporter"
    place.mkdir()
    with pytest.raises((paths.ForeignPathError, Stopped), match="can be changed by nobody"):
        writer(place, monkeypatch)


def test_a_race_is_never_won(etc: Path, service: Path) -> None:
    place = service / "exporter"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    before = snapshot(etc)
    flips = (
        f"cd {service} && ln -s {etc} link && echo ready; while :; do mv -T exporter away; "
        "mv -T link exporter; mv -T exporter link; mv -T away exporter; done"
    )
    racer = subprocess.Popen(
        ["/bin/sh", "-c", flips],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        stdout=subprocess.PIPE,
    )
    try:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
        for _ in range(200):
            with pytest.raises(paths.ForeignPathError):
                tree(place / "passwd")
    finally:
        racer.kill()
        racer.communicate()
    assert snapshot(etc) == before


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_for_everybody_is_refused(root: Path, mode: int) -> None:
    place = root / "open"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(paths.ForeignPathError, match=f"{place} can be changed by every user"):
        tree(place / "new")


def test_what_is_roots_in_a_directory_like_tmp_is_nobody_elses(root: Path) -> None:
    """The sticky bit is what makes /tmp safe."""
    place = root / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    own, foreign = place / "own", place / "foreign"
    own.mkdir()
    foreign.mkdir()
    os.chown(foreign, NOBODY, NOBODY)
    tree(own / "new")
    assert (own / "new").read_text() == "new\n"
    with pytest.raises(paths.ForeignPathError, match="every user"):
        tree(foreign / "new")


def test_a_group_counts_as_its_members(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/usr/local belongs to the group staff on older hosts, which nobody is in."""
    place = root / "local"
    place.mkdir()
    os.chown(place, 0, NOBODY)
    place.chmod(0o2775)
    monkeypatch.setattr(paths, "members", lambda gid: [])
    tree(place / "new")
    monkeypatch.setattr(paths, "members", lambda gid: ["anna", "bert", "carl", "dora"])
    with pytest.raises(paths.ForeignPathError, match="by anna and bert and carl and others"):
        tree(place / "newer")


def test_links_that_root_has_made_are_followed(root: Path) -> None:
    """/opt/toll-app on another disk is a link of the administrator's."""
    disk = root / "disk"
    disk.mkdir()
    (root / "opt").symlink_to("disk")
    (root / "srv").symlink_to(root / "opt")
    tree(root / "srv" / "new")
    assert (disk / "new").read_text() == "new\n"
    os.chown(disk, NOBODY, NOBODY)
    with pytest.raises(paths.ForeignPathError, match=f"{root}/srv.*: {disk} can be changed"):
        tree(root / "srv" / "new")


def test_a_link_upwards_is_followed_as_the_kernel_does(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "c").mkdir()
    (root / "a" / "b" / "link").symlink_to("../../c")
    tree(root / "a" / "b" / "link" / "new")
    assert (root / "c" / "new").read_text() == "new\n"


def test_links_in_a_circle_are_refused(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(paths.ForeignPathError, match="too many links"):
        tree(root / "a" / "new")
