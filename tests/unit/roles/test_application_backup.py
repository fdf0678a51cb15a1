"""What the role says of copies: units that systemd takes, settings that the package reads."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from apphost.application import Application, Health
from apphost.backup.settings import KEEP, Settings
from conftest import trusted

from .describing import shop, toll_app
from .render import ROLES, evaluate, render


@pytest.mark.parametrize(
    "backup",
    [
        {},
        {"command": ["/bin/cp", "{file}", "/mnt/"], "writable_paths": ["/mnt/disk"]},
    ],
    ids=["alone", "with a command"],
)
@pytest.mark.parametrize("family", ["Debian", "RedHat"])
def test_units_are_right_and_settings_are_what_the_package_reads(
    family: str, backup: dict[str, Any], tmp_path: Path
) -> None:
    variables = trusted(toll_app(backup=backup))
    for kind in ("service", "timer"):
        text = render("application", f"backup.{kind}.j2", family, **variables)
        # The program is not on this machine, and systemd looks for it.
        text = re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", text)
        (tmp_path / f"toll-app-backup.{kind}").write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert (result.returncode, [line for line in lines if "toll-app-backup" in line]) == (0, [])
    written = json.loads(render("application", "backup.json.j2", family, **variables))
    assert written.keys() == {field.name for field in dataclasses.fields(Settings)}
    assert written["keep"] == KEEP


def test_each_application_has_units_of_its_own() -> None:
    told = trusted(
        {
            "applications": {
                **shop()["applications"],
                **toll_app(backup={"keep_days": 2})["applications"],
            }
        }
    )
    for name in ("shop", "toll-app"):
        variables = {**told, "__application_name": name}
        text = render("application", "backup.service.j2", "Debian", **variables)
        assert f"/usr/local/sbin/{name} backup" in text
        written = json.loads(render("application", "backup.json.j2", "Debian", **variables))
        assert written["directory"] == f"/var/backups/{name}"
        assert written["keep"]["days"] == {"shop": 7, "toll-app": 2}[name]


@pytest.mark.parametrize("told", [shop(), toll_app()], ids=["shop", "toll-app"])
def test_the_command_reads_what_the_description_says(told: dict[str, Any], tmp_path: Path) -> None:
    text = render("application", "application.json.j2", "Debian", **trusted(told))
    (name,) = told["applications"]
    path = tmp_path / f"etc/{name}/application.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    application = Application(name, tmp_path)
    assert application.database.names == ()
    toll = name == "toll-app"
    assert application.health == Health(
        path="/readyz" if toll else "/",
        live_path="/healthz" if toll else "",
        release_member="release" if toll else "",
    )
    assert application.database.files == (("toll.db",) if toll else ())
    assert application.database.kind == ("sqlite" if toll else "")
    assert json.loads(text)["site"] == {
        "domain": "app.example.com",
        "domains": ["app.example.com"],
        "port": 443,
        "certificate": "/etc/ssl/sites/app.example.com/fullchain.pem",
        "maintenance": False,
    }


@pytest.mark.parametrize(
    ("left", "stays", "said"),
    [
        ([], False, "shop, its data and their copies on this host are removed."),
        (["anna", "x"], True, "/mnt/copies stays, because it holds what is not a copy: anna, x."),
        (list("abcdefghijk"), True, "a copy: a, b, c, d, e, f, g, h, i, j and more."),
        ([], True, "/mnt/copies stays, because it is a mount point or a link."),
    ],
)
def test_a_removal_says_what_stays_where_the_copies_were(
    left: list[str], stays: bool, said: str
) -> None:
    tasks = yaml.safe_load((ROLES / "application/tasks/remove_application.yml").read_text())
    text = next(each["ansible.builtin.debug"]["msg"] for each in tasks if "left" in each["name"])
    told = {
        **trusted(shop(backup={"directory": "/mnt/copies"})),
        "application_remove_data": "yes",
        "__application_removed_copies": {"left": left, "stays": stays},
    }
    found = " ".join(evaluate("application", "said", "Debian", said=trusted(text), **told).split())
    assert said in found
    assert ("stays" in found) is stays


def test_a_removal_takes_no_directory_of_copies_away_whole() -> None:
    """What somebody keeps beside the copies would go with it."""
    tasks = yaml.safe_load((ROLES / "application/tasks/remove_application.yml").read_text())
    users = [
        next(key for key in each if "." in key)
        for each in tasks
        if "backup.directory" in str(each) and "ansible.builtin.debug" not in each
    ]
    assert users == ["wsgi.host.copies"]


TREES = ["shop", "shop-backup", "nginx"]
METRICS = "/var/lib/application-metrics"
MEASURED = ("shop", "blog", "haproxy", "keepalived", "postgresql", "etcd")
INCLUDE = "ansible.builtin.include_tasks"


def unmeasured(include: dict[str, Any], **given: Any) -> tuple[list[str], list[str]]:
    """Units that are stopped and files that are removed, where all units are there."""
    stop, remove = yaml.safe_load((ROLES / "application/tasks/unmeasured.yml").read_text())
    units: dict[str, Any] = {
        f"{name}-metrics.{kind}": {} for name in MEASURED for kind in ("timer", "service")
    }
    facts = {"trees": TREES, **given.pop("wsgi_host", {}), "units": units}
    given = {**given, **trusted(include["vars"]), "wsgi_host": facts}

    def of(template: str, **more: Any) -> Any:
        return evaluate("application", "told", "Debian", told=trusted(template), **given, **more)

    path = remove["ansible.builtin.file"]["path"]
    paths = [of(path, __application_measured=each) for each in of(remove["loop"])]
    return of(stop["loop"]), paths


@pytest.mark.parametrize(
    ("neighbours", "monitored", "removes", "stay"),
    [
        (True, True, "application", True),
        (True, False, "everything", True),
        (False, True, "application", True),
        (False, True, "everything", False),
        (False, False, "application", False),
    ],
)
def test_a_removal_takes_what_was_measured_along(
    neighbours: bool, monitored: bool, removes: str, stay: bool
) -> None:
    """An alert on a timer or a deploy of it would fire for good; what others measure stays."""
    told = trusted(shop())
    if neighbours:
        told["applications"]["blog"] = {"source": "app", "domains": ["blog.example.com"]}
    given = {
        **told,
        "application_name": "shop",
        "application_remove": removes,
        "wsgi_host": {"trees": [*TREES, *(["monitoring"] if monitored else [])]},
    }
    tasks = yaml.safe_load((ROLES / "application/tasks/remove_application.yml").read_text())
    [one] = [each for each in tasks if each.get(INCLUDE) == "unmeasured.yml"]
    assert evaluate("application", one["when"], "Debian", **given) is stay
    [several] = [each["loop"] for each in tasks if "__application_metrics" in str(each.get("loop"))]
    removed = evaluate("application", "told", "Debian", told=trusted(several), **given)
    assert (METRICS in removed) is not stay
    assert unmeasured(one, **given) == (
        ["shop-metrics.timer", "shop-metrics.service"],
        [f"{METRICS}/shop.prom", f"{METRICS}/shop-backup.prom"],
    )


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("floating.yml", ["keepalived"]),
        ("remove_database.yml", ["postgresql", "etcd"]),
        ("schedule.yml", ["shop-backup"]),
    ],
)
def test_what_goes_is_measured_no_more(file: str, names: list[str]) -> None:
    tasks = yaml.safe_load((ROLES / "application/tasks" / file).read_text())
    [one] = [each for each in tasks if each.get(INCLUDE) == "unmeasured.yml"]
    units, files = unmeasured(one, **trusted(shop()))
    assert files == [f"{METRICS}/{name}.prom" for name in names]
    assert [each for each in units if each.endswith("timer")] == [
        f"{name}-metrics.timer" for name in names if name in MEASURED
    ]
