"""fhirclient, SMART's Python client, walks through our server."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from fhirclient.client import FHIRClient
from fhirclient.models.appointment import Appointment
from fhirclient.models.bundle import Bundle
from fhirclient.models.slot import Slot

from clients.opening import PATIENT, VISITS, Opening


def free(server: Any, opening: Opening) -> list[Any]:
    """The free slots of all pages."""
    wanted = {"schedule": opening.schedule, "status": "free", "_sort": "start", "_count": "10"}
    return list(Slot.where(wanted).perform_resources_iter(server))


def appointment(slot: Any, **elements: Any) -> Any:
    """An appointment in that slot, not sent yet."""
    shown = slot.as_json()
    patient = {"actor": {"reference": f"Patient/{PATIENT}"}, "status": "accepted"}
    return Appointment(
        {"status": "booked", "slot": [{"reference": slot.relativePath()}], "start": shown["start"], "end": shown["end"]}
        | {"participant": [patient], **elements}
    )


def posted(slot: Any) -> dict[str, Any]:
    """A batch's entry that books the slot."""
    return {"resource": appointment(slot).as_json(), "request": {"method": "POST", "url": "Appointment"}}


def test_fhirclient_books_changes_and_deletes(opening: Opening) -> None:
    smart = FHIRClient(settings={"app_id": "tests", "api_base": opening.base})
    server = smart.server
    assert smart.prepare(), "an open server needs no token"
    assert server.capabilityStatement.fhirVersion == "4.0.1"

    slots = free(server, opening)
    assert len({slot.id for slot in slots}) == 25

    booked = Appointment(appointment(slots[0]).create(server))
    assert booked.meta.versionId == "1"
    assert len(free(server, opening)) == 24
    assert [each.id for each in Appointment.where({"patient": PATIENT}).perform_resources_iter(server)] == [booked.id]

    server.session.headers["If-Match"] = 'W/"1"'
    booked.description = "Brings the referral"
    second = Appointment(booked.update(server))
    assert (second.meta.versionId, second.description) == ("2", "Brings the referral")
    with pytest.raises(requests.HTTPError, match="412"):
        booked.update(server)
    del server.session.headers["If-Match"]

    # It has no word for a patch, but its session has.
    operations = [{"op": "replace", "path": "/status", "value": "arrived"}]
    headers = {"Content-Type": "application/json-patch+json"}
    third = server.session.patch(f"{opening.base}/{booked.relativePath()}", json=operations, headers=headers)
    assert Appointment(third.json()).status == "arrived"

    history = Bundle.read_from(f"{booked.relativePath()}/_history", server)
    assert [entry.resource.meta.versionId for entry in history.entry] == ["3", "2", "1"]

    server.session.headers["If-None-Exist"] = f"identifier={VISITS}|fhirclient"
    identified = appointment(slots[1], identifier=[{"system": VISITS, "value": "fhirclient"}])
    assert identified.create(server)["id"] == identified.create(server)["id"]
    del server.session.headers["If-None-Exist"]

    batch = Bundle({"type": "batch", "entry": [posted(slots[2]), posted(slots[0])]})
    answer = Bundle(batch.create(server))
    assert [entry.response.status[:3] for entry in answer.entry] == ["201", "409"]

    booked.delete(server)
    with pytest.raises(requests.HTTPError, match="410"):
        Appointment.read(booked.id, server)
    assert len(free(server, opening)) == 23
