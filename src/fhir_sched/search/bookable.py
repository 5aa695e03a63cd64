"""What stands in the way of booking a slot `s` that seems free: rules, appointments elsewhere, a hold that is over.

Parts of the statement of $find, where `p` is the schedule. The moment is that at which the statement began: what is
found is no promise. Knows no FHIR resource.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_sched.db.fragment import Fragment, text_args

_AT_ONCE = 2
"""Of a practitioner's appointments that begin before a slot ends, so many of the last are looked at. They don't overlap
but for those of one shared slot, which mostly are at one time."""


def occupying(of: str, now: str = "now()") -> str:
    """That the appointment which `of` names takes its time: its status does, and no hold of it is over."""
    return (
        f"{of}.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')"
        f" and ({of}.hold_expires_at is null or {of}.hold_expires_at > {now})"
    )


ENDED = f"""h.tenant_id = $1::uuid and h.hold_expires_at <= now() and h.status = 'pending'
              and s.fhir_status = 'busy-tentative'
              and not exists (
                  select from schedule_exceptions e
                  where e.tenant_id = $1::uuid and e.schedule_id = s.schedule_id
                    and e.start_at < s.end_at and e.end_at > s.start_at and e.start_at < e.end_at
              )
              and s.capacity > (
                  select count(*) from appointments o
                  where o.tenant_id = $1::uuid and o.slot_id = s.id and {occupying("o")}
              ) + (
                  select count(*) from extra_slots x
                  join appointments o on o.tenant_id = $1::uuid and o.id = x.appointment_id
                  where x.tenant_id = $1::uuid and x.slot_id = s.id and {occupying("o")}
              )"""
"""That a hold `h` of the slot is over, and that neither others nor an exception stand in the slot's way."""


def occupied(times: Sequence[tuple[int, str, str, str, str]], tenant: str) -> Fragment:
    """The numbers of those times at which their practitioner has another appointment.

    Each is a number, the practitioner (UUID), start and end, and the slot whose other appointments don't count (UUID).
    """
    columns = ["{" + ",".join(str(each[place]) for each in times) + "}" for place in range(5)]
    elsewhere = _taken("w.provider", "w.start_at", "w.end_at", " and t.slot_id is distinct from w.slot")
    text = f"""
select distinct w.place
from unnest($2::integer[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::uuid[])
    as w (place, provider, start_at, end_at, slot)
where {elsewhere}"""
    return Fragment(text, text_args(tenant, *columns), steady=True)


def not_elsewhere(of: str = "p", *, beside: bool = False) -> str:
    """That the practitioner, whom `of` names, has no other appointment then; one in the same shared slot is none.

    With slots beside it the appointment is no longer one of that slot's group.
    """
    group = "" if beside else " and t.slot_id is distinct from s.id"
    return f"({of}.actor_type <> 'provider' or not {_taken(f'{of}.actor_id', 's.start_at', 's.end_at', group)})"


def ruled(caller: str) -> str:
    """The table `ruled`: between when and when the rules let a caller book; null for no limit.

    A row without a schedule is the tenant's; each schedule that has rules of its own has another.
    """
    return f"""ruled as materialized (
    select k.schedule_id,
           greatest(
               case when r.rules ->> 'future-only' = '1' then now() end,
               now() + make_interval(mins => (r.rules ->> 'book-notice')::integer)
           ) as earliest,
           now() + make_interval(days => (r.rules ->> 'book-horizon')::integer) as latest
    from (
        select null::uuid as schedule_id
        union
        select b.schedule_id from booking_rules b where b.tenant_id = $1::uuid and b.caller = {caller}
    ) k
    cross join lateral fhir_sched_rules($1::uuid, {caller}, k.schedule_id) as r (rules)
)"""


def _taken(provider: str, start: str, end: str, but: str) -> str:
    """Whether a practitioner has an appointment between two moments."""
    return f"""coalesce((
                select bool_or(t.end_at > {start} and not exists (
                    select from appointments o
                    where o.tenant_id = $1::uuid and o.id = t.appointment_id and o.hold_expires_at <= now()
                ))
                from (
                    select t.end_at, t.appointment_id
                    from provider_times t
                    where t.tenant_id = $1::uuid and t.provider_id = {provider} and t.start_at < {end}{but}
                    order by t.start_at desc
                    limit {_AT_ONCE}
                ) t
            ), false)"""
