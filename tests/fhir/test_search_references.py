"""References in searches (R4 3.1.1.4.12, 3.1.1.4.14, 3.1.1.4.15): every form of a reference, chains and _has."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from clinic import Clinic, appointment, name, refusal, row_id

UUID_1 = "11111111-1111-4111-8111-111111111111"
ELSEWHERE = "https://elsewhere.example/fhir"
ME = {"reference": "Patient/me"}


def _actors(*references: Any) -> list[dict[str, Any]]:
    listed = ({"reference": each} if isinstance(each, str) else each for each in references)
    return [{"actor": actor, "status": "accepted"} for actor in listed]


@pytest.fixture(scope="module")
def appointments(shared: Clinic) -> dict[str, str]:
    """Appointments by name; who takes part stands beside it. All but the last seven have the patient `me`."""

    def made(*actors: Any, **elements: Any) -> str:
        return name(shared.create(appointment(status="proposed", participant=_actors(*actors), **elements)))

    found = {
        "doctor": made("Patient/me", f"Practitioner/{UUID_1}"),
        "doctor 123": made("Patient/me", "Practitioner/123"),
        "role": made("Patient/me", f"PractitionerRole/{UUID_1}"),
        "location": made("Patient/me", "Location/123"),
        "service": made("Patient/me", "HealthcareService/123"),
        "device": made("Patient/me", "Device/123"),
        "related": made("Patient/me", f"RelatedPerson/{UUID_1}"),
        "elsewhere": made("Patient/me", f"{ELSEWHERE}/Practitioner/123"),
        "urn": made("Patient/me", {"reference": f"urn:uuid:{UUID_1}", "type": "Practitioner"}),
        "identified": made("Patient/me", {"type": "Practitioner", "identifier": {"system": "urn:gln", "value": "76"}}),
        "two doctors": made("Patient/me", "Practitioner/9", f"Practitioner/{UUID_1}"),
        "ours": made("Patient/me", f"{shared.base}/Practitioner/123"),
        "versioned": made("Patient/me", "Practitioner/123/_history/7"),
        "uuid patient": made(f"Patient/{UUID_1}"),
        "patient 123": made("Patient/123"),
        "two patients": made("Patient/9", f"Patient/{UUID_1}"),
        "patient elsewhere": made(f"{ELSEWHERE}/Patient/123"),
        "patient by identifier": made({"type": "Patient", "identifier": {"system": "urn:ahv", "value": "756.1"}}),
        "patient by both": made({"reference": "Patient/123", "identifier": {"system": "urn:ahv", "value": "756.2"}}),
        "waiting": name(
            shared.create(appointment(status="waitlist", participant=_actors(f"Patient/{UUID_1}", "Practitioner/123")))
        ),
    }
    (row,) = shared.sql(
        """insert into appointments (tenant_id, patient_id, provider_id, location_id, created_by, status)
           values (%s, %s, %s, %s, gen_random_uuid(), 'proposed') returning id""",
        shared.tenant,
        UUID_1,
        UUID_1,
        UUID_1,
    )
    found["other program"] = f"Appointment/apt-{row[0]}"
    return found


MINE = frozenset(
    [
        "doctor",
        "doctor 123",
        "role",
        "location",
        "service",
        "device",
        "related",
        "elsewhere",
        "urn",
        "identified",
        "two doctors",
        "ours",
        "versioned",
    ]
)
UUID_PATIENTS = {"uuid patient", "two patients", "waiting", "other program"}
DOCTOR_123 = {"doctor 123", "ours", "versioned", "waiting"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("patient=me", MINE),
        ("patient=Patient/me", MINE),
        ("patient={base}/Patient/me", MINE),
        ("patient:Patient=me", MINE),
        ("patient=Patient/me/_history/2", MINE),
        ("patient=ME", set()),
        ("patient=Patient/123", {"patient 123", "patient by both"}),
        ("patient=123", {"patient 123", "patient by both"}),
        (f"patient={ELSEWHERE}/Patient/123", {"patient elsewhere"}),
        (f"patient=Patient/{UUID_1}", UUID_PATIENTS),
        (f"patient={UUID_1}", UUID_PATIENTS),
        (f"patient={UUID_1.upper()}", UUID_PATIENTS),
        ("patient=123,9", {"patient 123", "patient by both", "two patients"}),
        (f"patient=Patient/123,{ELSEWHERE}/Patient/123", {"patient 123", "patient by both", "patient elsewhere"}),
        (f"patient=9&patient={UUID_1}", {"two patients"}),
        ("patient=Practitioner/123", set()),
        ("patient:identifier=urn:ahv|756.1", {"patient by identifier"}),
        ("patient:identifier=756.2", {"patient by both"}),
        ("patient:identifier=urn:ahv|", {"patient by identifier", "patient by both"}),
        ("patient:identifier=urn:gln|76", set()),
        ("patient.identifier=urn:ahv|756.1", {"patient by identifier"}),
        ("practitioner.identifier=urn:gln|76", {"identified"}),
        ("patient:missing=true", set()),
        (f"practitioner={UUID_1}", {"doctor", "two doctors", "other program"}),
        (f"practitioner=Practitioner/{UUID_1}", {"doctor", "two doctors", "other program"}),
        ("practitioner=123", DOCTOR_123),
        ("practitioner=Practitioner/123", DOCTOR_123),
        ("practitioner={base}/Practitioner/123", DOCTOR_123),
        ("practitioner=Practitioner/123/_history/1", DOCTOR_123),
        (f"practitioner={ELSEWHERE}/Practitioner/123", {"elsewhere"}),
        (f"practitioner=urn:uuid:{UUID_1}", {"urn"}),
        ("practitioner:identifier=urn:gln|76", {"identified"}),
        ("practitioner:identifier=urn:ahv|756.1", set()),
        ("practitioner=9", {"two doctors"}),
        (f"practitioner=PractitionerRole/{UUID_1}", set()),
        (
            "practitioner:missing=false",
            MINE - {"location", "service", "device", "related"} | {"waiting", "other program"},
        ),
        ("location=123", {"location"}),
        ("location=Location/123", {"location"}),
        (f"location={UUID_1}", {"other program"}),
        ("location=HealthcareService/123", set()),
        ("location:missing=false", {"location", "other program"}),
        (
            f"actor={UUID_1}",
            UUID_PATIENTS | {"doctor", "two doctors", "role", "related"},
        ),
        (f"actor=PractitionerRole/{UUID_1}", {"role"}),
        (f"actor:PractitionerRole={UUID_1}", {"role"}),
        (f"actor=RelatedPerson/{UUID_1}", {"related"}),
        (f"actor=Practitioner/{UUID_1}", {"doctor", "two doctors", "other program"}),
        (f"actor=Patient/{UUID_1}", UUID_PATIENTS),
        ("actor=Device/123", {"device"}),
        ("actor=HealthcareService/123", {"service"}),
        ("actor:Location=123", {"location"}),
        (
            "actor=123",
            DOCTOR_123 | {"location", "service", "device", "patient 123", "patient by both"},
        ),
        (f"actor={ELSEWHERE}/Practitioner/123", {"elsewhere"}),
        ("actor:identifier=urn:gln|76", {"identified"}),
        ("actor=Patient/me&actor=Device/123", {"device"}),
        ("actor=Patient/me&practitioner=123", DOCTOR_123 - {"waiting"}),
        ("actor:missing=true", set()),
        ("actor=Patient/nobody", set()),
        (f"actor={ELSEWHERE}/nobody/1", set()),
    ],
)
def test_a_reference_finds(shared: Clinic, appointments: dict[str, str], query: str, found: set[str]) -> None:
    labels = {resource: label for label, resource in appointments.items()}
    listed = shared.found("Appointment?" + query.format(base=shared.base))
    assert len(listed) == len(set(listed))
    assert {labels[resource] for resource in listed} == found


@pytest.mark.parametrize(
    "query",
    [
        "patient:Practitioner=1",
        "patient:Patient=Practitioner/1",
        "actor:Location=Device/1",
        "actor:Nonsense=1",
        "patient:not=1",
        "patient:above=1",
        "patient=%23contained",
        "patient=a b",
        "patient=a%00",
        "slot:identifier=a%5Cb",
        "actor:Slot=1",
        "supporting-info:Nonsense=1",
        "based-on:ServiceRequest=Patient/1",
        "patient:exact=1",
    ],
)
def test_what_is_no_reference_is_400(shared: Clinic, query: str) -> None:
    refusal(shared.http.get(f"Appointment?{query}"), 400)


@pytest.mark.parametrize(
    ("parameter", "element", "target"),
    [
        ("based-on", "basedOn", "ServiceRequest"),
        ("reason-reference", "reasonReference", "Condition"),
        ("reason-reference", "reasonReference", "ImmunizationRecommendation"),
        ("supporting-info", "supportingInformation", "DiagnosticReport"),
    ],
)
def test_references_of_no_column_are_found(clinic: Clinic, parameter: str, element: str, target: str) -> None:
    made = clinic.create(
        appointment() | {element: [{"reference": f"{target}/1"}, {"reference": f"{ELSEWHERE}/{target}/2"}]}
    )
    other = clinic.create(appointment() | {element: [{"identifier": {"system": "urn:x", "value": "3"}}]})
    for text in ("1", f"{target}/1", f"{clinic.base}/{target}/1", f"{ELSEWHERE}/{target}/2"):
        assert clinic.found(f"Appointment?{parameter}={text}") == [name(made)], text
    assert clinic.found(f"Appointment?{parameter}:{target}=1") == [name(made)]
    assert clinic.found(f"Appointment?{parameter}=2") == []
    assert clinic.found(f"Appointment?{parameter}=Patient/1") == []
    assert clinic.found(f"Appointment?{parameter}:identifier=urn:x|3") == [name(other)]
    plain = clinic.create(appointment())
    assert clinic.found(f"Appointment?{parameter}:missing=true") == [name(plain)]


@pytest.fixture(scope="module")
def schedules(shared: Clinic) -> dict[str, str]:
    """Schedules by name."""

    def made(*actors: Any) -> str:
        return name(shared.schedule(actor=[{"reference": a} if isinstance(a, str) else a for a in actors]))

    found = {
        "doctor": made(f"Practitioner/{UUID_1}"),
        "role": made(f"PractitionerRole/{UUID_1}"),
        "location": made(f"Location/{UUID_1}"),
        "service": made(f"HealthcareService/{UUID_1}"),
        "device": made(f"Device/{UUID_1}"),
        "doctor at location": made("Practitioner/123", f"Location/{UUID_1}"),
        "two doctors": made("Practitioner/9", "Practitioner/123"),
        "patient first": made("Patient/1", f"Practitioner/{UUID_1}"),
        "identified": made({"type": "Location", "identifier": {"system": "urn:gln", "value": "76"}}),
        "elsewhere": made(f"{ELSEWHERE}/Location/1"),
    }
    for kind in ("provider", "location", "device"):
        (row,) = shared.sql(
            "insert into schedules (tenant_id, actor_id, actor_type) values (%s, %s, %s) returning id",
            shared.tenant,
            UUID_1,
            kind,
        )
        found[f"other program's {kind}"] = f"Schedule/sch-{row[0]}"
    return found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (f"actor=Practitioner/{UUID_1}", {"doctor", "patient first", "other program's provider"}),
        (f"actor=PractitionerRole/{UUID_1}", {"role"}),
        (f"actor=Location/{UUID_1}", {"location", "doctor at location", "other program's location"}),
        (f"actor=HealthcareService/{UUID_1}", {"service"}),
        (f"actor:Device={UUID_1}", {"device", "other program's device"}),
        (
            f"actor={UUID_1}",
            {"doctor", "role", "location", "service", "device", "doctor at location", "patient first"}
            | {"other program's provider", "other program's location", "other program's device"},
        ),
        ("actor=Practitioner/123", {"doctor at location", "two doctors"}),
        ("actor=123", {"doctor at location", "two doctors"}),
        ("actor=Patient/1", {"patient first"}),
        ("actor:identifier=urn:gln|76", {"identified"}),
        (f"actor={ELSEWHERE}/Location/1", {"elsewhere"}),
        ("actor=Location/1", set()),
        (f"actor=Practitioner/123&actor=Location/{UUID_1}", {"doctor at location"}),
        (f"actor=Practitioner/9,PractitionerRole/{UUID_1}", {"two doctors", "role"}),
        ("actor:missing=true", set()),
    ],
)
def test_a_schedule_is_found_by_its_actors(
    shared: Clinic, schedules: dict[str, str], query: str, found: set[str]
) -> None:
    labels = {resource: label for label, resource in schedules.items()}
    listed = shared.found(f"Schedule?{query}")
    assert len(listed) == len(set(listed))
    assert {labels[resource] for resource in listed} == found


# chains


@pytest.fixture(scope="module")
def chained(shared: Clinic) -> dict[str, dict[str, Any]]:
    """Two schedules with a slot and an appointment each, an exception, and an appointment in two slots."""
    kathmandu = shared.schedule(zone="Asia/Kathmandu", serviceType=[{"coding": [{"code": "57"}]}])
    berlin = shared.schedule(active=False, actor=[{"reference": "Practitioner/b"}, {"reference": "Location/b"}])
    one, two = (shared.slot(kathmandu, f"2026-06-02T{hour}:00:00Z") for hour in ("09", "10"))
    three, four = (shared.slot(berlin, f"2026-06-02T{hour}:00:00Z") for hour in ("09", "10"))
    (row,) = shared.sql(
        """insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at)
           values (%s, %s, '2026-06-03T09:00Z', '2026-06-03T10:00Z') returning id""",
        shared.tenant,
        row_id(berlin),
    )
    return {
        "kathmandu": kathmandu,
        "berlin": berlin,
        "one": one,
        "two": two,
        "three": three,
        "four": four,
        "exception": {"resourceType": "Slot", "id": f"exc-{row[0]}"},
        "first": shared.booked(one, identifier=[{"value": "first"}]),
        "pair": shared.booked(two, three, patient="Patient/pair", start=three["start"], end=two["end"]),
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("Slot?schedule.actor=Practitioner/b", ["three", "four", "exception"]),
        ("Slot?schedule.actor=Location/b", ["three", "four", "exception"]),
        ("Slot?schedule.actor:Location=b", ["three", "four", "exception"]),
        ("Slot?schedule.actor:Practitioner=b", ["three", "four", "exception"]),
        ("Slot?schedule:Schedule.actor=Practitioner/b", ["three", "four", "exception"]),
        ("Slot?schedule.actor=Practitioner/b&status=free", ["four"]),
        ("Slot?schedule.actor=Practitioner/b&start=2026-06-02", ["three", "four"]),
        ("Slot?schedule.actor=Practitioner/nobody", []),
        ("Slot?schedule.service-type=57", ["one", "two"]),
        ("Slot?schedule.active=false&status=busy-unavailable", ["exception"]),
        ("Slot?schedule.service-type=57&schedule.active=true", ["one", "two"]),
        ("Slot?schedule.service-type=57&schedule.active=false", []),
        ("Slot?schedule._id={kathmandu}", ["one", "two"]),
        ("Slot?schedule.identifier=urn:fhir-sched:id|sch_{kathmandu_row}", ["one", "two"]),
        ("Slot?schedule={kathmandu}&start=2026-06-02T15:45", ["two"]),
        ("Appointment?slot={one}", ["first"]),
        ("Appointment?slot=Slot/{three}", ["pair"]),
        ("Appointment?slot={two},{one}&_sort=_lastUpdated", ["first", "pair"]),
        ("Appointment?slot.schedule={berlin}", ["pair"]),
        ("Appointment?slot.schedule=Schedule/{kathmandu}&_sort=_lastUpdated", ["first", "pair"]),
        ("Appointment?slot.schedule.actor=Practitioner/b", ["pair"]),
        ("Appointment?slot.schedule.actor:Location=b", ["pair"]),
        ("Appointment?slot.status=busy&_sort=_lastUpdated", ["first", "pair"]),
        ("Appointment?slot.start=2026-06-02T09:00:00Z&_sort=_lastUpdated", ["first", "pair"]),
        ("Appointment?slot.status=free", []),
        ("Slot?_has:Appointment:slot:status=booked&_sort=start,_lastUpdated", ["one", "three", "two"]),
        ("Slot?_has:Appointment:slot:patient=Patient/pair", ["three", "two"]),
        ("Slot?_has:Appointment:slot:identifier=first", ["one"]),
        ("Slot?_has:Appointment:slot:status=cancelled", []),
        ("Schedule?_has:Slot:schedule:status=free", ["berlin"]),
        ("Schedule?_has:Slot:schedule:status=busy-unavailable", ["berlin"]),
        ("Schedule?_has:Slot:schedule:start=2026-06-03T09:00:00Z", ["berlin"]),
        ("Schedule?_has:Slot:schedule:_has:Appointment:slot:identifier=first", ["kathmandu"]),
        (
            "Schedule?_has:Slot:schedule:_has:Appointment:slot:patient=Patient/pair&_sort=_lastUpdated",
            ["kathmandu", "berlin"],
        ),
        ("Schedule?_has:Slot:schedule:status=busy&active=false", ["berlin"]),
        ("Slot?schedule:missing=true", []),
        ("Appointment?slot:missing=true", []),
    ],
)
def test_a_chain_finds(shared: Clinic, chained: dict[str, dict[str, Any]], query: str, found: list[str]) -> None:
    ids = {label: resource["id"] for label, resource in chained.items()}
    url = query.format(**ids, kathmandu_row=row_id(chained["kathmandu"]))
    if url.startswith("Appointment"):  # the other appointments of this module have no slot
        url += "&status=booked"
    assert shared.found(url) == [name(chained[label]) for label in found]


@pytest.mark.parametrize(
    "query",
    [
        "Slot?schedule.nonsense=1",
        "Slot?schedule.actor.name=x",
        "Slot?status.code=1",
        "Slot?schedule:Patient.actor=1",
        "Appointment?patient.name=x",
        "Appointment?actor.name=x",
        "Slot?_has:Appointment:slot=1",
        "Slot?_has:Appointment:nonsense:status=1",
        "Slot?_has:Patient:x:y=1",
        "Slot?_has:Appointment:patient:status=booked",
        "Schedule?_has:Appointment:slot:status=booked",
        "Slot?_has:Appointment:slot:nonsense=1",
        "Appointment?slot.schedule.actor.x.y.z=1",
        "Slot?schedule.=1",
        "Slot?schedule.start=2013-13-01",
        "Slot?_has:Appointment:slot:date=nonsense",
        "Slot?" + "schedule." * 50 + "actor=1",
        "Schedule?" + "_has:Slot:schedule:" * 50 + "status=free",
    ],
)
def test_a_chain_that_leads_nowhere_is_400(shared: Clinic, query: str) -> None:
    for handling in ("strict", "lenient"):
        refusal(shared.http.get(query, headers={"Prefer": f"handling={handling}"}), 400)


def test_a_bare_id_finds_what_a_chain_of_another_tenant_does_not(
    clinic: Clinic, chained: dict[str, dict[str, Any]]
) -> None:
    assert clinic.found("Slot?schedule.actor=Practitioner/b") == []
    assert clinic.found(f"Appointment?slot={chained['one']['id']}") == []
    assert clinic.found(f"Slot?schedule=sch-{uuid4()}") == []
