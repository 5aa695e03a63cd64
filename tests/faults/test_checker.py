"""The checker sees what is wrong: each fault is planted in a database that is right but for it, or in the history.

Faults in the data are written with the triggers off, as only a broken server or a lost write would leave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from db import Database
from faults.checker import violations
from faults.ledger import Attempt, End, Ledger, Operation, read
from faults.state import read_state

NINE = datetime(2031, 3, 3, 9, tzinfo=UTC)
PRACTITIONER = UUID("00000000-0000-4000-8000-0000000000dd")


class Scene:
    """Three slots; one appointment in the first two, another that was moved and cancelled, a third that was deleted."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection, self.tenant = connection, uuid4()
        self.schedule = self.insert("schedules", actor_id=PRACTITIONER, actor_type="provider")
        self.slots = [
            self.insert("slots", schedule_id=self.schedule, start_at=_at(15 * index), end_at=_at(15 * index + 15))
            for index in range(3)
        ]
        one, two, three = self.slots
        self.kept = self.book("a/0", one, extra_slot_ids=[two], end_at=_at(30))
        self.gone = self.book("b/0", three, start_at=_at(30), end_at=_at(45))
        self.sql("update appointments set status = 'cancelled', fhir = %s where id = %s", _fhir("c/0"), self.gone)
        self.deleted = self.book("d/0", None, start_at=_at(60), end_at=_at(75))
        self.sql("delete from appointments where id = %s", self.deleted)
        self.sql(
            """insert into idempotent_requests (tenant_id, caller, key, fingerprint, status)
               values (%s, %s, 'k', '', 201)""",
            self.tenant,
            uuid4(),
        )
        for row_id, versions in ((self.kept, 1), (self.gone, 2), (self.deleted, 2)):
            self.sql(
                """insert into audit_events (tenant_id, interaction, action, status, type, entity, entity_version)
                   select %s, 'update', 'U', 200, 'Appointment', 'Appointment/apt-' || %s, n
                   from generate_series(1, %s) n""",
                self.tenant,
                str(row_id),
                versions,
            )
        self.operations = [
            _done("a", "several", ["a/0"], [(self.kept, 1)]),
            _done("b", "once", ["b/0"], [(self.gone, 1)], key="k"),
            _done("c", "cancel", ["c/0"], [(self.gone, 2)]),
            _done("d", "book", ["d/0"], [(self.deleted, 1)]),
            Operation("e", "delete", (), (f"apt-{self.deleted}",), attempts=[Attempt(0, 1, 204)]),
            Operation("f", "book", ("f/0",), attempts=[Attempt(0, 1, 409)]),
            Operation("g", "transaction", ("g/0", "g/1"), attempts=[Attempt(0, 1, 0)]),
        ]

    def insert(self, table: str, **columns: Any) -> UUID:
        """The key of a new row."""
        names = ", ".join(["tenant_id", *columns])
        places = ", ".join(["%s"] * (len(columns) + 1))
        (row,) = self.sql(
            f"insert into {table} ({names}) values ({places}) returning id", self.tenant, *columns.values()
        )
        return UUID(str(row[0]))

    def book(self, mark: str, slot: UUID | None, **columns: Any) -> UUID:
        """A booked appointment that carries a mark."""
        given = {"provider_id": PRACTITIONER, "start_at": NINE, "end_at": _at(15), "fhir": _fhir(mark), **columns}
        return self.insert("appointments", patient_id=uuid4(), created_by=uuid4(), slot_id=slot, **given)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement of a superuser."""
        cursor = self.connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def violations(self) -> str:
        """What the checker says, one sentence a line."""
        return "\n".join(violations(self.operations, read_state(self.connection, self.tenant)))


def _at(minutes: int) -> datetime:
    return NINE + timedelta(minutes=minutes)


def _fhir(mark: str) -> Jsonb:
    return Jsonb({"description": mark})


def _done(number: str, kind: str, marks: list[str], made: list[tuple[UUID, int]], key: str = "") -> Operation:
    versions = tuple((f"apt-{row_id}", version) for row_id, version in made)
    return Operation(number, kind, tuple(marks), key=key, attempts=[Attempt(0, 1, 201, versions)])


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """Everything as it should be."""
    with database.connect_admin() as connection:
        yield Scene(connection)


def test_nothing_is_wrong_where_nothing_is(scene: Scene) -> None:
    assert scene.violations() == ""


PLANTED = {
    "a slot that two hold": (
        "update appointments set slot_id = %(first)s, status = 'booked' where id = %(gone)s",
        "is booked twice",
    ),
    "a practitioner in two places": (
        "update appointments set start_at = %(late)s, end_at = %(later)s, status = 'booked' where id = %(gone)s",
        "at once",
    ),
    "a slot that stayed free": ("update slots set status = 'free' where id = %(second)s", "is free and held"),
    "a slot that stayed busy": ("update slots set status = 'busy' where id = %(third)s", "is busy and held by nobody"),
    "a slot that is gone": ("delete from slots where id = %(second)s", "is held and is not there"),
    "a practitioner's time that is missing": (
        "delete from provider_times where appointment_id = %(kept)s",
        "provider_times and appointments differ",
    ),
    "a further slot that is missing": (
        "delete from extra_slots where appointment_id = %(kept)s",
        "extra_slots and appointments differ",
    ),
    "an appointment that lost its second slot": (
        "update appointments set extra_slot_ids = null where id = %(kept)s",
        "is busy and held by nobody",
    ),
    "a version that was left out": ("update appointments set version = 3 where id = %(kept)s", "has the versions [3]"),
    "a version without history": ("delete from history where id = %(gone)s", "has the versions [2]"),
    "a row that vanished": ("delete from appointments where id = %(gone)s", "ended without a deletion"),
    "a change without an event": (
        "delete from outbox where aggregate_id = %(gone)s and event_type = 'appointment.cancelled'",
        "1 rows, 0 outbox rows",
    ),
    "an event that came twice": (
        """insert into outbox (tenant_id, aggregate_id, event_type, payload)
           select tenant_id, aggregate_id, event_type, payload from outbox where aggregate_id = %(kept)s""",
        "1 rows, 2 outbox rows",
    ),
    "an event of nothing": (
        """insert into outbox (tenant_id, aggregate_id, event_type, payload)
           values (%(tenant)s, gen_random_uuid(), 'appointment.created', '{"version": 1}')""",
        "0 rows, 1 outbox rows",
    ),
    "a change that the audit log does not know": (
        "delete from audit_events where entity = 'Appointment/apt-' || %(kept)s",
        "version 1 has no audit event",
    ),
    "a change in the audit log that was never made": (
        """insert into audit_events (tenant_id, interaction, action, status, type, entity, entity_version)
           values (%(tenant)s, 'update', 'U', 200, 'Appointment', 'Appointment/apt-' || %(kept)s, 2)""",
        "version 2 has an audit event and is not there",
    ),
    "a slot that changed by itself": (
        """insert into history (tenant_id, table_name, id, version, updated_at, row)
           select tenant_id, 'slots', id, 3, now(), to_jsonb(slots) from slots where id = %(second)s""",
        "changed 2 times, and appointments took and freed it 1 times",
    ),
    "a key without an end": (
        "update idempotent_requests set status = null where tenant_id = %(tenant)s",
        "never finished",
    ),
    "a key that was lost": (
        "delete from idempotent_requests where tenant_id = %(tenant)s",
        "was acknowledged and its key is not kept",
    ),
    "a booking that was lost": ("delete from appointments where id = %(kept)s", "several a was acknowledged"),
    "a version that was lost": ("delete from history where id = %(gone)s", "once b was acknowledged"),
    "a deletion that was lost": ("delete from history where id = %(deleted)s and deleted", "is not deleted"),
    "a refused booking that is there": (
        'update appointments set fhir = \'{"description": "f/0"}\' where id = %(kept)s',
        "book f is refused and made",
    ),
    "half of a transaction": (
        'update appointments set fhir = \'{"description": "g/0"}\' where id = %(kept)s',
        "transaction g (unknown) is half there",
    ),
    "a booking done twice": (
        'update appointments set fhir = \'{"description": "b/0"}\' where id = %(kept)s',
        "b/0 was done 2 times",
    ),
    "a booking of nobody": ("update appointments set fhir = null where id = %(kept)s", "is nobody's operation"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_in_the_data_is_found(scene: Scene, fault: str) -> None:
    statement, said = PLANTED[fault]
    first, second, third = scene.slots
    values = {
        "tenant": scene.tenant, "kept": scene.kept, "gone": scene.gone, "deleted": scene.deleted,
        "first": first, "second": second, "third": third, "late": _at(20), "later": _at(40),
    }  # fmt: skip
    with scene.connection.transaction():
        scene.connection.execute("set local session_replication_role = replica")
        assert scene.connection.execute(statement.encode(), values).rowcount == 1
    assert said in scene.violations()


def test_a_planted_fault_in_the_history_is_found(scene: Scene) -> None:
    whole = list(scene.operations)
    kept = (f"apt-{scene.kept}", 1)
    for changed, said in [
        (Operation("e", "look"), f"apt-{scene.deleted} was deleted and nobody asked for it"),
        (
            replace(whole[1], attempts=[*whole[1].attempts, Attempt(2, 3, 201, (kept,))]),
            "was answered differently when it was repeated",
        ),
        (replace(whole[0], attempts=[Attempt(0, 1, 409)]), "several a is refused and made"),
        (replace(whole[0], attempts=[Attempt(0, 1, -1)]), "several a is unsent and made"),
        (replace(whole[5], attempts=[Attempt(0, 1, 500)]), "book f was answered 500"),
        (replace(whole[5], attempts=[Attempt(0, 1, 503)]), "book f was answered 503"),
    ]:
        scene.operations = [changed if each.number == changed.number else each for each in whole]
        assert said in scene.violations()


@pytest.mark.parametrize(
    ("statuses", "key", "end"),
    [
        ([], "", End.UNKNOWN),
        ([-1], "", End.UNSENT),
        ([0], "", End.UNKNOWN),
        ([503], "", End.UNKNOWN),
        ([409], "", End.REFUSED),
        ([201], "", End.OK),
        ([0, 201], "k", End.OK),
        ([-1, 409], "k", End.REFUSED),
        ([0, 409], "k", End.REFUSED),
        ([0, 409], "", End.UNKNOWN),
        ([409, 0], "k", End.UNKNOWN),
        ([-1, 0, -1], "k", End.UNKNOWN),
    ],
)
def test_what_a_client_may_believe_follows_from_its_answers(statuses: list[int], key: str, end: End) -> None:
    assert Operation("1", "book", key=key, attempts=[Attempt(0, 1, status) for status in statuses]).end is end


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    operation = Operation("1", "book", ("1/0",), ("apt-1",), "key")
    ledger.start(operation)
    ledger.attempted(operation, Attempt(1.5, 2.5, 201, (("apt-2", 1),), "1"))
    ledger.close()
    assert read(tmp_path / "ledger") == [operation]
