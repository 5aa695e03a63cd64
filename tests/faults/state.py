"""What the database holds of one tenant, read in one snapshot by a superuser: every version, event and derived row.

Knows the tables, judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

PREFIXES = {"schedules": "sch", "slots": "slt", "appointments": "apt"}
OCCUPYING = frozenset({"pending", "booked", "arrived", "fulfilled", "noshow"})


@dataclass(frozen=True)
class Version:
    """One version of a row; a deletion has no status. `mark` is the description that a client wrote."""

    id: str
    number: int
    current: bool
    status: str | None
    mark: str | None = None
    slots: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    shared: bool = False

    @property
    def table(self) -> str:
        """The prefix of the id says it."""
        return self.id.partition("-")[0]

    @property
    def occupies(self) -> bool:
        """Whether this version of an appointment holds its slots and its practitioners' time."""
        return self.table == "apt" and self.status in OCCUPYING


@dataclass(frozen=True)
class State:
    """All that the checker looks at.

    `events` are id and version of each outbox row; `times` appointment, practitioner, start and end; `extra` slot and
    appointment of each further slot that is held; `keys` Idempotency-Key and the status kept for it (None: unfinished);
    `audited` id and version of each change of an appointment that the audit log tells of.
    """

    versions: tuple[Version, ...]
    events: tuple[tuple[str, int], ...]
    times: frozenset[tuple[str, str, datetime, datetime]]
    extra: frozenset[tuple[str, str]]
    keys: dict[str, int | None]
    audited: frozenset[tuple[str, int]]


_VERSIONS = """
select '{prefix}-' || t.id, t.version, true, to_jsonb(t) from {table} t where t.tenant_id = %(tenant)s
union all
select '{prefix}-' || h.id, h.version, false, h.row from history h
where h.tenant_id = %(tenant)s and h.table_name = '{table}'
"""
_EVENTS = """
select case split_part(event_type, '.', 1) when 'schedule' then 'sch' when 'slot' then 'slt' else 'apt' end
       || '-' || aggregate_id, (payload ->> 'version')::integer
from outbox where tenant_id = %(tenant)s
"""
_TIMES = """
select 'apt-' || appointment_id, provider_id::text, start_at, end_at from provider_times where tenant_id = %(tenant)s
"""
_EXTRA = "select 'slt-' || slot_id, 'apt-' || appointment_id from extra_slots where tenant_id = %(tenant)s and occupies"
_AUDITED = """
select split_part(entity, '/', 2), entity_version from audit_events
where tenant_id = %(tenant)s and action in ('C', 'U', 'D') and outcome = '0'
  and type = 'Appointment' and entity_version is not null
"""
_KEYS = "select key, status from idempotent_requests where tenant_id = %(tenant)s"


def read_state(connection: psycopg.Connection[tuple[Any, ...]], tenant: UUID) -> State:
    """The tenant's rows as they are now."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")

        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query.encode(), {"tenant": tenant}).fetchall()

        versions = tuple(
            _version(*row)
            for table, prefix in PREFIXES.items()
            for row in rows(_VERSIONS.format(table=table, prefix=prefix))
        )
        return State(
            versions,
            tuple((row[0], row[1]) for row in rows(_EVENTS)),
            frozenset((row[0], row[1], row[2], row[3]) for row in rows(_TIMES)),
            frozenset((row[0], row[1]) for row in rows(_EXTRA)),
            {row[0]: row[1] for row in rows(_KEYS)},
            frozenset((row[0], row[1]) for row in rows(_AUDITED)),
        )


def _version(fhir_id: str, number: int, current: bool, row: dict[str, Any] | None) -> Version:
    if row is None:
        return Version(fhir_id, number, current, None)
    status = row.get("status", "")
    if "patient_id" not in row:
        return Version(fhir_id, number, current, status)
    slots = [row["slot_id"], *(row["extra_slot_ids"] or ())]
    providers = [row["provider_id"], *(row["extra_provider_ids"] or ())]
    return Version(
        fhir_id,
        number,
        current,
        status,
        (row["fhir"] or {}).get("description"),
        tuple(f"slt-{slot}" for slot in slots if slot),
        tuple(provider for provider in providers if provider),
        _moment(row["start_at"]),
        _moment(row["end_at"]),
        bool(row["allow_double_booking"]),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
