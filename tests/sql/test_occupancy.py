"""Slots are taken and freed by appointments, whichever program writes them; one wins, all or nothing, no deadlock."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from programs import Clinic, Connection, at, outcome, race

TAKEN = "23P01 slot_taken"
BLOCKED = "23P01 slot_blocked"


def test_an_appointment_takes_its_slot_and_a_cancelled_one_frees_it(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    booked = clinic.book(slot, clinic.staff())
    assert clinic.get("slots", slot) == "busy"
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [booked])
    assert clinic.get("slots", slot) == "free"


@pytest.mark.parametrize("status", ["pending", "booked", "arrived", "fulfilled", "noshow"])
def test_what_occupies_excludes_the_next(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    clinic.book(slot, status=status)
    assert outcome(lambda: clinic.book(slot, clinic.staff())) == TAKEN


@pytest.mark.parametrize("status", ["proposed", "cancelled", "entered-in-error"])
def test_what_does_not_occupy_leaves_the_slot_free(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    clinic.book(slot, status=status)
    assert clinic.get("slots", slot) == "free"


def test_deleting_an_appointment_frees_its_slots(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    first, second = clinic.slot(schedule, 0), clinic.slot(schedule, 20)
    booked = clinic.book(first, extra_slot_ids=[second])
    clinic.staff().execute("delete from appointments where id = %s", [booked])
    assert [clinic.get("slots", slot) for slot in (first, second)] == ["free", "free"]


def test_the_error_names_the_slot_as_clients_know_it(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    clinic.book(slot)
    with pytest.raises(psycopg.errors.ExclusionViolation) as caught:
        clinic.book(slot, clinic.api())
    assert caught.value.diag.message_detail == f"slt-{slot}"


@pytest.mark.parametrize("program", ["api", "staff", "root"])
def test_of_many_that_race_for_one_slot_one_wins(clinic: Clinic, program: str) -> None:
    schedule = clinic.schedule()
    racers: list[Connection] = [getattr(clinic, program)() for _ in range(8)]
    for start in range(0, 30 * 20, 20):
        slot = clinic.slot(schedule, start)
        outcomes = race(*(lambda c=racer, s=slot: clinic.book(s, c) for racer in racers))
        assert sorted(outcomes) == [TAKEN] * 7 + ["ok"]


def test_several_slots_are_taken_all_or_none(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    first, second, third = (clinic.slot(schedule, start) for start in (0, 20, 40))
    clinic.book(third)
    assert outcome(lambda: clinic.book(first, clinic.api(), extra_slot_ids=[second, third])) == TAKEN
    assert [clinic.get("slots", slot) for slot in (first, second)] == ["free", "free"]
    clinic.book(first, clinic.api(), extra_slot_ids=[second])
    assert outcome(lambda: clinic.book(second)) == TAKEN
    assert outcome(lambda: clinic.root().execute("delete from slots where id = %s", [second])) == (
        "23503 appointments_extra_slots_fk"
    )


def test_a_further_slot_must_be_there_even_when_it_is_not_taken(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    missing = "23503 appointment_slot_missing"
    assert outcome(lambda: clinic.book(slot, status="proposed", extra_slot_ids=[uuid4()])) == missing
    assert outcome(lambda: clinic.book(slot, extra_slot_ids=[uuid4()])) == missing


def test_a_reschedule_frees_and_takes(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    here, there = clinic.slot(schedule, 0), clinic.slot(clinic.schedule(), 20)
    booked = clinic.book(here)
    clinic.staff().execute("update appointments set slot_id = %s where id = %s", [there, booked])
    assert [clinic.get("slots", slot) for slot in (here, there)] == ["free", "busy"]
    assert clinic.get("appointments", booked, "schedule_id") == clinic.get("slots", there, "schedule_id")


def test_a_reschedule_by_a_program_that_knows_one_slot_gives_up_the_others(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slots = [clinic.slot(schedule, start) for start in (0, 20, 40)]
    booked = clinic.book(slots[0], clinic.api(), extra_slot_ids=[slots[1]])
    clinic.staff().execute("update appointments set slot_id = %s where id = %s", [slots[2], booked])
    assert [clinic.get("slots", slot) for slot in slots] == ["free", "free", "busy"]


def test_un_cancelling_onto_a_taken_slot_is_refused(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    cancelled = clinic.book(slot, status="cancelled")
    clinic.book(slot)
    again = "update appointments set status = 'booked' where id = %s"
    assert outcome(lambda: clinic.staff().execute(again, [cancelled])) == TAKEN


def test_two_appointments_swap_their_slots_in_one_statement(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    one, two = clinic.slot(schedule, 0), clinic.slot(schedule, 20)
    booked = [clinic.book(one), clinic.book(two)]
    clinic.staff().execute(
        "update appointments set slot_id = case slot_id when %s then %s::uuid else %s::uuid end where id = any(%s)",
        [one, two, one, booked],
    )
    assert [clinic.get("slots", slot) for slot in (one, two)] == ["busy", "busy"]


def test_crossing_reschedules_never_deadlock(clinic: Clinic) -> None:
    """Two appointments that may share a slot change places, each in a transaction of its own."""
    schedule = clinic.schedule()
    slots = clinic.slot(schedule, 0), clinic.slot(schedule, 20)
    booked = [clinic.book(slot, allow_double_booking=True) for slot in slots]
    connections = clinic.api(), clinic.api()
    move = "update appointments set slot_id = %s where id = %s"
    for turn in range(200):
        there = slots[::-1] if turn % 2 == 0 else slots
        outcomes = race(
            *(
                lambda c=connection, s=slot, a=appointment: c.execute(move, [s, a])
                for connection, slot, appointment in zip(connections, there, booked, strict=True)
            )
        )
        assert outcomes == ["ok", "ok"]
        assert [clinic.get("slots", slot) for slot in slots] == ["busy", "busy"]


def test_crossing_reschedules_onto_each_other_are_refused_without_a_deadlock(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slots = clinic.slot(schedule, 0), clinic.slot(schedule, 20)
    booked = [clinic.book(slot) for slot in slots]
    connections = clinic.api(), clinic.api()
    move = "update appointments set slot_id = %s where id = %s"
    for _ in range(200):
        outcomes = race(
            lambda: connections[0].execute(move, [slots[1], booked[0]]),
            lambda: connections[1].execute(move, [slots[0], booked[1]]),
        )
        assert outcomes == [TAKEN, TAKEN]


def test_slots_crossing_in_two_bookings_never_deadlock(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slots = [clinic.slot(schedule, start) for start in range(0, 200, 20)]
    connections = clinic.staff(), clinic.staff()
    for _ in range(200):
        outcomes = race(
            lambda: clinic.book(slots[0], connections[0], extra_slot_ids=slots[1:]),
            lambda: clinic.book(slots[-1], connections[1], extra_slot_ids=slots[-2::-1]),
        )
        assert sorted(outcomes) == [TAKEN, "ok"]
        connections[0].execute("delete from appointments")


def test_double_booking_opens_a_taken_slot_and_the_last_one_out_frees_it(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    first = clinic.book(slot, allow_double_booking=True)
    assert outcome(lambda: clinic.book(slot, clinic.api())) == TAKEN
    second = clinic.book(slot, clinic.api(), allow_double_booking=True)
    cancel = "update appointments set status = 'cancelled' where id = %s"
    clinic.root().execute(cancel, [first])
    assert clinic.get("slots", slot) == "busy"
    clinic.root().execute(cancel, [second])
    assert clinic.get("slots", slot) == "free"


@pytest.mark.parametrize("status", ["blocked", "entered-in-error"])
def test_a_blocked_slot_is_opened_by_nothing(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), 0, status=status)
    for program in (clinic.api(), clinic.staff()):
        assert outcome(lambda p=program: clinic.book(slot, p, allow_double_booking=True)) == BLOCKED  # type: ignore[misc]


def test_a_slot_set_busy_by_hand_is_the_other_programs_to_take_but_not_the_api_s(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0, status="busy")
    assert outcome(lambda: clinic.book(slot, clinic.api())) == TAKEN
    assert outcome(lambda: clinic.book(slot, clinic.staff())) == "ok"


def test_a_tentative_slot_is_for_the_appointment_that_named_it_before(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    proposed = clinic.book(slot, clinic.api(), status="proposed")
    keep = """update slots set status = 'busy', fhir = '{"status": "busy-tentative"}' where id = %s"""
    clinic.api().execute(keep, [slot])
    assert clinic.get("slots", slot, "fhir_status") == "busy-tentative"
    assert outcome(lambda: clinic.book(slot, clinic.api())) == TAKEN
    clinic.api().execute("update appointments set status = 'booked' where id = %s", [proposed])
    assert clinic.get("slots", slot, "fhir_status, fhir") == ("busy", None)


def test_an_occupied_slot_does_not_become_free(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    booked = clinic.book(slot)
    free = "update slots set status = 'free' where id = %s"
    assert outcome(lambda: clinic.api().execute(free, [slot])) == "23P01 slot_occupied"
    clinic.staff().execute(free, [slot])
    assert clinic.get("slots", slot) == "busy"
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [booked])
    assert clinic.get("slots", slot) == "free"


def times(provider: UUID, start: int, end: int) -> dict[str, Any]:
    return {"provider_id": provider, "start_at": at(start), "end_at": at(end)}


def test_a_practitioner_is_in_one_place_at_a_time(clinic: Clinic) -> None:
    provider, other, overlap = uuid4(), uuid4(), "23P01 provider_times_no_overlap"
    first = clinic.book(None, **times(provider, 0, 20))
    assert outcome(lambda: clinic.book(None, clinic.staff(), **times(provider, 10, 30))) == overlap
    further = {**times(other, 10, 30), "extra_provider_ids": [provider]}
    assert outcome(lambda: clinic.book(None, clinic.api(), **further)) == overlap
    assert outcome(lambda: clinic.book(None, allow_double_booking=True, **times(provider, 10, 30))) == "ok"
    assert outcome(lambda: clinic.book(None, **times(provider, 20, 40))) == "ok"
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [first])
    assert outcome(lambda: clinic.book(None, **times(provider, 0, 20))) == "ok"
    again = "update appointments set status = 'arrived' where id = %s"
    assert outcome(lambda: clinic.staff().execute(again, [first])) == overlap


def test_of_many_that_race_for_a_practitioner_one_wins(clinic: Clinic) -> None:
    racers = [clinic.api() for _ in range(8)]
    for _ in range(20):
        provider = uuid4()
        outcomes = race(
            *(
                lambda c=racer, n=number, p=provider: clinic.book(None, c, **times(p, n, n + 20))
                for number, racer in enumerate(racers)
            )
        )
        assert sorted(outcomes) == ["23P01 provider_times_no_overlap"] * 7 + ["ok"]


def test_free_and_busy_slots_of_a_schedule_do_not_overlap(clinic: Clinic) -> None:
    schedule, overlap = clinic.schedule(), "23P01 slots_no_overlap"
    clinic.slot(schedule, 0)
    assert outcome(lambda: clinic.slot(schedule, 10, clinic.staff())) == overlap
    assert outcome(lambda: clinic.slot(schedule, 10, clinic.staff(), status="busy")) == overlap
    assert outcome(lambda: clinic.slot(schedule, 10, clinic.staff(), status="blocked")) == "ok"
    assert outcome(lambda: clinic.slot(schedule, 20, clinic.staff())) == "ok"
    assert outcome(lambda: clinic.slot(clinic.schedule(), 10, clinic.staff())) == "ok"


def test_of_overlapping_slots_that_race_one_wins(clinic: Clinic) -> None:
    racers = [clinic.api() for _ in range(8)]
    for _ in range(20):
        schedule = clinic.schedule()
        outcomes = race(
            *(lambda c=racer, n=number, s=schedule: clinic.slot(s, n, c) for number, racer in enumerate(racers))
        )
        assert sorted(outcomes) == ["23P01 slots_no_overlap"] * 7 + ["ok"]


def test_a_slot_of_another_program_that_ends_before_it_starts_is_let_in(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    clinic.slot(schedule, 40)
    assert outcome(lambda: clinic.slot(schedule, 60, clinic.staff(), end_at=at(0))) == "ok"


def wait_for_one_that_gives_up(first: Connection, write: list[Callable[..., object]], *later: Connection) -> list[str]:
    """What two later writers get that wait for a first one, who rolls back."""
    outcomes: list[str] = []
    with first.transaction(force_rollback=True):
        write[0](first)
        waiting = [
            Thread(target=lambda c=connection, w=attempt: outcomes.append(outcome(lambda: w(c))))
            for connection, attempt in zip(later, write[1:], strict=True)
        ]
        for thread in waiting:
            thread.start()
        waiting[0].join(0.3)
        assert all(thread.is_alive() for thread in waiting)
    for thread in waiting:
        thread.join(10)
    return sorted(outcomes)


def test_slots_that_waited_for_one_that_gave_up_do_not_deadlock(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    write: list[Callable[..., object]] = [lambda c, n=n: clinic.slot(schedule, n, c) for n in (0, 5, 10)]
    assert wait_for_one_that_gives_up(clinic.api(), write, clinic.api(), clinic.api()) == [
        "23P01 slots_no_overlap",
        "ok",
    ]


def test_appointments_that_waited_for_one_that_gave_up_do_not_deadlock(clinic: Clinic) -> None:
    provider = uuid4()
    write: list[Callable[..., object]] = [
        lambda c, n=n: clinic.book(None, c, **times(provider, n, n + 20)) for n in (0, 5, 10)
    ]
    assert wait_for_one_that_gives_up(clinic.api(), write, clinic.api(), clinic.api()) == [
        "23P01 provider_times_no_overlap",
        "ok",
    ]


def test_who_waits_for_a_practitioner_s_turn_keeps_nobody_waiting_who_has_it(clinic: Clinic) -> None:
    provider = uuid4()
    moving = clinic.book(None, **times(provider, 0, 20))
    booker, mover = clinic.api(), clinic.api()
    moved: list[str] = []
    move = "update appointments set start_at = %s, end_at = %s where id = %s"
    waiting = Thread(target=lambda: moved.append(outcome(lambda: mover.execute(move, [at(100), at(120), moving]))))
    with booker.transaction(force_rollback=True):
        clinic.book(None, booker, **times(provider, 200, 220))
        waiting.start()
        _until_blocked(clinic, mover)
        # the time that the other one is about to give up, and has not given up yet
        assert outcome(lambda: clinic.book(None, booker, **times(provider, 0, 20))) == "23P01 provider_times_no_overlap"
    waiting.join(10)
    assert moved == ["ok"]


def _until_blocked(clinic: Clinic, connection: Connection) -> None:
    deadline = time.monotonic() + 10
    blocked = "select cardinality(pg_blocking_pids(%s)) > 0"
    while clinic.root().execute(blocked, [connection.info.backend_pid]).fetchone() != (True,):
        assert time.monotonic() < deadline
        time.sleep(0.01)
