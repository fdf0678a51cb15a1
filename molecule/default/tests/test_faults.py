"""What goes wrong at night: processes that die and a host that restarts."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Api, Site


class Load:
    """Asks a page every 20 ms from one thread until stopped, and counts what was not a 200."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.asked = 0
        self.bad: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set() and self.asked < 2000:
            self.asked += 1
            try:
                answer = self.site.get("/readyz")
                if answer.status != 200:
                    self.bad.append(str(answer.status))
            except OSError as error:
                self.bad.append(repr(error))
            time.sleep(0.02)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def main_pid(as_root: Callable[[str], str]) -> int:
    return int(as_root("systemctl show --property MainPID --value toll-app.service"))


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.2)


def test_killed_worker_is_replaced(site: Site, as_root: Callable[[str], str]) -> None:
    """The master stays and starts another. A request that the worker held is lost, no other."""
    master = main_pid(as_root)
    before = as_root(f"pgrep -P {master}").split()
    with Load(site) as load:
        time.sleep(0.5)
        as_root(f"kill -9 {before[0]}")
        wait_for(lambda: len(as_root(f"pgrep -P {master}").split()) == len(before))
        # Enough requests after it, however busy the machine is.
        wait_for(lambda: load.asked > 20)
    assert main_pid(as_root) == master
    assert len(load.bad) <= 1, load.bad


def test_killed_master_is_restarted_and_requests_wait(
    site: Site, as_root: Callable[[str], str]
) -> None:
    """systemd holds the sockets, so clients queue instead of being refused."""
    master = main_pid(as_root)
    with Load(site) as load:
        time.sleep(0.5)
        as_root(f"kill -9 {master}")
        wait_for(lambda: main_pid(as_root) not in (0, master))
        site.wait_until_ready()
        time.sleep(0.5)
    # What the dead workers had accepted is lost; what waits in the sockets is not.
    assert len(load.bad) <= 1, load.bad


def test_everything_comes_back_after_a_reboot(
    site: Site, api: Api, reboot: Callable[[], None], as_root: Callable[[str], str]
) -> None:
    """With the same certificate, release, key and passages, and without anybody's hand."""
    plate = f"R{secrets.token_hex(4).upper()}"
    idempotency_key = secrets.token_hex(8)
    recorded = api.record(plate, idempotency_key).json()
    serial = site.get("/readyz").certificate["serialNumber"]
    release = site.get("/readyz").json()["release"]
    key = as_root("sha256sum /etc/toll-app/credentials/secret_key")
    reboot()
    answer = site.wait_until_ready()
    assert answer.certificate["serialNumber"] == serial
    assert answer.json()["release"] == release
    assert as_root("sha256sum /etc/toll-app/credentials/secret_key") == key
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""
    # A lane that had no answer before sends it again.
    assert api.record(plate, idempotency_key).json() == recorded
    assert api.find(plate) == [recorded]
