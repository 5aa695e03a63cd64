-- What the availability rules say: the times of the slots that they make, and the ids of those slots.
--
-- A rule says on which days of the week, from when to when on the clock of the schedule's zone. Its slots fill the real
-- time in which that clock stands between the two: a time that a change of the clock leaves out makes no slot, one that
-- it shows twice makes slots twice.
--
-- The id of a generated slot follows from what it is (schedule, start, end, type). So to generate again finds what was
-- generated before; a slot that somebody moved is no longer the one that the rules made, and left alone; and a slot that
-- the rules take back and give again comes back under its id. What they take back stays readable as entered-in-error.

alter table slots add column withdrawn boolean not null default false;
comment on column slots.withdrawn is
    'entered-in-error because the availability rules gave its time no more: free again when they do';

-- Whatever else happens to a withdrawn slot, it is a slot like any other from then on.
create function fhir_sched_slot_kept() returns trigger
language plpgsql
as $$
begin
    new.withdrawn := false;
    return new;
end
$$;
create trigger slots_25_kept
    before update on slots
    for each row
    when (new.withdrawn and new.status <> 'entered-in-error')
    execute function fhir_sched_slot_kept();

-- A day as a rule writes it, null for what is none: another program's rule must not stop the others.
create function fhir_sched_day(said text) returns date
language plpgsql immutable
set search_path = pg_catalog, public, pg_temp
as $$
begin
    return case when said ~ '^\d{4}-\d{2}-\d{2}$' then said::date end;
exception when others then
    return null;
end
$$;

-- The rules of availability_pattern that can be read, which are those that FHIR shows. A window ends on the day on
-- which it begins, at 24:00 at the latest.
create function fhir_sched_rules(pattern jsonb) returns table (
    rule bigint, days integer[], opens interval, closes interval, minutes integer, type text, first date, last date
)
language sql stable
set search_path = pg_catalog, public, pg_temp
as $$
    select n,
           array(
               select array_position(array['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'], day)
               from jsonb_array_elements_text(
                   case jsonb_typeof(r -> 'days') when 'array' then r -> 'days' else '[]' end
               ) as day
           ),
           (r ->> 'start')::interval, (r ->> 'end')::interval, (r ->> 'slotMinutes')::integer, r ->> 'appointmentType',
           fhir_sched_day(r ->> 'validFrom'), fhir_sched_day(r ->> 'validTo')
    from jsonb_array_elements(
        case jsonb_typeof(pattern -> 'rules') when 'array' then pattern -> 'rules' else '[]' end
    ) with ordinality as t (r, n)
    where case
        when r ->> 'start' ~ '^([01]\d|2[0-3]):[0-5]\d(:00)?$'
            and r ->> 'end' ~ '^(([01]\d|2[0-3]):[0-5]\d|24:00)(:00)?$'
            and r ->> 'slotMinutes' ~ '^\d{1,4}$'
        then (r ->> 'start')::interval < (r ->> 'end')::interval
            and (r ->> 'slotMinutes')::integer between 1 and 1440
        else false
    end
$$;

-- The times that the rules give on the days from first to last, both included, whatever else happens then. "place" is
-- the order of the rules, the earlier of which wins where two overlap.
--
-- Most days a window is as long on every clock. Where the clock changes inside it, its minutes are looked at one by one:
-- those at which the clock stands in the window, put together again where one follows the other.
create function fhir_sched_times(zone text, pattern jsonb, first_day date, last_day date) returns table (
    place bigint, start_at timestamptz, end_at timestamptz, type text
)
language sql stable
set search_path = pg_catalog, public, pg_temp
as $$
    with days as (
        select n + first_day as day,
               (n + first_day - 1 + time '00:00') at time zone 'UTC' at time zone zone
                   - (n + first_day - 1 + time '00:00') as before,
               (n + first_day + 2 + time '00:00') at time zone 'UTC' at time zone zone
                   - (n + first_day + 2 + time '00:00') as after
        from generate_series(0, last_day - first_day) as n
    ), windows as (
        select r.rule, d.day, d.before, d.after, d.day + r.opens as opens, d.day + r.closes as closes,
               r.minutes * interval '1 minute' as length, r.type
        from days d
        join fhir_sched_rules(pattern) r
            on extract(isodow from d.day)::integer = any (r.days)
            and d.day >= coalesce(r.first, '-infinity')
            and d.day <= coalesce(r.last, 'infinity')
    ), spans as (
        select rule, length, type, opens at time zone zone as opens, closes at time zone zone as closes
        from windows
        where before = after
        union all
        select w.rule, w.length, w.type, min(island.minute), max(island.minute) + interval '1 minute'
        from windows w
        cross join lateral (
            select minute, minute - row_number() over (order by minute) * interval '1 minute' as origin
            from generate_series(
                w.opens at time zone 'UTC' - greatest(w.before, w.after),
                w.closes at time zone 'UTC' - least(w.before, w.after),
                interval '1 minute'
            ) as minute
            where minute at time zone zone >= w.opens
              and minute at time zone zone < w.closes
        ) island
        where w.before <> w.after
        group by w.rule, w.length, w.type, w.day, island.origin
    )
    select rule, opens + n * length, opens + (n + 1) * length, type
    from spans
    cross join lateral generate_series(
        0, floor(extract(epoch from closes - opens) / extract(epoch from length))::integer - 1
    ) as n
$$;

-- A UUID of version 8, made of what the slot is. Without settings of its own it becomes part of the query that asks.
create function fhir_sched_slot_id(schedule uuid, start_at timestamptz, end_at timestamptz, type text) returns uuid
language sql stable
as $$
    select overlay(overlay(
        md5(concat_ws(' ', schedule, extract(epoch from start_at), extract(epoch from end_at), type))
        placing '8' from 13
    ) placing '8' from 17)::uuid
$$;

-- The time of a schedule that is not to be given away between two moments: slots of every status, for one that was
-- blocked by hand is not free, and exceptions. Free and busy slots do not overlap, so of those that begin before only
-- the last can reach in; of blocked ones any may.
create function fhir_sched_taken(tenant uuid, schedule uuid, from_at timestamptz, to_at timestamptz)
returns tstzmultirange
language sql stable
set search_path = pg_catalog, public, pg_temp
as $$
    select coalesce(range_agg(tstzrange(t.start_at, t.end_at)), '{}')
    from (
        select s.start_at, s.end_at
        from slots s
        where s.tenant_id = tenant
          and s.schedule_id = schedule
          and s.start_at >= from_at
          and s.start_at < to_at
          and s.status <> 'entered-in-error'
        union all
        (
            select s.start_at, s.end_at
            from slots s
            where s.tenant_id = tenant
              and s.schedule_id = schedule
              and s.start_at < from_at
              and s.status in ('free', 'busy')
            order by s.start_at desc
            limit 1
        )
        union all
        select s.start_at, s.end_at
        from slots s
        where s.tenant_id = tenant
          and s.schedule_id = schedule
          and s.fhir_status = 'busy-unavailable'
          and s.start_at < from_at
          and s.end_at > from_at
        union all
        select e.start_at, e.end_at
        from schedule_exceptions e
        where e.tenant_id = tenant
          and e.schedule_id = schedule
          and e.start_at < to_at
          and e.end_at > from_at
    ) t
    where t.start_at < t.end_at
$$;

-- These run with the rights and under the policies of whoever calls, and are the server's alone to call.
do $$
declare
    ours text;
begin
    foreach ours in array array[
        'fhir_sched_day(text)',
        'fhir_sched_rules(jsonb)',
        'fhir_sched_times(text, jsonb, date, date)',
        'fhir_sched_slot_id(uuid, timestamptz, timestamptz, text)',
        'fhir_sched_taken(uuid, uuid, timestamptz, timestamptz)'
    ] loop
        execute format('revoke all on function %s from public', ours);
        execute format('grant execute on function %s to fhir_sched_app', ours);
    end loop;
end
$$;
revoke all on function fhir_sched_slot_kept() from public;
