-- What is searched and has no plain column (codes, identifiers, references in the kept elements; service types) lies
-- in a narrow table of its own: operators on jsonb and arrays are no index conditions beneath a policy.
--
-- kind tells tables apart whose rows may share an id: c schedules, s slots, e schedule_exceptions, a appointments,
-- w waitlist_entries.
create table search_tokens (
    tenant_id uuid not null,
    parameter text not null,
    system text not null default '',
    value text collate "C" not null,
    id uuid not null,
    kind "char" not null
);
create index ix_search_tokens_value on search_tokens (tenant_id, kind, parameter, value, system, id);
create index ix_search_tokens_system on search_tokens (tenant_id, kind, parameter, system, value, id);
create index ix_search_tokens_id on search_tokens (tenant_id, id);

alter table search_tokens enable row level security;
create policy search_tokens_tenant_isolation on search_tokens
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy search_tokens_trigger on search_tokens
    to fhir_sched_trigger using (true) with check (true);
grant select, insert, delete on search_tokens to fhir_sched_trigger;
grant select on search_tokens to fhir_sched_app;

create function fhir_sched_write_tokens() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if tg_op <> 'INSERT' then
        delete from search_tokens
        where tenant_id = old.tenant_id
          and id = old.id
          and kind = tg_argv[0]::"char";
    end if;
    if tg_op <> 'DELETE' then
        insert into search_tokens (tenant_id, parameter, system, value, id, kind)
        select distinct new.tenant_id, t ->> 0, coalesce(t ->> 1, ''), t ->> 2, new.id, tg_argv[0]::"char"
        from jsonb_array_elements(new.fhir_tokens) as t
        where t ->> 2 is not null;
        if tg_table_name = 'schedules' then
            -- "system|code", divided at the last bar; a code alone has no system.
            if new.fhir -> 'serviceType' is null then
                insert into search_tokens (tenant_id, parameter, system, value, id, kind)
                select distinct new.tenant_id, 'Schedule.service-type',
                       coalesce(substring(t from '^(.*)\|[^|]*$'), ''), substring(t from '[^|]*$'), new.id, 'c'::"char"
                from unnest(new.service_types) as t
                where t is not null;
            end if;
        end if;
    end if;
    return null;
end
$$;

do $$
declare
    searched record;
    has_tokens text;
begin
    for searched in
        values ('slots', 's'), ('schedule_exceptions', 'e'), ('appointments', 'a'), ('waitlist_entries', 'w')
    loop
        execute format(
            'create trigger %I after insert on %I for each row when (new.fhir_tokens is not null)
             execute function fhir_sched_write_tokens(%L)',
            searched.column1 || '_70_tokens_insert', searched.column1, searched.column2
        );
        execute format(
            'create trigger %I after update on %I for each row
             when (new.fhir_tokens is distinct from old.fhir_tokens or (
                new.fhir_tokens is not null and (new.id <> old.id or new.tenant_id <> old.tenant_id)
             ))
             execute function fhir_sched_write_tokens(%L)',
            searched.column1 || '_70_tokens_update', searched.column1, searched.column2
        );
        execute format(
            'create trigger %I after delete on %I for each row when (old.fhir_tokens is not null)
             execute function fhir_sched_write_tokens(%L)',
            searched.column1 || '_70_tokens_delete', searched.column1, searched.column2
        );
    end loop;
end
$$;

create trigger schedules_70_tokens_insert
    after insert on schedules
    for each row
    when (new.fhir_tokens is not null or new.service_types is not null)
    execute function fhir_sched_write_tokens('c');
create trigger schedules_70_tokens_update
    after update on schedules
    for each row
    when (
        new.fhir_tokens is distinct from old.fhir_tokens
        or new.service_types is distinct from old.service_types
        or new.fhir -> 'serviceType' is distinct from old.fhir -> 'serviceType'
        or new.id <> old.id
        or new.tenant_id <> old.tenant_id
    )
    execute function fhir_sched_write_tokens('c');
create trigger schedules_70_tokens_delete
    after delete on schedules
    for each row
    when (old.fhir_tokens is not null or old.service_types is not null)
    execute function fhir_sched_write_tokens('c');

-- Schedules that were there.
insert into search_tokens (tenant_id, parameter, system, value, id, kind)
select distinct c.tenant_id, 'Schedule.service-type',
       coalesce(substring(t from '^(.*)\|[^|]*$'), ''), substring(t from '[^|]*$'), c.id, 'c'::"char"
from schedules c
cross join unnest(c.service_types) as t
where t is not null;
