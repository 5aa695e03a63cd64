-- Roles and the tenant rule.
--
-- fhir_sched_app      the server logs in as it; owns nothing, bypasses nothing.
-- fhir_sched_trigger  nobody logs in as it; owns our trigger functions, so that what the triggers write is written
--                     with our rights, whatever few rights the program has that made the change.
-- Roles belong to the cluster: they may be there already, or appear while another database migrates.
do $$
begin
    create role fhir_sched_app login;
exception when duplicate_object or unique_violation then
    null;
end
$$;
do $$
begin
    create role fhir_sched_trigger nologin;
exception when duplicate_object or unique_violation then
    null;
end
$$;

-- "=" on uuid and "&&" on ranges in one exclusion constraint need it.
create extension if not exists btree_gist with schema public;

-- The tenant, read once a query (a sub-select is an init plan) and null where nobody set it: after a transaction
-- that set it locally the value is '', and a bare cast would raise an error instead of showing nothing.
-- Until the last file of a migration the owner sees every tenant's rows: it has to backfill and check them.
do $$
declare
    model_table text;
    rule constant text := 'tenant_id = (select nullif(current_setting(''app.tenant_id'', true), '''')::uuid)';
begin
    foreach model_table in array array[
        'schedules', 'schedule_exceptions', 'slots', 'appointments', 'waitlist_entries', 'outbox'
    ] loop
        execute format('alter table %I enable row level security', model_table);
        execute format('alter table %I no force row level security', model_table);
        if exists (
            select
            from pg_policies
            where schemaname = 'public'
              and tablename = model_table
              and policyname = model_table || '_tenant_isolation'
        ) then
            execute format(
                'alter policy %I on %I using (%s) with check (%s)',
                model_table || '_tenant_isolation', model_table, rule, rule
            );
        else
            execute format(
                'create policy %I on %I using (%s) with check (%s)',
                model_table || '_tenant_isolation', model_table, rule, rule
            );
        end if;
        execute format(
            'create policy %I on %I to fhir_sched_trigger using (true) with check (true)',
            model_table || '_trigger', model_table
        );
        execute format('grant select, insert, update, delete on %I to fhir_sched_trigger', model_table);
    end loop;
end
$$;

grant usage on schema public to fhir_sched_app, fhir_sched_trigger;
grant select, insert, update, delete
    on schedules, schedule_exceptions, slots, appointments, waitlist_entries
    to fhir_sched_app;
grant select, update (published) on outbox to fhir_sched_app;
