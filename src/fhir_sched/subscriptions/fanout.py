"""Events -> the numbered events of each subscription that is to hear of them, in the transaction that marks them.

Laws: a number is taken by an update of the subscription's row in that transaction, so numbers have no gaps and an event
has one number; what was committed before a subscription was there is not told to it, however late it is looked at; a
filter is evaluated by our own search. Rows are locked in the order of their ids. Knows nothing of sending.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import orjson

from fhir_sched.events.event import Event
from fhir_sched.events.session import Connection
from fhir_sched.outcome import FhirError
from fhir_sched.resources.topics import TOPICS
from fhir_sched.search.query import Condition
from fhir_sched.subscriptions import filters, matching, subscriber
from fhir_sched.subscriptions.changes import Change, changes
from fhir_sched.subscriptions.claims import AS_DELIVERY
from fhir_sched.subscriptions.database import Ask, array, asking, statement, text
from fhir_sched.subscriptions.subscriber import Listening

log = logging.getLogger("fhir_sched.subscriptions")

_FOLLOWED: Final = "select tenant_id::text, since from fhir_sched_tenants_with_subscribers()"
_SUBSCRIBERS: Final = (
    "select s.id, s.criteria, s.fhir, s.caller, s.base\nfrom subscriptions s\n"
    "where s.tenant_id = $1::uuid and s.status <> 'off'\norder by s.id"
)
_BEFORE: Final = (
    "select s.id, o.id\nfrom subscriptions s\njoin outbox o on o.tenant_id = s.tenant_id\n"
    "where s.tenant_id = $1::uuid and s.status <> 'off' and o.id = any($2::uuid[])\n"
    "and pg_visible_in_snapshot(o.xid, s.since)"
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


@dataclass(frozen=True, slots=True)
class _Follower:
    row_id: str
    listening: Listening


class Fanout:
    """See `events.fanout.Fanout`. `tokens`: whether the server asks for tokens; `wake` is called when there is work."""

    def __init__(self, *, tokens: bool, wake: Callable[[], None] = lambda: None) -> None:
        self._tokens, self._wake = tokens, wake

    async def tenants(self, connection: Connection) -> Mapping[str, datetime]:
        """The tenants that have subscriptions, and since when events may concern them."""
        cursor = await connection.execute(_FOLLOWED)
        return {str(tenant): since for tenant, since in await cursor.fetchall() if isinstance(since, datetime)}

    async def fan_out(self, connection: Connection, tenant: str, events: Sequence[Event]) -> None:
        """Number what each subscription is to hear of these events."""
        ask = asking(connection)
        await ask(AS_DELIVERY)
        followers = await self._followers(ask, tenant)
        found = list(changes(events, frozenset(each.listening.topic.url for each in followers)))
        there = await matching.with_versions(ask, tenant, [change.focus for change in found])
        found = [replace(change, focus=focus) for change, focus in zip(found, there, strict=True) if focus is not None]
        if not found:
            return
        before = await self._before(ask, tenant, {change.event.id for change in found})
        told: dict[str, list[Change]] = {}
        for follower, matched in await self._matched(ask, tenant, followers, found):
            heard = [change for change in matched if (follower.row_id, change.event.id) not in before]
            if heard:
                told[follower.row_id] = heard
        if told:
            await ask(statement(_LOCK, tenant, array(told)))
            await self._count(ask, tenant, told)

    def told(self, tenant: str) -> None:
        """Let deliveries begin."""
        self._wake()

    async def _followers(self, ask: Ask, tenant: str) -> list[_Follower]:
        followers = []
        for row_id, criteria, fhir, caller, base in await ask(statement(_SUBSCRIBERS, tenant)):
            topic = TOPICS.get(text(criteria))
            if topic is not None:
                document = orjson.loads(fhir or b"{}")
                who = subscriber.of_column(caller or b"", tokens=self._tokens)
                listening = Listening(topic, filters.filters(document), who, text(base), tenant)
                followers.append(_Follower(text(row_id), listening))
        return followers

    async def _before(self, ask: Ask, tenant: str, events: Iterable[str]) -> set[tuple[str, str]]:
        """Subscriptions with the events that were committed before they were there."""
        rows = await ask(statement(_BEFORE, tenant, array(events)))
        return {(text(row[0]), text(row[1])) for row in rows}

    async def _matched(
        self, ask: Ask, tenant: str, followers: Sequence[_Follower], found: Sequence[Change]
    ) -> list[tuple[_Follower, list[Change]]]:
        """What each follower is to hear; those that listen to the same are asked for once."""
        alike: dict[Listening, list[_Follower]] = defaultdict(list)
        for follower in followers:
            alike[follower.listening].append(follower)
        matched: list[tuple[_Follower, list[Change]]] = []
        for listening, same in alike.items():
            concerned = [change for change in found if change.topic is listening.topic]
            heard = await self._heard(ask, tenant, listening, concerned)
            matched += [(follower, heard) for follower in same]
        return matched

    async def _heard(self, ask: Ask, tenant: str, listening: Listening, concerned: Sequence[Change]) -> list[Change]:
        conditions = _conditions(listening) if concerned else None
        if conditions is None:
            return []
        fulfilling = await matching.fulfilling(ask, tenant, conditions, [each.focus for each in concerned])
        return [change for change, fits in zip(concerned, fulfilling, strict=True) if fits]

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


def _conditions(listening: Listening) -> tuple[Condition, ...] | None:
    """The conditions of a subscriber; None for one that hears nothing, because its filter is no longer understood."""
    try:
        return listening.conditions()
    except FhirError as error:
        log.warning("a filter is not understood", extra={"fields": {"problem": type(error).__name__}})
        return None
