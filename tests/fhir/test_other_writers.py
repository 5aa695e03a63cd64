"""Rows that other programs write and change: served as valid R4, kept forms give way to what the columns say now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clinic import DOCTOR, EXTENSION, PATIENT, Clinic, Resource, appointment, as_resource, name, row_id
from fhir_sched.validate import resource_issues

NINE, TEN = "2026-06-02T09:00:00Z", "2026-06-02T10:00:00Z"
ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
PREFIXES = {
    "schedules": "sch",
    "slots": "slt",
    "schedule_exceptions": "exc",
    "appointments": "apt",
    "waitlist_entries": "wl",
}
TYPES = {"sch": "Schedule", "slt": "Slot", "exc": "Slot", "apt": "Appointment", "wl": "Appointment"}


def _insert(clinic: Clinic, table: str, **columns: Any) -> str:
    """`Type/id` of a row that another program inserts."""
    columns = {"tenant_id": clinic.tenant, **columns}
    places = ", ".join(["%s"] * len(columns))
    (row,) = clinic.sql(f"insert into {table} ({', '.join(columns)}) values ({places}) returning id", *columns.values())
    prefix = PREFIXES[table]
    return f"{TYPES[prefix]}/{prefix}-{row[0]}"


def _change(clinic: Clinic, resource: Resource, assignments: str) -> Resource:
    """The resource after another program's update."""
    table = {prefix: table for table, prefix in PREFIXES.items()}[resource["id"].partition("-")[0]]
    clinic.sql(f"update {table} set {assignments} where id = %s", row_id(resource))
    return _valid(clinic, name(resource))


def _valid(clinic: Clinic, reference: str) -> Resource:
    shown = clinic.read(reference)
    issues = resource_issues(shown, shown["resourceType"])
    assert issues == [], issues
    assert matches_itself(clinic, shown)
    return shown


def matches_itself(clinic: Clinic, shown: Resource) -> bool:
    """Whether a search finds the resource as a read shows it."""
    return clinic.matches(f"{shown['resourceType']}?_id={shown['id']}") == [shown]


PERSON = "00000000-0000-4000-8000-0000000000aa"
RULE = {"days": ["mon"], "start": "09:00", "end": "17:00", "slotMinutes": 20}


def _rules(*rules: Any) -> dict[str, Any]:
    """The column with these weekly rules."""
    return {"availability_pattern": json.dumps({"rules": rules})}


SCHEDULES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the least", {}, {"active": True, "actor": [{"reference": f"Practitioner/{PERSON}"}]}),
    ("a location", {"actor_type": "location"}, {"actor": [{"reference": f"Location/{PERSON}"}]}),
    ("a device", {"actor_type": "device"}, {"actor": [{"reference": f"Device/{PERSON}"}]}),
    ("an unknown kind of actor", {"actor_type": "Zimmer 12"}, {"actor": [{"reference": f"Device/{PERSON}"}]}),
    ("no kind of actor", {"actor_type": ""}, {"actor": [{"reference": f"Device/{PERSON}"}]}),
    ("an unknown zone", {"timezone": "Nowhere"}, {}),
    ("an empty zone", {"timezone": ""}, {}),
    ("a zone with spaces", {"timezone": " UTC \n"}, {}),
    ("service types", {"service_types": ["57", "http://x|58", "", " ", "two words", "a|", "|b", "x\u00a0y"]}, {}),
    ("no service types", {"service_types": []}, {}),
    ("a pattern of rules", _rules({**RULE, "appointmentType": None, "validFrom": None, "validTo": None}), {}),
    ("a pattern of another kind", {"availability_pattern": '{"mon": ["09:00-17:00"]}'}, {}),
    ("a pattern that is a list", {"availability_pattern": "[1, null]"}, {}),
    ("a pattern that is a text", {"availability_pattern": '"always"'}, {}),
    ("a pattern that is null", {"availability_pattern": "null"}, {}),
    ("rules that are no list", {"availability_pattern": '{"rules": 7}'}, {}),
    (
        "rules that are half",
        _rules({"days": ["mon"]}, None, 7, {**RULE, "days": "mon"}, {**RULE, "end": 17}, {**RULE, "slotMinutes": "x"}),
        {},
    ),
    (
        "rules with odd parts",
        _rules({**RULE, "days": ["mon", "xyz", 7]}, {**RULE, "end": "24:00"}, {**RULE, "slotMinutes": -5}),
        {},
    ),
    ("a rule without days", _rules({**RULE, "days": []}, {**RULE, "slotMinutes": 0}), {}),
    (
        "a rule with odd dates",
        _rules({**RULE, "appointmentType": "two  words ", "validFrom": "soon", "validTo": ""}),
        {},
    ),
]


@pytest.mark.parametrize(("what", "columns", "shown"), SCHEDULES, ids=[what for what, _, _ in SCHEDULES])
def test_a_schedule_of_another_program_is_valid(
    clinic: Clinic, what: str, columns: dict[str, Any], shown: dict[str, Any]
) -> None:
    made = _valid(clinic, _insert(clinic, "schedules", **{"actor_id": PERSON, "actor_type": "provider", **columns}))
    assert {key: made[key] for key in shown} == shown, what
    answer = clinic.put(made)
    assert answer.status_code in (200, 422), answer.text


SLOTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the least", {}, {"status": "free", "start": NINE, "end": TEN}),
    ("busy", {"status": "busy"}, {"status": "busy"}),
    ("blocked", {"status": "blocked"}, {"status": "busy-unavailable"}),
    ("entered in error", {"status": "entered-in-error"}, {"status": "entered-in-error"}),
    ("an unknown status", {"status": "Reserviert!"}, {"status": "busy-unavailable"}),
    ("no status", {"status": ""}, {"status": "busy-unavailable"}),
    ("a FHIR status", {"status": "busy-tentative"}, {"status": "busy-unavailable"}),
    (
        "a known type",
        {"appointment_type": "ROUTINE"},
        {
            "appointmentType": {
                "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "ROUTINE"}]
            }
        },
    ),
    ("an own type", {"appointment_type": "MRI"}, {"appointmentType": {"coding": [{"code": "MRI"}]}}),
    ("a type in words", {"appointment_type": "A  talk \n"}, {"appointmentType": {"text": "A  talk \n"}}),
    ("an empty type", {"appointment_type": " "}, {}),
    ("an open end", {"end_at": "infinity"}, {"_end": ABSENT}),
    ("an open start", {"start_at": "-infinity"}, {"_start": ABSENT}),
    ("times before Christ", {"start_at": "0044-03-15 09:00:00+00 BC"}, {"_start": ABSENT}),
    ("times after 9999", {"end_at": "12026-06-02T09:00Z"}, {"_end": ABSENT}),
    ("an end before the start", {"end_at": "2020-01-01T00:00Z"}, {"end": "2020-01-01T00:00:00Z"}),
    ("microseconds", {"start_at": "2026-06-02T09:00:00.120034Z"}, {"start": "2026-06-02T09:00:00.120034Z"}),
    ("the first year", {"start_at": "0001-01-01T00:00Z"}, {"start": "0001-01-01T00:00:00Z"}),
]


@pytest.mark.parametrize(("what", "columns", "shown"), SLOTS, ids=[what for what, _, _ in SLOTS])
def test_a_slot_of_another_program_is_valid(
    clinic: Clinic, what: str, columns: dict[str, Any], shown: dict[str, Any]
) -> None:
    of = clinic.schedule()
    given = {"schedule_id": row_id(of), "start_at": NINE, "end_at": TEN, **columns}
    made = _valid(clinic, _insert(clinic, "slots", **given))
    assert {key: made[key] for key in shown} == shown, what
    assert clinic.found(f"Slot?status={made['status']}") == [name(made)]


APPOINTMENTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "the least",
        {},
        {
            "status": "booked",
            "_start": ABSENT,
            "_end": ABSENT,
            "participant": [{"actor": {"reference": f"Patient/{PERSON}"}, "status": "accepted"}],
        },
    ),
    ("a proposal without times", {"status": "proposed"}, {"status": "proposed"}),
    (
        "cancelled with a reason",
        {"status": "cancelled", "cancel_reason": "ill"},
        {"cancelationReason": {"text": "ill"}},
    ),
    ("no-show with a reason", {"status": "noshow", "cancel_reason": "ill"}, {"cancelationReason": {"text": "ill"}}),
    ("booked with a reason for a cancellation", {"cancel_reason": "ill"}, {"status": "booked"}),
    ("an unknown status", {"status": "Storniert"}, {"status": "entered-in-error", "_start": ABSENT}),
    ("a status of the waitlist", {"status": "waitlist"}, {"status": "entered-in-error"}),
    ("start without end", {"start_at": NINE}, {"start": NINE, "_end": ABSENT}),
    ("cancelled with a start alone", {"status": "cancelled", "start_at": NINE}, {"start": NINE}),
    ("proposed with an end alone", {"status": "proposed", "end_at": NINE}, {"end": NINE}),
    ("proposed for ever", {"status": "proposed", "start_at": NINE, "end_at": "infinity"}, {"start": NINE}),
    ("since ever", {"start_at": "-infinity", "end_at": NINE}, {"end": NINE, "_start": ABSENT}),
    ("a reason", {"reason": "Headache"}, {"reasonCode": [{"text": "Headache"}]}),
    ("an empty reason", {"reason": "", "appointment_type": ""}, {}),
    ("a blank reason", {"reason": " \n"}, {}),
    ("a source", {"source": "hl7"}, {"extension": [{"url": EXTENSION + "appointment-source", "valueCode": "hl7"}]}),
    ("an odd source", {"source": "HL7  feed\n"}, {}),
    ("an empty source", {"source": ""}, {}),
    ("double booking", {"allow_double_booking": True}, {}),
    (
        "a practitioner and a place",
        {"provider_id": PERSON, "location_id": PERSON},
        {
            "participant": [
                {"actor": {"reference": f"{kind}/{PERSON}"}, "status": "accepted"}
                for kind in ("Patient", "Practitioner", "Location")
            ]
        },
    ),
    ("made long ago", {"created_at": "-infinity", "updated_at": "infinity"}, {}),
    ("made before Christ", {"created_at": "0044-03-15 BC", "updated_at": "0044-03-15 BC"}, {}),
    ("control characters", {"reason": "a\u0001b\u001fc\u007f"}, {}),
    ("an end before the start", {"start_at": TEN, "end_at": NINE, "provider_id": PERSON}, {"start": TEN, "end": NINE}),
    ("a version of its own", {"version": 17}, {}),
]


@pytest.mark.parametrize(("what", "columns", "shown"), APPOINTMENTS, ids=[what for what, _, _ in APPOINTMENTS])
def test_an_appointment_of_another_program_is_valid(
    clinic: Clinic, what: str, columns: dict[str, Any], shown: dict[str, Any]
) -> None:
    given = {"patient_id": PERSON, "created_by": PERSON, **columns}
    made = _valid(clinic, _insert(clinic, "appointments", **given))
    assert {key: made[key] for key in shown} == shown, what
    assert clinic.found(f"Appointment?status={made['status']}") == [name(made)]


EXCEPTIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "the least",
        {},
        {
            "status": "busy-unavailable",
            "extension": [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}],
        },
    ),
    ("a reason and a type", {"reason": "x", "type": "training"}, {"comment": "x"}),
    ("an empty type", {"type": ""}, {}),
    ("an odd type", {"type": "day  off\n"}, {}),
    ("an empty reason", {"reason": " "}, {}),
    ("for ever", {"end_at": "infinity"}, {"_end": ABSENT}),
    ("an end before the start", {"end_at": "2020-01-01T00:00Z"}, {}),
]


@pytest.mark.parametrize(("what", "columns", "shown"), EXCEPTIONS, ids=[what for what, _, _ in EXCEPTIONS])
def test_a_schedule_exception_is_a_slot(
    clinic: Clinic, what: str, columns: dict[str, Any], shown: dict[str, Any]
) -> None:
    of = clinic.schedule()
    given = {"schedule_id": row_id(of), "start_at": NINE, "end_at": TEN, **columns}
    made = _valid(clinic, _insert(clinic, "schedule_exceptions", **given))
    assert {key: made[key] for key in shown} == shown, what
    assert clinic.found(f"Slot?status=busy-unavailable&schedule={of['id']}") == [name(made)]


WAITLIST: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the least", {}, {"status": "waitlist"}),
    ("an empty type", {"appointment_type": ""}, {}),
    ("fulfilled", {"status": "fulfilled"}, {"status": "fulfilled", "_start": ABSENT, "_end": ABSENT}),
    ("deleted", {"status": "deleted"}, {"status": "cancelled"}),
    ("an unknown status", {"status": "?"}, {"status": "cancelled"}),
    ("priority and note", {"priority": 3, "note": "x"}, {"priority": 3, "comment": "x"}),
    ("a negative priority", {"priority": -3, "note": ""}, {}),
    (
        "criteria",
        {"criteria": '{"days": ["mon"]}'},
        {"extension": [{"url": EXTENSION + "waitlist-criteria", "valueString": '{"days": ["mon"]}'}]},
    ),
    ("criteria that are no object", {"criteria": "[]"}, {}),
    ("criteria null", {"criteria": "null"}, {}),
]


@pytest.mark.parametrize(("what", "columns", "shown"), WAITLIST, ids=[what for what, _, _ in WAITLIST])
def test_a_waitlist_entry_is_an_appointment(
    clinic: Clinic, what: str, columns: dict[str, Any], shown: dict[str, Any]
) -> None:
    given = {"patient_id": PERSON, "created_by": PERSON, "appointment_type": "ROUTINE", **columns}
    made = _valid(clinic, _insert(clinic, "waitlist_entries", **given))
    assert {key: made[key] for key in shown} == shown, what
    assert clinic.found(f"Appointment?status={made['status']}") == [name(made)]


# changes of rows whose resource says more than the columns


def _rich(clinic: Clinic) -> tuple[Resource, Resource, Resource]:
    """A schedule, a slot and an appointment of which much is kept beside the columns."""
    of = clinic.schedule(
        zone="Asia/Kathmandu",
        actor=[{"reference": "Practitioner/123", "display": "Dr"}, {"reference": "Location/1"}],
        serviceType=[{"coding": [{"code": "57", "display": "x"}]}],
        comment="kept",
    )
    slot = clinic.slot(
        of,
        "2026-06-02T09:00:00+02:00",
        appointmentType={"coding": [{"system": "http://own", "code": "A", "display": "x"}]},
        comment="kept",
        status="busy-tentative",
    )
    made = clinic.create(
        appointment(
            patient="Patient/123",
            doctor="Practitioner/123",
            start="2026-06-02T09:00:00+02:00",
            end="2026-06-02T09:15:00.000+02:00",
            status="checked-in",
            appointmentType={"coding": [{"system": "http://own", "code": "A", "display": "x"}]},
            reasonCode=[{"coding": [{"code": "flu"}], "text": "Flu"}],
            description="kept",
            created="2013",
        )
    )
    return of, slot, made


@pytest.mark.parametrize(
    ("assignments", "gone", "shown"),
    [
        ("status = 'fulfilled'", "status=checked-in", {"status": "fulfilled"}),
        (
            "start_at = '2026-06-02T07:05Z'",
            "date=2026-06-02T07:00:00Z",
            {"start": "2026-06-02T07:05:00Z", "end": "2026-06-02T09:15:00.000+02:00"},
        ),
        ("end_at = '2026-06-02T08:00Z'", "", {"end": "2026-06-02T08:00:00Z", "start": "2026-06-02T09:00:00+02:00"}),
        ("start_at = null", "date=2026", {"_start": ABSENT}),
        ("appointment_type = 'B'", "appointment-type=A", {"appointmentType": {"coding": [{"code": "B"}]}}),
        ("appointment_type = null", "appointment-type=A", {}),
        ("reason = 'Cough'", "reason-code=flu", {"reasonCode": [{"text": "Cough"}]}),
        ("reason = null", "reason-code=flu", {}),
        ("created_at = '2014-01-01'", "", {"created": "2014-01-01T00:00:00Z"}),
        (f"patient_id = '{PERSON}'", "patient=Patient/123", {}),
        (f"provider_id = '{PERSON}'", "practitioner=Practitioner/123", {}),
        ("provider_id = null", "practitioner=Practitioner/123", {}),
        (f"location_id = '{PERSON}'", "", {}),
        ("source = 'hl7'", "", {}),
        ("allow_double_booking = true", "", {}),
        ("updated_at = now()", "", {"description": "kept"}),
    ],
)
def test_a_changed_column_rules_over_what_was_kept(
    clinic: Clinic, assignments: str, gone: str, shown: dict[str, Any]
) -> None:
    _, _, made = _rich(clinic)
    changed = _change(clinic, made, assignments)
    assert {key: changed.get(key) for key in shown} == shown
    assert changed["description"] == "kept"
    assert changed["meta"]["versionId"] == "2"
    actors = [part["actor"]["reference"] for part in changed["participant"]]
    if assignments.startswith("patient_id"):
        assert actors == [f"Patient/{PERSON}", "Practitioner/123"]
        assert clinic.found(f"Appointment?patient={PERSON}") == [name(made)]
    if assignments.startswith("provider_id"):
        assert actors == ["Patient/123"] + ([] if "null" in assignments else [f"Practitioner/{PERSON}"])
    if assignments.startswith("location_id"):
        assert actors == ["Patient/123", "Practitioner/123", f"Location/{PERSON}"]
        assert clinic.found(f"Appointment?location={PERSON}") == [name(made)]
    if gone:
        assert clinic.found(f"Appointment?{gone}") == []
    assert clinic.http.get(f"Appointment?_id={made['id']}&patient=Patient/123").json()["total"] == (
        0 if assignments.startswith("patient_id") else 1
    )


def test_a_moved_slot_says_the_column(clinic: Clinic) -> None:
    _, slot, _ = _rich(clinic)
    changed = _change(clinic, slot, "start_at = start_at - interval '1 hour', appointment_type = 'B', status = 'free'")
    assert (changed["start"], changed["end"]) == ("2026-06-02T06:00:00Z", slot["end"])
    assert (changed["status"], changed["comment"]) == ("free", "kept")
    assert changed["appointmentType"] == {"coding": [{"code": "B"}]}
    assert clinic.found("Slot?appointment-type=http://own|A") == []
    assert clinic.found("Slot?appointment-type=B&status=free") == [name(slot)]


def test_a_changed_schedule_says_the_columns(clinic: Clinic) -> None:
    of, _, _ = _rich(clinic)
    changed = _change(
        clinic, of, f"actor_id = '{PERSON}', timezone = 'Europe/Berlin', service_types = '{{58}}', is_active = false"
    )
    assert changed["actor"] == [{"reference": f"Practitioner/{PERSON}"}, {"reference": "Location/1"}]
    assert changed["extension"] == [{"url": EXTENSION + "schedule-timezone", "valueCode": "Europe/Berlin"}]
    assert changed["serviceType"] == [{"coding": [{"code": "58"}]}]
    assert (changed["active"], changed["comment"]) == (False, "kept")
    assert clinic.found("Schedule?service-type=57") == []
    assert clinic.found("Schedule?service-type=58&active=false") == [name(of)]
    assert clinic.found("Schedule?actor=Practitioner/123") == []
    assert clinic.found(f"Schedule?actor=Practitioner/{PERSON}") == [name(of)]
    assert clinic.found("Schedule?actor=Location/1") == [name(of)]


def test_another_kind_of_actor_replaces_the_one_before(clinic: Clinic) -> None:
    of, _, _ = _rich(clinic)
    _change(clinic, of, f"actor_id = '{PERSON}', actor_type = 'device'")
    assert clinic.found("Schedule?actor=Practitioner/123") == []
    assert clinic.found(f"Schedule?actor=Device/{PERSON}") == [name(of)]


def test_a_program_that_names_another_slot_leaves_one_slot(clinic: Clinic) -> None:
    of = clinic.schedule()
    one, two, three = (clinic.slot(of, f"2026-06-02T{hour}:00:00Z") for hour in ("09", "10", "11"))
    made = clinic.booked(one, two)
    changed = _change(clinic, made, f"slot_id = '{row_id(three)}'")
    assert changed["slot"] == [{"reference": name(three)}]
    assert [clinic.read(each)["status"] for each in (one, two, three)] == ["free", "free", "busy"]
    assert clinic.found(f"Appointment?slot={two['id']}") == []
    assert clinic.found(f"Appointment?slot={three['id']}") == [name(made)]


def test_an_exception_and_a_waitlist_entry_say_their_columns(clinic: Clinic) -> None:
    closed = [
        {"url": EXTENSION + "schedule-exception-type", "valueCode": "x"},
        {"url": "http://y", "valueString": "kept"},
    ]
    exception = clinic.slot(
        clinic.schedule(), "2026-06-02T09:00:00+02:00", status="busy-unavailable", extension=closed, comment="a"
    )
    changed = _change(clinic, exception, "type = 'training', reason = 'b', start_at = '2026-06-02T06:00Z'")
    assert (changed["comment"], changed["start"]) == ("b", "2026-06-02T06:00:00Z")
    assert {each["url"]: each.get("valueCode") for each in changed["extension"]} == {
        "http://y": None,
        EXTENSION + "schedule-exception-type": "training",
    }
    criteria = [{"url": EXTENSION + "waitlist-criteria", "valueString": "{ }"}]
    waiting = clinic.create(appointment(status="waitlist", extension=criteria, description="kept"))
    changed = _change(clinic, waiting, "note = 'b', priority = 4, criteria = '{\"a\": 1}', status = 'deleted'")
    assert (changed["comment"], changed["priority"], changed["status"]) == ("b", 4, "cancelled")
    assert changed["description"] == "kept"
    assert changed["extension"] == [{"url": EXTENSION + "waitlist-criteria", "valueString": '{"a": 1}'}]


def test_a_row_that_another_program_deletes_is_410(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    clinic.sql("delete from appointments where id = %s", row_id(made))
    assert clinic.http.get(name(made)).status_code == 410
    assert clinic.found("Appointment") == []


def test_a_row_of_another_program_can_be_written_by_the_api(clinic: Clinic) -> None:
    reference = _insert(clinic, "appointments", patient_id=PERSON, created_by=PERSON, start_at=NINE, end_at=TEN)
    made = clinic.read(reference)
    shown = as_resource(clinic.put({**made, "description": "x", "status": "arrived"}))
    assert (shown["description"], shown["status"], shown["meta"]["versionId"]) == ("x", "arrived", "2")
    (row,) = clinic.sql("select source, created_by::text from appointments where id = %s", row_id(made))
    assert row == ("staff", PERSON)
    assert PATIENT in str(shown)
    assert DOCTOR not in str(shown)


def test_a_pattern_as_deep_as_jsonb_allows_is_no_error(clinic: Clinic) -> None:
    deep = '{"rules": ' + "[" * 3000 + "]" * 3000 + "}"
    _valid(clinic, _insert(clinic, "schedules", actor_id=PERSON, actor_type="provider", availability_pattern=deep))
