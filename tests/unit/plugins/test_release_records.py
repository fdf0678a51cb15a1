"""`wsgi.host.release`: what is written down of a release, and who has left it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.releases import (
    records,
)
from releasing import Host, recorded_owners


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    return recorded_owners(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestRecord:
    """What is written down beside a release, for what becomes of it."""

    def record(self, host: Host, name: str = "a" * 12) -> dict[str, Any]:
        return dict(json.loads((host.root / "state" / "releases" / f"{name}.json").read_text()))

    def test_begins_unjudged_and_says_where_it_comes_from(self, host):
        bundle = {**host.bundle(), "content": "c" * 12, "revision": "abc", "lock_hash": "d" * 64}
        result = host.run(bundle, records=True, shipped_by="anna@desk", activate=False)
        record = self.record(host)
        assert result["record"] == record
        assert record["verdict"] == "unjudged"
        assert record["shipped_by"] == "anna@desk"
        assert (record["content"], record["revision"]) == ("c" * 12, "abc")
        assert record["lock_sha256"] == "d" * 64
        path = host.root / "state" / "releases" / ("a" * 12 + ".json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_second_run_changes_nothing(self, host):
        host.run(host.bundle(), records=True)
        record = self.record(host)
        assert host.run(host.bundle(), records=True)["changed"] is False
        assert self.record(host) == record

    def test_what_others_wrote_stays_when_it_is_shipped_again(self, host):
        host.run(host.bundle(), records=True)
        told = {**self.record(host), "verdict": "healthy", "more": 1}
        records.write_record(str(host.root), told)
        host.run(host.bundle(), records=True, shipped_by="ben@desk")
        assert self.record(host) == told

    def leave(self, host: Host, name: str = "a" * 12, **facts: Any) -> None:
        left = {"excluded_at": "2026-11-25", "excluded_by": "anna@desk", "excluded_reason": "slow"}
        records.write_record(str(host.root), {**self.record(host, name), **left, **facts})

    def rolled_back(self, host: Host, **facts: Any) -> dict[str, Any]:
        """The second of two releases was left for the first one; ship it again."""
        options = {"records": True, "activate": False}
        host.run(host.bundle(), records=True)
        host.run(host.bundle("b" * 12), **options)
        self.leave(host, "b" * 12, **facts)
        return host.run(host.bundle("b" * 12), keep_excluded=True, **options)

    def test_rollback_is_remembered_by_a_deploy_that_only_ships(self, host):
        """`--tags ship` and a deploy that fails before its handover undo no decision."""
        self.rolled_back(host)
        told = host.run(host.bundle("b" * 12), records=True, activate=False)
        assert told["excluded"] is None
        assert told["changed"] is False
        assert self.record(host, "b" * 12)["excluded_by"] == "anna@desk"

    @pytest.mark.parametrize("facts", [{}, {"excluded_kind": "decision"}])
    def test_rollback_is_remembered_if_so_wished(self, host, facts):
        """A routine run must not deploy what somebody has rolled back from."""
        told = self.rolled_back(host, **facts)
        assert told["changed"] is False
        assert told["excluded"]["excluded_by"] == "anna@desk"
        assert self.record(host, "b" * 12)["excluded_reason"] == "slow"

    def test_what_a_failed_deploy_left_is_tried_again(self, host):
        told = self.rolled_back(host, excluded_kind="failure")
        assert told["excluded"] is None
        assert "excluded_at" not in self.record(host, "b" * 12)

    def test_rollback_holds_for_the_same_content_for_another_python(self, host):
        """An upgrade of the system between the rollback and the run gives it another id."""
        host.run(host.bundle(), records=True)
        options = {"records": True, "activate": False}
        host.run({**host.bundle("b" * 12), "content": "c"}, **options)
        self.leave(host, "b" * 12)
        bundle = {**host.bundle("d" * 12), "content": "c"}
        assert host.run(bundle, keep_excluded=True, **options)["excluded"]["id"] == "b" * 12
        # Left for the Python of before is not left where the content serves.
        host.run(bundle, records=True)
        bundle = {**host.bundle("e" * 12), "content": "c"}
        assert host.run(bundle, keep_excluded=True, **options)["excluded"] is None

    def test_who_serves_what_was_left_goes_on(self, host):
        host.run(host.bundle(), records=True)
        self.leave(host)
        assert host.run(host.bundle(), records=True, keep_excluded=True)["excluded"] is None

    def test_damaged_record_is_begun_anew(self, host):
        host.run(host.bundle(), records=True)
        (host.root / "state" / "releases" / ("a" * 12 + ".json")).write_text("{")
        host.run(host.bundle(), records=True)
        assert self.record(host)["verdict"] == "unjudged"

    def test_check_mode_writes_none(self, host):
        assert host.run(host.bundle(), records=True, check=True)["record"] is None
        assert not (host.root / "state").exists()

    def test_without_the_option_there_is_none(self, host):
        """certbot's releases are judged by nobody."""
        assert host.run(host.bundle())["record"] is None
        assert not (host.root / "state").exists()

    def test_releases_on_the_host_are_told(self, host):
        host.run(host.bundle())
        told = host.run(host.bundle("b" * 12), check=True)
        assert told["releases"] == ["a" * 12, "b" * 12]
