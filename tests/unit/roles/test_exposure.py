"""How far each unit that the project ships may go, by the measure of `systemd-analyze security`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import trusted

from .describing import toll_app
from .render import ROLES, evaluate, render

# Of 10. A unit that needs more says why, in a comment that begins with this word.
LIMIT = 3.0
REASON = "# Exposure: "

APPLICATION: dict[str, Any] = {
    "gunicorn_systemd_name": "shop",
    "gunicorn_systemd_directory": "/opt/shop/current/app",
    "gunicorn_systemd_python": "/opt/shop/current/bin/python",
    "gunicorn_systemd_wsgi_app": "app:app",
    "gunicorn_systemd_release_root": "/opt/shop",
}
MONITORING: dict[str, Any] = {
    "inventory_hostname": "one",
    "monitoring_enabled": True,
    "monitoring_urls": ["https://a.example.com/"],
}


def rendered(role: str, template: str, **variables: Any) -> list[tuple[str, str]]:
    return [("", render(role, template, "Debian", **variables))]


def archives() -> list[tuple[str, str]]:
    """Copies of PostgreSQL, what tries them, and the way back."""
    wanted = "__postgresql_archive_jobs + [__postgresql_archive_restore]"
    jobs = evaluate("postgresql", wanted, "Debian")
    assert len(jobs) == 5
    return [
        (job["name"], render("postgresql", "archive/job.service.j2", "Debian", job=job))
        for job in jobs
    ]


def gunicorn() -> list[tuple[str, str]]:
    """The service and its standby, as far into the network as the role lets them."""
    variables = {**APPLICATION, "gunicorn_systemd_network": "any"}
    units = evaluate("gunicorn_systemd", "__gunicorn_systemd_service_units", "Debian", **variables)
    assert len(units) == 2
    return [
        (
            unit["name"],
            render("gunicorn_systemd", "unit.service.j2", "Debian", **variables, unit=unit),
        )
        for unit in units
    ]


def job(kind: str, variable: str, **told: Any) -> list[tuple[str, str]]:
    """A kind of worker or a timer, which have the sandbox of the web processes."""
    variables = {
        **APPLICATION,
        "gunicorn_systemd_network": "any",
        variable: [{"name": "mail", "command": ["work"], **told}],
    }
    (unit,) = evaluate(
        "gunicorn_systemd", f"__gunicorn_systemd_{kind}_units", "Debian", **variables
    )
    return rendered("gunicorn_systemd", f"{kind}.service.j2", **variables, **{kind: unit})


def certbot() -> list[tuple[str, str]]:
    """The renewal and its rehearsal."""
    return [
        (unit["name"], render("certbot", "certbot.service.j2", "Debian", unit=unit))
        for unit in evaluate("certbot", "__certbot_services", "Debian")
    ]


def monitoring() -> list[tuple[str, str]]:
    """What is added to the distribution's units, which run as a user of theirs."""
    services = evaluate("monitoring", "__monitoring_all_services", "Debian", **MONITORING)
    assert services
    return [
        (
            service["name"],
            "[Service]\nUser=prometheus\n"
            + render("monitoring", "service.conf.j2", "Debian", **MONITORING, service=service),
        )
        for service in services
    ]


def backups() -> list[tuple[str, str]]:
    command = {"command": ["/usr/bin/restic", "backup", "{file}"]}
    return [
        (name, render("application", "backup.service.j2", "Debian", **trusted(toll_app(**told))))
        for name, told in (("alone", {}), ("with-a-command", {"backup": command}))
    ]


# By template; what is added to a unit of the distribution is measured by itself.
UNITS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "certbot/certbot.service.j2": certbot,
    "certbot/certificates-watch.service.j2": lambda: rendered(
        "certbot", "certificates-watch.service.j2"
    ),
    "gunicorn_systemd/boot.service.j2": lambda: rendered(
        "gunicorn_systemd", "boot.service.j2", **APPLICATION
    ),
    "gunicorn_systemd/health.service.j2": lambda: rendered(
        "gunicorn_systemd", "health.service.j2", **APPLICATION
    ),
    "gunicorn_systemd/unit.service.j2": gunicorn,
    "gunicorn_systemd/worker.service.j2": lambda: job("worker", "gunicorn_systemd_background"),
    "gunicorn_systemd/timer.service.j2": lambda: job(
        "timer", "gunicorn_systemd_timers", calendar="daily"
    ),
    "monitoring/service.conf.j2": monitoring,
    "monitoring/metrics.service.j2": lambda: [
        (measured["name"], text)
        for measured in ({"name": "shop"}, {"name": "haproxy", "over": "AF_INET AF_INET6"})
        for _, text in rendered("monitoring", "metrics.service.j2", **MONITORING, measured=measured)
    ],
    "haproxy/systemd/haproxy.service.d/10-role.conf.j2": lambda: rendered(
        "haproxy", "systemd/haproxy.service.d/10-role.conf.j2"
    ),
    "etcd/systemd/etcd.service.d/10-role.conf.j2": lambda: rendered(
        "etcd", "systemd/etcd.service.d/10-role.conf.j2"
    ),
    "keepalived/systemd/keepalived.service.d/10-role.conf.j2": lambda: rendered(
        "keepalived", "systemd/keepalived.service.d/10-role.conf.j2"
    ),
    "firewall/host-firewall.service.j2": lambda: rendered("firewall", "host-firewall.service.j2"),
    "firewall/nftables.conf.j2": lambda: rendered("firewall", "nftables.conf.j2"),
    "postgresql/archive/job.service.j2": archives,
    "postgresql/pooler/pgbouncer.service.j2": lambda: rendered(
        "postgresql", "pooler/pgbouncer.service.j2"
    ),
    "postgresql/drop-in.conf.j2": lambda: rendered("postgresql", "drop-in.conf.j2"),
    "postgresql/systemd/postgresql-applications.service.j2": lambda: rendered(
        "postgresql", "systemd/postgresql-applications.service.j2"
    ),
    "nginx/systemd/logrotate.service.d/10-nginx.conf.j2": lambda: rendered(
        "nginx", "systemd/logrotate.service.d/10-nginx.conf.j2"
    ),
    "nginx/systemd/nginx-errors.service.j2": lambda: rendered(
        "nginx", "systemd/nginx-errors.service.j2"
    ),
    "nginx/systemd/nginx.service.d/10-role.conf.j2": lambda: rendered(
        "nginx", "systemd/nginx.service.d/10-role.conf.j2"
    ),
    "application/backup.service.j2": backups,
    "application/redis.service.j2": lambda: rendered(
        "application", "redis.service.j2", **trusted(toll_app(redis=True))
    ),
}


def exposure(text: str, folder: Path) -> tuple[float, str]:
    """The figure that systemd gives a unit of that text, and its table of why."""
    if "ExecStart=/" not in text:
        text += "\n[Service]\nExecStart=/bin/true\n"
    path = folder / "shop-x.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=yes", path],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_EMOJI": "0"},
    )
    [figure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    return float(figure), done.stdout


def test_every_unit_is_measured() -> None:
    """A unit that nobody thought of is the one that stays open."""
    found = set()
    for path in ROLES.glob("*/templates/**/*"):
        role, _, *rest = path.relative_to(ROLES).parts
        if path.is_file() and re.search(r"^\[Service\]$", path.read_text(), re.MULTILINE):
            found.add("/".join([role, *rest]))
    assert found == UNITS.keys()


@pytest.mark.parametrize("template", UNITS)
def test_exposure_is_low_or_explained(template: str, tmp_path: Path) -> None:
    """What breaks into a service gets what its unit may do."""
    for name, text in UNITS[template]():
        figure, table = exposure(text, tmp_path)
        assert figure <= LIMIT or REASON in text, f"{template} {name}: {figure}\n{table}"


def test_the_handover_starts_its_own_unit_with_the_same_limits(tmp_path: Path) -> None:
    """It is no file: systemd gets its directives when a handover begins."""
    settings = json.loads(render("gunicorn_systemd", "handover.json.j2", "Debian", **APPLICATION))
    boot = render("gunicorn_systemd", "boot.service.j2", "Debian", **APPLICATION)
    assert settings["sandbox"]
    assert set(settings["sandbox"]) <= set(boot.splitlines())
    text = "\n".join(["[Service]", *settings["sandbox"], ""])
    assert exposure(text, tmp_path)[0] <= LIMIT


def test_root_writes_metrics_where_only_root_can() -> None:
    """Both roles that write them name one place, right below a directory of the system."""
    places = {
        evaluate("monitoring", "__monitoring_textfiles", "Debian"),
        evaluate("application", "__application_metrics_directory", "Debian"),
    }
    assert {str(Path(place).parent) for place in places} == {"/var/lib"}
    assert len(places) == 1
