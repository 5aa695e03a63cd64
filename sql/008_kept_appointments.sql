-- Kept elements of appointments and waitlist entries give way to changed columns, and the triggers that see to it.

create function fhir_sched_prune_appointment() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed jsonb;
    actor record;
begin
    if new.status is distinct from old.status then
        new.fhir := fhir_sched_without(new.fhir, 'status', '_status');
    end if;
    if new.start_at is distinct from old.start_at then
        new.fhir := fhir_sched_without(new.fhir, 'start', '_start');
    end if;
    if new.end_at is distinct from old.end_at then
        new.fhir := fhir_sched_without(new.fhir, 'end', '_end');
    end if;
    if new.slot_id is distinct from old.slot_id then
        new.fhir := fhir_sched_without(new.fhir, 'slot');
        new.fhir_tokens := fhir_sched_without_tokens(new.fhir_tokens, 'Appointment.slot', 'Appointment.slot+');
    end if;
    if new.appointment_type is distinct from old.appointment_type then
        new.fhir := fhir_sched_without(new.fhir, 'appointmentType');
        new.fhir_tokens := fhir_sched_without_tokens(new.fhir_tokens, 'Appointment.appointment-type');
    end if;
    if new.reason is distinct from old.reason then
        new.fhir := fhir_sched_without(new.fhir, 'reasonCode');
        new.fhir_tokens := fhir_sched_without_tokens(new.fhir_tokens, 'Appointment.reason-code');
    end if;
    if new.cancel_reason is distinct from old.cancel_reason then
        new.fhir := fhir_sched_without(new.fhir, 'cancelationReason');
    end if;
    if new.created_at is distinct from old.created_at then
        new.fhir := fhir_sched_without(new.fhir, 'created', '_created');
    end if;
    if new.allow_double_booking is distinct from old.allow_double_booking then
        new.fhir := fhir_sched_without_extension(new.fhir, 'allow-double-booking');
    end if;
    for actor in
        values
            (array['Patient'], 'Patient', old.patient_id, new.patient_id),
            (array['Practitioner', 'PractitionerRole'], 'Practitioner', old.provider_id, new.provider_id),
            (array['Location', 'HealthcareService'], 'Location', old.location_id, new.location_id)
    loop
        if actor.column4 is distinct from actor.column3 then
            changed := fhir_sched_with_actor(
                new.fhir, new.fhir_tokens, 'Appointment.actor', 'participant',
                actor.column1, actor.column2, actor.column4
            );
            new.fhir := nullif(changed -> 'fhir', 'null');
            new.fhir_tokens := nullif(changed -> 'tokens', 'null');
        end if;
    end loop;
    return new;
end
$$;

create function fhir_sched_prune_waitlist_entry() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed jsonb;
begin
    if new.status is distinct from old.status then
        new.fhir := fhir_sched_without(new.fhir, 'status', '_status');
    end if;
    if new.start_at is distinct from old.start_at then
        new.fhir := fhir_sched_without(new.fhir, 'start', '_start');
    end if;
    if new.end_at is distinct from old.end_at then
        new.fhir := fhir_sched_without(new.fhir, 'end', '_end');
    end if;
    if new.note is distinct from old.note then
        new.fhir := fhir_sched_without(new.fhir, 'comment', '_comment');
    end if;
    if new.priority is distinct from old.priority then
        new.fhir := fhir_sched_without(new.fhir, 'priority', '_priority');
    end if;
    if new.appointment_type is distinct from old.appointment_type then
        new.fhir := fhir_sched_without(new.fhir, 'appointmentType');
        new.fhir_tokens := fhir_sched_without_tokens(new.fhir_tokens, 'Appointment.appointment-type');
    end if;
    if new.criteria is distinct from old.criteria then
        new.fhir := fhir_sched_without_extension(new.fhir, 'waitlist-criteria');
    end if;
    if new.created_at is distinct from old.created_at then
        new.fhir := fhir_sched_without(new.fhir, 'created', '_created');
    end if;
    if new.patient_id is distinct from old.patient_id then
        changed := fhir_sched_with_actor(
            new.fhir, new.fhir_tokens, 'Appointment.actor', 'participant', array['Patient'], 'Patient', new.patient_id
        );
        new.fhir := nullif(changed -> 'fhir', 'null');
        new.fhir_tokens := nullif(changed -> 'tokens', 'null');
    end if;
    return new;
end
$$;

-- They fire last of the triggers before an update, when the status is final, and only for rows that keep something.
do $$
declare
    kept record;
begin
    for kept in
        values
            ('schedules', 'fhir_sched_prune_schedule'),
            ('schedule_exceptions', 'fhir_sched_prune_exception'),
            ('slots', 'fhir_sched_prune_slot'),
            ('appointments', 'fhir_sched_prune_appointment'),
            ('waitlist_entries', 'fhir_sched_prune_waitlist_entry')
    loop
        execute format(
            'create trigger %I before update on %I for each row
             when (new.fhir is not null and new.fhir is not distinct from old.fhir)
             execute function %I()',
            kept.column1 || '_40_prune', kept.column1, kept.column2
        );
    end loop;
end
$$;
