-- Brings rows that were there under the rules, then closes the doors.

-- Free slots that an appointment occupies, and free slots under an exception. The triggers are in place: each change
-- has its version, its history and its outbox row.
update slots s
set status = 'busy'
where s.status = 'free'
  and exists (
      select
      from appointments a
      where a.tenant_id = s.tenant_id
        and a.slot_id = s.id
        and a.status in ('pending', 'booked', 'arrived', 'fulfilled', 'noshow')
  );
update slots s
set status = 'blocked', excepted = true
where s.status = 'free'
  and exists (
      select
      from schedule_exceptions e
      where e.tenant_id = s.tenant_id
        and e.schedule_id = s.schedule_id
        and e.start_at < s.end_at
        and e.end_at > s.start_at
        and e.start_at < e.end_at
  );

-- To empty a table is to delete its rows: history, outbox, slots and everything derived follow the rows, and there is
-- no trigger that sees the rows of a truncate. What refers to the table is emptied with it, so it goes first.
create function fhir_sched_empty() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    emptied text;
begin
    foreach emptied in array tg_argv loop
        execute format('delete from %I', emptied);
    end loop;
    return null;
end
$$;

create trigger schedules_90_truncate
    before truncate on schedules
    for each statement
    execute function fhir_sched_empty('appointments', 'schedule_exceptions', 'slots', 'schedules');
create trigger schedule_exceptions_90_truncate
    before truncate on schedule_exceptions
    for each statement
    execute function fhir_sched_empty('schedule_exceptions');
create trigger slots_90_truncate
    before truncate on slots
    for each statement
    execute function fhir_sched_empty('appointments', 'slots');
create trigger appointments_90_truncate
    before truncate on appointments
    for each statement
    execute function fhir_sched_empty('appointments');
create trigger waitlist_entries_90_truncate
    before truncate on waitlist_entries
    for each statement
    execute function fhir_sched_empty('waitlist_entries');

-- Trigger functions belong to the role without a login and are nobody's to call. To hand a function over, an owner
-- that is no superuser must be a member of the new owner, which must be able to create in the schema: for this moment.
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
          and starts_with(p.proname, 'fhir_sched_')
          and p.proname <> 'fhir_sched_next_version'
    loop
        execute format('revoke all on function %s from public', ours);
        execute format('alter function %s owner to fhir_sched_trigger', ours);
    end loop;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;

alter table schedules force row level security;
alter table schedule_exceptions force row level security;
alter table slots force row level security;
alter table appointments force row level security;
alter table waitlist_entries force row level security;
alter table outbox force row level security;
alter table provider_times force row level security;
alter table extra_slots force row level security;
alter table history force row level security;
alter table search_tokens force row level security;
