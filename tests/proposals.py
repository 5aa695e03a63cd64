"""What tests of $find, $hold and $book share: the ids of proposals, the calls, and what a searchset of one holds."""

from __future__ import annotations

import httpx

from clinic import EXTENSION, PATIENT, Clinic, Resource, as_resource, name, row_id
from fhir_sched.scheduling.proposal import Proposal


def proposal(slot: Resource, patient: str = PATIENT) -> str:
    """The id that $find gives the appointment in that slot."""
    return Proposal(str(row_id(slot)), (), patient).id


def hold(clinic: Clinic, fhir_id: str) -> httpx.Response:
    return clinic.http.post("Appointment/$hold", json=reference(fhir_id))


def reference(fhir_id: str) -> Resource:
    given = {"name": "appointment-reference", "valueReference": {"reference": f"Appointment/{fhir_id}"}}
    return {"resourceType": "Parameters", "parameter": [given]}


def held(clinic: Clinic, slot: Resource, patient: str = PATIENT) -> Resource:
    answer = hold(clinic, proposal(slot, patient))
    assert answer.status_code == 200, answer.text
    return only(answer)


def only(answer: httpx.Response) -> Resource:
    """The one Appointment of a searchset."""
    bundle = as_resource(answer)
    assert (bundle["resourceType"], bundle["type"], bundle["total"]) == ("Bundle", "searchset", 1)
    (entry,) = bundle["entry"]
    assert entry["search"] == {"mode": "match"}
    assert entry["fullUrl"].endswith(name(entry["resource"]))
    found: Resource = entry["resource"]
    return found


def expiry(appointment: Resource) -> str:
    (found,) = [each for each in appointment["extension"] if each["url"] == EXTENSION + "hold-expires"]
    said: str = found["valueInstant"]
    return said


def end(clinic: Clinic, hold: Resource) -> None:
    """Its time is over, as if it had been held long ago; nobody has cleaned up."""
    clinic.sql(
        "update appointments set hold_expires_at = clock_timestamp() - interval '1 second' where id = %s", row_id(hold)
    )
