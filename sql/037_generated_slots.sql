-- Slots of a schedule that follow its availability rules: made, taken back, given back, in one statement a schedule.

-- Takes back the free slots to come that were generated and are not among the wanted ones, of the days from first to
-- last on the clock of the zone; their number. What is locked here cannot be booked until the end of the transaction,
-- so the look at the appointments holds until then.
--
-- In this function and the next the planner knows the arrays, and a look into them is a look into a hash table. It must
-- not be so where rows are inserted: their triggers would be planned for each row.
create function fhir_sched_withdraw_slots(
    tenant uuid, schedule uuid, zone text, first_day date, last_day date, since timestamptz, wanted uuid[]
) returns integer
language plpgsql
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    found_ids constant uuid[] := array(
        select s.id
        from slots s
        where s.tenant_id = tenant
          and s.schedule_id = schedule
          and s.start_at >= greatest(since, first_day::timestamp at time zone zone - interval '3 hours')
          and s.start_at < (last_day + 1)::timestamp at time zone zone + interval '3 hours'
          and (s.start_at at time zone zone)::date between first_day and last_day
          and s.start_at > now()
          and (s.status = 'free' or (s.status = 'blocked' and s.excepted))
          and s.id = fhir_sched_slot_id(s.schedule_id, s.start_at, s.end_at, s.appointment_type)
          and s.id <> all (wanted)
        order by s.id
        for no key update
    );
    occupied constant uuid[] := array(
        select a.slot_id
        from appointments a
        where a.tenant_id = tenant
          and a.slot_id = any (found_ids)
          and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
        union all
        select x.slot_id
        from extra_slots x
        where x.tenant_id = tenant
          and x.slot_id = any (found_ids)
          and x.occupies
    );
    changed integer := 0;
begin
    if found_ids <> '{}' then
        update slots
        set status = 'entered-in-error', withdrawn = true
        where tenant_id = tenant
          and id = any (found_ids)
          and id <> all (occupied);
        get diagnostics changed = row_count;
    end if;
    return changed;
end
$$;

-- Gives back those of the wanted slots that were withdrawn, where their time is not taken; their number.
create function fhir_sched_revive_slots(
    tenant uuid, schedule uuid, from_at timestamptz, to_at timestamptz, taken tstzmultirange, wanted uuid[]
) returns integer
language plpgsql
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    found_ids constant uuid[] := array(
        select s.id
        from slots s
        where s.tenant_id = tenant
          and s.schedule_id = schedule
          and s.start_at >= from_at
          and s.start_at < to_at
          and s.withdrawn
          and s.status = 'entered-in-error'
          and s.id = any (wanted)
          and not tstzrange(s.start_at, s.end_at) && taken
        order by s.id
        for no key update
    );
    changed integer := 0;
begin
    if found_ids <> '{}' then
        update slots
        set status = 'free'
        where tenant_id = tenant
          and id = any (found_ids);
        get diagnostics changed = row_count;
    end if;
    return changed;
end
$$;

-- Brings the slots of one schedule in line with its rules on the days from first to last, both included, for slots that
-- begin at "since" or later: makes those that are missing, takes back the free ones to come that the rules do not give
-- any more. Slots that somebody made or moved by hand, that are taken or were taken out of service stay as they are.
-- Answers one row, how many were added and how many withdrawn; none where there is no such schedule.
--
-- Raises schedule_inactive, and slots_too_many where the rules give more than at_most slots. Whoever generates for a
-- schedule holds its row, so that of two at once the second finds the work done. The schedule is locked before slots,
-- slots by id; what other programs insert meanwhile is met by the constraints, and wins.
create function fhir_sched_generate_slots(
    tenant uuid, schedule uuid, first_day date, last_day date,
    since timestamptz default '-infinity', at_most integer default null
) returns table (added integer, withdrawn integer)
language plpgsql
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    rules record;
    from_at timestamptz;
    to_at timestamptz;
    ids uuid[];
    starts timestamptz[];
    ends timestamptz[];
    types text[];
    taken tstzmultirange;
    made integer;
    -- Without the clause that lets conflicts pass, which costs a tenth, as long as there is none: rules that overlap, a
    -- generated slot that was moved, something that another program has inserted meanwhile.
    filling constant text := '
        insert into slots (id, tenant_id, schedule_id, start_at, end_at, appointment_type)
        select w.id, $1, $2, w.start_at, w.end_at, w.type
        from unnest($3, $4, $5, $6) with ordinality as w (id, start_at, end_at, type, n)
        where not tstzrange(w.start_at, w.end_at) && $7
        order by w.n';
    quiet constant text := coalesce(current_setting('app.quiet_slots', true), '');
    writer constant text := coalesce(current_setting('app.writer', true), '');
begin
    select s.zone, s.availability_pattern, s.is_active
    into rules
    from schedules s
    where s.tenant_id = tenant
      and s.id = schedule
    for no key update;
    if not found then
        return;
    end if;
    if not rules.is_active then
        raise exception using
            errcode = 'check_violation',
            constraint = 'schedule_inactive',
            table = 'schedules',
            message = 'an inactive schedule gets no slots';
    end if;
    select coalesce(array_agg(t.id order by t.place, t.start_at), '{}'),
           array_agg(t.start_at order by t.place, t.start_at),
           array_agg(t.end_at order by t.place, t.start_at),
           array_agg(t.type order by t.place, t.start_at),
           min(t.start_at),
           max(t.end_at)
    into ids, starts, ends, types, from_at, to_at
    from (
        select g.*, fhir_sched_slot_id(schedule, g.start_at, g.end_at, g.type) as id
        from fhir_sched_times(rules.zone, rules.availability_pattern, first_day, last_day) g
        where g.start_at >= since
    ) t;
    if cardinality(ids) > at_most then
        raise exception using
            errcode = 'check_violation',
            constraint = 'slots_too_many',
            table = 'schedules',
            message = 'the rules give more slots than may be generated at once';
    end if;

    withdrawn := fhir_sched_withdraw_slots(tenant, schedule, rules.zone, first_day, last_day, since, ids);
    added := 0;
    if ids <> '{}' then
        taken := fhir_sched_taken(tenant, schedule, from_at, to_at);
        added := fhir_sched_revive_slots(tenant, schedule, from_at, to_at, taken, ids);
        perform set_config('app.quiet_slots', 'on', true), set_config('app.writer', 'generate', true);
        begin
            execute filling using tenant, schedule, ids, starts, ends, types, taken;
            get diagnostics made = row_count;
        exception when exclusion_violation or unique_violation then
            execute filling || ' on conflict do nothing' using tenant, schedule, ids, starts, ends, types, taken;
            get diagnostics made = row_count;
        end;
        perform set_config('app.quiet_slots', quiet, true), set_config('app.writer', writer, true);
        added := added + made;
    end if;
    return next;
end
$$;

-- Slots that were made quietly are announced together, one row a schedule.
create function fhir_sched_announce_generated() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    select c.tenant_id, c.id, 'slots.generated',
           jsonb_build_object(
               'tenant_id', c.tenant_id, 'id', c.id, 'version', c.version, 'row', to_jsonb(c),
               'slots', jsonb_build_object('count', made.count, 'start', made.start_at, 'end', made.end_at)
           ),
           clock_timestamp()
    from (
        select s.tenant_id, s.schedule_id, count(*) as count, min(s.start_at) as start_at, max(s.end_at) as end_at
        from created s
        group by s.tenant_id, s.schedule_id
    ) made
    join schedules c on c.tenant_id = made.tenant_id and c.id = made.schedule_id;
    return null;
end
$$;
create trigger slots_50_announce_generated
    after insert on slots
    referencing new table as created
    for each statement
    when (current_setting('app.quiet_slots', true) = 'on')
    execute function fhir_sched_announce_generated();

-- A job that generates for everybody needs to know whom there is to generate for, and nothing else of them.
create function fhir_sched_tenants_with_schedules() returns setof uuid
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select distinct s.tenant_id
    from schedules s
    where s.is_active
    order by s.tenant_id
$$;

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
        'fhir_sched_announce_generated()',
        'fhir_sched_tenants_with_schedules()'
    ] loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    grant execute on function fhir_sched_tenants_with_schedules() to fhir_sched_app;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;

-- These run with the rights and under the policies of whoever calls, and are the server's alone to call.
do $$
declare
    ours text;
begin
    foreach ours in array array[
        'fhir_sched_withdraw_slots(uuid, uuid, text, date, date, timestamptz, uuid[])',
        'fhir_sched_revive_slots(uuid, uuid, timestamptz, timestamptz, tstzmultirange, uuid[])',
        'fhir_sched_generate_slots(uuid, uuid, date, date, timestamptz, integer)'
    ] loop
        execute format('revoke all on function %s from public', ours);
        execute format('grant execute on function %s to fhir_sched_app', ours);
    end loop;
end
$$;
