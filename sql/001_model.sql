-- The scheduling data model as given: six tables that other programs share with us.
-- A database that has them already skips this file. What is ours comes in the files after it.

-- Schedules
create table schedules (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    actor_id uuid not null,
    actor_type text not null,
    timezone text not null default 'UTC',
    availability_pattern jsonb,
    service_types text[],
    is_active boolean not null default true,
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index ix_schedules_tenant_actor on schedules (tenant_id, actor_id);

-- Schedule exceptions (blocked windows)
create table schedule_exceptions (
    id uuid primary key default gen_random_uuid(),
    schedule_id uuid not null references schedules(id),
    tenant_id uuid not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    reason text,
    type text not null default 'holiday'
);
create index ix_sched_exc_schedule on schedule_exceptions (schedule_id, start_at);

-- Slots
create table slots (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    schedule_id uuid not null references schedules(id),
    status text not null default 'free',
    start_at timestamptz not null,
    end_at timestamptz not null,
    appointment_type text,
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index ix_slots_schedule_status on slots (schedule_id, status, start_at);
-- Prevent overlapping free/busy slots in same schedule
create unique index ix_slots_schedule_start on slots (schedule_id, start_at)
    where status in ('free', 'busy');

-- Appointments
create table appointments (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    patient_id uuid not null,
    slot_id uuid references slots(id),
    schedule_id uuid,
    appointment_type text,
    status text not null default 'booked',
    start_at timestamptz,
    end_at timestamptz,
    reason text,
    cancel_reason text,
    allow_double_booking boolean not null default false,
    source text not null default 'staff',
    provider_id uuid,
    location_id uuid,
    created_by uuid not null,
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index ix_appointments_tenant_patient on appointments (tenant_id, patient_id, status);
create index ix_appointments_tenant_slot on appointments (tenant_id, slot_id);
create index ix_appointments_calendar on appointments (tenant_id, provider_id, start_at);

-- Waitlist
create table waitlist_entries (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    patient_id uuid not null,
    appointment_type text not null,
    schedule_id uuid,
    criteria jsonb,
    priority integer not null default 0,
    note text,
    status text not null default 'waiting',
    created_by uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index ix_waitlist_tenant_status on waitlist_entries (tenant_id, status, priority);

-- Outbox
create table outbox (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    aggregate_id uuid not null,
    event_type text not null,
    payload jsonb not null,
    published boolean not null default false,
    created_at timestamptz not null default now()
);
create index ix_outbox_unpublished on outbox (created_at) where published = false;

-- Row-level security
alter table schedules enable row level security;
alter table schedule_exceptions enable row level security;
alter table slots enable row level security;
alter table appointments enable row level security;
alter table waitlist_entries enable row level security;
alter table outbox enable row level security;

create policy schedules_tenant_isolation on schedules
    using (tenant_id = current_setting('app.tenant_id')::uuid);
create policy schedule_exceptions_tenant_isolation on schedule_exceptions
    using (tenant_id = current_setting('app.tenant_id')::uuid);
create policy slots_tenant_isolation on slots
    using (tenant_id = current_setting('app.tenant_id')::uuid);
create policy appointments_tenant_isolation on appointments
    using (tenant_id = current_setting('app.tenant_id')::uuid);
create policy waitlist_entries_tenant_isolation on waitlist_entries
    using (tenant_id = current_setting('app.tenant_id')::uuid);
create policy outbox_tenant_isolation on outbox
    using (tenant_id = current_setting('app.tenant_id')::uuid);
