-- How a migration replaces what belongs to fhir_sched_trigger: whoever migrates is a member of that role meanwhile, and
-- the role may create. A superuser needs neither. The files up to 039 say it at their head and foot each.
create procedure fhir_sched_borrow_trigger_role()
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

create procedure fhir_sched_return_trigger_role()
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;

comment on procedure fhir_sched_borrow_trigger_role() is
    'Makes whoever migrates a member of fhir_sched_trigger, which may create; called at the head of a migration';
comment on procedure fhir_sched_return_trigger_role() is 'Takes back what was borrowed; called at its foot';
revoke all on procedure fhir_sched_borrow_trigger_role(), fhir_sched_return_trigger_role() from public;
