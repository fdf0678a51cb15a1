"""The cluster of the scenario: its hosts, and a client that writes while one of them is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.wsgi.host.plugins.plugin_utils import databases  # noqa: E402

CLUSTER = "/usr/local/sbin/postgresql-cluster"
WRITING = Path(__file__).with_name("writing.py")


@dataclass
class Written:
    """What a client was told.

    Attributes:
        acknowledged: number and moment of each row.
    """

    acknowledged: list[tuple[int, float]] = field(default_factory=list)

    @property
    def pause(self) -> float:
        """The longest time without an acknowledgement, in seconds."""
        moments = [moment for _, moment in self.acknowledged]
        return max(after - before for before, after in pairwise(moments))


class Cluster:
    """The hosts of the scenario."""

    def __init__(self, testhosts: Any, control: Any) -> None:
        self.testhosts, self.control = testhosts, control
        self.names = ("db1", "db2", "db3")
        self.last = 0
        # Another one than that of the scenario.
        self.secret = ""

    def container(self, name: str) -> str:
        return str(self.control.variable("testhost_container", name))

    def run(self, name: str, *words: str, check: bool = True, given: str = "") -> str:
        """What a command on a host prints, as root."""
        command = self.testhosts.engine.command("exec", "-i", self.container(name), *words)
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def state(self, name: str = "db1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(name, CLUSTER, "status", "--json"))
        return found

    def well(self) -> dict[str, Any]:
        """Wait until all members are well, and say how they are."""
        self.run("db1", CLUSTER, "well", "--seconds=120")
        return self.state()

    def ask(self, name: str, statement: str, database: str = "shop") -> str:
        words = ("runuser", "-u", "postgres", "--", "psql", "-XqAt", "-d", database)
        return self.run(name, *words, given=statement)

    def url(self, pooled: bool) -> str:
        """Where a client finds the primary, or the pooler in front of it."""
        told = yaml.safe_load((Path(__file__).parents[1] / "molecule.yml").read_text())
        variables = told["provisioner"]["inventory"]["group_vars"]["all"]
        secret = self.secret or variables["application_database_secret"]
        addresses = [self.control.variable("ansible_host", name) for name in self.names]
        port = databases.USUAL_POOLER_PORT if pooled else 0
        found = databases.url(secret, addresses, "shop", port)
        trusted = databases.authority_file("shop")
        return found.replace(trusted, "/etc/postgresql-server/authority.pem")

    @contextmanager
    def writing(self, name: str, seconds: float, pooled: bool = False) -> Iterator[Written]:
        """A client on a host, for so long; at the end, what it was told."""
        written = Written()
        told = {"url": self.url(pooled), "seconds": seconds, "first": self.last}
        # Rows whose fate nobody knows have a number as well.
        self.last += round(seconds * 1000)
        self.run(name, "sh", "-c", "cat >/run/writing.py", given=WRITING.read_text())
        command = self.testhosts.engine.command(
            *("exec", "-i", self.container(name), "python3", "/run/writing.py")
        )
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(told))
            process.stdin.close()
            # The first row: whoever is lost now was seen to acknowledge.
            first = process.stdout.readline()
            time.sleep(2)
            yield written
            lines = [first, *process.stdout]
        written.acknowledged += [tuple(json.loads(line)) for line in lines]

    def missing(self, written: Written) -> set[int]:
        """Rows that were acknowledged and are not there."""
        primary = self.well()["primary"]
        there = {int(each) for each in self.ask(primary, "SELECT n FROM written").split()}
        return {number for number, _ in written.acknowledged} - there


@pytest.fixture(scope="module")
def voters(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What has another host vote in place of db3."""
    path = tmp_path_factory.mktemp("inventory") / "voters.yml"
    hosts: dict[str, dict[str, str]] = {name: {} for name in ("db1", "db2", "vote")}
    path.write_text(yaml.safe_dump({"database_voters": {"hosts": hosts}}))
    return (f"--inventory={path}",)


@pytest.fixture(scope="module")
def cluster(testhosts: Any, control: Any) -> Cluster:
    found = Cluster(testhosts, control)
    primary = found.well()["primary"]
    found.ask(
        primary,
        "DROP TABLE IF EXISTS written;"
        "CREATE TABLE written (n int PRIMARY KEY, at inet);"
        'ALTER TABLE written OWNER TO "shop";',
    )
    return found
