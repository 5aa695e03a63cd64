-- Versions, history and outbox, whichever program makes the change.
--
-- The current version of a row is the row itself; history holds every version before it, and for a deleted row one
-- entry more that says so. A row that comes back under its old id counts on from there.
create table history (
    tenant_id uuid not null,
    table_name text not null,
    id uuid not null,
    version integer not null,
    updated_at timestamptz not null,
    deleted boolean not null default false,
    row jsonb,
    primary key (tenant_id, table_name, id, version)
);
create index ix_history_updated on history (tenant_id, table_name, updated_at desc, id);
-- Small, so that the look at every insert stays in memory.
create index ix_history_deleted on history (tenant_id, table_name, id, version) where deleted;

alter table history enable row level security;
create policy history_tenant_isolation on history
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy history_trigger on history
    to fhir_sched_trigger using (true) with check (true);
grant select, insert on history to fhir_sched_trigger;
grant select on history to fhir_sched_app;

-- A row that was deleted and comes back counts on from its last version.
--
-- Functions that look rows up by key do it without sequential scans: a session keeps a plan that it made while a table
-- was empty, and by the thousandth row that plan is slow.
create function fhir_sched_first_version() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    new.version := coalesce(
        (
            select max(h.version) + 1
            from history h
            where h.tenant_id = new.tenant_id
              and h.table_name = tg_table_name::text
              and h.id = new.id
              and h.deleted
        ),
        new.version
    );
    return new;
end
$$;

-- Touches nothing but the new row, so it needs nobody's rights.
create function fhir_sched_next_version() returns trigger
language plpgsql
as $$
begin
    new.version := old.version + 1;
    new.updated_at := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- One outbox row a change. The time is the clock's, not the transaction's: two changes of a row in one transaction
-- keep their order.
create function fhir_sched_announce_created() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    values (
        new.tenant_id, new.id, tg_argv[0] || '.created',
        jsonb_build_object('tenant_id', new.tenant_id, 'id', new.id, 'version', new.version, 'row', to_jsonb(new)),
        clock_timestamp()
    );
    return null;
end
$$;

-- Slots come by the thousand: one statement announces all that one statement made.
create function fhir_sched_announce_slots() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    select s.tenant_id, s.id, 'slot.created',
           jsonb_build_object('tenant_id', s.tenant_id, 'id', s.id, 'version', s.version, 'row', to_jsonb(s)),
           clock_timestamp()
    from created s;
    return null;
end
$$;

create function fhir_sched_record() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    event text := 'updated';
begin
    insert into history (tenant_id, table_name, id, version, updated_at, row)
    values (old.tenant_id, tg_table_name, old.id, old.version, old.updated_at, to_jsonb(old));
    if tg_op = 'DELETE' then
        insert into history (tenant_id, table_name, id, version, updated_at, deleted)
        values (old.tenant_id, tg_table_name, old.id, old.version + 1, clock_timestamp(), true);
        insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
        values (
            old.tenant_id, old.id, tg_argv[0] || '.deleted',
            jsonb_build_object(
                'tenant_id', old.tenant_id, 'id', old.id, 'version', old.version + 1, 'row', to_jsonb(old)
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
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    values (
        new.tenant_id, new.id, tg_argv[0] || '.' || event,
        jsonb_build_object('tenant_id', new.tenant_id, 'id', new.id, 'version', new.version, 'row', to_jsonb(new)),
        clock_timestamp()
    );
    return null;
end
$$;

-- Triggers of one table fire in the order of their names; the numbers say it.
-- Slots and appointments look up their first version together with what else their inserts need.
do $$
declare
    watched record;
begin
    for watched in
        values
            ('schedules', 'schedule'),
            ('schedule_exceptions', 'schedule_exception'),
            ('slots', 'slot'),
            ('appointments', 'appointment'),
            ('waitlist_entries', 'waitlist')
    loop
        execute format(
            'create trigger %I before update on %I for each row execute function fhir_sched_next_version()',
            watched.column1 || '_10_version', watched.column1
        );
        execute format(
            'create trigger %I after update or delete on %I for each row execute function fhir_sched_record(%L)',
            watched.column1 || '_50_record', watched.column1, watched.column2
        );
        if watched.column1 not in ('slots', 'appointments') then
            execute format(
                'create trigger %I before insert on %I for each row execute function fhir_sched_first_version()',
                watched.column1 || '_10_first_version', watched.column1
            );
        end if;
        if watched.column1 <> 'slots' then
            execute format(
                'create trigger %I after insert on %I for each row execute function fhir_sched_announce_created(%L)',
                watched.column1 || '_50_announce', watched.column1, watched.column2
            );
        end if;
    end loop;
end
$$;

-- A job that makes a schedule's slots announces them together: it sets app.quiet_slots for its transaction.
create trigger slots_50_announce
    after insert on slots
    referencing new table as created
    for each statement
    when (current_setting('app.quiet_slots', true) is distinct from 'on')
    execute function fhir_sched_announce_slots();
