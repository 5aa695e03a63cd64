-- How slots are taken and given back.
--
-- pending, booked, arrived, fulfilled and noshow occupy; the other statuses do not. The slots' rows are locked in the
-- order of their ids before anything is looked at, so however many transactions want one slot, each sees what the one
-- before it did, and two that want each other's slots wait in line.

-- Slots beyond the first, one row each. An array has no foreign key, and its index serves no cheap look from the slot's
-- side. Derived: only the triggers on appointments write it.
create table extra_slots (
    tenant_id uuid not null,
    slot_id uuid not null,
    appointment_id uuid not null,
    occupies boolean not null,
    primary key (tenant_id, slot_id, appointment_id),
    constraint appointments_extra_slots_fk foreign key (tenant_id, slot_id) references slots (tenant_id, id)
);
create index ix_extra_slots_appointment on extra_slots (tenant_id, appointment_id);

alter table extra_slots enable row level security;
create policy extra_slots_tenant_isolation on extra_slots
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy extra_slots_trigger on extra_slots
    to fhir_sched_trigger using (true) with check (true);
grant select, insert, update, delete on extra_slots to fhir_sched_trigger;
grant select on extra_slots to fhir_sched_app;

create function fhir_sched_appointment_inserted() returns trigger
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
              and h.table_name = 'appointments'
              and h.id = new.id
              and h.deleted
        ),
        new.version
    );
    if new.schedule_id is null and new.slot_id is not null then
        new.schedule_id := (select s.schedule_id from slots s where s.id = new.slot_id and s.tenant_id = new.tenant_id);
    end if;
    return new;
end
$$;

-- A program that names another slot knows one slot and its own idea of the schedule: slots beyond the first go, and
-- a schedule that it left as it was follows the slot.
create function fhir_sched_appointment_slot_changed() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if new.schedule_id is not distinct from old.schedule_id and new.slot_id is not null then
        new.schedule_id := coalesce(
            (select s.schedule_id from slots s where s.id = new.slot_id and s.tenant_id = new.tenant_id),
            new.schedule_id
        );
    end if;
    if new.extra_slot_ids is not distinct from old.extra_slot_ids
        and new.fhir is not distinct from old.fhir
        and current_setting('app.writer', true) is distinct from 'fhir' then
        new.extra_slot_ids := null;
    end if;
    return new;
end
$$;

create trigger appointments_10_inserted
    before insert on appointments
    for each row
    execute function fhir_sched_appointment_inserted();
create trigger appointments_20_slot_changed
    before update on appointments
    for each row
    when (new.slot_id is distinct from old.slot_id)
    execute function fhir_sched_appointment_slot_changed();

-- The functions below run inside the triggers only and inherit their rights and their search path.
create function fhir_sched_refuse_slots(rule text, code text, said text, slot_ids uuid[]) returns void
language plpgsql
as $$
begin
    raise exception using
        errcode = code,
        constraint = rule,
        table = 'appointments',
        message = said,
        detail = (select string_agg('slt-' || id, ' ') from unnest(slot_ids) as id);
end
$$;

-- Of these slots, those that are not there are refused, by the ids that a client knows.
create function fhir_sched_require_slots(tenant uuid, slot_ids uuid[]) returns void
language plpgsql
as $$
declare
    missing uuid[];
begin
    missing := array(
        select id from unnest(slot_ids) as id where id is not null
        except
        select s.id from slots s where s.tenant_id = tenant and s.id = any (slot_ids)
    );
    if missing <> '{}' then
        perform fhir_sched_refuse_slots(
            'appointment_slot_missing', '23503', 'an appointment names a slot that is not there', missing
        );
    end if;
end
$$;

-- Takes the gained slots for the appointment and gives back the lost ones that nobody else holds, all or nothing.
-- shared: the appointment allows double booking. promised: slots that it named before, while proposed or pending.
--
-- Other programs set a slot busy and then insert its appointment, so for them a busy slot that nobody holds is
-- theirs to take; for the API it is taken, unless it was kept (busy-tentative) for this appointment.
create function fhir_sched_exchange_slots(
    tenant uuid, appointment uuid, gained uuid[], lost uuid[], shared boolean, promised uuid[]
) returns void
language plpgsql
as $$
declare
    slot record;
    held boolean;
    seen integer := 0;
    blocked uuid[];
    taken uuid[];
    take uuid[];
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
        select s.id, s.schedule_id, s.status, s.fhir_status, s.start_at, s.end_at
        from slots s
        where s.tenant_id = tenant
          and s.id = any (gained || lost)
        order by s.id
        for no key update
    loop
        continue when slot.id <> all (gained);
        seen := seen + 1;
        held := exists (
            select
            from appointments a
            where a.tenant_id = tenant
              and a.slot_id = slot.id
              and a.id <> appointment
              and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
        ) or exists (
            select
            from extra_slots x
            where x.tenant_id = tenant
              and x.slot_id = slot.id
              and x.appointment_id <> appointment
              and x.occupies
        );
        if slot.status not in ('free', 'busy') then
            blocked := blocked || slot.id;
        elsif held and not shared then
            taken := taken || slot.id;
        elsif slot.status = 'free' then
            take := take || slot.id;
        elsif not held
            and not open_to_busy
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
            elsif slot.fhir_status = 'busy-tentative' then
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
    if lost <> '{}' then
        update slots s
        set status = 'free'
        where s.tenant_id = tenant
          and s.id = any (lost)
          and s.status = 'busy'
          and not exists (
              select
              from appointments a
              where a.tenant_id = tenant
                and a.slot_id = s.id
                and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
          )
          and not exists (
              select
              from extra_slots x
              where x.tenant_id = tenant
                and x.slot_id = s.id
                and x.occupies
          );
    end if;
end
$$;
