"""Settings to try are the project's service with nothing else changed."""

from __future__ import annotations

import re

import pytest
import settings
from conftest import PROJECT
from settings import Variant

SNIPPETS = PROJECT / "roles" / "nginx" / "templates" / "nginx" / "snippets"

SOCKET = """[Unit]
Description=x

[Socket]
ListenStream=127.0.0.1:5000
ListenStream=/run/gunicorn/toll-app.sock
SocketMode=0660
"""
SERVICE = """[Unit]
Requires=toll-app.socket toll-app-check.socket
After=network.target toll-app.socket toll-app-check.socket

[Service]
Sockets=toll-app.socket toll-app-check.socket
ExecStart=/opt/bin/python -m gunicorn --config /etc/toll-app/gunicorn.conf.py
RuntimeDirectory=toll-app

# Limits
NoExecPaths=/tmp /run/toll-app
ProtectSystem=strict
"""


def test_a_variant_accepts_on_a_socket_of_its_own_with_the_same_mode() -> None:
    text = settings.socket_unit(SOCKET, 3, Variant("x", 2))
    assert text.count("ListenStream=") == 1
    assert "[Socket]\nListenStream=/run/gunicorn/bench-3.sock\n" in text
    assert "SocketMode=0660" in text
    assert "127.0.0.1:9203" in settings.socket_unit(SOCKET, 3, Variant("x", 2, tcp=True))


def test_a_variant_runs_in_the_same_sandbox() -> None:
    text = settings.service_unit(SERVICE, 3, Variant("x", 2), "/srv/bench")
    assert "ProtectSystem=strict" in text
    assert "Sockets=bench-3.socket\n" in text
    assert "--config /srv/bench/bench-3.conf.py" in text
    assert "NoExecPaths=/tmp /run/bench-3" in text
    assert "toll-app" not in text


def test_a_variant_without_the_sandbox_has_all_the_rest() -> None:
    text = settings.service_unit(SERVICE, 3, Variant("x", 2, sandbox=False), "/srv/bench")
    assert "ProtectSystem" not in text
    assert "RuntimeDirectory=bench-3\n" in text
    with pytest.raises(ValueError, match="# Limits"):
        settings.service_unit("[Service]\n", 3, Variant("x", 2, sandbox=False), "/srv/bench")


@pytest.mark.parametrize("variant", settings.variants(2), ids=lambda variant: variant.title)
def test_a_variant_has_the_last_word_in_gunicorns_configuration(variant: Variant) -> None:
    given = "workers = 99\nworker_class = 'gthread'\nthreads = 9\npreload_app = True\n"
    names: dict[str, object] = {}
    exec(variant.gunicorn(given), names)
    assert names["workers"] == variant.workers
    assert names["worker_class"] == ("gthread" if variant.threads else "sync")
    if variant.keepalive:
        assert names["keepalive"]


def test_keepalive_is_for_the_variant_that_has_it() -> None:
    tried = [Variant("a", 2, 2), Variant("b", 2, 2, keepalive=True)]
    # The project's own, without a variable in it.
    snippet = SNIPPETS / "proxy-requests.conf.j2"
    files = settings.nginx(tried, "/etc/ssl/x", snippet.read_text())
    first, second = files["conf.d/bench-variants.conf"].split("upstream bench-1 ")
    assert "keepalive" not in first
    assert "keepalive 16;" in second
    assert 'proxy_set_header Connection "";\n' in files["snippets/bench-keepalive.conf"]
    included = re.findall(r"include snippets/(proxy\S*)[.]conf;", first + second)
    assert included == ["proxy", "proxy-requests", "proxy"]
    assert all((SNIPPETS / f"{name}.conf.j2").is_file() for name in included)
    with pytest.raises(ValueError, match="Connection close"):
        settings.nginx(tried, "/etc/ssl/x", "nothing of the kind")
