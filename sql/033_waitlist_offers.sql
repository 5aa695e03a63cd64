-- Offers: which comes next, what becomes of one, and that it is announced. The tables are those of 021.

-- Takes openings of the tenant until one is to be offered: its slot, the entry (locked), until when, and how many of
-- higher rank were passed over. One row with nulls when none of those looked at is; no row when there is none to look at.
create function fhir_sched_next_offer(
    seconds integer,
    out opening bigint, out slot uuid, out entry uuid, out expires_at timestamptz, out waiting_ahead integer
) returns setof record
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    tenant constant uuid := nullif(current_setting('app.tenant_id', true), '')::uuid;
    found_opening waitlist_openings;
    s slots;
    c schedules;
    e waitlist_entries;
    looked boolean := false;
begin
    for found_opening in
        select o.*
        from waitlist_openings o
        where o.tenant_id = tenant
        order by o.id
        limit 20
        for update skip locked
    loop
        looked := true;
        delete from waitlist_openings o where o.tenant_id = tenant and o.id = found_opening.id;
        select z.*
        into s
        from slots z
        where z.tenant_id = tenant
          and z.id = found_opening.slot_id
          and z.status = 'free'
          and z.start_at > clock_timestamp();
        continue when not found;
        select z.* into c from schedules z where z.tenant_id = tenant and z.id = s.schedule_id and z.is_active;
        continue when not found
            or (fhir_sched_rules(tenant, 'any', c.id) ->> 'waitlist-offers') is distinct from '1';
        select w.*
        into e
        from waitlist_entries w
        where w.tenant_id = tenant
          and w.status = 'waiting'
          -- what a column says, before the function is asked about the rest
          and (w.schedule_id is null or w.schedule_id = s.schedule_id)
          and (w.appointment_type in ('', s.appointment_type) or s.appointment_type is null)
          and not exists (
              select
              from waitlist_offers f
              where f.tenant_id = tenant
                and f.entry_id = w.id
                and f.outcome is null
          )
          and not exists (
              select
              from waitlist_offers f
              where f.tenant_id = tenant
                and f.slot_id = s.id
                and f.entry_id = w.id
          )
          and fhir_sched_asks_for(w, s, c)
        order by w.priority = 0, w.priority, w.created_at, w.id
        limit 1
        for no key update skip locked;
        continue when not found;
        opening := found_opening.id;
        slot := s.id;
        entry := e.id;
        expires_at := least(clock_timestamp() + make_interval(secs => seconds), s.start_at);
        waiting_ahead := (
            select count(*)
            from waitlist_entries w
            where w.tenant_id = tenant
              and w.status = 'waiting'
              and (w.priority = 0, w.priority, w.created_at, w.id) < (e.priority = 0, e.priority, e.created_at, e.id)
        );
        return next;
        return;
    end loop;
    if looked then
        return next;
    end if;
end
$$;

-- An opening whose offer failed, because somebody else was faster or the practitioner is busy elsewhere.
create function fhir_sched_drop_opening(opening bigint) returns void
language sql security definer
set search_path = pg_catalog, public, pg_temp
as $$
    delete from waitlist_openings
    where tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid
      and id = opening
$$;

-- Offers to entries that no longer wait are taken back: their holds end. How many.
create function fhir_sched_withdraw_offers() returns integer
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    tenant constant uuid := nullif(current_setting('app.tenant_id', true), '')::uuid;
    ended uuid;
    withdrawn integer := 0;
begin
    for ended in
        select f.appointment_id
        from waitlist_offers f
        where f.tenant_id = tenant
          and f.outcome is null
          and not exists (
              select
              from waitlist_entries w
              where w.tenant_id = tenant
                and w.id = f.entry_id
                and w.status = 'waiting'
          )
        order by f.appointment_id
    loop
        update appointments a
        set status = 'cancelled', cancel_reason = 'no longer waiting'
        where a.tenant_id = tenant
          and a.id = ended
          and a.status = 'pending';
        withdrawn := withdrawn + 1;
    end loop;
    return withdrawn;
end
$$;

-- A job for all tenants asks this, and then works tenant by tenant.
create function fhir_sched_tenants_with_openings() returns setof uuid
language sql volatile security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select distinct tenant_id from waitlist_openings
$$;

-- What becomes of an offer is what becomes of its hold, whoever decides it; an entry whose offer is taken is fulfilled.
create function fhir_sched_offer_ended() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
declare
    ended text := 'declined';
    waits uuid;
begin
    if tg_op = 'UPDATE' and new.status in ('booked', 'arrived', 'fulfilled', 'noshow') then
        ended := 'taken';
    elsif old.hold_expires_at <= clock_timestamp() then
        ended := 'lapsed';
    end if;
    update waitlist_offers f
    set outcome = case
            when ended = 'taken' or exists (
                select from waitlist_entries w
                where w.tenant_id = f.tenant_id and w.id = f.entry_id and w.status = 'waiting'
            ) then ended else 'withdrawn' end,
        ended_at = clock_timestamp()
    where f.tenant_id = old.tenant_id
      and f.appointment_id = old.id
      and f.outcome is null
    returning f.entry_id into waits;
    if ended = 'taken' and waits is not null then
        update waitlist_entries w
        set status = 'fulfilled'
        where w.tenant_id = old.tenant_id
          and w.id = waits
          and w.status = 'waiting';
    end if;
    return null;
end
$$;

create trigger appointments_80_offer_ended
    after update on appointments
    for each row
    when (
        old.status = 'pending' and old.hold_expires_at is not null and new.status is distinct from old.status
    )
    execute function fhir_sched_offer_ended();
create trigger appointments_80_offer_gone
    after delete on appointments
    for each row
    when (old.status = 'pending' and old.hold_expires_at is not null)
    execute function fhir_sched_offer_ended();

-- The worker is woken to take back the offer of an entry that no longer waits.
create function fhir_sched_entry_left() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if exists (
        select
        from waitlist_offers f
        where f.tenant_id = old.tenant_id
          and f.entry_id = old.id
          and f.outcome is null
    ) then
        insert into waitlist_openings (tenant_id) values (old.tenant_id);
    end if;
    return null;
end
$$;

create trigger waitlist_entries_80_left
    after update on waitlist_entries
    for each row
    when (old.status = 'waiting' and new.status is distinct from old.status)
    execute function fhir_sched_entry_left();
create trigger waitlist_entries_80_gone
    after delete on waitlist_entries
    for each row
    when (old.status = 'waiting')
    execute function fhir_sched_entry_left();

-- Every offer is announced as an event of its entry.
create function fhir_sched_announce_offer() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    insert into outbox (tenant_id, aggregate_id, event_type, payload, created_at)
    select w.tenant_id, w.id, 'waitlist.offered',
           jsonb_build_object(
               'tenant_id', w.tenant_id, 'id', w.id, 'version', w.version, 'row', to_jsonb(w),
               'offer', jsonb_build_object(
                   'id', new.id, 'appointment_id', new.appointment_id, 'slot_id', new.slot_id,
                   'expires_at', new.expires_at
               )
           ),
           clock_timestamp()
    from waitlist_entries w
    where w.tenant_id = new.tenant_id
      and w.id = new.entry_id;
    return null;
end
$$;

create trigger waitlist_offers_50_announce
    after insert on waitlist_offers
    for each row
    execute function fhir_sched_announce_offer();

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
              'fhir_sched_next_offer', 'fhir_sched_drop_opening', 'fhir_sched_withdraw_offers',
              'fhir_sched_tenants_with_openings', 'fhir_sched_offer_ended', 'fhir_sched_entry_left',
              'fhir_sched_announce_offer'
          )
    loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    grant execute on function
        fhir_sched_next_offer(integer), fhir_sched_drop_opening(bigint), fhir_sched_withdraw_offers(),
        fhir_sched_tenants_with_openings()
        to fhir_sched_app;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
