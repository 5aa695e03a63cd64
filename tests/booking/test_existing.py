"""ITI-118: existing appointments are found by plain searches, GET and POST, with their total."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from clinic import Clinic, Resource, appointment, as_resource, matches, name

MRN = {"system": "urn:oid:1.2.36.146.595.217.0.1", "value": "12345"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def existing(clinic: Clinic) -> Resource:
    """An appointment whose patient and practitioner are known by identifiers, and another one."""
    own = appointment(clinic.slot(clinic.schedule(), "2031-06-02T09:00:00Z"))
    own["participant"] = [
        {"actor": {"type": "Patient", "identifier": MRN}, "status": "accepted"},
        {"actor": {"type": "Practitioner", "identifier": {**MRN, "value": "PR23143"}}, "status": "accepted"},
        {"actor": {"reference": "Location/1"}, "status": "accepted"},
    ]
    own["specialty"] = [{"coding": [{"system": "http://snomed.info/sct", "code": "394582007"}]}]
    clinic.booked(clinic.slot(clinic.schedule(), "2031-06-02T09:00:00Z"))
    return clinic.create(own)


@pytest.mark.parametrize(
    "query",
    [
        "patient.identifier={mrn}|12345&date=ge2031-06-01&date=le2031-06-30",
        "patient:identifier={mrn}|12345",
        "patient.identifier={mrn}|12345&practitioner.identifier={mrn}|PR23143",
        "patient.identifier={mrn}|12345&location=Location/1&specialty=http://snomed.info/sct|394582007&status=booked",
        "patient.identifier={mrn}|12345&_count=1&_include=Appointment:slot",
    ],
)
def test_an_appointment_is_found_by_get_and_by_post(clinic: Clinic, existing: Resource, query: str) -> None:
    asked = query.format(mrn=MRN["system"])
    found = clinic.bundle(quote(f"Appointment?{asked}", safe="?&=:/|."))
    assert [name(each) for each in matches(found)] == [name(existing)]
    assert (found["type"], found["total"]) == ("searchset", 1)
    posted = as_resource(clinic.http.post("Appointment/_search", content=quote(asked, safe="&=:/"), headers=FORM))
    assert [name(each) for each in matches(posted)] == [name(existing)]


def test_an_identifier_of_a_system_that_nobody_knows_finds_nothing(clinic: Clinic, existing: Resource) -> None:
    found = clinic.bundle("Appointment?patient.identifier=urn:oid:9.9.9%7C12345")
    assert existing
    assert (found["total"], found.get("entry", [])) == (0, [])
