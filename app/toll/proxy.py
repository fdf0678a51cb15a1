"""Who may say which client a request comes from: whoever came through the right door.

nginx connects over a unix socket that only its group can open. The port on the loopback is open to
every user of the host, so what comes in there speaks for itself alone.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from toll.settings import Network, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A client cannot set it: what a header sets begins with HTTP_.
FROM_PROXY = "toll.from_proxy"


class Doors:
    """Lets X-Forwarded-* count for requests that come from a proxy, and for no others."""

    def __init__(self, app: WSGIApplication, networks: Iterable[Network]) -> None:
        self.direct = app
        self.proxied = ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_port=1)
        self.networks = tuple(networks)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer, with the client that the proxy named, or the one that connected."""
        environ[FROM_PROXY] = self.is_proxy(environ)
        return (self.proxied if environ[FROM_PROXY] else self.direct)(environ, start)

    def is_proxy(self, environ: dict[str, Any]) -> bool:
        """Return whether a request came over a unix socket, or from a proxy's address."""
        connection = environ.get("gunicorn.socket")
        if getattr(connection, "family", None) == socket.AF_UNIX:
            return True
        try:
            peer = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
        except ValueError:
            return False
        return any(peer in network for network in self.networks)


def init_app(app: Flask, settings: Settings) -> None:
    """Believe the proxy, if there is one."""
    if settings.proxies:
        doors = Doors(app.wsgi_app, settings.proxy_networks)
        app.wsgi_app = doors  # type: ignore[method-assign,assignment]


def from_proxy() -> bool:
    """Return whether this request came from a proxy, which may speak for clients."""
    return bool(request.environ.get(FROM_PROXY))


def from_neighbour() -> bool:
    """Return whether this request came past the proxy, from another user of the host."""
    return request.environ.get(FROM_PROXY) is False
