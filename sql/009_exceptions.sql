-- A slot under a schedule exception is not free, in whichever order and by whichever program the two are written;
-- and a slot that an appointment occupies does not become free.
--
-- The schedule's row is the meeting point: whoever writes an exception holds it for update, whoever writes a slot that
-- takes part in its time (free or busy) holds it for key share, and looks only when it holds it. So of two
-- transactions at the same time one sees what the other wrote. Schedules are locked before slots, slots by id.
--
-- Two transactions that insert overlapping rows at once can wait for each other in an exclusion constraint. The API
-- (app.writer = 'fhir') therefore takes its turn at the schedule. Other programs, which may fill many schedules in one
-- transaction, share it: a queue would give them deadlocks that they never had.

create function fhir_sched_slot_inserted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    new.grandfathered := null;
    new.version := coalesce(
        (
            select max(h.version) + 1
            from history h
            where h.tenant_id = new.tenant_id
              and h.table_name = 'slots'
              and h.id = new.id
              and h.deleted
        ),
        new.version
    );
    if new.status in ('free', 'busy') then
        if current_setting('app.writer', true) = 'fhir' then
            perform from schedules where id = new.schedule_id and tenant_id = new.tenant_id for no key update;
        else
            perform from schedules where id = new.schedule_id and tenant_id = new.tenant_id for key share;
        end if;
        new.excepted := false;
        if new.status = 'free' and exists (
            select
            from schedule_exceptions e
            where e.tenant_id = new.tenant_id
              and e.schedule_id = new.schedule_id
              and e.start_at < new.end_at
              and e.end_at > new.start_at
              and e.start_at < e.end_at
        ) then
            new.status := 'blocked';
            new.excepted := true;
        end if;
    elsif new.status <> 'blocked' then
        new.excepted := false;
    end if;
    return new;
end
$$;

create function fhir_sched_slot_changed() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    moved constant boolean := (new.schedule_id, new.start_at, new.end_at)
        is distinct from (old.schedule_id, old.start_at, old.end_at);
begin
    if moved or old.status not in ('free', 'busy') then
        new.grandfathered := null;
    end if;
    if new.status = 'free' and old.status <> 'free' and (
        exists (
            select
            from appointments a
            where a.tenant_id = new.tenant_id
              and a.slot_id = new.id
              and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
        ) or exists (
            select
            from extra_slots x
            where x.tenant_id = new.tenant_id
              and x.slot_id = new.id
              and x.occupies
        )
    ) then
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

create trigger slots_10_inserted
    before insert on slots
    for each row
    execute function fhir_sched_slot_inserted();
-- Not for what happens most, a free slot that is taken.
create trigger slots_20_changed
    before update on slots
    for each row
    when (
        new.excepted
        or old.grandfathered is not null
        or (new.status = 'free' and old.status is distinct from new.status)
        or (new.status in ('free', 'busy') and (
            new.schedule_id is distinct from old.schedule_id
            or new.start_at is distinct from old.start_at
            or new.end_at is distinct from old.end_at
        ))
    )
    execute function fhir_sched_slot_changed();

-- Before the exception's own foreign key shares the schedule: two that share it and both want it alone would block
-- each other.
create function fhir_sched_exception_lock() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if tg_op = 'INSERT' then
        perform from schedules where id = new.schedule_id and tenant_id = new.tenant_id for update;
        return new;
    elsif tg_op = 'DELETE' then
        perform from schedules where id = old.schedule_id and tenant_id = old.tenant_id for update;
        return old;
    end if;
    perform from schedules where id in (old.schedule_id, new.schedule_id) order by id for update;
    return new;
end
$$;

-- Free slots in the window become blocked. Busy ones and their appointments stay.
create function fhir_sched_block_slots(tenant uuid, schedule uuid, from_at timestamptz, to_at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    covered constant uuid[] := array(
        select s.id
        from slots s
        where s.tenant_id = tenant
          and s.schedule_id = schedule
          and s.status = 'free'
          and s.start_at < to_at
          and s.end_at > from_at
          and from_at < to_at
        order by s.id
        for no key update
    );
begin
    update slots
    set status = 'blocked', excepted = true
    where tenant_id = tenant
      and id = any (covered)
      and status = 'free';
end
$$;

-- Slots that only an exception blocked become free where none covers them any more. One whose time another slot has
-- taken meanwhile stays blocked for good: it would overlap.
create function fhir_sched_free_slots(tenant uuid, schedule uuid, from_at timestamptz, to_at timestamptz) returns void
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
            ) or exists (
                select
                from appointments a
                where a.tenant_id = s.tenant_id
                  and a.slot_id = s.id
                  and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
            ) then 'blocked' else 'free' end
        where s.tenant_id = tenant
          and s.id = uncovered;
    end loop;
end
$$;

create function fhir_sched_exception_written() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if tg_op <> 'DELETE' then
        perform fhir_sched_block_slots(new.tenant_id, new.schedule_id, new.start_at, new.end_at);
    end if;
    if tg_op <> 'INSERT' then
        perform fhir_sched_free_slots(old.tenant_id, old.schedule_id, old.start_at, old.end_at);
    end if;
    return null;
end
$$;

create trigger schedule_exceptions_05_lock
    before insert or update or delete on schedule_exceptions
    for each row
    execute function fhir_sched_exception_lock();
create trigger schedule_exceptions_60_insert_delete
    after insert or delete on schedule_exceptions
    for each row
    execute function fhir_sched_exception_written();
create trigger schedule_exceptions_60_update
    after update on schedule_exceptions
    for each row
    when (
        new.schedule_id is distinct from old.schedule_id
        or new.start_at is distinct from old.start_at
        or new.end_at is distinct from old.end_at
    )
    execute function fhir_sched_exception_written();
