"""fhirpy, the Python client, walks through our server."""

from __future__ import annotations

from typing import Any

import pytest
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound

from clients.opening import PATIENT, VISITS, Opening


def client(opening: Opening, **headers: str) -> SyncFHIRClient:
    """A client that sends these headers with each request."""
    return SyncFHIRClient(opening.base, extra_headers={key.replace("_", "-"): value for key, value in headers.items()})


def free(opening: Opening) -> list[Any]:
    """The free slots of all pages."""
    found = client(opening).resources("Slot").search(schedule=opening.schedule, status="free")
    return found.sort("start").limit(10).fetch_all()


def appointment(opening: Opening, slot: Any, **elements: Any) -> Any:
    """An appointment in that slot, not saved yet."""
    patient = {"actor": {"reference": f"Patient/{PATIENT}"}, "status": "accepted"}
    times = {"start": slot.start, "end": slot.end}
    made = {"status": "booked", "slot": [slot.to_reference()], **times, "participant": [patient]}
    return client(opening).resource("Appointment", **{**made, **elements})


def test_fhirpy_books_changes_and_deletes(opening: Opening) -> None:
    anyone = client(opening)
    assert anyone.execute("metadata", "get").fhirVersion == "4.0.1"

    slots = free(opening)
    assert len({slot.id for slot in slots}) == 25
    assert anyone.resources("Slot").search(status="free").count() == 25

    booked = appointment(opening, slots[0])
    booked.save()
    assert booked.meta.versionId == "1"
    assert len(free(opening)) == 24
    assert anyone.resources("Appointment").search(patient=PATIENT).first() == booked
    assert booked.slot[0].to_resource().status == "busy"

    careful = client(opening, If_Match='W/"1"')
    changed = careful.resource("Appointment", **{**booked, "description": "Brings the referral"})
    changed.save()
    assert (changed.meta.versionId, changed.description) == ("2", "Brings the referral")
    booked.refresh()
    assert booked.description == "Brings the referral"
    booked.refresh()  # nothing new: 304
    with pytest.raises(MultipleResourcesFound, match="conflict"):  # so it calls every 412
        careful.save(changed)

    operations: Any = [{"op": "replace", "path": "/status", "value": "arrived"}]
    patching = client(opening, Content_Type="application/json-patch+json")
    assert patching.execute(booked.reference, "patch", data=operations).status == "arrived"
    with pytest.raises(OperationOutcome, match="Parameters"):  # its own patch is none that R4 knows
        booked.patch(description="x")

    history = anyone.execute(f"{booked.reference}/_history", "get")
    assert [entry.resource.meta.versionId for entry in history.entry] == ["3", "2", "1"]

    # It writes the criteria of a conditional create into the URL, where R4 has none, so the header has to say them too.
    once = client(opening, If_None_Exist=f"identifier={VISITS}|fhirpy").resources("Appointment")
    identified = appointment(opening, slots[1], identifier=[{"system": VISITS, "value": "fhirpy"}])
    first, created = once.search(identifier=f"{VISITS}|fhirpy").get_or_create(identified)
    again, created_again = once.search(identifier=f"{VISITS}|fhirpy").get_or_create(identified)
    assert (created, created_again, again == first) == (True, False, True)

    entry = [
        {"resource": appointment(opening, slots[2]).serialize(), "request": {"method": "POST", "url": "Appointment"}},
        {"resource": appointment(opening, slots[0]).serialize(), "request": {"method": "POST", "url": "Appointment"}},
    ]
    answer = anyone.execute("", data={"resourceType": "Bundle", "type": "batch", "entry": entry})
    assert [each.response.status[:3] for each in answer.entry] == ["201", "409"]

    booked.delete()
    with pytest.raises(ResourceNotFound, match="deleted"):
        anyone.reference("Appointment", booked.id).to_resource()
    assert len(free(opening)) == 23
