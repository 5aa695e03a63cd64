-- What a clinic demands of bookings made by the API, beyond who gets a slot: how far ahead, how late, in which order
-- the statuses follow each other. Programs that write by SQL are the clinic's own and are not asked.
--
-- The server says who asks: app.caller is portal (a patient), staff or hl7 (another system), the words of
-- appointments.source; what the server does by itself has none. A rule says a number of minutes or days, or 1 and 0 for
-- on and off; null is "no limit". A schedule's own rule goes before the tenant's, and that before the default.
create table booking_rules (
    tenant_id uuid not null,
    caller text not null,
    schedule_id uuid,
    rule text not null,
    value integer,
    updated_at timestamptz not null default now(),
    constraint booking_rules_key unique nulls not distinct (tenant_id, caller, schedule_id, rule),
    constraint booking_rules_caller check (caller in ('portal', 'staff', 'hl7', 'any')),
    constraint booking_rules_value check (value >= 0),
    constraint booking_rules_schedule_fk
        foreign key (tenant_id, schedule_id) references schedules (tenant_id, id) on delete cascade
);

alter table booking_rules enable row level security;
alter table booking_rules force row level security;
create policy booking_rules_tenant_isolation on booking_rules
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy booking_rules_trigger on booking_rules
    to fhir_sched_trigger using (true) with check (true);
grant select on booking_rules to fhir_sched_trigger;
grant select, insert, update, delete on booking_rules to fhir_sched_app;

-- What holds where nobody said anything. The server's own table of the rules says the same, held to it by a test.
create function fhir_sched_default_rules(asker text) returns jsonb
language sql immutable
as $$
    select case asker
        when 'portal' then '{"future-only": 1, "adjacent-slots": 1, "status-order": 1}'::jsonb
        else '{"future-only": 0, "adjacent-slots": 0, "status-order": 1, "override": 1, "waitlist-offers": 1}'::jsonb
    end
$$;

-- Every rule for one caller and schedule (null: the tenant's), by name.
create function fhir_sched_rules(tenant uuid, asker text, schedule uuid) returns jsonb
language sql stable
as $$
    select fhir_sched_default_rules(asker) || coalesce(
        (
            select jsonb_object_agg(found.rule, found.value)
            from (
                select distinct on (r.rule) r.rule, r.value
                from booking_rules r
                where r.tenant_id = tenant
                  and r.caller = asker
                  and (r.schedule_id is null or r.schedule_id = schedule)
                order by r.rule, r.schedule_id nulls last
            ) as found
        ),
        '{}'
    )
$$;

-- The statuses that may follow one. What is entered in error stays so; a visit that has begun was booked.
create function fhir_sched_next_statuses(status text) returns text[]
language sql immutable
as $$
    select case status
        when 'proposed' then '{pending,booked,arrived,checked-in,cancelled,entered-in-error}'::text[]
        when 'pending' then '{proposed,booked,arrived,checked-in,noshow,cancelled,entered-in-error}'
        when 'booked' then '{proposed,pending,arrived,checked-in,fulfilled,noshow,cancelled,entered-in-error}'
        when 'arrived' then '{booked,checked-in,fulfilled,noshow,cancelled,entered-in-error}'
        when 'checked-in' then '{booked,arrived,fulfilled,noshow,cancelled,entered-in-error}'
        when 'fulfilled' then '{arrived,checked-in,noshow,entered-in-error}'
        when 'noshow' then '{booked,arrived,checked-in,cancelled,entered-in-error}'
        when 'cancelled' then '{proposed,pending,booked,noshow,entered-in-error}'
        when 'entered-in-error' then '{}'
    end
$$;

create function fhir_sched_override_reason(document jsonb) returns text
language sql immutable
as $$
    select string_agg(e ->> 'valueString', ' ')
    from jsonb_array_elements(document -> 'extension') as e
    where e ->> 'url' = 'http://fhir-sched.org/fhir/StructureDefinition/override-reason'
$$;

-- Everything that a booking, a move or a cancellation breaks, as "rule limit" each; '{}' when nothing is broken.
-- had, has: the appointment before and after; occupied, occupies: whether it takes time then.
create function fhir_sched_broken_rules(
    rules jsonb, had appointments, has appointments, occupied boolean, occupies boolean
) returns text[]
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    slot_ids constant uuid[] := array_remove(has.slot_id || has.extra_slot_ids, null);
    starts constant timestamptz := coalesce(
        has.start_at, (select min(s.start_at) from slots s where s.tenant_id = has.tenant_id and s.id = any (slot_ids))
    );
    moment constant timestamptz := clock_timestamp();
    broken text[] := '{}';
begin
    if occupied and not occupies and had.status <> 'pending'
        and had.start_at < moment + make_interval(mins => (rules ->> 'cancel-notice')::integer) then
        broken := broken || ('cancel-notice ' || (rules ->> 'cancel-notice'));
    end if;
    if occupied and occupies
        and had.start_at < moment + make_interval(mins => (rules ->> 'move-notice')::integer) then
        broken := broken || ('move-notice ' || (rules ->> 'move-notice'));
    end if;
    if not occupies then
        return broken;
    end if;
    if (rules ->> 'future-only') = '1' and starts <= moment then
        broken := broken || 'future-only'::text;
    end if;
    if starts < moment + make_interval(mins => (rules ->> 'book-notice')::integer) then
        broken := broken || ('book-notice ' || (rules ->> 'book-notice'));
    end if;
    if starts > moment + make_interval(days => (rules ->> 'book-horizon')::integer) then
        broken := broken || ('book-horizon ' || (rules ->> 'book-horizon'));
    end if;
    if (rules ->> 'adjacent-slots') = '1' and cardinality(slot_ids) > 1 and exists (
        select
        from (
            select s.start_at, s.schedule_id,
                   lag(s.end_at) over line as ended_at, lag(s.schedule_id) over line as schedule_before
            from slots s
            where s.tenant_id = has.tenant_id
              and s.id = any (slot_ids)
            window line as (order by s.start_at, s.id)
        ) as next
        where next.start_at <> next.ended_at
           or next.schedule_id <> next.schedule_before
    ) then
        broken := broken || 'adjacent-slots'::text;
    end if;
    if (rules ->> 'times-of-slots') = '1' and slot_ids <> '{}' and exists (
        select
        from slots s
        where s.tenant_id = has.tenant_id
          and s.id = any (slot_ids)
        having (min(s.start_at), max(s.end_at)) is distinct from (has.start_at, has.end_at)
    ) then
        broken := broken || 'times-of-slots'::text;
    end if;
    return broken;
end
$$;

-- For a caller who has rules: whether this change may be made. Null for what is not there before or after.
create function fhir_sched_apply_rules(asker text, had appointments, has appointments) returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    tenant constant uuid := coalesce(has.tenant_id, had.tenant_id);
    occupied constant boolean := coalesce(had.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow'), false);
    occupies constant boolean := coalesce(has.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow'), false);
    rules constant jsonb := fhir_sched_rules(tenant, asker, coalesce(has.schedule_id, had.schedule_id));
    reason text := fhir_sched_override_reason(has.fhir);
    broken text[];
begin
    if reason is not null and reason is distinct from fhir_sched_override_reason(had.fhir) then
        if (rules ->> 'override') is distinct from '1' then
            raise exception using
                errcode = 'insufficient_privilege',
                constraint = 'override_reason',
                table = 'appointments',
                message = 'this caller may not override rules';
        end if;
        return;
    end if;
    if occupied = occupies
        and (has.start_at, has.end_at, has.slot_id, has.extra_slot_ids)
            is not distinct from (had.start_at, had.end_at, had.slot_id, had.extra_slot_ids) then
        return;
    end if;
    broken := fhir_sched_broken_rules(rules, had, has, occupied, occupies);
    if broken <> '{}' then
        raise exception using
            errcode = 'check_violation',
            constraint = 'booking_rules',
            table = 'appointments',
            message = 'a booking breaks a rule of the clinic',
            detail = array_to_string(broken, ', ');
    end if;
end
$$;

create function fhir_sched_check_status(asker text, had appointments, has appointments) returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    was constant text := case when had.fhir ->> 'status' = 'checked-in' then 'checked-in' else had.status end;
    becomes constant text := case when has.fhir ->> 'status' = 'checked-in' then 'checked-in' else has.status end;
    allowed constant text[] := fhir_sched_next_statuses(was);
begin
    if was <> becomes
        and becomes <> all (allowed)
        and (fhir_sched_rules(has.tenant_id, asker, has.schedule_id) ->> 'status-order') = '1' then
        raise exception using
            errcode = 'check_violation',
            constraint = 'status_order',
            table = 'appointments',
            message = 'a status cannot follow another',
            detail = was || ' ' || becomes || ' ' || array_to_string(allowed, ' ');
    end if;
end
$$;

-- Asked before the row is written, when its schedule is known; what a trigger changes is not what the caller asked for.
-- Every booking runs it, so it is kept light: whoever has no rule pays for a look into an empty table. It runs with the
-- rights of who writes, which is the server's own role wherever app.writer says so.
create function fhir_sched_check_rules() returns trigger
language plpgsql
as $$
begin
    if tg_op = 'INSERT' then
        if current_setting('app.caller', true) = 'portal' or exists (
            select from public.booking_rules r where r.tenant_id = new.tenant_id
        ) then
            if pg_trigger_depth() = 1 and current_setting('app.caller', true) <> '' then
                perform public.fhir_sched_apply_rules(current_setting('app.caller'), null, new);
            end if;
        end if;
        return new;
    elsif tg_op = 'UPDATE' then
        if pg_trigger_depth() = 1 and current_setting('app.caller', true) <> '' then
            if new.status is distinct from old.status or new.fhir is distinct from old.fhir then
                perform public.fhir_sched_check_status(current_setting('app.caller'), old, new);
            end if;
            if current_setting('app.caller') = 'portal' or exists (
                select from public.booking_rules r where r.tenant_id = new.tenant_id
            ) then
                perform public.fhir_sched_apply_rules(current_setting('app.caller'), old, new);
            end if;
        end if;
        return new;
    end if;
    if pg_trigger_depth() = 1 and current_setting('app.caller', true) <> '' then
        perform public.fhir_sched_apply_rules(current_setting('app.caller'), old, null);
    end if;
    return old;
end
$$;

create trigger appointments_30_rules_insert
    before insert on appointments
    for each row
    when (current_setting('app.writer', true) = 'fhir')
    execute function fhir_sched_check_rules();
create trigger appointments_30_rules_update
    before update on appointments
    for each row
    when (current_setting('app.writer', true) = 'fhir')
    execute function fhir_sched_check_rules();
create trigger appointments_05_rules_delete
    before delete on appointments
    for each row
    when (current_setting('app.writer', true) = 'fhir')
    execute function fhir_sched_check_rules();

do $$
declare
    ours regprocedure;
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    if plain_owner then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
    for ours in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
          and p.proname in (
              'fhir_sched_default_rules', 'fhir_sched_rules', 'fhir_sched_next_statuses',
              'fhir_sched_override_reason', 'fhir_sched_broken_rules', 'fhir_sched_apply_rules',
              'fhir_sched_check_status', 'fhir_sched_check_rules'
          )
    loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    grant execute on function
        fhir_sched_default_rules(text), fhir_sched_rules(uuid, text, uuid), fhir_sched_next_statuses(text),
        fhir_sched_override_reason(jsonb),
        fhir_sched_broken_rules(jsonb, appointments, appointments, boolean, boolean),
        fhir_sched_apply_rules(text, appointments, appointments),
        fhir_sched_check_status(text, appointments, appointments)
        to fhir_sched_app;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
