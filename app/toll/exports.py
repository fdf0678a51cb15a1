"""Passages as CSV, for the API and the pages: written as they are read, however many there are."""

from __future__ import annotations

import csv
import errno
import io
import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from flask import Response, request, stream_with_context
from sqlalchemy.exc import SQLAlchemyError

from toll.database import trouble
from toll.services.money import CURRENCIES
from toll.services.passages import EXPORT_SECONDS

logger = logging.getLogger(__name__)

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
# How long a client may take for one, and how long the pause after one is at most.
BLOCK_SECONDS = 30
MOST_REST_SECONDS = 0.1


def cells(row: sa.Row[Any], zone: ZoneInfo) -> tuple[object, ...]:
    """Return a passage's cells, in the order of COLUMNS."""
    digits = CURRENCIES[row.currency]
    whole, rest = divmod(row.amount, 10**digits)
    return (
        row.id,
        row.plaza,
        row.lane,
        row.vehicle_class,
        row.plate,
        f"{row.passed_at.replace(tzinfo=None).isoformat(timespec='seconds')}Z",
        row.passed_at.astimezone(zone).replace(tzinfo=None).isoformat(timespec="seconds"),
        row.amount,
        f"{whole}.{rest:0{digits}d}" if digits else whole,
        row.currency,
        harmless(row.tariff_name),
        row.payment_method,
        row.recorded_by,
        f"{row.recorded_at.replace(tzinfo=None).isoformat(timespec='seconds')}Z",
    )


def harmless(text: str) -> str:
    """Return a text that people chose so that no spreadsheet calculates with it."""
    return f"'{text}" if text.startswith(FORMULA) else text


def lines(rows: Generator[sa.Row[Any]]) -> Generator[str]:
    """Yield the CSV (RFC 4180) in blocks, the names of the columns first.

    It rests after each block as long as the block has taken: other requests of this process need
    the interpreter, and those of other processes the processor.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    begun = time.monotonic()
    zones: dict[str, ZoneInfo] = {}
    with closing(rows):
        for row in rows:
            zone = zones.get(row.time_zone)
            if zone is None:
                zone = zones[row.time_zone] = ZoneInfo(row.time_zone)
            writer.writerow(cells(row, zone))
            if buffer.tell() >= BLOCK:
                time.sleep(min(time.monotonic() - begun, MOST_REST_SECONDS))
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
                begun = time.monotonic()
    yield buffer.getvalue()


def sent(first: str, blocks: Iterable[str]) -> Iterator[str]:
    """Yield the first block and the others, or break the connection off.

    When a later one cannot be read, or the time is over, the status has gone out long since, and
    an answer that ends as it should would pass for the whole export.
    """
    end = time.monotonic() + EXPORT_SECONDS
    try:
        yield first
        for block in blocks:
            yield block
            if time.monotonic() > end:
                raise TimeoutError(f"its client did not take it in {EXPORT_SECONDS} s")
    except (SQLAlchemyError, TimeoutError) as error:
        found = trouble(error)
        logger.warning("an export was broken off: %s", found.words if found else error)
        # gunicorn closes the connection without the end of the answer, and without a traceback.
        raise BrokenPipeError(errno.EPIPE, "the export was broken off") from error


def csv_response(rows: Generator[sa.Row[Any]], name: str = "passages.csv") -> Response:
    """Return the answer that streams the passages; they are read while it is sent."""
    blocks = lines(rows)
    # What fails at once has a status of its own.
    first = next(blocks)
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        # For each block; nginx takes them as they come.
        connection.settimeout(BLOCK_SECONDS)
    response = Response(
        stream_with_context(sent(first, blocks)),
        content_type="text/csv; charset=utf-8; header=present",
    )
    # Also when nothing was sent, as after HEAD.
    response.call_on_close(blocks.close)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
