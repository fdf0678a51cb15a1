"""What a host hands to a process decides nothing, for modules and programs of the roles alike."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import clean_environment
import pytest
from conftest import PROJECT

PLUGINS = PROJECT / "collections/ansible_collections/wsgi/host/plugins"
HOSTILE = {
    "LANG": "de_DE.UTF-8",
    "LC_ALL": "de_DE.UTF-8",
    "LC_MESSAGES": "de_DE.UTF-8",
    "LANGUAGE": "de:fr",
    "PATH": "/nowhere",
    "TMPDIR": "/nowhere",
    "TZ": "Pacific/Kiritimati",
    "PYTHONPATH": "/nowhere",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "SYSTEMD_COLORS": "1",
    "SYSTEMD_PAGER": "more",
    "SYSTEMD_LOG_LEVEL": "debug",
    "SYSTEMD_UNIT_PATH": "/nowhere",
    "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere",
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "GIT_DIR": "/nowhere",
    "OPENSSL_CONF": "/nowhere",
    "LD_PRELOAD": "",
    "PGHOST": "elsewhere",
    "PGDATABASE": "elsewhere",
    "RSYNC_RSH": "false",
    "TAR_OPTIONS": "--nonsense",
    "POSIXLY_CORRECT": "1",
}
MEANT = {
    "HOME": "/root",
    "SUDO_USER": "anna",
    "TERM": "xterm",
    "CREDENTIALS_DIRECTORY": "/run/credentials/x",
    "NOTIFY_SOCKET": "/run/systemd/notify",
}


def test_only_what_is_meant_for_a_process_stays() -> None:
    assert clean_environment.cleaned({**HOSTILE, **MEANT}) == {
        **MEANT,
        "PATH": clean_environment.PATH,
        "LC_ALL": "C.UTF-8",
    }


def test_a_process_and_what_it_starts_are_clean() -> None:
    """Its environment, the mode of what it makes, and the zone of its times."""
    script = """if True:
        import clean_environment, json, os, subprocess, sys, time
        os.umask(0o077)
        before = clean_environment.apply()
        child = subprocess.run(["/usr/bin/env"], capture_output=True, text=True).stdout
        print(json.dumps([before, dict(os.environ), child, os.umask(0), time.timezone]))
    """
    # Of Python's own variables one has to lead it to the file.
    environment = {**HOSTILE, **MEANT, "PYTHONPATH": os.environ["PYTHONPATH"]}
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    before, now, child, umask, zone = json.loads(done.stdout)
    assert before == environment
    assert now == clean_environment.cleaned(environment)
    assert sorted(child.splitlines()) == sorted(f"{key}={value}" for key, value in now.items())
    assert umask == 0o022
    assert zone != -14 * 3600


def modules() -> list[Path]:
    """Modules with code that runs on a host; the others document actions."""
    return [
        path
        for path in sorted(PLUGINS.glob("modules/*.py"))
        if "AnsibleModule(" in path.read_text()
    ]


def programs() -> list[Path]:
    found = []
    for path in sorted((PROJECT / "roles").glob("*/templates/**/*")):
        if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/python3"):
            found.append(path)
    return found


@pytest.mark.parametrize("path", modules() + programs(), ids=lambda path: path.name)
def test_cleaning_is_the_first_act_of_each(path: Path) -> None:
    assert len(modules()) >= 7
    assert len(programs()) >= 7
    if path.name == "toll-app-metrics":
        # systemd's timer alone runs it, and it reads nothing but `systemctl show` and /proc.
        return
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.If), "if __name__ == '__main__'"
    assert "clean_environment.apply()" in ast.unparse(last.body[0])


@pytest.mark.parametrize("path", programs(), ids=lambda path: path.name)
def test_python_itself_takes_no_orders_from_the_environment(path: Path) -> None:
    """Isolated, so that PYTHON* and the user's packages are out of it; text is UTF-8 in any locale;
    nothing is compiled into a directory that a later run compares."""
    assert path.read_text().startswith("#!/usr/bin/python3 -IBXutf8\n")


# What English words looks for ---------------------------------------------------------------------

WORDS = re.compile(
    r"""["'][^"'\n]*["']\s+(?:not\s+)?in\s+\S*(?:stderr|stdout|said|output|words|\berr\b|\bout\b)"""
)
# Of programs that have no other answer: each with a reason.
KNOWN = {
    # certbot is not translated, and one exit code stands for all of its failures.
    "Another instance of Certbot is already running",
}


@pytest.mark.parametrize("path", modules() + programs(), ids=lambda path: path.name)
def test_nobody_looks_for_words_in_what_a_program_says(path: Path) -> None:
    """Programs speak JSON and exit codes to programs. Prose changes with locale and version."""
    found = [hit for hit in WORDS.findall(path.read_text()) if not any(k in hit for k in KNOWN)]
    assert found == []


def test_tasks_look_for_no_words_either() -> None:
    pattern = re.compile(r"in \w+\.(stdout|stderr|msg)\b|\.(stdout|stderr) is (not )?search")
    for path in (PROJECT / "roles").glob("*/*/**/*.yml"):
        assert not pattern.search(path.read_text()), path
