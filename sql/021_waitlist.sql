-- A slot that becomes free is offered to the one who waits for it.
--
-- Whichever program frees a slot (by a cancellation, a move, a hold that is over, an exception that goes, a new slot),
-- a trigger writes it down in waitlist_openings, in the same transaction and without waiting for anything. A worker of
-- the server then takes the openings one by one and makes the offer in a transaction of its own: a hold for the first
-- match by priority, then age. What decides between two workers, or between a worker and a booking, are the locks and
-- constraints that decide every booking, and one index: an entry has one open offer at most.
create table waitlist_openings (
    id bigint generated always as identity primary key,
    tenant_id uuid not null,
    slot_id uuid,
    opened_at timestamptz not null default clock_timestamp()
);
create index ix_waitlist_openings_tenant on waitlist_openings (tenant_id, id);

-- Who was offered what, when and why, and what became of it: taken, declined, lapsed, or withdrawn because the entry
-- no longer waits. Kept after entry, slot and appointment are gone.
create table waitlist_offers (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    entry_id uuid not null,
    slot_id uuid not null,
    schedule_id uuid not null,
    appointment_id uuid not null,
    priority integer not null,
    waiting_since timestamptz not null,
    waiting_ahead integer not null,
    offered_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    outcome text,
    ended_at timestamptz,
    constraint waitlist_offers_outcome check (outcome in ('taken', 'declined', 'lapsed', 'withdrawn'))
);
create unique index ix_waitlist_offers_open on waitlist_offers (tenant_id, entry_id) where outcome is null;
create index ix_waitlist_offers_appointment on waitlist_offers (tenant_id, appointment_id);
create index ix_waitlist_offers_slot on waitlist_offers (tenant_id, slot_id, entry_id);

comment on table waitlist_openings is 'slots that became free and that nobody has looked at yet; null: an entry no longer waits';
comment on column waitlist_offers.waiting_ahead is 'how many entries of higher rank waited then and did not want the slot, or had an offer';

do $$
declare
    ours text;
    rule constant text := 'tenant_id = (select nullif(current_setting(''app.tenant_id'', true), '''')::uuid)';
begin
    foreach ours in array array['waitlist_openings', 'waitlist_offers'] loop
        execute format('alter table %I enable row level security', ours);
        execute format('alter table %I force row level security', ours);
        execute format(
            'create policy %I on %I using (%s) with check (%s)', ours || '_tenant_isolation', ours, rule, rule
        );
        execute format(
            'create policy %I on %I to fhir_sched_trigger using (true) with check (true)', ours || '_trigger', ours
        );
        execute format('grant select, insert, update, delete on %I to fhir_sched_trigger', ours);
    end loop;
end
$$;
grant select on waitlist_openings to fhir_sched_app;
grant select, insert on waitlist_offers to fhir_sched_app;

-- What is written down. A tenant where nobody waits pays for one look into an index.
create function fhir_sched_slot_opened() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if exists (select from waitlist_entries e where e.tenant_id = new.tenant_id and e.status = 'waiting') then
        insert into waitlist_openings (tenant_id, slot_id) values (new.tenant_id, new.id);
    end if;
    return null;
end
$$;

create function fhir_sched_slots_opened() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    insert into waitlist_openings (tenant_id, slot_id)
    select c.tenant_id, c.id
    from created c
    where c.status = 'free'
      and c.start_at > clock_timestamp()
      and exists (select from waitlist_entries e where e.tenant_id = c.tenant_id and e.status = 'waiting')
    order by c.start_at, c.id;
    return null;
end
$$;

create trigger slots_80_opened
    after update on slots
    for each row
    when (new.status = 'free' and old.status is distinct from new.status)
    execute function fhir_sched_slot_opened();
create trigger slots_80_opened_new
    after insert on slots
    referencing new table as created
    for each statement
    execute function fhir_sched_slots_opened();

-- Matching. A date, a month or a year of FHIR is a time on the clock of the zone: its beginning, or with `ends` the end
-- of it. Null for what is no time.
create function fhir_sched_moment(said text, zone text, ends boolean) returns timestamptz
language plpgsql stable
as $$
begin
    if said ~ '^\d{4}$' then
        return ((said || '-01-01')::timestamp + case when ends then interval '1 year' else '0' end) at time zone zone;
    elsif said ~ '^\d{4}-\d\d$' then
        return ((said || '-01')::timestamp + case when ends then interval '1 month' else '0' end) at time zone zone;
    elsif said ~ '^\d{4}-\d\d-\d\d$' then
        return (said::timestamp + case when ends then interval '1 day' else '0' end) at time zone zone;
    elsif said ~ '^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)$' then
        return said::timestamptz;
    elsif said ~ '^\d{4}-\d\d-\d\dT' then
        return said::timestamp at time zone zone;
    end if;
    return null;
exception when data_exception then
    return null;
end
$$;

-- The strings of a member that is one string or a list of them, under its name or that without its last letter (days,
-- day); null when it is not there or something else.
create function fhir_sched_words(document jsonb, member text) returns text[]
language sql immutable
as $$
    select case jsonb_typeof(said)
        when 'string' then array[said #>> '{}']
        when 'array' then array(select jsonb_array_elements_text(said))
    end
    from (select coalesce(document -> member, document -> left(member, -1)) as said) as found
$$;

-- Whether a schedule is of one of these actors, written as references (Practitioner/…) or, for `kind`, as bare ids.
create function fhir_sched_is_of(schedule schedules, said text[], kind text) returns boolean
language sql immutable
as $$
    select exists (
        select
        from unnest(said) as wanted
        cross join lateral (
            select case when wanted like '%/%' then wanted else kind || '/' || wanted end as reference
        ) as named
        where named.reference = case schedule.actor_type
                when 'provider' then 'Practitioner' when 'location' then 'Location' else 'Device'
            end || '/' || schedule.actor_id
           or schedule.fhir -> 'actor' @> jsonb_build_array(jsonb_build_object('reference', named.reference))
    )
$$;

-- Whether an entry asks for this slot. Everything that it says must fit; whoever says nothing asks for nothing.
-- docs/booking.md names the members of the criteria; others are another program's own.
create function fhir_sched_asks_for(entry waitlist_entries, slot slots, schedule schedules) returns boolean
language plpgsql stable
as $$
declare
    said constant jsonb := case when jsonb_typeof(entry.criteria) = 'object' then entry.criteria else '{}' end;
    kind constant text := coalesce(nullif(entry.appointment_type, ''), said ->> 'appointmentType');
    local_at constant timestamp := slot.start_at at time zone schedule.zone;
    actors constant text[] := array(
        select p #>> '{actor,reference}'
        from jsonb_array_elements(entry.fhir -> 'participant') as p
        where p #>> '{actor,reference}' ~ '(Practitioner|PractitionerRole|Location|HealthcareService|Device)/[^/]+$'
    );
begin
    if kind is null and entry.schedule_id is null and entry.start_at is null and entry.end_at is null
        and actors = '{}' and entry.fhir -> 'requestedPeriod' is null
        and not said ?| array[
            'schedules', 'schedule', 'practitioners', 'practitioner', 'locations', 'location', 'serviceTypes',
            'serviceType', 'earliest', 'latest', 'days', 'day', 'after', 'before'
        ] then
        return false;
    end if;
    return (kind is null or slot.appointment_type is null or slot.appointment_type = kind)
        and (entry.schedule_id is null or entry.schedule_id = slot.schedule_id)
        and (entry.start_at is null or entry.start_at <= slot.start_at)
        and (entry.end_at is null or entry.end_at >= slot.end_at)
        and (actors = '{}' or fhir_sched_is_of(schedule, actors, ''))
        and (
            entry.fhir -> 'requestedPeriod' is null
            or exists (
                select
                from jsonb_array_elements(entry.fhir -> 'requestedPeriod') as p
                where coalesce(fhir_sched_moment(p ->> 'start', schedule.zone, false) <= slot.start_at, true)
                  and coalesce(fhir_sched_moment(p ->> 'end', schedule.zone, true) >= slot.end_at, true)
            )
        )
        and coalesce(slot.schedule_id::text = any (
            array(select right(each, 36) from unnest(fhir_sched_words(said, 'schedules')) as each)
        ) or fhir_sched_words(said, 'schedules') is null, true)
        and coalesce(fhir_sched_is_of(schedule, fhir_sched_words(said, 'practitioners'), 'Practitioner')
            or fhir_sched_words(said, 'practitioners') is null, true)
        and coalesce(fhir_sched_is_of(schedule, fhir_sched_words(said, 'locations'), 'Location')
            or fhir_sched_words(said, 'locations') is null, true)
        and coalesce(schedule.service_types && fhir_sched_words(said, 'serviceTypes')
            or fhir_sched_words(said, 'serviceTypes') is null, false)
        and coalesce(fhir_sched_moment(said ->> 'earliest', schedule.zone, false) <= slot.start_at, true)
        and coalesce(fhir_sched_moment(said ->> 'latest', schedule.zone, true) >= slot.end_at, true)
        and coalesce(to_char(local_at, 'dy') = any (fhir_sched_words(said, 'days')), true)
        and coalesce(to_char(local_at, 'HH24:MI') >= left(said ->> 'after', 5), true)
        and coalesce(to_char(local_at, 'HH24:MI') < left(said ->> 'before', 5), true);
end
$$;

do $$
declare
    ours regprocedure;
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    if plain_owner then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
    for ours in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
          and p.proname in (
              'fhir_sched_slot_opened', 'fhir_sched_slots_opened', 'fhir_sched_moment', 'fhir_sched_words',
              'fhir_sched_is_of', 'fhir_sched_asks_for'
          )
    loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
