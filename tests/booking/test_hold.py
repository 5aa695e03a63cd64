"""$hold (ITI-116): a proposed time is kept for a while, by the database's clock, and then blocks nobody."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import pytest

from clinic import Clinic, Resource, appointment, name, refusal, row_id
from fhir_sched.scheduling.proposal import Proposal, parse
from proposals import end, expiry, held, hold, only, proposal, reference

XML = {"Accept": "application/fhir+xml"}


@pytest.fixture
def slots(clinic: Clinic) -> list[Resource]:
    schedule = clinic.schedule()
    return [clinic.slot(schedule, f"2031-06-02T09:{minute:02}:00Z") for minute in (0, 15, 30, 45)]


def test_a_hold_is_a_pending_appointment_that_tells_when_it_ends(clinic: Clinic, slots: list[Resource]) -> None:
    answer = hold(clinic, proposal(slots[0]))
    found = only(answer)
    assert found["status"] == "pending"
    assert (found["start"], found["end"]) == (slots[0]["start"], slots[0]["end"])
    assert found["slot"] == [{"reference": name(slots[0])}]
    assert found["requestedPeriod"] == [{"start": slots[0]["start"], "end": slots[0]["end"]}]
    actors = {each["actor"]["reference"].partition("/")[0] for each in found["participant"]}
    assert actors == {"Patient", "Practitioner"}
    assert clinic.read(slots[0])["status"] == "busy-tentative"
    said = parsedate_to_datetime(answer.headers["expires"]).timestamp()
    ((at,),) = clinic.sql("select extract(epoch from hold_expires_at) from appointments where id = %s", row_id(found))
    assert int(at) == int(said)
    assert clinic.read(found) == found


def test_it_speaks_xml(clinic: Clinic, slots: list[Resource]) -> None:
    body = (
        '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="appointment-reference"/><valueReference>'
        f'<reference value="Appointment/{proposal(slots[0])}"/></valueReference></parameter></Parameters>'
    )
    headers = {**XML, "Content-Type": "application/fhir+xml"}
    answer = clinic.http.post("Appointment/$hold", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/fhir+xml")
    assert '<status value="pending"/>' in answer.text


def test_holds_are_found_by_when_they_end(clinic: Clinic, slots: list[Resource]) -> None:
    found = held(clinic, slots[0])
    clinic.booked(slots[1])
    assert clinic.found("Appointment?hold-expires=gt2020") == [name(found)]
    assert clinic.found("Appointment?hold-expires=lt2020") == []
    assert clinic.found(f"Appointment?hold-expires:missing=false&hold-expires=le{expiry(found)}") == [name(found)]
    assert name(found) not in clinic.found("Appointment?hold-expires:missing=true")


def test_held_again_it_lasts_longer(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0])
    clinic.sql("update appointments set hold_expires_at = now() + interval '9 seconds' where id = %s", row_id(first))
    again = only(hold(clinic, first["id"]))
    assert (again["id"], again["status"]) == (first["id"], "pending")
    assert expiry(again) > expiry(clinic.read(f"{name(first)}/_history/2"))


def test_a_stored_proposal_can_be_held(clinic: Clinic, slots: list[Resource]) -> None:
    stored = clinic.create(appointment(slots[0], status="proposed"))
    found = only(hold(clinic, stored["id"]))
    assert (found["id"], found["status"]) == (stored["id"], "pending")
    assert expiry(found)
    assert clinic.read(slots[0])["status"] == "busy-tentative"


def test_giving_a_hold_up_frees_its_slot(clinic: Clinic, slots: list[Resource]) -> None:
    cancelled, deleted = held(clinic, slots[0]), held(clinic, slots[1])
    clinic.put({**cancelled, "status": "cancelled"}).raise_for_status()
    clinic.http.delete(name(deleted)).raise_for_status()
    assert [clinic.read(slot)["status"] for slot in slots[:2]] == ["free", "free"]
    assert "extension" not in clinic.read(cancelled) or "hold-expires" not in str(clinic.read(cancelled))


def test_what_is_held_can_be_neither_held_nor_booked_by_another(clinic: Clinic, slots: list[Resource]) -> None:
    held(clinic, slots[0])
    refusal(clinic.book(slots[0]), 409)
    answer = hold(clinic, proposal(slots[0], "Patient/other"))
    assert answer.status_code == 409
    reasons = [each for each in answer.json()["issue"] if each["severity"] == "fatal"]
    assert {each["code"] for each in reasons} == {"not-found"}
    assert len(reasons) == 2, "the slot and the practitioner's time"
    assert "held" in reasons[0]["diagnostics"]


def test_a_refusal_names_the_three_nearest_alternatives(clinic: Clinic, slots: list[Resource]) -> None:
    late = clinic.slot(
        {"resourceType": "Schedule", "id": slots[0]["schedule"]["reference"][9:]}, "2031-06-02T15:00:00Z"
    )
    held(clinic, slots[1])
    issues = hold(clinic, proposal(slots[1], "Patient/other")).json()["issue"]
    offered = [each["diagnostics"].split()[0] for each in issues if each["severity"] == "information"]
    ids = [parse(each.removeprefix("Appointment/")) for each in offered]
    assert [each.slot for each in ids if each] == [str(row_id(slots[n])) for n in (0, 2, 3)]
    assert {each.patient for each in ids if each} == {"Patient/other"}
    assert str(row_id(late)) not in str(issues)
    assert only(hold(clinic, offered[0].removeprefix("Appointment/")))["slot"] == [{"reference": name(slots[0])}]


def test_a_hold_whose_time_is_over_blocks_nobody(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0])
    end(clinic, first)
    second = held(clinic, slots[0], "Patient/other")
    assert clinic.read(first)["status"] == "cancelled"
    assert clinic.read(first)["cancelationReason"] == {"text": "hold expired"}
    answer = hold(clinic, first["id"])
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (409, "not-found")
    assert clinic.read(second)["status"] == "pending"


def test_a_hold_that_is_over_is_not_prolonged(clinic: Clinic, slots: list[Resource]) -> None:
    first = held(clinic, slots[0])
    end(clinic, first)
    assert hold(clinic, first["id"]).status_code == 409


def test_a_patient_has_so_many_holds_and_no_more(clinic: Clinic, slots: list[Resource]) -> None:
    kept = [held(clinic, slot) for slot in slots[:3]]
    (said,) = refusal(hold(clinic, proposal(slots[3])), 422)
    assert "3" in said["diagnostics"]
    assert clinic.read(slots[3])["status"] == "free"
    held(clinic, slots[3], "Patient/other")
    end(clinic, kept[0])
    assert only(hold(clinic, proposal(slots[0])))["status"] == "pending"


def test_a_time_can_be_held_before_the_patient_is_known(clinic: Clinic, slots: list[Resource]) -> None:
    found = held(clinic, slots[0], "")
    (patient,) = [each["actor"] for each in found["participant"] if each["actor"].get("type") == "Patient"]
    assert patient["display"] == "not named yet"


@pytest.mark.parametrize("text", ["prp-", "prp-AAAA", "prp-....", "apt-00000000-0000-4000-8000-000000000000", "x"])
def test_what_is_not_there_is_404(clinic: Clinic, text: str) -> None:
    refusal(hold(clinic, text), 404)


def test_a_proposal_whose_slot_is_gone_is_not_available(clinic: Clinic) -> None:
    answer = hold(clinic, Proposal(str(uuid4())).id)
    assert answer.status_code == 409
    (issue,) = answer.json()["issue"]
    assert (issue["severity"], issue["code"]) == ("fatal", "not-found")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"resourceType": "Parameters"}, "appointment-reference"),
        ({"resourceType": "Parameters", "parameter": [{"name": "other", "valueString": "x"}]}, "no parameter 'other'"),
        (
            {"resourceType": "Parameters", "parameter": [{"name": "appointment-reference", "valueString": "x"}]},
            "valueRef",
        ),
        (reference("http://elsewhere.example/Appointment/1"), "404"),
        ({"resourceType": "Patient"}, "Parameters"),
    ],
)
def test_inputs_that_do_not_fit_are_named(clinic: Clinic, body: Any, said: str) -> None:
    answer = clinic.http.post("Appointment/$hold", json=body)
    assert answer.status_code in (400, 404)
    assert said in answer.text or said == "404"


def test_it_takes_post_alone(clinic: Clinic) -> None:
    answer = clinic.http.get("Appointment/$hold")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    refusal(clinic.http.post("Slot/$hold", json=reference("x")), 404)


def test_in_a_transaction_it_is_part_of_the_whole(clinic: Clinic, slots: list[Resource]) -> None:
    entries = [
        {"resource": reference(proposal(slot)), "request": {"method": "POST", "url": "Appointment/$hold"}}
        for slot in slots[:2]
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = clinic.http.post("", json=bundle)
    assert answer.status_code == 200, answer.text
    twice = clinic.http.post("", json={**bundle, "entry": [entries[0]]})
    assert twice.status_code == 409
    assert [clinic.read(slot)["status"] for slot in slots[:2]] == ["busy-tentative"] * 2


def test_a_hold_that_is_over_goes_away_by_itself(clinic: Clinic, slots: list[Resource]) -> None:
    found = held(clinic, slots[0])
    end(clinic, found)
    deadline = time.monotonic() + 30
    while clinic.read(slots[0])["status"] != "free" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert clinic.read(slots[0])["status"] == "free"
    assert clinic.read(found)["status"] == "cancelled"
