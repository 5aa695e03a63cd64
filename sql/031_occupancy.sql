-- What an appointment occupies follows its row, with holds that end and slots that are shared.
--
-- Replaces fhir_sched_occupy of 011: it lets holds lapse that are over before it takes anything, tells the slots whose
-- hold they are, and puts the appointments of a shared slot into one group of the practitioner's time.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

create or replace function fhir_sched_occupy() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    before boolean := false;
    after boolean := false;
    had uuid[] := '{}';
    has uuid[] := '{}';
    gained uuid[] := '{}';
    lost uuid[] := '{}';
    promised uuid[] := '{}';
    cleared uuid[] := '{}';
    moved boolean := true;
    elsewhere boolean := false;
    provider uuid;
    providers uuid[] := '{}';
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
    if tg_op = 'UPDATE' then
        elsewhere := new.tenant_id <> old.tenant_id;
        -- Rows that stay as they are are not touched: they may overlap from before it was forbidden.
        moved := (
            after, has, new.tenant_id, new.id, new.provider_id, new.extra_provider_ids, new.start_at, new.end_at,
            new.allow_double_booking
        ) is distinct from (
            before, had, old.tenant_id, old.id, old.provider_id, old.extra_provider_ids, old.start_at, old.end_at,
            old.allow_double_booking
        );
    end if;
    if had = '{}' or elsewhere then
        gained := has;
        lost := had;
    elsif has = '{}' then
        lost := had;
    elsif has is distinct from had then
        gained := array(select unnest(has) except select unnest(had));
        lost := array(select unnest(had) except select unnest(has));
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
    end if;
    if providers <> '{}' and current_setting('app.writer', true) = 'fhir' then
        -- The API takes its turn at the practitioner: two that insert at once would wait for each other. Before any of
        -- his times are taken away, here or with a hold: whoever has the turn would wait for what is being removed by
        -- the one who waits for the turn.
        foreach provider in array providers loop
            perform pg_advisory_xact_lock(hashtextextended('provider_times' || new.tenant_id || provider, 0));
        end loop;
    end if;
    if after and (gained <> '{}' or providers <> '{}') then
        cleared := fhir_sched_clear_way(new.tenant_id, new.id, gained, providers, new.start_at, new.end_at);
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
    if tg_op = 'UPDATE' and old.status in ('proposed', 'pending') then
        promised := array_remove(old.slot_id || old.extra_slot_ids, null);
    end if;
    if tg_op = 'DELETE' or elsewhere then
        perform fhir_sched_exchange_slots(old.tenant_id, old.id, '{}', lost, false, '{}', '{}', false);
        lost := '{}';
    end if;
    if gained <> '{}' or lost <> '{}' then
        perform fhir_sched_exchange_slots(
            new.tenant_id, new.id, gained, lost, new.allow_double_booking, promised, cleared,
            new.hold_expires_at is not null
        );
    end if;
    if tg_op = 'UPDATE' and before and after and has <> '{}'
        and (old.hold_expires_at is null) <> (new.hold_expires_at is null) then
        perform fhir_sched_mark_slots(new.tenant_id, has);
    end if;

    if before and moved then
        delete from provider_times
        where tenant_id = old.tenant_id
          and appointment_id = old.id;
    end if;
    if providers <> '{}' then
        perform fhir_sched_fill_times(new, has, providers);
    end if;
    return null;
end
$$;

drop trigger appointments_60_occupy_update on appointments;
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
        or (new.hold_expires_at is null) <> (old.hold_expires_at is null)
        or new.id is distinct from old.id
        or new.tenant_id is distinct from old.tenant_id
    )
    execute function fhir_sched_occupy();

do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
