-- Holds, which end by the database's clock; and how many appointments a slot has room for.
--
-- A hold is an appointment with status pending and the moment until which it is kept. It occupies like any other
-- pending appointment until then; after that it is over, whether or not anybody has cleaned up: whoever wants its slot
-- or its practitioner's time lets it lapse first, in the same transaction, and whoever confirms it is refused.
-- The clock is clock_timestamp(), asked while the hold's row is locked: a transaction that began, or waited, before
-- the end would by now() still confirm what another one has already taken over.
--
-- A slot has a capacity: it is busy when that many appointments occupy it, and free below.
--
-- Locks are taken in one order: the appointment that is written, the turn at its practitioners, holds that are over,
-- schedules, slots; each by id.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

alter table appointments add column hold_expires_at timestamptz;
alter table slots
    add column capacity integer not null default 1,
    add constraint slots_capacity_check check (capacity between 1 and 10000);
alter table provider_times add column slot_id uuid;

comment on column appointments.hold_expires_at is 'until when a pending appointment is held; null for what is no hold';
comment on column slots.capacity is 'how many appointments may occupy the slot at once';
comment on column provider_times.slot_id is 'the shared slot whose appointments may overlap each other; else null';

create index ix_appointments_hold_slot on appointments (tenant_id, slot_id) where hold_expires_at is not null;
create index ix_appointments_search_hold on appointments (tenant_id, hold_expires_at, id)
    where hold_expires_at is not null;

-- The appointments of one shared slot are one group: they differ from every row but each other, as rows that were
-- allowed to overlap do. An appointment in several shared slots has a row for each.
alter table provider_times drop constraint provider_times_pkey;
create index ix_provider_times_appointment on provider_times (tenant_id, appointment_id);
alter table provider_times drop constraint provider_times_no_overlap;
alter table provider_times add constraint provider_times_no_overlap exclude using gist (
    tenant_id with =,
    provider_id with =,
    tstzrange(start_at, end_at) with &&,
    coalesce(grandfathered, slot_id, appointment_id) with <>
);

-- How many appointments occupy a slot, besides one of them (null: all); held are those that may end by the clock. Runs
-- inside the triggers only and inherits their rights and their search path.
create function fhir_sched_occupants(
    tenant uuid, slot uuid, besides uuid, out booked integer, out held integer
)
language plpgsql
as $$
declare
    moment constant timestamptz := clock_timestamp();
begin
    -- Offset 0 and no join: a plan that a session makes while the tables are small goes on being used, and must not
    -- be one that reads a tenant's appointments by their status.
    select count(*), count(o.hold_expires_at)
    into booked, held
    from (
        (
            select a.status, a.hold_expires_at
            from appointments a
            where a.tenant_id = tenant
              and a.slot_id = slot
              and a.id is distinct from besides
            offset 0
        )
        union all
        select 'booked', (select a.hold_expires_at from appointments a where a.id = x.appointment_id)
        from extra_slots x
        where x.tenant_id = tenant
          and x.slot_id = slot
          and x.occupies
          and x.appointment_id is distinct from besides
    ) o
    where o.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
      and (o.hold_expires_at is null or o.hold_expires_at > moment);
end
$$;

-- Of these holds, those that are over become cancelled, which frees what they occupied. `wanted` are slots that the
-- transaction is going to lock besides: all are locked now, in one order. Answers how many lapsed.
create function fhir_sched_lapse(tenant uuid, holds uuid[], wanted uuid[]) returns integer
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    -- Waits for whoever is just confirming one, and then sees that it is no hold any more.
    lapsed constant uuid[] := array(
        select a.id
        from appointments a
        where a.tenant_id = tenant
          and a.id = any (holds)
          and a.status = 'pending'
          and a.hold_expires_at <= clock_timestamp()
        order by a.id
        for no key update
    );
    concerned uuid[];
begin
    if lapsed = '{}' then
        return 0;
    end if;
    concerned := wanted || array(
        select unnest(a.slot_id || a.extra_slot_ids)
        from appointments a
        where a.tenant_id = tenant
          and a.id = any (lapsed)
    );
    perform
    from schedules c
    where c.tenant_id = tenant
      and c.id in (select s.schedule_id from slots s where s.tenant_id = tenant and s.id = any (concerned))
    order by c.id
    for key share;
    perform
    from slots s
    where s.tenant_id = tenant
      and s.id = any (concerned)
    order by s.id
    for no key update;
    update appointments a
    set status = 'cancelled', cancel_reason = 'hold expired'
    where a.tenant_id = tenant
      and a.id = any (lapsed);
    return cardinality(lapsed);
end
$$;

-- Lets lapse what is over on these slots; with null, what is over in the whole tenant, at most a hundred at once and
-- none that somebody is just working on. For jobs that offer slots, and for the one that cleans up.
create function fhir_sched_lapse_holds(tenant uuid, slot_ids uuid[]) returns integer
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    moment constant timestamptz := clock_timestamp();
begin
    if slot_ids is null then
        return fhir_sched_lapse(
            tenant,
            array(
                select a.id
                from appointments a
                where a.tenant_id = tenant
                  and a.hold_expires_at <= moment
                order by a.hold_expires_at
                limit 100
                for no key update skip locked
            ),
            '{}'
        );
    end if;
    return fhir_sched_lapse(
        tenant,
        array(
            select a.id
            from appointments a
            where a.tenant_id = tenant
              and a.slot_id = any (slot_ids)
              and a.hold_expires_at <= moment
            union
            select a.id
            from extra_slots x
            join appointments a on a.tenant_id = x.tenant_id and a.id = x.appointment_id
            where x.tenant_id = tenant
              and x.slot_id = any (slot_ids)
              and a.hold_expires_at <= moment
        ),
        slot_ids
    );
end
$$;

-- The tenants that have holds which are over: a job for all tenants asks this, and then works tenant by tenant.
create function fhir_sched_tenants_with_expired_holds() returns setof uuid
language sql volatile security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select distinct a.tenant_id from appointments a where a.hold_expires_at <= clock_timestamp()
$$;

-- What is no longer pending is no hold. A hold that is over can only be given up: it can't be confirmed, renewed or
-- moved, since its time may have been promised to another.
create function fhir_sched_hold_changed() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if tg_op = 'UPDATE'
        and old.status = 'pending'
        and old.hold_expires_at <= clock_timestamp()
        and (
            new.status in ('booked', 'arrived', 'fulfilled', 'noshow')
            or new.status = 'pending' and (
                new.hold_expires_at, new.slot_id, new.extra_slot_ids, new.start_at, new.end_at, new.provider_id,
                new.extra_provider_ids
            ) is distinct from (
                old.hold_expires_at, old.slot_id, old.extra_slot_ids, old.start_at, old.end_at, old.provider_id,
                old.extra_provider_ids
            )
        ) then
        raise exception using
            errcode = 'exclusion_violation',
            constraint = 'hold_expired',
            table = 'appointments',
            message = 'a hold that is over cannot be confirmed, renewed or moved';
    end if;
    if new.status <> 'pending' then
        new.hold_expires_at := null;
    end if;
    return new;
end
$$;

create trigger appointments_12_hold_inserted
    before insert on appointments
    for each row
    when (new.hold_expires_at is not null and new.status <> 'pending')
    execute function fhir_sched_hold_changed();
create trigger appointments_12_hold_changed
    before update on appointments
    for each row
    when (old.hold_expires_at is not null or new.hold_expires_at is not null)
    execute function fhir_sched_hold_changed();

-- Trigger functions belong to the role without a login and are nobody's to call; what a job calls, the server may.
do $$
declare
    ours regprocedure;
begin
    for ours in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
          and p.proname in (
              'fhir_sched_occupants',
              'fhir_sched_lapse',
              'fhir_sched_lapse_holds',
              'fhir_sched_hold_changed',
              'fhir_sched_tenants_with_expired_holds'
          )
    loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    grant execute on function
        fhir_sched_lapse(uuid, uuid[], uuid[]), fhir_sched_lapse_holds(uuid, uuid[]),
        fhir_sched_tenants_with_expired_holds()
        to fhir_sched_app;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
