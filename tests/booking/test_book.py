"""$book (ITI-117): books what is proposed or held, changes and cancels what is booked; or says every reason why not."""

from __future__ import annotations

from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest

from clinic import DOCTOR, PATIENT, Clinic, Resource, appointment, name, refusal, row_id
from proposals import end, held, only, proposal

SMITH = {"resourceType": "Patient", "id": "smith", "name": [{"family": "Smith"}]}


def book(clinic: Clinic, **given: Any) -> httpx.Response:
    """The answer to $book; `given` are the inputs with _ for -, an id for the reference."""
    listed: list[Resource] = []
    for key, value in given.items():
        word = key.replace("_", "-")
        if word == "appointment-reference":
            listed.append({"name": word, "valueReference": {"reference": f"Appointment/{value}"}})
        elif isinstance(value, dict):
            listed.append({"name": word, "resource": value})
        else:
            listed.append({"name": word, "valueString": value})
    return clinic.http.post("Appointment/$book", json={"resourceType": "Parameters", "parameter": listed})


def booked(clinic: Clinic, **given: Any) -> Resource:
    answer = book(clinic, **given)
    assert answer.status_code == 200, answer.text
    found = only(answer)
    assert clinic.read(found) == found
    return found


@pytest.fixture
def slots(clinic: Clinic) -> list[Resource]:
    schedule = clinic.schedule()
    return [clinic.slot(schedule, f"2031-06-02T09:{minute:02}:00Z") for minute in (0, 15, 30, 45)]


def test_a_proposal_is_booked_by_its_id(clinic: Clinic, slots: list[Resource]) -> None:
    found = booked(clinic, appointment_reference=proposal(slots[0]), comment="knocks twice")
    assert (found["status"], found["comment"]) == ("booked", "knocks twice")
    assert clinic.read(slots[0])["status"] == "busy"


def test_a_hold_is_confirmed(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0])
    found = booked(clinic, appointment_reference=first["id"])
    assert (found["id"], found["status"]) == (first["id"], "booked")
    assert "hold-expires" not in str(found)
    assert clinic.read(slots[0])["status"] == "busy"
    end_events = clinic.sql("select event_type from outbox where aggregate_id = %s order by created_at", row_id(first))
    assert end_events == [("appointment.created",), ("appointment.updated",)]


def test_a_hold_is_confirmed_by_its_resource(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0])
    found = booked(clinic, appointment_resource={**first, "description": "first visit"})
    assert (found["id"], found["status"], found["description"]) == (first["id"], "booked", "first visit")


def test_a_resource_of_the_clients_own_is_booked(clinic: Clinic, slots: list[Resource]) -> None:
    own = appointment(slots[0], doctor=DOCTOR, status="pending")
    assert booked(clinic, appointment_resource=own)["status"] == "booked"
    assert clinic.read(slots[0])["status"] == "busy"


def test_the_patient_may_be_named_when_it_is_booked(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0], "")
    (said,) = refusal(book(clinic, appointment_reference=first["id"]), 422)
    assert "patient-resource" in said["diagnostics"]
    found = booked(clinic, appointment_reference=first["id"], patient_resource=SMITH)
    actors = [each["actor"] for each in found["participant"]]
    assert {"reference": "Patient/smith"} in actors
    assert "not named yet" not in str(actors)
    assert clinic.found("Appointment?patient=Patient/smith") == [name(found)]


def test_a_patient_without_an_id_is_known_by_an_identifier(clinic: Clinic, slots: list[Resource]) -> None:
    identifier = {"system": "urn:oid:1.2.36.146.595.217.0.1", "value": "12345"}
    patient = {"resourceType": "Patient", "identifier": [identifier]}
    found = booked(clinic, appointment_reference=proposal(slots[0], ""), patient_resource=patient)
    query = "patient:identifier=urn:oid:1.2.36.146.595.217.0.1|12345"
    assert clinic.found(f"Appointment?{query}") == [name(found)]
    refusal(book(clinic, appointment_reference=proposal(slots[1]), patient_resource={"resourceType": "Patient"}), 422)


def test_a_booked_appointment_is_changed(clinic: Clinic, slots: list[Resource]) -> None:
    first = booked(clinic, appointment_reference=proposal(slots[0]))
    moved = {**first, "slot": [{"reference": name(slots[2])}], "start": slots[2]["start"], "end": slots[2]["end"]}
    found = booked(clinic, appointment_resource=moved)
    assert (found["id"], found["start"]) == (first["id"], slots[2]["start"])
    assert [clinic.read(slots[n])["status"] for n in (0, 2)] == ["free", "busy"]


def test_a_booked_appointment_is_cancelled_and_nothing_else_of_it_changes(
    clinic: Clinic, slots: list[Resource]
) -> None:
    first = booked(clinic, appointment_reference=proposal(slots[0]))
    why = {"text": "feels better"}
    sent = {**appointment(slots[1], status="cancelled"), "id": first["id"], "cancelationReason": why}
    found = booked(clinic, appointment_resource=sent, comment="called")
    assert (found["status"], found["cancelationReason"], found["comment"]) == ("cancelled", why, "called")
    assert (found["start"], found["slot"]) == (first["start"], first["slot"])
    assert clinic.read(slots[0])["status"] == "free"
    refusal(book(clinic, appointment_resource=sent), 409)


def test_a_hold_is_cancelled(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0], "")
    assert booked(clinic, appointment_resource={**first, "status": "cancelled"})["status"] == "cancelled"
    assert clinic.read(slots[0])["status"] == "free"


def test_a_conflict_says_every_reason_and_what_is_free_instead(clinic: Clinic, slots: list[Resource]) -> None:
    booked(clinic, appointment_reference=proposal(slots[0]))
    issues = refusal(book(clinic, appointment_reference=proposal(slots[0], "Patient/other")), 409)
    reasons = [each for each in issues if each["severity"] == "fatal"]
    assert [each["code"] for each in reasons] == ["conflict", "conflict"]
    assert "is taken" in reasons[0]["diagnostics"]
    assert "practitioner" in reasons[1]["diagnostics"]
    assert len([each for each in issues if each["severity"] == "information"]) == 3


def test_an_expired_hold_is_not_confirmed_whoever_cleans_up(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0])
    end(clinic, first)
    issues = refusal(book(clinic, appointment_reference=first["id"]), 409)
    assert "over" in issues[0]["diagnostics"]
    found = booked(clinic, appointment_reference=proposal(slots[0], "Patient/other"))
    assert clinic.read(first)["status"] == "cancelled"
    refusal(book(clinic, appointment_reference=first["id"]), 409)
    assert clinic.read(found)["status"] == "booked"


def test_of_many_that_book_one_proposal_one_wins(clinic: Clinic, slots: list[Resource]) -> None:
    start, answers = Barrier(6), []

    def run(number: int) -> None:
        start.wait()
        answers.append(book(clinic, appointment_reference=proposal(slots[0], f"Patient/{number}")).status_code)

    threads = [Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 400),
        ({"comment": "x"}, 400),
        ({"appointment_reference": "x"}, 404),
        ({"appointment_reference": "apt-00000000-0000-4000-8000-000000000000"}, 404),
        ({"appointment_resource": {"resourceType": "Appointment", "status": "booked"}}, 400),
        ({"appointment_resource": {"resourceType": "Patient"}}, 400),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(clinic: Clinic, given: Any, status: int) -> None:
    refusal(book(clinic, **given), status)


def test_reference_and_resource_exclude_each_other(clinic: Clinic, slots: list[Resource]) -> None:
    both = {
        "appointment_reference": proposal(slots[0]),
        "appointment_resource": appointment(slots[0], status="pending"),
    }
    refusal(book(clinic, **both), 400)


@pytest.mark.parametrize(("status", "code"), [("noshow", 400), ("booked", 400), ("cancelled", 400)])
def test_a_resource_says_by_its_status_what_is_wanted(
    clinic: Clinic, slots: list[Resource], status: str, code: int
) -> None:
    refusal(book(clinic, appointment_resource=appointment(slots[0], status=status)), code)


def test_what_is_not_there_is_not_changed(clinic: Clinic, slots: list[Resource]) -> None:
    sent = {**appointment(slots[0]), "id": f"apt-{uuid4()}"}
    refusal(book(clinic, appointment_resource=sent), 404)
    assert PATIENT not in str(clinic.matches("Appointment"))
