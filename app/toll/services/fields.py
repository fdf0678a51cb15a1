"""Fields that people and machines write, each with one rule, whichever way its value comes.

Forms, the API, CSV files, the command line and filters all call these, so what one of them records
every other one finds. Errors are ValueError(problem, remedy).
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date, time

# The API's document shows these two patterns.
CODE = r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
LANE = r"[A-Za-z0-9][A-Za-z0-9-]{0,9}"
CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
DAY = r"\d{4}-\d\d-\d\d"

# Characters of a plate or lane as it is typed, with room for spaces and hyphens.
TYPED_MOST = 40
PLATE_LENGTHS = (2, 16)
SEPARATORS = re.compile(r"[\s.\-\u2010-\u2015\u30fb]")
# Cyrillic and Greek capitals that cannot be told from Latin ones on a plate. Countries with these
# scripts use no others on plates, so that everybody can read them (Vienna Convention on Road
# Traffic, annex 2; GOST R 50577 names the Cyrillic ones).
LOOKALIKES = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0405\u0408"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
    "ABEKMHOPCTYXISJABEZHIKMNOPTYX",
)


def plate(text: str) -> str:
    """Return a plate in the one form that is stored: what looks the same is the same."""
    plain = SEPARATORS.sub("", _plain(text).upper()).translate(LOOKALIKES)
    # Digits of other scripts, as on plates of Arabic countries.
    plain = "".join(str(unicodedata.decimal(each, each)) for each in plain)
    least, most = PLATE_LENGTHS
    if not least <= len(plain) <= most or not plain.isalnum():
        raise ValueError(
            "is not a plate" if text else "is missing",
            f"Write {least} to {most} letters and digits, with spaces or hyphens as you like",
        )
    return plain


def lane(text: str) -> str:
    """Return a lane in the one form that is stored, in capitals."""
    plain = _plain(text).strip()
    if not re.fullmatch(LANE, plain, re.ASCII):
        raise ValueError(
            "is not a lane" if text else "is missing",
            "Write 1 to 10 letters, digits and hyphens, like 3 or N-2",
        )
    return plain.upper()


def _plain(text: str) -> str:
    """Return a text without what only typography tells apart, and nothing for one that is long."""
    return unicodedata.normalize("NFKC", text) if len(text) <= TYPED_MOST else ""


def clock(text: str) -> time:
    """Return a time of day, without a zone."""
    if not re.fullmatch(CLOCK, text.strip(), re.ASCII):
        raise ValueError("is not a time of day", "Write it like 07:30")
    return time.fromisoformat(text.strip())


def day(text: str) -> date:
    """Return a day of the calendar."""
    try:
        if not re.fullmatch(DAY, text.strip(), re.ASCII):
            raise ValueError
        return date.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("is not a day", "Write it like 2026-05-04") from None


def storable(value: object) -> bool:
    """Return whether a database can compare a value: a text in Unicode, and PostgreSQL has no NUL.

    Bytes of the command line that are not UTF-8 arrive as lone surrogates.
    """
    return (
        isinstance(value, str)
        and "\0" not in value
        and not any("\ud800" <= each <= "\udfff" for each in value)
    )
