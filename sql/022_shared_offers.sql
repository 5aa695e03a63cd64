-- A slot with room for several is offered to as many: an offer that leaves it free opens it again, for the next one.
create function fhir_sched_offer_made() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
begin
    -- The hold is written before its record, so the slot says what is left.
    insert into waitlist_openings (tenant_id, slot_id)
    select s.tenant_id, s.id
    from slots s
    where s.tenant_id = new.tenant_id
      and s.id = new.slot_id
      and s.status = 'free';
    return null;
end
$$;

create trigger waitlist_offers_80_made
    after insert on waitlist_offers
    for each row
    execute function fhir_sched_offer_made();

do $$
declare
    plain_owner constant boolean := not (select rolsuper from pg_roles where rolname = current_user);
begin
    if plain_owner then
        execute format('grant fhir_sched_trigger to %I', current_user);
        grant create on schema public to fhir_sched_trigger;
    end if;
    revoke all on function fhir_sched_offer_made() from public;
    alter function fhir_sched_offer_made() owner to fhir_sched_trigger;
    if plain_owner then
        revoke create on schema public from fhir_sched_trigger;
        execute format('revoke fhir_sched_trigger from %I', current_user);
    end if;
end
$$;
