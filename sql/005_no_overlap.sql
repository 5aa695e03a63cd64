-- Keys that stay inside a tenant, and time that only one can have.
--
-- Foreign keys ignore row-level security, so a key that crosses tenants is forbidden by its columns. Rows that were
-- allowed to stay leave the key unchecked for themselves (not valid) and checked for every later one.
alter table schedules add constraint schedules_tenant_id_id_key unique (tenant_id, id);
alter table slots add constraint slots_tenant_id_id_key unique (tenant_id, id);
alter table appointments add constraint appointments_tenant_id_id_key unique (tenant_id, id);

do $$
declare
    fk record;
begin
    for fk in
        values
            ('slots', 'slots_schedule_fk', 'schedule_id', 'schedules'),
            ('schedule_exceptions', 'schedule_exceptions_schedule_fk', 'schedule_id', 'schedules'),
            ('appointments', 'appointments_slot_fk', 'slot_id', 'slots')
    loop
        execute format(
            'alter table %I add constraint %I foreign key (tenant_id, %I) references %I (tenant_id, id)%s',
            fk.column1, fk.column2, fk.column3, fk.column4,
            case when exists (select from fhir_sched_offenders where rule = fk.column2) then ' not valid' else '' end
        );
    end loop;
end
$$;

-- The time of practitioners: one row a practitioner of each appointment that occupies time and does not share it.
-- Derived: only the triggers on appointments write it.
create table provider_times (
    tenant_id uuid not null,
    appointment_id uuid not null,
    provider_id uuid not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    grandfathered uuid,
    primary key (tenant_id, appointment_id, provider_id)
);

insert into provider_times (tenant_id, appointment_id, provider_id, start_at, end_at, grandfathered)
select tenant_id, id, provider_id, start_at, end_at,
       case when id in (
           select unnest(array[o.id, o.other])
           from fhir_sched_offenders o
           where o.rule = 'provider_times_no_overlap'
       ) then '00000000-0000-0000-0000-000000000001'::uuid end
from appointments
where status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
  and provider_id is not null
  and not allow_double_booking
  and start_at < end_at;

-- Half-open ranges: what touches does not overlap. The condition on the times keeps a row that ends before it
-- starts, which another program may write, from breaking the range.
-- Rows that were allowed to overlap share one value in the last member, so they differ from every row but each other.
do $$
begin
    if exists (select from slots where grandfathered is not null) then
        alter table slots add constraint slots_no_overlap exclude using gist (
            tenant_id with =,
            schedule_id with =,
            tstzrange(start_at, end_at) with &&,
            coalesce(grandfathered, id) with <>
        ) where (status in ('free', 'busy') and start_at < end_at);
    else
        alter table slots add constraint slots_no_overlap exclude using gist (
            tenant_id with =,
            schedule_id with =,
            tstzrange(start_at, end_at) with &&
        ) where (status in ('free', 'busy') and start_at < end_at);
    end if;
    if exists (select from provider_times where grandfathered is not null) then
        alter table provider_times add constraint provider_times_no_overlap exclude using gist (
            tenant_id with =,
            provider_id with =,
            tstzrange(start_at, end_at) with &&,
            coalesce(grandfathered, appointment_id) with <>
        );
    else
        alter table provider_times add constraint provider_times_no_overlap exclude using gist (
            tenant_id with =,
            provider_id with =,
            tstzrange(start_at, end_at) with &&
        );
    end if;
end
$$;

alter table provider_times enable row level security;
create policy provider_times_tenant_isolation on provider_times
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy provider_times_trigger on provider_times
    to fhir_sched_trigger using (true) with check (true);
grant select, insert, update, delete on provider_times to fhir_sched_trigger;
grant select on provider_times to fhir_sched_app;
