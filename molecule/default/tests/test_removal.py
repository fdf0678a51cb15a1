"""What playbooks/remove.yml takes away, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Site

PLAYBOOK = Path(__file__).parents[3] / "playbooks" / "remove.yml"
# What nothing of ours may be left in, and where to look.
PLACES = (
    "/opt/* /etc/toll-app* /etc/systemd/system/*toll* /etc/systemd/journald.conf.d/*applications*"
    " /usr/local/sbin/toll-app* /usr/local/lib/apphost /usr/local/libexec/*"
)
SHOP = "/etc/nginx/conf.d/shop.conf"
OF_THE_HOST = "/etc/nginx /etc/letsencrypt /etc/ssl/sites /usr/local/bin/certbot"


@pytest.fixture(scope="module")
def removed(control: Any, host: Host) -> dict[str, Any]:
    """The application is gone from one host, and everything with the data from the other."""
    variables = dict(host.ansible.get_variables())
    name = variables["inventory_hostname"]
    told = (
        {"application_remove": "application"}
        if name == "debian12"
        else {"application_remove": "everything", "application_remove_data": "yes"}
    )
    before = host.run(f"find {PLACES} {OF_THE_HOST} | sort | sha256sum").stdout
    if name == "debian12":
        refused = control.run_playbook(PLAYBOOK, limit=name)
        assert refused.returncode != 0
        assert "application_remove is empty" in refused.output
    else:
        # What is somebody else's is seen, and named.
        assert host.run(f"touch {SHOP}").rc == 0
        preview = control.run_playbook(PLAYBOOK, limit=name, variables=told, check=True)
        assert preview.returncode == 0, preview.output
        said = " ".join(preview.output.split())
        assert f"nginx and its settings stay, because others serve with it: {SHOP}." in said
        assert "nginx : uninstall" not in said
        assert host.run(f"rm {SHOP}").rc == 0
    assert host.run(f"find {PLACES} {OF_THE_HOST} | sort | sha256sum").stdout == before
    run = control.run_playbook(PLAYBOOK, limit=name, variables=told)
    assert run.returncode == 0, run.output
    return {**variables, **told, "said": " ".join(run.output.split())}


def test_nothing_of_the_application_is_left(
    removed: dict[str, Any], host: Host, as_root: Callable[[str], str]
) -> None:
    found = as_root(f"ls -d {PLACES} 2>/dev/null || true").split()
    kept = [] if removed["application_remove"] == "everything" else ["/opt/certbot"]
    assert [path for path in found if path not in kept and "/libexec/nginx-" not in path] == []
    units = as_root("systemctl list-units --all --no-legend --plain 'toll-app*'").split()
    assert units == []
    assert as_root("ss -Hltn 'sport = :5000'") == ""


def test_the_data_stay_unless_they_are_to_go(
    removed: dict[str, Any], host: Host, database_url: str
) -> None:
    goes = "application_remove_data" in removed
    for path in ("/var/lib/toll-app", "/var/backups/toll-app"):
        assert host.file(path).exists is not goes, path
    assert host.user("toll-app").exists is not goes
    if database_url:
        assert "is untouched" in removed["said"]
        assert host.run("runuser -u postgres -- psql toll -c 'SELECT 1 FROM passages'").rc == 0


def test_the_certificate_is_renewed_no_more(
    removed: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    """A renewal of a name that leads elsewhere fails every night."""
    assert as_root("ls /etc/letsencrypt/renewal 2>/dev/null || true") == ""
    watched = json.loads(as_root("cat /etc/certificates/watch.json || echo '{}'"))
    assert watched.get("certificates", []) == []
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""


def test_nginx_stays_where_only_the_application_goes(
    removed: dict[str, Any], host: Host, site: Site
) -> None:
    """It answers for its names no more."""
    everything = removed["application_remove"] == "everything"
    assert host.package("nginx").is_installed is not everything
    assert host.service("nginx").is_running is not everything
    with pytest.raises(OSError, match=r".*"):
        site.get("/", tls=False)


@pytest.mark.one_system(12)
def test_again_it_finds_nothing(removed: dict[str, Any], control: Any) -> None:
    run = control.run_playbook(
        PLAYBOOK,
        limit=removed["inventory_hostname"],
        variables={key: x for key, x in removed.items() if key.startswith("application_remove")},
    )
    assert run.returncode == 0, run.output
    assert run.changed == 0, run.output
