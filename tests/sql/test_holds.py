"""A hold ends by the clock of the database, for every writer, cleaned up or not; one confirms it or one takes it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import pytest

from programs import Clinic, Connection, at, outcome, race

TAKEN = "23P01 slot_taken"
EXPIRED = "23P01 hold_expired"
CANCEL = "update appointments set status = 'cancelled' where id = %s"
CONFIRM = "update appointments set status = 'booked' where id = %s"
RACES = int(os.environ.get("FHIR_SCHED_HOLD_RACES", "25"))
"""How often confirming and expiry meet; 1,000 in the long form."""


def held(clinic: Clinic, slot: UUID | None, seconds: float = 300.0, **columns: Any) -> UUID:
    """A pending appointment that is held for so long; an expired one for a negative time."""
    return clinic.book(slot, status="pending", hold_expires_at=moment(clinic, seconds), **columns)


def over(clinic: Clinic, hold: UUID) -> UUID:
    """The hold, after its time: moved there as if it had been made earlier."""
    clinic.operator.execute(
        "update appointments set hold_expires_at = clock_timestamp() - interval '1 second' where id = %s", [hold]
    )
    return hold


def moment(clinic: Clinic, seconds: float) -> datetime:
    (row,) = clinic.rows("select clock_timestamp()")
    now: datetime = row[0]
    return now + timedelta(seconds=seconds)


def test_a_hold_makes_its_slot_busy_tentative_and_confirming_makes_it_busy(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    hold = held(clinic, slot)
    assert clinic.get("slots", slot, "status, fhir_status") == ("busy", "busy-tentative")
    clinic.staff().execute(CONFIRM, [hold])
    assert clinic.get("slots", slot, "status, fhir_status, fhir") == ("busy", "busy", None)
    assert clinic.get("appointments", hold, "status, hold_expires_at") == ("booked", None)


def test_a_released_hold_frees_its_slot(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    hold = held(clinic, slot)
    clinic.staff().execute("update appointments set status = 'cancelled' where id = %s", [hold])
    assert clinic.get("slots", slot, "status, fhir_status, fhir") == ("free", "free", None)
    assert clinic.get("appointments", hold, "hold_expires_at") is None


@pytest.mark.parametrize("program", ["api", "staff", "root"])
def test_a_hold_keeps_others_out_until_it_is_over_and_nobody_after(clinic: Clinic, program: str) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    hold = held(clinic, slot)
    other: Connection = getattr(clinic, program)()
    assert outcome(lambda: clinic.book(slot, other)) == TAKEN
    over(clinic, hold)
    taken = clinic.book(slot, other)
    assert clinic.get("appointments", hold, "status, cancel_reason") == ("cancelled", "hold expired")
    assert clinic.get("appointments", taken) == "booked"
    assert clinic.get("slots", slot, "status, fhir_status") == ("busy", "busy")
    events = "select event_type from outbox where aggregate_id = %s order by created_at"
    assert clinic.rows(events, hold)[-1] == ("appointment.cancelled",)


def test_an_expired_hold_of_several_slots_gives_all_of_them_back(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slots = [clinic.slot(schedule, start) for start in (0, 20, 40)]
    over(clinic, held(clinic, slots[0], extra_slot_ids=slots[1:]))
    clinic.book(slots[2], clinic.staff())
    assert [clinic.get("slots", slot) for slot in slots] == ["free", "free", "busy"]


def test_an_expired_hold_does_not_keep_its_practitioner(clinic: Clinic) -> None:
    doctor = uuid4()
    times: dict[str, Any] = {"provider_id": doctor, "start_at": at(0), "end_at": at(20)}
    hold = held(clinic, None, **times)
    assert outcome(lambda: clinic.book(None, clinic.staff(), **times)) == "23P01 provider_times_no_overlap"
    over(clinic, hold)
    clinic.book(None, clinic.staff(), **times)
    assert clinic.get("appointments", hold) == "cancelled"


def test_a_reschedule_takes_a_slot_whose_hold_is_over(clinic: Clinic) -> None:
    here, there = (clinic.slot(clinic.schedule(), 0) for _ in range(2))
    booked = clinic.book(here)
    over(clinic, held(clinic, there))
    clinic.staff().execute("update appointments set slot_id = %s where id = %s", [there, booked])
    assert [clinic.get("slots", slot) for slot in (here, there)] == ["free", "busy"]


@pytest.mark.parametrize(
    "change",
    [
        "status = 'booked'",
        "status = 'arrived'",
        "hold_expires_at = clock_timestamp() + interval '1 hour'",
        "hold_expires_at = null",
        "start_at = start_at + interval '1 hour'",
    ],
)
def test_what_is_over_can_only_be_given_up(clinic: Clinic, change: str) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    hold = over(clinic, held(clinic, slot, start_at=at(0), end_at=at(20)))
    staff = clinic.staff()
    assert outcome(lambda: staff.execute(f"update appointments set {change} where id = %s".encode(), [hold])) == EXPIRED
    staff.execute("update appointments set reason = 'remarked' where id = %s", [hold])
    staff.execute("update appointments set status = 'cancelled' where id = %s", [hold])
    assert clinic.get("slots", slot) == "free"


def test_a_slot_whose_hold_is_over_may_be_set_free_by_hand(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    hold = held(clinic, slot)
    free = "update slots set status = 'free' where id = %s"
    assert outcome(lambda: clinic.api().execute(free, [slot])) == "23P01 slot_occupied"
    over(clinic, hold)
    clinic.api().execute(free, [slot])
    clinic.book(slot, clinic.api())
    assert clinic.get("appointments", hold) == "cancelled"


def test_an_exception_over_a_held_slot_blocks_it_when_the_hold_is_over(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    hold = held(clinic, slot)
    clinic.close(schedule, 0, 60)
    over(clinic, hold)
    assert outcome(lambda: clinic.book(slot, clinic.api())) == "23P01 slot_blocked"


def test_a_job_lets_lapse_what_is_over_and_leaves_the_rest(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    first, second = clinic.slot(schedule, 0), clinic.slot(schedule, 20)
    over(clinic, held(clinic, first))
    kept = held(clinic, second)
    api = clinic.api()
    tenants = api.execute("select fhir_sched_tenants_with_expired_holds()").fetchall()
    assert (clinic.tenant,) in tenants
    lapse = "select fhir_sched_lapse_holds(%s, null)"
    assert api.execute(lapse, [clinic.tenant]).fetchone() == (1,)
    assert api.execute(lapse, [clinic.tenant]).fetchone() == (0,)
    assert [clinic.get("slots", slot) for slot in (first, second)] == ["free", "busy"]
    assert clinic.get("appointments", kept) == "pending"


def test_another_tenants_holds_are_out_of_reach(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), 0)
    hold = over(clinic, held(clinic, slot))
    assert clinic.api(uuid4()).execute("select fhir_sched_lapse_holds(%s, null)", [clinic.tenant]).fetchone() == (0,)
    assert clinic.get("appointments", hold) == "pending"


def test_of_many_that_want_an_expired_hold_one_wins(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    racers = [clinic.api() for _ in range(4)] + [clinic.staff() for _ in range(4)]
    for start in range(0, 15 * 20, 20):
        slot = clinic.slot(schedule, start)
        over(clinic, held(clinic, slot))
        outcomes = race(*(lambda c=racer, s=slot: clinic.book(s, c) for racer in racers))
        assert sorted(outcomes) == [TAKEN] * 7 + ["ok"]


def test_giving_up_and_taking_over_at_once_do_not_wait_for_each_other(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    api, staff = clinic.api(), clinic.staff()
    for start in range(0, 20 * 20, 20):
        slot = clinic.slot(schedule, start)
        hold = over(clinic, held(clinic, slot))
        taken = race(
            lambda h=hold: staff.execute(CANCEL, [h]),  # type: ignore[misc]
            lambda s=slot: clinic.book(s, api),  # type: ignore[misc]
        )
        assert taken == ["ok", "ok"]


def test_confirming_at_the_end_of_a_hold_has_exactly_one_winner(clinic: Clinic) -> None:
    confirmer, taker = clinic.staff(), clinic.api()
    chance = random.Random(19)
    won = {"confirmed": 0, "taken": 0}
    for _ in range(RACES):
        slot = clinic.slot(clinic.schedule(), 0)
        hold = held(clinic, slot, 0.02)
        said = at_the_boundary(
            lambda h=hold: outcome(lambda: confirmer.execute(CONFIRM, [h])),  # type: ignore[misc]
            lambda s=slot: outcome(lambda: clinic.book(s, taker)),  # type: ignore[misc]
            chance.uniform(0.012, 0.024),
        )
        # Too late is said as such, or after the hold has lapsed as what it is then: another booking of a taken slot.
        assert said in (("ok", TAKEN), (EXPIRED, "ok"), (TAKEN, "ok"))
        active = clinic.rows("select id from appointments where slot_id = %s and status = 'booked'", slot)
        assert [row[0] == hold for row in active] == [said[0] == "ok"]
        won["confirmed" if said[0] == "ok" else "taken"] += 1
    assert sum(won.values()) == RACES
    if RACES >= 1000:
        assert min(won.values()) > 0, won


def at_the_boundary(confirm: Callable[[], str], take: Callable[[], str], wait: float) -> tuple[str, str]:
    """What confirming after so many seconds says, and what taking says in the end, tried from the beginning on."""
    confirmed = Event()
    taken: list[str] = []

    def taking() -> None:
        while True:
            settled = confirmed.is_set()
            taken[:] = [take()]
            if taken == ["ok"] or settled:
                return

    thread = Thread(target=taking)
    thread.start()
    Event().wait(wait)
    said = confirm()
    confirmed.set()
    thread.join(30)
    assert not thread.is_alive()
    return said, taken[0]
