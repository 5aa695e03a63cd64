-- What $find proposes can be booked: a look at a practitioner's time by an index, and rules that know a room's slot.

-- When a practitioner is taken. The constraint has an index of ranges, whose operators row-level security keeps out of
-- an application's own search.
create index ix_provider_times_start on provider_times (tenant_id, provider_id, start_at);

call fhir_sched_borrow_trigger_role();

-- Everything that a booking, a move or a cancellation breaks, as "rule limit" each; '{}' when nothing is broken.
-- This replaces that of 020. A slot of another schedule than the first one's, a room's, goes together with the others
-- when it lies around their whole time; the appointment's time is that of the slots of the first one's schedule.
create or replace function fhir_sched_broken_rules(
    rules jsonb, had appointments, has appointments, occupied boolean, occupies boolean
) returns text[]
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    slot_ids constant uuid[] := array_remove(has.slot_id || has.extra_slot_ids, null);
    starts constant timestamptz := coalesce(
        has.start_at, (select min(s.start_at) from slots s where s.tenant_id = has.tenant_id and s.id = any (slot_ids))
    );
    moment constant timestamptz := clock_timestamp();
    broken text[] := '{}';
    own uuid;
begin
    if occupied and not occupies and had.status <> 'pending'
        and had.start_at < moment + make_interval(mins => (rules ->> 'cancel-notice')::integer) then
        broken := broken || ('cancel-notice ' || (rules ->> 'cancel-notice'));
    end if;
    if occupied and occupies
        and had.start_at < moment + make_interval(mins => (rules ->> 'move-notice')::integer) then
        broken := broken || ('move-notice ' || (rules ->> 'move-notice'));
    end if;
    if not occupies then
        return broken;
    end if;
    if (rules ->> 'future-only') = '1' and starts <= moment then
        broken := broken || 'future-only'::text;
    end if;
    if starts < moment + make_interval(mins => (rules ->> 'book-notice')::integer) then
        broken := broken || ('book-notice ' || (rules ->> 'book-notice'));
    end if;
    if starts > moment + make_interval(days => (rules ->> 'book-horizon')::integer) then
        broken := broken || ('book-horizon ' || (rules ->> 'book-horizon'));
    end if;
    if slot_ids = '{}' or (cardinality(slot_ids) = 1 and (rules ->> 'times-of-slots') is distinct from '1') then
        return broken;
    end if;
    own := (select s.schedule_id from slots s where s.tenant_id = has.tenant_id and s.id = slot_ids[1]);
    if (rules ->> 'adjacent-slots') = '1' and cardinality(slot_ids) > 1 and exists (
        select
        from (
            select s.start_at, s.end_at, s.schedule_id,
                   lag(s.end_at) over line as ended_at,
                   min(s.start_at) filter (where s.schedule_id = own) over () as first_at,
                   max(s.end_at) filter (where s.schedule_id = own) over () as last_at
            from slots s
            where s.tenant_id = has.tenant_id
              and s.id = any (slot_ids)
            window line as (partition by s.schedule_id order by s.start_at, s.id)
        ) as next
        where next.start_at <> next.ended_at
           or (next.schedule_id <> own and (next.start_at > next.first_at or next.end_at < next.last_at))
    ) then
        broken := broken || 'adjacent-slots'::text;
    end if;
    if (rules ->> 'times-of-slots') = '1' and exists (
        select
        from slots s
        where s.tenant_id = has.tenant_id
          and s.id = any (slot_ids)
          and s.schedule_id = own
        having (min(s.start_at), max(s.end_at)) is distinct from (has.start_at, has.end_at)
    ) then
        broken := broken || 'times-of-slots'::text;
    end if;
    return broken;
end
$$;

call fhir_sched_return_trigger_role();
