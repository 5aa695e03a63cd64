-- Columns that FHIR needs and the model lacks. Each is null or has a default: programs that do not know them insert
-- and update as before.
--
-- fhir         what the columns cannot say, a partial FHIR resource; null when the columns say everything
-- fhir_tokens  array of ["parameter", "system", "value"], what is searched inside it; null when nothing is
-- fhir_status  the status as FHIR says it, a plain column because an expression is no index condition beneath a policy
-- sort_at      the start, or infinity: rows without a time sort last and still page by (sort_at, id)
-- grandfathered  one constant on rows that overlapped before the overlap was forbidden, else null

alter table schedules
    add column fhir jsonb,
    add column fhir_tokens jsonb,
    add column zone text not null default 'UTC',
    add column horizon boolean not null default false,
    add column horizon_start timestamptz,
    add column horizon_end timestamptz;

alter table schedule_exceptions
    add column fhir jsonb,
    add column fhir_tokens jsonb,
    add column version integer not null default 1,
    add column created_at timestamptz not null default now(),
    add column updated_at timestamptz not null default now();

alter table slots
    add column fhir jsonb,
    add column fhir_tokens jsonb,
    add column excepted boolean not null default false,
    add column grandfathered uuid,
    add column fhir_status text generated always as (
        case
            when status in ('free', 'entered-in-error') then status
            when status = 'busy' and fhir ->> 'status' = 'busy-tentative' then 'busy-tentative'
            when status = 'busy' then 'busy'
            else 'busy-unavailable'
        end
    ) stored;

alter table appointments
    add column fhir jsonb,
    add column fhir_tokens jsonb,
    add column extra_slot_ids uuid[],
    add column extra_provider_ids uuid[],
    add column sort_at timestamptz generated always as (coalesce(start_at, 'infinity'::timestamptz)) stored,
    add column fhir_status text generated always as (
        case
            when status = 'arrived' and fhir ->> 'status' = 'checked-in' then 'checked-in'
            when status in (
                'proposed', 'pending', 'booked', 'arrived', 'fulfilled', 'cancelled', 'noshow', 'entered-in-error'
            ) then status
            else 'entered-in-error'
        end
    ) stored;

alter table waitlist_entries
    add column fhir jsonb,
    add column fhir_tokens jsonb,
    add column version integer not null default 1,
    add column start_at timestamptz,
    add column end_at timestamptz,
    add column sort_at timestamptz generated always as (coalesce(start_at, 'infinity'::timestamptz)) stored,
    add column fhir_status text generated always as (
        case status when 'waiting' then 'waitlist' when 'fulfilled' then 'fulfilled' else 'cancelled' end
    ) stored;

comment on column slots.excepted is 'blocked only because a schedule exception covers it: free again without it';
comment on column schedules.zone is 'timezone where PostgreSQL knows it, else UTC; kept by trigger';
comment on column appointments.extra_slot_ids is 'slots beyond the first; null when there are none';
comment on column appointments.extra_provider_ids is 'practitioners beyond the first; null when there are none';

-- A zone that this server knows, else UTC. Tried, not looked up: the view of names takes milliseconds.
create function fhir_sched_known_zone(name text) returns text
language plpgsql stable
set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform now() at time zone name;
    return name;
exception when others then
    return 'UTC';
end
$$;

create function fhir_sched_keep_zone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    new.zone := fhir_sched_known_zone(new.timezone);
    return new;
end
$$;

-- Rows that were there: their zone, and the schedule of appointments that name only a slot.
update schedules
set zone = fhir_sched_known_zone(timezone)
where timezone <> 'UTC';

update appointments a
set schedule_id = s.schedule_id
from slots s
where a.schedule_id is null
  and s.tenant_id = a.tenant_id
  and s.id = a.slot_id;

create trigger schedules_15_zone_insert
    before insert on schedules
    for each row
    when (new.timezone <> 'UTC' or new.zone <> 'UTC')
    execute function fhir_sched_keep_zone();
create trigger schedules_15_zone_update
    before update on schedules
    for each row
    when (new.timezone is distinct from old.timezone or new.zone is distinct from old.zone)
    execute function fhir_sched_keep_zone();
