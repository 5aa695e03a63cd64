-- The relay: what it remembers of each event, how it is woken, and how it finds the tenants that have work.
--
-- `published` stays what it was: every sink has the event. `queued` says that the relay has taken the event up and some
-- sink has not: what is still to be sent stands in outbox_deliveries, so that a sink that is down holds no other up.
-- `fanned` says that Subscriptions have been told; the two are apart, since a server without sinks has Subscriptions too.
-- Rows that are there have neither; both columns have constant defaults, which touches no row.
alter table outbox
    add column queued boolean not null default false,
    add column fanned boolean not null default false;

-- Taken tenant by tenant in the order of the clock; the first index also finds the tenants.
create index ix_outbox_to_relay on outbox (tenant_id, created_at, id) where published = false and queued = false;
create index ix_outbox_to_fan_out on outbox (tenant_id, created_at, id) where fanned = false;
create index ix_outbox_published on outbox (tenant_id, created_at) where published;

grant update (queued, fanned), delete on outbox to fhir_sched_app;
-- Whatever the server is told to remove: an event that was not sent stays.
create policy outbox_published_removed on outbox
    as restrictive for delete to fhir_sched_app using (published);

-- One row an event and sink that is still to be sent, none for those that were taken at once.
-- `due_at` is the event's own time until an attempt fails. No foreign key: programs that empty the outbox go on doing so,
-- and a delivery without its event is dropped when its turn comes.
create table outbox_deliveries (
    tenant_id uuid not null,
    event_id uuid not null,
    sink text not null,
    aggregate_id uuid not null,
    created_at timestamptz not null,
    due_at timestamptz not null,
    attempts integer not null default 0,
    refusals integer not null default 0,
    problem text,
    parked_at timestamptz,
    primary key (tenant_id, event_id, sink)
);
create index ix_outbox_deliveries_due on outbox_deliveries (tenant_id, sink, due_at, created_at, event_id)
    where parked_at is null;
create index ix_outbox_deliveries_aggregate on outbox_deliveries (tenant_id, sink, aggregate_id, created_at, event_id)
    where parked_at is null;
create index ix_outbox_deliveries_parked on outbox_deliveries (tenant_id, sink) where parked_at is not null;

alter table outbox_deliveries enable row level security;
alter table outbox_deliveries force row level security;
create policy outbox_deliveries_tenant_isolation on outbox_deliveries
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy outbox_deliveries_trigger on outbox_deliveries
    to fhir_sched_trigger using (true) with check (true);
grant select, insert, update, delete on outbox_deliveries to fhir_sched_app;
grant select on outbox_deliveries to fhir_sched_trigger;

-- Tenants whose outbox has events that no relay has taken up; one index probe a tenant, however long the backlog is.
create function fhir_sched_tenants_to_relay() returns setof uuid
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    with recursive found as (
        (
            select o.tenant_id
            from outbox o
            where o.published = false
              and o.queued = false
            order by o.tenant_id
            limit 1
        )
        union all
        select following.tenant_id
        from found
        cross join lateral (
            select o.tenant_id
            from outbox o
            where o.published = false
              and o.queued = false
              and o.tenant_id > found.tenant_id
            order by o.tenant_id
            limit 1
        ) following
    )
    select f.tenant_id
    from found f
$$;

-- Tenants and sinks with something still to be sent, and when the first of it is due.
create function fhir_sched_tenants_with_deliveries() returns table (tenant_id uuid, sink text, due_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    with recursive found as (
        (
            select d.tenant_id, d.sink, d.due_at
            from outbox_deliveries d
            where d.parked_at is null
            order by d.tenant_id, d.sink, d.due_at
            limit 1
        )
        union all
        select following.tenant_id, following.sink, following.due_at
        from found
        cross join lateral (
            select d.tenant_id, d.sink, d.due_at
            from outbox_deliveries d
            where d.parked_at is null
              and (d.tenant_id, d.sink) > (found.tenant_id, found.sink)
            order by d.tenant_id, d.sink, d.due_at
            limit 1
        ) following
    )
    select f.tenant_id, f.sink, f.due_at
    from found f
$$;

-- Tenants with parked events, sink by sink; there are few.
create function fhir_sched_tenants_with_parked() returns table (tenant_id uuid, sink text, events bigint)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    select d.tenant_id, d.sink, count(*)
    from outbox_deliveries d
    where d.parked_at is not null
    group by d.tenant_id, d.sink
$$;

-- Tenants with published events from before that moment.
create function fhir_sched_tenants_with_old_events(moment timestamptz) returns setof uuid
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    with recursive found as (
        (
            select o.tenant_id, o.created_at
            from outbox o
            where o.published
            order by o.tenant_id, o.created_at
            limit 1
        )
        union all
        select following.tenant_id, following.created_at
        from found
        cross join lateral (
            select o.tenant_id, o.created_at
            from outbox o
            where o.published
              and o.tenant_id > found.tenant_id
            order by o.tenant_id, o.created_at
            limit 1
        ) following
    )
    select tenant_id
    from found
    where created_at < moment
$$;

-- How many events are not published (counted up to 100,000), since when the oldest waits, how many are parked.
create function fhir_sched_outbox_figures() returns table (waiting bigint, oldest timestamptz, parked bigint)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    select
        (select count(*) from (select from outbox where published = false limit 100000) counted),
        (select o.created_at from outbox o where o.published = false order by o.created_at limit 1),
        (select count(*) from outbox_deliveries d where d.parked_at is not null)
$$;

-- Whoever adds to the outbox wakes a relay that sleeps, and only that one: a commit that notifies holds a lock of the
-- whole database, which would make commits wait for each other. A relay that sleeps holds this number; what cannot share
-- it notifies. A transaction that shares it keeps the relay from falling asleep until it has ended, so that no event is
-- overlooked in between. Neither side ever waits.
create function fhir_sched_wake_relay() returns trigger
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform pg_notify('fhir_sched_outbox', '');
    return null;
end
$$;
revoke all on function fhir_sched_wake_relay() from public;

create trigger outbox_50_wake
    after insert on outbox
    for each statement
    when (not pg_try_advisory_xact_lock_shared(7378697629483821640))
    execute function fhir_sched_wake_relay();

-- The functions that look across tenants belong to the role without a login; only the server may call them.
do $$
declare
    ours regprocedure;
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    if plain_owner then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
    foreach ours in array array[
        'fhir_sched_tenants_to_relay()',
        'fhir_sched_tenants_with_deliveries()',
        'fhir_sched_tenants_with_parked()',
        'fhir_sched_tenants_with_old_events(timestamptz)',
        'fhir_sched_outbox_figures()'
    ]::regprocedure[] loop
        execute format('revoke all on function %s from public', ours);
        execute format('grant execute on function %s to fhir_sched_app', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
