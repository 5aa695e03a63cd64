-- A slot that the server writes names a schedule of its own tenant, told before anything else is.
--
-- The foreign key says the same, but only after the model's unique index on schedule and start, which knows no tenants:
-- a tenant could ask it whether another one has a slot at some time. Other programs have their foreign key alone; it
-- also knows a schedule that the same statement makes.
create function fhir_sched_own_schedule() returns trigger
language plpgsql
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    if not exists (select from schedules s where s.tenant_id = new.tenant_id and s.id = new.schedule_id) then
        raise exception using
            errcode = 'foreign_key_violation',
            constraint = 'slots_schedule_fk',
            table = 'slots',
            message = 'a slot names a schedule that is not there';
    end if;
    return new;
end
$$;
revoke all on function fhir_sched_own_schedule() from public;

create trigger slots_05_own_schedule
    before insert on slots
    for each row
    when (current_setting('app.writer', true) = 'fhir')
    execute function fhir_sched_own_schedule();
create trigger slots_05_own_schedule_changed
    before update of schedule_id on slots
    for each row
    when (new.schedule_id is distinct from old.schedule_id and current_setting('app.writer', true) = 'fhir')
    execute function fhir_sched_own_schedule();
