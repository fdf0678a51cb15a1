"""Changes: those that nginx would refuse, those that others made, and what fails at night."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Web, answers, wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from testinfra.host import Host


def self_signed(name: str) -> tuple[str, str]:
    """A certificate for a day and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def main_pid(as_root: Callable[[str], str]) -> str:
    return as_root("systemctl show --property MainPID --value nginx.service").strip()


def test_a_configuration_that_nginx_refuses_does_not_stay(
    web: Web,
    variables: dict[str, Any],
    name: str,
    play: Callable[..., Any],
    as_root: Callable[[str], str],
) -> None:
    """The site goes on, the next boot finds what worked, and the message says which line it is."""
    before = as_root("find /etc/nginx -type f -exec sha256sum {} +")
    broken = {
        "name": "broken",
        "domains": ["broken.example.org"],
        "certificate": "/etc/ssl/sites/none.pem",
        "certificate_key": "/etc/ssl/sites/none.pem",
        "upstream": "127.0.0.1:5001",
    }
    played = play(nginx_sites=[*variables["nginx_sites"], broken])
    assert played.returncode != 0
    assert "nginx refused the configuration; nothing was changed" in played.output
    assert "/etc/ssl/sites/none.pem" in played.output
    assert as_root("find /etc/nginx -type f -exec sha256sum {} +") == before
    assert answers(web, name)


def test_a_foreign_file_that_is_broken_is_named(
    web: Web, name: str, play: Callable[..., Any], as_root: Callable[[str], str]
) -> None:
    """Somebody else's file must not be taken for one of ours, nor be removed."""
    path = "/etc/nginx/conf.d/foreign.conf"
    as_root(f"echo 'server {{ listen 99999; }}' > {path}")
    try:
        played = play(nginx_retry_after_seconds=77)
        assert played.returncode != 0
        assert (
            f"Not written by this project, so repair or remove it by hand: {path}" in played.output
        )
        assert as_root(f"cat {path}")
        assert answers(web, name)
    finally:
        as_root(f"rm {path}")


def test_a_reload_that_nginx_cannot_do_fails_and_says_why(
    web: Web, name: str, play: Callable[..., Any], as_root: Callable[[str], str]
) -> None:
    """`nginx -t` cannot foresee a port that is taken; nginx then keeps the old configuration.

    The files have to be that configuration again, or the next boot finds what nginx refused.
    """
    before = as_root("find /etc/nginx -type f -exec sha256sum {} +")
    as_root("systemd-run --quiet --unit squatter python3 -m http.server 8181")
    wait_for(lambda: ":1FF5" in as_root("cat /proc/net/tcp"))
    as_root("echo 'server { listen 8181; return 444; }' > /etc/nginx/conf.d/foreign.conf")
    try:
        played = play(nginx_retry_after_seconds=77)
        assert played.returncode != 0
        assert "bind() to 0.0.0.0:8181 failed" in played.output
        # The cause is a file that is not the role's, which goes on being there.
        assert "The previous configuration is back" in " ".join(played.output.split())
        assert answers(web, name)
    finally:
        as_root("rm /etc/nginx/conf.d/foreign.conf; systemctl stop squatter.service")
    assert as_root("find /etc/nginx -type f -exec sha256sum {} +") == before
    # The change is still to be made.
    played = play(nginx_retry_after_seconds=77)
    assert played.returncode == 0, played.output
    assert played.changed > 0


# A drop-in for systemd takes effect with a start only.
@pytest.mark.parametrize("more", [{}, {"nginx_stop_timeout_seconds": 6}], ids=["reload", "restart"])
def test_a_change_that_a_site_does_not_survive_is_reverted(
    web: Web,
    variables: dict[str, Any],
    name: str,
    play: Callable[..., Any],
    as_root: Callable[[str], str],
    more: dict[str, Any],
) -> None:
    """nginx takes it, so only a look at the sites shows it; clients see it for seconds only."""
    pid = main_pid(as_root)
    places = "/etc/nginx /etc/systemd/system/nginx.service.d"
    before = as_root(f"find {places} -type f -exec sha256sum {{}} +")
    first, *rest = variables["nginx_sites"]
    nobody = {**first, "upstream": "127.0.0.1:9"}
    played = play(nginx_sites=[nobody, *rest], **more)
    assert played.returncode != 0
    said = " ".join(played.output.split())
    assert (
        f"Site {first['name']} answered 200 before, and now 502; "
        f"see /etc/nginx/sites/{first['name']}.conf" in said
    )
    assert "nginx runs with the previous configuration again." in said
    assert as_root(f"find {places} -type f -exec sha256sum {{}} +") == before
    assert web.ask(name).status == 200
    assert (main_pid(as_root) != pid) is bool(more)
    played = play(nginx_retry_after_seconds=77)
    assert played.returncode == 0, played.output


def test_a_file_edited_by_hand_is_reported_and_kept(
    play: Callable[..., Any], as_root: Callable[[str], str]
) -> None:
    """Whoever mended something at night shall hear that it is gone, and find it again."""
    path = "/etc/nginx/snippets/timeouts.conf"
    as_root(f"echo '# mended at night' >> {path}")
    played = play()
    assert played.returncode == 0, played.output
    assert f"{path} had been written by somebody else" in played.output
    assert "mended at night" not in as_root(f"cat {path}")
    assert "mended at night" in as_root(f"cat /var/lib/config-tree/nginx/*{path}")


def test_a_renewed_certificate_is_served_after_a_reload(
    web: Web, site: dict[str, Any], name: str, as_root: Callable[[str], str]
) -> None:
    """What a certificate's deploy hook does. Connections from before are not cut."""
    directory = site["certificate"].rpartition("/")[0]
    with web.handshake(name) as before:
        shown = before.getpeercert(binary_form=True)
        as_root(f"cp -a {directory} /root/kept")
        certificate, key = self_signed(name)
        as_root(f"echo '{certificate}' > {site['certificate']}")
        as_root(f"echo '{key}' > {site['certificate_key']}")
        as_root("systemctl reload nginx.service")
        # At once: from here on no worker of before may accept a connection.
        with web.handshake(name) as after:
            assert after.getpeercert(binary_form=True) != shown
        before.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    as_root(f"cp -a /root/kept/. {directory}/ && rm -r /root/kept")
    as_root("systemctl reload nginx.service")


@contextlib.contextmanager
def asking(web: Web, name: str) -> Iterator[None]:
    """Ask on one connection after the other until the block ends. Each must get its answer."""
    bad: list[str] = []
    asked = 0
    stop = threading.Event()

    def load() -> None:
        nonlocal asked
        # Two processors are busy enough without a client that asks as fast as it can.
        while not stop.wait(0.02):
            asked += 1
            try:
                status = web.ask(name).status
                if status != 200:
                    bad.append(str(status))
            except OSError as error:
                bad.append(repr(error))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert asked > 3
    assert bad == []


@contextlib.contextmanager
def slow_request(web: Web, name: str) -> Iterator[None]:
    """A request whose body drips until the block ends. It must get its answer then."""
    over = threading.Event()
    size = 10_000
    with web.handshake(name) as slow:
        head = f"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: {size}\r\n\r\n"
        slow.sendall(head.encode())
        sent = 0

        def drip() -> None:
            nonlocal sent
            while not over.wait(0.2):
                slow.sendall(b"x")
                sent += 1

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        slow.sendall(b"x" * (size - sent))
        assert slow.recv(12) == b"HTTP/1.1 200"


def running_workers(as_root: Callable[[str], str]) -> set[str]:
    """The processes that accept connections for the master that the package's scripts know."""
    return set(as_root("pgrep -f '^nginx: worker process$' -P $(cat /run/nginx.pid)").split())


def test_no_request_is_lost_in_a_reload(web: Web, name: str, as_root: Callable[[str], str]) -> None:
    with asking(web, name):
        for _ in range(3):
            as_root("systemctl reload nginx.service")


def test_no_request_is_lost_in_a_restart(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    """An upgrade restarts nginx: who is slow must not keep others out, nor be cut off."""
    before = main_pid(as_root)
    with asking(web, name), slow_request(web, name):
        as_root("systemctl restart nginx.service")
        assert web.ask(name).status == 200
        assert main_pid(as_root) not in ("0", before)
    # Nothing is left of it: not its processes, nor sockets that nobody accepts from.
    listed = "systemctl list-units --all --no-legend 'nginx-draining-*'"
    wait_for(lambda: as_root(listed) == "")
    kept = "systemctl show --property NFileDescriptorStore --value nginx.service"
    assert as_root(kept).strip() == "0"


def test_an_upgrade_in_place_is_followed(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    """The package exchanges the program; the old one is there until its last request is over."""
    before = main_pid(as_root)
    with slow_request(web, name):
        as_root("invoke-rc.d nginx upgrade")
        workers = running_workers(as_root)
        as_root("systemctl reload nginx.service")
        assert running_workers(as_root).isdisjoint(workers)
    wait_for(lambda: main_pid(as_root) not in ("0", before))
    assert main_pid(as_root) == as_root("cat /run/nginx.pid").strip()


def test_clients_do_not_wait_for_a_restart_that_failed(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    """A balancer asks another host when it is refused, and not while it waits."""
    path = "/etc/nginx/conf.d/foreign.conf"
    as_root(f"echo nonsense > {path}")
    try:
        as_root("! systemctl restart nginx.service 2>/dev/null")
        with pytest.raises(ConnectionRefusedError):
            web.connect(tls=True)
    finally:
        as_root(f"rm {path}")
    wait_for(lambda: answers(web, name))


def test_rotated_logs_are_written_to(web: Web, name: str, as_root: Callable[[str], str]) -> None:
    """nginx must be able to open the new file from inside its sandbox."""
    as_root("logrotate --force /etc/logrotate.d/nginx")
    wait_for(lambda: web.ask(name).status == 200)
    number = web.ask(name, "/rotated").header("X-Request-Id")
    assert as_root(f"grep {number} /var/log/nginx/access.log")
    assert as_root("stat -c %a /var/log/nginx/access.log").strip() == "640"


def test_a_log_that_grows_is_rotated_before_its_day_is_over(
    web: Web, name: str, variables: dict[str, Any], as_root: Callable[[str], str]
) -> None:
    """A log fills the disk within hours when somebody asks without end."""
    log = "/var/log/nginx/access.log"
    inode = as_root(f"stat -c %i {log}")
    as_root("systemctl start logrotate.service")
    assert as_root(f"stat -c %i {log}") == inode
    as_root(f"truncate -s +{variables['nginx_log_max_mib']}M {log}")
    as_root("systemctl start logrotate.service")
    assert as_root(f"stat -c %i {log}.1") == inode
    assert as_root(f"stat -c %a:%U:%G {log} {log}.1 | uniq | wc -l").strip() == "1"

    def written() -> bool:
        number = web.ask(name).header("X-Request-Id")
        return as_root(f"grep -c {number} {log} || true").strip() == "1"

    wait_for(written)
    # Within the hour, which the distribution's timer does not promise.
    assert "*:00/10:00" in as_root("systemctl show --property TimersCalendar logrotate.timer")


def test_a_killed_master_comes_back(web: Web, name: str, as_root: Callable[[str], str]) -> None:
    before = main_pid(as_root)
    as_root(f"kill -9 {before}")
    wait_for(lambda: main_pid(as_root) not in ("0", before))
    wait_for(lambda: answers(web, name))


def test_a_site_that_is_taken_off_the_list_is_gone(
    web: Web,
    variables: dict[str, Any],
    name: str,
    play: Callable[..., Any],
    as_root: Callable[[str], str],
) -> None:
    fewer = [site for site in variables["nginx_sites"] if site["name"] != "plain"]
    played = play(nginx_sites=fewer)
    assert played.returncode == 0, played.output
    assert "plain.conf" not in as_root("ls /etc/nginx/sites")
    assert answers(web, name)
    played = play()
    assert played.returncode == 0, played.output
    assert web.ask("plain.example.org", tls=False).status == 200


def test_everything_is_back_after_a_reboot(
    host: Host, web: Web, name: str, as_root: Callable[[str], str], reboot: Callable[[], None]
) -> None:
    before = as_root("stat -c %Y /proc/1").strip()
    reboot()
    wait_for(lambda: answers(web, name), 60)
    assert as_root("stat -c %Y /proc/1").strip() != before
    assert host.service("nginx.service").is_running
    line = as_root("tail -n 1 /var/log/nginx/access.log")
    assert json.loads(line)["status"] == 200
