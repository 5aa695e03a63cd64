-- The end of an exception costs what it frees, however many slots the schedule has.
--
-- Replaces fhir_sched_free_slots of 009 and 032, which for each slot looked through all that begin before its end: the
-- index of the constraint that forbids overlaps answers the same question. A slot that ends before it begins, which
-- another program may write, is not in that index and overlaps nobody.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
end
$$;

create or replace function fhir_sched_free_slots(
    tenant uuid, schedule uuid, from_at timestamptz, to_at timestamptz
) returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    uncovered record;
    crowded boolean;
begin
    for uncovered in
        select s.id, s.start_at, s.end_at
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
        crowded := uncovered.start_at < uncovered.end_at and exists (
            select
            from slots o
            where o.tenant_id = tenant
              and o.schedule_id = schedule
              and tstzrange(o.start_at, o.end_at) && tstzrange(
                  uncovered.start_at, greatest(uncovered.start_at, uncovered.end_at)
              )
              and o.status in ('free', 'busy')
              and o.start_at < o.end_at
        );
        update slots s
        set excepted = false,
            status = case
                when crowded or (select n.booked from fhir_sched_occupants(tenant, s.id, null) n) >= s.capacity
                then 'blocked'
                else 'free'
            end
        where s.tenant_id = tenant
          and s.id = uncovered.id;
    end loop;
end
$$;

do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
