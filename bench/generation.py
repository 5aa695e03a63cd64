"""How fast availability rules become slots, beside a plain `insert … select` of the same rows into the same table.

Both run as the server's role, one transaction a schedule, with all triggers and constraints, and are rolled back. The
plain one inserts rows that are ready in a temporary table, and is told to write no outbox row a slot, as generation is.
"""

from __future__ import annotations

import statistics
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.types.json import Jsonb

from bench import shape

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[tuple[Any, ...]]

DAYS: Final = 250
ROUNDS: Final = 5
_RULE: Final = {
    "days": ["mon", "tue", "wed", "thu", "fri"],
    "start": "08:00",
    "end": "18:00",
    "slotMinutes": 15,
    "appointmentType": "routine",
}
_FIRST: Final = "2031-01-06"
_SCHEDULE: Final = """
insert into schedules (id, tenant_id, actor_id, actor_type, timezone, availability_pattern)
values (%s, %s, gen_random_uuid(), 'provider', 'Europe/Berlin', %s)"""
_GENERATE: Final = """
select added from fhir_sched_generate_slots(%(tenant)s, %(schedule)s, %(first)s, %(first)s::date + %(days)s)"""
_READY: Final = """
create temp table ready on commit drop as
select fhir_sched_slot_id(%(schedule)s, t.start_at, t.end_at, t.type) as id, t.start_at, t.end_at, t.type
from fhir_sched_times('Europe/Berlin', %(pattern)s, %(first)s, %(first)s::date + %(days)s) t"""
_PLAIN: Final = """
insert into slots (id, tenant_id, schedule_id, start_at, end_at, appointment_type)
select id, %(tenant)s, %(schedule)s, start_at, end_at, type from ready order by start_at"""


def measure(url: str) -> dict[str, float]:
    """Slots a second of both, and the ratio; medians of the rounds, the ratio taken within a round."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set statement_timeout = '120s'")
        _once(connection, _generated)
        rounds = [(_once(connection, _generated), _once(connection, _inserted)) for _ in range(ROUNDS)]
    return {
        "slots_per_s": round(statistics.median(generated for generated, _ in rounds)),
        "insert_slots_per_s": round(statistics.median(inserted for _, inserted in rounds)),
        "ratio": round(statistics.median(generated / inserted for generated, inserted in rounds), 3),
    }


def _once(connection: Connection, work: Callable[[Connection, dict[str, Any]], tuple[int, float]]) -> float:
    tenant, schedule = shape.key("t", 0), uuid.uuid4()
    values = {"tenant": tenant, "schedule": schedule, "first": _FIRST, "days": DAYS, "pattern": _pattern()}
    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('app.tenant_id', %s, true)", [tenant])
        connection.execute(_SCHEDULE, [schedule, tenant, _pattern()])
        count, seconds = work(connection, values)
    return count / seconds


def _pattern() -> Jsonb:
    return Jsonb({"rules": [_RULE]})


def _generated(connection: Connection, values: dict[str, Any]) -> tuple[int, float]:
    connection.execute("select set_config('app.writer', 'fhir', true)")
    started = time.perf_counter()
    row = connection.execute(_GENERATE, values).fetchone()
    seconds = time.perf_counter() - started
    if row is None:
        raise RuntimeError("nothing was generated")
    return int(row[0]), seconds


def _inserted(connection: Connection, values: dict[str, Any]) -> tuple[int, float]:
    connection.execute(_READY, values)
    connection.execute("select set_config('app.quiet_slots', 'on', true), set_config('app.writer', 'generate', true)")
    started = time.perf_counter()
    count = connection.execute(_PLAIN, values).rowcount
    return count, time.perf_counter() - started
