"""The site's names change, and what certbot has, while a client makes a handshake every 50 ms.

Each step is a run of the parts of `site.yml` that certificates are about. In some of them the
authority is out of reach: a name that has a certificate keeps it then.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://debian12"]

SITE = "../../site.yml"
# `make proof`.
EVERY_CASE = bool(os.environ.get("EVERY_SYSTEM"))


@dataclass
class Watch:
    """A client that trusts the authority alone, and what it did not get."""

    address: str
    authority: str
    names: list[str]
    handshakes: int = 0
    bad: list[str] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            for name in self.names:
                self.handshakes += 1
                try:
                    self.handshake(name)
                except OSError as error:
                    self.bad.append(f"{name}: {error}")

    def handshake(self, name: str) -> dict[str, Any]:
        """What is shown for the name. Raises ssl.SSLError if a client would not trust it."""
        context = ssl.create_default_context(cafile=self.authority)
        with (
            socket.create_connection((self.address, 443), 20) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            return dict(connection.getpeercert() or {})


@dataclass
class Step:
    """One run, and what the client saw meanwhile."""

    returncode: int
    output: str
    handshakes: int
    bad: list[str]
    # Of the names after it, by the client's own verification; empty for none that it trusts.
    serials: dict[str, str]


@pytest.fixture(scope="module")
def steps(host: Host, address: str, acme: Any, control: Any) -> dict[str, Step]:
    """The runs, in order. The last one leads back to the inventory's names."""
    variables = host.ansible.get_variables()
    first, second = variables["toll"]["domains"]
    new = f"new.{first}"

    def run(command: str) -> str:
        result = host.run(command)
        assert result.rc == 0, f"{command}: {result.stderr or result.stdout}"
        return str(result.stdout)

    @contextmanager
    def authority_away() -> Iterator[None]:
        run(f"cp /etc/hosts /root/hosts && echo 127.0.0.1 {acme.container} >> /etc/hosts")
        try:
            yield
        finally:
            # A container's file is a mount, which nothing can be moved over.
            run("cat /root/hosts > /etc/hosts")

    def served() -> dict[str, str]:
        serials = {}
        for name in (first, second, new):
            try:
                serials[name] = Watch(address, str(acme.root), []).handshake(name)["serialNumber"]
            except OSError:
                serials[name] = ""
        return serials

    def step(domains: list[str], keep: list[str], before: str = "", **more: Any) -> Step:
        with Watch(address, str(acme.root), keep) as watch:
            if before:
                run(before)
            played = control.run_playbook(
                SITE,
                limit=variables["inventory_hostname"],
                variables={"toll_settings": {"domains": domains}, **more},
                arguments=("--tags=certbot,nginx",),
            )
        output = " ".join(played.output.split())
        return Step(played.returncode, output, watch.handshakes, watch.bad, served())

    both = [first, second]
    delete = "certbot delete --non-interactive --cert-name $(basename $(readlink {}))"
    link = "$(awk '/ssl_certificate / {print $2}' /etc/nginx/sites/toll-app.conf | xargs dirname)"
    found = {"before": Step(0, "", 0, [], served())}
    with authority_away():
        found["another order"] = step([second, first], both)
        found["a new name, refused"] = step([*both, new], both)
        if EVERY_CASE:
            found["another name alone, refused"] = step([new], both)
            found["another kind of key, refused"] = step(both, both, certbot_key_type="ecdsa-p384")
            found["deleted, refused"] = step(both, both, delete.format(link))
    if EVERY_CASE:
        found["deleted"] = step(both, both)
    found["a new name"] = step([*both, new], both)
    found["back"] = step(both, both)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "another order",
        "a new name, refused",
        pytest.param("another name alone, refused", marks=pytest.mark.proof),
        pytest.param("another kind of key, refused", marks=pytest.mark.proof),
        pytest.param("deleted, refused", marks=pytest.mark.proof),
        pytest.param("deleted", marks=pytest.mark.proof),
        "a new name",
        "back",
    ],
)
def test_a_client_never_sees_another_certificate(steps: dict[str, Step], name: str) -> None:
    """Neither the placeholder nor one for other names, not for a moment."""
    assert steps[name].handshakes > 20
    assert steps[name].bad == []


def test_the_order_of_the_names_does_not_matter(steps: dict[str, Step]) -> None:
    """The authority is out of reach: had it been needed, the run would have failed."""
    step = steps["another order"]
    assert step.returncode == 0, step.output
    assert step.serials == steps["before"].serials


@pytest.mark.parametrize(
    "name",
    [
        "a new name, refused",
        pytest.param("another name alone, refused", marks=pytest.mark.proof),
    ],
)
def test_names_without_a_certificate_do_not_go_live(steps: dict[str, Step], name: str) -> None:
    """The run stops before nginx changes: the names of before are served, and no others."""
    step = steps[name]
    assert step.returncode != 0
    assert "Connection refused" in step.output
    assert step.serials == steps["before"].serials


def test_the_message_says_what_is_served(steps: dict[str, Step], host: Host) -> None:
    """The operator reads it at night: it was looked at."""
    first, _ = host.ansible.get_variables()["toll"]["domains"]
    served = steps["a new name, refused"].output
    assert f"{first} now serves a certificate from CN=Pebble" in served
    assert f"new.{first} now serves nothing: the web server refuses the name" in served


@pytest.mark.proof
def test_another_kind_of_key_waits_for_its_certificate(steps: dict[str, Step], host: Host) -> None:
    first, _ = host.ansible.get_variables()["toll"]["domains"]
    step = steps["another kind of key, refused"]
    assert step.returncode != 0
    assert f"{first} now serves a certificate from CN=Pebble" in step.output


@pytest.mark.proof
def test_what_was_deleted_in_certbot_is_served_and_comes_back(
    steps: dict[str, Step], host: Host
) -> None:
    refused, agreed = steps["deleted, refused"], steps["deleted"]
    assert refused.returncode != 0
    assert refused.serials == steps["before"].serials
    assert agreed.returncode == 0, agreed.output
    assert all(
        agreed.serials[name] != refused.serials[name]
        for name in host.ansible.get_variables()["toll"]["domains"]
    )


def test_a_new_name_goes_live_with_its_certificate(steps: dict[str, Step]) -> None:
    step = steps["a new name"]
    assert step.returncode == 0, step.output
    assert len(set(step.serials.values())) == 1
    assert "" not in step.serials.values()


def test_the_names_of_before_need_no_new_certificate(steps: dict[str, Step]) -> None:
    """Going back at night costs no authorisation, and works while the authority is away."""
    assert steps["back"].returncode == 0, steps["back"].output
    assert steps["back"].serials == steps.get("deleted", steps["before"]).serials


def test_the_remedy_for_what_is_left_works(
    steps: dict[str, Step], host: Host, control: Any, as_root: Callable[[str], str]
) -> None:
    """The warning names a command. Followed, it ends the warning and harms nothing."""
    commands = re.findall(
        r"once no web server reads it: (certbot delete --cert-name \S+ && rm -rf \S+ \S+)",
        steps["back"].output,
    )
    assert commands, steps["back"].output
    for command in dict.fromkeys(commands):
        as_root(command.replace("certbot delete", "certbot delete --non-interactive"))
    variables = host.ansible.get_variables()
    played = control.run_playbook(
        SITE,
        limit=variables["inventory_hostname"],
        # For all hosts, as in the run before: other hosts of its names are nginx's business.
        variables={"toll_settings": {"domains": variables["toll"]["domains"]}},
        arguments=("--tags=certbot,nginx",),
    )
    assert played.returncode == 0, played.output
    assert played.changed == 0, played.output
    assert "no longer in certbot_certificates" not in played.output
