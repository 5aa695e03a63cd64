"""`fhir-sched slots generate`: slots for every active schedule, from now to a horizon, by the availability rules.

Law: one statement and one transaction a schedule, so that a run that was ended anywhere goes on where the next one
starts, and two at once share the work: a schedule that is locked comes again at the end, and by then there is nothing
left to do for it. Works as the role that serves, tenant by tenant under row-level security; only who the tenants are it
asks across them. What a rule means is the database's matter (`fhir_sched_generate_slots`). Knows no command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import psycopg
from psycopg import errors

Connection = psycopg.Connection[tuple[object, ...]]

# The first to come takes the row; the functions behind take it again.
_GENERATE: Final = """
select g.added, g.withdrawn
from (
    select s.id, (now() at time zone s.zone)::date as today
    from schedules s
    where s.tenant_id = %(tenant)s
      and s.id = %(schedule)s
      and s.is_active
    for no key update {}
) s
cross join lateral fhir_sched_generate_slots(%(tenant)s, s.id, s.today, s.today + %(days)s, now()) g
"""
_AT_ONCE: Final = _GENERATE.format("skip locked").encode()
_IN_TURN: Final = _GENERATE.format("").encode()
_SCHEDULES: Final = "select s.id from schedules s where s.tenant_id = %(tenant)s and s.is_active order by s.id"
_ATTEMPTS: Final = 4
_LOST_TO_OTHERS: Final = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)


@dataclass(slots=True)
class Progress:
    """How far the run is with one tenant; `failures` are sentences, one for each schedule that was left out."""

    tenant: UUID
    schedules: int
    done: int = 0
    added: int = 0
    withdrawn: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"tenant {self.tenant}: {self.done} of {self.schedules} schedules, "
            f"{self.added} slots added, {self.withdrawn} withdrawn"
        )


def generate(
    url: str, horizon_days: int, tenants: Iterable[UUID], say: Callable[[Progress], None], every_s: float = 2.0
) -> list[Progress]:
    """What was done for each tenant (for all that have an active schedule when none is named).

    The horizon is a number of days after today on the schedule's own clock; slots of today begin at the present moment.
    `say` hears of the progress at the end of each tenant and every so many seconds. Raises psycopg.Error when the
    database is lost; a schedule that fails is named in `failures` and the others go on.
    """
    with psycopg.connect(url, autocommit=True, application_name="fhir-sched slots generate") as connection:
        connection.execute("set lock_timeout = '30s'")
        named = tuple(tenants) or tuple(_tenants(connection))
        return [_of_tenant(connection, tenant, horizon_days, say, every_s) for tenant in named]


def _tenants(connection: Connection) -> Iterator[UUID]:
    for (tenant,) in connection.execute("select t from fhir_sched_tenants_with_schedules() t").fetchall():
        yield UUID(str(tenant))


def _of_tenant(
    connection: Connection, tenant: UUID, days: int, say: Callable[[Progress], None], every_s: float
) -> Progress:
    listed = [UUID(str(row[0])) for row in _run(connection, _SCHEDULES.encode(), tenant, {})]
    progress = Progress(tenant, len(listed))
    said_at = time.monotonic()
    busy: list[UUID] = []
    for statement, schedules in ((_AT_ONCE, listed), (_IN_TURN, busy)):
        for schedule in schedules:
            if not _generated(connection, statement, progress, schedule, days) and statement is _AT_ONCE:
                busy.append(schedule)
            if time.monotonic() - said_at > every_s:
                said_at = time.monotonic()
                say(progress)
    say(progress)
    return progress


def _generated(connection: Connection, statement: bytes, progress: Progress, schedule: UUID, days: int) -> bool:
    """Whether the schedule is done; not so while another transaction has it, or when it is no more."""
    try:
        rows = _patiently(connection, statement, progress.tenant, {"schedule": schedule, "days": days})
    except psycopg.OperationalError as error:
        if connection.broken:
            raise
        rows = _failed(progress, schedule, error)
    except psycopg.Error as error:
        rows = _failed(progress, schedule, error)
    for added, withdrawn in rows:
        progress.added += int(str(added))
        progress.withdrawn += int(str(withdrawn))
        progress.done += 1
    return bool(rows)


def _failed(progress: Progress, schedule: UUID, error: psycopg.Error) -> list[tuple[object, ...]]:
    progress.failures.append(f"schedule {schedule}: {error.diag.message_primary or type(error).__name__}")
    return [(0, 0)]


def _patiently(
    connection: Connection, statement: bytes, tenant: UUID, given: dict[str, object]
) -> list[tuple[object, ...]]:
    """As `_run`, again when it lost to another transaction."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return _run(connection, statement, tenant, given)
        except _LOST_TO_OTHERS:
            time.sleep(0.05 * 2**attempt)
    return _run(connection, statement, tenant, given)


def _run(connection: Connection, statement: bytes, tenant: UUID, given: dict[str, object]) -> list[tuple[object, ...]]:
    """The rows of a statement in a transaction of its own, which belongs to the tenant."""
    with connection.transaction():
        connection.execute("select set_config('app.tenant_id', %s, true)", [str(tenant)])
        return connection.execute(statement, {"tenant": tenant, **given}).fetchall()
