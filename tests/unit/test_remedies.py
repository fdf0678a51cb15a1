"""What a message tells to do was done once: it then works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import locks
from conftest import PROJECT, Play

# requirements.in without `make lock` --------------------------------------------------------------

LOCK = (
    "flask==3.1.2 --hash=sha256:" + "0" * 64 + "\npsycopg-binary==3.3.0 --hash=sha256:" + "1" * 64
)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "flask>=3.1,<4\nredis>=5",
            r"requirements.in, line 2: redis>=5 is wanted, and .* has no redis",
        ),
        (
            "# data\nFlask>=3.2",
            r"line 2: Flask>=3.2 is wanted, and requirements.txt has Flask 3.1.2",
        ),
        ("flask==4.0", r"has flask 3.1.2"),
        ("flask =< 3", r"line 1: .* is no requirement"),
    ],
)
def test_requirement_that_is_not_locked_is_found_before_the_build(
    tmp_path: Path, wanted: str, message: str
) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(LOCK)
    (tmp_path / "requirements.in").write_text(wanted)
    with pytest.raises(locks.BundleError, match=message) as error:
        locks.check_lock_is_current(lock)
    assert "no requirement" in str(error.value) or "`make lock`" in str(error.value)


def test_what_is_locked_passes(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(LOCK)
    locks.check_lock_is_current(lock)
    marker = 'flask>=3.1,<4  # a comment\n\nwinthing; sys_platform == "win32"\n-c others.txt\n'
    (tmp_path / "requirements.in").write_text(marker + "psycopg_binary")
    locks.check_lock_is_current(lock)


def test_a_lock_for_several_pythons_has_a_package_once_for_each(tmp_path: Path) -> None:
    """As `uv pip compile --universal` writes it: it was refused, and its remedy made it again."""
    older, newer = "python_full_version < '3.12'", "python_full_version >= '3.12'"
    lock = tmp_path / "requirements.txt"
    lock.write_text(
        f"numpy==1.26.4 ; {older} \\\n    --hash=sha256:{'0' * 64}\n"
        f"numpy==2.1.0 ; {newer} \\\n    --hash=sha256:{'1' * 64}\n"
        f"colorama==0.4.6 ; sys_platform == 'win32' --hash=sha256:{'2' * 64}\n"
        f"click==8.1.0 --hash=sha256:{'3' * 64}\n"
    )
    wanted = tmp_path / "requirements.in"
    wanted.write_text(f"numpy<2 ; {older}\nnumpy>=2 ; {newer}\nclick\n")
    locks.check_lock_is_current(lock)
    assert locks.pins_on(lock, "3.11", "x86_64") == {"numpy": "1.26.4", "click": "8.1.0"}
    assert locks.pins_on(lock, "3.13", "aarch64") == {"numpy": "2.1.0", "click": "8.1.0"}
    wanted.write_text("numpy>=3\n")
    with pytest.raises(locks.BundleError, match=r"has numpy 1\.26\.4 and 2\.1\.0"):
        locks.check_lock_is_current(lock)
    lock.write_text(f"numpy==1 ; python is old --hash=sha256:{'0' * 64}\n")
    with pytest.raises(locks.BundleError, match="'python is old', the marker of numpy, is none"):
        locks.pins_on(lock, "3.11", "x86_64")


@pytest.mark.parametrize("folder", ["app", "roles/certbot/files", "setup", "."])
def test_every_lock_of_the_project_passes(folder: str) -> None:
    """Also the proof that `make lock`, the remedy, makes what is asked for."""
    locks.check_lock_is_current(PROJECT / folder / "requirements.txt")


# A bare host --------------------------------------------------------------------------------------


@pytest.mark.parametrize("book", ["deploy", "rollback", "restore", "backup"])
def test_bare_host_is_refused_before_anything(play: Play, tmp_path: Path, book: str) -> None:
    """Second in each, after the facts: a lock, a bundle and a release would be there otherwise."""
    for file, wanted in ((book, ["single"]), ("single", ["preflight", "set_up"])):
        text = (PROJECT / f"roles/application/tasks/{file}.yml").read_text()
        assert re.findall(r"import_tasks: (\w+)\.yml", text)[: len(wanted)] == wanted
    (tmp_path / "roles").symlink_to(PROJECT / "roles")
    role = {"name": "application", "tasks_from": "set_up", "rolespec_validate": False}
    task = {"name": "Try", "ansible.builtin.import_role": role}

    def run(*users: str) -> Any:
        facts = {"wsgi_host": {"users": ["root", *users]}}
        known = {"name": "Know", "ansible.builtin.set_fact": {**facts, "cacheable": True}}
        return play(known, task, extra={"applications": {"toll-app": {}}})

    bare = run()
    said = " ".join(bare.output.split())
    assert bare.code != 0
    assert "toll-app has not been set up on here yet. Run site.yml with the same inventory" in said
    assert run("toll-app").code == 0


# A control node without UTF-8 ---------------------------------------------------------------------


def test_make_brings_the_locale_that_ansible_wants() -> None:
    """`LC_ALL=C make up` ended with "Ansible requires the locale encoding to be UTF-8"."""
    shown = "show:\n\t@env\n"
    done = subprocess.run(
        ["make", "--no-print-directory", "-f", "Makefile", "-f", "-", "show"],
        cwd=PROJECT,
        input=shown,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "LANGUAGE": "de", "LANG": "de_DE.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "LC_ALL=C.UTF-8" in done.stdout.splitlines()
    assert "LANGUAGE=" not in done.stdout
    # And what a person types without make.
    for path in ("tools/bootstrap", "tools/lock", ".ci/run"):
        script = (PROJECT / path).read_text()
        first = script.index("export LC_ALL=C.UTF-8")
        assert first < script.index("\ncd "), path
    for path in ("tools/demo.py", "tools/run_tests.py", "tests/proof/releases.py"):
        assert re.search(
            r"def main\(.*\n    \"\"\".*\n    use_utf8\(\)\n", (PROJECT / path).read_text()
        ), path


def test_setup_starts_from_nothing_that_a_shell_hands_on(tmp_path: Path) -> None:
    hostile = {
        "LC_ALL": "C", "LANGUAGE": "de", "TZ": "Asia/Tokyo", "TMPDIR": "/nowhere", "CDPATH": "/",
        "PYTHONPATH": "/nowhere", "ANSIBLE_STRATEGY": "free", "SYSTEMD_PAGER": "more",
        "GIT_DIR": "/nowhere", "GREP_OPTIONS": "-v", "BASH_ENV": "", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    meant = {
        "HOME": "/root", "SUDO_USER": "anna", "PIP_INDEX_URL": "https://pip.example/simple",
        "https_proxy": "http://proxy:3128", "ANSIBLE_VAULT_PASSWORD_FILE": "/root/.vault",
    }  # fmt: skip
    script = (
        f"cd {shlex.quote(str(PROJECT))}; source setup/lib.sh; clean_environment; umask; env -0"
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**hostile, **meant},
        capture_output=True,
        text=True,
        check=True,
    )
    mask, _, rest = done.stdout.partition("\n")
    found = dict(line.split("=", 1) for line in rest.split("\0") if line)
    assert mask == "0022"
    for key in ("SHLVL", "_", "PWD", "OLDPWD"):
        found.pop(key, None)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert json.loads(json.dumps(found)) == {**meant, "PATH": path, "LC_ALL": "C.UTF-8"}
