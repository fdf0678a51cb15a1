"""The application itself, deployed: what it records, who gets in, and what becomes of its data."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Api, Site

PROJECT = Path(__file__).parents[3]


def plate() -> str:
    """One that no other test has recorded."""
    return f"T{secrets.token_hex(4).upper()}"


def test_passage_is_recorded_once_however_often_it_is_sent(api: Api) -> None:
    """Through nginx and TLS: a lane sends again what it got no answer to."""
    here, key = plate(), secrets.token_hex(8)
    first = api.record(here, key)
    assert first.status == 201, first
    again = api.record(here, key)
    assert again.json()["id"] == first.json()["id"]
    other = api.record(here, key, lane="4")
    assert other.status == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert [each["id"] for each in api.find(here)] == [first.json()["id"]]


def test_stranger_records_and_reads_nothing(api: Api) -> None:
    stranger = type(api)(api.site, "toll_00000000_" + "0" * 40)
    assert stranger.record(plate(), "x").status == 401
    assert api.site.get("/api/v1/passages").status == 401
    page = api.site.get("/dashboard")
    assert page.status == 303
    assert page.headers["location"].startswith("/login")


def log_in(site: Site, name: str, password: str) -> tuple[int, str]:
    """Through the page, as a browser. Returns the status and the session's cookie."""
    page = site.get("/login")
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.body)
    assert token, page.body
    form = urlencode({"name": name, "password": password, "csrf_token": token[1]})
    cookie = page.headers["set-cookie"].split(";")[0]
    headers = {"Cookie": cookie, "Referer": f"https://{site.name}/login"}
    answer = site.send("POST", "/login", form, headers)
    return answer.status, answer.headers.get("set-cookie", "").split(";")[0]


def test_first_admin_logs_in_with_the_vaults_password(
    site: Site, variables: dict[str, Any]
) -> None:
    name = variables.get("toll_app_admin_name", "admin")
    status, cookie = log_in(site, name, variables["toll_app_admin_password"])
    assert status == 303
    assert site.get("/dashboard", Cookie=cookie).status == 200
    assert log_in(site, name, "not the password")[0] == 422


def test_metrics_are_for_the_host_alone(api: Api, as_root: Callable[[str], str]) -> None:
    """Monitoring on the host counts what came through nginx; the world sees nothing of it."""
    api.record(plate(), secrets.token_hex(8))
    for path in ("/metrics", "/metrics/", "/metrics/x"):
        assert api.site.get(path).status == 404, path
    script = (
        "import http.client as h, socket as s; c = h.HTTPConnection('localhost'); "
        "c.sock = s.socket(s.AF_UNIX); c.sock.connect('/run/gunicorn/toll-app.sock'); "
        "c.request('GET', '/metrics'); print(c.getresponse().read().decode())"
    )
    told = as_root(f'python3 -c "{script}"')
    assert "toll_passages_recorded_total" in told
    current = as_root("readlink /opt/toll-app/current").strip().rsplit("/", 1)[-1]
    assert current in told


def test_nobody_on_the_host_speaks_for_a_client(as_root: Callable[[str], str]) -> None:
    """The loopback is open to every user of the host; only the socket is nginx's."""
    script = (
        "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 5000); "
        "c.request('GET', sys.argv[1], headers={'X-Forwarded-For': '203.0.113.77', "
        "'X-Forwarded-Proto': 'https', 'X-Request-Id': 'forged-id', "
        "'Authorization': 'Bearer toll_x'}); a = c.getresponse(); "
        "print(a.status, a.getheader('X-Request-Id'))"
    )

    def ask(path: str) -> list[str]:
        return as_root(f'runuser -u nobody -- python3 -c "{script}" {path}').split()

    status, identifier = ask("/api/v1/passages")
    assert status == "401"
    journal = as_root("journalctl --no-pager --output=cat --unit='toll-app*' --priority=warning")
    [line] = [line for line in journal.splitlines() if identifier in line]
    assert json.loads(line)["client"] == "127.0.0.1"
    assert "203.0.113.77" not in journal
    assert "forged-id" not in journal
    assert ask("/metrics")[0] == "403"
    assert ask("/")[0] == "200"


def test_static_file_has_an_address_for_its_content(site: Site) -> None:
    """Browsers keep it for a year, so another content must never come under that address."""
    page = site.get("/").body
    addresses = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert addresses
    for address in addresses:
        answer = site.get(address)
        assert answer.status == 200, address
        assert "immutable" in answer.headers["cache-control"]
        digest, name = address.removeprefix("/static/").split("/")
        assert hashlib.sha256(answer.body.encode()).hexdigest().startswith(digest), address
        missing = site.get(f"/static/{'0' * len(digest)}/{name}")
        assert missing.status == 404
        assert "cache-control" not in missing.headers


def test_one_request_stands_in_both_logs_under_its_id(
    host: Host, site: Site, as_root: Callable[[str], str]
) -> None:
    """Whoever is told an id finds what nginx and what the application say about it."""
    answer = site.get("/api/v1/passages", Authorization="Bearer toll_wrong")
    identifier = answer.headers["x-request-id"]
    nginx = json.loads(as_root(f"grep -h {identifier} /var/log/nginx/access.log"))
    assert nginx["status"] == 401
    # A warning, also to journald.
    journal = "journalctl --no-pager --output=cat --unit='toll-app*' --priority=warning"
    said = as_root(f"{journal} | grep {identifier}")
    application = json.loads(said.splitlines()[0])
    assert application["request_id"] == identifier
    assert application["client"] == nginx["remote_addr"]
    assert "toll_wrong" not in said


def test_command_has_the_sandbox_of_the_service(as_root: Callable[[str], str]) -> None:
    """A command for operators that could do more than the service would be the way around it."""
    names = ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd")
    master = as_root("systemctl show --property MainPID --value toll-app.service").strip()

    def of(status: str) -> dict[str, str]:
        lines = [line.split(":", 1) for line in status.splitlines() if ":" in line]
        return {key: value.strip() for key, value in lines if key in (*names, "Uid")}

    script = (
        "import os; print(open('/proc/self/status').read()); "
        "print('environment', os.environ['TOLL_ENVIRONMENT'], os.environ['STATE_DIRECTORY']); "
        "print('writable', os.access('/opt/toll-app', os.W_OK), os.access('/etc', os.W_OK))"
    )
    said = as_root(f'echo "{script}" | toll-app flask shell')
    own = of(said)
    assert own == of(as_root(f"cat /proc/{master}/status"))
    assert "environment production /var/lib/toll-app" in said
    assert "writable False False" in said


BROKEN = """
import sqlalchemy as sa
from alembic import op

revision = "broken"
down_revision = {head!r}
branch_labels = depends_on = None
works_with = ({head!r},)


def upgrade():
    op.create_table("half_done", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("UPDATE passages SET lane = 'lost'")
    raise RuntimeError("this migration breaks off")


def downgrade():
    op.drop_table("half_done")
"""


# Of the two databases, SQLite takes no step of a migration back by itself.
@pytest.mark.one_system(12)
def test_failing_migration_leaves_release_and_data_and_a_copy_to_go_back_to(
    control: Any,
    variables: dict[str, Any],
    api: Api,
    as_root: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """It does a part of its work and breaks off. Then the copy from before it is put back."""
    source = tmp_path / "app"
    ignored = shutil.ignore_patterns("__pycache__", "instance", ".*")
    shutil.copytree(PROJECT / "app", source, ignore=ignored)
    schema = json.loads(as_root("toll-app flask toll schema --json"))
    broken = source / "toll" / "migrations" / "versions" / "9999_broken.py"
    broken.write_text(BROKEN.format(head=schema["head"]))
    here = plate()
    first = api.record(here, secrets.token_hex(8)).json()
    release = api.site.get("/readyz").json()["release"]

    run = control.run_playbook(
        PROJECT / "site.yml",
        variables={"toll_settings": {"source": str(source)}},
        limit=variables["inventory_hostname"],
    )
    assert run.returncode != 0
    assert f"The database is as it was, at {schema['database']}" in run.output
    assert "this migration breaks off" in run.output
    copy = re.search(r"/var/lib/toll-app/backups/[\w.-]+\w", run.output)
    assert copy, run.output

    assert api.site.get("/readyz").json()["release"] == release
    assert json.loads(as_root("toll-app flask toll schema --json")) == schema
    assert api.find(here) == [first]

    later = plate()
    assert api.record(later, secrets.token_hex(8)).status == 201
    as_root(f"toll-app flask toll restore {copy[0]}")
    assert api.site.wait_until_ready().json()["release"] == release
    assert api.find(here) == [first]
    assert api.find(later) == []
    assert api.record(later, secrets.token_hex(8)).status == 201
