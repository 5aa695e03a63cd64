"""Events -> the numbered events of each subscription that is to hear of them, in the transaction that marks them.

Laws: a number is taken by an update of the subscription's row in that transaction, so numbers have no gaps and an event
has one number; what was committed before a subscription was there is not told to it, however late it is looked at; a
filter is evaluated by our own search. Rows are locked in the order of their ids. Knows nothing of sending.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import orjson
import psycopg

from fhir_sched.events.event import Event
from fhir_sched.events.session import Connection
from fhir_sched.outcome import FhirError
from fhir_sched.resources.topics import TOPICS, Topic
from fhir_sched.search.query import Condition
from fhir_sched.subscriptions import filters, matching, subscriber
from fhir_sched.subscriptions.changes import Change, Focus, changes
from fhir_sched.subscriptions.claims import AS_DELIVERY
from fhir_sched.subscriptions.database import Ask, array, asking, statement, text
from fhir_sched.subscriptions.subscriber import Listening

log = logging.getLogger("fhir_sched.subscriptions")

_FOLLOWED: Final = "select from fhir_sched_tenants_with_subscribers() limit 1"
_WAITING: Final = "select tenant_id::text, since from fhir_sched_tenants_to_fan_out()"
_STANDING: Final = (
    "select s.id, s.version\nfrom subscriptions s\n"
    "where s.tenant_id = $1::uuid and s.status <> 'off' and s.criteria = any($2::text[])\norder by s.id"
)
_SUBSCRIBERS: Final = (
    "select s.id, s.version, s.criteria, s.fhir, s.caller, s.base\nfrom subscriptions s\n"
    "where s.tenant_id = $1::uuid and s.id = any($2::uuid[])"
)
_BEFORE: Final = (
    "select s.id, o.id\nfrom unnest($2::uuid[], $3::uuid[]) heard (subscription_id, outbox_id)\n"
    "join subscriptions s on s.tenant_id = $1::uuid and s.id = heard.subscription_id\n"
    "join outbox o on o.tenant_id = $1::uuid and o.id = heard.outbox_id\n"
    "where pg_visible_in_snapshot(o.xid, s.since)"
)
_LOCK: Final = (
    "select s.id\nfrom subscriptions s\nwhere s.tenant_id = $1::uuid and s.id = any($2::uuid[])\n"
    "order by s.id\nfor no key update"
)
# A subscription that waits for its next attempt, or that somebody sends to at this moment, is looked at then.
_COUNT: Final = """
with told as materialized (
    select t.subscription_id, t.place, t.occurred_at, t.outbox_id, t.action, t.table_name, t.id, t.version
    from unnest(
        $2::uuid[], $3::integer[], $4::timestamptz[], $5::uuid[], $6::text[], $7::text[], $8::uuid[], $9::integer[]
    ) t (subscription_id, place, occurred_at, outbox_id, action, table_name, id, version)
), counted as (
    update subscriptions s
    set events = s.events + n.events,
        due_at = case
            when s.status = 'active' and s.claim is null and (s.failures = 0 or s.due_at is null)
                then clock_timestamp()
            else s.due_at
        end
    from (select t.subscription_id, count(*) as events from told t group by t.subscription_id) n
    where s.tenant_id = $1::uuid
      and s.id = n.subscription_id
    returning s.id, s.events - n.events as before
)
insert into subscription_events (
    tenant_id, subscription_id, number, occurred_at, outbox_id, action, table_name, id, version
)
select $1::uuid, c.id, c.before + t.place, t.occurred_at, t.outbox_id, t.action, t.table_name, t.id, t.version
from counted c
join told t on t.subscription_id = c.id
"""


_KNOWN_S: Final = 60.0
"""For how long filters are kept as they were understood; a value such as `ap2030` means something else each day."""


@dataclass(frozen=True, slots=True)
class _Follower:
    """A version of a subscription: what it listens to, and what must hold for it to hear (None: it hears nothing)."""

    version: str
    listening: Listening
    conditions: tuple[Condition, ...] | None


class Fanout:
    """See `events.fanout.Fanout`. `tokens`: whether the server asks for tokens; `wake` is called when there is work."""

    def __init__(self, *, tokens: bool, wake: Callable[[], None] = lambda: None) -> None:
        self._tokens, self._wake = tokens, wake
        self._known: dict[str, dict[str, _Follower]] = {}
        self._known_at = 0.0

    async def anybody(self, connection: Connection) -> bool:
        """Whether any tenant has subscriptions."""
        return (await connection.execute(_FOLLOWED)).rowcount > 0

    async def tenants(self, connection: Connection) -> Mapping[str, datetime]:
        """The tenants that have subscriptions and events to tell them, and since when events may concern them."""
        cursor = await connection.execute(_WAITING)
        return {str(tenant): since for tenant, since in await cursor.fetchall() if isinstance(since, datetime)}

    async def fan_out(self, connection: Connection, tenant: str, events: Sequence[Event]) -> None:
        """Number what each subscription is to hear of these events."""
        ask = asking(connection)
        await ask(AS_DELIVERY)
        found = list(changes(events, frozenset(TOPICS)))
        followers = await self._followers(ask, tenant, {change.topic.url for change in found}) if found else {}
        followed = {each.listening.topic for each in followers.values()}
        found = [change for change in found if change.topic in followed]
        there = await matching.with_versions(ask, tenant, [change.focus for change in found])
        found = [replace(change, focus=focus) for change, focus in zip(found, there, strict=True) if focus is not None]
        if not found:
            return
        told = await self._told(ask, tenant, await self._matched(connection, tenant, followers, found))
        if told:
            await ask(statement(_LOCK, tenant, array(told)))
            await self._count(ask, tenant, told)

    def told(self, tenant: str) -> None:
        """Let deliveries begin."""
        self._wake()

    async def _followers(self, ask: Ask, tenant: str, topics: Iterable[str]) -> dict[str, _Follower]:
        """Who listens to these topics, by id in their order. Only what is new or has changed is read."""
        if time.monotonic() > self._known_at + _KNOWN_S:
            self._known_at, self._known = time.monotonic(), {}
        known = self._known.setdefault(tenant, {})
        standing = {text(row[0]): text(row[1]) for row in await ask(statement(_STANDING, tenant, array(topics)))}
        new = [
            row_id for row_id, version in standing.items() if row_id not in known or known[row_id].version != version
        ]
        if new:
            alike: dict[Listening, tuple[Condition, ...] | None] = {}
            for row_id, version, criteria, fhir, caller, base in await ask(statement(_SUBSCRIBERS, tenant, array(new))):
                document = orjson.loads(fhir or b"{}")
                who = subscriber.of_column(caller or b"", tokens=self._tokens)
                listening = Listening(TOPICS[text(criteria)], filters.filters(document), who, text(base), tenant)
                if listening not in alike:
                    alike[listening] = _conditions(listening)
                known[text(row_id)] = _Follower(text(version), listening, alike[listening])
        return {row_id: known[row_id] for row_id in standing if row_id in known}

    async def _matched(
        self, connection: Connection, tenant: str, followers: Mapping[str, _Follower], found: Sequence[Change]
    ) -> dict[str, list[Change]]:
        """What each follower is to hear, by its id; those that listen to the same are asked for once."""
        alike: dict[Listening, list[str]] = defaultdict(list)
        wanted: dict[Topic, dict[Listening, tuple[Condition, ...]]] = defaultdict(dict)
        for row_id, follower in followers.items():
            if follower.conditions is not None:
                alike[follower.listening].append(row_id)
                wanted[follower.listening.topic][follower.listening] = follower.conditions
        heard: dict[str, list[Change]] = {}
        for topic, listened in wanted.items():
            concerned = [change for change in found if change.topic is topic]
            foci = [change.focus for change in concerned]
            found_for = await _fulfilling(connection, tenant, list(listened.values()), foci)
            for listening, fits in zip(listened, found_for, strict=True):
                fitting = [change for change, fit in zip(concerned, fits, strict=True) if fit]
                heard |= dict.fromkeys(alike[listening], fitting)
        return {row_id: heard[row_id] for row_id in followers if heard.get(row_id)}

    async def _told(self, ask: Ask, tenant: str, heard: Mapping[str, Sequence[Change]]) -> dict[str, list[Change]]:
        """The same without what was committed before a subscription was there."""
        pairs = list({(row_id, change.event.id): None for row_id, changed in heard.items() for change in changed})
        if not pairs:
            return {}
        ids, events = zip(*pairs, strict=True)
        rows = await ask(statement(_BEFORE, tenant, array(ids), array(events)))
        before = {(text(row[0]), text(row[1])) for row in rows}
        told = {
            row_id: [change for change in changed if (row_id, change.event.id) not in before]
            for row_id, changed in heard.items()
        }
        return {row_id: left for row_id, left in told.items() if left}

    async def _count(self, ask: Ask, tenant: str, told: Mapping[str, Sequence[Change]]) -> None:
        columns: list[tuple[str, ...]] = [
            (
                row_id,
                str(place),
                change.event.time,
                change.event.id,
                change.focus.action,
                change.focus.source.table,
                change.focus.row_id,
                str(change.focus.version or 0),
            )
            for row_id, heard in told.items()
            for place, change in enumerate(heard, 1)
        ]
        await ask(statement(_COUNT, tenant, *map(array, zip(*columns, strict=True))))


async def _fulfilling(
    connection: Connection, tenant: str, wanted: Sequence[tuple[Condition, ...]], foci: Sequence[Focus]
) -> list[list[bool]]:
    """See `matching.fulfilling_each`; one that PostgreSQL cannot evaluate hears nothing and holds up nobody else."""
    try:
        async with connection.transaction():
            return await matching.fulfilling_each(asking(connection), tenant, wanted, foci)
    except psycopg.Error as error:
        if not _is_of_the_filter(error):
            raise
        if len(wanted) == 1:
            log.warning("a filter cannot be evaluated", extra={"fields": {"problem": type(error).__name__}})
            return [[False] * len(foci)]
        half = len(wanted) // 2
        return [
            *await _fulfilling(connection, tenant, wanted[:half], foci),
            *await _fulfilling(connection, tenant, wanted[half:], foci),
        ]


def _is_of_the_filter(error: psycopg.Error) -> bool:
    """Whether the statement itself is at fault: its values, what it asks for, its size or its time."""
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "").startswith(("0A", "21", "42", "54", "57014"))


def _conditions(listening: Listening) -> tuple[Condition, ...] | None:
    """The conditions of a subscriber; None for one that hears nothing, because its filter is no longer understood."""
    try:
        return listening.conditions()
    except FhirError as error:
        log.warning("a filter is not understood", extra={"fields": {"problem": type(error).__name__}})
        return None
