-- Tenants with subscribers and an event that they have not been told of: a look at many tenants that have none costs no
-- transaction for each. `since` as in fhir_sched_tenants_with_subscribers.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

create function fhir_sched_tenants_to_fan_out() returns table (tenant_id uuid, since timestamptz)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    select s.tenant_id, s.since
    from fhir_sched_tenants_with_subscribers() s
    where exists (
        select
        from outbox o
        where o.tenant_id = s.tenant_id
          and o.fanned = false
          and o.created_at >= s.since
    )
$$;

do $$
begin
    revoke all on function fhir_sched_tenants_to_fan_out() from public;
    grant execute on function fhir_sched_tenants_to_fan_out() to fhir_sched_app;
    alter function fhir_sched_tenants_to_fan_out() owner to fhir_sched_trigger;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
