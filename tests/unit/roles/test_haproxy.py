"""The haproxy role's configuration, rendered for every family and read by HAProxy itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .balancing import Program, certified, find_program, lay_out
from .preflight import Case, preflight
from .render import FAMILIES, evaluate, render

DROP_IN = "systemd/haproxy.service.d/10-role.conf.j2"
SHOP: dict[str, Any] = {
    "name": "shop",
    "domains": ["shop.example.org", "*.shop.example.org"],
    "health_path": "/readyz",
    "servers": [
        {"name": "web1", "address": "192.0.2.11"},
        {"name": "web2", "address": "2001:db8::12", "weight": 50},
        {"name": "web3", "address": "192.0.2.13", "backup": True},
    ],
}
BLOG: dict[str, Any] = {
    "name": "blog",
    "domains": ["*.example.net", "Blog.Example.org"],
    "health_status": 204,
    "servers": [{"name": "web1", "address": "192.0.2.11"}],
}

# Every branch of the templates is taken by one of these.
VARIANTS: dict[str, dict[str, Any]] = {
    "no-sites": {},
    "defaults": {"haproxy_sites": [SHOP]},
    "many-sites": {"haproxy_sites": [SHOP, BLOG]},
    "everything-changed": {
        "haproxy_sites": [BLOG, SHOP],
        "haproxy_http_port": 8080,
        "haproxy_https_port": 8443,
        "haproxy_ipv6": False,
        "haproxy_server_http_port": 81,
        "haproxy_server_https_port": 444,
        "haproxy_proxy_protocol": False,
        "haproxy_verify": False,
        "haproxy_check_interval_seconds": 10,
        "haproxy_check_timeout_seconds": 1,
        "haproxy_check_fall": 1,
        "haproxy_check_rise": 1,
        "haproxy_slow_start_seconds": 30,
        "haproxy_name_timeout_seconds": 1,
        "haproxy_connect_timeout_seconds": 1,
        "haproxy_idle_timeout_seconds": 60,
        "haproxy_server_dead_seconds": 3,
        "haproxy_client_dead_seconds": 3,
        "haproxy_drain_timeout_seconds": 60,
        "haproxy_stop_timeout_seconds": 1,
        "haproxy_max_connections": 500,
        "haproxy_max_connections_per_address": 50,
        "haproxy_metrics_address": "[::1]:9101",
    },
    "no-metrics": {"haproxy_sites": [SHOP], "haproxy_metrics_address": ""},
}


@pytest.fixture(scope="session")
def haproxy_program() -> Program:
    return find_program()


@pytest.fixture(scope="session")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(certified(tmp_path_factory.mktemp("authority"), "shop.example.org")[0])


def changes(folder: Path, ca_file: str) -> dict[str, str]:
    """What differs between a host and this machine."""
    return {
        "/run/haproxy": str(folder),
        "/etc/ssl/certs/ca-certificates.crt": ca_file,
        "/etc/pki/tls/certs/ca-bundle.crt": ca_file,
    }


def text_of(tmp_path: Path, **variables: Any) -> str:
    return lay_out(tmp_path, {}, **variables).read_text()


def configuration(folder: Path, family: str) -> dict[str, str]:
    """Text of every file that the role writes."""
    lay_out(folder, {}, family, **VARIANTS["defaults"])
    written = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    return written | {DROP_IN: render("haproxy", DROP_IN, family)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_haproxy_accepts_the_configuration(
    variant: str, family: str, tmp_path: Path, haproxy_program: Program, ca_file: str
) -> None:
    """Nothing but HAProxy knows whether directives fit together; a warning is a mistake too."""
    path = lay_out(tmp_path, changes(tmp_path, ca_file), family, **VARIANTS[variant])
    code, said = haproxy_program.check(path)
    assert code == 0, said
    assert "[WARNING]" not in said


def test_the_check_of_haproxy_can_fail(tmp_path: Path, haproxy_program: Program) -> None:
    """A map, too, is read from beside the file that is checked and not from the live place."""
    path = lay_out(tmp_path, {"/run/haproxy": str(tmp_path)}, haproxy_verify=False)
    assert haproxy_program.check(path)[0] == 0
    (tmp_path / "names.map").unlink()
    code, said = haproxy_program.check(path)
    assert code != 0
    assert "names.map" in said


@pytest.mark.parametrize("family", FAMILIES)
def test_rendering_twice_gives_the_same(family: str, tmp_path: Path) -> None:
    """A text that differs by itself reloads HAProxy with every run."""
    variant = VARIANTS["everything-changed"]
    first = lay_out(tmp_path, {}, family, **variant).read_text()
    assert lay_out(tmp_path, {}, family, **variant).read_text() == first


@pytest.mark.parametrize("family", FAMILIES)
def test_systemd_accepts_the_drop_in(family: str, tmp_path: Path) -> None:
    """systemd ignores a directive that it cannot read, and starts the service without it."""
    unit = tmp_path / "haproxy.service"
    unit.write_text("[Service]\nType=notify\nExecStart=/bin/true\n")
    drop_in = tmp_path / "haproxy.service.d/10-role.conf"
    drop_in.parent.mkdir()
    text = render("haproxy", DROP_IN, family)
    for program in ("/usr/local/libexec/haproxy-workers", "/usr/sbin/haproxy"):
        text = text.replace(program, "/bin/true")
    drop_in.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True
    )
    assert str(tmp_path) not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def workers(folder: Path, verb: str, master: int) -> subprocess.CompletedProcess[str]:
    """What the unit's script does for a master, on this machine."""
    script = folder / "haproxy-workers"
    text = render(
        "haproxy", "libexec/haproxy-workers.j2", "Debian", __haproxy_start_timeout_seconds=1
    )
    script.write_text(text.replace("/usr/sbin/haproxy -c -q -f", "true"))
    return subprocess.run(
        ["sh", script, verb, str(master)], check=False, capture_output=True, text=True
    )


def test_a_master_without_a_worker_is_no_start(tmp_path: Path) -> None:
    """It was in force once: the worker died in its sandbox, and the run was green."""
    with subprocess.Popen(["sleep", "60"]) as childless:
        done = workers(tmp_path, "start", childless.pid)
        childless.kill()
    assert done.returncode == 1
    assert "No worker runs with the configuration that is on disk" in done.stderr


def test_a_worker_from_before_is_no_reload(tmp_path: Path) -> None:
    """The master keeps it where it cannot take the new configuration."""
    master = "trap : USR2; sleep 60 & while :; do wait; done"
    with subprocess.Popen(["sh", "-c", master], start_new_session=True) as parent:
        started = workers(tmp_path, "start", parent.pid)
        reloaded = workers(tmp_path, "reload", parent.pid)
        os.killpg(parent.pid, signal.SIGKILL)
    assert started.returncode == 0, started.stderr
    assert reloaded.returncode == 1


def test_a_site_is_known_by_its_names_in_lower_case(tmp_path: Path) -> None:
    """Names are compared as they are written, and clients' are lowered before."""
    text_of(
        tmp_path,
        haproxy_sites=[
            SHOP,
            BLOG,
            {**BLOG, "name": "x", "domains": ["*.z.shop.example.org", "x.example.org"]},
        ],
    )
    lines = {
        name: [
            line for line in (tmp_path / name).read_text().splitlines() if line[:1] not in ("#", "")
        ]
        for name in ("names.map", "wildcards.map")
    }
    assert lines["names.map"] == [
        "shop.example.org shop",
        "blog.example.org blog",
        "x.example.org x",
    ]
    assert lines["wildcards.map"][0] == ".z.shop.example.org x"
    assert set(lines["wildcards.map"][1:]) == {".shop.example.org shop", ".example.net blog"}


def test_a_host_without_ipv6_gets_no_listener_for_it(tmp_path: Path) -> None:
    assert "bind [::]:443" in text_of(tmp_path)
    assert "[::]" not in text_of(tmp_path, wsgi_host={"ipv6": False})


@pytest.mark.parametrize(
    ("memory_mib", "expected"), [(256, 3276), (2048, 26214), (10, 1000), (1_000_000, 200_000)]
)
def test_connections_follow_from_the_memory(memory_mib: int, expected: int) -> None:
    host = {"memory_mib": memory_mib}
    assert (
        evaluate("haproxy", "__haproxy_max_connections | int", "Debian", wsgi_host=host) == expected
    )
    given = {"haproxy_max_connections": 77, "wsgi_host": host}
    assert evaluate("haproxy", "__haproxy_max_connections | int", "Debian", **given) == 77


def test_connections_of_a_host_that_is_down_are_not_cut(tmp_path: Path) -> None:
    text = text_of(tmp_path, **VARIANTS["everything-changed"])
    assert "shutdown-sessions" not in text
    # A request is no business of the balancer's, so that none is repeated.
    assert re.findall(r"(?m)^ +mode (\w+)$", text) == ["tcp", "http"]
    assert "retry-on" not in text


def test_a_host_that_vanishes_is_given_up_while_data_are_under_way(tmp_path: Path) -> None:
    """Tried with HAProxy 2.6 and 3.0: `default-server tcp-ut` is read, and has no effect."""
    text = text_of(tmp_path, **VARIANTS["many-sites"])
    servers = re.findall(r"(?m)^ +server .*$", text)
    assert len(servers) == 4 * (len(SHOP["servers"]) + len(BLOG["servers"]))
    assert all(" tcp-ut 10s send-proxy-v2" in line for line in servers)
    assert not re.search(r"default-server.* tcp-ut", text)


# What preflight finds, by guard: variables, and a part of the message.
WEB1 = {"name": "web1", "address": "192.0.2.11"}
GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt-variable": (
        {"haproxy_htpp_port": 81},
        "haproxy_htpp_port is not a variable of role haproxy; did you mean haproxy_http_port?",
    ),
    "equal-ports": (
        {"haproxy_http_port": 443},
        "haproxy_https_port (443) is also haproxy_http_port: give HTTP and HTTPS different ports",
    ),
    "metrics-for-clients": (
        {"haproxy_metrics_address": "127.0.0.1:443"},
        'haproxy_metrics_address ("127.0.0.1:443") is a port that clients connect to: give '
        "Prometheus",
    ),
    "metrics-at-a-socket": (
        {"haproxy_metrics_address": "unix:/run/x.sock"},
        'haproxy_metrics_address ("unix:/run/x.sock") is not an address that Prometheus can scrape',
    ),
    "no-servers": (
        {"haproxy_sites": [{**SHOP, "servers": []}]},
        "haproxy_sites has sites without servers: shop: list the hosts that serve them, or remove",
    ),
    "servers-left-out": (
        {"haproxy_sites": [{"name": "shop", "domains": ["a.example.org"]}]},
        "haproxy_sites[0].servers",
    ),
    "two-sites-of-one-name": (
        {"haproxy_sites": [SHOP, {**BLOG, "name": "Shop"}]},
        "haproxy_sites has two sites with the same name, among shop, shop: give each site a name "
        "of its own",
    ),
    "repeated-domain": (
        {"haproxy_sites": [SHOP, {**BLOG, "domains": ["SHOP.example.org"]}]},
        "haproxy_sites lists a domain twice: shop.example.org: list each domain in one site only",
    ),
    "wildcards-alone": (
        {"haproxy_sites": [{**SHOP, "domains": ["*.example.org"]}]},
        "haproxy_sites has sites without a domain that the health check can use: shop: list",
    ),
    "no-domains": (
        {"haproxy_sites": [{**SHOP, "domains": []}]},
        "haproxy_sites has sites without a domain that the health check can use: shop: list",
    ),
    "server-twice": (
        {"haproxy_sites": [{**SHOP, "servers": [WEB1, {**WEB1, "address": "192.0.2.12"}]}]},
        "haproxy_sites has servers with the same name in a site: web1 in shop: list each host once",
    ),
    "address-twice": (
        {"haproxy_sites": [{**SHOP, "servers": [WEB1, {**WEB1, "name": "web2"}]}]},
        "haproxy_sites has servers with the same address in a site: 192.0.2.11 in shop: list each "
        "host",
    ),
    "address-that-is-a-name": (
        {"haproxy_sites": [{**SHOP, "servers": [{**WEB1, "address": "web1.example.org"}]}]},
        'haproxy_sites[0].servers[0].address is "web1.example.org", which is not an IP address:',
    ),
    "odd-health-path": (
        {"haproxy_sites": [{**SHOP, "health_path": "/ready#z"}]},
        "haproxy_sites has a health_path with a character that is special in",
    ),
    "not-a-domain": (
        {"haproxy_sites": [{**SHOP, "domains": ["https://a.example.org"]}]},
        'haproxy_sites[0].domains[0] is "https://a.example.org", which starts with a scheme',
    ),
}
NGINX = {
    "protocol": "tcp",
    "address": "0.0.0.0",
    "port": 80,
    "program": "nginx",
    "unit": "nginx.service",
    "pid": 42,
}
# The same for what preflight finds on the host.
HOSTS: dict[str, tuple[Case, str]] = {
    "port-of-another-program": (
        Case(host={"listeners": [NGINX]}),
        "haproxy_http_port needs port 80, but nginx (pid 42, nginx.service) listens on 0.0.0.0",
    ),
    "somebody-elses-configuration": (
        Case(host={"edited_files": ["/etc/haproxy/haproxy.cfg"]}),
        "haproxy_take_over (false) does not allow replacing a configuration of HAProxy that",
    ),
}


@pytest.fixture(scope="module")
def findings() -> dict[str, str]:
    """What preflight says to each case."""
    cases = {name: Case(variables) for name, (variables, _) in GUARDS.items()}
    cases |= {name: case for name, (case, _) in HOSTS.items()}
    cases |= {f"good-{name}": Case(variables) for name, variables in VARIANTS.items()}
    cases["good-and-running"] = Case(
        VARIANTS["defaults"], {"listeners": [{**NGINX, "program": "haproxy"}]}
    )
    return preflight("haproxy", cases)


@pytest.mark.parametrize("guard", [*GUARDS, *HOSTS])
def test_preflight_names_what_is_wrong(guard: str, findings: dict[str, str]) -> None:
    """A bad value is to stop the run before anything is touched, and to say what to do."""
    expected = (GUARDS | HOSTS)[guard][1]
    assert expected in findings[guard]
    assert "Nothing was changed on" in findings[guard]


@pytest.mark.parametrize("case", [*(f"good-{name}" for name in VARIANTS), "good-and-running"])
def test_preflight_lets_good_variables_pass(case: str, findings: dict[str, str]) -> None:
    """One that always complains would pass every test above."""
    assert findings[case] == ""
