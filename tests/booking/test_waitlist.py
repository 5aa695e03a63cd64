"""A slot that becomes free is offered to the one who waits for it: who frees it, to whom, once, and what follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import httpx
import pytest

from clinic import EXTENSION, Clinic, Resource, appointment, later, name, refusal, row_id
from db import Database
from fhir_sched.db.lanes import Lanes
from fhir_sched.interactions.offering import Offering
from proposals import only
from server import Server

ANN, BOB, CAT = (f"Patient/00000000-0000-4000-8000-0000000000{end}" for end in ("a1", "b2", "c3"))
NINE, TEN, ELEVEN = (f"2036-06-02T{hour}:00:00Z" for hour in ("09", "10", "11"))
CLOSED = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
ROUTINE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "ROUTINE"}]}
CHECKUP = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "CHECKUP"}]}

Found = TypeVar("Found")


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Server]:
    """A server whose offers stand for an hour."""
    with Server(database.app_url, offer_seconds="3600") as running:
        yield running


def _soon(look: Callable[[], Found]) -> Found:
    """What is found when it is there; the worker comes round every second."""
    deadline = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)
    return found


def _waits(clinic: Clinic, patient: str, criteria: str = "", **elements: Any) -> Resource:
    """A new entry, of a routine visit unless the elements say otherwise."""
    wish = [{"url": EXTENSION + "waitlist-criteria", "valueString": criteria}] if criteria else None
    given = {"appointmentType": None if criteria else ROUTINE, "extension": wish, **elements}
    return clinic.create(appointment(patient=patient, status="waitlist", **given))


def _offered(clinic: Clinic, *patients: str) -> list[Resource]:
    """The holds that stand, as soon as each of the patients has one."""

    def look() -> list[Resource]:
        held = [clinic.matches(f"Appointment?status=pending&patient={patient}") for patient in patients]
        return [each for found in held for each in found] if all(held) else []

    return _soon(look)


def _looked(clinic: Clinic) -> None:
    """Wait until the worker has looked at everything that opened."""
    _soon(lambda: not clinic.sql("select 1 from waitlist_openings where tenant_id = %s", clinic.tenant))


def _nobody(clinic: Clinic) -> None:
    """Nobody is offered anything."""
    _looked(clinic)
    assert clinic.found("Appointment?status=pending") == []


def _offers(clinic: Clinic) -> list[tuple[Any, ...]]:
    return clinic.sql(
        "select entry_id, slot_id, outcome from waitlist_offers where tenant_id = %s order by offered_at", clinic.tenant
    )


def _cancel(clinic: Clinic, booked: Resource) -> None:
    assert clinic.put({**booked, "status": "cancelled"}).status_code == 200


# who frees it


def _by_cancelling(clinic: Clinic, of: Resource, slot: Resource, booked: Resource) -> None:
    _cancel(clinic, booked)


def _by_moving(clinic: Clinic, of: Resource, slot: Resource, booked: Resource) -> None:
    other = clinic.slot(of, ELEVEN, appointmentType=CHECKUP)
    moved = {"slot": [{"reference": name(other)}], "start": other["start"], "end": other["end"]}
    assert clinic.put({**booked, **moved}).status_code == 200


def _by_deleting(clinic: Clinic, of: Resource, slot: Resource, booked: Resource) -> None:
    clinic.http.delete(name(booked))


def _by_sql(clinic: Clinic, of: Resource, slot: Resource, booked: Resource) -> None:
    clinic.sql("update appointments set status = 'cancelled' where id = %s", row_id(booked))


@pytest.mark.parametrize("free", [_by_cancelling, _by_moving, _by_deleting, _by_sql])
def test_a_slot_that_is_given_back_is_offered(clinic: Clinic, free: Callable[..., None]) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    booked = clinic.booked(slot)
    entry = _waits(clinic, ANN)
    free(clinic, of, slot, booked)
    (held,) = _offered(clinic, ANN)
    assert held["slot"] == [{"reference": name(slot)}]
    assert (held["start"], held["end"]) == (NINE, later(NINE, 15))
    assert [each["actor"] for each in held["participant"]] == [{"reference": ANN}, *of["actor"]]
    assert held["participant"][0]["status"] == "needs-action"
    assert held["supportingInformation"] == [{"reference": name(entry)}]
    assert clinic.found(f"Appointment?supporting-info={name(entry)}") == [name(held)]
    assert any(each["url"] == EXTENSION + "hold-expires" for each in held["extension"])
    assert clinic.read(slot)["status"] == "busy-tentative"
    assert clinic.read(entry)["status"] == "waitlist"


def test_a_slot_that_an_exception_gives_back_is_offered(clinic: Clinic) -> None:
    of = clinic.schedule()
    clinic.slot(of, NINE)
    closed = clinic.slot(of, NINE, 60, status="busy-unavailable", extension=CLOSED)
    _waits(clinic, ANN)
    clinic.http.delete(name(closed))
    assert _offered(clinic, ANN)[0]["start"] == NINE


@pytest.mark.parametrize("writer", ["api", "sql"])
def test_a_new_slot_is_offered(clinic: Clinic, writer: str) -> None:
    of = clinic.schedule()
    _waits(clinic, ANN)
    if writer == "api":
        clinic.slot(of, NINE)
    else:
        clinic.sql(
            "insert into slots (tenant_id, schedule_id, start_at, end_at) values (%s, %s, %s, %s)",
            clinic.tenant, row_id(of), NINE, TEN,
        )  # fmt: skip
    assert _offered(clinic, ANN)[0]["start"] == NINE


def test_the_offer_is_an_event_of_its_entry(clinic: Clinic) -> None:
    entry = _waits(clinic, ANN)
    slot = clinic.slot(clinic.schedule(), NINE)
    (held,) = _offered(clinic, ANN)
    ((payload,),) = clinic.sql(
        "select payload from outbox where aggregate_id = %s and event_type = 'waitlist.offered'", row_id(entry)
    )
    assert (payload["id"], payload["row"]["status"]) == (str(row_id(entry)), "waiting")
    assert payload["offer"]["appointment_id"] == str(row_id(held))
    assert payload["offer"]["slot_id"] == str(row_id(slot))


# to whom


def test_the_first_by_priority_then_age_and_without_priority_last(clinic: Clinic) -> None:
    unranked, second, first, same = (
        _waits(clinic, f"Patient/{who}", priority=rank) for who, rank in [("0", None), ("2", 2), ("1", 1), ("1b", 1)]
    )
    of = clinic.schedule()
    for hour in range(4):
        clinic.slot(of, f"2036-06-02T{10 + hour}:00:00Z")
        _soon(lambda hour=hour: len(_offers(clinic)) == hour + 1)  # type: ignore[misc]
    assert [entry for entry, _, _ in _offers(clinic)] == [row_id(each) for each in (first, same, second, unranked)]
    ahead = clinic.sql("select waiting_ahead from waitlist_offers where tenant_id = %s order by 1", clinic.tenant)
    assert ahead == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("wish", "fits", "misses"),
    [
        ('{"days": ["mon"]}', NINE, "2036-06-03T09:00:00Z"),
        ('{"after": "12:00"}', "2036-06-02T16:00:00Z", "2036-06-02T15:00:00Z"),
        ('{"before": "06:00"}', NINE, TEN),
        ('{"earliest": "2036-06-03"}', "2036-06-03T09:00:00Z", NINE),
        ('{"latest": "2036-06-02"}', NINE, "2036-06-03T09:00:00Z"),
        ('{"earliest": "2036-06-02T09:30:00Z", "latest": "2036-06-02T12:00:00Z"}', TEN, NINE),
    ],
)
def test_criteria_of_time_are_on_the_clock_of_the_schedule(clinic: Clinic, wish: str, fits: str, misses: str) -> None:
    of = clinic.schedule("America/New_York")
    _waits(clinic, ANN, wish)
    clinic.slot(of, misses)
    _nobody(clinic)
    clinic.slot(of, fits)
    assert _offered(clinic, ANN)[0]["start"] == fits


@pytest.mark.parametrize("by", ["schedules", "practitioners", "locations", "serviceTypes", "participant"])
def test_criteria_of_place_and_person_name_a_pool(clinic: Clinic, by: str) -> None:
    actor = [{"reference": "Practitioner/rivera"}, {"reference": "Location/north"}]
    service = [{"coding": [{"code": "physio"}]}]
    other, of = clinic.schedule(), clinic.schedule(actor=actor, serviceType=service)
    wishes = {
        "schedules": f'{{"schedules": ["Schedule/{of["id"]}"]}}',
        "practitioners": '{"practitioners": ["Practitioner/else", "rivera"]}',
        "locations": '{"location": "Location/north"}',
        "serviceTypes": '{"serviceTypes": ["physio"]}',
    }
    if by in wishes:
        _waits(clinic, ANN, wishes[by])
    else:
        people = [{"actor": {"reference": who}, "status": "accepted"} for who in (ANN, "Practitioner/rivera")]
        _waits(clinic, ANN, appointmentType=None, participant=people)
    clinic.slot(other, NINE)
    _nobody(clinic)
    slot = clinic.slot(of, NINE)
    (held,) = _offered(clinic, ANN)
    assert held["slot"] == [{"reference": name(slot)}]
    assert [each["actor"] for each in held["participant"]] == [{"reference": ANN}, *actor]


def test_requested_periods_bound_the_time(clinic: Clinic) -> None:
    of = clinic.schedule()
    periods = [{"end": "2036-06-01"}, {"start": "2036-06-02T09:30:00Z", "end": "2036-06-02T23:00:00Z"}]
    _waits(clinic, ANN, appointmentType=None, requestedPeriod=periods)
    clinic.slot(of, NINE)
    _nobody(clinic)
    clinic.slot(of, TEN)
    assert _offered(clinic, ANN)[0]["start"] == TEN


def test_types_that_differ_do_not_meet_and_a_slot_without_one_serves_all(clinic: Clinic) -> None:
    of = clinic.schedule()
    _waits(clinic, ANN)
    clinic.slot(of, NINE, appointmentType=CHECKUP)
    _nobody(clinic)
    clinic.slot(of, TEN, appointmentType=ROUTINE)
    _waits(clinic, BOB)
    clinic.slot(of, ELEVEN)
    assert [held["start"] for held in _offered(clinic, ANN, BOB)] == [TEN, ELEVEN]


def test_who_asks_for_nothing_past_slots_and_closed_doors_are_offered_nothing(clinic: Clinic) -> None:
    of, shut = clinic.schedule(), clinic.schedule()
    _waits(clinic, ANN, appointmentType=None)
    clinic.slot(of, NINE)
    _nobody(clinic)
    _waits(clinic, BOB)
    clinic.sql("insert into booking_rules values (%s, 'any', %s, 'waitlist-offers', 0)", clinic.tenant, row_id(shut))
    clinic.slot(shut, NINE)
    clinic.sql(
        "insert into slots (tenant_id, schedule_id, start_at, end_at, status) "
        "values (%s, %s, '2013-01-01', '2013-01-02', 'busy')",
        clinic.tenant, row_id(of),
    )  # fmt: skip
    clinic.sql("update slots set status = 'free' where tenant_id = %s and start_at < '2014-01-01'", clinic.tenant)
    _nobody(clinic)


def test_a_tenant_where_nobody_waits_writes_nothing_down(clinic: Clinic) -> None:
    _cancel(clinic, clinic.booked(clinic.slot(clinic.schedule(), NINE)))
    assert clinic.sql("select 1 from waitlist_openings where tenant_id = %s", clinic.tenant) == []


# what follows


def test_an_offer_that_is_taken_fulfils_its_entry(clinic: Clinic) -> None:
    entry = _waits(clinic, ANN)
    slot = clinic.slot(clinic.schedule(), NINE)
    (held,) = _offered(clinic, ANN)
    assert clinic.put({**held, "status": "booked"}).status_code == 200
    assert clinic.read(entry)["status"] == "fulfilled"
    assert clinic.read(slot)["status"] == "busy"
    assert _offers(clinic) == [(row_id(entry), row_id(slot), "taken")]


def test_an_offer_that_is_declined_goes_to_the_next_and_not_back(clinic: Clinic) -> None:
    ann, bob = _waits(clinic, ANN, priority=1), _waits(clinic, BOB)
    slot = clinic.slot(clinic.schedule(), NINE)
    for patient in (ANN, BOB):
        (held,) = _offered(clinic, patient)
        _cancel(clinic, held)
    _nobody(clinic)
    assert _offers(clinic) == [(row_id(each), row_id(slot), "declined") for each in (ann, bob)]
    assert [clinic.read(each)["status"] for each in (ann, bob)] == ["waitlist", "waitlist"]
    assert clinic.read(slot)["status"] == "free"


def test_an_offer_that_lapses_goes_to_the_next(clinic: Clinic) -> None:
    ann, bob = _waits(clinic, ANN, priority=1), _waits(clinic, BOB)
    slot = clinic.slot(clinic.schedule(), NINE)
    (held,) = _offered(clinic, ANN)
    clinic.sql(
        "update appointments set hold_expires_at = clock_timestamp() + interval '10 ms' where id = %s", row_id(held)
    )
    time.sleep(0.02)
    with clinic.database.connect_app(clinic.tenant) as connection:
        connection.execute("select fhir_sched_lapse_holds(%s, %s)", [clinic.tenant, [row_id(slot)]])
    _offered(clinic, BOB)
    assert _offers(clinic) == [(row_id(ann), row_id(slot), "lapsed"), (row_id(bob), row_id(slot), None)]


def test_an_offer_that_is_over_keeps_nobody_from_the_next(clinic: Clinic, database: Database) -> None:
    ann, bob = _waits(clinic, ANN, priority=1), _waits(clinic, BOB, priority=2)
    of = clinic.schedule()
    ten = clinic.slot(of, TEN, appointmentType=CHECKUP)
    booked = clinic.booked(ten, patient=CAT)
    nine = clinic.slot(of, NINE)
    (held,) = _offered(clinic, ANN)
    clinic.sql("update slots set appointment_type = null where id = %s", row_id(ten))
    with database.connect_admin() as other, other.transaction():
        # both at one moment: her offer is over, and another slot becomes free
        other.execute("select set_config('app.writer', 'other', true)")
        other.execute(
            "update appointments set hold_expires_at = clock_timestamp() - interval '1 ms' where id = %s",
            [row_id(held)],
        )
        other.execute("update appointments set status = 'cancelled' where id = %s", [row_id(booked)])
    _offered(clinic, ANN, BOB)
    assert _offers(clinic) == [
        (row_id(ann), row_id(nine), "lapsed"),
        (row_id(ann), row_id(ten), None),
        (row_id(bob), row_id(nine), None),
    ]


def test_two_cancellations_at_once_with_three_who_wait_go_to_the_first_two(clinic: Clinic) -> None:
    of = clinic.schedule()
    slots = [clinic.slot(of, start, appointmentType=ROUTINE) for start in (NINE, TEN)]
    booked = [clinic.booked(slot, patient="Patient/other") for slot in slots]
    last, second, first = (_waits(clinic, who, priority=rank) for who, rank in ((CAT, 2), (BOB, 1), (ANN, 1)))
    del last
    start = Barrier(2)

    def cancel(each: Resource) -> None:
        start.wait()
        _cancel(clinic, each)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cancel, booked))
    _offered(clinic, ANN, BOB)
    _looked(clinic)
    offers = _offers(clinic)
    assert {entry for entry, _, _ in offers} == {row_id(first), row_id(second)}
    assert offers[0][0] == row_id(second), "of one priority the older comes first"
    assert {slot for _, slot, _ in offers} == {row_id(slot) for slot in slots}
    assert clinic.found(f"Appointment?status=pending&patient={CAT}") == []


def test_nobody_is_moved_onto_what_is_offered_to_another(clinic: Clinic) -> None:
    of = clinic.schedule()
    later_on = clinic.slot(of, ELEVEN, appointmentType=CHECKUP)
    mine = clinic.booked(later_on, patient=CAT)
    _waits(clinic, ANN)
    slot = clinic.slot(of, NINE)
    (held,) = _offered(clinic, ANN)
    moved = {"slot": [{"reference": name(slot)}], "start": slot["start"], "end": slot["end"]}
    refusal(clinic.put({**mine, **moved}), 409)
    assert (clinic.read(mine), clinic.read(held)) == (mine, held)
    assert [clinic.read(each)["status"] for each in (slot, later_on)] == ["busy-tentative", "busy"]


@pytest.mark.parametrize("leave", ["cancelled", "fulfilled", "deleted"])
def test_an_entry_that_no_longer_waits_gives_its_offer_up(clinic: Clinic, leave: str) -> None:
    entry = _waits(clinic, ANN)
    slot = clinic.slot(clinic.schedule(), NINE)
    (held,) = _offered(clinic, ANN)
    _waits(clinic, BOB)
    if leave == "deleted":
        assert clinic.http.delete(name(entry)).status_code == 204
    else:
        assert clinic.put({**entry, "status": leave, "start": NINE, "end": TEN}).status_code == 200
    _offered(clinic, BOB)
    assert clinic.read(held)["status"] == "cancelled"
    assert _offers(clinic)[0] == (row_id(entry), row_id(slot), "withdrawn")


def test_a_shared_slot_is_offered_to_as_many_as_it_has_room_for(clinic: Clinic) -> None:
    for patient in (ANN, BOB, CAT):
        _waits(clinic, patient)
    room = [{"url": EXTENSION + "slot-capacity", "valueInteger": 2}]
    course = clinic.slot(clinic.schedule(), NINE, extension=room)
    assert {each["slot"][0]["reference"] for each in _offered(clinic, ANN, BOB)} == {name(course)}
    _looked(clinic)
    assert len(clinic.found("Appointment?status=pending")) == 2


def test_a_practitioner_who_is_busy_elsewhere_is_not_offered(clinic: Clinic) -> None:
    of = clinic.schedule()
    clinic.booked(doctor=of["actor"][0]["reference"], start=NINE, end=TEN)
    _waits(clinic, ANN)
    clinic.slot(of, NINE)
    _nobody(clinic)
    clinic.slot(of, ELEVEN)
    assert _offered(clinic, ANN)[0]["start"] == ELEVEN


def test_offers_are_the_tenants_own_and_nobodys_to_change(clinic: Clinic) -> None:
    _waits(clinic, ANN)
    clinic.slot(clinic.schedule(), NINE)
    _offered(clinic, ANN)
    for table in ("waitlist_offers", "waitlist_openings"):
        rows = clinic.sql("select relrowsecurity, relforcerowsecurity from pg_class where relname = %s", table)
        assert rows == [(True, True)]
    with clinic.database.connect_app("00000000-0000-4000-8000-000000000000") as connection:
        assert connection.execute("select 1 from waitlist_offers").fetchall() == []


# $book


def _book(clinic: Clinic, **parameter: Any) -> httpx.Response:
    body = {"resourceType": "Parameters", "parameter": [parameter]}
    return clinic.http.post("Appointment/$book", json=body)


def _reference(resource: Resource) -> Resource:
    return {"name": "appointment-reference", "valueReference": {"reference": name(resource)}}


@pytest.mark.parametrize("by", ["hold", "entry", "resource"])
def test_book_takes_up_what_is_offered(clinic: Clinic, by: str) -> None:
    entry = _waits(clinic, ANN)
    slot = clinic.slot(clinic.schedule(), NINE)
    (held,) = _offered(clinic, ANN)
    completed = {**entry, "slot": held["slot"], "start": held["start"], "end": held["end"]}
    answer = {
        "hold": lambda: _book(clinic, **_reference(held)),
        "entry": lambda: _book(clinic, **_reference(entry)),
        "resource": lambda: _book(clinic, name="appointment-resource", resource=completed),
    }[by]()
    assert only(answer)["id"] == held["id"]
    assert clinic.read(held)["status"] == "booked"
    assert clinic.read(entry)["status"] == "fulfilled"
    assert _offers(clinic) == [(row_id(entry), row_id(slot), "taken")]


@pytest.mark.parametrize("status", ["waitlist", "pending", "booked"])
def test_book_takes_an_entry_up_in_a_slot_that_somebody_found(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    entry = _waits(clinic, ANN, '{"days": ["sun"]}', comment="any time", priority=1)
    refusal(_book(clinic, **_reference(entry)), 409)
    completed = {**entry, "status": status, "slot": [{"reference": name(slot)}], "start": NINE, "end": slot["end"]}
    booked = only(_book(clinic, name="appointment-resource", resource=completed))
    assert (booked["status"], booked["comment"], booked["start"]) == ("booked", "any time", NINE)
    assert booked["supportingInformation"] == [{"reference": name(entry)}]
    assert clinic.read(entry)["status"] == "fulfilled"
    assert clinic.read(slot)["status"] == "busy"
    refusal(_book(clinic, name="appointment-resource", resource=completed), 409)


def test_an_entry_waits_on_when_the_slot_that_was_found_is_taken(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    clinic.booked(slot, patient=CAT)
    entry = _waits(clinic, ANN, '{"days": ["sun"]}')
    completed = {**entry, "slot": [{"reference": name(slot)}], "start": NINE, "end": slot["end"]}
    refusal(_book(clinic, name="appointment-resource", resource=completed), 409)
    assert clinic.read(entry)["status"] == "waitlist"


# at once


def test_concurrent_cancellations_make_one_offer_an_entry_and_one_a_slot(clinic: Clinic, database: Database) -> None:
    of = clinic.schedule()
    slots = [clinic.slot(of, later(NINE, 15 * number)) for number in range(30)]
    booked = [clinic.booked(slot, patient="Patient/other") for slot in slots]
    entries = [_waits(clinic, f"Patient/{number}", priority=number % 5) for number in range(20)]

    def cancel(each: Resource) -> httpx.Response:
        with clinic.server.fhir(clinic.tenant) as http:
            return http.put(name(each), json={**each, "status": "cancelled"})

    async def rounds() -> None:
        """Four workers more beside that of the server."""
        lanes = [Lanes(database.app_url) for _ in range(4)]
        await asyncio.gather(*(each.open() for each in lanes))
        for _ in range(3):
            await asyncio.gather(*(Offering(each, 3600).round() for each in lanes))
        await asyncio.gather(*(each.close() for each in lanes))

    with ThreadPoolExecutor(8) as pool:
        working = pool.submit(lambda: asyncio.run(rounds()))
        assert {answer.status_code for answer in pool.map(cancel, booked)} == {200}
        working.result()
    _looked(clinic)
    offers = _offers(clinic)
    assert {entry for entry, _, _ in offers} == {row_id(entry) for entry in entries}
    assert len(offers) == len({slot for _, slot, _ in offers}) == len(entries)
    held = clinic.matches("Appointment?status=pending&_count=100")
    assert len({each["slot"][0]["reference"] for each in held}) == len(held) == len(entries)
    assert len(clinic.found("Slot?status=free&_count=100")) == len(slots) - len(entries)


def test_a_slot_that_is_booked_first_is_not_offered(clinic: Clinic) -> None:
    _waits(clinic, ANN)
    slot = clinic.slot(clinic.schedule(), NINE)
    (held,) = _offered(clinic, ANN)
    refusal(clinic.book(slot, patient=CAT), 409)
    _cancel(clinic, held)
    clinic.booked(slot, patient=CAT)
    _nobody(clinic)
