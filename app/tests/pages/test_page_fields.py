"""A field has one rule, whichever way its value comes: form, API, file, command or filter."""

from __future__ import annotations

import io
import re
from typing import get_args

import pytest
from sqlalchemy import func, select, update

from toll import forms, models
from toll.api import schemas
from toll.models import Passage
from toll.services import fields, revenue, tariffs

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
CYRILLIC, GREEK, FULLWIDTH = "\u0410\u0412 12", "\u0391\u0392-12", "\uff21\uff22\uff11\uff12"


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("ab-12", "AB12"),
        (CYRILLIC, "AB12"),
        (CYRILLIC.lower(), "AB12"),
        (GREEK, "AB12"),
        (GREEK.lower(), "AB12"),
        (FULLWIDTH, "AB12"),
        # All that a country may have: GOST R 50577, and Greece.
        (
            "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425",
            "ABEKMHOPCTYX",
        ),
        ("\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c", "ABEZHIKM"),
        ("\u039d\u039f\u03a1\u03a4\u03a5\u03a7", "NOPTYX"),
        ("\u0661\u0662\u0663 AB", "123AB"),
        # What looks like nothing else stays what it is.
        ("M\u00dc AB 12", "M\u00dcAB12"),
        ("\u54c1\u5ddd 300 \u3042 12-34", "\u54c1\u5ddd300\u30421234"),
    ],
)
def test_plates_that_look_the_same_are_the_same(typed, stored):
    assert fields.plate(typed) == stored
    assert fields.plate(stored) == stored


@pytest.mark.parametrize(
    ("typed", "stored"), [("3", "3"), (" n-2 ", "N-2"), ("N-2", "N-2"), ("\uff13", "3")]
)
def test_lanes_have_one_form(typed, stored):
    assert fields.lane(typed) == stored


@pytest.mark.parametrize(
    "text", ["", " ", "-", "A" * 17, "A" * 99, "A\0B", "A\u20ddB", "3" + " " * 40]
)
def test_no_plates(text):
    with pytest.raises(ValueError, match=r"is missing|is not a plate") as error:
        fields.plate(text)
    assert "2 to 16" in error.value.args[1]


@pytest.mark.parametrize("text", ["", "-1", "a b", "3" + " " * 40 + "4", "\u0663", "12345678901"])
def test_no_lanes(text):
    with pytest.raises(ValueError, match=r"is missing|is not a lane"):
        fields.lane(text)


@pytest.mark.parametrize(
    "text", ["7:30", "0730", "07", "24:00", "07:30:15", "07:30+14:00", "T07:30", "\u0660\u0667:30"]
)
def test_no_times_of_day(text):
    with pytest.raises(ValueError, match="is not a time of day"):
        fields.clock(text)


@pytest.mark.parametrize("text", ["20260504", "2026-W19-1", "2026-02-30", "0000-01-01", "26-05-04"])
def test_no_days(text):
    with pytest.raises(ValueError, match="is not a day"):
        fields.day(text)


PASSAGE = {
    "plaza": "harbour-bridge",
    "class": "car",
    "passed_at": "2026-05-04T07:15:00Z",
    "payment_method": "tag",
}


@pytest.mark.parametrize("plate", [CYRILLIC, GREEK, FULLWIDTH, "ab 12"])
@pytest.mark.parametrize("lane", ["n-2", "N-2"])
def test_what_one_door_records_every_other_one_finds(app, log_in, recorder, plate, lane):
    """A plate typed by a person and the same plate read by a camera are one vehicle."""
    operator = log_in("operator")
    sent = operator.send(
        "/passages/new",
        **{"plaza": "harbour-bridge", "vehicle_class": "car", "payment_method": "tag"},
        **{"plate": plate, "lane": lane, "at": "2026-05-04T08:15"},
    )
    assert sent.status_code == 303, sent.text
    answer = recorder.record(PASSAGE | {"plate": plate, "lane": lane})
    assert (answer.json["plate"], answer.json["lane"]) == ("AB12", "N-2")
    for asked in ({"plate": "AB12"}, {"plate": plate}, {"lane": "N-2"}, {"lane": lane}):
        assert len(recorder.get("/passages", **asked).json["passages"]) == 2, asked
        assert recorder.get("/passages.csv", **asked).text.count("AB12") == 2
        assert "2 passages" in operator.get("/passages", **asked).text
        assert operator.get("/passages/export.csv", **asked).text.count("AB12") == 2


@pytest.mark.parametrize(
    ("text", "good"), [("07:30", True), ("07:30+02:00", False), ("0730", False)]
)
@ONE_DATABASE
def test_hours_of_a_window_are_read_alike_by_form_and_file(log_in, session, text, good):
    admin = log_in("admin")
    sent = admin.send(
        "/tariffs/new",
        **{"plaza": "harbour-bridge", "vehicle_class": "car", "name": "Later", "amount": "2"},
        **{"valid_from": "2090-01-01T00:00", "windows-0-name": "Peak", "windows-0-amount": "3"},
        **{"windows-0-days": ["0"], "windows-0-starts": text, "windows-0-ends": "10:00"},
    )
    assert sent.status_code == (303 if good else 422)
    file = io.StringIO(
        "plaza,class,name,amount,valid_from,window,days,starts,ends\n"
        "harbour-bridge,truck,Later,200,2090-01-01T00:00,,,,\n"
        f"harbour-bridge,truck,Later,300,2090-01-01T00:00,Peak,Mon,{text},10:00\n"
    )
    assert bool(tariffs.import_csv(session, file).errors) != good


def test_plates_of_older_releases_are_rewritten_once(app, recorder, session):
    """They kept look-alike letters, and nobody finds those any more."""
    for stored in (CYRILLIC, "M\u00dc1", "AB12"):
        assert recorder.record(PASSAGE | {"plate": stored, "lane": "3"}).status_code == 201
    first = session.scalar(select(func.min(Passage.id)))
    session.execute(update(Passage).where(Passage.id == first).values(plate="\u0410\u041212"))
    session.commit()
    assert len(recorder.get("/passages", plate="AB12").json["passages"]) == 1
    for expected in ("1 passages", "0 passages"):
        result = app.test_cli_runner().invoke(args=["toll", "plates"])
        assert (result.exit_code, result.output[:10]) == (0, expected), result.output
    assert len(recorder.get("/passages", plate="AB12").json["passages"]) == 2
    assert len(recorder.get("/passages", plate="m\u00fc 1").json["passages"]) == 1


def test_the_choices_are_the_same_everywhere():
    assert set(get_args(schemas.PaymentMethod)) == set(models.PAYMENT_METHODS)
    assert set(forms.PAYMENT_METHODS) == set(models.PAYMENT_METHODS)
    assert get_args(schemas.Group) == revenue.GROUPS


@pytest.mark.parametrize("code", ["a", "a-1", "a" * 40, "a-", "-a", "A", "a" * 41, "", "a b"])
def test_codes_have_one_pattern(code):
    """What can be made on the command line can be asked for by the API, and nothing else."""
    made = not tariffs._code("plaza", code)
    assert bool(re.search(schemas.CODE, code)) == made
