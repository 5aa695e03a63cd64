"""A statement that is remembered for a shape is the one that would be made anew."""

import contextlib
import random
from uuid import UUID

import pytest

from fhir_sched.outcome import FhirError
from fhir_sched.resources import RESOURCES
from fhir_sched.search import page, shapes, sql
from fhir_sched.search.parse import Parser
from fhir_sched.search.query import Position, Query
from fhir_sched.search.values import form

BASE = "http://x/fhir/t"
TENANTS = ("5eed0000-0000-4000-8000-000000000001", "5eed0000-0000-4000-8000-000000000002")
DATE_PREFIXES = ("", "ge", "lt", "ne", "sa", "eb", "le", "gt", "eq")
PREFIXES = ("sch", "slt", "apt", "wl", "exc", "")


def _query(name: str, asked: str, tenant: str) -> Query:
    return Parser(RESOURCES, BASE, tenant).query(RESOURCES[name], form(asked), strict=True)


def _own(dice: random.Random, prefix: str) -> str:
    uuid = UUID(int=dice.getrandbits(128), version=4)
    return f"{prefix}-{uuid}" if prefix else str(uuid)


def _value(dice: random.Random) -> str:
    """Something for a parameter: right or wrong, in the forms that there are."""
    return dice.choice(
        (
            f"{dice.choice(DATE_PREFIXES)}20{dice.randrange(10, 99)}-0{dice.randrange(1, 10)}"
            + dice.choice(("", "-11", "-11T10:00:00Z", "-11T10:00:00.5%2B02:00", "-11T10:15")),
            f"Schedule/{_own(dice, dice.choice(PREFIXES))}",
            f"Slot/{_own(dice, dice.choice(PREFIXES))}",
            f"{dice.choice(('Patient', 'Practitioner', 'PractitionerRole', 'Location', 'Device'))}/{_own(dice, '')}",
            f"Practitioner/{_own(dice, '').upper()}",
            f"{BASE}/Slot/{_own(dice, 'slt')}",
            _own(dice, dice.choice(PREFIXES)),
            f"{dice.choice(('Slot', 'Patient'))}/a.b-{dice.randrange(100)}",
            dice.choice(("free", "busy", "booked", "cancelled", "true", "waitlist", "fulfilled,noshow")),
            f"urn:x|{dice.randrange(100)}",
        )
    )


def _asked(dice: random.Random, name: str) -> str:
    names = sorted(RESOURCES[name].param)
    names += [f"{each}.{inner}" for each in ("schedule", "slot") for inner in ("actor", "schedule", "date")]
    chosen: list[str] = []
    while len(chosen) < dice.randrange(1, 4):
        condition = f"{dice.choice(names)}={_value(dice)}"
        with contextlib.suppress(FhirError):
            _query(name, condition, TENANTS[0])
            chosen.append(condition)
    return "&".join([*chosen, *dice.choice(([], ["_count=20"], ["_sort=-_lastUpdated"], ["_sort=_id"]))])


@pytest.mark.parametrize("name", RESOURCES)
def test_a_remembered_statement_is_the_one_that_is_made(name: str) -> None:
    dice = random.Random(name)
    remembered = 0
    for _ in range(6000):
        asked, tenant = _asked(dice, name), dice.choice(TENANTS)
        query = _query(name, asked, tenant)
        assert shapes.search(query, tenant) == sql.search(query, tenant), asked
        remembered += shapes._shape(query, []) is not None
    assert remembered > 100


def test_a_further_page_is_that_of_its_place() -> None:
    asked = "schedule=Schedule/sch-0f0f0f0f-0000-4000-8000-00000000000a&start=ge2026-06-01&_sort=start"
    first = _query("Slot", asked, TENANTS[0])
    for key, backward in (("2026-06-02 09:00:00+00", False), ("2026-07-02 09:00:00+00", False), ("x", True)):
        place = Position((key, "0f0f0f0f-0000-4000-8000-00000000000b"), 0, backward)
        token = page.encode(place, page.digest(TENANTS[0], "Slot", first.used))
        query = _query("Slot", f"{asked}&{page.PARAMETER}={token}", TENANTS[0])
        assert query.position == place
        assert shapes.search(query, TENANTS[0]) == sql.search(query, TENANTS[0])


def test_searches_that_differ_in_days_and_schedules_share_a_statement() -> None:
    def shape(schedule: int, day: int) -> object:
        uuid = f"0f0f0f0f-0000-4000-8000-{schedule:012x}"
        return shapes._shape(_query("Slot", f"schedule=sch-{uuid}&start=ge2026-06-{day:02}", TENANTS[0]), [])

    assert shape(1, 1) == shape(2, 3) is not None


def test_an_argument_that_is_worked_out_of_a_value_is_not_remembered() -> None:
    asked = "actor=PractitionerRole/0f0f0f0f-0000-4000-8000-00000000000a"
    query = _query("Schedule", asked, TENANTS[0])
    other = _query("Schedule", asked.replace("0a", "0b"), TENANTS[0])
    assert shapes.search(query, TENANTS[0]) == sql.search(query, TENANTS[0])
    assert shapes.search(other, TENANTS[0]) == sql.search(other, TENANTS[0])


def test_conditions_are_remembered_for_one_base_and_not_for_moments_about_now() -> None:
    mine = Parser(RESOURCES, "http://x/fhir/t", TENANTS[0])
    theirs = Parser(RESOURCES, "http://y/fhir/t", TENANTS[0])
    pairs = [("schedule", "http://x/fhir/t/Schedule/sch-0f0f0f0f-0000-4000-8000-00000000000a")]
    slot = RESOURCES["Slot"]
    assert mine.query(slot, pairs, strict=True).conditions != theirs.query(slot, pairs, strict=True).conditions
    about = [mine.query(slot, [("start", "ap2026-06-01")], strict=True).conditions for _ in range(2)]
    assert about[0] != about[1]
