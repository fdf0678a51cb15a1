"""The data move from PostgreSQL to SQLite and back, or stay where they are: docs/OPERATIONS.md."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Api

# The host with a server of its own.
testinfra_hosts = ["ansible://debian13"]

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
FILE = "/var/lib/toll-app/toll.db"
# `make proof`; that data are not overwritten is tried without a host too.
EVERY_CASE = bool(os.environ.get("EVERY_SYSTEM"))


def plate() -> str:
    """One that no other test has recorded."""
    return f"M{secrets.token_hex(4).upper()}"


def test_data_move_and_come_back(
    control: Any, api: Api, as_root: Callable[[str], str], database_url: str
) -> None:
    """A host outgrows its file, or goes back to it, and nobody copies rows by hand."""

    def run(playbook: str, url: str) -> Any:
        told = {"toll_settings": {"data": {"database_url": url}}}
        return control.run_playbook(PLAYBOOKS / playbook, variables=told, limit="debian13")

    def tables() -> dict[str, int]:
        found: dict[str, int] = json.loads(as_root("toll-app flask toll counts"))["tables"]
        return found

    def in_postgresql() -> str:
        query = "SELECT count(*) FROM passages"
        return as_root(f"runuser -u postgres -- psql -qAt -d toll -c '{query}'").strip()

    first, second, third = plate(), plate(), plate()
    assert api.record(first, first).status == 201
    before = tables()

    # A changed variable alone would have an empty database serve.
    refused = run("site.yml", "")
    assert refused.returncode != 0
    assert "toll-app.data.database_url is empty, but the data are in postgresql:" in refused.output
    assert "run playbooks/move_data.yml" in refused.output
    assert tables() == before

    moved = run("move_data.yml", "")
    assert moved.returncode == 0, moved.output
    assert not as_root("find /etc/toll-app/credentials -name database_url")
    assert tables() == before
    assert [each["plate"] for each in api.find(first)] == [first]
    assert api.record(second, second).status == 201
    assert in_postgresql() == str(before["passages"])
    if EVERY_CASE:
        assert run("move_data.yml", "").returncode != 0, "there is nothing to move"
        # The server's database is not empty: it is not overwritten, and the file serves on.
        failed = run("move_data.yml", database_url)
        assert failed.returncode != 0
        assert "holds data already, in" in failed.output
        assert "Nothing was stopped" in failed.output
        api.site.wait_until_ready()
        assert [each["plate"] for each in api.find(second)] == [second]
        assert in_postgresql() == str(before["passages"])

    as_root(
        "runuser -u postgres -- psql -q -d toll"
        " -c 'DROP SCHEMA public CASCADE' -c 'CREATE SCHEMA public AUTHORIZATION toll'"
    )
    back = run("move_data.yml", database_url)
    assert back.returncode == 0, back.output
    assert in_postgresql() == str(before["passages"] + 1)
    assert [each["plate"] for each in api.find(second)] == [second]
    assert api.record(third, third).status == 201
    # Nobody takes the file for the data.
    assert as_root(f"ls {FILE}.moved-*").count(".moved-") == 1
    assert not as_root(f"find {FILE} /var/lib/toll-app/moving.jsonl 2>/dev/null || true").strip()
