-- Appointments take and free their slots and their practitioners' time, whichever program writes them.
--
-- pending, booked, arrived, fulfilled and noshow occupy; the other statuses do not. The slots' rows are locked in the
-- order of their ids before anything is looked at, so however many transactions want one slot, each sees what the one
-- before it did; two that want each other's slots wait in line.

create index ix_appointments_extra_slots on appointments using gin (extra_slot_ids) where extra_slot_ids is not null;

create function fhir_sched_appointment_inserted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
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

-- No foreign key can stand behind an array: of these slots, those that are not there are refused.
create function fhir_sched_require_slots(tenant uuid, slot_ids uuid[]) returns void
language plpgsql
as $$
declare
    missing uuid[];
begin
    perform from slots s where s.tenant_id = tenant and s.id = any (slot_ids) order by s.id for key share;
    missing := array(
        select id from unnest(slot_ids) as id
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
            from appointments a
            where a.tenant_id = tenant
              and a.extra_slot_ids @> array[slot.id]
              and a.id <> appointment
              and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
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
              from appointments a
              where a.tenant_id = tenant
                and a.extra_slot_ids @> array[s.id]
                and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
          );
    end if;
end
$$;

create function fhir_sched_occupy() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    before boolean := false;
    after boolean := false;
    had uuid[] := '{}';
    has uuid[] := '{}';
    promised uuid[] := '{}';
    moved boolean := true;
    provider uuid;
begin
    if tg_op <> 'INSERT' then
        before := old.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow');
    end if;
    if tg_op <> 'DELETE' then
        after := new.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow');
    end if;

    if before then
        had := array_remove(old.slot_id || old.extra_slot_ids, null);
    end if;
    if after then
        has := array_remove(new.slot_id || new.extra_slot_ids, null);
    elsif tg_op <> 'DELETE' and new.extra_slot_ids is not null then
        perform fhir_sched_require_slots(new.tenant_id, new.extra_slot_ids);
    end if;
    if has is distinct from had or (tg_op = 'UPDATE' and new.tenant_id <> old.tenant_id) then
        if tg_op = 'UPDATE' and old.status in ('proposed', 'pending') then
            promised := array_remove(old.slot_id || old.extra_slot_ids, null);
        end if;
        if tg_op = 'INSERT' or (tg_op = 'UPDATE' and had = '{}') then
            perform fhir_sched_exchange_slots(
                new.tenant_id, new.id, has, '{}', new.allow_double_booking, promised
            );
        elsif tg_op = 'DELETE' then
            perform fhir_sched_exchange_slots(old.tenant_id, old.id, '{}', had, false, promised);
        elsif new.tenant_id <> old.tenant_id then
            perform fhir_sched_exchange_slots(old.tenant_id, old.id, '{}', had, false, promised);
            perform fhir_sched_exchange_slots(
                new.tenant_id, new.id, has, '{}', new.allow_double_booking, promised
            );
        else
            perform fhir_sched_exchange_slots(
                new.tenant_id,
                new.id,
                array(select unnest(has) except select unnest(had)),
                array(select unnest(had) except select unnest(has)),
                new.allow_double_booking,
                promised
            );
        end if;
    end if;

    -- The practitioners' time. Rows that stay as they are are not touched: they may overlap from before it was
    -- forbidden.
    if tg_op = 'UPDATE' then
        moved := (
            after, new.tenant_id, new.id, new.provider_id, new.extra_provider_ids, new.start_at, new.end_at,
            new.allow_double_booking
        ) is distinct from (
            before, old.tenant_id, old.id, old.provider_id, old.extra_provider_ids, old.start_at, old.end_at,
            old.allow_double_booking
        );
    end if;
    if before and moved then
        delete from provider_times
        where tenant_id = old.tenant_id
          and appointment_id = old.id;
    end if;
    if after
        and moved
        and not new.allow_double_booking
        and new.start_at < new.end_at
        and (new.provider_id is not null or new.extra_provider_ids is not null) then
        if current_setting('app.writer', true) = 'fhir' then
            -- The API takes its turn at the practitioner: two that insert at once would wait for each other.
            for provider in
                select distinct p
                from unnest(new.provider_id || new.extra_provider_ids) as p
                where p is not null
                order by p
            loop
                perform pg_advisory_xact_lock(hashtextextended('provider_times' || new.tenant_id || provider, 0));
            end loop;
        end if;
        insert into provider_times (tenant_id, appointment_id, provider_id, start_at, end_at)
        select distinct new.tenant_id, new.id, p, new.start_at, new.end_at
        from unnest(new.provider_id || new.extra_provider_ids) as p
        where p is not null;
    end if;
    return null;
end
$$;

create trigger appointments_60_occupy_insert
    after insert on appointments
    for each row
    when (
        new.extra_slot_ids is not null
        or (
            new.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
            and (new.slot_id is not null or new.provider_id is not null or new.extra_provider_ids is not null)
        )
    )
    execute function fhir_sched_occupy();
create trigger appointments_60_occupy_update
    after update on appointments
    for each row
    when (
        new.status is distinct from old.status
        or new.slot_id is distinct from old.slot_id
        or new.extra_slot_ids is distinct from old.extra_slot_ids
        or new.provider_id is distinct from old.provider_id
        or new.extra_provider_ids is distinct from old.extra_provider_ids
        or new.start_at is distinct from old.start_at
        or new.end_at is distinct from old.end_at
        or new.allow_double_booking is distinct from old.allow_double_booking
        or new.id is distinct from old.id
        or new.tenant_id is distinct from old.tenant_id
    )
    execute function fhir_sched_occupy();
create trigger appointments_60_occupy_delete
    after delete on appointments
    for each row
    when (old.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow'))
    execute function fhir_sched_occupy();

-- The other side of an array that no foreign key stands behind.
create function fhir_sched_slot_deleted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if exists (
        select
        from appointments a
        where a.tenant_id = old.tenant_id
          and a.extra_slot_ids @> array[old.id]
    ) then
        perform fhir_sched_refuse_slots(
            'appointments_extra_slots_fk', '23503', 'an appointment names the slot', array[old.id]
        );
    end if;
    return old;
end
$$;

create trigger slots_20_deleted
    before delete on slots
    for each row
    execute function fhir_sched_slot_deleted();
