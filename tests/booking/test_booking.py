"""The rules of booking, one after the other: what takes a slot, what frees it, who is refused."""

from __future__ import annotations

from typing import Any

import pytest

from clinic import DOCTOR, EXTENSION, Clinic, Resource, appointment, as_resource, name, refusal, row_id, said

DOUBLE = [{"url": EXTENSION + "allow-double-booking", "valueBoolean": True}]
CLOSED = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
OCCUPYING = ["pending", "booked", "arrived", "checked-in", "fulfilled", "noshow"]
IDLE = ["proposed", "cancelled", "entered-in-error"]
NINE, TEN, ELEVEN = (f"2026-06-02T{hour}:00:00Z" for hour in ("09", "10", "11"))


def _status(clinic: Clinic, slot: Resource) -> str:
    return str(clinic.read(slot)["status"])


def _exception(clinic: Clinic, of: Resource, start: str, minutes: int) -> Resource:
    return clinic.slot(of, start, minutes, status="busy-unavailable", extension=CLOSED)


# taking


@pytest.mark.parametrize("status", OCCUPYING)
def test_an_active_appointment_takes_its_slot(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    made = clinic.booked(slot, status=status)
    assert made["status"] == status
    assert _status(clinic, slot) == "busy"
    answer = clinic.book(slot, patient="Patient/other")
    issue = refusal(answer, 409)[0]
    assert issue["code"] == "conflict"
    assert name(slot) in issue["diagnostics"]
    assert issue["expression"] == ["Appointment.slot"]


@pytest.mark.parametrize("status", IDLE)
def test_an_idle_appointment_takes_nothing(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    clinic.booked(slot, status=status)
    assert _status(clinic, slot) == "free"
    clinic.booked(slot)


def test_checked_in_is_arrived_for_other_programs(clinic: Clinic) -> None:
    made = clinic.create(appointment(status="checked-in"))
    assert clinic.sql("select status from appointments where id = %s", row_id(made)) == [("arrived",)]
    clinic.sql("update appointments set status = 'fulfilled' where id = %s", row_id(made))
    assert clinic.read(made)["status"] == "fulfilled"


@pytest.mark.parametrize("status", ["busy", "busy-unavailable", "entered-in-error", "busy-tentative"])
def test_a_slot_that_is_not_free_can_not_be_booked(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), NINE, status=status)
    refusal(clinic.book(slot), 409)
    assert _status(clinic, slot) == status
    assert clinic.found("Appointment?status=booked") == []


def test_every_slot_of_an_appointment_is_taken(clinic: Clinic) -> None:
    of = clinic.schedule()
    three = [clinic.slot(of, start) for start in (NINE, TEN, ELEVEN)]
    made = clinic.booked(*three)
    assert made["slot"] == [{"reference": name(each)} for each in three]
    assert [_status(clinic, each) for each in three] == ["busy"] * 3
    for each in three:
        refusal(clinic.book(each), 409)
        assert clinic.found(f"Appointment?slot={each['id']}") == [name(made)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_several_slots_are_all_or_nothing(clinic: Clinic, place: int) -> None:
    of = clinic.schedule()
    three = [clinic.slot(of, start) for start in (NINE, TEN, ELEVEN)]
    clinic.booked(three[place])
    assert name(three[place]) in said(clinic.book(*three, patient="Patient/other"), 409)
    assert [_status(clinic, each) for each in three] == ["busy" if i == place else "free" for i in range(3)]
    assert len(clinic.found("Appointment?status=booked")) == 1


def test_a_missing_slot_among_several_leaves_the_others_free(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    body = appointment(slot)
    body["slot"].append({"reference": "Slot/slt-00000000-0000-4000-8000-000000000000"})
    refusal(clinic.http.post("Appointment", json=body), 422)
    assert _status(clinic, slot) == "free"


def test_a_slot_that_is_named_twice_is_taken_once(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    made = clinic.booked(slot, slot)
    assert made["slot"] == [{"reference": name(slot)}] * 2
    assert _status(clinic, slot) == "busy"
    assert clinic.read(made) == made


# freeing


@pytest.mark.parametrize(
    ("before", "status"),
    [*(("booked", status) for status in IDLE), ("checked-in", "cancelled"), ("checked-in", "entered-in-error")],
)
def test_an_appointment_that_gives_up_frees_its_slots(clinic: Clinic, before: str, status: str) -> None:
    of = clinic.schedule()
    two = [clinic.slot(of, NINE), clinic.slot(of, TEN)]
    made = clinic.booked(*two, status=before)
    assert clinic.put({**made, "status": status}).status_code == 200
    assert [_status(clinic, each) for each in two] == ["free", "free"]
    clinic.booked(*two)


def test_a_deleted_appointment_frees_its_slots(clinic: Clinic) -> None:
    of = clinic.schedule()
    two = [clinic.slot(of, NINE), clinic.slot(of, TEN)]
    made = clinic.booked(*two)
    clinic.http.delete(name(made))
    assert [_status(clinic, each) for each in two] == ["free", "free"]


def test_a_deleted_appointment_that_comes_back_takes_its_slot_again_or_is_409(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    made = clinic.booked(slot)
    clinic.http.delete(name(made))
    assert clinic.put(made).status_code == 201
    assert _status(clinic, slot) == "busy"
    clinic.http.delete(name(made))
    clinic.booked(slot)
    refusal(clinic.put(made), 409)


@pytest.mark.parametrize("status", ["cancelled", "proposed"])
def test_a_slot_that_someone_took_meanwhile_is_409_for_the_one_who_comes_back(clinic: Clinic, status: str) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    first = clinic.booked(slot)
    given_up = as_resource(clinic.put({**first, "status": status}))
    clinic.booked(slot, patient="Patient/other")
    refusal(clinic.put({**given_up, "status": "booked"}), 409)
    assert clinic.read(first)["status"] == status
    assert clinic.read(first)["meta"]["versionId"] == "2"


def test_a_slot_nobody_took_is_there_for_the_one_who_comes_back(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    made = clinic.booked(slot)
    clinic.put({**made, "status": "cancelled"})
    assert clinic.put(made).status_code == 200
    assert _status(clinic, slot) == "busy"


# rescheduling


def test_a_reschedule_frees_the_old_slot_and_takes_the_new(clinic: Clinic) -> None:
    of = clinic.schedule()
    old, new = clinic.slot(of, NINE), clinic.slot(of, TEN)
    made = clinic.booked(old)
    moved = {**made, "slot": [{"reference": name(new)}], "start": new["start"], "end": new["end"]}
    assert as_resource(clinic.put(moved))["slot"] == moved["slot"]
    assert (_status(clinic, old), _status(clinic, new)) == ("free", "busy")


def test_a_reschedule_onto_a_taken_slot_changes_nothing(clinic: Clinic) -> None:
    of = clinic.schedule()
    old, new = clinic.slot(of, NINE), clinic.slot(of, TEN)
    made = clinic.booked(old)
    clinic.booked(new)
    refusal(clinic.put({**made, "slot": [{"reference": name(new)}]}), 409)
    assert (_status(clinic, old), _status(clinic, new)) == ("busy", "busy")
    assert clinic.read(made) == made


def test_a_reschedule_that_keeps_one_of_its_slots(clinic: Clinic) -> None:
    of = clinic.schedule()
    a, b, c = (clinic.slot(of, start) for start in (NINE, TEN, ELEVEN))
    made = clinic.booked(a, b)
    clinic.put({**made, "slot": [{"reference": name(b)}, {"reference": name(c)}]})
    assert [_status(clinic, each) for each in (a, b, c)] == ["free", "busy", "busy"]
    clinic.put({**made, "slot": [{"reference": name(c)}, {"reference": name(b)}]})
    assert [_status(clinic, each) for each in (a, b, c)] == ["free", "busy", "busy"]
    clinic.put({key: value for key, value in made.items() if key != "slot"})
    assert [_status(clinic, each) for each in (a, b, c)] == ["free", "free", "free"]


def test_a_change_that_leaves_the_slots_alone_leaves_their_versions_alone(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    made = clinic.booked(slot)
    version = clinic.read(slot)["meta"]["versionId"]
    for change in ({"status": "arrived"}, {"description": "x"}, {"status": "fulfilled"}):
        made = as_resource(clinic.put({**made, **change}))
    assert clinic.read(slot)["meta"]["versionId"] == version


# practitioners


@pytest.mark.parametrize(
    ("start", "end", "status"),
    [
        (NINE, TEN, 409),
        ("2026-06-02T09:59:59.999Z", ELEVEN, 409),
        ("2026-06-02T09:15:00Z", "2026-06-02T09:30:00Z", 409),
        ("2026-06-02T08:00:00Z", ELEVEN, 409),
        ("2026-06-02T11:30:00+02:00", ELEVEN, 409),
        (TEN, ELEVEN, 201),
        ("2026-06-02T08:00:00Z", NINE, 201),
    ],
)
def test_active_appointments_of_a_practitioner_do_not_overlap(
    clinic: Clinic, start: str, end: str, status: int
) -> None:
    clinic.booked(doctor=DOCTOR, start=NINE, end=TEN)
    answer = clinic.book(doctor=DOCTOR, patient="Patient/other", start=start, end=end)
    if status == 409:
        issue = refusal(answer, 409)[0]
        assert (issue["code"], issue["expression"]) == ("conflict", ["Appointment.start"])
    assert answer.status_code == status


@pytest.mark.parametrize("status", OCCUPYING)
@pytest.mark.parametrize("other", ["booked", "proposed"])
def test_each_active_status_takes_the_practitioners_time(clinic: Clinic, status: str, other: str) -> None:
    clinic.booked(doctor=DOCTOR, status=status)
    assert clinic.book(doctor=DOCTOR, status=other).status_code == (409 if other == "booked" else 201)


@pytest.mark.parametrize("status", [*IDLE, "waitlist"])
def test_an_idle_appointment_takes_no_time(clinic: Clinic, status: str) -> None:
    clinic.booked(doctor=DOCTOR, status=status)
    clinic.booked(doctor=DOCTOR)


def test_a_practitioner_with_two_schedules_is_one_practitioner(clinic: Clinic) -> None:
    actor = [{"reference": DOCTOR}]
    one = clinic.slot(clinic.schedule(actor=actor), NINE)
    two = clinic.slot(clinic.schedule(actor=actor), NINE)
    clinic.booked(one, doctor=DOCTOR)
    refusal(clinic.book(two, doctor=DOCTOR), 409)
    assert _status(clinic, two) == "free"


@pytest.mark.parametrize(
    "reference", ["Practitioner/123", "https://elsewhere.example/fhir/Practitioner/1", "PractitionerRole/7"]
)
def test_a_practitioner_of_any_reference_is_busy(clinic: Clinic, reference: str) -> None:
    clinic.booked(doctor=reference)
    refusal(clinic.book(doctor=reference), 409)
    clinic.booked(doctor="Practitioner/124")


def test_further_practitioners_are_busy_too(clinic: Clinic) -> None:
    people = [("Patient/1"), "Practitioner/1", "Practitioner/2", "PractitionerRole/3"]
    parts = [{"actor": {"reference": each}, "status": "accepted"} for each in people]
    made = clinic.booked(participant=parts)
    for person in people[1:]:
        refusal(clinic.book(doctor=person), 409)
    clinic.put({**made, "participant": parts[:2]})
    refusal(clinic.book(doctor="Practitioner/1"), 409)
    clinic.booked(doctor="Practitioner/2")


def test_a_reschedule_and_a_change_of_practitioner_are_checked(clinic: Clinic) -> None:
    clinic.booked(doctor=DOCTOR, start=NINE, end=TEN)
    later = clinic.booked(doctor=DOCTOR, start=TEN, end=ELEVEN)
    other = clinic.booked(doctor="Practitioner/2", start=NINE, end=TEN)
    refusal(clinic.put({**later, "start": "2026-06-02T09:59:00Z"}), 409)
    refusal(clinic.put({**other, "participant": later["participant"]}), 409)
    assert clinic.put({**later, "end": "2026-06-02T12:00:00Z"}).status_code == 200


def test_the_same_patient_may_have_two_appointments_at_once(clinic: Clinic) -> None:
    clinic.booked(doctor="Practitioner/1")
    clinic.booked(doctor="Practitioner/2")


# double booking


def test_allow_double_booking_opens_a_taken_slot(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    first = clinic.booked(slot, doctor=DOCTOR)
    second = clinic.booked(slot, doctor=DOCTOR, extension=DOUBLE)
    assert DOUBLE[0] in second["extension"]
    refusal(clinic.book(slot), 409)
    clinic.http.delete(name(first))
    assert _status(clinic, slot) == "busy"
    clinic.http.delete(name(second))
    assert _status(clinic, slot) == "free"


def test_either_of_two_that_allows_it_is_enough_for_the_practitioners_time(clinic: Clinic) -> None:
    clinic.booked(doctor=DOCTOR, extension=DOUBLE)
    clinic.booked(doctor=DOCTOR)
    clinic.booked(doctor=DOCTOR, extension=DOUBLE)
    refusal(clinic.book(doctor=DOCTOR), 409)


def test_taking_the_permission_back_is_409_while_it_is_needed(clinic: Clinic) -> None:
    first = clinic.booked(doctor=DOCTOR)
    second = clinic.booked(doctor=DOCTOR, extension=DOUBLE)
    bare = {key: value for key, value in second.items() if key != "extension"}
    refusal(clinic.put(bare), 409)
    clinic.http.delete(name(first))
    assert clinic.put(bare).status_code == 200


def test_allow_double_booking_never_opens_a_blocked_slot(clinic: Clinic) -> None:
    of = clinic.schedule()
    blocked = clinic.slot(of, NINE, status="busy-unavailable")
    under = clinic.slot(of, TEN)
    _exception(clinic, of, TEN, 60)
    for slot in (blocked, under):
        assert "blocked" in said(clinic.book(slot, extension=DOUBLE), 409)


def test_the_permission_opens_a_slot_that_was_set_busy_by_hand(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE, status="busy")
    refusal(clinic.book(slot), 409)
    clinic.booked(slot, extension=DOUBLE)


def test_false_is_no_permission(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    clinic.booked(slot)
    refusal(clinic.book(slot, extension=[{**DOUBLE[0], "valueBoolean": False}]), 409)


# slots kept by hand


def test_a_tentative_slot_is_for_the_appointment_that_named_it_before(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    asked = clinic.booked(slot, status="proposed")
    clinic.put({**clinic.read(slot), "status": "busy-tentative"})
    assert clinic.sql("select status from slots where id = %s", row_id(slot)) == [("busy",)]
    refusal(clinic.book(slot, patient="Patient/other"), 409)
    assert clinic.put({**asked, "status": "booked"}).status_code == 200
    assert _status(clinic, slot) == "busy"
    clinic.put({**asked, "status": "cancelled"})
    assert _status(clinic, slot) == "free"


def test_a_pending_appointment_keeps_its_tentative_slot(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    held = clinic.booked(slot, status="pending")
    clinic.put({**clinic.read(slot), "status": "busy-tentative"})
    assert _status(clinic, slot) == "busy-tentative"
    assert clinic.put({**held, "status": "booked"}).status_code == 200
    refusal(clinic.book(slot), 409)


def test_a_cancelled_appointment_named_nothing(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    gone = clinic.booked(slot, status="cancelled")
    clinic.put({**clinic.read(slot), "status": "busy-tentative"})
    refusal(clinic.put({**gone, "status": "booked"}), 409)


def test_a_slot_that_was_set_busy_by_hand_is_taken(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    asked = clinic.booked(slot, status="proposed")
    clinic.put({**clinic.read(slot), "status": "busy"})
    refusal(clinic.put({**asked, "status": "booked"}), 409)


@pytest.mark.parametrize("place", [0, 1])
def test_an_occupied_slot_can_not_be_set_free(clinic: Clinic, place: int) -> None:
    of = clinic.schedule()
    two = [clinic.slot(of, NINE), clinic.slot(of, TEN)]
    clinic.booked(*two)
    current = clinic.read(two[place])
    issue = refusal(clinic.put({**current, "status": "free"}), 409)[0]
    assert issue["expression"] == ["Slot.status"]
    assert clinic.read(two[place]) == current


def test_a_slot_that_was_set_busy_by_hand_can_be_set_free_by_hand(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE, status="busy")
    assert as_resource(clinic.put({**slot, "status": "free"}))["status"] == "free"
    clinic.booked(slot)


@pytest.mark.parametrize("change", [{"comment": "Bring your papers"}, {"status": "busy"}])
def test_an_occupied_slot_may_be_described(clinic: Clinic, change: dict[str, Any]) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    clinic.booked(slot)
    assert clinic.put({**clinic.read(slot), **change}).status_code == 200


# exceptions


@pytest.mark.parametrize("exception_first", [True, False])
def test_a_slot_under_an_exception_is_not_offered_and_not_booked(clinic: Clinic, exception_first: bool) -> None:
    of = clinic.schedule()
    if exception_first:
        closed = _exception(clinic, of, NINE, 120)
    inside, touching = clinic.slot(of, TEN), clinic.slot(of, ELEVEN)
    if not exception_first:
        closed = _exception(clinic, of, NINE, 120)
    assert _status(clinic, inside) == "busy-unavailable"
    assert clinic.found("Slot?status=free") == [name(touching)]
    refusal(clinic.book(inside), 409)
    clinic.http.delete(name(closed))
    assert _status(clinic, inside) == "free"
    clinic.booked(inside)


def test_an_exception_leaves_what_is_booked_and_the_slot_does_not_come_free_under_it(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    made = clinic.booked(slot)
    closed = _exception(clinic, of, NINE, 60)
    assert (clinic.read(made)["status"], _status(clinic, slot)) == ("booked", "busy")
    clinic.put({**made, "status": "cancelled"})
    assert _status(clinic, slot) == "busy-unavailable"
    refusal(clinic.put({**made, "status": "booked"}), 409)
    clinic.http.delete(name(closed))
    assert _status(clinic, slot) == "free"


def test_an_exception_that_moves_frees_and_blocks(clinic: Clinic) -> None:
    of = clinic.schedule()
    one, two = clinic.slot(of, NINE), clinic.slot(of, TEN)
    closed = _exception(clinic, of, NINE, 15)
    clinic.put({**closed, "start": TEN, "end": "2026-06-02T10:15:00Z"})
    assert (_status(clinic, one), _status(clinic, two)) == ("free", "busy-unavailable")


def test_an_exceptions_own_slot_can_not_be_booked(clinic: Clinic) -> None:
    closed = _exception(clinic, clinic.schedule(), NINE, 60)
    refusal(clinic.book(closed), 409)
    refusal(clinic.book(closed, extension=DOUBLE), 409)


def test_a_slot_can_not_be_set_free_under_an_exception(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    _exception(clinic, of, NINE, 60)
    answer = clinic.put({**clinic.read(slot), "status": "free"})
    assert answer.status_code in (200, 409)
    assert _status(clinic, slot) == "busy-unavailable"


def test_an_exception_by_another_program_counts_as_well(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    clinic.sql(
        "insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at) values (%s, %s, %s, %s)",
        clinic.tenant,
        row_id(of),
        NINE,
        TEN,
    )
    assert _status(clinic, slot) == "busy-unavailable"
    refusal(clinic.book(slot), 409)


# slots among themselves


@pytest.mark.parametrize(
    ("start", "minutes", "status", "answer"),
    [
        (NINE, 60, "free", 409),
        (NINE, 60, "busy", 409),
        ("2026-06-02T09:59:59Z", 5, "free", 409),
        ("2026-06-02T08:00:00Z", 61, "busy-tentative", 409),
        (TEN, 60, "free", 201),
        ("2026-06-02T08:00:00Z", 60, "free", 201),
        (NINE, 60, "busy-unavailable", 201),
        (NINE, 60, "entered-in-error", 201),
    ],
)
def test_slots_of_a_schedule_do_not_overlap(clinic: Clinic, start: str, minutes: int, status: str, answer: int) -> None:
    of = clinic.schedule()
    clinic.slot(of, NINE, 60)
    body = {**clinic.slot(clinic.schedule(), start, minutes), "schedule": {"reference": name(of)}, "status": status}
    given = clinic.http.post("Slot", json=body)
    if answer == 409:
        assert refusal(given, 409)[0]["code"] == "conflict"
    assert given.status_code == answer, given.text


def test_a_slot_that_moves_onto_another_is_409(clinic: Clinic) -> None:
    of = clinic.schedule()
    clinic.slot(of, NINE)
    other = clinic.slot(of, TEN)
    refusal(clinic.put({**other, "start": NINE, "end": "2026-06-02T09:15:00Z"}), 409)
    unavailable = clinic.slot(of, NINE, status="busy-unavailable")
    refusal(clinic.put({**unavailable, "status": "free"}), 409)


# other programs


def test_a_program_that_only_cancels_or_only_inserts_frees_and_takes(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    made = clinic.booked(slot)
    clinic.sql("update appointments set status = 'cancelled' where id = %s", row_id(made))
    assert _status(clinic, slot) == "free"
    clinic.sql(
        """insert into appointments (tenant_id, patient_id, slot_id, created_by)
           values (%s, gen_random_uuid(), %s, gen_random_uuid())""",
        clinic.tenant,
        row_id(slot),
    )
    assert _status(clinic, slot) == "busy"
    refusal(clinic.book(slot), 409)


def test_a_slot_that_another_program_set_busy_is_taken(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), NINE)
    clinic.sql("update slots set status = 'busy' where id = %s", row_id(slot))
    refusal(clinic.book(slot), 409)


def test_a_practitioner_whom_another_program_booked_is_busy(clinic: Clinic) -> None:
    clinic.sql(
        """insert into appointments (tenant_id, patient_id, provider_id, start_at, end_at, created_by)
           values (%s, gen_random_uuid(), %s, %s, %s, gen_random_uuid())""",
        clinic.tenant,
        DOCTOR.partition("/")[2],
        NINE,
        TEN,
    )
    refusal(clinic.book(doctor=DOCTOR, start=NINE, end=TEN), 409)


def test_what_is_booked_in_one_tenant_is_free_in_another(clinic: Clinic, shared: Clinic) -> None:
    clinic.booked(doctor=DOCTOR)
    shared.booked(doctor=DOCTOR)
