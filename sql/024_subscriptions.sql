-- Subscriptions and what they were told: who listens to which topic, the numbered events of each, where delivery stands.
--
-- A subscription is a resource of the API alone; no other program writes it. Beside the resource the row has whom it
-- works for (`caller`: the scopes that were granted, judged again at each send) and how far delivery has come.

-- To use, replace or hand over a function, an owner that is no superuser must be a member of the function's owner,
-- which must be able to create in the schema: for this moment.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

create table subscriptions (
    tenant_id uuid not null,
    id uuid not null default gen_random_uuid(),
    version integer not null default 1,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    status text not null default 'requested',
    -- the canonical URL of the topic
    criteria text not null,
    end_at timestamptz,
    error text,
    fhir jsonb,
    fhir_tokens jsonb,
    caller jsonb not null,
    -- whose it is, where a patient made it
    patient_id uuid,
    -- the FHIR base that the subscriber spoke to, which notifications repeat
    base text not null,
    -- what was committed before the subscription was there is not told to it
    since pg_snapshot not null default pg_current_snapshot(),
    -- the number of the last event, of the last one that was delivered or is not going to be, failures in a row
    events bigint not null default 0,
    delivered bigint not null default 0,
    failures integer not null default 0,
    -- when something is to be done (null: nothing), and who is at it: the number of an advisory lock that the sender's
    -- session holds, so that a sender that is gone is known at once
    due_at timestamptz,
    claim bigint,
    primary key (tenant_id, id),
    constraint subscriptions_status check (status in ('requested', 'active', 'error', 'off'))
);
create index ix_subscriptions_criteria on subscriptions (tenant_id, criteria, id);
create index ix_subscriptions_status on subscriptions (tenant_id, status, id);
create index ix_subscriptions_updated on subscriptions (tenant_id, updated_at, id);
create index ix_subscriptions_due on subscriptions (tenant_id, due_at, id) where due_at is not null;

-- The events of a subscription, numbered without gaps. The focus is a version of a resource, which history keeps.
create table subscription_events (
    tenant_id uuid not null,
    subscription_id uuid not null,
    number bigint not null,
    occurred_at timestamptz not null,
    outbox_id uuid not null,
    -- what happened to the resource: created, updated or deleted
    action text not null,
    table_name text not null,
    id uuid not null,
    version integer not null,
    primary key (tenant_id, subscription_id, number),
    unique (tenant_id, subscription_id, outbox_id, table_name, id),
    foreign key (tenant_id, subscription_id) references subscriptions (tenant_id, id) on delete cascade
);

do $$
declare
    ours text;
    rule constant text := 'tenant_id = (select nullif(current_setting(''app.tenant_id'', true), '''')::uuid)';
begin
    foreach ours in array array['subscriptions', 'subscription_events'] loop
        execute format('alter table %I enable row level security', ours);
        execute format('alter table %I force row level security', ours);
        execute format(
            'create policy %I on %I using (%s) with check (%s)', ours || '_tenant_isolation', ours, rule, rule
        );
        execute format(
            'create policy %I on %I to fhir_sched_trigger using (true) with check (true)', ours || '_trigger', ours
        );
        execute format('grant select, insert, update, delete on %I to fhir_sched_app', ours);
        execute format('grant select on %I to fhir_sched_trigger', ours);
    end loop;
end
$$;

-- The transaction of each event, so that a subscription is told what was committed after it and nothing from before,
-- however long the transaction took. The default is stable: rows that are there are not rewritten.
alter table outbox add column xid xid8 default pg_current_xact_id();

-- The states of a subscription. A client asks for work (requested, active) or for none (off); the server says which of
-- requested, active and error it is. Delivery, which says app.delivery, sets states as it finds them.
create function fhir_sched_subscription_state() returns trigger
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    delivering constant boolean := coalesce(current_setting('app.delivery', true), '') = 'on';
begin
    if tg_op = 'UPDATE' and not delivering then
        new.error := old.error;
        -- who changes somebody else's subscription gives it none of its own rights
        if (new.caller ->> 'subject', new.caller ->> 'client')
            is distinct from (old.caller ->> 'subject', old.caller ->> 'client')
        then
            new.caller := old.caller;
            new.patient_id := old.patient_id;
            new.base := old.base;
        end if;
    end if;
    if delivering then
        null;
    elsif new.status = 'off' then
        new.due_at := null;
        new.error := null;
        new.claim := null;
    elsif tg_op = 'UPDATE'
        and (new.status = old.status or (old.status = 'requested' and new.status = 'active'))
        and (old.status = 'error' or new.fhir -> 'channel' is not distinct from old.fhir -> 'channel')
    then
        -- nothing was asked of it that it is not doing already; a client that repeats what it read changes no state
        new.status := old.status;
        if new.end_at is distinct from old.end_at and old.status in ('requested', 'active') then
            new.due_at := clock_timestamp();
        end if;
    else
        -- what it missed in error is had by $events; while it is off nothing is counted
        if tg_op = 'UPDATE' and old.status in ('off', 'error') then
            new.delivered := old.events;
        end if;
        if tg_op = 'UPDATE' and old.status = 'off' then
            new.since := pg_current_snapshot();
        end if;
        new.status := 'requested';
        new.error := null;
        new.failures := 0;
        new.claim := null;
        new.due_at := clock_timestamp();
        perform pg_notify('fhir_sched_subscriptions', '');
    end if;
    -- counting and sending make no version
    if tg_op = 'UPDATE' and (not delivering or (new.status, new.error) is distinct from (old.status, old.error)) then
        new.version := old.version + 1;
        new.updated_at := clock_timestamp();
    end if;
    return new;
end
$$;
revoke all on function fhir_sched_subscription_state() from public;

-- That it was deleted, and by which version; its other versions are not kept.
create function fhir_sched_subscription_deleted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into history (tenant_id, table_name, id, version, updated_at, deleted)
    values (old.tenant_id, 'subscriptions', old.id, old.version + 1, clock_timestamp(), true);
    return null;
end
$$;

create trigger subscriptions_10_first_version
    before insert on subscriptions
    for each row
    execute function fhir_sched_first_version();
create trigger subscriptions_20_state
    before insert or update on subscriptions
    for each row
    execute function fhir_sched_subscription_state();
create trigger subscriptions_50_deleted
    after delete on subscriptions
    for each row
    execute function fhir_sched_subscription_deleted();
create trigger subscriptions_70_tokens_insert
    after insert on subscriptions
    for each row
    when (new.fhir_tokens is not null)
    execute function fhir_sched_write_tokens('b');
create trigger subscriptions_70_tokens_update
    after update on subscriptions
    for each row
    when (new.fhir_tokens is distinct from old.fhir_tokens)
    execute function fhir_sched_write_tokens('b');
create trigger subscriptions_70_tokens_delete
    after delete on subscriptions
    for each row
    when (old.fhir_tokens is not null)
    execute function fhir_sched_write_tokens('b');

-- Tenants with subscriptions that listen, and since when events may concern them; a transaction may have begun long
-- before the subscription and end after it.
create function fhir_sched_tenants_with_subscribers() returns table (tenant_id uuid, since timestamptz)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select s.tenant_id, min(s.created_at) - interval '1 day'
    from subscriptions s
    where s.status <> 'off'
    group by s.tenant_id
$$;

-- Tenants with subscriptions that have something to be done, when the first of it is due, and whether somebody is at one.
create function fhir_sched_tenants_with_notifications()
returns table (tenant_id uuid, due_at timestamptz, claimed boolean)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select s.tenant_id, min(s.due_at), bool_or(s.claim is not null)
    from subscriptions s
    where s.due_at is not null
    group by s.tenant_id
$$;

-- The same as in 006, and besides what a changed status was before: that a slot became free is said by no row alone.
create or replace function fhir_sched_record() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    event text := 'updated';
    before constant jsonb := to_jsonb(old);
    previous jsonb := '{}';
begin
    insert into history (tenant_id, table_name, id, version, updated_at, row)
    values (old.tenant_id, tg_table_name, old.id, old.version, old.updated_at, before);
    if tg_op = 'DELETE' then
        insert into history (tenant_id, table_name, id, version, updated_at, deleted)
        values (old.tenant_id, tg_table_name, old.id, old.version + 1, clock_timestamp(), true);
        insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
        values (
            old.tenant_id, old.id, tg_argv[0] || '.deleted',
            jsonb_build_object(
                'tenant_id', old.tenant_id, 'id', old.id, 'version', old.version + 1, 'row', before
            ),
            clock_timestamp()
        );
        return null;
    end if;
    if tg_table_name = 'appointments' then
        if new.status is distinct from old.status and new.status in ('cancelled', 'entered-in-error') then
            event := 'cancelled';
        elsif (new.start_at, new.end_at, new.slot_id, new.extra_slot_ids)
            is distinct from (old.start_at, old.end_at, old.slot_id, old.extra_slot_ids) then
            event := 'rescheduled';
        end if;
    elsif tg_table_name = 'slots' then
        if new.status is distinct from old.status and new.status = 'entered-in-error' then
            event := 'cancelled';
        elsif (new.start_at, new.end_at) is distinct from (old.start_at, old.end_at) then
            event := 'rescheduled';
        end if;
    elsif tg_table_name = 'waitlist_entries' then
        if new.status is distinct from old.status and new.status = 'deleted' then
            event := 'cancelled';
        end if;
    end if;
    if tg_table_name in ('slots', 'appointments', 'waitlist_entries') then
        if new.status is distinct from old.status then
            previous := jsonb_build_object('previous', jsonb_build_object('status', old.status));
        end if;
    end if;
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    values (
        new.tenant_id, new.id, tg_argv[0] || '.' || event,
        jsonb_build_object('tenant_id', new.tenant_id, 'id', new.id, 'version', new.version, 'row', to_jsonb(new))
            || previous,
        clock_timestamp()
    );
    return null;
end
$$;

-- Definer functions belong to the role without a login; the one that looks across tenants only the server may call.
do $$
declare
    ours regprocedure;
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    foreach ours in array array[
        'fhir_sched_subscription_deleted()',
        'fhir_sched_tenants_with_subscribers()',
        'fhir_sched_tenants_with_notifications()'
    ]::regprocedure[] loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    grant execute on function fhir_sched_tenants_with_subscribers(), fhir_sched_tenants_with_notifications()
        to fhir_sched_app;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
