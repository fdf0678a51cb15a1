"""Copies of the data: made by the timer's unit, put back by an operator, compared row by row."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Api

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
COPIES = "/var/backups/toll-app"
# Every row of every table, as the database itself has it, without the application.
SQLITE = """
import json, sqlite3
base = sqlite3.connect("file:/var/lib/toll-app/toll.db?mode=ro", uri=True)
names = [row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
told = {name: sorted(map(repr, base.execute(f'SELECT * FROM "{name}"'))) for name in names}
print(json.dumps(told))
"""


def plate() -> str:
    """One that no other test has recorded."""
    return f"B{secrets.token_hex(4).upper()}"


@pytest.fixture
def rows(database_url: str, as_root: Callable[[str], str]) -> Callable[[], Any]:
    """Reads all rows."""

    def read() -> Any:
        if not database_url:
            script = base64.b64encode(SQLITE.encode()).decode()
            return json.loads(as_root(f"echo {script} | base64 -d | python3 -"))
        dump = as_root("runuser -u postgres -- pg_dump --data-only --inserts toll")
        return sorted(line for line in dump.splitlines() if line.startswith(("INSERT", "SELECT")))

    return read


@pytest.fixture
def wanted(variables: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """What a restore of this host's copies needs besides a name."""
    if "backup_identity" not in variables:
        return {}
    identity = tmp_path / "key.txt"
    identity.write_text(variables["backup_identity"] + "\n")
    return {"application_restore_identity": str(identity)}


def listed(as_root: Callable[[str], str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(as_root("toll-app backup list --json"))["copies"]
    return found


def test_timer_is_set_and_its_unit_makes_a_good_copy(
    host: Host, toll: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    """In its sandbox, in which it can still ask systemd to run the application."""
    assert host.service("toll-app-backup.timer").is_enabled
    assert host.service("toll-app-backup.timer").is_running
    as_root("systemctl start toll-app-backup.service")
    newest = listed(as_root)[0]
    path = f"{COPIES}/{newest['name']}"
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert as_root(f"sha256sum {path}").split()[0] == newest["sha256"]
    release = as_root("readlink /opt/toll-app/current").strip().rsplit("/", 1)[-1]
    assert newest["release"] == release
    counted = json.loads(as_root("toll-app flask toll counts"))
    assert (newest["schema"], newest["tables"]) == (counted["schema"], counted["tables"])
    # Where the application could reach it, whoever takes over the application could destroy it.
    assert host.run(f"runuser -u toll-app -- ls {COPIES}").rc != 0
    if "backup" in toll:
        back = "/root/from-elsewhere"
        as_root(
            "restic --repo /srv/elsewhere --password-file /root/restic-password --no-cache"
            f" restore latest --target {back}"
        )
        assert as_root(f"sha256sum {back}{path}").split()[0] == newest["sha256"]
        assert json.loads(as_root(f"cat {back}{path}.json"))["sha256"] == newest["sha256"]
        as_root(f"rm -r {back}")
        assert as_root(f"head -c 21 {path}") == "age-encryption.org/v1"


def test_copy_brings_back_every_row(
    control: Any,
    variables: dict[str, Any],
    api: Api,
    rows: Callable[[], Any],
    wanted: dict[str, str],
    as_root: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """Passages, a copy, one passage more, and the way back, by the operator's playbooks."""
    limit = variables["inventory_hostname"]
    here, later = plate(), plate()
    first = api.record(here, secrets.token_hex(8)).json()
    release = api.site.get("/readyz").json()["release"]
    before = rows()
    if wanted:
        as_root("systemctl start toll-app-backup.service")
        source = "latest"
    else:
        # Fetched, lost on the host, and handed over again.
        run = control.run_playbook(
            PLAYBOOKS / "backup.yml",
            limit=limit,
            variables={"application_backup_fetch": str(tmp_path)},
        )
        assert run.returncode == 0, run.output
        told = re.search(
            rf"{COPIES}/([\w.-]+\.sqlite): \d+ bytes, .*SHA-256\s+(\w{{64}})", run.output
        )
        assert told, run.output
        fetched = tmp_path / limit / told[1]
        assert hashlib.sha256(fetched.read_bytes()).hexdigest() == told[2]
        as_root(f"rm {COPIES}/{told[1]}*")
        source = str(fetched)
    assert api.record(later, secrets.token_hex(8)).status == 201
    run = control.run_playbook(
        PLAYBOOKS / "restore.yml", limit=limit, variables={"application_restore": source, **wanted}
    )
    assert run.returncode == 0, run.output
    assert re.search(r"Restored\s+\d{8}T", run.output), run.output
    assert rows() == before
    assert api.site.get("/readyz").json()["release"] == release
    assert api.find(here) == [first]
    assert api.find(later) == []
    assert api.record(later, secrets.token_hex(8)).status == 201
    # What it replaced is there, and holds the passage that was lost by it.
    replaced = next(each for each in listed(as_root) if each["kind"] == "before-restore")
    if wanted:
        passages = sum(line.startswith("INSERT INTO public.passages ") for line in before)
    else:
        passages = len(before["passages"])
    assert replaced["tables"]["passages"] == passages + 1
    if wanted:
        assert replaced["name"].endswith(".age")


def test_damaged_copy_is_refused_before_anything_stops(
    control: Any, variables: dict[str, Any], api: Api, as_root: Callable[[str], str]
) -> None:
    name = next(each["name"] for each in listed(as_root) if each["kind"] != "before-restore")
    master = as_root("systemctl show --property MainPID --value toll-app.service")
    as_root(f"printf x | dd of={COPIES}/{name} bs=1 seek=9000 conv=notrunc status=none")
    run = control.run_playbook(
        PLAYBOOKS / "restore.yml",
        limit=variables["inventory_hostname"],
        variables={"application_restore": name},
    )
    assert run.returncode != 0
    assert f"{name} is damaged" in " ".join(run.output.split())
    assert as_root("systemctl show --property MainPID --value toll-app.service") == master
    assert as_root("cat /opt/toll-app/state/deploy.json 2>/dev/null || echo free").strip() == "free"
    as_root(f"rm {COPIES}/{name}*")
