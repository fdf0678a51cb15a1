"""The applications of tests/proof/foreign, as their users know them."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from foreign_load import Listener, Request, Sent, Site, Stream

FOLDER = Path(__file__).parent / "foreign"


class Machine(Protocol):
    """What an application needs of its host."""

    def root(self, *argv: str, given: str | None = None, timeout: float = 900) -> str:
        """Run a command as root that has to succeed; return what it printed."""


@dataclass
class Outcome:
    """What an application came to; durations in seconds."""

    name: str
    system: str
    site_seconds: float = 0.0
    deploy_seconds: float = 0.0
    used: str = ""
    before: str = ""
    after: str = ""
    requests: dict[str, Any] = field(default_factory=dict)
    steady: dict[str, Any] = field(default_factory=dict)
    during: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    lost: int = 0
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Outcome:
        """From a file."""
        return cls(**kept)

    def row(self) -> str:
        """A line of the table."""

        def shown(figures: Mapping[str, Any], name: str) -> str:
            value = figures.get(name, "")
            return f"{value:.2f}" if isinstance(value, float) else str(value)

        cells = [
            *(self.name, self.system, f"{self.before} to {self.after}"),
            *(f"{self.site_seconds:.0f}", f"{self.deploy_seconds:.0f}"),
            *(shown(self.requests, name) for name in ("sent", "failed", "late")),
            str(self.lost),
            *(shown(self.steady, "p99"), shown(self.during, "p99")),
            shown(self.requests, "slowest"),
        ]
        return f"| {' | '.join(cells)} |"

    def text(self) -> str:
        """What else is to be said."""
        wrong = [f"WRONG: {' '.join(each.split())[:200]}" for each in self.wrong]
        return " ".join([self.used, *self.notes, *wrong])


class Application:
    """One of them.

    Attributes:
        name: of its directory, its package and its user on the host.
        vault: secrets of the inventory.
    """

    name = ""

    def __init__(self, run: str) -> None:
        """Name the run: what is made in it has that in its name."""
        self.run = run
        self.vault: dict[str, str] = {}

    def before(self, host: Machine) -> None:
        """Make what its description needs of others."""

    def use(self, host: Machine, site: Site) -> str:
        """Use it as somebody would; say what was done.

        Raises:
            AssertionError: it does not do what it is for.
        """
        raise NotImplementedError

    def load(self, site: Site) -> tuple[list[Stream], list[Listener]]:
        """What its users do all the time."""
        raise NotImplementedError

    def judge(
        self,
        host: Machine,
        site: Site,
        streams: Sequence[Stream],
        listeners: Sequence[Listener],
        outcome: Outcome,
    ) -> None:
        """Look for what was acknowledged."""

    def copies(self, host: Machine, site: Site, outcome: Outcome) -> None:
        """Copy its data, damage them, and restore them."""


def acknowledged(sent: Sequence[Sent]) -> list[str]:
    """What requests made, by their good answers."""
    return [each.request.key for each in sent if each.request.key and not each.error]


class Radicale(Application):
    """Calendars, each event a file."""

    name = "radicale"
    RATE = 10.0
    # Radicale reads all events of a calendar for each one that is added to it.
    CALENDARS = 40

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.calendars = [f"/proof/{run}-{number}/" for number in range(self.CALENDARS)]
        # `openssl passwd -6 -salt foreign calendars`
        self.vault["vault_radicale_users"] = (
            "proof:$6$foreign$RW5VaTse./EdIwykJV34Md6hHu/H2SMFlYLHl"
            "clnxWUYLPiWWb4XPVuv7HHJwhUdWQZ9ZfO7Ac5BBjBC/.EOb.\n"
        )
        login = base64.b64encode(b"proof:calendars").decode()
        self.login = {"Authorization": f"Basic {login}"}

    def event(self, uid: str) -> str:
        """An event as clients send it."""
        lines = [
            *("BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//proof//foreign//EN", "BEGIN:VEVENT"),
            *(f"UID:{uid}", "DTSTAMP:20261101T000000Z", "DTSTART:20261201T100000Z"),
            *("DTEND:20261201T110000Z", f"SUMMARY:Meeting {uid}", "END:VEVENT"),
            *("END:VCALENDAR", ""),
        ]
        return "\r\n".join(lines)

    def path(self, uid: str) -> str:
        """Where an event is. Its number says in which calendar."""
        number = int(uid.rpartition("-")[2])
        return f"{self.calendars[number % self.CALENDARS]}{uid}.ics"

    def put(self, number: int) -> Request:
        """Add an event."""
        uid = f"{self.run}-{number}"
        headers = {**self.login, "Content-Type": "text/calendar; charset=utf-8"}
        return Request("PUT", self.path(uid), self.event(uid), headers, good=(201,), key=uid)

    def get(self, uid: str) -> Request:
        """Read one."""
        return Request("GET", self.path(uid), headers=self.login, holds=f"SUMMARY:Meeting {uid}")

    def use(self, host: Machine, site: Site) -> str:
        site.need(Request("GET", "/.web/", holds="Radicale"))
        assert site.ask(Request("GET", self.calendars[0]))[0] == 401, "anybody may read"
        for calendar in self.calendars:
            site.need(Request("MKCALENDAR", calendar, headers=self.login, good=(201,)))
        site.need(self.put(0))
        site.need(self.get(f"{self.run}-0"))
        return (
            f"{len(self.calendars)} calendars made over CalDAV, an event put and read back, no "
            "access without a password."
        )

    def load(self, site: Site) -> tuple[list[Stream], list[Listener]]:
        def make(number: int) -> Request:
            return self.put(number + 1) if number % 2 else self.get(f"{self.run}-0")

        return [Stream(make, self.RATE)], []

    def listed(self, site: Site) -> set[str]:
        """The events that the calendars have."""
        found: set[str] = set()
        for path in self.calendars:
            ask = Request("PROPFIND", path, headers={**self.login, "Depth": "1"}, good=(207,))
            found.update(re.findall(rf"{path}([\w-]+)\.ics", site.need(ask)))
        return found

    def judge(
        self,
        host: Machine,
        site: Site,
        streams: Sequence[Stream],
        listeners: Sequence[Listener],
        outcome: Outcome,
    ) -> None:
        events = acknowledged(streams[0].sent)
        outcome.lost = len(set(events) - self.listed(site))
        for uid in events[:: max(len(events) // 50, 1)]:
            site.need(self.get(uid))
        outcome.notes.append(f"{len(events)} events acknowledged, {outcome.lost} of them lost.")
        if outcome.lost:
            outcome.wrong.append(f"{outcome.lost} events are lost")

    def copies(self, host: Machine, site: Site, outcome: Outcome) -> None:
        first, later, after = (f"{self.run}-{number}" for number in (0, 99990, 99991))
        before = self.listed(site)
        host.root("radicale", "backup")
        site.need(Request("DELETE", self.path(first), headers=self.login))
        site.need(self.put(99990))
        assert self.listed(site) == before - {first} | {later}, "the calendar cannot be changed"
        start = time.monotonic()
        host.root("radicale", "restore", "latest")
        took = time.monotonic() - start
        assert self.listed(site) == before, "the calendars are not as they were copied"
        site.need(self.get(first))
        site.need(self.put(99991))
        site.need(self.get(after))
        outcome.notes.append(
            f"`sudo radicale backup`, an event deleted, another one added, `sudo radicale restore "
            f"latest` ({took:.0f} s): all {len(before)} events were as they were copied, and new "
            "ones could be added."
        )


class Nautobot(Application):
    """Networks, in a PostgreSQL, with jobs that Celery works off."""

    name = "nautobot"
    RATE = 1.0
    JOBS_RATE = 0.2

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.password = secrets.token_hex(16)
        self.token = secrets.token_hex(20)
        url = f"postgresql://nautobot:{self.password}@localhost/nautobot"
        self.vault["vault_nautobot_database_url"] = url

    def before(self, host: Machine) -> None:
        host.root("sh", "-ec", POSTGRESQL)
        words = (
            f"CREATE ROLE nautobot LOGIN; ALTER ROLE nautobot PASSWORD '{self.password}'; "
            "CREATE DATABASE nautobot OWNER nautobot ENCODING 'UTF8' TEMPLATE template0;"
        )
        # A host that was kept has them.
        host.root("runuser", "-u", "postgres", "--", "psql", "-q", given=words.replace("; ", ";\n"))

    def api(self, method: str, path: str, body: Any = None, **given: Any) -> Request:
        """A request to the API."""
        headers = {
            "Authorization": f"Token {self.token}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        }
        text = json.dumps(body) if body is not None else ""
        return Request(method, f"/api/{path}", text, headers, **given)

    def use(self, host: Machine, site: Site) -> str:
        host.root(
            *("nautobot", "exec", "nautobot-server", "shell"),
            given=ACCOUNT.format(token=self.token),
        )
        page = site.need(Request("GET", "/login/", holds="Nautobot"))
        files = sorted(set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page)))
        for path in files:
            site.need(Request("GET", path))
        site.need(self.tag("first"))
        found = site.json(self.api("GET", "extras/jobs/?job_class_name=RefreshDynamicGroupCaches"))
        self.job = str(found["results"][0]["id"])
        site.need(self.api("PATCH", f"extras/jobs/{self.job}/", {"enabled": True}))
        self.wait(site, [str(site.json(self.enqueue())["job_result"]["id"])])
        schedule = {"name": self.run, "interval": "custom", "crontab": "* * * * *"}
        site.need(self.enqueue({"schedule": schedule}))
        return (
            f"The log-in page and {len(files)} files that it needs, a tag made by the API, a job "
            "that a Celery worker did."
        )

    def tag(self, name: str) -> Request:
        """Make a tag."""
        key = f"{self.run}-{name}"
        body = {"name": key, "content_types": ["dcim.location"]}
        return self.api("POST", "extras/tags/", body, good=(201,), key=key)

    def enqueue(self, more: Mapping[str, Any] | None = None) -> Request:
        """Hand a job in."""
        body = {"data": {}, **(more or {})}
        return self.api("POST", f"extras/jobs/{self.job}/run/", body, good=(201,))

    def load(self, site: Site) -> tuple[list[Stream], list[Listener]]:
        def make(number: int) -> Request:
            if number % 2:
                return self.tag(str(number))
            return self.api("GET", "extras/tags/?limit=1", holds="count")

        return [Stream(make, self.RATE), Stream(lambda _: self.enqueue(), self.JOBS_RATE)], []

    def every(self, site: Site, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        while True:
            page = site.json(self.api("GET", f"{path}&limit=500&offset={len(found)}"))
            found += page["results"]
            if len(found) >= page["count"]:
                return found

    def wait(self, site: Site, ids: Sequence[str], seconds: float = 300) -> dict[str, str]:
        """Wait until these jobs have ended; return what each came to."""
        end = time.monotonic() + seconds
        while True:
            results = self.every(site, "extras/job-results/?exclude_m2m=true")
            states = {str(each["id"]): str(each["status"]["value"]) for each in results}
            open_ends = [each for each in ids if states.get(each) in ("PENDING", "STARTED")]
            if not open_ends or time.monotonic() > end:
                return {each: states.get(each, "unknown") for each in ids}
            time.sleep(1)

    def judge(
        self,
        host: Machine,
        site: Site,
        streams: Sequence[Stream],
        listeners: Sequence[Listener],
        outcome: Outcome,
    ) -> None:
        web, jobs = streams
        tags = acknowledged(web.sent)
        names = Counter(each["name"] for each in self.every(site, f"extras/tags/?q={self.run}"))
        outcome.lost = len(set(tags) - set(names))
        ids = [
            str(json.loads(each.body)["job_result"]["id"]) for each in jobs.sent if not each.error
        ]
        states = Counter(self.wait(site, ids).values())
        started = self.executions(site, ids)
        done, failed = states.pop("SUCCESS", 0), states.pop("FAILURE", 0)
        doubled = sum(1 for count in started.values() if count > 1)
        outcome.notes += [
            f"{len(tags)} tags acknowledged, {outcome.lost} of them lost.",
            f"Jobs handed in all the time: {len(jobs.sent)} sent, {len(ids)} taken, {done} done, "
            f"{failed} failed, {states.total()} lost, {doubled} done twice.",
            self.scheduled(site),
        ]
        if outcome.lost or failed or states or doubled:
            outcome.wrong.append(f"{outcome.lost} tags lost, jobs {failed}, {states}, {doubled}")

    def executions(self, site: Site, ids: Sequence[str]) -> Counter[str]:
        """How often each of these jobs began, by its log."""
        begun: Counter[str] = Counter()
        for each in ids:
            logs = self.every(site, f"extras/job-logs/?job_result={each}")
            begun[each] = sum(1 for log in logs if log["grouping"] == "initialization")
        return begun

    def scheduled(self, site: Site) -> str:
        """What beat had done each minute."""
        results = self.every(site, f"extras/job-results/?scheduled_job={self.run}")
        minutes = Counter(str(each["date_created"])[:16] for each in results)
        twice = sum(1 for count in minutes.values() if count > 1)
        return (
            f"A job that beat hands in each minute ran in {len(minutes)}, twice in {twice} of them."
        )

    def copies(self, host: Machine, site: Site, outcome: Outcome) -> None:
        host.root("nautobot", "backup")
        site.need(self.tag("later"))
        start = time.monotonic()
        host.root("nautobot", "restore", "latest")
        took = time.monotonic() - start
        names = {each["name"] for each in self.every(site, f"extras/tags/?q={self.run}")}
        assert f"{self.run}-later" not in names, "the database is not as it was copied"
        assert f"{self.run}-first" in names, "the database is not as it was copied"
        outcome.notes.append(f"Backup, another tag, restore ({took:.0f} s): as it was copied.")


class LNbits(Application):
    """Wallets, in SQLite, and WebSockets by which it tells news."""

    name = "lnbits"
    RATE = 2.0
    MESSAGES_RATE = 4.0
    LISTENERS = 10

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.password = secrets.token_hex(12)
        self.key = ""

    def use(self, host: Machine, site: Site) -> str:
        body = {"username": "proof", "password": self.password, "password_repeat": self.password}
        ask = Request(
            *("PUT", "/api/v1/auth/first_install", json.dumps(body)),
            headers={"Content-Type": "application/json"},
        )
        login = {"Authorization": f"Bearer {site.json(ask)['access_token']}"}
        site.need(Request("GET", "/wallet", headers=login, holds="LNbits"))
        wallet = site.json(Request("GET", "/api/v1/wallets", headers=login))[0]
        self.key = str(wallet["inkey"])
        # One in dollars asks nine exchanges for each invoice, and the host reaches none of them.
        headers = {"X-Api-Key": str(wallet["adminkey"]), "Content-Type": "application/json"}
        site.need(Request("PATCH", "/api/v1/wallet", json.dumps({"currency": ""}), headers))
        site.need(self.invoice("first"))
        assert f"{self.run}-first" in self.memos(host)
        return "First log-in, and an invoice made by the API."

    def invoice(self, name: str) -> Request:
        """Ask for money."""
        key = f"{self.run}-{name}"
        headers = {"X-Api-Key": self.key, "Content-Type": "application/json"}
        body = json.dumps({"out": False, "amount": 21, "memo": key})
        return Request("POST", "/api/v1/payments", body, headers, good=(201,), key=key)

    def memos(self, host: Machine) -> Counter[str]:
        """What all invoices are for; lists of the API leave out those that have come to nothing."""
        return Counter(json.loads(host.root("python3", "-c", MEMOS)))

    def load(self, site: Site) -> tuple[list[Stream], list[Listener]]:
        def make(number: int) -> Request:
            if number % 2:
                return self.invoice(str(number))
            return Request("GET", "/api/v1/wallet", headers={"X-Api-Key": self.key})

        def say(number: int) -> Request:
            path = f"/api/v1/ws/{self.run}/{number}"
            return Request("GET", path, holds='"sent":true', key=str(number))

        listeners = [Listener(site, f"/api/v1/ws/{self.run}") for _ in range(self.LISTENERS)]
        return [Stream(make, self.RATE), Stream(say, self.MESSAGES_RATE)], listeners

    def judge(
        self,
        host: Machine,
        site: Site,
        streams: Sequence[Stream],
        listeners: Sequence[Listener],
        outcome: Outcome,
    ) -> None:
        invoices, memos = acknowledged(streams[0].sent), self.memos(host)
        outcome.lost = len(set(invoices) - set(memos))
        doubled = sum(1 for memo in invoices if memos[memo] > 1)
        messages = acknowledged(streams[1].sent)
        heard = sum(len(set(each.received) & set(messages)) for each in listeners)
        twice = sum(len(each.received) - len(set(each.received)) for each in listeners)
        codes = Counter(code for each in listeners for code in each.codes)
        gaps = [gap for each in listeners for gap in each.gaps]
        refused = sum(each.refused for each in listeners)
        closed = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
        outcome.notes += [
            f"{len(invoices)} invoices acknowledged, {outcome.lost} of them lost, {doubled} twice.",
            f"{len(listeners)} WebSockets were open: closed {closed or 'never'}; back after "
            f"{max(gaps, default=0):.2f} s at most, {refused} attempts refused. Of {len(messages)} "
            f"messages to each, {heard} of {len(messages) * len(listeners)} came, {twice} twice.",
        ]
        if outcome.lost or doubled or set(codes) - {1012}:
            outcome.wrong.append(f"{outcome.lost} invoices lost, {doubled} twice, {codes}")

    def copies(self, host: Machine, site: Site, outcome: Outcome) -> None:
        host.root("lnbits", "backup")
        site.need(self.invoice("later"))
        start = time.monotonic()
        host.root("lnbits", "restore", "latest")
        took = time.monotonic() - start
        memos = self.memos(host)
        assert memos[f"{self.run}-later"] == 0, "the database is not as it was copied"
        assert memos[f"{self.run}-first"] == 1, "the database is not as it was copied"
        outcome.notes.append(f"Backup, another invoice, restore ({took:.0f} s): as it was copied.")


ACCOUNT = """
from nautobot.users.models import Token, User
user, _ = User.objects.get_or_create(username="proof", is_superuser=True, is_staff=True)
Token.objects.create(user=user, key="{token}")
"""
MEMOS = """
import json, sqlite3
database = sqlite3.connect("file:/var/lib/lnbits/database.sqlite3?mode=ro", uri=True)
print(json.dumps([memo for (memo,) in database.execute("SELECT memo FROM apipayments")]))
"""
# The distribution's server, as an administrator installs it.
POSTGRESQL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qqy install --no-install-recommends postgresql
systemctl start postgresql
"""
APPLICATIONS: dict[str, type[Application]] = {
    each.name: each for each in (Radicale, Nautobot, LNbits)
}
