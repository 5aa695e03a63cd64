-- One index for each way to search: the tenant, what is asked for, the order of the answer, and the id that makes the
-- order total, so that a page is one walk from where the last one ended.
create index ix_slots_search_schedule_status on slots (tenant_id, schedule_id, fhir_status, start_at, id);
create index ix_slots_search_schedule on slots (tenant_id, schedule_id, start_at, id);
create index ix_slots_search_status on slots (tenant_id, fhir_status, start_at, id);
create index ix_slots_search_start on slots (tenant_id, start_at, id);
create index ix_slots_search_type on slots (tenant_id, appointment_type, start_at, id)
    where appointment_type is not null;
create index ix_slots_search_updated on slots (tenant_id, updated_at, id);

create index ix_appointments_search_start on appointments (tenant_id, sort_at, id);
create index ix_appointments_search_status on appointments (tenant_id, fhir_status, sort_at, id);
create index ix_appointments_search_patient on appointments (tenant_id, patient_id, sort_at, id);
create index ix_appointments_search_provider on appointments (tenant_id, provider_id, sort_at, id)
    where provider_id is not null;
create index ix_appointments_search_location on appointments (tenant_id, location_id, sort_at, id)
    where location_id is not null;
create index ix_appointments_search_type on appointments (tenant_id, appointment_type, sort_at, id)
    where appointment_type is not null;
create index ix_appointments_search_schedule on appointments (tenant_id, schedule_id, sort_at, id)
    where schedule_id is not null;
create index ix_appointments_search_updated on appointments (tenant_id, updated_at, id);

create index ix_schedules_search_actor on schedules (tenant_id, actor_id, actor_type, id);
create index ix_schedules_search_active on schedules (tenant_id, is_active, id);
create index ix_schedules_search_horizon on schedules (tenant_id, horizon_start, id) where horizon;
create index ix_schedules_search_updated on schedules (tenant_id, updated_at, id);

create index ix_exceptions_search_schedule on schedule_exceptions (tenant_id, schedule_id, start_at, id);
create index ix_exceptions_search_start on schedule_exceptions (tenant_id, start_at, id);
create index ix_exceptions_search_updated on schedule_exceptions (tenant_id, updated_at, id);

create index ix_waitlist_search_start on waitlist_entries (tenant_id, sort_at, id);
create index ix_waitlist_search_status on waitlist_entries (tenant_id, fhir_status, sort_at, id);
create index ix_waitlist_search_patient on waitlist_entries (tenant_id, patient_id, sort_at, id);
create index ix_waitlist_search_type on waitlist_entries (tenant_id, appointment_type, sort_at, id);
create index ix_waitlist_search_updated on waitlist_entries (tenant_id, updated_at, id);

-- How many rows keep an element beside its column: without it a row that keeps none passes for rare, and a search of
-- them for one that is best sorted whole.
create statistics fhir_sched_kept_participants on (fhir -> 'participant') from appointments;
create statistics fhir_sched_kept_types on (fhir -> 'appointmentType') from appointments;
create statistics fhir_sched_kept_slot_types on (fhir -> 'appointmentType') from slots;
create statistics fhir_sched_kept_actors on (fhir -> 'actor') from schedules;
