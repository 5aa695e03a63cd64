"""What one patient holds is not there for another: nothing is read, found, renewed, confirmed or given up."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from authority import Authority
from clinic import Resource, appointment, matches, name, refusal
from db import Database
from practice import ANN, Practice
from proposals import held, reference
from server import Server

BOB = "Patient/00000000-0000-4000-8000-0000000000b2"
PATCH = {"Content-Type": "application/json-patch+json"}
NOBODYS = f"apt-{uuid4()}"


class Two(Practice):
    """Also with `bob`; `slots` are two of one schedule, `kept` is Ann's hold of the first."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        super().__init__(server, database, authority)
        self.bob = self.client(authority, "patient/*.cruds", patient=BOB)
        of = self.schedule()
        self.slots = [self.slot(of, f"2031-06-02T09:{minute}:00Z") for minute in ("00", "15")]
        self.kept = held(self, self.slots[0], ANN)

    def close(self) -> None:
        super().close()
        self.bob.close()


@pytest.fixture
def two(guarded: Server, database: Database, authority: Authority) -> Iterator[Two]:
    """A clinic where Ann holds a slot."""
    made = Two(guarded, database, authority)
    yield made
    made.close()


def _asks(two: Two, fhir_id: str) -> dict[str, httpx.Response]:
    """What Bob is told about that id."""
    bob, path = two.bob, f"Appointment/{fhir_id}"
    cancel = [{"op": "replace", "path": "/status", "value": "cancelled"}]
    mine = {**two.kept, "id": fhir_id, "participant": [{"actor": {"reference": BOB}, "status": "accepted"}]}
    asked = reference(fhir_id)
    known = {
        **asked,
        "parameter": [*asked["parameter"], {"name": "patient-reference", "valueReference": {"reference": BOB}}],
    }
    return {
        "read": bob.get(path),
        "version": bob.get(f"{path}/_history/1"),
        "history": bob.get(f"{path}/_history"),
        "renew": bob.post("Appointment/$hold", json=asked),
        "confirm": bob.post("Appointment/$book", json=asked),
        "confirm as his own": bob.post("Appointment/$book", json=known),
        "cancel": bob.patch(path, json=cancel, headers=PATCH),
        "release": bob.delete(path),
        "take over": bob.put(path, json=mine),
    }


def test_to_another_patient_a_hold_is_like_an_id_that_nobody_has(two: Two) -> None:
    answers, nobodys = _asks(two, two.kept["id"]), _asks(two, NOBODYS)
    for ask, answer in answers.items():
        assert answer.status_code in {403, nobodys[ask].status_code}, f"{ask}: {answer.status_code} {answer.text}"
        assert ANN not in answer.text, ask
    assert two.read(two.kept) == two.kept
    assert two.read(two.slots[0])["status"] == "busy-tentative"


def test_another_patient_finds_no_hold_by_any_of_its_parts(two: Two) -> None:
    (slot, _) = two.slots
    queries = [
        "",
        "status=pending",
        f"_id={two.kept['id']}",
        f"slot={name(slot)}",
        f"patient={ANN}",
        "hold-expires=gt2020",
    ]
    for query in queries:
        answer = two.bob.get(f"Appointment?{query}")
        assert answer.status_code in (200, 403), answer.text
        assert answer.status_code == 403 or matches(answer.json()) == [], query
    included = two.bob.get(f"Slot?_id={slot['id']}&_revinclude=Appointment:slot").json()
    assert two.kept["id"] not in str(included)


def test_another_patient_does_not_get_by_its_slot_what_is_held(two: Two) -> None:
    refusal(two.bob.post("Appointment", json=appointment(two.slots[0], patient=BOB)), 409)
    bobs: Resource = two.bob.post("Appointment", json=appointment(two.slots[1], patient=BOB)).json()
    moved = {"slot": two.kept["slot"], "start": two.kept["start"], "end": two.kept["end"]}
    refusal(two.bob.put(name(bobs), json={**bobs, **moved}), 409)
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"request": {"method": "DELETE", "url": name(two.kept)}}],
    }
    before = two.bob.post("", json=bundle)
    assert ANN not in before.text
    assert two.read(two.kept) == two.kept
    assert two.ann.post("Appointment/$book", json=reference(two.kept["id"])).status_code == 200
