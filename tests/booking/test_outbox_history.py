"""What each change by the API leaves behind: one outbox row, the superseded version in history, all or nothing."""

from __future__ import annotations

from typing import Any

from clinic import DOCTOR, EXTENSION, Clinic, Resource, appointment, name, row_id

NINE, TEN = "2026-06-02T09:00:00Z", "2026-06-02T10:00:00Z"
CLOSED = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]


def _events(clinic: Clinic, after: int = 0) -> list[tuple[str, str]]:
    """Type and aggregate of every outbox row of the tenant, oldest first, without the first `after`."""
    rows = clinic.sql(
        "select event_type, aggregate_id::text from outbox where tenant_id = %s order by created_at", clinic.tenant
    )
    return [(str(event), str(row)) for event, row in rows[after:]]


def _of(event: str, resource: Resource) -> tuple[str, str]:
    return event, str(row_id(resource))


def _history(clinic: Clinic, resource: Resource) -> list[tuple[int, bool, Any]]:
    return [
        (int(version), bool(deleted), row and row["status"] if row and "status" in row else row)
        for version, deleted, row in clinic.sql(
            "select version, deleted, row from history where id = %s order by version", row_id(resource)
        )
    ]


def test_a_booking_says_that_the_appointment_was_made_and_the_slot_changed(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    made = clinic.booked(slot)
    assert _events(clinic) == [
        _of("schedule.created", of),
        _of("slot.created", slot),
        _of("appointment.created", made),
        _of("slot.updated", slot),
    ]
    assert _history(clinic, slot) == [(1, False, "free")]
    assert _history(clinic, made) == []


def test_a_refused_booking_leaves_nothing(clinic: Clinic) -> None:
    of = clinic.schedule()
    one, two = clinic.slot(of, NINE), clinic.slot(of, TEN)
    clinic.booked(two)
    before = _events(clinic)
    clinic.book(one, two, patient="Patient/other")
    clinic.book(one, start=TEN, end=NINE)
    assert _events(clinic) == before
    assert _history(clinic, one) == []


def test_each_kind_of_change_of_an_appointment_has_its_event(clinic: Clinic) -> None:
    of = clinic.schedule()
    one, two = clinic.slot(of, NINE), clinic.slot(of, TEN)
    made = clinic.booked(one, doctor=DOCTOR)
    seen = len(_events(clinic))
    steps: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({"description": "x"}, [_of("appointment.updated", made)]),
        (
            {"slot": [{"reference": name(two)}], "start": two["start"], "end": two["end"]},
            [_of("appointment.rescheduled", made), _of("slot.updated", one), _of("slot.updated", two)],
        ),
        ({"status": "arrived"}, [_of("appointment.updated", made)]),
        ({"status": "cancelled"}, [_of("appointment.cancelled", made), _of("slot.updated", two)]),
    ]
    body = dict(made)
    for version, (change, events) in enumerate(steps, 2):
        body |= change
        answer = clinic.put(body)
        assert answer.headers["etag"] == f'W/"{version}"'
        assert sorted(_events(clinic, seen)) == sorted(events), change
        seen = len(_events(clinic))
    clinic.http.delete(name(made))
    assert _events(clinic, seen) == [_of("appointment.deleted", made)]
    assert _history(clinic, made) == [
        (1, False, "booked"),
        (2, False, "booked"),
        (3, False, "booked"),
        (4, False, "arrived"),
        (5, False, "cancelled"),
        (6, True, None),
    ]


def test_entered_in_error_is_a_cancellation(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    clinic.put({**made, "status": "entered-in-error"})
    assert _events(clinic, 1) == [_of("appointment.cancelled", made)]


def test_slots_schedules_exceptions_and_waitlist_entries_have_theirs(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    closed = clinic.slot(of, TEN, status="busy-unavailable", extension=CLOSED)
    waiting = clinic.create(appointment(status="waitlist"))
    seen = len(_events(clinic))
    for change, event in [
        ({**of, "comment": "x"}, _of("schedule.updated", of)),
        ({**slot, "comment": "x"}, _of("slot.updated", slot)),
        ({**slot, "end": "2026-06-02T09:20:00Z"}, _of("slot.rescheduled", slot)),
        ({**slot, "status": "entered-in-error"}, _of("slot.rescheduled", slot)),
        ({**closed, "comment": "x"}, _of("schedule_exception.updated", closed)),
        ({**waiting, "comment": "x"}, _of("waitlist.updated", waiting)),
        ({**waiting, "status": "cancelled"}, _of("waitlist.cancelled", waiting)),
    ]:
        assert clinic.put(change).status_code == 200
        (found,) = _events(clinic, seen)
        assert found == event or (change.get("status") == "entered-in-error" and found[0] == "slot.cancelled")
        seen += 1
    for each, kind in [
        (closed, "schedule_exception.deleted"),
        (slot, "slot.deleted"),
        (waiting, "waitlist.deleted"),
        (of, "schedule.deleted"),
    ]:
        clinic.http.delete(name(each))
        assert _events(clinic, seen) == [_of(kind, each)]
        seen += 1


def test_an_exception_tells_of_every_slot_that_it_blocks_and_frees(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, NINE)
    seen = len(_events(clinic))
    closed = clinic.slot(of, NINE, 60, status="busy-unavailable", extension=CLOSED)
    assert sorted(_events(clinic, seen)) == sorted(
        [_of("schedule_exception.created", closed), _of("slot.updated", slot)]
    )
    clinic.http.delete(name(closed))
    assert sorted(_events(clinic, seen + 2)) == sorted(
        [_of("schedule_exception.deleted", closed), _of("slot.updated", slot)]
    )
    assert clinic.read(slot)["meta"]["versionId"] == "3"


def test_the_payload_is_the_row_with_its_tenant_id_and_version(clinic: Clinic) -> None:
    made = clinic.booked(clinic.slot(clinic.schedule(), NINE))
    clinic.put({**made, "description": "x"})
    rows = clinic.sql("select payload, published from outbox where aggregate_id = %s order by created_at", row_id(made))
    assert [(payload["version"], published) for payload, published in rows] == [(1, False), (2, False)]
    payload = rows[1][0]
    assert payload["tenant_id"] == str(clinic.tenant)
    assert payload["id"] == str(row_id(made))
    assert payload["row"]["status"] == "booked"
    assert payload["row"]["version"] == 2


def test_a_write_that_if_match_refuses_leaves_nothing(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    before = _events(clinic)
    clinic.put({**made, "status": "cancelled"}, If_Match='W/"7"')
    clinic.http.delete(name(made), headers={"If-Match": 'W/"7"'})
    clinic.http.get(name(made))
    clinic.found("Appointment?status=booked")
    assert _events(clinic) == before
    assert _history(clinic, made) == []
