"""Nobody can keep anybody else from logging in, and a flood of guesses costs no write."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from visiting import PASSWORD, Visitor, alert

from toll import database, devices
from toll.models import LoginAttempt
from toll.services import accounts

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def anna(session):
    return accounts.create_user(session, "anna", PASSWORD, "admin")


def guess(app, address: str, name: str = "anna") -> int:
    return Visitor(app, address).log_in(name, "a wrong guess").status_code


def attack(app, addresses: int = 20) -> None:
    """Fail from many addresses as often as each may."""
    for number in range(addresses):
        for _ in range(5):
            assert guess(app, f"198.51.100.{number}") in (422, 429)


def of_a_known_device(app, address: str) -> Visitor:
    """Somebody who has logged in here before, and is not logged in now."""
    visitor = Visitor(app, address)
    assert visitor.log_in("anna").status_code == 303
    visitor.client.delete_cookie("__Host-toll", domain="toll.example")
    assert visitor.get("/dashboard").status_code == 303
    return visitor


@pytest.mark.usefixtures("anna")
def test_an_attack_from_many_addresses_keeps_nobody_out(app):
    """100 wrong passwords from 20 addresses once locked the admin out of every other address."""
    known = of_a_known_device(app, "192.0.2.1")
    for _ in range(2):
        attack(app)
        assert Visitor(app, "203.0.113.1").log_in("anna").status_code == 303
        assert known.log_in("anna").status_code == 303
        known.client.delete_cookie("__Host-toll", domain="toll.example")


@pytest.mark.usefixtures("anna")
def test_under_attack_a_strangers_address_has_fewer_guesses(app):
    """A thousand addresses are then worth two thousand guesses, and not five."""
    attack(app)
    assert [guess(app, "203.0.113.1") for _ in range(3)] == [422, 422, 429]


@pytest.mark.usefixtures("anna")
def test_a_known_device_does_not_pay_for_its_neighbours(app):
    """Behind one address sits a whole office, or the attacker on the host itself."""
    known = of_a_known_device(app, "192.0.2.1")
    while guess(app, "192.0.2.1") != 429:
        pass
    for number in range(40):
        guess(app, "192.0.2.1", f"name-{number}")
    assert Visitor(app, "192.0.2.1").log_in("anna").status_code == 429
    assert known.log_in("anna").status_code == 303


@pytest.mark.usefixtures("anna")
def test_a_known_device_guesses_no_longer_than_others(app):
    """A stolen device is worth five guesses more, and no more."""
    known = of_a_known_device(app, "192.0.2.1")
    answers = [known.log_in("anna", "a wrong guess").status_code for _ in range(11)]
    assert answers == [422] * 10 + [429]
    # What it fails with counts for nobody else.
    assert Visitor(app, "192.0.2.2").log_in("anna").status_code == 303


def test_a_device_is_known_to_its_own_users_only(app, session, anna):
    """Or everybody who has an account could guess at every other one."""
    accounts.create_user(session, "victor", PASSWORD, "viewer")
    known = of_a_known_device(app, "192.0.2.1")
    answers = [known.log_in("victor", "a wrong guess").status_code for _ in range(6)]
    assert answers == [422] * 5 + [429]


@pytest.mark.parametrize("cookie", ["", "x", "{}", "eyJpZCI6MX0.x.y"])
@pytest.mark.usefixtures("anna")
def test_a_device_that_was_made_up_is_a_stranger(app, cookie):
    visitor = Visitor(app, "192.0.2.1")
    visitor.client.set_cookie("__Host-toll-device", cookie, domain="toll.example", secure=True)
    answers = [visitor.log_in("anna", "a wrong guess").status_code for _ in range(6)]
    assert answers == [422] * 5 + [429]


@pytest.mark.usefixtures("anna")
def test_the_command_on_the_host_is_a_way_in(app, session):
    """For somebody whose address is shared with the attacker, on a device that is new."""
    while guess(app, "192.0.2.1") != 429:
        pass
    session.rollback()
    done = app.test_cli_runner().invoke(args=["toll", "user", "device", "anna"])
    assert done.exit_code == 0, done.output
    link = done.stdout.strip()
    visitor = Visitor(app, "192.0.2.1")
    assert visitor.get(link).location == "/login"
    # The link makes no session: the password is needed all the same.
    assert visitor.get("/dashboard").status_code == 303
    assert visitor.log_in("anna").status_code == 303


def test_a_link_ends_after_a_while(app, anna, monkeypatch):
    with app.test_request_context("/"):
        token = devices.invitation(anna)
        session_cookie = app.session_interface.get_signing_serializer(app).dumps(anna.id)
    visitor = Visitor(app)
    for wrong in (token[:-1], session_cookie, "x"):
        answer = visitor.get(f"/login/device/{wrong}")
        assert answer.location == "/login"
        assert "device" not in str(answer.headers.getlist("Set-Cookie"))
        assert "not valid any more" in visitor.get("/login").text
    monkeypatch.setattr(devices, "INVITATION_SECONDS", -1)
    assert "device" not in str(visitor.get(f"/login/device/{token}").headers.getlist("Set-Cookie"))


@pytest.fixture
def begun(app, anna):
    """What transactions begin on the database, by what they begin with."""
    with app.app_context():
        engine = database.db.engine
    sent: list[str] = []

    def note(_connection, cursor, statement, *_):
        sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    # SQLite's writers begin by the driver's own cursor.
    real = database._sqlite_begin

    def begin(connection):
        if connection.get_execution_options().get(database.WRITES, False):
            sent.append("BEGIN IMMEDIATE")
        real(connection)

    sa.event.remove(engine, "begin", real)
    sa.event.listen(engine, "begin", begin)
    yield sent
    sa.event.remove(engine, "begin", begin)
    sa.event.listen(engine, "begin", real)
    sa.event.remove(engine, "before_cursor_execute", note)


def writes(statements: list[str]) -> list[str]:
    """What is not reading."""
    return [each for each in statements if not each.startswith("SELECT") and each != "BEGIN"]


def test_a_flood_of_guesses_begins_no_writing_transaction(app, session, begun):
    """Each one took the lock that recording a passage waits for."""
    attack(app)
    for number in range(40):
        guess(app, "192.0.2.1", f"name-{number}")
    assert len(begun) > 100, "nothing was watched"
    assert writes(begun) == []
    assert session.scalar(sa.select(sa.func.count(LoginAttempt.id))) == 0
    # The success writes: a session. So the watching does see writes.
    Visitor(app, "203.0.113.1").log_in("anna")
    assert "BEGIN IMMEDIATE" in writes(begun)


@pytest.mark.usefixtures("anna")
def test_few_hash_at_a_time_and_the_rest_come_again(app, monkeypatch):
    """A hash takes a processor and 64 MiB; threads that wait for one serve nobody else."""
    throttle = app.extensions["toll.throttle"]
    monkeypatch.setattr("toll.services.throttle.WAIT_SECONDS", 0.05)
    with throttle.turn(known=False) as first, throttle.turn(known=False) as second:
        assert (first, second) == (True, False)
        refused = Visitor(app, "192.0.2.1").log_in("anna")
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "3"
        assert "Try again in a few seconds." in alert(refused)
        # Known devices have a turn of their own.
        with throttle.turn(known=True) as known:
            assert known
    # Being sent away counts for nothing.
    answers = [guess(app, "192.0.2.1") for _ in range(6)]
    assert answers == [422] * 5 + [429]


def test_turns_are_kept_between_threads(app):
    """And given back, whatever happened inside."""
    throttle = app.extensions["toll.throttle"]
    with pytest.raises(ZeroDivisionError), throttle.turn(known=False):
        _ = 1 / 0
    holds, ends = threading.Event(), threading.Event()

    def hold() -> None:
        with throttle.turn(known=False) as mine:
            assert mine
            holds.set()
            ends.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait()
    waiting: list[bool] = []

    def wait() -> None:
        with throttle.turn(known=False) as mine:
            waiting.append(mine)

    waiter = threading.Thread(target=wait)
    waiter.start()
    ends.set()
    waiter.join()
    holder.join()
    assert waiting == [True]
