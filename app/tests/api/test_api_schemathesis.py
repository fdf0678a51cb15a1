"""Schemathesis holds the application to its own document, with good requests and bad ones.

`make proof` makes many more examples: TOLL_SCHEMATHESIS_EXAMPLES=1000.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers import environment, service
from sqlalchemy import func, select

from toll.models import Passage
from toll.services import accounts

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXAMPLES = os.environ.get("TOLL_SCHEMATHESIS_EXAMPLES", "10")
OPERATIONS = 10
# What has the form that the document describes is never called malformed (400). It may ask for what
# there is not (422), which only the database knows.
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422"]

# A cursor is opaque: no pattern says which text is one, and what is none is malformed.
[[operations]]
include-operation-id = "listPassages"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "422"]
"""


def run(url: str, directory: Path, key: str | None) -> str:
    """Run Schemathesis and return what it said; it has failed if anything was found."""
    configuration = CONFIGURATION
    if key:
        # Not in the list of processes.
        configuration = f'headers = {{ Authorization = "Bearer ${{TOLL_KEY}}" }}\n{configuration}'
    (directory / "schemathesis.toml").write_text(configuration)
    done = subprocess.run(
        [
            *(SCHEMATHESIS, "--config-file", directory / "schemathesis.toml"),
            *("run", f"{url}/api/v1/openapi.json", "--checks", "all"),
            *("--phases", "examples,coverage,fuzzing,stateful", "--mode", "all"),
            *("--max-examples", EXAMPLES, "--continue-on-failure", "--no-color"),
            "--generation-deterministic",
        ],
        cwd=directory,
        env=environment(
            TOLL_KEY=key or "",
            SCHEMATHESIS_HOOKS="schemathesis_hooks",
            PYTHONPATH=str(Path(__file__).parent),
            COLUMNS="120",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    print(said)
    assert done.returncode == 0, said
    assert f"Tested: {OPERATIONS}" in said
    assert "mostly rejected" not in said
    [counts] = re.findall(r"(\d+) generated, (\d+) passed", said)
    assert counts[0] == counts[1]
    return said


def recorded(session) -> int:
    """Return how many passages there are."""
    session.rollback()
    return session.scalar(select(func.count(Passage.id)))


def test_with_a_key(database_url, session, tmp_path):
    key = accounts.create_key(session, "schemathesis", "recorder")[1]
    with service(database_url, tmp_path, "--workers", "2") as served:
        run(served.url, tmp_path, key)
        # Good requests got through: it was not all about refusals.
        assert recorded(session) > 5


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_as_a_stranger(database_url, session, tmp_path):
    with service(database_url, tmp_path, "--workers", "2") as served:
        run(served.url, tmp_path, None)
        assert recorded(session) == 0
