-- What an appointment occupies follows its row: the slots it names and the time of its practitioners.
--
-- The triggers fire after the row is written, so a look at the appointments sees every row of the statement.

create function fhir_sched_occupy() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    before boolean := false;
    after boolean := false;
    had uuid[] := '{}';
    has uuid[] := '{}';
    promised uuid[] := '{}';
    moved boolean := true;
    provider uuid;
    providers uuid[];
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
    end if;
    if tg_op <> 'INSERT' and old.extra_slot_ids is not null then
        delete from extra_slots
        where tenant_id = old.tenant_id
          and appointment_id = old.id;
    end if;
    if tg_op <> 'DELETE' and new.extra_slot_ids is not null then
        perform fhir_sched_require_slots(new.tenant_id, new.extra_slot_ids);
        insert into extra_slots (tenant_id, slot_id, appointment_id, occupies)
        select distinct new.tenant_id, id, new.id, after
        from unnest(new.extra_slot_ids) as id
        where id is not null;
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
        providers := array(
            select distinct p
            from unnest(new.provider_id || new.extra_provider_ids) as p
            where p is not null
            order by p
        );
        if current_setting('app.writer', true) = 'fhir' then
            -- The API takes its turn at the practitioner: two that insert at once would wait for each other.
            foreach provider in array providers loop
                perform pg_advisory_xact_lock(hashtextextended('provider_times' || new.tenant_id || provider, 0));
            end loop;
        end if;
        insert into provider_times (tenant_id, appointment_id, provider_id, start_at, end_at)
        select new.tenant_id, new.id, p, new.start_at, new.end_at
        from unnest(providers) as p;
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
    when (
        old.extra_slot_ids is not null
        or old.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
    )
    execute function fhir_sched_occupy();
