"""The verb `logs`: one journal of all that belongs to an application."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from apphost.application import Application

from .conftest import Programs


def call(application: Application, *words: str) -> subprocess.CompletedProcess[str]:
    """Type the command; it becomes another program."""
    code = (
        "import sys; from pathlib import Path; from apphost import cli; "
        "sys.exit(cli.main('shop', ['logs', *sys.argv[2:]], Path(sys.argv[1])))"
    )
    argv = [sys.executable, "-c", code, str(application.host), *words]
    path = ":".join(filter(None, sys.path))
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
    )


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], ["--lines=100"]),
        (["-f"], ["--lines=100", "--follow"]),
        (["-n", "5", "--grep", "a b"], ["--lines=5", "--grep=a b"]),
        # All that there is since then.
        (["--since", "1 hour ago"], ["--since=1 hour ago"]),
        (["--since=-1h", "--lines=all"], ["--lines=all", "--since=-1h"]),
    ],
)
def test_journal_of_all_units_is_shown(
    application: Application, programs: Programs, words: list[str], options: list[str]
) -> None:
    """Whoever looks for a fault does not know yet in which unit it is."""
    programs.put("journalctl", '#!/bin/sh\nfor each; do echo "$each"; done\nexit 3\n')
    result = call(application, *words)
    # It is journalctl from then on.
    assert (result.returncode, result.stderr) == (3, "")
    lines = result.stdout.splitlines()
    units = [line.partition("=")[2] for line in lines if line.startswith("--unit=")]
    assert units == [
        *("shop.service", "shop-standby.service"),
        *("shop-handover*", "shop-health*", "shop-backup*", "shop-worker-*", "shop-timer-*"),
    ]
    rest = [line for line in lines if not line.startswith("--unit=")]
    assert rest == ["--no-pager", "--no-hostname", "--output=short-iso", *options]


@pytest.mark.parametrize("words", [["-n", "many"], ["-n", "-5"], ["shop.service"], ["--json"]])
def test_wrong_use_has_a_code_of_its_own(
    application: Application, programs: Programs, words: list[str]
) -> None:
    result = call(application, *words)
    assert result.returncode == 64
    assert result.stderr.startswith("usage: shop logs")


def test_host_without_a_journal_is_named(
    application: Application, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs.folder))
    result = call(application)
    assert (result.returncode, result.stderr) == (2, "shop logs: This host has no journalctl.\n")
