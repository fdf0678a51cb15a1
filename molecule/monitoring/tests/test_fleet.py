"""A host that is watched from a host of its own: who may ask, and what is told by mail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import LOOKING_BACK, Watched, alerts, open_ports, until
from testinfra.host import Host

testinfra_hosts = ["ansible://watcher"]

KEY = "/etc/ssl/monitoring/host.key"
CERTIFICATE = "/etc/ssl/monitoring/host.crt"
SECRET = "not-a-secret-8b2e"
# As the guide has it.
NEW_KEYS = ("--tags=monitoring", "-e", '{"monitoring_new_key": true}')
# Takes mails over STARTTLS from whoever logs in, and writes them down.
MAIL_SERVER = """
import asyncio, ssl
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open("/run/mails", "ab") as file:
            file.write(envelope.content + bytes([10]))
        return "250 OK"
def login(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"alerts", b"not-a-secret-8b2e"))
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/run/mail.crt", "/run/mail.key")
Controller(Handler(), hostname="localhost", port=2525, tls_context=context, require_starttls=True,
    auth_required=True, authenticator=login, auth_exclude_mechanism=["LOGIN"]).start()
asyncio.new_event_loop().run_forever()
"""


@pytest.fixture(scope="module")
def member(other: Callable[[str], Host]) -> Host:
    """The host that serves."""
    return other("member")


@pytest.fixture(scope="module")
def keeper(other: Callable[[str], Host]) -> Host:
    """The host that balances and keeps the database."""
    return other("keeper")


def gateway_of(host: Host) -> str:
    """Where a host's numbers are."""
    return f"https://{host.ansible.get_variables()['ansible_host']}:9443"


@pytest.fixture(scope="module")
def gateway(member: Host) -> str:
    return gateway_of(member)


@pytest.fixture(scope="module")
def container_of_member(testhosts: Any, member: Host) -> str:
    address = member.ansible.get_variables()["ansible_host"]
    return str(next(each for each in testhosts.listed() if each["address"] == address)["name"])


@pytest.fixture(scope="module", autouse=True)
def tools(watched: Watched) -> None:
    """What the tests need on the host."""
    watched.run(
        "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends"
        " ca-certificates curl python3-aiosmtpd"
    )


@pytest.fixture(scope="module")
def mails(watched: Watched, tools: None) -> Iterator[Any]:
    """A mail server on the host, that the host trusts; returns what came."""
    watched.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        " -keyout /run/mail.key -out /run/mail.crt"
        " && cp /run/mail.crt /usr/local/share/ca-certificates/mail.crt && update-ca-certificates"
        " && systemctl restart prometheus-alertmanager"
    )
    watched.run(f"rm -f /run/mails; cat > /run/mail.py <<'END'\n{MAIL_SERVER}\nEND")
    watched.run("systemd-run --collect --unit=mail python3 /run/mail.py")
    yield lambda: watched.host.run("cat /run/mails").stdout
    # A reboot may have ended it.
    watched.host.run("systemctl stop mail.service")


def unfolded(mail: str) -> str:
    """A mail with its long lines whole again."""
    return re.sub(r"=\r?\n", "", mail)


def health(watched: Watched) -> dict[tuple[str, str], str]:
    return {
        (target["labels"]["job"], target["labels"]["instance"]): target["health"]
        for target in watched.ask("targets")["activeTargets"]
    }


def test_each_source_of_the_fleet_is_reached(watched: Watched) -> None:
    found = until(lambda: health(watched), lambda seen: set(seen.values()) == {"up"})
    assert {("app", "member"), ("nginx", "member"), ("node", "member")} <= set(found)
    assert {("node", "watcher"), ("node", "keeper"), ("balancer", "keeper")} <= set(found)
    # It has no nginx and no application.
    assert not {("app", "keeper"), ("nginx", "keeper")} & set(found)
    # The site of the host that is watched, and not that of one that watches itself.
    assert {name for job, name in found if job == "probe"} == {"https://member.toll.test/readyz"}


@pytest.mark.parametrize(
    "query",
    [
        'app_workers{instance="member"} >= 2',
        'app_release_info{instance="member"}',
        'node_systemd_unit_state{instance="member",name="toll-app.service",state="active"} == 1',
        'probe_success{instance="https://member.toll.test/readyz"} == 1',
        "app:duration_seconds:p99 > 0",
        'probe_success{job="balancer",instance="keeper"} == 1',
        'haproxy_server_status{instance="keeper",proxy="toll-app-member:https",server="member",'
        'state="UP"} == 1',
        'haproxy_process_max_connections{instance="keeper"} >= 1000',
        'postgresql_primary{instance="keeper"} == 1',
        'postgresql_connections{instance="keeper",database="toll-app"} > 0',
        'postgresql_database_bytes{instance="keeper",database="toll-app"} > 1e6',
        'postgresql_certificate_expires_timestamp_seconds{instance="keeper"} - time() > 2e7',
        'node_memory_MemAvailable_bytes{instance="keeper"} > 0',
    ],
)
def test_what_the_rules_rest_on_is_there(watched: Watched, query: str) -> None:
    watched.wait_for(query)


def test_a_host_that_is_watched_has_no_prometheus_of_its_own(member: Host) -> None:
    assert member.service("prometheus-node-exporter").is_running
    assert member.service("prometheus-nginx-exporter").is_running
    for name in ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter"):
        assert not member.package(name).is_installed


def test_one_port_more_is_open_and_none_where_it_is_watched_from(
    watched: Watched, member: Host, keeper: Host
) -> None:
    assert open_ports(member) == {"22", "80", "443", "10080", "10443", "9443"}
    assert open_ports(keeper) == {"22", "80", "443", "5432", "9443"}
    assert open_ports(watched.host) == {"22"}


def test_only_who_has_the_key_gets_numbers(watched: Watched, gateway: str) -> None:
    ask = "curl -sk -o /dev/null -w '%{http_code}' "
    own = f"--cert {CERTIFICATE} --key {KEY} "
    assert watched.run(f"{ask}{own}{gateway}/node") == "200"
    assert watched.run(f"{ask}{gateway}/node") == "400"
    watched.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2"
        " -subj /CN=watcher -keyout /run/other.key -out /run/other.crt"
    )
    other = "--cert /run/other.crt --key /run/other.key "
    assert watched.run(f"{ask}{other}{gateway}/node") == "400"
    # And nothing else of the host.
    for path in ("/", "/metrics", "/api/v1/openapi.json", "/node/debug/pprof/"):
        assert watched.run(f"{ask}{own}{gateway}{path}") == "404"


def test_only_who_has_the_key_gets_numbers_of_a_host_without_nginx(
    watched: Watched, keeper: Host
) -> None:
    """node_exporter asks for it itself, and ends the handshake without."""
    ask = "curl -sk -o /dev/null -w '%{http_code}' "
    place = gateway_of(keeper)
    assert watched.run(f"{ask} --cert {CERTIFICATE} --key {KEY} {place}/node") == "200"
    assert watched.host.run(f"{ask} {place}/node").stdout == "000"
    assert watched.host.run(f"{ask} {place.replace('https', 'http')}/node").stdout == "400"
    assert keeper.run(f"stat -c '%a %U %G' {KEY}").stdout.split() == ["640", "root", "prometheus"]


def test_statistics_are_read_by_root_and_nobody_else(keeper: Host) -> None:
    """As a role that can do nothing else."""
    ask = "psql -XAtU host_metrics -d postgres -c"
    assert keeper.run(f"{ask} 'SELECT current_user'").stdout.strip() == "host_metrics"
    for statement in ("CREATE TABLE public.t ()", "COPY pg_class TO '/tmp/x'"):
        assert "permission denied" in keeper.run(f'{ask} "{statement}"').stderr
    for user in ("prometheus", "nobody"):
        refused = keeper.run(f"runuser -u {user} -- {ask} 'SELECT 1'")
        assert "Peer authentication failed" in refused.stderr
    assert "no pg_hba.conf entry" in keeper.run(f"{ask} 'SELECT 1' -h 127.0.0.1").stderr


def test_who_watches_knows_whom_it_asks(watched: Watched, member: Host, gateway: str) -> None:
    """Another host at that address is not believed."""
    peers = "/etc/monitoring/monitoring-peers.pem"
    assert member.file(CERTIFICATE).content_string.strip() in watched.run(f"cat {peers}")
    at = f"--resolve toll-app-monitoring:9443:{gateway.split('/')[2].split(':')[0]}"
    numbers = "https://toll-app-monitoring:9443/app/toll-app"
    ask = f"curl -s {at} --cert {CERTIFICATE} --key {KEY} {numbers}"
    assert "toll_http_requests_total" in watched.run(f"{ask} --cacert {peers}")
    assert watched.host.run(f"{ask} --cacert {CERTIFICATE}").rc != 0


def test_keys_are_private_and_each_host_has_its_own(watched: Watched, member: Host) -> None:
    assert watched.run(f"stat -c '%a %U %G' {KEY}").split() == ["640", "root", "prometheus"]
    assert member.run(f"stat -c '%a %U %G' {KEY}").stdout.split() == ["600", "root", "root"]
    assert watched.run(f"sha256sum < {KEY}") != member.run(f"sha256sum < {KEY}").stdout
    assert SECRET not in watched.run("ps axww; systemctl show 'prometheus*'")


def test_a_host_that_is_well_calls_nobody(watched: Watched) -> None:
    # Another test had the kernel kill a process, which every host of this machine sees; the mail
    # about it is refused, as there is no mail server yet; and one answer that a busy machine
    # delays is an alert for hours, since there are no good answers of days to set it against.
    until(lambda: {name for name, _ in alerts(watched)} - LOOKING_BACK, lambda firing: not firing)


def test_a_fault_on_a_host_is_mailed_with_its_name(
    watched: Watched, member: Host, mails: Any
) -> None:
    """Through a mail server that wants TLS and a password."""
    member.run("systemctl stop toll-app.socket toll-app.service")
    try:
        until(
            mails,
            lambda text: "toll-app.service does not run on member" in unfolded(text),
        )
    finally:
        member.run("systemctl start toll-app.socket toll-app.service")
    assert "To: ops@toll.test" in mails()
    until(lambda: {name for name, _ in alerts(watched)}, lambda firing: "SiteDown" not in firing)


def test_a_host_that_is_gone_is_missed(
    watched: Watched, testhosts: Any, container_of_member: str, mails: Any
) -> None:
    """What a host that watches itself cannot tell."""
    testhosts.cut_off(container_of_member)
    try:
        until(lambda: alerts(watched), lambda firing: ("HostGone", "member") in firing)
        until(mails, lambda text: "Nothing on member answers any more" in unfolded(text))
    finally:
        testhosts.start(container_of_member)
    until(lambda: set(health(watched).values()), lambda seen: seen == {"up"})
    until(lambda: alerts(watched), lambda firing: ("HostGone", "member") not in firing)


def test_keys_are_renewed(control: Any, watched: Watched, member: Host) -> None:
    keys = f"grep -v -e '^#' -e CERTIFICATE /etc/monitoring/monitoring-peers.pem; sha256sum {KEY}"
    before = watched.run(keys).splitlines()
    run = control.run_playbook(limit="member,keeper,watcher", arguments=NEW_KEYS)
    assert run.returncode == 0, run.output
    after = watched.run(keys).splitlines()
    # The first lines of a certificate are the same for all.
    assert before[-1] != after[-1]
    assert before[:-1] != after[:-1]
    until(lambda: set(health(watched).values()), lambda seen: seen == {"up"})


def test_who_watches_can_be_changed_while_a_host_is_gone(
    control: Any, watched: Watched, testhosts: Any, container_of_member: str
) -> None:
    """And still knows it when it comes back."""
    before = watched.run("cat /etc/monitoring/monitoring-peers.pem")
    testhosts.cut_off(container_of_member)
    try:
        run = control.run_playbook(
            limit="watcher",
            variables={"monitoring_scrape_interval_seconds": 3},
            arguments=("--tags=monitoring",),
        )
    finally:
        testhosts.start(container_of_member)
    assert run.returncode == 0, run.output
    assert watched.run("cat /etc/monitoring/monitoring-peers.pem") == before
    until(lambda: set(health(watched).values()), lambda seen: seen == {"up"})


def test_both_sides_stay_known_after_a_reboot_of_who_watches(
    watched: Watched, testhosts: Any, container: dict[str, Any]
) -> None:
    testhosts.reboot(container["name"])
    until(lambda: set(health(watched).values()), lambda seen: seen == {"up"})
