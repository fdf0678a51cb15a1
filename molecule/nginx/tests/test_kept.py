"""What nginx keeps for everybody, and a site in maintenance, on the nginx of each system."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Answer, Web

# Asks the host's own nginx at the loopback, as the checks of a deploy do.
LOCAL = """python3 - <<'END'
import http.client, socket, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPConnection("{name}")
raw = socket.create_connection(("127.0.0.1", {port}))
connection.sock = context.wrap_socket(raw, server_hostname="{name}")
connection.request("GET", "/")
print(connection.getresponse().status)
END"""


def asked(answer: Answer) -> str:
    """The request that the application has answered with this."""
    headers = {key.lower(): value for key, value in answer.json()["headers"]}
    return str(headers["x-request-id"])


@pytest.fixture
def move(as_root: Callable[[str], str]) -> Iterator[Callable[[int], None]]:
    """Has `current` lead to another release; it leads to the first at the end."""

    def to(release: int) -> None:
        as_root(
            f"ln -sfn releases/{release} /srv/echo/next && mv -T /srv/echo/next /srv/echo/current"
        )

    yield to
    to(1)


def test_what_is_public_is_kept_for_its_release(
    web: Web, name: str, as_root: Callable[[str], str], move: Callable[[int], None]
) -> None:
    """In a directory of the workers that the sandbox lets them write."""
    # Nothing of an earlier run.
    path = f"/kept/{secrets.token_hex(4)}"
    first, second = (web.ask(name, path) for _ in range(2))
    assert first.header("Cache-Status") == "nginx; fwd=miss"
    assert second.header("Cache-Status") == "nginx; hit"
    assert asked(first) == asked(second)
    personal = web.ask(name, path, headers={"Cookie": "session=1"})
    assert asked(personal) != asked(first)
    assert personal.header("Cache-Status") is None
    assert web.ask(name, "/elsewhere").header("Cache-Status") is None
    move(2)
    assert asked(web.ask(name, path)) != asked(first)
    worker = as_root("ps -o user= -p $(pgrep -f 'nginx: worker' | head -n 1)").strip()
    assert as_root("stat -c '%U %a' /var/lib/nginx/answers").split() == [worker, "700"]
    # Of this address alone: elsewhere in the log may be bytes that are no text.
    log = as_root(f"grep -a '{path}' /var/log/nginx/access.log")
    assert '"cache":"HIT"' in log


def test_several_vary_count_together(web: Web, name: str) -> None:
    """nginx up to 1.22 sees one of them; there nothing that varies is kept."""
    for _ in range(2):
        for tenant in ("a", "b"):
            headers = {"X-Tenant": tenant, "Accept-Language": "de"}
            answer = web.ask(name, "/kept/varies", headers=headers)
            assert ["X-Tenant", tenant] in answer.json()["headers"]


def test_a_site_in_maintenance(
    web: Web, name: str, variables: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    """Its clients get the page, the host itself and health checks get the site."""
    here = LOCAL.format(name=name, port=variables["nginx_https_port"])
    as_root("touch /etc/nginx/maintenance/toll.on")
    try:
        answer = web.ask(name, "/kept/a")
        assert answer.status == 503
        assert answer.header("Retry-After") == str(
            variables["nginx_maintenance_retry_after_seconds"]
        )
        assert b"<h1>Down for maintenance</h1>" in answer.body
        problem = web.ask(name, method="POST", body=b"{}", headers={"Accept": "application/json"})
        assert (problem.status, problem.json()["status"]) == (503, 503)
        assert web.ask(name, "/healthz").status == 200
        assert as_root(here).strip() == "200"
    finally:
        as_root("rm /etc/nginx/maintenance/toll.on")
    assert web.ask(name).status == 200
