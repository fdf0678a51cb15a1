"""Who may speak for a client, by the door that it came through."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import replace
from ipaddress import ip_network

import pytest
from flask import request
from servers import service

from toll import create_app
from toll.security import public

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

CLAIMS = {
    "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "toll.example",
    "X-Request-Id": "claimed",
}
BELIEVED = ["https://toll.example/who", "198.51.100.7", "claimed"]


def seen(client, **environ: object) -> list[str]:
    """What the application takes a request for that makes all these claims."""
    answer = client.get("/who", headers=CLAIMS, environ_overrides=environ)
    return [*answer.json, answer.headers["X-Request-Id"]]


@pytest.fixture
def made(settings):
    def make(**changes):
        app = create_app(replace(settings, **changes))

        @app.get("/who")
        @public
        def who() -> list[str | None]:
            return [request.url, request.remote_addr]

        return app

    return make


def test_what_comes_over_the_unix_socket_speaks_for_a_client(made, nginx):
    """Only nginx's group, and root, can open it."""
    assert seen(nginx(made(proxies=1))) == BELIEVED


@pytest.mark.parametrize("proxies", [0, 1])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.7", "", "nonsense"])
def test_what_comes_over_tcp_speaks_for_itself(made, proxies, address):
    """A port on the loopback is open to every user of the host."""
    with socket.socket() as connection:
        url, client, identifier = seen(
            made(proxies=proxies).test_client(),
            **{"REMOTE_ADDR": address, "gunicorn.socket": connection},
        )
    assert (url, client or "") == ("http://localhost/who", address)
    assert identifier != "claimed"


def test_a_proxy_of_another_host_is_named(made):
    app = made(proxies=1, proxy_networks=(ip_network("192.0.2.0/28"), ip_network("2001:db8::/64")))
    for address, believed in (
        ("192.0.2.7", True),
        ("2001:db8::1", True),
        ("192.0.2.16", False),
        ("127.0.0.1", False),
    ):
        assert (seen(app.test_client(), REMOTE_ADDR=address) == BELIEVED) is believed, address


def test_a_header_opens_no_door(made):
    """Of a WSGI environment clients choose what begins with HTTP_, and nothing else."""
    claims = {"Toll.From_Proxy": "1", "Gunicorn.Socket": "1", "Remote-Addr": "", **CLAIMS}
    answer = made(proxies=1).test_client().get("/who", headers=claims)
    assert answer.json == ["http://localhost/who", "127.0.0.1"]


def test_metrics_are_not_for_every_user_of_the_host(made, nginx):
    app = made(proxies=1)
    refused = app.test_client().get("/metrics")
    assert refused.status_code == 403
    assert "curl --unix-socket" in refused.text
    assert nginx(app).get("/metrics").status_code == 200
    # With no proxy there is one door only.
    assert made(proxies=0).test_client().get("/metrics").status_code == 200


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def answer(self, path: str, **headers: str) -> http.client.HTTPResponse:
        self.request("GET", path, headers=headers)
        response = self.getresponse()
        response.read()
        self.close()
        return response


def test_gunicorn_tells_its_doors_apart(database_url, tmp_path, tmp_path_factory):
    """What the application looks at is gunicorn's to say, so gunicorn is asked."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    options = ("--bind", f"unix:{path}", "--forwarded-allow-ips", "")
    with service(database_url, tmp_path, *options, TOLL_PROXIES="1") as served:
        claims = CLAIMS | {"Authorization": "Bearer toll_x"}
        over_tcp = served.ask(
            "/api/v1/passages", **{name.replace("-", "_"): value for name, value in claims.items()}
        )
        assert over_tcp.headers["X-Request-Id"] != "claimed"
        assert served.ask("/").status == 200
        assert served.ask("/metrics").status == 403
        over_unix = Unix(path).answer("/api/v1/passages", **claims)
        assert over_unix.getheader("X-Request-Id") == "claimed"
        assert Unix(path).answer("/metrics").status == 200
    lines = [json.loads(each) for each in served.log.read_text().splitlines() if each[:1] == "{"]
    clients = {line["request_id"]: line["client"] for line in lines if "request_id" in line}
    assert clients[over_tcp.headers["X-Request-Id"]] == "127.0.0.1"
    assert clients["claimed"] == "198.51.100.7"
