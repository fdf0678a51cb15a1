"""What nginx's tests share: a client from outside that says exactly what it wants to say."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

SCENARIO = Path(__file__).parents[1]
PROJECT = SCENARIO.parents[1]
TIMEOUT = 20


@dataclass
class Answer:
    """A response, with the names of its headers in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The header's value, None where it is missing. Fails where there are several."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Web:
    """One host's nginx, asked at the host's address under any name."""

    address: str
    http_port: int
    https_port: int

    def connect(self, *, tls: bool) -> socket.socket:
        port = self.https_port if tls else self.http_port
        return socket.create_connection((self.address, port), TIMEOUT)

    def handshake(self, name: str | None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A TLS connection. Raises OSError (ssl.SSLError is one) where it is refused."""
        raw = self.connect(tls=True)
        try:
            return (context or anybody()).wrap_socket(raw, server_hostname=name)
        except OSError:
            raw.close()
            raise

    def ask(
        self,
        name: str,
        path: str = "/",
        *,
        tls: bool = True,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        greeting: str | None = None,
    ) -> Answer:
        """One request on a connection of its own; `greeting` is a name in TLS unlike that in Host.

        Raises OSError or http.client.HTTPException where there is no answer.
        """
        connection = http.client.HTTPConnection(name, timeout=TIMEOUT)
        connection.sock = self.handshake(greeting or name) if tls else self.connect(tls=False)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            pairs = [(key.lower(), value) for key, value in response.getheaders()]
            return Answer(response.status, pairs, response.read())
        finally:
            connection.close()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.2)


def answers(web: Web, name: str) -> bool:
    try:
        return web.ask(name).status == 200
    except OSError:
        return False


def anybody() -> ssl.SSLContext:
    """A client that looks at no certificate: these are about what nginx does with a connection.

    It has no authorities either: reading those of the system takes longer than the connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
def variables(host: Host) -> dict[str, Any]:
    """The role's variables on this host: its defaults, and over them the inventory's."""
    defaults = yaml.safe_load((PROJECT / "roles/nginx/defaults/main.yml").read_text())
    found = {**defaults, **host.ansible.get_variables()}
    for kind in ("http", "https"):
        if isinstance(found[f"nginx_public_{kind}_port"], str):  # defaults to the port itself
            found[f"nginx_public_{kind}_port"] = found[f"nginx_{kind}_port"]
    return found


@pytest.fixture
def changed(variables: dict[str, Any]) -> bool:
    """Whether it is the variant with everything changed."""
    return "changed" in variables["group_names"]


@pytest.fixture
def site(variables: dict[str, Any]) -> dict[str, Any]:
    """The site with a certificate, an upstream and static files."""
    return dict(variables["nginx_sites"][0])


@pytest.fixture
def name(site: dict[str, Any]) -> str:
    return str(site["domains"][0])


@pytest.fixture
def web(variables: dict[str, Any]) -> Web:
    return Web(
        variables["ansible_host"], variables["nginx_http_port"], variables["nginx_https_port"]
    )


@pytest.fixture
def play(control: Any, host: Host, changed: bool) -> Callable[..., Any]:
    """Runs converge.yml on this host once more, with other variables."""
    if not changed:
        pytest.skip("tried with the other variant")
    name = host.backend.host
    return lambda **variables: control.run_playbook(variables=variables, limit=name)
