"""A demo to look at: three plazas with their tariffs, and a week of passages."""

from __future__ import annotations

import random
import string
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from toll.database import writing
from toll.models import Passage, Plaza, Tariff, User, VehicleClass, now
from toll.services import accounts, tariffs

TARIFFS = Path(__file__).with_name("demo.csv")
PLAZAS = (
    ("harbour-bridge", "Harbour Bridge", "Ring road R2", "Europe/Lisbon", "EUR"),
    ("glacier-tunnel", "Glacier Tunnel", "Pass road P27", "Europe/Zurich", "CHF"),
    ("bay-crossing", "Bay Crossing", "Bayshore Expressway", "Asia/Tokyo", "JPY"),
)
CLASSES = (
    ("motorcycle", "Motorcycle"),
    ("car", "Car or van, up to 3.5 t"),
    ("truck", "Truck or bus, over 3.5 t"),
    ("trailer", "Truck with trailer"),
)
DAYS = 7
PASSAGES = 4000
RECORDED_BY = "key:demo"
# How busy each hour of the day is, on the plaza's clock.
WORKDAY = (2, 1, 1, 1, 2, 6, 14, 22, 24, 16, 12, 11, 12, 12, 12, 14, 18, 24, 22, 15, 10, 7, 5, 3)
WEEKEND = (4, 3, 2, 1, 1, 2, 4, 6, 9, 12, 15, 16, 16, 15, 14, 14, 15, 15, 14, 12, 10, 8, 6, 5)
# Weights of the classes, and of how people pay.
SHARES = {"motorcycle": 6, "car": 76, "truck": 12, "trailer": 6}
PAYMENTS = {"tag": 58, "card": 26, "cash": 9, "invoice": 7}
PLATES = {"EUR": "AA-99-AA", "CHF": "ZH 999999", "JPY": "999 A 99-99"}


def seed_tariffs(s: Session) -> int:
    """Make the plazas, classes and tariffs that are missing; return how many tariffs were made."""
    with writing(s, tariffs.LOCK):
        plazas = {plaza.code for plaza in tariffs.list_plazas(s)}
        for code, name, road, time_zone, currency in PLAZAS:
            if code not in plazas:
                tariffs.create_plaza(
                    s, code=code, name=name, road=road, time_zone=time_zone, currency=currency
                )
        classes = {each.code for each in tariffs.list_classes(s)}
        for code, name in CLASSES:
            if code not in classes:
                tariffs.create_class(s, code=code, name=name)
        if s.scalar(sa.select(sa.func.count(Tariff.id))):
            return 0
        with TARIFFS.open(encoding="utf-8", newline="") as file:
            result = tariffs.import_csv(s, file)
        if result.errors:
            raise RuntimeError(f"{TARIFFS}: {'; '.join(map(str, result.errors))}")
        return result.created


def seed_passages(
    s: Session, passages: int = PASSAGES, moment: datetime | None = None, seed: int | None = None
) -> int:
    """Record passages of the last days at the demo's plazas, if there are none at all.

    Args:
        s: has nothing unwritten.
        passages: how many.
        moment: the end; now by default.
        seed: makes the same passages again.
    """
    moment = moment or now()
    chance = random.Random(seed)
    with writing(s, tariffs.LOCK):
        if s.scalar(sa.select(sa.func.count(Passage.id))):
            return 0
        codes = [code for code, *_ in PLAZAS]
        plazas = list(s.scalars(sa.select(Plaza).where(Plaza.code.in_(codes))))
        classes = {each.code: each for each in tariffs.list_classes(s) if each.code in SHARES}
        valid = {
            (each.plaza_id, each.class_id): each for each in tariffs.list_tariffs(s, at=moment)
        }
        begin = moment - timedelta(days=DAYS)
        hours = [begin + timedelta(hours=hour) for hour in range(DAYS * 24)]
        made: list[Passage] = []
        for index, plaza in enumerate(plazas):
            local = [hour.astimezone(plaza.zone) for hour in hours]
            weights = [(WORKDAY, WEEKEND)[each.weekday() > 4][each.hour] for each in local]
            wanted = passages // len(plazas) + (index < passages % len(plazas))
            for hour in chance.choices(hours, weights, k=wanted):
                passed_at = hour + timedelta(seconds=chance.randrange(3600))
                made.append(_passage(chance, plaza, classes, valid, min(passed_at, moment)))
        # In the order in which they passed, as they would have come.
        made.sort(key=lambda passage: passage.passed_at)
        s.add_all(made)
    return len(made)


def seed_users(s: Session) -> list[tuple[User, str]]:
    """Make the users admin, operator and viewer that are missing; return them with passwords."""
    made = []
    for name in ("admin", "operator", "viewer"):
        if accounts.find_user(s, name) is None:
            password = accounts.generate_password()
            made.append((accounts.create_user(s, name, password, name), password))
    return made


def _passage(
    chance: random.Random,
    plaza: Plaza,
    classes: dict[str, VehicleClass],
    valid: dict[tuple[int, int], Tariff],
    passed_at: datetime,
) -> Passage:
    code = chance.choices(list(SHARES), list(SHARES.values()))[0]
    vehicle_class = classes[code]
    tariff = valid[plaza.id, vehicle_class.id]
    window = tariff.window_at(passed_at.astimezone(plaza.zone))
    plate = "".join(
        chance.choice(string.ascii_uppercase)
        if each == "A"
        else chance.choice(string.digits)
        if each == "9"
        else each
        for each in PLATES[plaza.currency]
        if each.isalnum()
    )
    return Passage(
        plaza=plaza,
        lane=str(chance.randint(1, 6)),
        vehicle_class=vehicle_class,
        plate=plate,
        passed_at=passed_at,
        amount=window.amount if window else tariff.amount,
        currency=tariff.currency,
        tariff_id=tariff.id,
        window_id=window.id if window else None,
        tariff_name=window.name if window else tariff.name,
        payment_method=chance.choices(list(PAYMENTS), list(PAYMENTS.values()))[0],
        recorded_by=RECORDED_BY,
        recorded_at=passed_at,
    )
