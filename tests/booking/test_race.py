"""However many clients race for a slot, one wins and the others are told 409; nobody waits for ever, nothing breaks.

`FHIR_SCHED_TEST_ROUNDS` says how many rounds a race has (25 in a normal run).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from clinic import DOCTOR, EXTENSION, Clinic, Resource, appointment, later, name, row_id, schedule, slot

ROUNDS = int(os.environ.get("FHIR_SCHED_TEST_ROUNDS", "25"))
CLIENTS = 32

Post = Callable[[Resource], Awaitable[int]]


def _raced(clinic: Clinic, race: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=clinic.base + "/", limits=limits, timeout=60) as http:
            await race(http)

    asyncio.run(run())


async def _statuses(*requests: Awaitable[httpx.Response]) -> Counter[int]:
    answers = await asyncio.gather(*requests)
    for answer in answers:
        if answer.status_code not in (200, 201, 204):
            assert answer.json()["resourceType"] == "OperationOutcome", answer.text
    return Counter(answer.status_code for answer in answers)


def _times(count: int) -> list[str]:
    return [later("2027-01-01T00:00:00Z", 15 * index) for index in range(count)]


def test_of_32_clients_one_gets_the_slot_and_31_are_told_409(clinic: Clinic) -> None:
    of = clinic.schedule()
    slots = [clinic.slot(of, start) for start in _times(ROUNDS)]

    async def race(http: httpx.AsyncClient) -> None:
        for wanted in slots:
            bodies = [appointment(wanted, patient=f"Patient/{number}") for number in range(CLIENTS)]
            found = await _statuses(*(http.post("Appointment", json=body) for body in bodies))
            assert found == {201: 1, 409: CLIENTS - 1}

    _raced(clinic, race)
    rows = clinic.sql(
        "select slot_id, count(*) from appointments where tenant_id = %s group by 1 having count(*) <> 1", clinic.tenant
    )
    assert rows == []
    statuses = clinic.sql("select status, count(*) from slots where tenant_id = %s group by 1", clinic.tenant)
    assert statuses == [("busy", ROUNDS)]


def test_of_32_clients_one_gets_the_practitioner_at_a_time_without_slots(clinic: Clinic) -> None:
    rounds = max(3, ROUNDS // 5)

    async def race(http: httpx.AsyncClient) -> None:
        for start in _times(rounds):
            bodies = [
                appointment(doctor=DOCTOR, patient=f"Patient/{number}", start=start, end=later(start, 15))
                for number in range(CLIENTS)
            ]
            found = await _statuses(*(http.post("Appointment", json=body) for body in bodies))
            assert found == {201: 1, 409: CLIENTS - 1}

    _raced(clinic, race)


def test_of_32_clients_that_want_overlapping_pairs_of_slots_none_gets_half(clinic: Clinic) -> None:
    rounds = max(3, ROUNDS // 5)
    of = clinic.schedule()
    slots = [clinic.slot(of, start) for start in _times(4 * rounds)]

    async def race(http: httpx.AsyncClient) -> None:
        for index in range(rounds):
            four = slots[4 * index : 4 * index + 4]
            bodies = []
            for number in range(CLIENTS):
                first, second = four[number % 4], four[(number + 1 + number // 4 % 3) % 4]
                reversed_ = number % 2
                pair = (second, first) if reversed_ else (first, second)
                bodies.append(appointment(*pair, start=four[0]["start"], end=four[-1]["end"]))
            found = await _statuses(*(http.post("Appointment", json=body) for body in bodies))
            assert set(found) == {201, 409}
            assert found[201] in (1, 2)

    _raced(clinic, race)
    held = clinic.sql(
        """select s.id, count(a.id) from slots s
           left join appointments a on s.id = a.slot_id or s.id = any (a.extra_slot_ids)
           where s.tenant_id = %s and s.status = 'busy' group by 1 having count(a.id) <> 1""",
        clinic.tenant,
    )
    assert held == []
    taken = clinic.sql(
        """select count(*) from slots s, appointments a where s.tenant_id = %s and a.tenant_id = s.tenant_id
           and (s.id = a.slot_id or s.id = any (a.extra_slot_ids)) and s.status <> 'busy'""",
        clinic.tenant,
    )
    assert taken == [(0,)]


def test_two_appointments_that_swap_slots_never_show_a_deadlock(clinic: Clinic) -> None:
    """Both want the other's slot: 409 for both, or one gives way; in the end each slot has one appointment."""
    of = clinic.schedule()
    one, two, free = (clinic.slot(of, start) for start in _times(3))
    first, second = clinic.booked(one), clinic.booked(two)

    async def race(http: httpx.AsyncClient) -> None:
        for _ in range(ROUNDS):
            bodies = [
                {**made, "slot": [{"reference": name(wanted)}]}
                for made in (first, second)
                for wanted in (one, two, free)
            ]
            found = await _statuses(*(http.put(name(body), json=body) for body in bodies))
            assert set(found) <= {200, 409}

    _raced(clinic, race)
    held = clinic.sql("select slot_id from appointments where tenant_id = %s", clinic.tenant)
    busy = clinic.sql("select id from slots where tenant_id = %s and status = 'busy'", clinic.tenant)
    assert len(set(held)) == 2
    assert set(held) == set(busy)


def test_booking_cancelling_and_blocking_at_once_end_in_step(clinic: Clinic) -> None:
    """The slot is busy exactly while an active appointment holds it, whatever the order was."""
    of = clinic.schedule()
    wanted = clinic.slot(of, "2027-01-01T00:00:00Z")
    made = [clinic.create(appointment(wanted, status="cancelled", patient=f"Patient/{number}")) for number in range(4)]

    async def race(http: httpx.AsyncClient) -> None:
        for number in range(ROUNDS):
            status = ["booked", "cancelled"]
            bodies = [{**each, "status": status[(number + index) % 2]} for index, each in enumerate(made)]
            free = {**wanted, "status": "free"}
            found = await _statuses(
                *(http.put(name(body), json=body) for body in bodies), http.put(name(free), json=free)
            )
            assert set(found) <= {200, 409}
            rows = clinic.sql(
                """select s.status, count(a.id) from slots s
                   left join appointments a on a.slot_id = s.id and a.status = 'booked'
                   where s.tenant_id = %s group by 1""",
                clinic.tenant,
            )
            assert rows in ([("busy", 1)], [("free", 0)])

    _raced(clinic, race)


@pytest.mark.parametrize("overlap", [True, False])
def test_of_clients_that_make_overlapping_slots_one_wins(clinic: Clinic, overlap: bool) -> None:
    of = clinic.schedule()
    starts = [later("2027-01-01T00:00:00Z", (1 if overlap else 15) * index) for index in range(8)]

    async def race(http: httpx.AsyncClient) -> None:
        found = await _statuses(*(http.post("Slot", json=slot(of, start)) for start in starts))
        assert found == ({201: 1, 409: 7} if overlap else {201: 8})

    _raced(clinic, race)


def test_a_slot_and_an_exception_made_at_once_never_leave_a_free_slot_under_it(clinic: Clinic) -> None:
    exception = {
        "url": "http://fhir-sched.org/fhir/StructureDefinition/schedule-exception-type",
        "valueCode": "holiday",
    }

    async def race(http: httpx.AsyncClient) -> None:
        for start in _times(ROUNDS):
            of = (await http.post("Schedule", json=schedule())).json()
            closed = slot(of, start, 60, status="busy-unavailable", extension=[exception])
            found = await _statuses(
                *(http.post("Slot", json=slot(of, later(start, 15 * index))) for index in range(4)),
                http.post("Slot", json=closed),
            )
            assert found == {201: 5}

    _raced(clinic, race)
    assert clinic.found("Slot?status=free") == []


NINE, TEN = "2027-01-01T09:00:00Z", "2027-01-01T10:00:00Z"
CLOSED = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]


def _during(clinic: Clinic, statement: str, values: list[Any], body: Resource) -> tuple[bool, httpx.Response]:
    """The answer to a POST while another program's transaction is open, and whether it waited for that one's commit."""
    with (
        clinic.database.connect_admin() as program,
        ThreadPoolExecutor(1) as pool,
    ):
        with program.transaction():
            program.execute(statement.encode(), values)
            answer = pool.submit(clinic.http.post, body["resourceType"], json=body)
            time.sleep(0.3)
            waited = not answer.done()
        return waited, answer.result(20)


def test_a_slot_waits_for_an_exception_that_another_program_is_just_making(clinic: Clinic) -> None:
    of = clinic.schedule()
    waited, answer = _during(
        clinic,
        "insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at) values (%s, %s, %s, %s)",
        [clinic.tenant, row_id(of), NINE, TEN],
        slot(of, NINE),
    )
    assert (waited, answer.status_code, answer.json()["status"]) == (True, 201, "busy-unavailable")


def test_an_exception_waits_for_a_slot_that_another_program_is_just_making(clinic: Clinic) -> None:
    of = clinic.schedule()
    waited, answer = _during(
        clinic,
        "insert into slots (tenant_id, schedule_id, start_at, end_at) values (%s, %s, %s, %s)",
        [clinic.tenant, row_id(of), NINE, TEN],
        slot(of, NINE, 60, status="busy-unavailable", extension=CLOSED),
    )
    assert (waited, answer.status_code) == (True, 201)
    assert clinic.found("Slot?status=free") == []


def test_a_booking_waits_for_one_that_another_program_is_just_making(clinic: Clinic) -> None:
    wanted = clinic.slot(clinic.schedule(), NINE)
    waited, answer = _during(
        clinic,
        "insert into appointments (tenant_id, patient_id, slot_id, created_by) values (%s, %s, %s, %s)",
        [clinic.tenant, clinic.tenant, row_id(wanted), clinic.tenant],
        appointment(wanted),
    )
    assert (waited, answer.status_code) == (True, 409)


def test_transactions_that_book_two_practitioners_in_either_order_all_come_through(clinic: Clinic) -> None:
    """Each waits for the other's practitioner; PostgreSQL ends one of them, which is run again and not refused."""
    doctors = [f"Practitioner/{number}" for number in "ab"]

    def bundle(start: str, order: list[str]) -> Resource:
        booked = [
            appointment(
                start=start,
                end=later(start, 15),
                participant=[
                    {"actor": {"reference": "Patient/1"}, "status": "accepted"},
                    {"actor": {"reference": doctor}, "status": "accepted"},
                ],
            )
            for doctor in order
        ]
        entries = [{"resource": each, "request": {"method": "POST", "url": "Appointment"}} for each in booked]
        return {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    async def race(http: httpx.AsyncClient) -> None:
        for start in _times(max(3, ROUNDS // 8) * 2)[::2]:
            both = [(start, doctors), (later(start, 15), doctors[::-1])]
            assert await _statuses(*(http.post("", json=bundle(*each)) for each in both)) == {200: 2}

    _raced(clinic, race)
