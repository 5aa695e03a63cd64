"""create (R4 3.1.0.8): what is made, what the server answers, what it ignores and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from clinic import DOCTOR, EXTENSION, PATIENT, Clinic, appointment, as_resource, name, refusal, row_id, schedule, slot

EXCEPTION = {"url": EXTENSION + "schedule-exception-type", "valueCode": "training"}


def test_201_with_location_etag_and_the_resource(clinic: Clinic) -> None:
    answer = clinic.http.post("Schedule", json=schedule())
    made = as_resource(answer)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{clinic.base}/Schedule/{made['id']}/_history/1"
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["last-modified"].endswith("GMT")
    assert made["meta"]["versionId"] == "1"


@pytest.mark.parametrize(
    ("prefer", "body"),
    [
        ("return=minimal", ""),
        ("return=representation", "Schedule"),
        ("return=OperationOutcome", "OperationOutcome"),
        ("respond-async, return=minimal", ""),
        ("return=nonsense", "Schedule"),
        ("", "Schedule"),
    ],
)
def test_prefer_says_what_comes_back(clinic: Clinic, prefer: str, body: str) -> None:
    answer = clinic.http.post("Schedule", json=schedule(), headers={"Prefer": prefer})
    assert answer.status_code == 201
    assert answer.headers["location"]
    assert (as_resource(answer)["resourceType"] if answer.content else "") == body


def test_the_clients_id_version_and_time_are_ignored(clinic: Clinic) -> None:
    meta = {"versionId": "77", "lastUpdated": "2001-01-01T00:00:00Z", "tag": [{"code": "kept"}]}
    made = clinic.create(schedule(id="mine", meta=meta))
    assert made["id"] != "mine"
    assert made["meta"]["versionId"] == "1"
    assert made["meta"]["lastUpdated"] > "2026"
    assert made["meta"]["tag"] == [{"code": "kept"}]


@pytest.mark.parametrize("extension", [{"url": EXTENSION + "appointment-source", "valueCode": "hl7"}])
def test_the_source_is_the_servers_to_say(clinic: Clinic, extension: dict[str, Any]) -> None:
    made = clinic.create(appointment(extension=[extension]))
    assert made["extension"] == [{"url": EXTENSION + "appointment-source", "valueCode": "staff"}]


def test_the_columns_of_other_programs_say_what_the_appointment_says(clinic: Clinic) -> None:
    first = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")
    clinic.booked(
        first,
        doctor=DOCTOR,
        appointmentType={"coding": [{"code": "FOLLOWUP"}]},
        reasonCode=[{"text": "Headache"}],
        extension=[{"url": EXTENSION + "allow-double-booking", "valueBoolean": True}],
    )
    columns = """patient_id::text, provider_id::text, slot_id, schedule_id, appointment_type, status, reason,
                 start_at::text, allow_double_booking, source, version"""
    assert clinic.sql(f"select {columns} from appointments where tenant_id = %s", clinic.tenant) == [
        (
            PATIENT.partition("/")[2],
            DOCTOR.partition("/")[2],
            row_id(first),
            row_id({"id": first["schedule"]["reference"].partition("/")[2]}),
            "FOLLOWUP",
            "booked",
            "Headache",
            "2026-06-02 09:00:00+00",
            True,
            "staff",
            1,
        )
    ]


def test_a_slot_with_the_exceptions_extension_makes_a_schedule_exception(clinic: Clinic) -> None:
    of = clinic.schedule()
    made = clinic.create(
        slot(of, "2026-06-02T09:00:00Z", 60, status="busy-unavailable", comment="First aid", extension=[EXCEPTION])
    )
    assert made["id"].startswith("exc-")
    assert (made["status"], made["comment"], made["extension"]) == ("busy-unavailable", "First aid", [EXCEPTION])
    rows = clinic.sql("select schedule_id, reason, type from schedule_exceptions where id = %s", row_id(made))
    assert rows == [(row_id(of), "First aid", "training")]


def test_an_appointment_of_status_waitlist_makes_a_waitlist_entry(clinic: Clinic) -> None:
    criteria = '{"days": ["mon"]}'
    made = clinic.create(
        appointment(
            status="waitlist",
            priority=2,
            comment="Mornings",
            appointmentType={"coding": [{"code": "ROUTINE"}]},
            extension=[{"url": EXTENSION + "waitlist-criteria", "valueString": criteria}],
        )
    )
    assert made["id"].startswith("wl-")
    assert (made["status"], made["priority"], made["comment"]) == ("waitlist", 2, "Mornings")
    rows = clinic.sql(
        """select patient_id::text, appointment_type, priority, note, status, criteria->'days'
           from waitlist_entries where id = %s""",
        row_id(made),
    )
    assert rows == [(PATIENT.partition("/")[2], "ROUTINE", 2, "Mornings", "waiting", ["mon"])]


def test_a_waitlist_entry_needs_no_appointment_type(clinic: Clinic) -> None:
    made = clinic.create(appointment(status="waitlist"))
    assert "appointmentType" not in made
    assert clinic.read(made) == made


RULES = [
    (
        "a patient",
        appointment(participant=[{"actor": {"reference": DOCTOR}, "status": "accepted"}]),
        "Appointment.participant",
    ),
    ("start before end", appointment(start="2026-06-02T10:00:00Z"), "Appointment.start"),
    ("a time that lasts", appointment(start="2026-06-02T09:15:00Z"), "Appointment.start"),
    (
        "a slot that exists",
        appointment(slot=[{"reference": "Slot/slt-00000000-0000-4000-8000-000000000000"}]),
        "Appointment.slot",
    ),
    ("a slot of this server", appointment(slot=[{"reference": "Slot/1"}]), "Appointment.slot[0].reference"),
    (
        "a slot of this very server",
        appointment(
            slot=[{"reference": "https://elsewhere.example/fhir/Slot/slt-00000000-0000-4000-8000-000000000000"}]
        ),
        "Appointment.slot[0].reference",
    ),
    ("a slot that is named", appointment(slot=[{"display": "the one at nine"}]), "Appointment.slot[0].reference"),
    ("a schedulable actor", schedule(actor=[{"reference": "Patient/1"}]), "Schedule.actor"),
    (
        "a known time zone",
        schedule(extension=[{"url": EXTENSION + "schedule-timezone", "valueCode": "Mars/Olympus"}]),
        "Schedule.extension",
    ),
    (
        "a zone, not an offset",
        schedule(extension=[{"url": EXTENSION + "schedule-timezone", "valueCode": "+02:00"}]),
        "Schedule.extension",
    ),
    (
        "one time zone",
        schedule(extension=[{"url": EXTENSION + "schedule-timezone", "valueCode": "UTC"}] * 2),
        "Schedule.extension",
    ),
    (
        "a rule with days",
        schedule(
            extension=[
                {
                    "url": EXTENSION + "schedule-availability",
                    "extension": [{"url": "startTime", "valueTime": "09:00:00"}],
                }
            ]
        ),
        "Schedule.extension",
    ),
    (
        "criteria that are JSON",
        appointment(status="waitlist", extension=[{"url": EXTENSION + "waitlist-criteria", "valueString": "mon"}]),
        "Appointment.extension",
    ),
]


@pytest.mark.parametrize(("rule", "resource", "where"), RULES, ids=[rule for rule, _, _ in RULES])
def test_a_broken_rule_of_scheduling_is_422_with_its_place(
    clinic: Clinic, rule: str, resource: dict[str, Any], where: str
) -> None:
    issues = refusal(clinic.http.post(resource["resourceType"], json=resource), 422)
    assert [issue["code"] for issue in issues] == ["business-rule"], rule
    assert issues[0]["expression"] == [where]


def test_a_slot_needs_a_schedule_that_exists(clinic: Clinic) -> None:
    nowhere = {"resourceType": "Schedule", "id": "sch-00000000-0000-4000-8000-000000000000"}
    issues = refusal(clinic.http.post("Slot", json=slot(nowhere, "2026-06-02T09:00:00Z")), 422)
    assert issues[0]["expression"] == ["Slot.schedule"] or "schedule" in issues[0]["diagnostics"]


def test_a_schedule_of_another_tenant_does_not_exist_here(clinic: Clinic, shared: Clinic) -> None:
    theirs = shared.schedule()
    refusal(clinic.http.post("Slot", json=slot(theirs, "2026-06-02T09:00:00Z")), 422)


def test_a_slot_of_another_tenant_does_not_exist_here(clinic: Clinic, shared: Clinic) -> None:
    theirs = shared.slot(shared.schedule(), "2026-06-02T09:00:00Z")
    refusal(clinic.book(theirs), 422)
    assert shared.read(theirs)["status"] == "free"


def test_an_extension_that_blocks_time_can_not_be_free(clinic: Clinic) -> None:
    body = slot(clinic.schedule(), "2026-06-02T09:00:00Z", extension=[EXCEPTION])
    assert refusal(clinic.http.post("Slot", json=body), 422)[0]["expression"] == ["Slot.status"]


@pytest.mark.parametrize(
    "reference",
    ["{name}", "{base}/{name}", "{name}/_history/1"],
)
def test_our_own_resources_are_named_relative_absolute_or_by_version(clinic: Clinic, reference: str) -> None:
    of = clinic.schedule()
    text = reference.format(name=name(of), base=clinic.base)
    made = clinic.create(slot(of, "2026-06-02T09:00:00Z", schedule={"reference": text}))
    assert made["schedule"] == {"reference": text}
    assert clinic.found(f"Slot?schedule={of['id']}") == [name(made)]


def test_a_slot_is_named_by_its_business_identifier(clinic: Clinic) -> None:
    first = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")
    reference = {"identifier": {"system": "urn:fhir-sched:id", "value": first["id"].replace("-", "_", 1)}}
    made = clinic.create(appointment(first, slot=[reference]))
    assert made["slot"] == [reference]
    assert clinic.read(first)["status"] == "busy"


@pytest.mark.parametrize("actor", ["Practitioner", "PractitionerRole", "Location", "HealthcareService", "Device"])
def test_each_kind_of_actor_has_a_schedule_and_its_word_for_other_programs(clinic: Clinic, actor: str) -> None:
    made = clinic.create(schedule(actor=[{"reference": "Patient/1"}, {"reference": f"{actor}/77", "display": "x"}]))
    assert made["actor"] == [{"reference": "Patient/1"}, {"reference": f"{actor}/77", "display": "x"}]
    word = {"Practitioner": "provider", "PractitionerRole": "provider", "Device": "device"}.get(actor, "location")
    assert clinic.sql("select actor_type from schedules where id = %s", row_id(made)) == [(word,)]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/fhir+json", 201),
        ("application/fhir+json; charset=utf-8", 201),
        ("application/fhir+json; charset=UTF-8; fhirVersion=4.0", 201),
        ("application/json", 201),
        ("text/json", 201),
        ("application/fhir+json; fhirVersion=5.0", 415),
        ("application/fhir+json; charset=latin-1", 415),
        ("application/fhir+turtle", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("nonsense", 415),
    ],
)
def test_the_body_has_a_format_that_is_read(clinic: Clinic, content_type: str, status: int) -> None:
    answer = clinic.http.post("Schedule", json=schedule(), headers={"Content-Type": content_type})
    if status == 201:
        assert answer.status_code == 201
    else:
        refusal(answer, status)


def test_a_body_of_another_type_is_400(clinic: Clinic) -> None:
    assert refusal(clinic.http.post("Slot", json=schedule()), 400)


def test_no_status_of_an_exceptions_slot_but_unavailable_is_possible(clinic: Clinic) -> None:
    of = clinic.schedule()
    for status in ("free", "busy", "busy-tentative", "entered-in-error"):
        body = slot(of, "2026-06-02T09:00:00Z", status=status, extension=[EXCEPTION])
        refusal(clinic.http.post("Slot", json=body), 422)
