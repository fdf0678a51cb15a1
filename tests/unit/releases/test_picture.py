"""The picture must show every request, and no failed one as a good one."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger import Record
from picture import BEFORE_SECONDS, Deploy, render

SVG = "{http://www.w3.org/2000/svg}"


def records(**changed: Record) -> list[Record]:
    """Ten a second for 40 s; the new release answers from 28 s on."""
    found = []
    for number in range(400):
        due = 100 + number / 10
        release = "new" if due >= 128 else "old"
        found.append(Record(number, due, due, due + 0.005, 200, "", "", release))
    for name, record in changed.items():
        found[int(name.removeprefix("at_"))] = record
    return found


def deploy(found: list[Record]) -> Deploy:
    return Deploy("debian13", "new", 10.0, 120.0, 137.0, found)


def dots(picture: str) -> dict[str, int]:
    """How many requests are drawn of each kind."""
    root = ElementTree.fromstring(picture)
    kinds = {"old", "new", "bad"}
    return {
        each.attrib["class"]: len(re.findall("M", each.attrib["d"]))
        for each in root.iter(f"{SVG}path")
        if each.attrib["class"] in kinds and each.attrib["d"]
    }


def test_each_request_is_drawn_once_as_what_it_was() -> None:
    before = int((20 - BEFORE_SECONDS) * 10)
    picture = render(deploy(records()))
    assert dots(picture) == {"old": 280 - before, "new": 120}
    assert f"{400 - before} requests, half of them writes: 0 failed, slowest 5 ms" in picture
    assert "new release serves, 8.0 s" in picture


@pytest.mark.parametrize(
    "bad",
    [
        {"status": 502, "error": "502: bad gateway"},
        {"done": 131.5},
        {"status": 0, "error": "no answer within 30 s", "done": 160.0},
    ],
    ids=["an error", "late", "no answer"],
)
def test_what_failed_is_no_good_answer(bad: dict[str, Any]) -> None:
    failed = replace(records()[300], **bad)
    picture = render(deploy(records(at_300=failed)))
    assert dots(picture)["bad"] == 1
    assert dots(picture)["new"] == 119
    assert ": 1 failed," in picture


def test_records_come_back_from_their_file(tmp_path: Path) -> None:
    kept = tmp_path / "deploy.json"
    told = deploy(records())
    told.save(kept)
    assert render(Deploy.load(kept)) == render(told)


def test_without_both_releases_there_is_no_picture() -> None:
    only_old = [replace(record, release="old") for record in records()]
    with pytest.raises(ValueError, match="Not both"):
        render(deploy(only_old))
