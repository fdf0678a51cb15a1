"""The monitoring role: its files as Prometheus' own tools read them, its alerts in made-up time."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from apphost.application import Application

from .ports import free_ports
from .preflight import Case, preflight
from .render import ROLES, evaluate, render

PROJECT = ROLES.parent
RULES = Path(__file__).with_name("monitoring_rules.yml")
RULES_OF_DAYS = Path(__file__).with_name("monitoring_rules_of_days.yml")
FLEET_RULES = Path(__file__).with_name("monitoring_fleet_rules.yml")
URLS = ["https://app.example.com/readyz"]
# One that counts its requests itself, and one that does not.
APPLICATIONS = [{"name": "toll-app", "metrics": "/metrics"}, {"name": "shop"}]
ON: dict[str, Any] = {
    "monitoring_enabled": True,
    "monitoring_urls": URLS,
    "monitoring_applications": APPLICATIONS,
}
# In the certificate of each host: Prometheus expects one name of all of them.
NAME = "toll-app-monitoring"
SECRET = "https://alerts.example.com/not-a-secret-77aa"
# What Ansible knows of every host.
HOST: dict[str, Any] = {"inventory_hostname": "web1", "groups": {"monitoring": ["watch1"]}}
# A host that watches others.
WATCHES: dict[str, Any] = {
    **ON,
    "inventory_hostname": "watch1",
    "monitoring_application": False,
    "monitoring_watched": [
        {
            "name": "web1",
            "address": "192.0.2.10:9443",
            "backups": True,
            "backed_up": ["toll-app"],
            "applications": ["toll-app", "shop"],
        },
        {
            "name": "web2",
            "address": "[2001:db8::2]:9443",
            "backups": False,
            "applications": ["shop"],
        },
        {"name": "web.3", "address": "web3.example.com:9444"},
        {
            "name": "lb1",
            "address": "192.0.2.21:9443",
            "backups": False,
            "kinds": ["balancer"],
            "entrance": "192.0.2.21:443",
        },
        {"name": "db1", "address": "192.0.2.31:9443", "backups": False, "kinds": ["database"]},
        {"name": "db2", "address": "192.0.2.32:9443", "backups": False, "kinds": ["database"]},
    ],
    "__monitoring_trusted": [{"name": "web1", "certificate": "-- of web1 --"}],
    "__monitoring_untrusted": URLS,
}
# A host that another one watches.
WATCHED: dict[str, Any] = {
    "monitoring_enabled": True,
    "monitoring_server": "watch1",
    "monitoring_applications": APPLICATIONS,
    "__monitoring_trusted": [{"name": "watch1", "certificate": "-- of watch1 --"}],
}
# One of that kind without nginx.
HELPS: dict[str, Any] = {
    "monitoring_enabled": True,
    "monitoring_server": "watch1",
    "monitoring_application": False,
    "monitoring_balancer": True,
    "monitoring_database": True,
    "__monitoring_trusted": [{"name": "watch1", "certificate": "-- of watch1 --"}],
}
# Every branch of the templates is taken by one of these.
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": ON,
    "everything-changed": {
        **ON,
        "monitoring_urls": [*URLS, "http://www.example.com/healthz"],
        "monitoring_probe_verify": False,
        "monitoring_probe_address": "127.0.0.1:443",
        "monitoring_objective_percent": 99.5,
        "monitoring_scrape_interval_seconds": 5,
        "monitoring_retention_days": 45,
        "monitoring_webhook_url": SECRET,
        "monitoring_email_to": "ops@example.com",
        "monitoring_email_from": "alerts@example.com",
        "monitoring_smtp_server": "mail.example.com:587",
        "monitoring_smtp_user": "alerts",
        "monitoring_smtp_password": 'with "quotes" and # and \\',
    },
    "watches-others": WATCHES,
}
EACH_VARIANT = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where promtool, amtool and the servers are: unpacked, because installed they would listen."""
    cache = PROJECT / ".cache" / "prometheus"
    names = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
    if not all((cache / "usr/bin" / name).exists() for name in (*names, "promtool", "amtool")):
        packages = cache / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["apt-get", "-qq", "download", *names],
                cwd=packages,
                check=True,
                capture_output=True,
                text=True,
            )
            for package in packages.glob("*.deb"):
                subprocess.run(
                    ["dpkg", "-x", str(package), str(cache)], check=True, capture_output=True
                )
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or error
            pytest.fail(f"These tests need Prometheus; let apt-get download it: {said}")
    return cache / "usr/bin"


def configuration(family: str = "Debian", **variables: Any) -> dict[str, str]:
    """Path below the role's folder on a host, and text, of each file of Prometheus and its kin."""
    folder = ROLES / "monitoring/templates/monitoring"
    variables = {**HOST, **variables}
    found = {
        str(path.relative_to(folder).with_suffix("")): render(
            "monitoring", f"monitoring/{path.relative_to(folder)}", family, **variables
        )
        for path in sorted(folder.rglob("*.j2"))
    }
    found["alertmanager.yml"] = render("monitoring", "alertmanager.yml.j2", family, **variables)
    return found


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[..., Path]:
    """Writes the rendered files below tmp_path and returns it."""

    def write(**variables: Any) -> Path:
        for name, text in configuration(**variables).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def alerts(**variables: Any) -> list[dict[str, Any]]:
    """The alerts as Prometheus gets them."""
    text = configuration(**{**ON, **variables})["rules/alerts.yml"]
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@EACH_VARIANT
def test_prometheus_and_alertmanager_take_the_files(
    variant: dict[str, Any], lay_out: Callable[..., Path], programs: Path
) -> None:
    folder = lay_out(**variant)
    # Where a host's key is, Prometheus' check looks for it.
    text = (folder / "prometheus.yml").read_text()
    for name in ("host.key", "host.crt"):
        text = text.replace(f"/etc/ssl/monitoring/{name}", str(folder / name))
        (folder / name).touch()
    (folder / "prometheus.yml").write_text(text)
    (folder / "monitoring-peers.pem").touch()
    for program, check, file in (
        ("promtool", ["check", "config"], "prometheus.yml"),
        ("amtool", ["check-config"], "alertmanager.yml"),
    ):
        done = subprocess.run(
            [programs / program, *check, folder / file], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variant", "rules"), [(ON, RULES), (ON, RULES_OF_DAYS), (WATCHES, FLEET_RULES)]
)
def test_alerts_over_invented_time(
    variant: dict[str, Any], rules: Path, lay_out: Callable[..., Path], programs: Path
) -> None:
    """Each fires on its fault and is silent without: burns over days cannot be waited for."""
    folder = lay_out(**variant)
    (folder / "tests.yml").write_text(rules.read_text())
    done = subprocess.run(
        [programs / "promtool", "test", "rules", folder / "tests.yml"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("variant", [ON, WATCHES])
def test_the_dashboard_finds_its_limits_in_the_alerts(variant: dict[str, Any]) -> None:
    """A name or a number that is not there leaves the whole page without figures."""
    page = (ROLES / "monitoring/templates/monitoring/dashboard/dashboard.js").read_text()
    # Of several with one name the page takes the first.
    told = {alert["alert"]: alert["expr"] for alert in reversed(alerts(**variant))}
    limits = set(re.findall(r'limit\("(\w+)"\)', page))
    assert limits
    for name in limits:
        assert re.search(r"[<>] [\d.e-]+", told[name]), name
    assert set(re.findall(r'fires\("(\w+)"\)', page)) <= told.keys()


def test_each_alert_has_a_test_and_a_section_in_the_guide() -> None:
    """A call at night whose meaning stands nowhere is noise."""
    names = {alert["alert"] for variant in (ON, WATCHES) for alert in alerts(**variant)}
    tests = [
        test
        for path in (RULES, RULES_OF_DAYS, FLEET_RULES)
        for test in yaml.safe_load(path.read_text())["tests"]
    ]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }
    guide = (PROJECT / "docs/OPERATIONS.md").read_text()
    sections = set(re.findall(r"^### (\w+)$", guide.partition("\n## Alerts\n")[2], re.MULTILINE))
    assert fired == names
    assert sections == names


def test_one_database_alone_has_no_replicas_to_miss() -> None:
    """An alert about them would never end."""
    alone = {**WATCHES, "monitoring_watched": WATCHES["monitoring_watched"][:-1]}
    about = {
        *("DatabaseHasNoPrimary", "ReplicaMissing", "ReplicaBehind", "VoterDown"),
        "WritesOnOneHost",
    }
    assert about <= {alert["alert"] for alert in alerts(**WATCHES)}
    assert not about & {alert["alert"] for alert in alerts(**alone)}


def test_the_burn_rates_follow_from_the_objective() -> None:
    for objective, budget in ((99.9, 0.001), (99.5, 0.005), (99.99, 0.0001)):
        fast = next(
            alert
            for alert in alerts(monitoring_objective_percent=objective)
            if alert["alert"] == "ErrorBudgetBurnsFast"
        )
        assert f"ratio_rate1h > {round(14.4 * budget, 8)}" in fast["expr"]


def test_everything_listens_on_the_loopback() -> None:
    """Measurements tell a stranger a lot, and Prometheus has no log-in."""
    services = evaluate("monitoring", "__monitoring_services", "Debian", **HOST, **ON)
    assert len(services) == 5
    for service in services:
        listens = [each for each in service["argv"] if "listen-address" in each]
        assert listens, service["name"]
        for each in listens:
            assert each.partition("=")[2].startswith("127.0.0.1:") or each.endswith(
                "cluster.listen-address="
            )
    status = render("monitoring", "nginx-status.conf.j2", "Debian", **HOST, **ON)
    assert re.findall(r"listen (.*);", status) == ["127.0.0.1:9145"]


@pytest.mark.parametrize(("variant", "times"), [("ON", 1), ("WATCHED", 2)])
def test_nginx_asks_the_applications_for_their_counts(variant: str, times: int) -> None:
    """Past nginx they do not answer them: every user of the host could ask."""
    variables = {**HOST, **{"ON": ON, "WATCHED": WATCHED}[variant]}
    status = render("monitoring", "nginx-status.conf.j2", "Debian", **variables)
    assert status.count("location = /app/toll-app {") == times
    asked = "proxy_pass http://unix:/run/gunicorn/toll-app.sock:/metrics;"
    assert status.count(asked) == times
    # One that counts nothing is there all the same: what watches it cannot know.
    assert status.count("location = /app/shop {") == times
    assert status.count('return 200 "";') == times


def test_what_is_learned_names_the_host_and_the_application() -> None:
    read = yaml.safe_load(configuration(**ON)["prometheus.yml"])
    (toll, shop) = [each for each in read["scrape_configs"] if each["job_name"].startswith("app-")]
    assert (toll["metrics_path"], shop["metrics_path"]) == ("/app/toll-app", "/app/shop")
    assert toll["static_configs"][0]["labels"] == {
        "job": "app",
        "instance": "web1",
        "application": "toll-app",
    }


def test_a_watched_host_opens_one_port_to_one_key() -> None:
    status = render("monitoring", "nginx-status.conf.j2", "Debian", **HOST, **WATCHED)
    assert re.findall(r"listen (.*);", status) == [
        "127.0.0.1:9145",
        "9443 ssl",
        "[::]:9443 ssl",
    ]
    assert "ssl_verify_client on;" in status
    # A path inside nginx's own folder, so that the staged file is the one that is tested.
    assert "ssl_client_certificate monitoring-peers.pem;" in status
    peers = render("monitoring", "peers.pem.j2", "Debian", **HOST, **WATCHED)
    assert peers.endswith("# host watch1\n-- of watch1 --\n")


def test_a_watched_host_without_ipv6_opens_no_port_of_it() -> None:
    status = render(
        "monitoring", "nginx-status.conf.j2", "Debian", wsgi_host={"ipv6": False}, **HOST, **WATCHED
    )
    assert "[::]" not in status


def test_who_is_asked_has_to_show_a_key_that_is_known() -> None:
    read = yaml.safe_load(configuration(**WATCHES)["prometheus.yml"])
    others = [each for each in read["scrape_configs"] if each["job_name"].endswith("-of-others")]
    assert [each["metrics_path"] for each in others] == [
        "/app/toll-app",
        "/app/shop",
        "/nginx",
        "/node",
    ]
    for each in others:
        assert each["scheme"] == "https"
        assert each["tls_config"] == {
            "ca_file": "monitoring-peers.pem",
            "server_name": "toll-app-monitoring",
            "cert_file": "/etc/ssl/monitoring/host.crt",
            "key_file": "/etc/ssl/monitoring/host.key",
        }


def test_balancers_and_databases_are_asked_for_what_they_have() -> None:
    """What they have not would be a source that is down for ever."""
    read = yaml.safe_load(configuration(**WATCHES)["prometheus.yml"])
    jobs = {
        job["job_name"]: [each["labels"]["instance"] for each in job["static_configs"]]
        for job in read["scrape_configs"]
        if "of-others" in job["job_name"] or job["job_name"] == "balancer"
    }
    assert jobs == {
        "app-toll-app-of-others": ["web1"],
        "app-shop-of-others": ["web1", "web2"],
        "nginx-of-others": ["web1", "web2", "web.3"],
        "node-of-others": ["web1", "web2", "web.3", "lb1", "db1", "db2"],
        "balancer": ["lb1"],
    }
    pictured = json.loads(configuration(**WATCHES)["dashboard/fleet.json"])
    assert [(each["name"], each["kinds"]) for each in pictured] == [
        ("web1", ["web"]),
        ("web2", ["web"]),
        ("web.3", ["web"]),
        ("lb1", ["balancer"]),
        ("db1", ["database"]),
        ("db2", ["database"]),
    ]


def test_without_nginx_node_exporter_asks_for_the_key() -> None:
    variables = {**HOST, **HELPS}
    (node,) = evaluate("monitoring", "__monitoring_services", "Debian", **variables)
    assert {
        "--web.listen-address=:9443",
        "--web.config.file=/etc/monitoring/gateway.yml",
        # As nginx of other hosts has it.
        "--web.telemetry-path=/node",
    } <= set(node["argv"])
    told = yaml.safe_load(render("monitoring", "gateway.yml.j2", "Debian", **variables))
    assert told["tls_server_config"]["client_auth_type"] == "RequireAndVerifyClientCert"
    files = evaluate("monitoring", "__monitoring_files", "Debian", **variables)
    written = {each["dest"] for each in files}
    assert {
        told["tls_server_config"]["client_ca_file"],
        "/etc/monitoring/gateway.yml",
    } <= written
    held = evaluate("monitoring", "__monitoring_held_ports", "Debian", **variables)
    assert [each["port"] for each in held] == [9443]


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate and its key, as a host makes them (tasks/pair.yml)."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    (made,) = (
        task["ansible.builtin.command"]["argv"]
        for block in yaml.safe_load((ROLES / "monitoring/tasks/pair.yml").read_text())
        for task in block.get("block", ())
        if "openssl" in str(task)
    )
    told = {"pair_name": NAME, "pair_days": "2", "pair_key": key, "pair_certificate": certificate}
    words = [
        re.sub(r"\{\{ __monitoring_(\w+) \}\}", lambda found: str(told[found[1]]), word)
        for word in made
    ]
    subprocess.run([word.removesuffix(".new") for word in words], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def gateway(tmp_path: Path, programs: Path) -> Iterator[str]:
    """node_exporter of a host without nginx, which knows `watch1`; its address."""
    own, watch1 = pair(tmp_path, "own"), pair(tmp_path, "watch1")
    (port,) = free_ports(1)
    variables = {
        **HOST,
        **HELPS,
        "monitoring_gateway_port": port,
        "__monitoring_configuration": str(tmp_path),
        "__monitoring_textfiles": str(tmp_path),
        "__monitoring_pair_certificate": str(own[0]),
        "__monitoring_pair_key": str(own[1]),
        "__monitoring_trusted": [{"name": "watch1", "certificate": watch1[0].read_text()}],
    }
    for name in ("gateway.yml", "peers.pem"):
        text = render("monitoring", f"{name}.j2", "Debian", **variables)
        (tmp_path / ("monitoring-peers.pem" if name == "peers.pem" else name)).write_text(text)
    (tmp_path / "haproxy.prom").write_text("haproxy_up 1\n")
    (node,) = evaluate("monitoring", "__monitoring_services", "Debian", **variables)
    # There is no bus to ask systemd over.
    argv = [each for each in node["argv"][1:] if "systemd" not in each]
    with subprocess.Popen(
        [programs / "prometheus-node-exporter", *argv], stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stderr is not None
            for line in running.stderr:
                if "TLS is enabled" in line:
                    break
            threading.Thread(target=running.stderr.read, daemon=True).start()
            yield f"https://127.0.0.1:{port}"
        finally:
            running.terminate()


def test_only_who_has_the_key_gets_numbers_of_a_host_without_nginx(
    gateway: str, tmp_path: Path
) -> None:
    """The real node_exporter, asked as Prometheus asks."""

    def ask(key: str | None, trusts: str = "own", name: str = NAME) -> str:
        context = ssl.create_default_context(cafile=tmp_path / f"{trusts}.crt")
        if key:
            context.load_cert_chain(tmp_path / f"{key}.crt", tmp_path / f"{key}.key")
        host, _, port = gateway.removeprefix("https://").partition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as to,
        ):
            to.sendall(f"GET /node HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
            return b"".join(iter(lambda: to.recv(65536), b"")).decode()

    pair(tmp_path, "stranger")
    assert "\nhaproxy_up 1\n" in ask("watch1")
    for key in ("stranger", None):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(key)
    # And who asks knows whom.
    with pytest.raises(ssl.SSLCertVerificationError):
        ask("watch1", trusts="stranger")


def test_what_is_measured_depends_on_what_a_host_does() -> None:
    measured = evaluate("monitoring", "__monitoring_measured", "Debian", **HOST, **HELPS)
    units = [
        render("monitoring", "metrics.service.j2", "Debian", **HOST, **HELPS, measured=each)
        for each in measured
    ]
    starts = [re.findall("ExecStart=(.*)", unit) for unit in units]
    assert starts == [
        ["/usr/local/libexec/haproxy-metrics /var/lib/application-metrics/haproxy.prom"],
        ["/usr/local/libexec/postgresql-metrics /var/lib/application-metrics/postgresql.prom"],
    ]
    # HAProxy is asked over the loopback, and nothing else is.
    assert ["PrivateNetwork=yes" in unit for unit in units] == [False, True]
    assert ["IPAddressDeny=any" in unit for unit in units] == [True, False]


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        (URLS[0], "app.example.com"),
        ("https://App.example.com:8443/", "app.example.com"),
        ("https://[2001:db8::1]:8443/", "2001:db8::1"),
    ],
)
def test_a_site_is_known_by_the_domain_of_its_certificate(url: str, domain: str) -> None:
    """As the host that looks at the certificate calls it, for the limit of its end."""
    read = yaml.safe_load(configuration(**{**ON, "monitoring_urls": [url]})["prometheus.yml"])
    [probe] = [each for each in read["scrape_configs"] if each["job_name"] == "probe"]
    assert [each["labels"]["domain"] for each in probe["static_configs"]] == [domain]


@pytest.mark.parametrize(
    ("variant", "module"),
    [
        (ON, "site"),
        ({**ON, "monitoring_probe_verify": False}, "site-untrusted"),
        ({**ON, "__monitoring_untrusted": URLS}, "site-untrusted"),
        ({**ON, "__monitoring_untrusted": ["https://other.example/"]}, "site"),
    ],
)
def test_only_who_is_said_to_be_is_not_trusted(variant: dict[str, Any], module: str) -> None:
    """One host with a certificate of its own must not excuse the others."""
    files = configuration(**variant)
    read = yaml.safe_load(files["prometheus.yml"])
    [probe] = [each for each in read["scrape_configs"] if each["job_name"] == "probe"]
    assert probe["static_configs"][0]["labels"]["__param_module"] == module
    modules = yaml.safe_load(files["blackbox.yml"])["modules"]
    asking = {name: each["http"] for name, each in modules.items() if each["prober"] == "http"}
    skips = {name: each["tls_config"] for name, each in asking.items()}
    assert skips == {
        "site": {"insecure_skip_verify": False},
        "site-untrusted": {"insecure_skip_verify": True},
    }


@pytest.mark.parametrize(
    ("variant", "runs", "measured"),
    [
        (
            ON,
            {"", "-alertmanager", "-node-exporter", "-blackbox-exporter", "-nginx-exporter"},
            ["toll-app", "shop"],
        ),
        (WATCHED, {"-node-exporter", "-nginx-exporter"}, ["toll-app", "shop"]),
        (WATCHES, {"", "-alertmanager", "-node-exporter", "-blackbox-exporter"}, []),
        (HELPS, {"-node-exporter"}, ["haproxy", "postgresql"]),
        (
            {**HELPS, "monitoring_floating": True},
            {"-node-exporter"},
            ["haproxy", "keepalived", "postgresql"],
        ),
    ],
)
def test_each_kind_of_host_runs_what_it_is_for(
    variant: dict[str, Any], runs: set[str], measured: list[str]
) -> None:
    variables = {**HOST, **variant}
    services = evaluate("monitoring", "__monitoring_services", "Debian", **variables)
    assert {each["name"].removeprefix("prometheus") for each in services} == runs
    units = evaluate("monitoring", "__monitoring_units", "Debian", **variables)
    own = [unit for unit in units if unit.endswith("-metrics.timer")]
    assert own == [f"{name}-metrics.timer" for name in measured]


def test_what_another_host_does_now_is_stopped() -> None:
    """Of a host that watched itself before."""
    units = {
        "prometheus.service": {"active": True, "enabled": True},
        "prometheus-alertmanager.service": {"active": False, "enabled": True},
        "prometheus-blackbox-exporter.service": {"active": False, "enabled": False},
        "prometheus-node-exporter.service": {"active": True, "enabled": True},
    }
    left = evaluate(
        "monitoring",
        "__monitoring_left_units",
        "Debian",
        wsgi_host={"units": units},
        **HOST,
        **WATCHED,
    )
    assert left == ["prometheus.service", "prometheus-alertmanager.service"]


def test_secrets_are_in_one_file_that_only_root_reads() -> None:
    variant = VARIANTS["everything-changed"]
    holding = [name for name, text in configuration(**variant).items() if SECRET in text]
    assert holding == ["alertmanager.yml"]
    read = yaml.safe_load(configuration(**variant)["alertmanager.yml"])
    assert read["global"]["smtp_auth_password"] == variant["monitoring_smtp_password"]
    files = evaluate("monitoring", "__monitoring_files", "Debian", **HOST, **variant)
    written = next(each for each in files if each["template"] == "alertmanager.yml.j2")
    assert written["mode"] == "0600"
    assert written["secret"] is True


def test_any_line_logs_in_to_the_mail_server() -> None:
    """Alertmanager refuses a character that is written as two halves, as in JSON."""
    told = {"monitoring_smtp_user": "&mail: #1", "monitoring_smtp_password": "0😀"}
    variant = {**VARIANTS["everything-changed"], **told}
    read = yaml.safe_load(configuration(**variant)["alertmanager.yml"])["global"]
    assert [read[f"smtp_auth_{each}"] for each in ("username", "password")] == [*told.values()]


CASES = {
    "off": Case(),
    "on": Case(ON),
    "ubuntu": Case(ON, {"distribution": "ubuntu", "distribution_version": "24.04"}),
    "debian 11": Case(ON, {"distribution_version": "11"}),
    "no address": Case({"monitoring_enabled": True}),
    "objective": Case({**ON, "monitoring_objective_percent": 100}),
    "short retention": Case({**ON, "monitoring_retention_days": 7}),
    "port twice": Case({**ON, "monitoring_alertmanager_port": 9090}),
    "half a mail": Case({**ON, "monitoring_email_to": "ops@example.com"}),
    "half a log-in": Case({**ON, "monitoring_smtp_user": "ops"}),
    "no url": Case({**ON, "monitoring_webhook_url": "not-a-secret-98"}),
    "unknown server": Case({**WATCHED, "monitoring_server": "watch2"}),
    "a receiver where nobody sends": Case({**WATCHED, "monitoring_webhook_url": SECRET}),
    "a balancer alone": Case(
        {"monitoring_enabled": True, "monitoring_application": False, "monitoring_balancer": True}
    ),
    "a balancer watched": Case(HELPS),
    "misspelt": Case({**ON, "monitoring_retention_day": 30}),
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return preflight("monitoring", CASES)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("ubuntu", "use Debian 12 or 13"),
        ("debian 11", "use Debian 12 or 13"),
        ("no address", "monitoring_urls is empty, so nobody would notice that the site is down"),
        ("objective", "100 would allow no failure at all"),
        ("short retention", "less than 30: use 30 to 3650"),
        ("port twice", "give each service a port of its own"),
        (
            "half a mail",
            "without monitoring_email_from and monitoring_smtp_server, so no mail could",
        ),
        ("half a log-in", "monitoring_smtp_password belong together, but one of them is empty"),
        ("no url", "monitoring_webhook_url"),
        ("unknown server", "is not a host of the inventory's group monitoring"),
        ("a balancer alone", "is empty, but a host that is only a balancer or a database server"),
        ("a receiver where nobody sends", "watches, and that one sends the alerts"),
        ("misspelt", "did you mean monitoring_retention_days"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(said: dict[str, str], case: str, words: str) -> None:
    assert words in said[case]
    assert "not-a-secret-98" not in said[case]


def test_a_balancer_that_is_watched_needs_nothing_but_who_does_it(said: dict[str, str]) -> None:
    """The inventory of these cases has nobody who watches."""
    assert re.findall("^- .*", said["a balancer watched"], re.MULTILINE) == re.findall(
        "^- .*", said["unknown server"].replace("watch2", "watch1"), re.MULTILINE
    )


@pytest.mark.parametrize("case", ["off", "on"])
def test_good_input_passes(said: dict[str, str], case: str) -> None:
    assert said[case] == ""


def test_numbers_are_written_where_node_exporter_reads_them() -> None:
    """Three owners of one directory: who writes, who may write, and who reads."""
    told = evaluate("application", "__application_metrics_directory", "Debian")
    read = evaluate("monitoring", "__monitoring_textfiles", "Debian")
    assert told == read == str(Application("toll-app").metrics)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["toll-app", "shop"]),
        ({"monitoring_backed_up": ["shop"]}, ["shop"]),
        ({"monitoring_backed_up": []}, []),
        ({"monitoring_backups": False}, []),
        ({"monitoring_application": False}, []),
        ({"monitoring_applications": []}, [""]),
    ],
)
def test_copies_are_missed_of_each_application(
    variables: dict[str, Any], expected: list[str]
) -> None:
    """Where nobody says which ones there are, of any."""
    given = {**HOST, **ON, **variables}
    found = evaluate("monitoring", "__monitoring_backed_up", "Debian", **given)
    assert found == [{"host": "web1", "application": name} for name in expected]


def test_what_is_measured_no_more_leaves_no_numbers() -> None:
    """Of an application or a role that left the host they would raise an alert for good."""
    unit = "/etc/systemd/system/{}-metrics.{}".format
    files = {
        **{unit(name, "timer"): "removed" for name in ("keepalived", "blog", "my-metrics")},
        unit("blog", "service"): "removed",
        unit("shop", "timer"): "updated",
        "/etc/monitoring/gateway.yml": "removed",
    }
    gone = evaluate(
        "monitoring", "__monitoring_unmeasured", "Debian", __monitoring_tree={"files": files}
    )
    assert gone == ["keepalived", "blog", "my-metrics"]
    tasks = yaml.safe_load((ROLES / "monitoring/tasks/configure.yml").read_text())
    registered = [each.get("register") for each in tasks]
    [remove] = [each for each in tasks if each.get("loop") == "{{ __monitoring_unmeasured }}"]
    assert tasks.index(remove) > registered.index("__monitoring_tree")


def test_alertmanager_reads_what_systemd_hands_it() -> None:
    """By a variable of systemd's, which a second dollar sign would make into text."""
    services = evaluate("monitoring", "__monitoring_all_services", "Debian", **HOST, **ON)
    service = next(each for each in services if each["name"] == "prometheus-alertmanager")
    unit = render("monitoring", "service.conf.j2", "Debian", **HOST, **ON, service=service)
    assert "--config.file=${CREDENTIALS_DIRECTORY}/alertmanager.yml" in unit


def test_what_is_ignored_is_these_mounts_and_nothing_below_them() -> None:
    """As systemd hands the line on: it reads backslashes, percent and dollar signs itself."""
    changed = {**HOST, **ON, "monitoring_ignored_mounts": ["/mnt/full.d", "/srv/100%"]}
    services = evaluate("monitoring", "__monitoring_all_services", "Debian", **changed)
    service = next(each for each in services if each["name"] == "prometheus-node-exporter")
    unit = render("monitoring", "service.conf.j2", "Debian", **changed, service=service)
    [line] = re.findall(r"--collector\.filesystem\.mount-points-exclude=(\S+)", unit)
    given = line.replace("$$", "$").replace("%%", "%").replace("\\\\", "\\")
    places = ["/", "/var", "/mnt/full.d", "/mnt/full.d/below", "/mnt/fullxd", "/srv/100%", "/dev/x"]
    ignored = [place for place in places if re.search(given, place)]
    assert ignored == ["/mnt/full.d", "/srv/100%", "/dev/x"]
