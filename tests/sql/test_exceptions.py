"""A slot under a schedule exception is neither free nor bookable, whoever wrote which first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from uuid import UUID

import pytest

from programs import Clinic, Connection, outcome, race


def state(clinic: Clinic, slot: UUID) -> tuple[str, bool]:
    status, excepted = clinic.get("slots", slot, "status, excepted")
    return status, excepted


@pytest.mark.parametrize("program", ["staff", "root", "api"])
def test_an_exception_blocks_free_slots_and_gives_them_back(clinic: Clinic, program: str) -> None:
    writer: Connection = getattr(clinic, program)()
    schedule = clinic.schedule()
    before, under, after = (clinic.slot(schedule, start) for start in (0, 20, 40))
    closed = clinic.close(schedule, 20, 40, writer)
    assert [state(clinic, slot) for slot in (before, under, after)] == [
        ("free", False), ("blocked", True), ("free", False),
    ]  # fmt: skip
    writer.execute("update schedule_exceptions set start_at = %s where id = %s", [
        clinic.get("slots", before, "start_at"), closed
    ])  # fmt: skip
    assert state(clinic, before) == ("blocked", True)
    writer.execute("delete from schedule_exceptions where id = %s", [closed])
    assert [state(clinic, slot)[0] for slot in (before, under, after)] == ["free"] * 3


@pytest.mark.parametrize("program", ["staff", "root", "api"])
def test_a_slot_written_under_an_exception_is_blocked(clinic: Clinic, program: str) -> None:
    schedule = clinic.schedule()
    clinic.close(schedule, 0, 60)
    slot = clinic.slot(schedule, 0, getattr(clinic, program)())
    assert state(clinic, slot) == ("blocked", True)
    getattr(clinic, program)().execute("update slots set status = 'free' where id = %s", [slot])
    assert state(clinic, slot) == ("blocked", True)
    assert outcome(lambda: clinic.book(slot, clinic.staff(), allow_double_booking=True)) == "23P01 slot_blocked"


def test_a_slot_moves_under_an_exception_and_out_again(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    clinic.close(schedule, 60, 80)
    slot = clinic.slot(schedule, 0)
    move = "update slots set start_at = start_at + %s::interval, end_at = end_at + %s::interval where id = %s"
    clinic.staff().execute(move, ["1 hour", "1 hour", slot])
    assert state(clinic, slot) == ("blocked", True)
    clinic.staff().execute(move, ["1 hour", "1 hour", slot])
    assert state(clinic, slot) == ("free", False)


def test_what_was_blocked_by_hand_stays_blocked(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0, status="blocked")
    clinic.close(schedule, 0, 20)
    clinic.root().execute("delete from schedule_exceptions where schedule_id = %s", [schedule])
    assert state(clinic, slot) == ("blocked", False)


def test_two_exceptions_over_a_slot_must_both_go(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    first, second = clinic.close(schedule, 0, 10), clinic.close(schedule, 10, 30)
    for closed, expected in ((first, "blocked"), (second, "free")):
        clinic.staff().execute("delete from schedule_exceptions where id = %s", [closed])
        assert clinic.get("slots", slot) == expected


def test_a_cancelled_appointment_under_an_exception_frees_nothing(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    booked = clinic.book(slot)
    closed = clinic.close(schedule, 0, 20)
    assert clinic.get("slots", slot) == "busy"
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [booked])
    assert state(clinic, slot) == ("blocked", True)
    clinic.staff().execute("delete from schedule_exceptions where id = %s", [closed])
    assert state(clinic, slot) == ("free", False)


def test_a_slot_set_busy_under_an_exception_cannot_be_booked(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    clinic.close(schedule, 0, 20)
    slot = clinic.slot(schedule, 0, status="busy")
    for program in (clinic.staff(), clinic.api()):
        attempt = outcome(lambda p=program: clinic.book(slot, p, allow_double_booking=True))  # type: ignore[misc]
        assert attempt == "23P01 slot_blocked"


def test_slots_that_overlap_under_an_exception_do_not_both_come_back(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    closed = clinic.close(schedule, 0, 60)
    slots = [clinic.slot(schedule, start) for start in (0, 10)]
    clinic.staff().execute("delete from schedule_exceptions where id = %s", [closed])
    assert sorted(state(clinic, slot) for slot in slots) == [("blocked", False), ("free", False)]


@pytest.mark.parametrize("exception_first", [True, False])
@pytest.mark.parametrize("writer", ["staff", "api"])
def test_in_concurrent_transactions_the_later_sees_the_earlier(
    clinic: Clinic, exception_first: bool, writer: str
) -> None:
    schedule = clinic.schedule()
    one, other = clinic.root(), getattr(clinic, writer)()
    slots: list[UUID] = []
    steps: list[Callable[[Connection], object]] = [
        lambda connection: clinic.close(schedule, 0, 60, connection),
        lambda connection: slots.append(clinic.slot(schedule, 0, connection)),
    ]
    first, second = steps if exception_first else steps[::-1]
    with one.transaction():
        first(one)
        waiting = Thread(target=second, args=[other])
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert state(clinic, slots[0]) == ("blocked", True)


@pytest.mark.parametrize("exception_first", [True, False])
def test_a_cancel_beside_a_new_exception_frees_nothing(clinic: Clinic, exception_first: bool) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    booked = clinic.book(slot)
    one, other = clinic.root(), clinic.api()
    steps: list[Callable[[Connection], object]] = [
        lambda connection: clinic.close(schedule, 0, 60, connection),
        lambda connection: connection.execute("update appointments set status = 'cancelled' where id = %s", [booked]),
    ]
    first, second = steps if exception_first else steps[::-1]
    with one.transaction():
        first(one)
        waiting = Thread(target=second, args=[other])
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert state(clinic, slot) == ("blocked", True)


def test_exceptions_of_one_schedule_at_once_do_not_deadlock(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    connections = [clinic.staff() for _ in range(4)]
    for _ in range(50):
        closes = [lambda c=c: clinic.close(schedule, 0, 20, c) for c in connections]
        assert set(race(*closes)) == {"ok"}
    assert state(clinic, slot) == ("blocked", True)
