"""Passages as CSV, for the API and the pages: written as they are read, however many there are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from flask import Response, stream_with_context

from toll.models import Passage
from toll.services.money import CURRENCIES

COLUMNS = (
    "id",
    "plaza",
    "lane",
    "class",
    "plate",
    "passed_at",
    "passed_at_local",
    "amount_minor_units",
    "amount",
    "currency",
    "tariff",
    "payment_method",
    "recorded_by",
    "recorded_at",
)
# Spreadsheets take a cell that begins like this for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
BLOCK = 16 * 1024


def cells(passage: Passage) -> tuple[object, ...]:
    """Return a passage's cells, in the order of COLUMNS."""
    digits = CURRENCIES[passage.currency]
    whole, rest = divmod(passage.amount, 10**digits)
    return (
        passage.id,
        passage.plaza.code,
        passage.lane,
        passage.vehicle_class.code,
        passage.plate,
        passage.passed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        passage.local_time.strftime("%Y-%m-%dT%H:%M:%S"),
        passage.amount,
        f"{whole}.{rest:0{digits}d}" if digits else whole,
        passage.currency,
        harmless(passage.tariff_name),
        passage.payment_method,
        passage.recorded_by,
        passage.recorded_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def harmless(text: str) -> str:
    """Return a text that people chose so that no spreadsheet calculates with it."""
    return f"'{text}" if text.startswith(FORMULA) else text


def lines(passages: Iterable[Passage]) -> Iterator[str]:
    """Yield the CSV (RFC 4180) in blocks, the names of the columns first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for passage in passages:
        writer.writerow(cells(passage))
        if buffer.tell() >= BLOCK:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def csv_response(passages: Iterable[Passage], name: str = "passages.csv") -> Response:
    """Return the answer that streams the passages; they are read while it is sent."""
    response = Response(
        stream_with_context(lines(passages)), content_type="text/csv; charset=utf-8; header=present"
    )
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
