-- The audit log: who asked for what, when, from where, and what became of it. Compact columns; the FHIR AuditEvent is
-- composed of them when it is read.
--
-- A row about a change is written by the statement that makes the change, so that there is none without it and none
-- left when it is rolled back. Reads and refusals come in batches from the server's memory. Where an interaction
-- concerned several patients each has a row, so that one patient's log is found without the others'.
--
-- Append-only: the server may read and insert, nothing else. Old rows are removed by the owner of the database, by
-- fhir_sched_forget_audit_events, which the server's role may not call.
create table audit_events (
    tenant_id uuid not null,
    id uuid not null default gen_random_uuid(),
    recorded_at timestamptz not null default clock_timestamp(),
    -- R4's code of the interaction (restful-interaction) and one of C, R, U, D, E
    interaction text not null,
    action text not null,
    -- of HTTP; the outcome is FHIR's: 0 done, 4 refused, 8 failed
    status integer not null,
    outcome text not null generated always as (
        case when status < 400 then '0' when status < 500 then '4' else '8' end
    ) stored,
    -- the resource type asked for, and the reference (Type/id) of the resource where there is one
    type text,
    entity text,
    entity_version integer,
    patient text,
    -- what was searched for, as it stood in the URL
    query text,
    -- the token's client_id, sub, issuer and fhirUser
    client text,
    subject text,
    issuer text,
    agent text,
    address text,
    server text,
    request_id text,
    primary key (tenant_id, id)
);
-- Beneath row-level security only plain comparisons use an index; each ends with what pages are cut by.
create index ix_audit_events_recorded on audit_events (tenant_id, recorded_at, id);
create index ix_audit_events_patient on audit_events (tenant_id, patient, recorded_at, id) where patient is not null;
create index ix_audit_events_entity on audit_events (tenant_id, entity, recorded_at, id) where entity is not null;
create index ix_audit_events_agent on audit_events (tenant_id, agent, recorded_at, id) where agent is not null;
create index ix_audit_events_client on audit_events (tenant_id, client, recorded_at, id) where client is not null;
create index ix_audit_events_subject on audit_events (tenant_id, subject, recorded_at, id) where subject is not null;
create index ix_audit_events_outcome on audit_events (tenant_id, outcome, recorded_at, id);
-- Rows come in the order of time: a few bytes a megabyte, for the removal of old ones over all tenants.
create index ix_audit_events_age on audit_events using brin (recorded_at);

alter table audit_events enable row level security;
alter table audit_events force row level security;
create policy audit_events_tenant_isolation on audit_events
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy audit_events_trigger on audit_events
    to fhir_sched_trigger using (true) with check (true);
grant select, delete on audit_events to fhir_sched_trigger;
grant select, insert on audit_events to fhir_sched_app;

-- Removes up to at_most events of all tenants that are older than a moment and says how many; call it until it says 0.
-- For the owner of the database alone: it sees past the tenants, so nobody else may call it.
create function fhir_sched_forget_audit_events(older_than timestamptz, at_most integer default 10000) returns bigint
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    removed bigint;
begin
    delete from audit_events
    where ctid = any (
        array(select e.ctid from audit_events e where e.recorded_at < older_than limit at_most)
    );
    get diagnostics removed = row_count;
    return removed;
end
$$;

do $$
declare
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    revoke all on function fhir_sched_forget_audit_events from public;
    if plain_owner then
        execute format('grant execute on function fhir_sched_forget_audit_events to %I', current_user);
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
    alter function fhir_sched_forget_audit_events owner to fhir_sched_trigger;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
