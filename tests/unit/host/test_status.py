"""The verb `status`: what people and the fleet's report read about one host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import fleet
from apphost import readiness, status

from .conftest import Host, Programs, describe, serving

GOOD = {"ok": True, "status": 200, "release": "d", "milliseconds": 3}


@pytest.fixture
def serve(host: Host) -> Iterator[Callable[..., list[str]]]:
    """Has the service answer."""
    with ExitStack() as stack:

        def start(code: int = 200, body: str = '{"release": "d"}') -> list[str]:
            return stack.enter_context(serving(host.application.socket, code, body))

        yield start


@pytest.fixture
def active(programs: Programs) -> None:
    """systemd says that the service runs."""
    (programs.folder / "properties").write_text("ActiveState=active\nNRestarts=2\n")


def test_status_without_a_service(host: Host, capsys: Any, programs: Programs) -> None:
    """The moment in which somebody asks is often the one in which nothing runs."""
    (programs.folder / "properties").write_text("ActiveState=failed\nMainPID=0\n")
    code, answer = host.run(capsys, "status", "--certificate", "/nonexistent")
    assert code == 0
    assert answer["service"] == "failed"
    assert answer["health"]["ok"] is False
    assert answer["certificate_days"] is None
    assert host.call("status") == 0
    output = capsys.readouterr().out
    assert output.startswith("shop is down.\n")
    assert "failed, 0 workers" in output
    [drift] = answer["drift"]
    assert drift.startswith("shop.service is failed. Run site.yml, or on the host: sudo systemctl")


@pytest.mark.usefixtures("active")
def test_status_of_a_healthy_application(host: Host, capsys: Any, serve: Any) -> None:
    """It is what the name of the application alone shows, and begins with the answer."""
    asked = serve()
    assert host.call() == 0
    output = capsys.readouterr().out
    assert output.startswith("shop is up.\n\nrelease  d (1234567890)\n")
    assert "200 in" in output
    assert "drift" not in output
    assert asked == ["/readyz"]
    _, answer = host.run(capsys, "status")
    assert (answer["drift"], answer["restarts"], answer["live"]) == ([], 2, "d")
    # What reads it over a fleet.
    assert "The release is healthy." in fleet.report("shop", {"here": answer}, {})


@pytest.mark.parametrize(
    ("health", "code", "body", "drift"),
    [
        ({"path": "/up", "status": 204}, 204, "", []),
        ({"path": "/up"}, 200, "not JSON", []),
        ({"path": "/up"}, 200, '{"release": "a"}', []),
        ({"path": "/up", "release_member": "version"}, 200, '{"version": "d"}', []),
        (
            {"path": "/up", "release_member": "version"},
            200,
            '{"version": "a"}',
            ["a answers in place of d"],
        ),
        ({"path": "/up"}, 503, "{}", ["/up is not good: it answered 503. See `sudo shop logs`"]),
    ],
)
@pytest.mark.usefixtures("active")
def test_description_says_what_a_good_answer_is(
    host: Host,
    capsys: Any,
    serve: Any,
    health: dict[str, Any],
    code: int,
    body: str,
    drift: list[str],
) -> None:
    describe(host.application, health=health)
    asked = serve(code, body)
    assert host.run(capsys, "status")[1]["drift"] == drift
    assert asked == ["/up"]


REFUSED = {"ok": False, "error": "127.0.0.1:443: Connection refused"}
SITE = {"domain": "shop.example", "port": 8443}


@pytest.mark.parametrize(
    ("described", "words", "asked"),
    [
        ({}, [], []),
        ({}, ["--site", "a.example"], [("127.0.0.1:443", "a.example")]),
        (SITE, [], [("127.0.0.1:8443", "shop.example")]),
        (SITE, ["--site", "a.example", "--port", "444"], [("127.0.0.1:444", "a.example")]),
        (SITE, ["--site="], []),
    ],
)
@pytest.mark.usefixtures("active")
def test_status_asks_through_nginx_too(
    host: Host,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    described: dict[str, Any],
    words: list[str],
    asked: list[Any],
) -> None:
    """The service alone is no site: with nginx stopped, all was reported to be well."""
    describe(host.application, site=described)
    calls = []
    through: dict[str, Any] = {"ok": True, "status": 200}

    def ask(_application: Any, *arguments: str) -> Any:
        calls.append(arguments)
        return through if arguments else GOOD

    monkeypatch.setattr(readiness, "ask", ask)
    _, answer = host.run(capsys, "status", *words)
    assert answer["drift"] == []
    assert answer["site"] == (through if asked else None)
    assert calls == [(), *asked]
    through.clear()
    through.update(REFUSED)
    _, answer = host.run(capsys, "status", *words)
    assert answer["drift"] == [
        f"{name} does not answer through nginx, though the service is well: 127.0.0.1:443: "
        f"Connection refused. Run site.yml, or on the host: sudo systemctl start nginx"
        for _, name in asked
    ]
    if asked:
        host.call("status", *words)
        assert capsys.readouterr().out.startswith("shop runs, but its site does not answer.\n")


@pytest.mark.usefixtures("active")
def test_status_names_what_is_not_as_it_should_be(host: Host, capsys: Any, serve: Any) -> None:
    serve()
    host.go_live("e")
    (host.application.state / "handover.json").write_text('{"release": "e"}')
    (host.application.state / "deploy.json").write_text('{"owner": "anna@desk", "since": "now"}')
    _, answer = host.run(capsys, "status")
    assert answer["drift"] == [
        "the live release was judged bad",
        "d answers in place of e",
        "a handover to e is under way, or was interrupted",
    ]
    assert answer["lock"]["owner"] == "anna@desk"
    host.call("status")
    output = capsys.readouterr().out
    assert output.startswith("shop is up, and 3 things need attention.\n")
    assert "\nlock     anna@desk since now: None\n" in output


@pytest.mark.usefixtures("active")
def test_status_tells_that_what_serves_cannot_start_again(
    host: Host, capsys: Any, serve: Any
) -> None:
    """The process goes on, and may answer well, while what it imports now fails."""
    serve()
    assert host.run(capsys, "status")[1]["drift"] == []
    host.lose_interpreter("d")
    [drift] = host.run(capsys, "status")[1]["drift"]
    assert drift.startswith("the live release cannot start again: its interpreter")
    assert "Run site.yml" in drift


def test_memory_and_processes_of_a_real_family() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        family = status.processes(os.getpid())
        assert {os.getpid(), child.pid} <= set(family)
        assert (status.memory_bytes("[not set]", family) or 0) > 1 << 20
        assert status.memory_bytes("4096", family) == 4096
        child.kill()


def test_days_of_a_certificate(tmp_path: Path, host: Host, capsys: Any, programs: Programs) -> None:
    path = tmp_path / "c.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "30", "-subj", "/CN=x", "-keyout", "/dev/null", "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    describe(host.application, site={"certificate": str(path)})
    days = host.run(capsys, "status")[1]["certificate_days"]
    assert 29 < days <= 30
    host.call("status")
    assert f"certificate  {days:g} days left" in capsys.readouterr().out


def test_without_a_description_it_names_the_remedy(host: Host, capsys: Any) -> None:
    (host.application.etc / "application.json").unlink()
    code, answer = host.run(capsys, "status")
    assert code == 2
    assert answer["msg"].endswith("application.json: run the playbook that sets shop up.")
    assert json.dumps(answer)
