"""Every change leaves a version, a history entry and an outbox row, whichever program makes it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from programs import Clinic, Connection, at


def events(clinic: Clinic, row_id: UUID) -> list[tuple[Any, ...]]:
    return clinic.rows(
        "select event_type, (payload ->> 'version')::int from outbox where aggregate_id = %s order by created_at",
        row_id,
    )


def history(clinic: Clinic, row_id: UUID) -> list[tuple[Any, ...]]:
    return clinic.rows("select version, deleted from history where id = %s order by version", row_id)


def make(clinic: Clinic, table: str, connection: Connection) -> UUID:
    if table == "schedules":
        return clinic.schedule(connection)
    if table == "slots":
        return clinic.slot(clinic.schedule(), 0, connection)
    if table == "appointments":
        return clinic.book(None, connection)
    if table == "schedule_exceptions":
        return clinic.close(clinic.schedule(), 0, 20, connection)
    return clinic.insert(connection, table, patient_id=uuid4(), appointment_type="x", created_by=uuid4())


CHANGES = [
    ("schedules", "schedule", "is_active = false", "updated"),
    ("slots", "slot", "appointment_type = 'x'", "updated"),
    ("slots", "slot", "end_at = end_at - interval '1 minute'", "rescheduled"),
    ("slots", "slot", "status = 'entered-in-error'", "cancelled"),
    ("appointments", "appointment", "reason = 'x'", "updated"),
    ("appointments", "appointment", "start_at = now()", "rescheduled"),
    ("appointments", "appointment", "status = 'cancelled'", "cancelled"),
    ("appointments", "appointment", "status = 'entered-in-error'", "cancelled"),
    ("schedule_exceptions", "schedule_exception", "reason = 'x'", "updated"),
    ("waitlist_entries", "waitlist", "note = 'x'", "updated"),
    ("waitlist_entries", "waitlist", "status = 'deleted'", "cancelled"),
]


@pytest.mark.parametrize("program", ["staff", "root", "api"])
@pytest.mark.parametrize(("table", "kind", "change", "event"), CHANGES)
def test_insert_update_delete(clinic: Clinic, program: str, table: str, kind: str, change: str, event: str) -> None:
    connection: Connection = getattr(clinic, program)()
    row_id = make(clinic, table, connection)
    connection.execute(f"update {table} set {change}, version = 77 where id = %s", [row_id])
    assert clinic.get(table, row_id, "version, updated_at > created_at") == (2, True)
    connection.execute(f"delete from {table} where id = %s", [row_id])
    assert events(clinic, row_id) == [(f"{kind}.created", 1), (f"{kind}.{event}", 2), (f"{kind}.deleted", 3)]
    assert history(clinic, row_id) == [(1, False), (2, False), (3, True)]


def test_history_keeps_the_row_as_it_was_and_the_event_the_row_as_it_is(clinic: Clinic) -> None:
    booked = clinic.book(None, reason="before")
    clinic.staff().execute("update appointments set reason = 'after' where id = %s", [booked])
    assert clinic.rows("select row ->> 'reason' from history where id = %s", booked) == [("before",)]
    payloads = clinic.rows(
        "select payload -> 'row' ->> 'reason', payload ->> 'tenant_id', tenant_id::text from outbox"
        " where aggregate_id = %s order by created_at",
        booked,
    )
    assert payloads == [(reason, str(clinic.tenant), str(clinic.tenant)) for reason in ("before", "after")]


def test_a_row_that_comes_back_counts_on(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    for version in (3, 5):
        clinic.staff().execute("delete from slots where id = %s", [slot])
        clinic.slot(schedule, 0, clinic.staff(), id=slot)
        assert clinic.get("slots", slot, "version") == version
    assert history(clinic, slot) == [(1, False), (2, True), (3, False), (4, True)]


def test_a_change_that_is_rolled_back_leaves_nothing(clinic: Clinic) -> None:
    connection = clinic.staff()
    with connection.transaction(force_rollback=True):
        booked = clinic.book(None, connection)
    assert events(clinic, booked) == []


def test_changes_of_one_transaction_keep_their_order(clinic: Clinic) -> None:
    connection = clinic.staff()
    with connection.transaction():
        booked = clinic.book(None, connection)
        connection.execute("update appointments set reason = 'x' where id = %s", [booked])
    created = clinic.rows("select count(distinct created_at) from outbox where aggregate_id = %s", booked)
    assert created == [(2,)]


def test_slots_of_a_quiet_transaction_are_not_announced_one_by_one(clinic: Clinic) -> None:
    schedule, connection = clinic.schedule(), clinic.api()
    with connection.transaction():
        connection.execute("set local app.quiet_slots = 'on'")
        quiet = clinic.slot(schedule, 0, connection)
    loud = clinic.slot(schedule, 20, connection)
    assert (events(clinic, quiet), events(clinic, loud)) == ([], [("slot.created", 1)])
    together = (
        "select payload -> 'slots' -> 'count' from outbox where event_type = 'slots.generated' and aggregate_id = %s"
    )
    assert clinic.rows(together, schedule) == [(1,)]


def test_truncate_is_a_delete_of_every_row(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slots = [clinic.slot(schedule, 0), clinic.slot(schedule, 20)]
    booked = clinic.book(
        slots[0], extra_slot_ids=[slots[1]], provider_id=uuid4(), start_at=at(0), end_at=at(20),
        fhir_tokens=None,
    )  # fmt: skip
    clinic.root().execute("""update appointments set fhir_tokens = '[["Appointment.identifier", "", "x"]]'""")
    clinic.root().execute("truncate appointments")
    assert [clinic.get("slots", slot) for slot in slots] == ["free", "free"]
    assert events(clinic, booked)[-1] == ("appointment.deleted", 3)
    for derived in (
        "provider_times where appointment_id",
        "extra_slots where appointment_id",
        "search_tokens where id",
    ):
        assert clinic.rows(f"select from {derived} = %s", booked) == []
    clinic.root().execute("truncate schedules cascade")
    assert history(clinic, slots[0])[-1][1] is True


@pytest.mark.parametrize("program", ["staff", "api"])
def test_an_event_tells_what_a_changed_status_was_before(clinic: Clinic, program: str) -> None:
    connection: Connection = getattr(clinic, program)()
    slot = clinic.slot(clinic.schedule(), 0, connection)
    for change in ("status = 'busy'", "appointment_type = 'x'", "status = 'free'"):
        connection.execute(f"update slots set {change} where id = %s", [slot])
    told = clinic.rows(
        "select payload -> 'previous', xid is not null from outbox where aggregate_id = %s order by created_at", slot
    )
    assert told == [(None, True), ({"status": "free"}, True), (None, True), ({"status": "busy"}, True)]
