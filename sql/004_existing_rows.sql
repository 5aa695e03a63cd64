-- Rows that other programs left and that break a rule which the next files set. They stop the migration with a list,
-- and nothing is changed; with the setting app.grandfather = 'on' they stay as they are and no new one joins them.
--
-- The list is a temporary table: the next files read it in the same transaction.
create temporary table fhir_sched_offenders (
    rule text not null,
    id uuid not null,
    other uuid not null,
    what text not null
) on commit drop;

-- Keys that cross tenants.
insert into fhir_sched_offenders
select 'slots_schedule_fk', s.id, s.schedule_id, format('slots %s names schedule %s of another tenant', s.id, s.schedule_id)
from slots s
join schedules c on c.id = s.schedule_id
where c.tenant_id <> s.tenant_id;

insert into fhir_sched_offenders
select 'schedule_exceptions_schedule_fk', e.id, e.schedule_id,
       format('schedule_exceptions %s names schedule %s of another tenant', e.id, e.schedule_id)
from schedule_exceptions e
join schedules c on c.id = e.schedule_id
where c.tenant_id <> e.tenant_id;

insert into fhir_sched_offenders
select 'appointments_slot_fk', a.id, a.slot_id, format('appointments %s names slot %s of another tenant', a.id, a.slot_id)
from appointments a
join slots s on s.id = a.slot_id
where s.tenant_id <> a.tenant_id;

-- Slots that overlap in a schedule. One ordered pass finds the schedules, only those are joined with themselves.
with active as (
    select tenant_id, schedule_id, id, start_at, end_at,
           max(end_at) over (
               partition by tenant_id, schedule_id
               order by start_at, id
               rows between unbounded preceding and 1 preceding
           ) as latest_end
    from slots
    where status in ('free', 'busy')
      and start_at < end_at
), crowded as (
    select distinct tenant_id, schedule_id
    from active
    where latest_end > start_at
)
insert into fhir_sched_offenders
select 'slots_no_overlap', a.id, b.id, format('slots %s overlaps slots %s in schedule %s', a.id, b.id, a.schedule_id)
from crowded c
join active a using (tenant_id, schedule_id)
join active b using (tenant_id, schedule_id)
where (a.start_at, a.id) < (b.start_at, b.id)
  and b.start_at < a.end_at;

-- Appointments that overlap for a practitioner.
with active as (
    select tenant_id, provider_id, id, start_at, end_at,
           max(end_at) over (
               partition by tenant_id, provider_id
               order by start_at, id
               rows between unbounded preceding and 1 preceding
           ) as latest_end
    from appointments
    where status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
      and provider_id is not null
      and not allow_double_booking
      and start_at < end_at
), crowded as (
    select distinct tenant_id, provider_id
    from active
    where latest_end > start_at
)
insert into fhir_sched_offenders
select 'provider_times_no_overlap', a.id, b.id,
       format('appointments %s overlaps appointments %s of provider %s', a.id, b.id, a.provider_id)
from crowded c
join active a using (tenant_id, provider_id)
join active b using (tenant_id, provider_id)
where (a.start_at, a.id) < (b.start_at, b.id)
  and b.start_at < a.end_at;

do $$
declare
    listed text;
    found_rows bigint;
begin
    select count(*), string_agg(what, E'\n' order by rule, what)
    into found_rows, listed
    from fhir_sched_offenders;
    if found_rows > 0 and current_setting('app.grandfather', true) is distinct from 'on' then
        raise exception using
            errcode = 'exclusion_violation',
            message = format('%s existing rows or pairs of rows break the rules of this migration', found_rows),
            detail = listed,
            hint = 'Mend the rows, or let them stay as they are with --grandfather. Nothing was changed.',
            constraint = 'existing_rows';
    end if;
end
$$;

update slots
set grandfathered = '00000000-0000-0000-0000-000000000001'
where id in (
    select unnest(array[id, other])
    from fhir_sched_offenders
    where rule = 'slots_no_overlap'
);
