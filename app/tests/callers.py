"""Programs that call the API."""

from __future__ import annotations

import uuid
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

PASSAGE = {
    "plaza": "harbour-bridge",
    "lane": "3",
    "class": "car",
    "plate": "ab-12-cd",
    "passed_at": "2026-05-04T07:15:00Z",
    "payment_method": "tag",
}


class Caller:
    """A program that calls the API with a key."""

    def __init__(self, client: FlaskClient, key: str) -> None:
        self.client = client
        self.key = key

    @property
    def headers(self) -> dict[str, str]:
        """What says who calls."""
        return {"Authorization": f"Bearer {self.key}"}

    def get(self, path: str, **query: Any) -> TestResponse:
        """Read."""
        return self.client.get(f"/api/v1{path}", headers=self.headers, query_string=query or None)

    def record(self, body: Any = PASSAGE, key: str | None = None, path: str = "") -> TestResponse:
        """Record, with an idempotency key of its own unless one is given."""
        headers = self.headers | {"Idempotency-Key": key or str(uuid.uuid4())}
        return self.client.post(f"/api/v1/passages{path}", headers=headers, json=body)

    def record_batch(self, bodies: list[Any], key: str | None = None) -> TestResponse:
        """Record several."""
        return self.record({"passages": bodies}, key, "/batch")


def fields(response: TestResponse) -> dict[str, dict[str, str | None]]:
    """Return a problem's errors by field, once the problem was seen to be whole."""
    assert response.mimetype == "application/problem+json"
    document = response.json
    assert document["status"] == response.status_code
    assert document["title"]
    assert document["request_id"] == response.headers["X-Request-Id"]
    for error in document["errors"]:
        assert error["problem"]
        assert error["remedy"]
    return {error["field"]: error for error in document["errors"]}
