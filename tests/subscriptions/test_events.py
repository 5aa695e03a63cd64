"""Events as a subscriber hears them: exactly those of its topic and filters, numbered, in order, from every program."""

from __future__ import annotations

import itertools
import json
from uuid import uuid4

from clinic import EXTENSION, Clinic, appointment, as_resource, name, row_id
from subscriber import Subscriber, following


def test_a_booking_and_its_end_by_api_and_by_sql_are_heard_in_order(clinic: Clinic, subscriber: Subscriber) -> None:
    schedule = clinic.schedule()
    first, second = (clinic.slot(schedule, f"2030-05-06T{hour}:00:00Z") for hour in ("09", "10"))
    following(clinic, subscriber, "appointment-changed")
    booked = clinic.booked(first)
    moved = booked | {"slot": [{"reference": name(second)}], "start": second["start"], "end": second["end"]}
    assert clinic.put(moved).status_code == 200
    clinic.sql("update appointments set status = 'cancelled' where id = %s", row_id(booked))
    clinic.sql("delete from appointments where id = %s", row_id(booked))
    assert subscriber.events(4) == [{"number": number, "focus": name(booked)} for number in (1, 2, 3, 4)]
    posts = subscriber.posted(1, "event-notification")
    requests = [
        (entry["request"]["method"], entry["request"]["url"]) for post in posts for entry in post.bundle["entry"][1:]
    ]
    assert requests == [
        ("POST", "Appointment"),
        ("PUT", name(booked)),
        ("PUT", name(booked)),
        ("DELETE", name(booked)),
    ]
    assert not any("resource" in entry for post in posts for entry in post.bundle["entry"][1:])


def test_a_slot_that_becomes_free_again_is_heard_of_and_no_other_change_of_slots(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    schedule = clinic.schedule()
    following(clinic, subscriber, "slot-freed", f"Slot?schedule={name(schedule)}&status=free")
    slots = [clinic.slot(schedule, f"2030-05-06T{hour}:00:00Z") for hour in ("09", "10")]
    others = clinic.slot(clinic.schedule(), "2030-05-06T09:00:00Z")
    for slot in (*slots, others):
        booked = clinic.booked(slot)
        clinic.sql("update appointments set status = 'cancelled' where id = %s", row_id(booked))
    window = clinic.create(
        {"resourceType": "Slot", "schedule": {"reference": name(schedule)}, "status": "busy-unavailable",
         "start": slots[0]["start"], "end": slots[0]["end"],
         "extension": [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]}
    )  # fmt: skip
    assert clinic.http.delete(name(window)).status_code == 204
    assert [each["focus"] for each in subscriber.events(3)] == [name(slots[0]), name(slots[1]), name(slots[0])]


def test_filters_are_searches_of_what_the_resource_was_at_the_event(clinic: Clinic, subscriber: Subscriber) -> None:
    patient = f"Patient/{uuid4()}"
    schedule = clinic.schedule()
    slots = [clinic.slot(schedule, f"2030-05-06T{hour}:00:00Z") for hour in ("09", "10", "11")]
    following(
        clinic, subscriber, "appointment-changed",
        f"Appointment?patient={patient}&status=booked,cancelled",
        f"Appointment?slot.schedule={name(schedule)}&specialty=a",
        content="full-resource",
    )  # fmt: skip
    special = {"specialty": [{"coding": [{"code": "a"}]}]}
    clinic.booked(slots[0], patient=patient)
    clinic.booked(slots[1], **special)
    heard = clinic.booked(slots[2], patient=patient, **special)
    changed = as_resource(clinic.put(heard | {"specialty": [{"coding": [{"code": "b"}]}]}))
    assert clinic.put(changed | special | {"status": "cancelled"}).status_code == 200
    assert subscriber.events(2) == [{"number": 1, "focus": name(heard)}, {"number": 2, "focus": name(heard)}]
    shown = [
        entry["resource"] for post in subscriber.posted(1, "event-notification") for entry in post.bundle["entry"][1:]
    ]
    assert [(each["meta"]["versionId"], each["status"]) for each in shown] == [("1", "booked"), ("3", "cancelled")]
    assert shown[0] == heard


def test_what_is_generated_together_is_one_event_of_its_schedule(clinic: Clinic, subscriber: Subscriber) -> None:
    rule = [
        {"url": "daysOfWeek", "valueCode": "mon"}, {"url": "startTime", "valueTime": "09:00:00"},
        {"url": "endTime", "valueTime": "12:00:00"}, {"url": "slotMinutes", "valuePositiveInt": 20},
    ]  # fmt: skip
    schedule = clinic.schedule(extension=[{"url": EXTENSION + "schedule-availability", "extension": rule}])
    following(clinic, subscriber, "slot-changed", f"Slot?schedule={name(schedule)}&start=ge2030-05-06T11:00:00Z")
    made = clinic.http.post(
        f"{name(schedule)}/$generate-slots?start=2030-05-06&end=2030-05-06", json={"resourceType": "Parameters"}
    )
    assert made.status_code == 200, made.text
    assert subscriber.events(1) == [{"number": 1, "focus": name(schedule)}]
    clinic.sql(
        "update slots set status = 'busy' where schedule_id = %s and start_at = '2030-05-06T09:00Z'", row_id(schedule)
    )
    clinic.sql(
        "update slots set status = 'busy' where schedule_id = %s and start_at = '2030-05-06T11:00Z'", row_id(schedule)
    )
    assert [each["number"] for each in subscriber.events(2)] == [1, 2]


def test_an_exception_over_booked_time_is_heard_of_for_each_appointment(clinic: Clinic, subscriber: Subscriber) -> None:
    schedule = clinic.schedule()
    slots = [clinic.slot(schedule, f"2030-05-06T{hour}:00:00Z") for hour in ("09", "10", "11")]
    first, second, third = (clinic.booked(slot, patient=f"Patient/{uuid4()}") for slot in slots)
    patients = [each["participant"][0]["actor"]["reference"] for each in (second, third)]
    following(clinic, subscriber, "schedule-conflict", f"Appointment?patient={','.join(patients)}")
    clinic.sql(
        "insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at, type)"
        " values (%s, %s, '2030-05-06T10:00Z', '2030-05-07T00:00Z', 'holiday')",
        clinic.tenant, row_id(schedule),
    )  # fmt: skip
    heard = subscriber.events(2)
    assert [each["number"] for each in heard] == [1, 2]
    assert {each["focus"] for each in heard} == {name(second), name(third)}
    assert name(first) not in {each["focus"] for each in heard}


def test_an_offer_of_a_freed_slot_is_heard_of_by_whom_it_is_for(clinic: Clinic, subscriber: Subscriber) -> None:
    routine = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "ROUTINE"}]}
    waiting = clinic.create(appointment(patient=f"Patient/{uuid4()}", status="waitlist", appointmentType=routine))
    following(clinic, subscriber, "waitlist-offered", f"Appointment?_id={waiting['id']}", content="full-resource")
    clinic.slot(clinic.schedule(), "2036-06-02T09:00:00Z")
    assert subscriber.events(1) == [{"number": 1, "focus": name(waiting)}]
    (post,) = subscriber.posted(1, "event-notification")
    assert post.bundle["entry"][1]["resource"] == waiting


def test_events_of_other_programs_own_making_are_no_topic_s(clinic: Clinic, subscriber: Subscriber) -> None:
    following(clinic, subscriber, "appointment-changed")
    row = str(uuid4())
    mimicry = ["{}", "null", "[1]", '{"row": {}}'] + [
        json.dumps({"id": row, "row": {"id": row}, **each})
        for each in ({}, {"version": "one"}, {"version": 10**12}, {"version": 1, "previous": 3})
    ]
    for event, payload in itertools.product(("appointment.created", "schedule.conflict", "slots.generated"), mimicry):
        clinic.sql(
            "insert into outbox (tenant_id, aggregate_id, event_type, payload) values (%s, %s, %s, %s)",
            clinic.tenant, row, event, payload,
        )  # fmt: skip
    booked = clinic.booked()
    assert subscriber.events(1) == [{"number": 1, "focus": name(booked)}]
