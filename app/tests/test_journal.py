"""Lines as journald takes them."""

from __future__ import annotations

import json
import logging
import os

import pytest

from toll.logs import JournalFormatter, is_journal


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)],
)
def test_the_journal_is_told_how_grave_a_line_is(level, priority):
    record = logging.LogRecord(
        "toll", getattr(logging, level.upper()), __file__, 1, "it\nburns", None, None
    )
    line = JournalFormatter().format(record)
    assert line.startswith(f"<{priority}>{{")
    assert "\n" not in line
    assert json.loads(line[3:])["level"] == level


def test_only_the_journal_gets_priorities(tmp_path, monkeypatch):
    """Not a pipe of a program whose parent writes to the journal."""
    with (tmp_path / "here").open("w") as here, (tmp_path / "there").open("w") as there:
        found = os.fstat(here.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journal(here)
        assert not is_journal(there)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(here)
    assert not is_journal(here), "closed"
