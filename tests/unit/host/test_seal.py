"""The seal: what of a host a run rests on, and that a change of any of it is seen."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, http, seal
from apphost import files as files_

SEEN: dict[str, Any] = {
    "packages": {"nginx": "1.22"},
    "apphost": "0a1b2c3d4e5f",
    "memory_mib": 2048,
    "units": {
        "nginx.service": {"enabled": True, "state": "active"},
        "certbot.timer": {"enabled": True, "state": "active"},
        # Started by its timer, now and then.
        "shop-health.service": {"enabled": False, "state": "active"},
    },
    "mounts": {"/": 9000},
}
QUESTION = {
    **{"connect": "127.0.0.1:443", "name": "shop.example.com", "path": "/ready"},
    **{"status": 200, "json": {"release": "new"}},
}
TOLD = {
    **{"inputs": "abc", "sources": {"shop": "c"}, "releases": {"shop": "new"}},
    **{"questions": [QUESTION], "notices": ["shop: served"], "run": "a"},
    **{"locked": ["shop"]},
}
NOW = 1_800_000_000.0


def put(host: Path, name: str, text: str, mode: int = 0o644) -> Path:
    path = host / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def point(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


RENEWAL = """\
[renewalparams]
server = https://ca.test/dir
account = 0a1b
[acme_renewal_info]
ari_retry_after = """


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with one application, sealed."""
    units = "etc/systemd/system"
    trees = {
        "nginx": ["etc/nginx/nginx.conf", "etc/nginx/sites-enabled/shop.conf"],
        "shop": [f"{units}/shop.service", "etc/shop/environment"],
        "shop-description": ["etc/shop/application.json"],
    }
    for name, files in trees.items():
        for file in files:
            put(tmp_path, file, json.dumps({"database": {"files": ["shop.db"]}}))
        written = {f"/{file}": files_.digest(tmp_path / file) for file in files}
        record = {"files": written, "directories": ["/var/www/acme-challenge"]}
        put(tmp_path, f"var/lib/config-tree/{name}.json", json.dumps(record), 0o600)
    (tmp_path / "var/www/acme-challenge").mkdir(parents=True)
    backup = {"directory": str(tmp_path / "var/backups/shop"), "mounts": [str(tmp_path)]}
    put(tmp_path, "etc/shop/backup.json", json.dumps(backup))
    put(tmp_path, "var/backups/shop/20261125.tar", "a copy")
    put(tmp_path, "opt/shop/static/app-7f3a.css", "body {}")
    put(tmp_path, "opt/shop/releases/new/bin/python", "", 0o755)
    put(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    put(tmp_path, "etc/shop/credentials/secret_key", "s3cret", 0o400)
    put(tmp_path, "opt/shop/releases/new/manifest.json", "{}")
    (tmp_path / "opt/shop/current").symlink_to("releases/new")
    put(tmp_path, "opt/shop/state/releases/new.json", "{}")
    put(tmp_path, "var/lib/gunicorn-handover/shop/healthy.json", "{}")
    put(tmp_path, "var/lib/shop/shop.db", "rows")
    put(tmp_path, "etc/letsencrypt/renewal/shop.conf", RENEWAL + "2026-11-24T02:44:00\n")
    for name in ("private_key.json", "regr.json", "meta.json"):
        put(tmp_path, f"etc/letsencrypt/accounts/ca.test/dir/0a1b/{name}", "{}")
    for part in ("fullchain", "privkey"):
        put(tmp_path, f"etc/letsencrypt/archive/shop/{part}1.pem", part)
        link = tmp_path / f"etc/letsencrypt/live/shop/{part}.pem"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../archive/shop/{part}1.pem")
    (tmp_path / "etc/ssl/sites").mkdir(parents=True)
    (tmp_path / "etc/ssl/sites/shop").symlink_to("../../letsencrypt/live/shop")
    monkeypatch.setattr(seal, "get", answered({"release": "new"}))
    assert seal.write(tmp_path, SEEN, TOLD, NOW) == ""
    return tmp_path


def answered(document: Any, status: int = 200) -> Callable[..., http.Answer]:
    body = json.dumps(document).encode()
    return lambda *_, **__: http.Answer(status, body, False, {})


def broken(host: Path, seen: dict[str, Any] | None = None, later: float = 60) -> str:
    wanted = {"hours": 24, "inputs": "abc"}
    return seal.broken(host, seal.read(host), seen or SEEN, wanted, NOW + later)


def test_a_host_that_nothing_has_happened_to_keeps_its_seal(host: Path) -> None:
    assert broken(host) == ""
    assert (host / seal.SEAL).stat().st_mode & 0o777 == 0o600
    assert {name: seal.read(host)[name] for name in TOLD} == TOLD


def test_what_goes_on_all_the_time_does_not_break_it(host: Path) -> None:
    put(host, "var/lib/shop/shop.db", "more rows")
    put(host, "var/lib/shop/shop.db-wal", "still more")
    put(host, "opt/shop/state/history.jsonl", "{}")
    put(host, "var/log/nginx/access.log", "GET /")
    put(host, "etc/letsencrypt/renewal/shop.conf", RENEWAL + "2026-11-24T14:44:00\n")
    # One that was not healthy here, or was built again meanwhile.
    put(host, "opt/shop/state/releases/failed.json", '{"verdict": "bad"}')
    # A rehearsal with Let's Encrypt registers one there.
    put(host, "etc/letsencrypt/accounts/staging.test/dir/1c/regr.json", "{}")
    seen = copy.deepcopy(SEEN)
    seen["mounts"]["/"] = 8000
    seen["units"]["shop-health.service"]["state"] = "inactive"
    seen["noexec"] = ["/run/credentials/shop.service"]
    assert broken(host, seen) == ""


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file was edited": (
        lambda host: put(host, "etc/nginx/nginx.conf", "#"),
        "etc/nginx/nginx.conf",
    ),
    "a file is gone": (
        lambda host: (host / "etc/shop/environment").unlink(),
        "etc/shop/environment",
    ),
    "a mode": (
        lambda host: (host / "etc/systemd/system/shop.service").chmod(0o666),
        "etc/systemd/system/shop.service",
    ),
    "an owner": (
        lambda host: os.chown(host / "etc/shop/credentials/secret_key", 33, 33),
        "etc/shop/credentials/secret_key",
    ),
    "a secret": (
        lambda host: put(host, "etc/shop/credentials/secret_key", "other", 0o400),
        "etc/shop/credentials/secret_key",
    ),
    "a file of somebody else": (
        lambda host: put(host, "etc/nginx/sites-enabled/other.conf", "server {}"),
        "etc/nginx/sites-enabled",
    ),
    "a directory that others may write to": (
        lambda host: (host / "var/lib/shop").chmod(0o777),
        "var/lib/shop",
    ),
    "the database": (lambda host: (host / "var/lib/shop/shop.db").unlink(), "var/lib/shop/shop.db"),
    "another release": (
        lambda host: point(host / "opt/shop/current", "releases/old"),
        "opt/shop/current",
    ),
    "the release is away": (
        lambda host: (host / "opt/shop/releases/new").rename(host / "opt/shop/releases/moved"),
        "opt/shop/releases/new",
    ),
    "a verdict": (
        lambda host: put(host, "opt/shop/state/releases/new.json", '{"excluded_at": "now"}'),
        "opt/shop/state/releases/new.json",
    ),
    "a release that somebody has left": (
        lambda host: put(host, "opt/shop/state/releases/bad.json", '{"excluded_at": "now"}'),
        "opt/shop/state/releases/bad.json",
    ),
    "a key that another host knows this one by": (
        lambda host: put(host, "etc/ssl/monitoring/host.key", "another", 0o640),
        "etc/ssl/monitoring/host.key",
    ),
    "a handover that was interrupted": (
        lambda host: put(host, "opt/shop/state/handover.json", "{}"),
        "opt/shop/state/handover.json",
    ),
    "a certificate was renewed": (
        lambda host: point(
            host / "etc/letsencrypt/live/shop/fullchain.pem", "../../archive/shop/fullchain2.pem"
        ),
        "etc/letsencrypt/live/shop/fullchain.pem",
    ),
    "a key is gone": (
        lambda host: (host / "etc/letsencrypt/archive/shop/privkey1.pem").unlink(),
        "etc/letsencrypt/archive/shop/privkey1.pem",
    ),
    "a renewal that goes another way": (
        lambda host: put(host, "etc/letsencrypt/renewal/shop.conf", "authenticator = manual"),
        "etc/letsencrypt/renewal/shop.conf",
    ),
    "an account that is gone": (
        lambda host: shutil.rmtree(host / "etc/letsencrypt/accounts"),
        "etc/letsencrypt/accounts/ca.test/dir/0a1b",
    ),
    "an account without its key": (
        lambda host: (host / "etc/letsencrypt/accounts/ca.test/dir/0a1b/private_key.json").unlink(),
        "etc/letsencrypt/accounts/ca.test/dir/0a1b/private_key.json",
    ),
    "a link of certbot's that is a file": (
        lambda host: put(host, "etc/letsencrypt/live/shop/chain.pem", "chain"),
        "etc/letsencrypt/live/shop/chain.pem",
    ),
    "a rehearsal of the renewals that failed": (
        lambda host: put(host, "var/lib/certificates/rehearsal.json", "{}"),
        "var/lib/certificates/rehearsal.json",
    ),
    "an empty database": (
        lambda host: put(host, "var/lib/shop/shop.db", ""),
        "var/lib/shop/shop.db",
    ),
    "no copies any more": (
        lambda host: (host / "var/backups/shop/20261125.tar").unlink(),
        "var/backups/shop",
    ),
    "a directory of a tree": (
        lambda host: (host / "var/www/acme-challenge").rmdir(),
        "var/www/acme-challenge",
    ),
    "static files": (
        lambda host: (host / "opt/shop/static/app-7f3a.css").unlink(),
        "opt/shop/static",
    ),
    "the interpreter": (
        lambda host: (host / "opt/shop/releases/new/bin/python").unlink(),
        "opt/shop/releases/new/bin/python",
    ),
    "what somebody adds to a unit": (
        lambda host: put(host, "etc/systemd/system/shop.service.d/x.conf", "[Service]\n"),
        "etc/systemd/system/shop.service.d",
    ),
    "a description that is gone": (
        lambda host: (host / "etc/shop/application.json").unlink(),
        "etc/shop/application.json",
    ),
    "a description that is damaged": (
        lambda host: put(host, "etc/shop/application.json", '{"database": null}'),
        "etc/shop/application.json",
    ),
    "a record that is damaged": (
        lambda host: put(host, "var/lib/config-tree/nginx.json", '{"files": []}', 0o600),
        "var/lib/config-tree/nginx.json",
    ),
    "a link to another certificate": (
        lambda host: point(host / "etc/ssl/sites/shop", "/nowhere"),
        "etc/ssl/sites/shop",
    ),
    "a user": (lambda host: put(host, "etc/passwd", "root:x:0:0::/root:/bin/zsh\n"), "etc/passwd"),
    "a link in place of a file": (
        lambda host: point(host / "etc/nginx/nginx.conf", "/etc/passwd"),
        "etc/nginx/nginx.conf",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_breaks_it(host: Path, change: str) -> None:
    do, name = CHANGES[change]
    do(host)
    was, is_now = seal.read(host)["noted"], seal.noted(host, SEEN)
    differing = {each.split()[-1] for each in {*was, *is_now} if was.get(each) != is_now.get(each)}
    assert f"{host}/{name}" in differing
    assert " is not as it was" in broken(host)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"packages": {"nginx": "1.23"}}, "fact packages"),
        ({"apphost": ""}, "fact apphost"),
        ({"memory_mib": 4096}, "fact memory_mib"),
        # Somebody has thrown away all tables of nftables.
        ({"firewall": {"rules": "1", "loaded": False}}, "fact firewall"),
        (
            {"units": {**SEEN["units"], "nginx.service": {"enabled": True, "state": "inactive"}}},
            "unit nginx.service",
        ),
        (
            {"units": {**SEEN["units"], "certbot.timer": {"enabled": False, "state": "active"}}},
            "unit certbot.timer",
        ),
    ],
)
def test_what_the_probe_sees_breaks_it(host: Path, change: dict[str, Any], words: str) -> None:
    assert broken(host, {**SEEN, **change}) == f"{words} is not as it was"


def test_programs_that_cannot_be_run_any_more_break_it(host: Path) -> None:
    assert broken(host, {**SEEN, "noexec": ["/opt"]}) == "noexec is not as it was"


UNFIT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "edited meanwhile": (
        lambda host: put(host, "etc/nginx/nginx.conf", "#"),
        "the files of nginx are not what was written",
    ),
    "pending": (
        lambda host: put(host, "var/lib/config-tree/nginx.json", '{"pending": true}', 0o600),
        "the files of nginx are not what was written",
    ),
    "another deploy": (
        lambda host: point(host / "opt/shop/current", "releases/other"),
        "shop has another release than new by now",
    ),
    # What it has written is as whole, and not what this run was given.
    "another run since": (
        lambda host: seal.note_run(host / "opt/shop/state", "b"),
        "another run has changed shop since",
    ),
    "a record that nobody can read": (
        lambda host: put(host, "var/lib/config-tree/nginx.json", "{", 0o600),
        "nginx.json cannot be read",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_host_that_is_not_as_wanted_is_not_sealed(host: Path, case: str) -> None:
    """And what was noted before is gone."""
    do, words = UNFIT[case]
    do(host)
    assert words in seal.write(host, SEEN, TOLD, NOW)
    assert seal.read(host) == {}


def test_the_run_that_had_the_lock_last_may_seal(host: Path) -> None:
    seal.note_run(host / "opt/shop/state", "b")
    seal.note_run(host / "opt/shop/state", "a")
    assert seal.write(host, SEEN, TOLD, NOW) == ""


def test_a_host_that_had_the_lock_before_another_one_is_sealed(host: Path) -> None:
    """What it noted then stays for good, and each run would be a whole one."""
    seal.note_run(host / "opt/shop/state", "b")
    assert seal.write(host, SEEN, {**TOLD, "locked": []}, NOW) == ""


def test_a_worker_that_does_not_stay_up_is_not_sealed(host: Path) -> None:
    units = {"shop-worker-mail@a-1.service": {"enabled": True, "state": "activating"}}
    why = seal.write(host, {**SEEN, "units": units}, TOLD, NOW)
    assert why == "shop-worker-mail@a-1.service is activating"


def test_what_does_not_answer_is_not_sealed(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "get", answered({}, 503))
    assert seal.write(host, SEEN, TOLD, NOW) == "shop.example.com/ready answered 503, not 200"


def test_what_was_rolled_back_from_counts_until_it_is_taken_up_again(host: Path) -> None:
    """A run leaves such a release where it is, so a run that has nothing to do does so too."""
    bad = put(host, "opt/shop/state/releases/bad.json", '{"excluded_at": "now"}')
    assert seal.write(host, SEEN, TOLD, NOW) == ""
    assert broken(host) == ""
    bad.write_text("{}")
    assert broken(host) == f"{bad} is not as it was"


# Hosts of a fleet that serve nothing ------------------------------------------------------------

UNITS = ("haproxy.service", "etcd.service", "postgresql@17-main.service", "host-firewall.service")
HELPER_SEEN: dict[str, Any] = {
    "packages": {"haproxy": "3.0", "etcd-server": "3.5", "patroni": "4.0", "postgresql-17": "17.6"},
    "firewall": {"rules": "1", "loaded": True},
    "units": {
        **{name: {"enabled": True, "state": "active"} for name in UNITS},
        "haproxy-metrics.timer": {"enabled": True, "state": "active"},
        "haproxy-metrics.service": {"enabled": False, "state": "inactive"},
        "postgresql-archive.service": {"enabled": False, "state": "inactive"},
    },
}
HELPER_TREES = {
    "haproxy": ["etc/haproxy/haproxy.cfg", "usr/local/sbin/haproxy-servers"],
    "etcd": ["etc/etcd/etcd.yml", "etc/etcd/member.key"],
    "postgresql": ["etc/postgresql-server/pg_hba.conf", "etc/postgresql-server/patroni.yml"],
    "firewall": ["etc/host-firewall/rules.nft", "etc/systemd/system/host-firewall.service"],
    "monitoring": ["etc/monitoring/peers.pem", "etc/systemd/system/haproxy-metrics.timer"],
}
HELPER_TOLD = {
    **{"inputs": "abc", "sources": {}, "releases": {}, "questions": [], "notices": []},
    **{"run": "a", "locked": []},
}


@pytest.fixture
def helper(tmp_path: Path) -> Path:
    """A host that balances, votes and keeps the database, and serves nothing, sealed."""
    for name, listed in HELPER_TREES.items():
        drop_in = f"etc/systemd/system/{name}.service.d/10-role.conf"
        for file in (*listed, drop_in):
            put(tmp_path, file, "written\n")
        written = {f"/{file}": files_.digest(tmp_path / file) for file in (*listed, drop_in)}
        put(tmp_path, f"var/lib/config-tree/{name}.json", json.dumps({"files": written}), 0o600)
    put(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    for name in ("host.crt", "host.key"):
        put(tmp_path, f"etc/ssl/monitoring/{name}", name)
    assert seal.write(tmp_path, HELPER_SEEN, HELPER_TOLD, NOW) == ""
    return tmp_path


def test_a_host_that_serves_nothing_keeps_its_seal(helper: Path) -> None:
    """Also where what runs now and then runs just then, and where the primary is another host."""
    seen = copy.deepcopy(HELPER_SEEN)
    seen["units"]["haproxy-metrics.service"]["state"] = "failed"
    seen["units"]["postgresql-archive.service"]["state"] = "activating"
    del seen["units"]["haproxy-metrics.service"]
    put(helper, "var/lib/postgresql/17/main/patroni.dynamic.json", "{}")
    assert broken(helper, seen) == ""


HELPER_CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{
        f"{file} was edited": (
            lambda host, file=file: put(host, file, "by hand\n"),  # type: ignore[misc]
            file,
        )
        for listed in HELPER_TREES.values()
        for file in listed
    },
    **{
        f"{file} is gone": (lambda host, file=file: (host / file).unlink(), file)  # type: ignore[misc]
        for listed in HELPER_TREES.values()
        for file in listed
    },
    "a key that others may read": (
        lambda host: (host / "etc/etcd/member.key").chmod(0o604),
        "etc/etcd/member.key",
    ),
    "a limit that somebody adds to a unit": (
        lambda host: put(host, "etc/systemd/system/etcd.service.d/20.conf", "[Service]\n"),
        "etc/systemd/system/etcd.service.d",
    ),
    "one more file for HAProxy": (
        lambda host: put(host, "etc/haproxy/errors.map", ""),
        "etc/haproxy",
    ),
    "a certificate that another host knows this one by": (
        lambda host: put(host, "etc/ssl/monitoring/host.crt", "another"),
        "etc/ssl/monitoring/host.crt",
    ),
    "a key that is gone": (
        lambda host: (host / "etc/ssl/monitoring/host.key").unlink(),
        "etc/ssl/monitoring/host.key",
    ),
    "a record that is gone": (
        lambda host: (host / "var/lib/config-tree/postgresql.json").unlink(),
        "var/lib/config-tree/postgresql.json",
    ),
}


@pytest.mark.parametrize("change", HELPER_CHANGES)
def test_a_change_of_a_host_that_serves_nothing_breaks_it(helper: Path, change: str) -> None:
    do, name = HELPER_CHANGES[change]
    do(helper)
    was, is_now = seal.read(helper)["noted"], seal.noted(helper, HELPER_SEEN)
    differing = {each.split()[-1] for each in {*was, *is_now} if was.get(each) != is_now.get(each)}
    assert f"{helper}/{name}" in differing
    assert " is not as it was" in broken(helper, HELPER_SEEN)


@pytest.mark.parametrize("unit", [*UNITS, "haproxy-metrics.timer"])
@pytest.mark.parametrize(
    "shown",
    [
        {"enabled": True, "state": "inactive"},
        {"enabled": True, "state": "failed"},
        {"enabled": False, "state": "active"},
    ],
)
def test_a_unit_that_is_stopped_or_disabled_breaks_it(
    helper: Path, unit: str, shown: dict[str, Any]
) -> None:
    seen = {**HELPER_SEEN, "units": {**HELPER_SEEN["units"], unit: shown}}
    assert broken(helper, seen) == f"unit {unit} is not as it was"


@pytest.mark.parametrize("package", HELPER_SEEN["packages"])
def test_a_package_that_is_gone_breaks_it(helper: Path, package: str) -> None:
    left = {each: version for each, version in HELPER_SEEN["packages"].items() if each != package}
    assert broken(helper, {**HELPER_SEEN, "packages": left}) == "fact packages is not as it was"


def test_rules_that_somebody_threw_away_break_it(helper: Path) -> None:
    seen = {**HELPER_SEEN, "firewall": {"rules": "1", "loaded": False}}
    assert broken(helper, seen) == "fact firewall is not as it was"


def test_an_archive_that_failed_breaks_it(helper: Path) -> None:
    """A run tries it again."""
    failed = {"postgresql-archive.service": {"enabled": False, "state": "failed"}}
    seen = {**HELPER_SEEN, "units": {**HELPER_SEEN["units"], **failed}}
    assert broken(helper, seen) == "unit postgresql-archive.service is not as it was"


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        ("haproxy.service", "failed"),
        ("haproxy.service", "inactive"),
        ("etcd.service", "activating"),
        ("etcd.service", "inactive"),
        ("host-firewall.service", "failed"),
        ("haproxy-metrics.timer", "failed"),
    ],
)
def test_a_host_whose_units_do_not_run_is_not_sealed(helper: Path, unit: str, state: str) -> None:
    """Somebody has stopped one during the run, or it has ended since."""
    shown = {unit: {"enabled": True, "state": state}}
    seen = {**HELPER_SEEN, "units": {**HELPER_SEEN["units"], **shown}}
    assert seal.write(helper, seen, HELPER_TOLD, NOW) == f"{unit} is {state}"
    assert seal.read(helper) == {}


def test_an_application_that_is_half_away_stops_nobody(host: Path) -> None:
    put(host, "var/lib/config-tree/old-description.json", '{"files": {}}', 0o600)
    assert seal.write(host, SEEN, TOLD, NOW) == ""
    assert broken(host) == ""


def test_it_is_not_believed_for_ever(host: Path) -> None:
    """A certificate may have expired since, and the clock may have been set back."""
    assert broken(host, later=23 * 3600) == ""
    assert broken(host, later=25 * 3600) == "the last whole run is more than 24 hours ago"
    assert broken(host, later=-60) == "the last whole run is more than 24 hours ago"


@pytest.mark.parametrize("text", ["", "{", '{"version": 0}', None])
def test_a_seal_that_cannot_be_read_is_none(host: Path, text: str | None) -> None:
    path = host / seal.SEAL
    path.unlink() if text is None else path.write_text(text)
    assert broken(host) == "the last run was not a whole one, or did not end well"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answered({"release": "old"}), "answered with release 'old', not 'new'"),
        (answered({}, 503), "answered 503, not 200"),
    ],
)
def test_the_application_has_to_answer(
    host: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any], words: str
) -> None:
    monkeypatch.setattr(seal, "get", answer)
    assert broken(host) == f"shop.example.com/ready {words}"


def test_who_does_not_answer_is_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise http.NoAnswerError("Connection refused")

    monkeypatch.setattr(seal, "get", refuse)
    assert broken(host) == "shop.example.com/ready could not be asked: Connection refused"


def test_other_inputs_break_it(host: Path) -> None:
    wanted = {"hours": 24, "inputs": "another"}
    words = "variables, the inventory, a role or a program has changed"
    assert seal.broken(host, seal.read(host), SEEN, wanted, NOW) == words


def test_it_can_be_removed_twice(host: Path) -> None:
    seal.remove(host)
    seal.remove(host)
    assert broken(host) == "the last run was not a whole one, or did not end well"


def test_a_host_that_never_had_one_is_told_from_one_that_lost_it(host: Path) -> None:
    """An operator would look for a run that failed, or forget that one did."""
    seal.remove(host)
    (host / seal.SEAL).parent.rmdir()
    assert broken(host) == "no whole run has ended well on this host yet"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["migrate"], False),
        (["rollback"], False),
        (["stop"], False),
        (["restore", "latest"], False),
        (["migrate", "--check"], True),
        (["rollback", "--check"], True),
        (["handover", "--preview", "new"], True),
        (["status"], True),
        (["backup"], True),
    ],
)
def test_what_changes_a_release_or_its_data_removes_it(
    host: Path, words: list[str], kept: bool
) -> None:
    """Also where it fails, which is when it matters."""
    cli.main("shop", words, host)
    assert bool(seal.read(host)) is kept


def test_who_may_not_remove_it_goes_on(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A unit in its sandbox, such as the handover's and the health check's."""

    def refuse(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(seal, "remove", refuse)
    cli.main("shop", ["rollback"], host)
    assert "Read-only" not in capsys.readouterr().err


def test_it_holds_no_secret(host: Path) -> None:
    assert "s3cret" not in (host / seal.SEAL).read_text()
