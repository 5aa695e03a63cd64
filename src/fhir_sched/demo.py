"""Demo data: three practitioners in three time zones, two weeks of slots, some appointments, an exception, a wish.

Law: written as any other program of the clinic would, by plain SQL on the model's columns, through the role that
serves and under row-level security; slots come of the availability rules. Every id follows from the tenant, so that
loading again adds only the days that have come into view since. Knows nothing of FHIR but the identifiers in the curl
lines that it prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg

DAYS: Final = 14

# (nth practitioner, zone, service, visit): the ids are md5 of tenant and a name, in the shape of a UUID.
_SCHEDULES: Final = """
with practitioner (name, zone, services) as (
    values ('new-york', 'America/New_York', array['general-practice']),
           ('berlin', 'Europe/Berlin', array['cardiology', 'general-practice']),
           ('kathmandu', 'Asia/Kathmandu', array['paediatrics'])
)
insert into schedules (id, tenant_id, actor_id, actor_type, timezone, service_types, availability_pattern)
select md5(%(tenant)s || 'schedule' || name)::uuid, %(tenant)s::uuid, md5(%(tenant)s || 'practitioner' || name)::uuid,
       'provider', zone, services,
       '{"rules": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "09:00", "end": "17:00", "slotMinutes": 30,
                    "appointmentType": null, "validFrom": null, "validTo": null}]}'
from practitioner
on conflict (id) do nothing
"""

# What the rules give from now on, in every zone whatever DST does that day.
_SLOTS: Final = """
select coalesce(sum(made.added), 0)::integer
from (
    select id, (now() at time zone zone)::date as today
    from schedules
    where id in (
        md5(%(tenant)s || 'schedulenew-york')::uuid,
        md5(%(tenant)s || 'scheduleberlin')::uuid,
        md5(%(tenant)s || 'schedulekathmandu')::uuid
    )
) as schedule
cross join lateral fhir_sched_generate_slots(
    %(tenant)s::uuid, schedule.id, schedule.today, schedule.today + %(days)s, now()
) as made
"""

# The third weekday's 11:00 to 12:30 of the second schedule.
_EXCEPTION: Final = """
insert into schedule_exceptions (id, tenant_id, schedule_id, start_at, end_at, reason, type)
select md5(%(tenant)s || 'exception')::uuid, tenant_id, id,
       (day + time '11:00') at time zone timezone, (day + time '12:30') at time zone timezone, 'Team meeting', 'meeting'
from schedules
cross join lateral (
    select d::date as day
    from generate_series((now() at time zone timezone)::date + 1, (now() at time zone timezone)::date + 7, '1 day') d
    where extract(isodow from d) <= 5
    order by d
    offset 2
    limit 1
) as third
where id = md5(%(tenant)s || 'scheduleberlin')::uuid
on conflict (id) do nothing
"""

# One visit on each of the next four weekdays of each schedule: its nth free slot of that day.
_APPOINTMENTS: Final = """
insert into appointments
    (id, tenant_id, patient_id, slot_id, schedule_id, provider_id, appointment_type, start_at, end_at, reason,
     created_by)
select md5(%(tenant)s || 'appointment' || schedule_id || nth)::uuid, tenant_id,
       md5(%(tenant)s || 'patient' || nth)::uuid, id, schedule_id, actor_id,
       'ROUTINE', start_at, end_at, 'Check-up', md5(%(tenant)s || 'demo')::uuid
from (
    select slots.*, schedules.actor_id,
           dense_rank() over (partition by schedule_id order by local_date) as nth,
           row_number() over (partition by schedule_id, local_date order by start_at) as place
    from slots
    join schedules on schedules.id = slots.schedule_id
    cross join lateral (select (start_at at time zone timezone)::date as local_date) as clock
    where slots.tenant_id = %(tenant)s::uuid and slots.status = 'free'
      and start_at > now() + interval '1 day' and start_at < now() + interval '8 days'
      and schedules.id in (
        md5(%(tenant)s || 'schedulenew-york')::uuid,
        md5(%(tenant)s || 'scheduleberlin')::uuid,
        md5(%(tenant)s || 'schedulekathmandu')::uuid
    )
) as free_slot
where nth <= 4 and place = nth + 1
on conflict (id) do nothing
"""

_WAITLIST: Final = """
insert into waitlist_entries
    (id, tenant_id, patient_id, appointment_type, schedule_id, criteria, priority, note, created_by)
values (md5(%(tenant)s || 'waitlist')::uuid, %(tenant)s::uuid, md5(%(tenant)s || 'patient1')::uuid, 'FOLLOWUP',
        md5(%(tenant)s || 'scheduleberlin')::uuid, '{"days": ["mon", "wed"], "before": "12:00"}', 1,
        'Any morning, on short notice', md5(%(tenant)s || 'demo')::uuid)
on conflict (id) do nothing
"""

_LOADED: Final = "select exists (select from waitlist_entries where id = md5(%(tenant)s || 'waitlist')::uuid)"

_OFFER: Final = """
select slots.id, slots.schedule_id, slots.start_at, slots.end_at, schedules.actor_id,
       md5(%(tenant)s || 'patient1')::uuid
from slots
join schedules on schedules.id = slots.schedule_id
where slots.tenant_id = %(tenant)s::uuid and slots.schedule_id = md5(%(tenant)s || 'schedulenew-york')::uuid
  and slots.status = 'free' and slots.start_at > now() + interval '2 hours'
  and not exists (select from appointments where appointments.slot_id = slots.id)
order by slots.start_at
limit 1
"""


@dataclass(frozen=True, slots=True)
class Offer:
    """A free slot of the demo data, and who could meet in it."""

    slot: UUID
    schedule: UUID
    start: datetime
    end: datetime
    practitioner: UUID
    patient: UUID

    def curl_lines(self, base: str) -> tuple[str, str, str]:
        """Search free slots, book this one, see the appointment: each works as it stands, one after the other."""
        start, end = (moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (self.start, self.end))
        body = json.dumps(
            {
                "resourceType": "Appointment",
                "status": "booked",
                "slot": [{"reference": f"Slot/slt-{self.slot}"}],
                "start": start,
                "end": end,
                "participant": [
                    {"actor": {"reference": f"Patient/{self.patient}"}, "status": "accepted"},
                    {"actor": {"reference": f"Practitioner/{self.practitioner}"}, "status": "accepted"},
                ],
            },
            separators=(",", ":"),
        )
        search = f"schedule=Schedule/sch-{self.schedule}&status=free&start=ge{start[:10]}&_sort=start&_count=5"
        return (
            f"curl -s '{base}/Slot?{search}'",
            f"curl -s -X POST '{base}/Appointment' -H 'Content-Type: application/fhir+json' -d '{body}'",
            f"curl -s '{base}/Appointment?slot=Slot/slt-{self.slot}'",
        )


def load(url: str, tenant: UUID) -> int:
    """Load or extend the demo data of `tenant` through the role at `url`; the number of slots that were added."""
    with psycopg.connect(url, application_name="fhir-sched demo") as connection:
        names = {"tenant": str(tenant), "days": DAYS}
        _enter(connection, tenant)
        # Two loads at once would else wait for each other's rows crosswise.
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%(tenant)s, 0))", names)
        loaded = connection.execute(_LOADED, names).fetchone() == (True,)
        connection.execute(_SCHEDULES, names)
        added = _count(connection.execute(_SLOTS, names).fetchone())
        if not loaded:
            for statement in (_EXCEPTION, _APPOINTMENTS, _WAITLIST):
                connection.execute(statement, names)
    return added


def offer(url: str, tenant: UUID) -> Offer | None:
    """A slot of the demo data that is free now; None when all are taken."""
    with psycopg.connect(url, application_name="fhir-sched demo") as connection:
        _enter(connection, tenant)
        row = connection.execute(_OFFER, {"tenant": str(tenant)}).fetchone()
    return None if row is None else Offer(*row)


def _count(row: tuple[int, ...] | None) -> int:
    return row[0] if row else 0


def _enter(connection: psycopg.Connection, tenant: UUID) -> None:
    connection.execute("select set_config('app.tenant_id', %s, true)", [str(tenant)])
