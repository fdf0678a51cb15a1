"""Settings that could be the project's defaults, each as a service of its own beside the project's.

Started one after the other, each would meet another machine: its speed drifts by a third within a
minute. Side by side they take turns within seconds, and who has nothing to do costs nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FIRST_PORT = 9100
FREEZE = "import gc\n\n\ndef pre_fork(server, worker):\n    gc.freeze()\n"
# nginx keeps connections for less time than a worker of gunicorn that stops waits for them (2 s).
KEEPALIVE = "    keepalive 16;\n    keepalive_timeout 1s;\n"


@dataclass(frozen=True)
class Variant:
    """A setting to try.

    Attributes:
        title: what it is called in the table.
        workers: of gunicorn.
        threads: of each worker with gthread; 0 for sync.
        lines: more of gunicorn's configuration.
        keepalive: whether nginx keeps connections to gunicorn.
        tcp: whether nginx comes over the loopback, not over a unix socket.
        site: lines of nginx's configuration for its site.
        sandbox: whether systemd confines it as it confines the project's service.
    """

    title: str
    workers: int
    threads: int = 0
    lines: str = ""
    keepalive: bool = False
    tcp: bool = False
    site: str = ""
    sandbox: bool = True

    def gunicorn(self, provisioned: str) -> str:
        """gunicorn's configuration: that of the project, with these settings last."""
        lines = [f"workers = {self.workers}"]
        if self.threads:
            most = 64 if self.keepalive else self.threads
            lines += ["worker_class = 'gthread'", f"threads = {self.threads}"]
            lines += [f"worker_connections = {most}", f"keepalive = {75 if self.keepalive else 0}"]
        else:
            lines.append("worker_class = 'sync'")
        return "\n".join([provisioned, *lines, self.lines, ""])


def variants(cpus: int) -> list[Variant]:
    """What is tried on a host with so many processors. The first is what the others are held to."""
    many = cpus * 2 + 1
    return [
        Variant(f"gthread, {many} workers, 2 threads", many, 2),
        # How far a setting is from itself: what differs by less is not known to differ.
        Variant(f"gthread, {many} workers, 2 threads, the same again", many, 2),
        Variant(f"gthread, {many} workers, 1 thread", many, 1),
        Variant(f"gthread, {many} workers, 4 threads", many, 4),
        Variant(f"gthread, {cpus} workers, 2 threads", cpus, 2),
        Variant(f"gthread, {cpus} workers, 4 threads", cpus, 4),
        Variant(f"gthread, {cpus} workers, 5 threads", cpus, 5),
        Variant(f"gthread, {cpus + 1} workers, 3 threads", cpus + 1, 3),
        Variant(f"gthread, {cpus} workers, 5 threads, keepalive", cpus, 5, keepalive=True),
        Variant(f"gthread, {cpus} workers, 5 threads, gc.freeze", cpus, 5, lines=FREEZE),
        Variant(
            f"gthread, {cpus} workers, 5 threads, no preload", cpus, 5, lines="preload_app = False"
        ),
        Variant(f"gthread, {cpus} workers, 5 threads, TCP", cpus, 5, tcp=True),
        Variant(f"sync, {cpus} workers", cpus),
        Variant(f"sync, {cpus + 1} workers", cpus + 1),
        Variant(f"sync, {many} workers", many),
        Variant(
            f"gthread, {many} workers, 2 threads; nginx writes no log",
            many,
            2,
            site="access_log off;",
        ),
        Variant(
            f"gthread, {many} workers, 2 threads; nginx buffers no answers",
            *(many, 2),
            site="proxy_buffering off;",
        ),
        Variant(f"gthread, {many} workers, 2 threads, no sandbox", many, 2, sandbox=False),
        Variant(f"sync, {cpus + 1} workers, no sandbox", cpus + 1, sandbox=False),
    ]


def name(number: int) -> str:
    """The name of a variant's units."""
    return f"bench-{number}"


def address(number: int, variant: Variant) -> str:
    """Where a variant accepts connections."""
    if variant.tcp:
        return f"127.0.0.1:{FIRST_PORT + 100 + number}"
    return f"/run/gunicorn/{name(number)}.sock"


def socket_unit(provisioned: str, number: int, variant: Variant) -> str:
    """A variant's socket unit, made from the project's: its limits and modes, another address."""
    kept = [line for line in provisioned.splitlines() if not line.startswith("ListenStream=")]
    place = kept.index("[Socket]") + 1
    kept.insert(place, f"ListenStream={address(number, variant)}")
    return "\n".join(kept) + "\n"


def service_unit(provisioned: str, number: int, variant: Variant, folder: str) -> str:
    """A variant's service unit, made from the project's: its sandbox, another configuration.

    Raises:
        ValueError: the unit no longer says where what confines it begins.
    """
    own = name(number)
    if not variant.sandbox:
        # From there on the unit limits and confines.
        provisioned, begins, _ = provisioned.partition("# Limits\n")
        if not begins:
            raise ValueError("the service's unit has no '# Limits'")
    text = re.sub(r"^(Requires|Sockets)=.*$", rf"\1={own}.socket", provisioned, flags=re.M)
    text = re.sub(r"^After=.*$", f"After=network.target {own}.socket", text, flags=re.M)
    text = re.sub(r"--config \S+", f"--config {folder}/{own}.conf.py", text)
    text = re.sub(r"^RuntimeDirectory=.*$", f"RuntimeDirectory={own}", text, flags=re.M)
    text = re.sub(r"^SyslogIdentifier=.*$", f"SyslogIdentifier={own}", text, flags=re.M)
    return text.replace("/run/toll-app", f"/run/{own}")


def nginx(tried: list[Variant], certificate: str, requests_snippet: str) -> dict[str, str]:
    """nginx's configuration for all of them: a port for each.

    Args:
        tried: the variants.
        certificate: folder of the site's certificate.
        requests_snippet: content of the project's snippets/proxy-requests.conf.

    Returns:
        Content by path below /etc/nginx.

    Raises:
        ValueError: the snippet no longer says what keepalive has to change.
    """
    closing = "proxy_set_header Connection close;"
    if closing not in requests_snippet:
        raise ValueError(f"snippets/proxy-requests.conf has no {closing!r}")
    blocks = []
    for number, variant in enumerate(tried):
        where = address(number, variant)
        blocks.append(f"""
upstream {name(number)} {{
    server {where if variant.tcp else f"unix:{where}"};
{KEEPALIVE if variant.keepalive else ""}}}

server {{
    listen {FIRST_PORT + number} ssl;
    server_name _;
    ssl_certificate {certificate}/fullchain.pem;
    ssl_certificate_key {certificate}/privkey.pem;
    {variant.site}

    location / {{
        proxy_pass http://{name(number)};
        include snippets/proxy.conf;
        include snippets/{"bench-keepalive" if variant.keepalive else "proxy-requests"}.conf;
    }}
}}
""")
    return {
        "conf.d/bench-variants.conf": "".join(blocks),
        "snippets/bench-keepalive.conf": requests_snippet.replace(
            closing, 'proxy_set_header Connection "";'
        ),
    }
