"""Who sends to which subscription, and what became of it: the delivery's columns of `subscriptions` in SQL.

Laws: a claimed subscription is passed over by others until its sender is gone, which the sender's advisory lock tells,
or its time is over; what a sender has to say counts only while the claim is still its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import orjson

from fhir_sched.db.fragment import Fragment
from fhir_sched.subscriptions.channel import Channel, channel
from fhir_sched.subscriptions.database import Row, statement, text
from fhir_sched.subscriptions.notification import Standing

LEASE_S: Final = 90
"""Longer than any attempt takes; it counts only for a sender whose session lives and which does nothing."""

AS_DELIVERY: Final = Fragment("select set_config('app.delivery', 'on', true)")
"""What a transaction begins with that counts or sends: the states are then kept as it says them (sql/024)."""
_TAKE: Final = """
update subscriptions s
set claim = $2::bigint, due_at = clock_timestamp() + make_interval(secs => $4::integer)
where s.tenant_id = $1::uuid
  and s.id = any(array(
      select d.id
      from subscriptions d
      where d.tenant_id = $1::uuid
        and d.due_at <= clock_timestamp()
      order by d.due_at, d.id
      limit $3::integer
      for no key update skip locked
  ))
returning s.id, s.status, s.criteria, s.fhir, s.caller, s.base, s.events, s.delivered, s.failures, s.claim,
          coalesce(s.end_at <= clock_timestamp(), false)
"""
_RELEASE: Final = """
with gone as materialized (
    select c.claim
    from (
        select distinct s.claim
        from subscriptions s
        where s.tenant_id = $1::uuid
          and s.claim is not null
          and s.claim <> $2::bigint
    ) c
    where pg_try_advisory_xact_lock(c.claim)
)
update subscriptions s
set claim = null, due_at = clock_timestamp()
from gone
where s.tenant_id = $1::uuid
  and s.claim = gone.claim
"""
_FINISH: Final = """
update subscriptions s
set status = $4, error = $5, failures = $6::integer, delivered = greatest(s.delivered, $7::bigint), claim = null,
    due_at = case
        when $4 = 'off' then null
        when $4 = 'error' then s.end_at
        when $8::double precision is not null
            then least(s.end_at, clock_timestamp() + make_interval(secs => $8::double precision))
        when s.events > greatest(s.delivered, $7::bigint) then clock_timestamp()
        else least(s.end_at, clock_timestamp() + make_interval(secs => $9::double precision))
    end
where s.tenant_id = $1::uuid
  and s.id = $2::uuid
  and s.claim = $3::bigint
"""
# The eldest of each subscription are its lowest numbers, which are found by key; nothing updates these rows.
_REMOVE_OLD: Final = """
with gone as (
    delete from subscription_events
    where ctid = any(array(
        select eldest.ctid
        from subscriptions s
        cross join lateral (
            select e.ctid, e.occurred_at
            from subscription_events e
            where e.tenant_id = s.tenant_id
              and e.subscription_id = s.id
              and (e.number <= s.delivered or s.status = 'error')
            order by e.number
            limit 200
        ) eldest
        where s.tenant_id = $1::uuid
          and eldest.occurred_at < clock_timestamp() - make_interval(days => $2::integer)
        limit 2000
    ))
    and tenant_id = $1::uuid
    returning 1
)
select count(*)
from gone
"""


@dataclass(frozen=True)
class Claimed:
    """A subscription that this sender has claimed, as it was then."""

    tenant: str
    row_id: str
    status: str
    criteria: str
    document: dict[str, Any]
    caller: bytes
    base: str
    events: int
    delivered: int
    failures: int
    claim: int
    ended: bool

    @cached_property
    def channel(self) -> Channel:
        """Where to send, and what."""
        return channel(self.document)

    def standing(self, status: str) -> Standing:
        """How it stands, with that status."""
        return Standing(f"sub-{self.row_id}", self.base, self.criteria, status, self.events)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: the status that follows, the last event delivered, when to try again (seconds)."""

    status: str
    delivered: int
    error: str | None = None
    failures: int = 0
    retry_s: float | None = None


def take(tenant: str, claim: int, limit: int) -> Fragment:
    """Claims up to that many subscriptions that are due; rows for `claimed`."""
    return statement(_TAKE, tenant, str(claim), str(limit), str(LEASE_S))


def claimed(tenant: str, row: Row) -> Claimed:
    """A row of `take`."""
    words = [text(cell) for cell in row]
    return Claimed(
        tenant,
        words[0],
        words[1],
        words[2],
        orjson.loads(words[3] or "{}"),
        words[4].encode(),
        words[5],
        int(words[6]),
        int(words[7]),
        int(words[8]),
        int(words[9]),
        words[10] == "t",
    )


def remove_old(tenant: str, days: int) -> Fragment:
    """Removes some of the events that are older than that, but for those that are still to be sent; how many."""
    return statement(_REMOVE_OLD, tenant, str(days))


def release(tenant: str, claim: int) -> Fragment:
    """Frees what senders have claimed that are gone; not one's own."""
    return statement(_RELEASE, tenant, str(claim))


def finish(each: Claimed, outcome: Outcome) -> Fragment:
    """Keeps the outcome and lets go; nothing where the claim is another's meanwhile, or the client's word came."""
    heartbeat_s = each.channel.heartbeat_s
    return statement(
        _FINISH,
        each.tenant,
        each.row_id,
        str(each.claim),
        outcome.status,
        outcome.error,
        str(outcome.failures),
        str(outcome.delivered),
        None if outcome.retry_s is None else str(outcome.retry_s),
        str(heartbeat_s) if heartbeat_s else None,
    )


def arrived(each: Claimed, delivered: int) -> Outcome:
    """The endpoint took it: all is well, up to that event."""
    return Outcome("active", delivered)


def failed(each: Claimed, problem: str, most: int) -> Outcome:
    """The endpoint did not take it: again a little later each time, and in error after `most` in a row."""
    failures = each.failures + 1
    if failures >= most:
        return Outcome("error", each.delivered, f"{problem}; {failures} attempts in a row failed", failures)
    return Outcome(each.status, each.delivered, None, failures, min(2.0 ** (failures - 1), 60.0))


def refused(each: Claimed, problem: str) -> Outcome:
    """Nothing may go there, or the handshake was not answered: in error at once."""
    return Outcome("error", each.delivered, problem, each.failures + 1)


def ended(each: Claimed) -> Outcome:
    """Its end has passed."""
    return Outcome("off", each.delivered)


def idle(each: Claimed) -> Outcome:
    """Nothing is to be sent in the state in which it is."""
    return Outcome(each.status, each.delivered)
