"""Hosts that share a database: what the tests of fleets have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import FOLDER, Host, Load

# The first has the database too. Its pg_dump must not be older than the server.
NAMES = ("debian12", "debian13")
DOMAIN = "fleet.release.test"
STORED = """
SELECT json_object_agg(plate, times) FROM (
  SELECT plate, count(*) AS times FROM passages WHERE plate LIKE '{run}_____' GROUP BY plate
) AS found
"""


class Member(Host):
    """A host of the fleet: what it stores is in the database of `server`."""

    server: Host

    def onhost(self, command: str, **options: Any) -> Any:
        if command != "stored":
            return super().onhost(command, **options)
        found = sql(self.server, STORED.format(run=options["run"]))
        return {"plates": json.loads(found or "null") or {}, "sound": "ok"}


def sql(server: Host, *statements: str, database: str = "toll-app") -> str:
    """What PostgreSQL's own user is answered."""
    given = ";\n".join(statements)
    return server.root(
        f"runuser -u postgres -- psql -qAt -v ON_ERROR_STOP=1 -d {database}", given=given
    ).strip()


def inventory() -> Path:
    """Where the fleet's inventory is."""
    return FOLDER / "shared" / "hosts.yml"


def lost_nothing(*loads: Load) -> None:
    """Each request of each load was answered, and what was acknowledged is there once."""
    for load in loads:
        assert not load.failed, f"{len(load.failed)} failed, the first: {load.failed[:20]}"
        cut = [record for record in load.records if record.again and record.replayed]
        assert cut == [], "their connection ended after they were done"
        assert load.reconciliation.right, load.reconciliation
