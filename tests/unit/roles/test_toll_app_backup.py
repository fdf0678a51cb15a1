"""What the role says of copies: units that systemd takes, settings that the package reads."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from apphost.backup.settings import KEEP, Settings

from .render import render


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"toll_app_backup_command": ["/bin/cp", "{file}", "/mnt/"]},
    ],
    ids=["alone", "with a command"],
)
@pytest.mark.parametrize("family", ["Debian", "RedHat"])
def test_units_are_right_and_settings_are_what_the_package_reads(
    family: str, variables: dict[str, Any], tmp_path: Path
) -> None:
    variables = {
        "toll_app_domains": ["a.example.com"],
        "ansible_play_hosts_all": [],
        **variables,
    }
    for name in ("toll-app-backup.service", "toll-app-backup.timer"):
        text = render("toll_app", f"backup/{name}.j2", family, **variables)
        # The program is not on this machine, and systemd looks for it.
        text = re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", text)
        (tmp_path / name).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert (result.returncode, [line for line in lines if "toll-app-backup" in line]) == (0, [])
    written = json.loads(render("toll_app", "backup.json.j2", family, **variables))
    assert written.keys() == {field.name for field in dataclasses.fields(Settings)}
    assert written["keep"] == KEEP
