"""The outbox in SQL: take events, mark them, remove old ones; all inside a transaction of one tenant.

Laws: rows are taken by what they lack (`published`, `fanned`), never by a position, so that a late commit is not
skipped; taken rows are locked and locked rows passed over, so that several relays share the work; of each row that
events are about, only the eldest are taken, so that its events keep their order. Knows no sink.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import psycopg

from fhir_sched import codec, rendering
from fhir_sched.db.rows import Rows
from fhir_sched.events.event import KINDS, Event, kind
from fhir_sched.events.session import Connection

if TYPE_CHECKING:
    from fhir_sched.definition import Resource, Source

log = logging.getLogger("fhir_sched.events")

Row = tuple[bytes | None, ...]

TO_RELAY: Final = "o.published = false and o.queued = false"
TO_FAN_OUT: Final = "o.fanned = false and o.created_at >= %(since)s::timestamptz"

# `ahead`: the rows up to the last one taken, among them those that another relay holds. An event behind one of these
# is left, even when it was published a moment ago: the next round sees that.
_TAKE: Final = """
with mine as materialized (
    select o.id, o.aggregate_id, o.event_type, o.created_at, o.payload
    from outbox o
    where o.tenant_id = %(tenant)s::uuid
      and {lacking}
    order by o.created_at, o.id
    limit %(limit)s
    for no key update skip locked
), ahead as materialized (
    select o.id, o.aggregate_id, o.created_at
    from outbox o
    where o.tenant_id = %(tenant)s::uuid
      and {lacking}
      and o.created_at <= (select max(created_at) from mine)
      and not exists (select from mine where mine.id = o.id)
)
select m.id, m.aggregate_id, m.event_type, m.created_at,
       case when %(payloads)s or not ours.ours then m.payload::text end, ours.ours
from mine m
cross join lateral (
    select coalesce(
        split_part(m.event_type, '.', 1) = any(%(kinds)s)
        and m.payload ->> 'id' = m.aggregate_id::text
        and jsonb_typeof(m.payload -> 'row') = 'object',
        false
    ) as ours
) ours
where not exists (
    select
    from ahead a
    where a.aggregate_id = m.aggregate_id
      and (a.created_at, a.id) < (m.created_at, m.id)
)
order by m.created_at, m.id
"""
_KINDS: Final = list(KINDS)


async def take(
    connection: Connection,
    tenant: str,
    limit: int,
    lacking: str = TO_RELAY,
    *,
    since: object = None,
    payloads: bool = False,
) -> list[Event]:
    """Up to that many events, eldest first, locked until the transaction ends; empty when there is nothing to take."""
    values = {"tenant": tenant, "limit": limit, "kinds": _KINDS, "payloads": payloads, "since": since}
    cursor = await connection.execute(_TAKE.format(lacking=lacking).encode(), values, prepare=True)
    return await _events(connection, tenant, _rows(cursor))


async def again(connection: Connection, tenant: str, ids: Sequence[str]) -> list[Event]:
    """The events with these ids, eldest first."""
    text = """
        select o.id, o.aggregate_id, o.event_type, o.created_at, o.payload::text,
               coalesce(
                   split_part(o.event_type, '.', 1) = any(%s)
                   and o.payload ->> 'id' = o.aggregate_id::text
                   and jsonb_typeof(o.payload -> 'row') = 'object',
                   false
               )
        from outbox o
        where o.tenant_id = %s::uuid
          and o.id = any(%s::uuid[])
        order by o.created_at, o.id
        """
    cursor = await connection.execute(text, [_KINDS, tenant, list(ids)], prepare=True)
    return await _events(connection, tenant, _rows(cursor))


async def mark(connection: Connection, tenant: str, ids: Sequence[str], column: str) -> None:
    """Set `published`, `queued` or `fanned` of these events."""
    if ids:
        text = f"update outbox set {column} = true where tenant_id = %s::uuid and id = any(%s::uuid[])"
        await connection.execute(text.encode(), [tenant, list(ids)], prepare=True)


async def remove_old(connection: Connection, tenant: str, days: int, limit: int) -> int:
    """Remove up to that many events that were published and are older; how many were."""
    cursor = await connection.execute(
        """
        delete from outbox
        where tenant_id = %s::uuid
          and id = any(array(
              select o.id
              from outbox o
              where o.tenant_id = %s::uuid
                and o.published
                and o.created_at < now() - make_interval(days => %s)
              order by o.created_at
              limit %s
          ))
        """,
        [tenant, tenant, days, limit],
    )
    return cursor.rowcount


async def _events(connection: Connection, tenant: str, rows: Sequence[Row]) -> list[Event]:
    texts = [[_text(cell) for cell in row[:4]] for row in rows]
    shown = await _shown(
        connection, tenant, [(each[0], each[2]) for each, row in zip(texts, rows, strict=True) if row[5] == b"t"]
    )
    events = []
    for (row_id, aggregate, event_type, created_at), row in zip(texts, rows, strict=True):
        time = (codec.instant(created_at.encode()) or b"").decode()
        event = Event(row_id, tenant, event_type, time, aggregate, payload=row[4] or b"null")
        reference, resource = shown.get(row_id, ("", None))
        if reference:
            event = Event(row_id, tenant, event_type, time, aggregate, reference, resource, row[4] or b"")
        elif row[5] == b"t":
            event = (await _with_payload(connection, event)) if row[4] is None else event
        events.append(event)
    return events


async def _shown(
    connection: Connection, tenant: str, found: Sequence[tuple[str, str]]
) -> dict[str, tuple[str, bytes | None]]:
    """Reference and resource of each of our own events, by id; without those whose row is none after all."""
    groups: dict[str, list[str]] = defaultdict(list)
    sources: dict[str, tuple[Resource, Source]] = {}
    deleted = {row_id for row_id, event_type in found if event_type.endswith(".deleted")}
    for row_id, event_type in found:
        known = kind(event_type)
        if known is not None:
            groups[known[1].table].append(row_id)
            sources[known[1].table] = known
    shown: dict[str, tuple[str, bytes | None]] = {}
    for table, ids in groups.items():
        resource, source = sources[table]
        for row in await _spread(connection, source, tenant, ids):
            row_id, version = _text(row[0]), row[1:]
            reference = f"{resource.type}/{source.prefix}-{_text(version[0])}"
            try:
                body = None if row_id in deleted else rendering.to_json(resource, source, version)
            except (TypeError, ValueError, LookupError):
                log.warning("an event's row is not one of ours", extra={"fields": {"event": row_id}})
                continue
            shown[row_id] = (reference, body)
    return shown


async def _spread(connection: Connection, source: Source, tenant: str, ids: Sequence[str]) -> Sequence[Row]:
    """Id of the event, then the columns of its row; one by one where another program's row spoils it for all."""
    try:
        async with connection.transaction():
            return await _spread_all(connection, source, tenant, ids)
    except psycopg.DataError:
        if len(ids) == 1:
            return []
        half = len(ids) // 2
        return [
            *await _spread(connection, source, tenant, ids[:half]),
            *await _spread(connection, source, tenant, ids[half:]),
        ]


async def _spread_all(connection: Connection, source: Source, tenant: str, ids: Sequence[str]) -> Sequence[Row]:
    text = (
        f"select o.id, {', '.join(source.select_list)}\nfrom outbox o\n"
        f"cross join lateral jsonb_populate_record(null::{source.table}, o.payload -> 'row') a\n"
        "where o.tenant_id = %s::uuid\n  and o.id = any(%s::uuid[])\n  and a.id = o.aggregate_id"
    )
    return _rows(await connection.execute(text.encode(), [tenant, list(ids)], prepare=True))


async def _with_payload(connection: Connection, event: Event) -> Event:
    cursor = await connection.execute(
        "select payload::text from outbox where tenant_id = %s::uuid and id = %s::uuid", [event.tenant, event.id]
    )
    payload = _rows(cursor)[0][0] or b"null"
    return Event(event.id, event.tenant, event.type, event.time, event.aggregate, payload=payload)


def _rows(cursor: psycopg.AsyncCursor[tuple[object, ...]]) -> Sequence[Row]:
    result = cursor.pgresult
    return [] if result is None else Rows(result).all()


def _text(cell: bytes | None) -> str:
    return (cell or b"").decode()
