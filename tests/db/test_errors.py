"""What a client reads when PostgreSQL refuses: our sentence and a fitting status, never SQL or a row's values."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from fhir_sched.db.errors import REFUSALS, DatabaseError, DatabaseGone, lost, translate
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.limits import Limits
from fhir_sched.outcome import FhirError, Kind

if TYPE_CHECKING:
    import psycopg

SLOT = "slt-12345678-0000-4000-8000-000000000001"
TENANT = "aaaaaaaa-0000-4000-8000-000000000001"

FOREIGN_KEYS = """
    drop schema if exists keys cascade;
    create schema keys;
    create table keys.schedules (id integer primary key);
    create table keys.slots (id integer primary key,
        schedule_id integer constraint slots_schedule_fk references keys.schedules);
    create table keys.schedule_exceptions (
        schedule_id integer constraint schedule_exceptions_schedule_fk references keys.schedules);
    create table keys.appointments (slot_id integer constraint appointments_slot_fk references keys.slots);
    insert into keys.schedules values (1), (2);
    insert into keys.slots values (10, 1), (11, 1);
    insert into keys.appointments values (10);
    insert into keys.schedule_exceptions values (2);
"""


@pytest.mark.parametrize(
    ("constraint", "status", "expression"),
    [
        ("slots_no_overlap", 409, "Slot.start"),
        ("ix_slots_schedule_start", 409, "Slot.start"),
        ("provider_times_no_overlap", 409, "Appointment.start"),
        ("slot_taken", 409, "Appointment.slot"),
        ("slot_blocked", 409, "Appointment.slot"),
        ("slot_occupied", 409, "Slot.status"),
        ("appointment_slot_missing", 422, "Appointment.slot"),
        ("appointments_slot_fk", 422, "Appointment.slot"),
        ("slots_schedule_fk", 422, "Slot.schedule"),
        ("schedule_exceptions_schedule_fk", 422, "Slot.schedule"),
    ],
)
def test_a_broken_constraint_names_the_element(constraint: str, status: int, expression: str) -> None:
    error = translate(DatabaseError("23P01", "conflicting key value", constraint=constraint, detail="Key (x)=(secret)"))
    assert (error.status, error.issues[0].expression) == (status, expression)
    assert "secret" not in str(error)


def test_the_slots_of_our_own_detail_are_named_and_nothing_else_of_it() -> None:
    error = translate(DatabaseError("23P01", constraint="slot_taken", detail=f"{SLOT} of patient Smith"))
    assert str(error) == f"Slot/{SLOT} is taken: by another appointment, or set busy by hand."


@pytest.mark.parametrize(
    ("sqlstate", "kind", "retry_after"),
    [
        ("40000", Kind.LOCK, True),
        ("40001", Kind.LOCK, True),
        ("40003", Kind.LOCK, True),
        ("40P01", Kind.LOCK, True),
        ("72000", Kind.LOCK, True),
        ("26000", Kind.LOCK, True),
        ("55P03", Kind.LOCK, True),
        ("57014", Kind.TIMEOUT, True),
        ("25P03", Kind.TIMEOUT, True),
        ("25P04", Kind.TIMEOUT, True),
        *((f"57P0{number}", Kind.UNAVAILABLE, True) for number in range(1, 6)),
        *((f"08{number}", Kind.UNAVAILABLE, True) for number in ("000", "003", "006", "P01")),
        *((f"53{number}", Kind.UNAVAILABLE, True) for number in ("000", "100", "200", "300", "400")),
        *((f"58{number}", Kind.UNAVAILABLE, True) for number in ("000", "030", "P01")),
        ("25006", Kind.UNAVAILABLE, True),
        ("28000", Kind.UNAVAILABLE, True),
        ("3D000", Kind.UNAVAILABLE, True),
        ("22021", Kind.VALUE, False),
        ("22003", Kind.VALUE, False),
        ("54000", Kind.VALUE, False),
        ("23P01", Kind.CONFLICT, False),
        ("23505", Kind.CONFLICT, False),
        ("23514", Kind.UNPROCESSABLE, False),
    ],
)
def test_a_state_has_its_status(sqlstate: str, kind: Kind, retry_after: bool) -> None:
    error = translate(DatabaseError(sqlstate, "Smith", detail="Smith"))
    assert error.issues[0].kind is kind
    assert ("Retry-After" in dict(error.headers)) is retry_after
    assert "Smith" not in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "routine", "kind", "again"),
    [
        ("XX000", "MultiXactIdCreateFromMembers", Kind.LOCK, True),
        ("XX000", "relation_open", Kind.EXCEPTION, False),
        ("XX001", "MultiXactIdCreateFromMembers", Kind.EXCEPTION, False),
        ("0A000", "RevalidateCachedQuery", Kind.LOCK, True),
        ("0A000", "transformLockingClause", Kind.EXCEPTION, False),
        ("54000", "GetNewTransactionId", Kind.UNAVAILABLE, False),
        ("54000", "GetNewMultiXactId", Kind.UNAVAILABLE, False),
        ("54000", "index_form_tuple", Kind.VALUE, False),
    ],
)
def test_a_state_that_several_failures_share_is_told_by_the_function_behind_it(
    sqlstate: str, routine: str, kind: Kind, again: bool
) -> None:
    cause = DatabaseError(sqlstate, "Smith", routine=routine)
    error = translate(cause)
    error.__cause__ = cause
    assert error.issues[0].kind is kind
    assert ("Retry-After" in dict(error.headers)) is (error.status == 503)
    assert lost(error) is again


@pytest.mark.parametrize(("sqlstate", "logged"), [("53100", True), ("58030", True), ("53300", False), ("57P01", False)])
def test_what_an_operator_has_to_mend_is_logged(caplog: pytest.LogCaptureFixture, sqlstate: str, logged: bool) -> None:
    with caplog.at_level(logging.ERROR, "fhir_sched.db"):
        translate(DatabaseError(sqlstate, "Smith"))
    assert (sqlstate in caplog.text) is logged
    assert "Smith" not in caplog.text


def test_a_lost_connection_is_unavailable() -> None:
    error = translate(DatabaseGone("cannot connect to host db.internal"))
    assert (error.status, "internal" in str(error)) == (503, False)


def test_an_unforeseen_failure_says_nothing_and_logs_no_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "fhir_sched.db"):
        error = translate(
            DatabaseError("P0001", "Smith", detail="Smith", table="appointments", statement="update x set y = $1")
        )
    assert (error.status, error.issues[0].kind) == (500, Kind.EXCEPTION)
    assert "update" not in str(error)
    assert "P0001" in caplog.text
    assert "update x set y = $1" in caplog.text
    assert "Smith" not in caplog.text + str(error)


def test_no_sentence_is_left_with_a_gap() -> None:
    for refusal in REFUSALS.values():
        assert "{" not in refusal.sentence.replace("{slots}", "")


@pytest.mark.parametrize(
    ("statement", "status", "expression"),
    [
        ("insert into keys.slots values (12, 9)", 422, "Slot.schedule"),
        ("update keys.slots set schedule_id = 9", 422, "Slot.schedule"),
        ("insert into keys.schedule_exceptions values (9)", 422, "Slot.schedule"),
        ("insert into keys.appointments values (9)", 422, "Appointment.slot"),
        ("delete from keys.schedules where id = 1", 409, None),
        ("delete from keys.schedules where id = 2", 409, None),
        ("delete from keys.slots where id = 10", 409, None),
        ("update keys.slots set id = 20 where id = 10", 409, None),
        ("select 'Smith'::uuid", 400, None),
        ("select 99999999999::int", 400, None),
    ],
)
def test_both_sides_of_a_foreign_key_are_told_apart(
    admin: psycopg.Connection, url: str, statement: str, status: int, expression: str | None
) -> None:
    async def scene() -> FhirError:
        lanes = Lanes(url.replace("lane_test", "postgres"), Limits(shared=1, exclusive=1))
        await lanes.open()
        try:
            with pytest.raises(FhirError) as caught:
                await lanes.write(TENANT, Fragment(statement))
        finally:
            await lanes.close()
        return caught.value

    admin.execute(FOREIGN_KEYS)
    error = asyncio.run(scene())
    assert (error.status, error.issues[0].expression) == (status, expression)
    assert "Smith" not in str(error)
