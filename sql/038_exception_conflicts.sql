-- A schedule exception names the appointments that it covers.
--
-- The appointments that were booked under an exception when it was written or moved. They stay as they are: somebody
-- has to call the patients. Kept by trigger, whoever writes.
alter table schedule_exceptions add column conflicts uuid[];
comment on column schedule_exceptions.conflicts is
    'appointments, still to take place, that the exception covered when it was written or moved; null for none';

-- Bookings on their way hold their slots: whoever waits for those sees their appointments, and who comes later finds the
-- slots blocked. The schedule is locked already.
create function fhir_sched_exception_conflicts() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    covered tstzrange;
    slot_ids uuid[];
begin
    if tg_op = 'UPDATE' and (new.tenant_id, new.schedule_id, new.start_at, new.end_at)
        is not distinct from (old.tenant_id, old.schedule_id, old.start_at, old.end_at) then
        new.conflicts := old.conflicts;
        return new;
    end if;
    new.conflicts := null;
    if new.start_at >= new.end_at then
        return new;
    end if;
    covered := tstzrange(new.start_at, new.end_at);
    slot_ids := array(
        select s.id
        from slots s
        where s.tenant_id = new.tenant_id
          and s.schedule_id = new.schedule_id
          and tstzrange(s.start_at, s.end_at) && covered
          and s.status in ('free', 'busy')
          and s.start_at < s.end_at
    );
    perform
    from slots s
    where s.tenant_id = new.tenant_id
      and s.id = any (slot_ids)
      and s.status = 'free'
    order by s.id
    for no key update;
    select array_agg(a.id order by a.sort_at, a.id)
    into new.conflicts
    from appointments a
    where a.tenant_id = new.tenant_id
      and a.status in ('pending', 'booked', 'arrived')
      and (a.hold_expires_at is null or a.hold_expires_at > clock_timestamp())
      and a.id in (
          select b.id
          from appointments b
          where b.tenant_id = new.tenant_id
            and b.slot_id = any (slot_ids)
          union all
          select x.appointment_id
          from extra_slots x
          where x.tenant_id = new.tenant_id
            and x.slot_id = any (slot_ids)
          union all
          -- without a slot of the schedule, or in one that is out of service; none lasts for more than a month
          select b.id
          from appointments b
          where b.tenant_id = new.tenant_id
            and b.schedule_id = new.schedule_id
            and b.sort_at > new.start_at - interval '31 days'
            and b.sort_at < new.end_at
            and b.end_at > new.start_at
      );
    return new;
end
$$;
create trigger schedule_exceptions_20_conflicts
    before insert or update on schedule_exceptions
    for each row
    execute function fhir_sched_exception_conflicts();

create function fhir_sched_announce_conflict() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    select c.tenant_id, c.id, 'schedule.conflict',
           jsonb_build_object(
               'tenant_id', c.tenant_id, 'id', c.id, 'version', c.version, 'row', to_jsonb(c),
               'exception', to_jsonb(new), 'appointments', to_jsonb(new.conflicts)
           ),
           clock_timestamp()
    from schedules c
    where c.tenant_id = new.tenant_id
      and c.id = new.schedule_id;
    return null;
end
$$;
create trigger schedule_exceptions_65_conflict_insert
    after insert on schedule_exceptions
    for each row
    when (new.conflicts is not null)
    execute function fhir_sched_announce_conflict();
create trigger schedule_exceptions_65_conflict_update
    after update on schedule_exceptions
    for each row
    when (
        new.conflicts is not null
        and (
            new.schedule_id is distinct from old.schedule_id
            or new.start_at is distinct from old.start_at
            or new.end_at is distinct from old.end_at
        )
    )
    execute function fhir_sched_announce_conflict();

-- As in 014: what acts for every writer belongs to the role without a login, and is nobody's to call.
do $$
declare
    ours text;
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    if plain_owner then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
    foreach ours in array array[
        'fhir_sched_exception_conflicts()',
        'fhir_sched_announce_conflict()'
    ] loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
