"""A slot has room for as many appointments as its capacity says: busy when it is full, free below, whoever writes."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from programs import Clinic, Connection, at, outcome, race

TAKEN = "23P01 slot_taken"
OVERLAP = "23P01 provider_times_no_overlap"


def course(clinic: Clinic, capacity: int, start: int = 0, **columns: Any) -> UUID:
    """A slot for several."""
    return clinic.slot(clinic.schedule(), start, capacity=capacity, **columns)


def test_a_slot_is_busy_when_it_is_full_and_free_below(clinic: Clinic) -> None:
    slot = course(clinic, 3)
    states = []
    for _ in range(3):
        last = clinic.book(slot, clinic.api())
        states.append(clinic.get("slots", slot))
    assert states == ["free", "free", "busy"]
    assert outcome(lambda: clinic.book(slot, clinic.staff())) == TAKEN
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [last])
    assert clinic.get("slots", slot) == "free"
    clinic.book(slot, clinic.staff())
    assert clinic.get("slots", slot) == "busy"


@pytest.mark.parametrize("program", ["api", "staff", "root"])
def test_of_many_that_race_for_a_slot_as_many_win_as_there_is_room(clinic: Clinic, program: str) -> None:
    racers: list[Connection] = [getattr(clinic, program)() for _ in range(8)]
    doctor = uuid4()
    for start in range(0, 12 * 20, 20):
        slot = course(clinic, 3, start)
        times = {"provider_id": doctor, "start_at": at(start), "end_at": at(start + 20)}
        outcomes = race(*(lambda c=racer, s=slot, t=times: clinic.book(s, c, **t) for racer in racers))
        assert sorted(outcomes) == [TAKEN] * 5 + ["ok"] * 3


def test_taking_and_giving_back_at_once_never_leave_more_than_there_is_room(clinic: Clinic) -> None:
    slot = course(clinic, 2)
    api, staff = clinic.api(), clinic.staff()
    kept = clinic.book(slot)
    leaving = clinic.book(slot)
    for _ in range(15):
        before = leaving
        cancel = "update appointments set status = 'cancelled' where id = %s"
        said = race(
            lambda: staff.execute(cancel, [before]),  # noqa: B023 - run before the next round
            lambda: clinic.book(slot, api),
        )
        assert said[0] == "ok"
        if said[1] == TAKEN:
            clinic.book(slot, api)
        query = "select id from appointments where slot_id = %s and status = 'booked' and id <> %s"
        ((leaving,),) = clinic.rows(query, slot, kept)
        assert clinic.get("slots", slot) == "busy"


def test_the_appointments_of_one_slot_share_their_practitioner_and_nobody_else_does(clinic: Clinic) -> None:
    doctor = uuid4()
    slot = course(clinic, 2)
    times = {"provider_id": doctor, "start_at": at(0), "end_at": at(20)}
    clinic.book(slot, clinic.api(), **times)
    clinic.book(slot, clinic.api(), **times)
    assert outcome(lambda: clinic.book(None, clinic.api(), **times)) == OVERLAP
    assert outcome(lambda: clinic.book(course(clinic, 2), clinic.api(), **times)) == OVERLAP


def test_an_appointment_in_two_shared_slots_shares_each_with_its_own_group(clinic: Clinic) -> None:
    doctor, schedule = uuid4(), clinic.schedule()
    first, second = (clinic.slot(schedule, start, capacity=2) for start in (0, 20))
    both = {"provider_id": doctor, "start_at": at(0), "end_at": at(40)}
    clinic.book(first, clinic.api(), extra_slot_ids=[second], **both)
    clinic.book(first, clinic.api(), provider_id=doctor, start_at=at(0), end_at=at(20))
    clinic.book(second, clinic.api(), provider_id=doctor, start_at=at(20), end_at=at(40))
    assert [clinic.get("slots", slot) for slot in (first, second)] == ["busy", "busy"]


def test_a_full_slot_is_tentative_while_one_of_its_appointments_is_a_hold(clinic: Clinic) -> None:
    slot = course(clinic, 2)
    until = "clock_timestamp() + interval '5 minutes'"
    ((expires,),) = clinic.rows(f"select {until}")
    hold = clinic.book(slot, clinic.api(), status="pending", hold_expires_at=expires)
    assert clinic.get("slots", slot, "fhir_status") == "free"
    clinic.book(slot, clinic.api())
    assert clinic.get("slots", slot, "fhir_status") == "busy-tentative"
    clinic.operator.execute("update appointments set hold_expires_at = now() - interval '1 s' where id = %s", [hold])
    clinic.book(slot, clinic.api())
    assert clinic.get("slots", slot, "fhir_status") == "busy"
    assert clinic.get("appointments", hold) == "cancelled"


def test_a_change_of_capacity_opens_and_closes_the_slot_and_evicts_nobody(clinic: Clinic) -> None:
    doctor, slot = uuid4(), course(clinic, 1)
    times = {"provider_id": doctor, "start_at": at(0), "end_at": at(20)}
    change = "update slots set capacity = %s where id = %s"
    clinic.book(slot, clinic.api(), **times)
    clinic.staff().execute(change, [2, slot])
    assert clinic.get("slots", slot) == "free"
    clinic.book(slot, clinic.api(), **times)
    assert clinic.get("slots", slot) == "busy"
    assert outcome(lambda: clinic.staff().execute(change, [1, slot])) == "23P01 slot_capacity"
    clinic.staff().execute(change, [3, slot])
    clinic.staff().execute(change, [2, slot])
    assert clinic.get("slots", slot) == "busy"
    empty = course(clinic, 1)
    assert outcome(lambda: clinic.staff().execute(change, [0, empty])) == "23514 slots_capacity_check"


def test_a_slot_closed_by_hand_stays_closed_to_the_server(clinic: Clinic) -> None:
    slot = course(clinic, 3)
    clinic.book(slot)
    clinic.staff().execute("update slots set status = 'busy' where id = %s", [slot])
    assert outcome(lambda: clinic.book(slot, clinic.api())) == TAKEN
    clinic.api().execute("update slots set status = 'free' where id = %s", [slot])
    clinic.book(slot, clinic.api())


def test_an_exception_closes_what_room_is_left_and_opens_it_again(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0, capacity=2)
    clinic.book(slot)
    exception = clinic.close(schedule, 0, 60)
    assert clinic.get("slots", slot) == "blocked"
    clinic.operator.execute("delete from schedule_exceptions where id = %s", [exception])
    assert clinic.get("slots", slot) == "free"
