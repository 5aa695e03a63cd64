"""What FHIR clients wrote beside the columns gives way when a program that knows only the columns changes one."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from programs import Clinic

EXTENSION = "http://fhir-sched.org/fhir/StructureDefinition/"
NEW = UUID("60000000-0000-4000-8000-000000000001")


def kept(*keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, "kept")


def extension(*names: str) -> dict[str, Any]:
    return {"extension": [{"url": EXTENSION + name, "valueCode": "kept"} for name in names]}


def participants(*references: str) -> dict[str, Any]:
    return {"participant": [{"actor": {"reference": reference}, "status": "tentative"} for reference in references]}


CHANGES: list[tuple[str, str, dict[str, Any], dict[str, Any] | None]] = [
    ("slots", "status = 'busy'", kept("status", "comment"), kept("comment")),
    ("slots", "start_at = start_at + interval '1 minute'", kept("start", "end"), kept("end")),
    ("slots", "end_at = end_at - interval '1 minute'", kept("start", "end"), kept("start")),
    ("slots", "appointment_type = 'x'", kept("appointmentType"), None),
    ("slots", "version = 9", kept("start", "end", "status"), kept("start", "end", "status")),
    ("appointments", "status = 'arrived'", kept("status", "_status", "start"), kept("start")),
    ("appointments", "reason = 'x'", kept("reasonCode", "slot"), kept("slot")),
    ("appointments", "cancel_reason = 'x'", kept("cancelationReason"), None),
    ("appointments", "created_at = '2020-01-01'", kept("created"), None),
    ("appointments", "start_at = now(), end_at = now()", kept("start", "end"), None),
    (
        "appointments",
        "allow_double_booking = true",
        extension("allow-double-booking", "other"),
        extension("other"),
    ),
    ("appointments", "allow_double_booking = true", extension("allow-double-booking"), None),
    (
        "appointments",
        f"patient_id = '{NEW}'",
        participants("Patient/1", "Patient/2"),
        participants(f"Patient/{NEW}", "Patient/2"),
    ),
    (
        "appointments",
        f"provider_id = '{NEW}'",
        participants("http://other.example/PractitionerRole/1"),
        participants(f"Practitioner/{NEW}"),
    ),
    ("appointments", "location_id = null", participants("Patient/1", "Location/1"), participants("Patient/1")),
    ("schedules", f"actor_id = '{NEW}'", {"actor": [{"reference": "Device/1"}, {"reference": "Practitioner/1"}]},
     {"actor": [{"reference": "Device/1"}, {"reference": f"Practitioner/{NEW}"}]}),
    ("schedules", "timezone = 'Asia/Tokyo'", extension("schedule-timezone", "schedule-availability"),
     extension("schedule-availability")),
    ("schedules", "availability_pattern = '{}'", extension("schedule-availability", "schedule-availability"), None),
    ("schedules", "service_types = '{x}', is_active = false", kept("serviceType", "active"), None),
    ("schedule_exceptions", "reason = 'x'", kept("comment", "start"), kept("start")),
    ("schedule_exceptions", "type = 'x'", extension("schedule-exception-type"), None),
    ("waitlist_entries", "note = 'x', priority = 3", kept("comment", "priority", "status"), kept("status")),
    ("waitlist_entries", "criteria = '{}'", extension("waitlist-criteria"), None),
]  # fmt: skip


def make(clinic: Clinic, table: str, fhir: dict[str, Any], **columns: Any) -> UUID:
    given = {"fhir": fhir, **columns}
    match table:
        case "schedules":
            return clinic.schedule(**given)
        case "slots":
            return clinic.slot(clinic.schedule(), 0, **given)
        case "appointments":
            return clinic.book(None, **{"location_id": uuid4(), **given})
        case "schedule_exceptions":
            row_id = clinic.close(clinic.schedule(), 0, 20)
            clinic.operator.execute("update schedule_exceptions set fhir = %s where id = %s", [Jsonb(fhir), row_id])
            return row_id
        case _:
            needed = {"patient_id": uuid4(), "appointment_type": "x", "created_by": uuid4()}
            return clinic.insert(clinic.operator, table, **needed, **given)


@pytest.mark.parametrize(("table", "change", "before", "after"), CHANGES)
def test_the_column_rules(
    clinic: Clinic, table: str, change: str, before: dict[str, Any], after: dict[str, Any] | None
) -> None:
    row_id = make(clinic, table, before)
    clinic.staff().execute(f"update {table} set {change} where id = %s", [row_id])
    found = clinic.get(table, row_id, "fhir")
    if found and after and "participant" in found:
        # An added or replaced actor keeps the rest of its participant.
        assert [p["actor"] for p in found["participant"]] == [p["actor"] for p in after["participant"]]
    else:
        assert found == after


def test_whoever_writes_the_kept_form_as_well_is_believed(clinic: Clinic) -> None:
    slot = make(clinic, "slots", kept("start"))
    clinic.api().execute(
        "update slots set start_at = start_at + interval '1 minute', fhir = %s where id = %s",
        [Jsonb({"start": "new"}), slot],
    )
    assert clinic.get("slots", slot, "fhir") == {"start": "new"}


def tokens(clinic: Clinic, row_id: UUID) -> list[tuple[Any, ...]]:
    return clinic.rows("select parameter, system, value from search_tokens where id = %s order by 1, 2, 3", row_id)


def test_tokens_follow_the_row(clinic: Clinic) -> None:
    given = [
        ["Appointment.reason-code", "s", "c"],
        ["Appointment.actor", "Patient", "1"],
        ["Appointment.actor+", "Patient", "2"],
    ]
    booked = make(clinic, "appointments", participants("Patient/1", "Patient/2"), fhir_tokens=Jsonb(given))
    assert tokens(clinic, booked) == sorted(map(tuple, given))
    clinic.staff().execute("update appointments set reason = 'x', patient_id = %s where id = %s", [NEW, booked])
    assert tokens(clinic, booked) == [
        ("Appointment.actor", "Patient", str(NEW)),
        ("Appointment.actor+", "Patient", "2"),
    ]
    clinic.staff().execute("delete from appointments where id = %s", [booked])
    assert tokens(clinic, booked) == []


def test_service_types_are_tokens_until_a_kept_form_says_more(clinic: Clinic) -> None:
    schedule = clinic.schedule(clinic.staff(), service_types=["http://a|b|c", "d"])
    assert tokens(clinic, schedule) == [
        ("Schedule.service-type", "", "d"), ("Schedule.service-type", "http://a|b", "c"),
    ]  # fmt: skip
    clinic.staff().execute("update schedules set service_types = '{e}' where id = %s", [schedule])
    assert tokens(clinic, schedule) == [("Schedule.service-type", "", "e")]


def test_two_tables_may_share_an_id(clinic: Clinic) -> None:
    given = Jsonb([["Appointment.identifier", "", "x"]])
    booked = make(clinic, "appointments", kept("comment"), fhir_tokens=given)
    make(clinic, "waitlist_entries", kept("comment"), fhir_tokens=given, id=booked)
    clinic.staff().execute("delete from waitlist_entries where id = %s", [booked])
    assert len(tokens(clinic, booked)) == 1


@pytest.mark.parametrize(("timezone", "zone"), [("Asia/Tokyo", "Asia/Tokyo"), ("Mars/Olympus", "UTC"), ("UTC", "UTC")])
def test_the_zone_is_one_that_postgresql_knows(clinic: Clinic, timezone: str, zone: str) -> None:
    schedule = clinic.schedule(clinic.staff(), timezone=timezone)
    assert clinic.get("schedules", schedule, "zone") == zone
    clinic.staff().execute("update schedules set timezone = 'Europe/Berlin' where id = %s", [schedule])
    assert clinic.get("schedules", schedule, "zone") == "Europe/Berlin"
