"""From a bare server to its domain, walked by somebody with one server and no control node."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[3]
GUIDE = PROJECT / "docs" / "PRODUCTION_SETUP.md"
WATCHING = PROJECT / "roles" / "monitoring" / "README.md"
STEP = re.compile(r"^step (\d+) of (\d+): [A-Z].* \.\.\. \d+\.\d s$", re.MULTILINE)
SETUP = "/root/toll-app/setup-production.sh"
DOMAIN = "/root/toll-app/setup-domain.sh"
CHOICES = "/etc/toll-app-setup/group_vars/web/choices.yml"
SETTINGS = "/etc/toll-app-setup/group_vars/web/main.yml"
# Takes copies to another directory.
COPIED = '{command: [/bin/cp, "{file}", "{record}", /srv/copies/], writable_paths: [/srv/copies]}'


@pytest.fixture
def refused(host: Host) -> Callable[..., str]:
    """Runs a command that has to end with an exit status, and returns what a person reads."""

    def run(command: str, status: int = 2) -> str:
        result = host.run(f"{command} 2>&1")
        assert result.rc == status, f"{command}: exit status {result.rc}\n{result.stdout}"
        return str(result.stdout)

    return run


@pytest.fixture
def domains(host: Host) -> list[str]:
    """The names that were given to setup-domain.sh."""
    return list(host.ansible.get_variables()["domains"])


@pytest.fixture(scope="module")
def by_hand(host: Host) -> None:
    """Only for the host that was set up by hand before."""
    if "by_hand" not in host.ansible.get_variables()["group_names"]:
        pytest.skip("this host was bare")


@pytest.fixture(scope="module")
def bare(host: Host) -> None:
    """Only for the host that was bare."""
    if "by_hand" in host.ansible.get_variables()["group_names"]:
        pytest.skip("this host was set up by hand before")


def ask(address: str, name: str, path: str, authority: Path) -> tuple[int, str, dict[str, Any]]:
    """Status, body and certificate of an answer over HTTPS that the authority vouches for."""
    connection = http.client.HTTPSConnection(name, timeout=20)
    context = ssl.create_default_context(cafile=str(authority))
    raw = socket.create_connection((address, 443), 20)
    connection.sock = secure = context.wrap_socket(raw, server_hostname=name)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(secure.getpeercert() or {})
    finally:
        connection.close()


def commands(heading: str, guide: Path = GUIDE) -> str:
    """The shell commands below a heading of a guide."""
    section = guide.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def test_steps_are_counted_to_the_end(as_root):
    """Somebody who waits wants to know how far it is, and that each step was timed."""
    first = as_root("cat /root/walk/production.txt").split("Running now")[0]
    steps = [(int(number), int(total)) for number, total in STEP.findall(first)]
    assert len({total for _, total in steps}) == 1
    assert [number for number, _ in steps] == list(range(1, steps[0][1] + 1))


def test_says_what_runs_and_what_is_next(as_root):
    """The last lines are all that many people read."""
    said = as_root("cat /root/walk/production.txt").split("Done in")[1]
    assert re.search(r"toll-app\.service +active", said)
    assert re.search(r"nginx\.service +active", said)
    assert "sudo ./setup-domain.sh app.example.com ops@example.com" in said


@pytest.mark.usefixtures("by_hand")
def test_nothing_is_replaced_unasked(as_root):
    """With nobody there to answer, what was found is named, and goes on serving."""
    said = as_root("cat /root/walk/unasked.txt")
    assert "/etc/systemd/system/toll-app.service was not written by this project" in said
    assert "sites-enabled/default sites-enabled/my-app" in said
    assert "nothing was changed: run it again with --yes" in said
    assert said.endswith("exit status 2\nactive\nactive\n")


@pytest.mark.usefixtures("by_hand")
def test_a_copy_is_kept_of_what_is_replaced(as_root):
    """A file that nobody has any more cannot be asked how it did things."""
    copies = as_root(
        "cd /var/backups/toll-app-setup/*/ && stat -c %a . && cat toll-app.service found.txt"
    )
    assert copies.startswith("700\n")
    assert "Description=My app" in copies
    assert "proxy_pass" in as_root("cat /var/backups/toll-app-setup/*/nginx/sites-enabled/my-app")


@pytest.mark.usefixtures("bare")
def test_a_domain_without_certificate_leaves_the_site_as_it_was(as_root):
    """A mistake in DNS is no reason for an outage."""
    said = as_root("cat /root/walk/nowhere.txt")
    assert "nowhere.toll.test has no address" in said
    assert "The site serves as before." in said
    assert "exit status 1" in said
    assert json.loads(as_root("cat /root/walk/nowhere.json"))["status"] == "ok"


def test_the_site_is_on_its_domain(host, address, acme, domains):
    """The certificate is the authority's, for each of the names, and the release answers."""
    for name in domains:
        status, body, certificate = ask(address, name, "/readyz", acme.root)
        assert status == 200
        assert json.loads(body)["release"]
        assert {value for _, value in certificate["subjectAltName"]} == set(domains)


def test_plain_http_is_redirected(address, domains):
    """A person who types the name alone ends up on HTTPS."""
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    connection.request("GET", "/a?b=c", headers={"Host": domains[0]})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (301, f"https://{domains[0]}/a?b=c")
    connection.close()


def test_other_names_are_closed_once_there_is_a_domain(address):
    """Before, the site answers under every name, since nobody knows its own."""
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    connection.request("GET", "/", headers={"Host": address})
    with pytest.raises(ConnectionError):
        connection.getresponse()


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("one.toll.test ops@toll.test", "instead of the challenge"),
        ("closed.toll.test ops@toll.test", "no answer on port 80"),
        ("three.toll.test ops@toll.test --acme-url https://127.0.0.1:9/dir", "127.0.0.1"),
    ],
    ids=["another server", "closed port", "no authority"],
)
def test_a_domain_that_cannot_be_had_changes_nothing(
    as_root, refused, address, acme, domains, arguments, words
):
    """The domain that the site is on stays, and so does what later runs know of it."""
    before = as_root(f"sha256sum {CHOICES} && find /etc/nginx -type f | sort | xargs sha256sum")
    said = refused(f"{DOMAIN} {arguments}", 1)
    assert words in said
    assert "The site serves as before." in said
    assert ask(address, domains[0], "/readyz", acme.root)[0] == 200
    after = as_root(f"sha256sum {CHOICES} && find /etc/nginx -type f | sort | xargs sha256sum")
    assert after == before


@pytest.mark.usefixtures("bare")
def test_a_site_that_cannot_be_changed_goes_back(as_root, refused, address, acme, domains):
    """The certificate is there, and then nginx does not take the configuration."""
    said, broken = "/root/walk/back.txt", "/etc/nginx/conf.d/broken.conf"
    spoil = (
        f"until grep -q three.toll.test {CHOICES}; do sleep 0.1; done; echo nonsense > {broken};"
        f" until grep -q 'goes back' {said}; do sleep 0.1; done; rm {broken}"
    )
    as_root(f'touch {said}; systemd-run --unit=spoil sh -c "{spoil}"')
    before = as_root(f"cat {CHOICES}")
    refused(
        f"{DOMAIN} three.toll.test ops@toll.test --acme-url {acme.directory} --acme-ca"
        f" /root/acme-ca.pem >{said}",
        1,
    )
    assert "The site could not be changed; it goes back to what it was." in as_root(f"cat {said}")
    assert as_root(f"tail -n 3 {said}").count("It serves as before.") == 1
    assert as_root(f"cat {CHOICES}") == before
    assert ask(address, domains[0], "/readyz", acme.root)[0] == 200


def test_the_choice_is_kept(as_root, domains):
    """The second run of setup-production.sh, after the domain, has found nothing to change."""
    second = as_root("cat /root/walk/production.txt").split("Done in")[2]
    assert "changed=0: everything was already as it should be" in second
    assert f"the site: https://{domains[0]}/" in second


def test_logs_are_complete_and_private(as_root):
    """They name every file that was written, so only root reads them; and no key is among it."""
    logs = "/var/log/toll-app-setup"
    assert as_root(f"stat -c %a {logs}").strip() == "700"
    modes = as_root(f"stat -c '%a %U' {logs}/*.log").splitlines()
    assert set(modes) == {"600 root"}
    assert "PLAY RECAP" in as_root(f"cat {logs}/setup-production-*.log")
    as_root("test -s /etc/toll-app/credentials/secret_key")
    found = as_root(f"grep -rlF -f /etc/toll-app/credentials/secret_key {logs} /root/walk || true")
    assert found == ""


@pytest.mark.one_system(12)
def test_upgrade_from_another_folder(as_root):
    """A new archive is unpacked beside the old one; settings and domain are not in either."""
    as_root(f"echo 'gunicorn_systemd_workers: 2' >>{SETTINGS}")
    before = json.loads(as_root("curl --silent http://localhost:5000/readyz"))["release"]
    as_root("cp -a /root/toll-app /srv/next && echo '# next' >>/srv/next/app/app.py")
    as_root("/srv/next/setup-production.sh")
    assert json.loads(as_root("curl --silent http://localhost:5000/readyz"))["release"] != before
    assert "gunicorn_systemd_workers: 2" in as_root(f"cat {SETTINGS}")
    assert "workers = 2" in as_root("cat /etc/toll-app/gunicorn.conf.py")


def test_commands_of_the_guide_that_verify(as_root):
    """What the guide tells people to type has to work as written, also where there is no sudo."""
    as_root("set -e\n" + commands("Verify").replace("sudo ", ""))


@pytest.mark.usefixtures("bare")
def test_a_package_index_that_is_not_reached_is_named(as_root, refused):
    """Before anything of the site is touched."""
    as_root("rm -f /var/lib/toll-app-setup/venv/.complete")
    said = refused(f"PIP_CONFIG_FILE=/dev/null PIP_INDEX_URL=https://127.0.0.1:9/simple {SETUP}", 1)
    assert "Ansible cannot be fetched from the Python package index" in said
    assert "/etc/pip.conf" in said
    as_root("curl --fail --silent http://localhost:5000/readyz")


@pytest.mark.usefixtures("bare")
def test_two_at_once_do_not_meet(as_root, refused):
    """Also not one that goes on after its terminal was closed."""
    as_root("systemd-run --unit=other-setup flock /run/lock/toll-app-setup sleep 60")
    as_root("while flock --nonblock /run/lock/toll-app-setup true; do sleep 0.1; done")
    assert "another set-up is running on this server" in refused(SETUP)
    as_root("systemctl stop other-setup")


@pytest.mark.usefixtures("bare")
def test_an_interrupted_run_says_how_to_go_on(as_root):
    """Ctrl-C reaches the script and its Ansible; the lock is free at once."""
    said = "/root/walk/interrupted.txt"
    as_root(
        f"systemd-run --unit=interrupted --property=StandardOutput=file:{said}"
        f" --property=StandardError=append:{said} {SETUP}"
    )
    as_root(f"until grep -q 'step 5 of' {said}; do sleep 0.1; done")
    as_root("systemctl kill --signal=INT interrupted")
    as_root("while systemctl --quiet is-active interrupted; do sleep 0.1; done")
    assert "interrupted. Run the same command again" in as_root(f"cat {said}")
    as_root("flock --nonblock /run/lock/toll-app-setup true")


@pytest.mark.usefixtures("bare")
def test_a_port_that_something_else_holds_is_named(as_root, refused, host):
    """Such as another web server, which nobody would want to see killed."""
    as_root("systemctl stop nginx")
    as_root("cp /usr/bin/python3 /root/apache2")
    as_root("systemd-run --unit=other-web /root/apache2 -m http.server 80")
    as_root("while ! curl --silent --output /root/walk/other http://localhost/; do sleep 0.1; done")
    said = refused(SETUP)
    assert re.search(
        r"port 80 is taken by apache2 \(pid \d+, other-web\.service\): "
        r"stop it with `systemctl disable --now other-web\.service`",
        said,
    )
    as_root("systemctl stop other-web; systemctl start nginx")


@pytest.fixture(scope="module")
def replaced(host: Host, bare: None) -> tuple[str, str]:
    """What two runs said: beside a process that somebody had started by hand, and one with a yes.

    The second is told to watch the server and to keep copies elsewhere as well.
    """
    began = host.run(
        "systemctl stop toll-app.socket toll-app.service; cd /srv && systemd-run --scope --quiet"
        " sh -c 'exec python3 -m http.server 5000' >/dev/null 2>&1 &"
        " while ! curl -s http://localhost:5000 >/dev/null; do sleep 0.1; done"
    )
    assert began.rc == 0, began.stderr
    refused = host.run(f"{SETUP} 2>&1")
    assert refused.rc == 2, refused.stdout
    done = host.run(
        f"mkdir -p /srv/copies && echo 'monitoring_enabled: true' >>{SETTINGS} && sed -i"
        f" '/^    role: toll_app$/a\\    backup: {COPIED}' {SETTINGS} && {SETUP} --yes 2>&1"
    )
    assert done.rc == 0, done.stdout
    return refused.stdout, done.stdout


@pytest.mark.usefixtures("bare")
def test_a_process_started_by_hand_is_replaced_when_told_so(as_root, replaced):
    """The usual beginning: `python3 app.py &`. Here, while the service was stopped."""
    said, _ = replaced
    assert "listens on port 5000, started as `python3 -m http.server 5000` in /srv" in said
    assert json.loads(as_root("curl --silent http://localhost:5000/readyz"))["status"] == "ok"


@pytest.mark.usefixtures("by_hand")
def test_what_was_there_before_can_be_brought_back(as_root):
    """Somebody who is not content gets back what they had, with the domain that it had."""
    as_root("bash $(ls -d /var/backups/toll-app-setup/* | head -n 1)/restore.sh")
    as_root("while ! curl -s http://localhost:5000 >/dev/null; do sleep 0.1; done")
    assert as_root("curl --silent --header 'Host: one.toll.test' http://localhost/") == "by hand\n"


@pytest.mark.usefixtures("by_hand")
def test_a_set_up_that_fails_leaves_what_served_before(as_root, refused):
    """Here for a setting that nobody can mean, after the old way was stopped."""
    as_root(f"echo 'gunicorn_systemd_workers: 0' >>{SETTINGS}")
    said = refused(f"{SETUP} --yes", 1)
    assert "gunicorn_systemd_workers" in said
    assert "What served before was started again" in said
    as_root(f"sed -i '/gunicorn_systemd_workers: 0/d' {SETTINGS}")
    as_root("while ! curl -s http://localhost:5000 >/dev/null; do sleep 0.1; done")
    assert as_root("curl --silent --header 'Host: one.toll.test' http://localhost/") == "by hand\n"


@pytest.mark.usefixtures("bare")
def test_commands_of_the_guide_that_bring_data_over(as_root):
    """Somebody who began with the development server has passages and users in its file."""
    development = (
        "cd /opt/toll-app/current/app && TOLL_ENVIRONMENT=development"
        " TOLL_DATABASE_URL=sqlite:////root/app/instance/toll.db"
        " /opt/toll-app/current/bin/python -m flask --app app toll"
    )
    as_root("mkdir -p /root/app/instance")
    as_root(f"{development} migrate")
    # What a server that is killed leaves: the last rows are not in the file yet.
    database = "/root/app/instance/toll.db"
    holds = f"import sqlite3, time; c = sqlite3.connect('{database}');"
    holds += " c.execute('select count(*) from users').fetchall(); time.sleep(600)"
    as_root(f'systemd-run --unit=holds python3 -c "{holds}"')
    as_root(f"until ls {database}-wal; do sleep 0.1; done")
    as_root(f"{development} user create from-before --role admin")
    as_root("systemctl kill --signal=KILL holds && ! systemctl --quiet is-active holds || sleep 1")
    assert int(as_root(f"stat -c %s {database}-wal")) > 0
    said = as_root("set -e; cd /root\n" + commands("Bring its data over").replace("sudo ", ""))
    assert said.startswith("(0, 0, 0)\n")
    assert "from-before" in as_root("toll-app flask toll user list")
    assert json.loads(as_root("curl --silent http://localhost:5000/readyz"))["status"] == "ok"


@pytest.mark.usefixtures("bare")
def test_a_server_may_watch_itself_and_keep_copies_elsewhere(as_root, replaced):
    """Two settings and one more run, and the commands that take the watching away again."""
    _, said = replaced
    steps = [(int(number), int(total)) for number, total in STEP.findall(said)]
    assert [number for number, _ in steps] == list(range(1, steps[0][1] + 1))
    assert "Setting up what watches it" in said
    assert re.search(r"prometheus\.service +active", said)
    as_root("systemctl start toll-app-backup")
    copy = json.loads(as_root("toll-app backup list --json"))["copies"][0]
    as_root(f"cmp /srv/copies/{copy['name']} /var/backups/toll-app/{copy['name']}")
    as_root("curl --fail --silent 127.0.0.1:9090/-/ready 127.0.0.1:9093/-/ready")
    # All is well, so nobody is called; the test host's names lead nowhere from outside.
    ask = "curl --fail --silent 127.0.0.1:9090/api/v1/query?query="
    as_root(f"until {ask}probe_success | grep -q '\"1\"]'; do sleep 1; done")
    as_root("set -e\n" + commands("Turning it off", WATCHING).replace("sudo ", ""))
    assert as_root("ss -Hltn '( sport >= :9000 and sport <= :9200 )'") == ""
    assert as_root("systemctl list-units --all --no-legend 'prometheus*' 'toll-app-metrics*'") == ""
    as_root(f"sed -i '/^monitoring_enabled:/d' {SETTINGS}")


@pytest.mark.usefixtures("bare")
def test_commands_of_the_guide_that_remove(as_root, host):
    """Nothing of it listens, runs or lies there afterwards, but the data and the copies."""
    # What somebody has elsewhere, for the next test.
    as_root(
        "mkdir -p /root/kept && toll-app backup && cp -a /etc/toll-app-setup /root/kept/"
        " && name=$(ls -t /var/backups/toll-app/ | grep 'sqlite$' | head -n 1)"
        " && cp /var/backups/toll-app/$name /var/backups/toll-app/$name.json /root/kept/"
        # Not of a lost server; its index was tried when the server was bare.
        " && cp -a /var/lib/toll-app-setup/venv /root/kept/"
    )
    as_root("set -e\n" + commands("Remove it").replace("sudo ", ""))
    assert as_root("ss -Hltn 'sport = :80 or sport = :443 or sport = :5000'") == ""
    assert as_root("systemctl list-units --all --no-legend 'toll-app*' 'cert*'") == ""
    left = as_root(
        "ls -d /opt/* /etc/toll-app* /etc/nginx /etc/letsencrypt /etc/systemd/system/*toll* "
        "/usr/local/sbin/toll-app* /usr/local/lib/apphost /usr/local/bin/certbot "
        "/var/lib/toll-app* /var/lib/application-metrics /etc/systemd/system/*cert* "
        "/usr/local/lib/certificates /etc/certificates /var/lib/certificates "
        "/var/lib/gunicorn-handover /var/lib/config-tree 2>/dev/null || true"
    )
    assert left.split() == ["/var/lib/toll-app"]
    # apt would ask for a sentence before it lets them go.
    packages = as_root("dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n'")
    assert "-interpreter installed" not in packages


@pytest.mark.usefixtures("bare")
def test_a_lost_server_comes_back_from_what_was_kept_elsewhere(as_root, address, acme, domains):
    """Its settings and a copy: the domain, the certificate and the data are there again."""
    as_root("rm -rf /var/lib/toll-app /var/backups/toll-app")
    as_root("cp -a /root/kept/toll-app-setup /etc/")
    as_root("install -d -m 0700 /var/lib/toll-app-setup")
    as_root("mv /root/kept/venv /var/lib/toll-app-setup/")
    as_root(f"{SETUP} 2>&1")
    assert "from-before" not in as_root("toll-app flask toll user list")
    name = as_root("ls /root/kept | grep 'sqlite$'").strip()
    as_root(f"cp /root/kept/{name} /root/kept/{name}.json /var/backups/toll-app/")
    as_root(f"toll-app restore {name}")
    assert "from-before" in as_root("toll-app flask toll user list")
    status, body, _ = ask(address, domains[0], "/readyz", acme.root)
    assert (status, json.loads(body)["status"]) == (200, "ok")
