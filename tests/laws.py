"""What must hold of slots, appointments, exceptions, history and outbox, as one query that finds what breaks it."""

from __future__ import annotations

LAWS = """
with occupied as (
    select a.id, a.allow_double_booking as shared, slot
    from appointments a, unnest(a.slot_id || a.extra_slot_ids) as slot
    where a.tenant_id = %(t)s and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
      and slot is not null and coalesce(a.hold_expires_at > clock_timestamp(), true)
), written as (
    select id, version from slots where tenant_id = %(t)s
    union all select id, version from appointments where tenant_id = %(t)s
    union all select id, version from schedule_exceptions where tenant_id = %(t)s
)
select 'occupied by too many', s.id from slots s join occupied o on o.slot = s.id
where not o.shared group by s.id having count(*) > s.capacity
union all
select 'free and full', s.id from slots s join occupied o on o.slot = s.id
where s.status = 'free' group by s.id having count(*) >= s.capacity
union all
select 'free under an exception', s.id from slots s
join schedule_exceptions e on e.schedule_id = s.schedule_id and e.start_at < s.end_at and e.end_at > s.start_at
where s.tenant_id = %(t)s and s.status = 'free'
union all
select 'blocked by no exception', s.id from slots s
where s.tenant_id = %(t)s and s.excepted and not exists (
    select from schedule_exceptions e
    where e.schedule_id = s.schedule_id and e.start_at < s.end_at and e.end_at > s.start_at
)
union all
select 'overlaps', s.id from slots s
join slots o on o.schedule_id = s.schedule_id and o.id > s.id and o.start_at < s.end_at and o.end_at > s.start_at
where s.tenant_id = %(t)s and s.status in ('free', 'busy') and o.status in ('free', 'busy')
union all
select 'needs one practitioner twice', a.id from appointments a
join appointments b on b.tenant_id = a.tenant_id and b.provider_id = a.provider_id and b.id > a.id
    and b.start_at < a.end_at and b.end_at > a.start_at
where a.tenant_id = %(t)s and not a.allow_double_booking and not b.allow_double_booking
  and not exists (
      select from slots s where s.capacity > 1
          and s.id = any (a.slot_id || a.extra_slot_ids) and s.id = any (b.slot_id || b.extra_slot_ids)
  )
  and coalesce(a.hold_expires_at > clock_timestamp(), true) and coalesce(b.hold_expires_at > clock_timestamp(), true)
  and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
  and b.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
union all
select 'changes and history', w.id from written w
where w.version - 1 <> (select count(*) from history h where h.tenant_id = %(t)s and h.id = w.id)
union all
select 'changes and outbox', w.id from written w
where w.version <> (select count(*) from outbox b where b.tenant_id = %(t)s and b.aggregate_id = w.id)
  and substr(w.id::text, 15, 1) <> '8'
"""
"""Of the tenant `t`: which law is broken, and the row that breaks it."""
