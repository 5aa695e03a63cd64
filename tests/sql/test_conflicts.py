"""Appointments booked under a new schedule exception stay as they are and are named, whoever writes the exception."""

from __future__ import annotations

from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest

from programs import Clinic, Connection, at

MOVE = "update schedule_exceptions set start_at = %s, end_at = %s where id = %s"


def conflicts(clinic: Clinic, closed: UUID) -> list[UUID]:
    return list(clinic.get("schedule_exceptions", closed, "conflicts") or ())


def announced(clinic: Clinic, schedule: UUID) -> list[tuple[Any, ...]]:
    """The exception and the appointments of each schedule.conflict, in order."""
    rows = clinic.rows(
        "select payload -> 'exception' ->> 'id', payload -> 'appointments' from outbox"
        " where event_type = 'schedule.conflict' and aggregate_id = %s and payload -> 'row' ->> 'id' = %s"
        " order by created_at",
        schedule,
        str(schedule),
    )
    return [(UUID(closed), [UUID(each) for each in listed]) for closed, listed in rows]


@pytest.mark.parametrize("program", ["staff", "root", "api"])
def test_an_exception_names_what_is_booked_under_it_and_leaves_it(clinic: Clinic, program: str) -> None:
    writer: Connection = getattr(clinic, program)()
    schedule = clinic.schedule()
    under, beside, freed = (clinic.slot(schedule, start) for start in (20, 60, 0))
    booked = clinic.book(under, start_at=at(20), end_at=at(40))
    elsewhere = clinic.book(beside, start_at=at(60), end_at=at(80))
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [clinic.book(freed)])
    before = clinic.get("appointments", booked, "version, updated_at")

    closed = clinic.close(schedule, 0, 40, writer)
    assert conflicts(clinic, closed) == [booked]
    assert announced(clinic, schedule) == [(closed, [booked])]
    assert [clinic.get("slots", slot) for slot in (under, beside, freed)] == ["busy", "busy", "blocked"]
    assert clinic.get("appointments", booked, "version, updated_at") == before

    writer.execute(MOVE, [at(30), at(80), closed])
    assert conflicts(clinic, closed) == [booked, elsewhere]
    writer.execute(MOVE, [at(200), at(210), closed])
    assert conflicts(clinic, closed) == []
    writer.execute("delete from schedule_exceptions where id = %s", [closed])
    assert announced(clinic, schedule) == [(closed, [booked]), (closed, [booked, elsewhere])]


def test_appointments_are_named_by_further_slots_and_by_the_schedule_alone(clinic: Clinic) -> None:
    schedule, other = clinic.schedule(), clinic.schedule()
    slots = [clinic.slot(schedule, start) for start in (0, 20)]
    first = clinic.book(slots[0], extra_slot_ids=[slots[1]], start_at=at(0), end_at=at(40))
    timed = clinic.book(None, schedule_id=schedule, start_at=at(25), end_at=at(35))
    clinic.book(None, schedule_id=schedule, start_at=at(40), end_at=at(50))
    clinic.book(None, schedule_id=other, start_at=at(25), end_at=at(35))
    clinic.book(None, schedule_id=schedule, start_at=at(25), end_at=at(35), status="proposed")
    assert conflicts(clinic, clinic.close(schedule, 25, 40)) == [first, timed]


def test_another_change_of_an_exception_names_nothing_anew(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    booked = clinic.book(clinic.slot(schedule, 0))
    closed = clinic.close(schedule, 0, 20)
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [booked])
    clinic.staff().execute(
        "update schedule_exceptions set reason = 'x', conflicts = %s where id = %s", [[uuid4()], closed]
    )
    assert conflicts(clinic, closed) == [booked]
    assert announced(clinic, schedule) == [(closed, [booked])]


def test_a_window_without_length_covers_nothing(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    clinic.book(clinic.slot(schedule, 0))
    assert conflicts(clinic, clinic.close(schedule, 20, 0)) == []


@pytest.mark.parametrize("program", ["staff", "api"])
def test_a_booking_on_its_way_is_named_too(clinic: Clinic, program: str) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    portal, writer, closed = clinic.api(), getattr(clinic, program)(), list[UUID]()
    with portal.transaction():
        booked = clinic.book(slot, portal)
        waiting = Thread(target=lambda: closed.append(clinic.close(schedule, 0, 20, writer)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert conflicts(clinic, closed[0]) == [booked]
    assert announced(clinic, schedule) == [(closed[0], [booked])]
