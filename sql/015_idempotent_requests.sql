-- Answers of requests that carried an Idempotency-Key, so that a repeat gets the first answer and does nothing.
--
-- One row a tenant, caller and key; the row is claimed in the transaction that does the work, so two at once do one
-- thing: the second waits for the first one's end. Rows live 24 hours; the server removes old ones as it claims.
create table idempotent_requests (
    tenant_id uuid not null,
    caller uuid not null,
    key text not null,
    fingerprint text not null,
    created_at timestamptz not null default now(),
    status integer,
    answer jsonb,
    body text,
    primary key (tenant_id, caller, key)
);
create index ix_idempotent_requests_age on idempotent_requests (tenant_id, created_at);

alter table idempotent_requests enable row level security;
alter table idempotent_requests force row level security;
create policy idempotent_requests_tenant_isolation on idempotent_requests
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
grant select, insert, update, delete on idempotent_requests to fhir_sched_app;
