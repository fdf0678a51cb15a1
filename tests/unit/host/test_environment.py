"""What a host hands to a process decides nothing, for modules and commands alike."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apphost import environment
from conftest import PROJECT

from .test_package import MODULES, PACKAGE

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
    assert environment.cleaned({**HOSTILE, **MEANT}) == {
        **MEANT,
        "PATH": environment.PATH,
        "LC_ALL": "C.UTF-8",
    }


def hostile(script: str) -> Any:
    """What a script prints as JSON that starts with everything that a host can hand to it."""
    # Of Python's own variables one has to lead it to the package.
    given = {**HOSTILE, **MEANT, "PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True
    )
    return given, json.loads(result.stdout)


def test_a_process_and_what_it_starts_are_clean() -> None:
    """Its environment, the mode of what it makes, and the zone of its times."""
    script = """if True:
        import json, os, subprocess, sys, time
        from apphost import environment
        os.umask(0o077)
        environment.apply()
        child = subprocess.run(["/usr/bin/env"], capture_output=True, text=True).stdout
        seen = [environment.INHERITED, dict(os.environ), child, os.umask(0), time.timezone]
        print(json.dumps(seen))
    """
    given, (before, now, child, umask, zone) = hostile(script)
    assert before == given
    assert now == environment.cleaned(given)
    assert sorted(child.splitlines()) == sorted(f"{key}={value}" for key, value in now.items())
    assert umask == 0o022
    assert zone != -14 * 3600


def test_a_command_starts_clean() -> None:
    """Whichever verb it is."""
    script = """if True:
        import contextlib, io, json, os, sys
        from apphost import cli
        sys.argv = ["/usr/local/sbin/shop", "help"]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            cli.start()
        print(json.dumps(dict(os.environ)))
    """
    given, now = hostile(script)
    assert now == environment.cleaned(given)


def modules() -> list[Path]:
    """Modules with code that runs on a host; the others document actions."""
    return [
        path
        for path in sorted(PLUGINS.glob("modules/*.py"))
        if "AnsibleModule(" in path.read_text()
    ]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.name)
def test_cleaning_is_the_first_act_of_each_module(path: Path) -> None:
    assert len(modules()) >= 7
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.If), "if __name__ == '__main__'"
    assert ast.unparse(last.body[0]) == "environment.apply()"


def test_python_itself_takes_no_orders_from_the_environment() -> None:
    """Isolated, so that PYTHON* and the user's packages are out of it; text is UTF-8 in any locale;
    nothing is compiled into a directory that a later run compares."""
    templates = [path for path in PROJECT.glob("roles/*/templates/**/*") if path.is_file()]
    heads = [path.read_bytes().partition(b"\n")[0] for path in templates]
    programs = {head for head in heads if head.startswith(b"#!") and b"python" in head}
    # Without `site` where it is started every second.
    assert programs == {b"#!/usr/bin/python3 -IBXutf8", b"#!/usr/bin/python3 -ISBXutf8"}


# What English words looks for ---------------------------------------------------------------------

WORDS = re.compile(
    r"""["'][^"'\n]*["']\s+(?:not\s+)?in\s+\S*(?:stderr|stdout|said|output|words|\berr\b|\bout\b)"""
)
# Of programs that have no other answer: each with a reason.
KNOWN = {
    # certbot is not translated, and one exit code stands for all of its failures.
    "Another instance of Certbot is already running",
    # pgBackRest 2.45 is not translated, and its verify ends with 0 whatever it has found.
    "status: ok",
}


@pytest.mark.parametrize("path", [*modules(), *MODULES], ids=lambda path: path.name)
def test_nobody_looks_for_words_in_what_a_program_says(path: Path) -> None:
    """Programs speak JSON and exit codes to programs. Prose changes with locale and version."""
    found = [hit for hit in WORDS.findall(path.read_text()) if not any(k in hit for k in KNOWN)]
    assert found == []


def test_tasks_look_for_no_words_either() -> None:
    pattern = re.compile(r"in \w+\.(stdout|stderr|msg)\b|\.(stdout|stderr) is (not )?search")
    for path in (PROJECT / "roles").glob("*/*/**/*.yml"):
        assert not pattern.search(path.read_text()), path
