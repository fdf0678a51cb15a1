"""What the tests of the whole stack share: a client that comes from outside, over HTTPS."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from testinfra.host import Host

# What changes the hosts for those who come later (molecule/conftest.py); the last leaves nothing.
STAGES = ("previewed", "replaced", "removed")


@dataclass
class Answer:
    """What came back: the certificate is that of the connection, already verified."""

    status: int
    headers: dict[str, str]
    body: str
    certificate: dict[str, Any] = field(repr=False, default_factory=dict)
    protocol: str = ""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    """The site on one host, asked at the host's address by the site's name."""

    address: str
    name: str
    authority: str

    def get(
        self, path: str, *, tls: bool = True, name: str | None = None, **headers: str
    ) -> Answer:
        """One request on a connection of its own. Raises OSError where there is no answer."""
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.send("GET", path, None, sent, tls=tls, name=name)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        tls: bool = True,
        name: str | None = None,
    ) -> Answer:
        """The same with a body: a dictionary goes as JSON, text as the fields of a form."""
        sent = dict(headers or {})
        if isinstance(body, str):
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            sent["Content-Type"], body = "application/json", json.dumps(body)
        name = name or self.name
        connection = http.client.HTTPConnection(name, timeout=20)
        raw = socket.create_connection((self.address, 443 if tls else 80), 20)
        certificate: dict[str, Any] = {}
        protocol = ""
        if tls:
            context = ssl.create_default_context(cafile=self.authority)
            secure = context.wrap_socket(raw, server_hostname=name)
            certificate = dict(secure.getpeercert() or {})
            protocol = secure.version() or ""
            connection.sock = secure
        else:
            connection.sock = raw
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            received = {key.lower(): value for key, value in response.getheaders()}
            body = response.read().decode()
        finally:
            connection.close()
        return Answer(response.status, received, body, certificate, protocol)

    def wait_until_ready(self, seconds: float = 60) -> Answer:
        """The first good answer of /readyz. Raises with the last one after so many seconds."""
        end = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < end:
            try:
                answer = self.get("/readyz")
            except OSError as error:
                last = error
            else:
                if answer.status == 200:
                    return answer
                last = answer
            time.sleep(0.2)
        raise AssertionError(f"not ready after {seconds} s; the last answer: {last}")


@pytest.fixture
def variables(host: Host) -> dict[str, Any]:
    """The host's inventory variables."""
    return dict(host.ansible.get_variables())


@pytest.fixture
def toll(variables: dict[str, Any]) -> dict[str, Any]:
    """What the inventory says of the application on this host."""
    return dict(variables["toll"])


@pytest.fixture
def database_url(toll: dict[str, Any]) -> str:
    """Its database on a server; empty for a file."""
    return str(toll.get("data", {}).get("database_url", ""))


@pytest.fixture
def site(toll: dict[str, Any], address: str, acme: Any) -> Site:
    """The application as a client sees it that trusts only the ACME server's root."""
    return Site(address, toll["domains"][0], str(acme.root))


@dataclass
class Api:
    """The API as a toll lane uses it: with a key that may record."""

    site: Site
    key: str

    def record(self, plate: str, idempotency_key: str, lane: str = "3") -> Answer:
        """One passage, a minute ago."""
        passage = {
            "plaza": "harbour-bridge",
            "lane": lane,
            "class": "car",
            "plate": plate,
            "passed_at": self.moment,
            "payment_method": "tag",
        }
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": idempotency_key}
        return self.site.send("POST", "/api/v1/passages", passage, headers)

    def find(self, plate: str) -> list[dict[str, Any]]:
        """All passages of a plate."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = self.site.send("GET", f"/api/v1/passages?plate={plate}", None, headers)
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json()["passages"]
        return found

    # The same in each request, so that one that is repeated is the same.
    moment: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"), repr=False
    )


@pytest.fixture(scope="module")
def recorder(host: Host) -> str:
    """Plazas and tariffs are there, and a key was made on the host: it is what was printed."""
    seeded = host.run("toll-app flask toll demo seed --passages 1")
    assert seeded.rc == 0, seeded.stderr
    name = f"lane-{secrets.token_hex(4)}"
    made = host.run(f"toll-app flask toll key create {name} --role recorder")
    assert made.rc == 0, made.stderr
    return str(made.stdout).strip()


@pytest.fixture
def api(site: Site, recorder: str) -> Api:
    """The API with that key."""
    return Api(site, recorder)
