-- Tenants with subscribers and an event that they have not been told of: a look at many tenants that have none costs no
-- transaction for each. `since` as in fhir_sched_tenants_with_subscribers.
call fhir_sched_borrow_trigger_role();

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

revoke all on function fhir_sched_tenants_to_fan_out() from public;
grant execute on function fhir_sched_tenants_to_fan_out() to fhir_sched_app;
alter function fhir_sched_tenants_to_fan_out() owner to fhir_sched_trigger;
call fhir_sched_return_trigger_role();
