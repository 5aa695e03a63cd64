"""What is still to be sent, sink by sink: the table `outbox_deliveries` in SQL, in a transaction of one tenant.

Laws: a delivery is due after its pause, and only when nothing of the same row and sink stands before it; a parked one
stands in nobody's way; the last delivery of an event publishes it. Knows no sink but by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fhir_sched.events.event import Event
from fhir_sched.events.session import Connection

_REFUSED_S: Final = (0.2, 60.0)
_FAILED_S: Final = (0.4, 15.0)
"""First and longest pause. After a failure it is longer than the sink's, which is then asked for another event."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that a sink has not taken, with how often it was tried and refused."""

    event: str
    aggregate: str
    attempts: int
    refusals: int


@dataclass(frozen=True, slots=True)
class Miss:
    """An attempt that failed: `refused` counts towards parking; `tried` is false where the sink was not asked."""

    event: Event
    sink: str
    problem: str = ""
    refused: bool = False
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked event as it is listed."""

    tenant: str
    event: str
    type: str
    sink: str
    refusals: int
    since: str
    problem: str


def pause_s(attempts: int, *, refused: bool) -> float:
    """How long an event rests after that many attempts, in seconds.

    >>> [pause_s(attempts, refused=True) for attempts in (0, 1, 2, 8, 100)]
    [0.0, 0.2, 0.4, 25.6, 60.0]
    """
    first, longest = _REFUSED_S if refused else _FAILED_S
    return min(first * 2 ** min(attempts - 1, 30), longest) if attempts else 0.0


async def held(
    connection: Connection, tenant: str, sinks: Sequence[str], aggregates: Sequence[str]
) -> set[tuple[str, str]]:
    """(sink, row) of those rows of which something is still to be sent to the sink."""
    cursor = await connection.execute(
        """
        select distinct d.sink, d.aggregate_id::text
        from outbox_deliveries d
        where d.tenant_id = %s::uuid
          and d.sink = any(%s)
          and d.aggregate_id = any(%s::uuid[])
          and d.parked_at is null
        """,
        [tenant, list(sinks), list(aggregates)],
        prepare=True,
    )
    return {(str(sink), str(aggregate)) for sink, aggregate in await cursor.fetchall()}


async def add(connection: Connection, tenant: str, misses: Sequence[Miss], park_after: int) -> None:
    """Keep what a sink has not taken of events that were just taken from the outbox."""
    if not misses:
        return
    async with connection.pipeline():
        for miss in misses:
            await _add(connection, tenant, miss, parked=miss.refused and park_after <= 1)


async def _add(connection: Connection, tenant: str, miss: Miss, *, parked: bool) -> None:
    attempts = 1 if miss.tried else 0
    rest_s = pause_s(attempts, refused=miss.refused)
    await connection.execute(
        """
        insert into outbox_deliveries
            (tenant_id, event_id, sink, aggregate_id, created_at, due_at, attempts, refusals, problem, parked_at)
        select o.tenant_id, o.id, %s, o.aggregate_id, o.created_at,
               case when %s then clock_timestamp() + make_interval(secs => %s) else o.created_at end,
               %s, %s, nullif(%s, ''), case when %s then clock_timestamp() end
        from outbox o
        where o.tenant_id = %s::uuid
          and o.id = %s::uuid
        on conflict (tenant_id, event_id, sink) do nothing
        """,
        [miss.sink, miss.tried, rest_s, attempts, int(miss.refused), miss.problem, parked, tenant, miss.event.id],
        prepare=True,
    )


async def take(connection: Connection, tenant: str, sink: str, limit: int) -> list[Delivery]:
    """Up to that many deliveries that are due, eldest first, locked until the transaction ends."""
    cursor = await connection.execute(
        """
        with mine as materialized (
            select d.event_id, d.aggregate_id, d.created_at, d.attempts, d.refusals
            from outbox_deliveries d
            where d.tenant_id = %(tenant)s::uuid
              and d.sink = %(sink)s
              and d.parked_at is null
              and d.due_at <= clock_timestamp()
              and not exists (
                  select
                  from outbox_deliveries e
                  where e.tenant_id = d.tenant_id
                    and e.sink = d.sink
                    and e.aggregate_id = d.aggregate_id
                    and e.parked_at is null
                    and (e.created_at, e.event_id) < (d.created_at, d.event_id)
                    and e.due_at > clock_timestamp()
              )
            order by d.created_at, d.event_id
            limit %(limit)s
            for no key update of d skip locked
        )
        select m.event_id::text, m.aggregate_id::text, m.attempts, m.refusals
        from mine m
        where not exists (
            select
            from outbox_deliveries e
            where e.tenant_id = %(tenant)s::uuid
              and e.sink = %(sink)s
              and e.aggregate_id = m.aggregate_id
              and e.parked_at is null
              and (e.created_at, e.event_id) < (m.created_at, m.event_id)
              and e.event_id not in (select event_id from mine)
        )
        order by m.created_at, m.event_id
        """,
        {"tenant": tenant, "sink": sink, "limit": limit},
        prepare=True,
    )
    rows = await cursor.fetchall()
    return [Delivery(str(event), str(aggregate), int(str(a)), int(str(r))) for event, aggregate, a, r in rows]


async def missed(connection: Connection, tenant: str, delivery: Delivery, miss: Miss, park_after: int) -> bool:
    """Note a failed attempt; whether the event is parked now."""
    refusals = delivery.refusals + miss.refused
    parked = miss.refused and refusals >= park_after
    rest_s = pause_s(delivery.attempts + 1, refused=miss.refused)
    await connection.execute(
        """
        update outbox_deliveries
        set attempts = attempts + 1,
            refusals = %s,
            problem = %s,
            due_at = clock_timestamp() + make_interval(secs => %s),
            parked_at = case when %s then clock_timestamp() end
        where tenant_id = %s::uuid
          and event_id = %s::uuid
          and sink = %s
        """,
        [refusals, miss.problem, rest_s, parked, tenant, delivery.event, miss.sink],
        prepare=True,
    )
    return parked


async def done(connection: Connection, tenant: str, sink: str, events: Sequence[str]) -> None:
    """The sink has these events: remove their deliveries, publish what no other sink waits for.

    The events are locked first: of two sinks that finish an event at once, the second sees that it is the last.
    """
    if not events:
        return
    ids = list(events)
    await connection.execute(
        """
        select
        from outbox o
        where o.tenant_id = %s::uuid
          and o.id = any(%s::uuid[])
        order by o.id
        for no key update
        """,
        [tenant, ids],
        prepare=True,
    )
    await connection.execute(
        """
        delete from outbox_deliveries
        where tenant_id = %s::uuid
          and sink = %s
          and event_id = any(%s::uuid[])
        """,
        [tenant, sink, ids],
        prepare=True,
    )
    await connection.execute(
        """
        update outbox o
        set published = true
        where o.tenant_id = %s::uuid
          and o.id = any(%s::uuid[])
          and not exists (
              select
              from outbox_deliveries d
              where d.tenant_id = o.tenant_id
                and d.event_id = o.id
          )
        """,
        [tenant, ids],
        prepare=True,
    )


async def parked(connection: Connection, tenant: str) -> list[Parked]:
    """The tenant's parked events, eldest first."""
    cursor = await connection.execute(
        """
        select d.event_id::text, coalesce(o.event_type, ''), d.sink, d.refusals,
               to_char(d.parked_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), coalesce(d.problem, '')
        from outbox_deliveries d
        left join outbox o on o.tenant_id = d.tenant_id and o.id = d.event_id
        where d.tenant_id = %s::uuid
          and d.parked_at is not null
        order by d.created_at, d.event_id, d.sink
        """,
        [tenant],
    )
    return [
        Parked(tenant, str(e), str(t), str(s), int(str(n)), str(at), str(p))
        for e, t, s, n, at, p in await cursor.fetchall()
    ]


async def resend(connection: Connection, tenant: str, event: str | None) -> int:
    """Let that parked event, or all of the tenant, be sent again as if it were new; how many there were."""
    cursor = await connection.execute(
        """
        update outbox_deliveries
        set parked_at = null, attempts = 0, refusals = 0, due_at = clock_timestamp()
        where tenant_id = %s::uuid
          and parked_at is not null
          and event_id = coalesce(%s::uuid, event_id)
        """,
        [tenant, event],
    )
    return cursor.rowcount


async def forget(connection: Connection, tenant: str, sink: str) -> int:
    """Nothing is sent to that sink any more: remove its deliveries, publish what no other sink waits for."""
    cursor = await connection.execute(
        "select d.event_id::text from outbox_deliveries d where d.tenant_id = %s::uuid and d.sink = %s", [tenant, sink]
    )
    events = [str(row[0]) for row in await cursor.fetchall()]
    await done(connection, tenant, sink, events)
    return len(events)
