-- A slot with room left is not occupied: what becomes free, and what a change of capacity does.
--
-- Replaces fhir_sched_slot_changed and fhir_sched_free_slots of 009, which asked whether anybody occupies a slot and now
-- ask whether all its room is taken; an appointment whose hold is over takes none.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

create or replace function fhir_sched_slot_changed() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    moved constant boolean := (new.schedule_id, new.start_at, new.end_at)
        is distinct from (old.schedule_id, old.start_at, old.end_at);
    booked integer := 0;
begin
    if moved or old.status not in ('free', 'busy') then
        new.grandfathered := null;
    end if;
    if new.capacity <> old.capacity or (new.status = 'free' and old.status <> 'free') then
        booked := (select n.booked from fhir_sched_occupants(new.tenant_id, new.id, null) n);
    end if;
    if new.capacity <> old.capacity then
        if booked > new.capacity then
            raise exception using
                errcode = 'exclusion_violation',
                constraint = 'slot_capacity',
                table = 'slots',
                message = 'more appointments occupy a slot than its capacity would be',
                detail = 'slt-' || new.id;
        end if;
        if new.status = old.status and new.status = 'free' and booked = new.capacity then
            new.status := 'busy';
        elsif new.status = old.status and new.status = 'busy' and booked >= old.capacity and booked < new.capacity then
            new.status := 'free';
        end if;
    end if;
    if new.status = 'free' and old.status <> 'free' and booked >= new.capacity then
        if current_setting('app.writer', true) = 'fhir' then
            raise exception using
                errcode = 'exclusion_violation',
                constraint = 'slot_occupied',
                table = 'slots',
                message = 'a slot that an appointment occupies cannot be free',
                detail = 'slt-' || new.id;
        end if;
        -- Another program frees the slot and then cancels the appointment: the cancel frees it.
        new.status := old.status;
        new.excepted := old.excepted;
    end if;
    if new.status in ('free', 'busy') or new.excepted then
        if moved and current_setting('app.writer', true) = 'fhir' then
            perform from schedules where id = new.schedule_id and tenant_id = new.tenant_id for no key update;
        elsif moved or new.status = 'free' then
            perform from schedules where id = new.schedule_id and tenant_id = new.tenant_id for key share;
        end if;
    end if;
    if new.status = 'free' or (moved and new.excepted and new.status = 'blocked') then
        new.excepted := exists (
            select
            from schedule_exceptions e
            where e.tenant_id = new.tenant_id
              and e.schedule_id = new.schedule_id
              and e.start_at < new.end_at
              and e.end_at > new.start_at
              and e.start_at < e.end_at
        );
        new.status := case when new.excepted then 'blocked' else 'free' end;
    elsif new.status <> 'blocked' then
        new.excepted := false;
    end if;
    return new;
end
$$;

drop trigger slots_20_changed on slots;
create trigger slots_20_changed
    before update on slots
    for each row
    when (
        new.excepted
        or old.grandfathered is not null
        or new.capacity <> old.capacity
        or (new.status = 'free' and old.status is distinct from new.status)
        or (new.status in ('free', 'busy') and (
            new.schedule_id is distinct from old.schedule_id
            or new.start_at is distinct from old.start_at
            or new.end_at is distinct from old.end_at
        ))
    )
    execute function fhir_sched_slot_changed();

-- Who was alone in a slot joins the group of those who will share it.
create function fhir_sched_slot_shared() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    update provider_times p
    set slot_id = new.id
    from appointments a
    where a.tenant_id = new.tenant_id
      and a.slot_id = new.id
      and a.extra_slot_ids is null
      and p.tenant_id = a.tenant_id
      and p.appointment_id = a.id;
    return null;
end
$$;

create trigger slots_60_shared
    after update on slots
    for each row
    when (new.capacity > 1 and old.capacity = 1)
    execute function fhir_sched_slot_shared();

create or replace function fhir_sched_free_slots(
    tenant uuid, schedule uuid, from_at timestamptz, to_at timestamptz
) returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    uncovered uuid;
begin
    for uncovered in
        select s.id
        from slots s
        where s.tenant_id = tenant
          and s.schedule_id = schedule
          and s.excepted
          and s.status = 'blocked'
          and s.start_at < to_at
          and s.end_at > from_at
          and not exists (
              select
              from schedule_exceptions e
              where e.tenant_id = s.tenant_id
                and e.schedule_id = s.schedule_id
                and e.start_at < s.end_at
                and e.end_at > s.start_at
                and e.start_at < e.end_at
          )
        order by s.id
        for no key update
    loop
        update slots s
        set excepted = false,
            status = case when exists (
                select
                from slots o
                where o.tenant_id = s.tenant_id
                  and o.schedule_id = s.schedule_id
                  and o.id <> s.id
                  and o.status in ('free', 'busy')
                  and o.start_at < s.end_at
                  and o.end_at > s.start_at
            ) or (select n.booked from fhir_sched_occupants(tenant, s.id, null) n) >= s.capacity
            then 'blocked' else 'free' end
        where s.tenant_id = tenant
          and s.id = uncovered;
    end loop;
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
              'fhir_sched_slot_shared'
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
