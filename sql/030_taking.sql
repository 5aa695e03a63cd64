-- How many may take a slot, and what stands in their way when they do.
--
-- Replaces fhir_sched_exchange_slots of 010, which asked whether anybody occupies a slot and now asks how many do, and
-- marks the slots of holds.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

-- A busy slot says busy-tentative exactly while a hold is among those that occupy it.
create function fhir_sched_mark_slots(tenant uuid, slot_ids uuid[]) returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform from slots s where s.tenant_id = tenant and s.id = any (slot_ids) order by s.id for no key update;
    update slots s
    set fhir = case
        when o.held > 0 then coalesce(s.fhir, '{}') || '{"status": "busy-tentative"}'
        else nullif(s.fhir - 'status', '{}')
    end
    from (
        select x.id, n.booked, n.held
        from slots x
        cross join lateral fhir_sched_occupants(tenant, x.id, null) n
        where x.tenant_id = tenant
          and x.id = any (slot_ids)
          and x.status = 'busy'
    ) o
    where s.tenant_id = tenant
      and s.id = o.id
      and o.booked > 0
      and (s.fhir_status = 'busy-tentative') <> (o.held > 0);
end
$$;

drop function fhir_sched_exchange_slots(uuid, uuid, uuid[], uuid[], boolean, uuid[]);

-- Takes the gained slots for the appointment and gives back the lost ones that have room again, all or nothing.
-- shared: the appointment allows double booking. promised: slots that it named before, while proposed or pending.
-- cleared: slots on which holds have just lapsed for it. hold: the appointment is one.
--
-- Other programs set a slot busy and then insert its appointment, so for them a busy slot with room is theirs to take;
-- for the API it is taken, unless it was kept (busy-tentative) for this appointment.
create function fhir_sched_exchange_slots(
    tenant uuid, appointment uuid, gained uuid[], lost uuid[], shared boolean, promised uuid[], cleared uuid[],
    hold boolean
) returns void
language plpgsql
as $$
declare
    slot record;
    others record;
    fills boolean;
    seen integer := 0;
    blocked uuid[];
    taken uuid[];
    take uuid[];
    keep uuid[];
    open_to_busy constant boolean := shared or current_setting('app.writer', true) is distinct from 'fhir';
begin
    if lost <> '{}' then
        -- A slot that becomes free meets the exceptions of its schedule, and schedules are locked before slots.
        perform
        from schedules c
        where c.tenant_id = tenant
          and c.id in (select s.schedule_id from slots s where s.tenant_id = tenant and s.id = any (lost))
        order by c.id
        for key share;
    end if;
    for slot in
        select s.id, s.schedule_id, s.status, s.fhir_status, s.start_at, s.end_at, s.capacity
        from slots s
        where s.tenant_id = tenant
          and s.id = any (gained || lost)
        order by s.id
        for no key update
    loop
        continue when slot.id <> all (gained);
        seen := seen + 1;
        others := fhir_sched_occupants(tenant, slot.id, appointment);
        fills := others.booked + 1 >= slot.capacity;
        if slot.status not in ('free', 'busy') then
            blocked := blocked || slot.id;
        elsif others.booked >= slot.capacity and not shared then
            taken := taken || slot.id;
        elsif slot.status = 'free' then
            if fills and (hold or others.held > 0) then
                keep := keep || slot.id;
            elsif fills then
                take := take || slot.id;
            end if;
        elsif others.booked < slot.capacity
            and not open_to_busy
            and slot.id <> all (cleared)
            and not (slot.fhir_status = 'busy-tentative' and slot.id = any (promised)) then
            taken := taken || slot.id;
        else
            -- A busy slot does not carry the mark of an exception, so look for one.
            perform from schedules c where c.tenant_id = tenant and c.id = slot.schedule_id for key share;
            if exists (
                select
                from schedule_exceptions e
                where e.tenant_id = tenant
                  and e.schedule_id = slot.schedule_id
                  and e.start_at < slot.end_at
                  and e.end_at > slot.start_at
                  and e.start_at < e.end_at
            ) then
                blocked := blocked || slot.id;
            elsif hold and slot.fhir_status <> 'busy-tentative' then
                keep := keep || slot.id;
            elsif slot.fhir_status = 'busy-tentative' and not hold and others.held = 0 then
                take := take || slot.id;
            end if;
        end if;
    end loop;
    if seen < cardinality(gained) then
        perform fhir_sched_require_slots(tenant, gained);
    end if;
    if blocked is not null then
        perform fhir_sched_refuse_slots('slot_blocked', '23P01', 'a slot is not open for booking', blocked);
    end if;
    if taken is not null then
        perform fhir_sched_refuse_slots('slot_taken', '23P01', 'a slot is taken', taken);
    end if;
    if take is not null then
        update slots s
        set status = 'busy',
            fhir = case when s.fhir_status = 'busy-tentative' then nullif(s.fhir - 'status', '{}') else s.fhir end
        where s.tenant_id = tenant
          and s.id = any (take);
    end if;
    if keep is not null then
        update slots s
        set status = 'busy', fhir = coalesce(s.fhir, '{}') || '{"status": "busy-tentative"}'
        where s.tenant_id = tenant
          and s.id = any (keep);
    end if;
    if lost <> '{}' then
        update slots s
        set status = 'free'
        where s.tenant_id = tenant
          and s.id = any (lost)
          and s.status = 'busy'
          and (select n.booked from fhir_sched_occupants(tenant, s.id, null) n) < s.capacity;
    end if;
end
$$;

-- Lets lapse the holds that are over and stand in the way of these slots, or of these practitioners at that time.
-- Answers the slots on which they were; those stay busy, since the one who wants them is already written.
create function fhir_sched_clear_way(
    tenant uuid, appointment uuid, slot_ids uuid[], providers uuid[], from_at timestamptz, to_at timestamptz
) returns uuid[]
language plpgsql
as $$
declare
    moment constant timestamptz := clock_timestamp();
    over_holds uuid[];
begin
    -- Nearly always there is none, which is a look into an almost empty index.
    if not exists (select from appointments a where a.tenant_id = tenant and a.hold_expires_at <= moment) then
        return '{}';
    end if;
    over_holds := array(
        select a.id
        from appointments a
        where a.tenant_id = tenant
          and a.slot_id = any (slot_ids)
          and a.id <> appointment
          and a.hold_expires_at <= moment
        union
        select a.id
        from extra_slots x
        join appointments a on a.tenant_id = x.tenant_id and a.id = x.appointment_id
        where x.tenant_id = tenant
          and x.slot_id = any (slot_ids)
          and x.appointment_id <> appointment
          and a.hold_expires_at <= moment
        union
        select a.id
        from provider_times p
        join appointments a on a.tenant_id = p.tenant_id and a.id = p.appointment_id
        where p.tenant_id = tenant
          and p.provider_id = any (providers)
          and tstzrange(p.start_at, p.end_at) && tstzrange(from_at, to_at)
          and p.appointment_id <> appointment
          and a.hold_expires_at <= moment
    );
    if over_holds = '{}' or fhir_sched_lapse(tenant, over_holds, slot_ids) = 0 then
        return '{}';
    end if;
    return array(
        select unnest(a.slot_id || a.extra_slot_ids)
        from appointments a
        where a.tenant_id = tenant
          and a.id = any (over_holds)
          and a.status = 'cancelled'
    );
end
$$;

-- The time of an appointment's practitioners. In shared slots alone it is one group with the others of each slot;
-- in several of them, each slot's part of the time is.
create function fhir_sched_fill_times(booked appointments, slot_ids uuid[], providers uuid[]) returns void
language plpgsql
as $$
declare
    shared constant uuid[] := array(
        select s.id
        from slots s
        where s.tenant_id = booked.tenant_id
          and s.id = any (slot_ids)
          and s.capacity > 1
    );
begin
    if cardinality(shared) < 2 or cardinality(shared) < cardinality(slot_ids) then
        insert into provider_times (tenant_id, appointment_id, provider_id, start_at, end_at, slot_id)
        select booked.tenant_id, booked.id, p, booked.start_at, booked.end_at,
               case when cardinality(slot_ids) = 1 then shared[1] end
        from unnest(providers) as p;
        return;
    end if;
    insert into provider_times (tenant_id, appointment_id, provider_id, start_at, end_at, slot_id)
    select booked.tenant_id, booked.id, p, greatest(s.start_at, booked.start_at), least(s.end_at, booked.end_at), s.id
    from unnest(providers) as p
    cross join slots s
    where s.tenant_id = booked.tenant_id
      and s.id = any (shared)
      and greatest(s.start_at, booked.start_at) < least(s.end_at, booked.end_at)
    order by p, s.id;
end
$$;

-- Trigger functions belong to the role without a login and are nobody's to call.
do $$
declare
    ours regprocedure;
begin
    for ours in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
          and p.proname in (
              'fhir_sched_mark_slots',
              'fhir_sched_exchange_slots',
              'fhir_sched_clear_way',
              'fhir_sched_fill_times'
          )
    loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
