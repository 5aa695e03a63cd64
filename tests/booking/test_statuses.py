"""Which status may follow which: every pair, by PUT, and what a refusal says."""

from __future__ import annotations

import pytest

from clinic import Clinic, appointment, refusal
from db import Database
from fhir_sched.scheduling.statuses import NEXT

PAIRS = [(before, after) for before in NEXT for after in NEXT]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_status_is_followed_by_those_that_make_sense(shared: Clinic, before: str, after: str) -> None:
    made = shared.create(appointment(status=before))
    answer = shared.put({**made, "status": after})
    if after == before or after in NEXT[before]:
        assert (answer.status_code, answer.json()["status"]) == (200, after)
        return
    (issue,) = refusal(answer, 422)
    assert (issue["code"], issue["expression"]) == ("business-rule", ["Appointment.status"])
    assert all(status in issue["diagnostics"] for status in NEXT[before])
    assert shared.read(made)["status"] == before


@pytest.mark.parametrize("status", NEXT)
def test_the_database_knows_the_same_order(database: Database, status: str) -> None:
    with database.connect_app() as connection:
        row = connection.execute("select fhir_sched_next_statuses(%s)", [status]).fetchone()
    assert row == (list(NEXT[status]),)


def test_a_patch_is_held_to_it_as_well(clinic: Clinic) -> None:
    made = clinic.booked(status="fulfilled")
    patch = [{"op": "replace", "path": "/status", "value": "booked"}]
    headers = {"Content-Type": "application/json-patch+json"}
    refusal(clinic.http.patch(f"Appointment/{made['id']}", json=patch, headers=headers), 422)


def test_what_is_entered_in_error_is_final_and_its_other_elements_are_not(clinic: Clinic) -> None:
    made = clinic.booked(status="entered-in-error")
    assert "is final" in refusal(clinic.put({**made, "status": "cancelled"}), 422)[0]["diagnostics"]
    assert clinic.put({**made, "comment": "was another patient's"}).status_code == 200


def test_other_programs_write_any_status(clinic: Clinic) -> None:
    made = clinic.booked(status="entered-in-error")
    clinic.sql("update appointments set status = 'booked' where tenant_id = %s", clinic.tenant)
    assert clinic.read(made)["status"] == "booked"


def test_a_clinic_may_do_without_the_order(clinic: Clinic) -> None:
    made = clinic.booked(status="fulfilled")
    clinic.sql("insert into booking_rules values (%s, 'staff', null, 'status-order', 0)", clinic.tenant)
    assert clinic.put({**made, "status": "proposed"}).status_code == 200
