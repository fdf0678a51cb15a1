"""Many requests at once, in several processes that were forked from one."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

from callers import PASSAGE
from servers import service
from sqlalchemy import func, select

from toll.models import Passage
from toll.services import accounts


def test_one_passage_however_many_duplicates_arrive_at_once(database_url, session, tmp_path):
    """In real processes, as a lane that got no answer sends them."""
    key = accounts.create_key(session, "lane-7", "recorder")[1]
    with service(database_url, tmp_path, "--workers", "4") as served:

        def record(idempotency_key):
            return served.ask(
                "/api/v1/passages",
                PASSAGE,
                Authorization=f"Bearer {key}",
                Idempotency_Key=idempotency_key,
            )

        keys = [str(uuid.uuid4()) for _ in range(8)]
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(record, keys * 12))
        assert {answer.status for answer in answers} == {201}
        for position, idempotency_key in enumerate(keys):
            same = answers[position :: len(keys)]
            assert len({answer.body for answer in same}) == 1, idempotency_key
            fresh = [each for each in same if "Idempotency-Replayed" not in each.headers]
            assert len(fresh) == 1, idempotency_key
    assert session.scalar(select(func.count(Passage.id))) == len(keys)


def test_one_of_two_bodies_with_one_key(database_url, session, tmp_path):
    """The other one is refused, and not recorded under a key that it does not have."""
    key = accounts.create_key(session, "lane-7", "recorder")[1]
    with service(database_url, tmp_path, "--workers", "4") as served:

        def record(lane):
            return served.ask(
                "/api/v1/passages",
                PASSAGE | {"lane": lane},
                Authorization=f"Bearer {key}",
                Idempotency_Key="same",
            )

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(record, ["1", "2"] * 12))
        assert {answer.status for answer in answers} == {201, 409}
        assert len({answer.json["lane"] for answer in answers if answer.status == 201}) == 1
    assert session.scalar(select(func.count(Passage.id))) == 1
