"""update (R4 3.1.0.4): new versions, If-Match, revival after a delete, the id in the body."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from clinic import EXTENSION, Clinic, appointment, as_resource, name, refusal, schedule, slot

NEVER = "0b5e9e52-7c1f-4d83-9a66-3f0d2c8e4b17"


def test_200_with_the_next_version_as_etag_and_location(clinic: Clinic) -> None:
    made = clinic.schedule()
    answer = clinic.put({**made, "comment": "Moved to the second floor"})
    shown = as_resource(answer)
    assert answer.status_code == 200
    assert (answer.headers["etag"], shown["meta"]["versionId"]) == ('W/"2"', "2")
    assert shown["comment"] == "Moved to the second floor"
    assert shown["meta"]["lastUpdated"] > made["meta"]["lastUpdated"]
    assert clinic.read(made) == shown


def test_an_element_that_is_left_out_is_gone(clinic: Clinic) -> None:
    made = clinic.schedule(
        comment="x", specialty=[{"text": "y"}], planningHorizon={"start": "2026-01-01"}, zone="Asia/Kathmandu"
    )
    bare = {"resourceType": "Schedule", "id": made["id"], "actor": made["actor"]}
    shown = as_resource(clinic.put(bare))
    assert not {"comment", "specialty", "planningHorizon", "extension"} & set(shown)
    assert clinic.found("Schedule?date=ge2026") == []


@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        ('W/"2"', 200),
        ('"2"', 200),
        ('W/"1", W/"2"', 200),
        ("*", 200),
        ('W/"1"', 412),
        ('W/"3"', 412),
        ('W/"abc"', 412),
        ('W/""', 412),
        ('W/"99999999999999999999"', 412),
        ('W/"-1"', 412),
        ("2", 400),
        ("W/2", 400),
        ('W/"2', 400),
        ('W/"2" W/"3"', 400),
    ],
)
def test_if_match_decides(clinic: Clinic, if_match: str, status: int) -> None:
    made = clinic.schedule()
    second = as_resource(clinic.put({**made, "comment": "second"}))
    answer = clinic.put({**second, "comment": "third"}, If_Match=if_match)
    if status != 200:
        refusal(answer, status)
    assert answer.status_code == status
    assert clinic.read(made)["comment"] == ("third" if status == 200 else "second")
    if status == 412:
        assert answer.headers["etag"] == 'W/"2"'


def test_of_two_writers_with_one_version_exactly_one_wins(clinic: Clinic) -> None:
    made = clinic.schedule()

    def write(number: int) -> int:
        with clinic.server.fhir(clinic.tenant) as http:
            body = {**made, "comment": f"writer {number}"}
            return http.put(name(made), json=body, headers={"If-Match": 'W/"1"'}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == [200] + [412] * 7
    assert clinic.read(made)["meta"]["versionId"] == "2"


def test_a_deleted_resource_comes_back_with_201_and_counts_on(clinic: Clinic) -> None:
    made = clinic.schedule()
    clinic.http.delete(name(made))
    answer = clinic.put({**made, "comment": "back"})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{clinic.base}/{name(made)}/_history/3"
    assert answer.headers["etag"] == 'W/"3"'
    assert clinic.read(made)["comment"] == "back"
    assert clinic.put({**made, "comment": "again"}).headers["etag"] == 'W/"4"'


@pytest.mark.parametrize("kind", ["slot", "exception", "appointment", "waitlist"])
def test_every_kind_of_row_comes_back(clinic: Clinic, kind: str) -> None:
    of = clinic.schedule()
    extension = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    body = {
        "slot": slot(of, "2026-06-02T09:00:00Z"),
        "exception": slot(of, "2026-06-02T09:00:00Z", status="busy-unavailable", extension=extension),
        "appointment": appointment(),
        "waitlist": appointment(status="waitlist"),
    }[kind]
    made = clinic.create(body)
    clinic.http.delete(name(made))
    answer = clinic.put(made)
    assert (answer.status_code, answer.headers["etag"]) == (201, 'W/"3"'), answer.text
    assert {**as_resource(answer), "meta": 0, "created": 0} == {**made, "meta": 0, "created": 0}


def test_if_match_on_a_deleted_resource_is_412(clinic: Clinic) -> None:
    made = clinic.schedule()
    clinic.http.delete(name(made))
    refusal(clinic.put(made, If_Match='W/"1"'), 412)
    refusal(clinic.put(made, If_Match="*"), 412)


@pytest.mark.parametrize("fhir_id", [f"sch-{NEVER}", "mine", f"slt-{NEVER}", "1"])
def test_an_id_that_never_existed_is_405_since_ids_are_the_servers(clinic: Clinic, fhir_id: str) -> None:
    answer = clinic.put(schedule(id=fhir_id))
    assert refusal(answer, 405)[0]["code"] == "not-supported"
    assert "GET" in answer.headers["allow"]


def test_the_row_of_another_tenant_is_not_written(clinic: Clinic, shared: Clinic) -> None:
    theirs = shared.schedule(comment="theirs")
    refusal(clinic.put({**theirs, "comment": "stolen"}), 405)
    assert shared.read(theirs)["comment"] == "theirs"


@pytest.mark.parametrize("body_id", [None, "other", "sch-00000000-0000-4000-8000-000000000000", "SCH"])
def test_the_id_in_the_body_must_be_the_id_in_the_url(clinic: Clinic, body_id: str | None) -> None:
    made = clinic.schedule()
    body = {key: value for key, value in {**made, "id": body_id}.items() if value is not None}
    issues = refusal(clinic.http.put(name(made), json=body), 400)
    assert issues[0]["expression"] == ["Schedule.id"]
    assert clinic.read(made)["meta"]["versionId"] == "1"


def test_a_body_of_another_type_is_400(clinic: Clinic) -> None:
    made = clinic.schedule()
    body: dict[str, Any] = {**appointment(), "id": made["id"]}
    refusal(clinic.http.put(name(made), json=body), 400)


def test_put_without_an_id_in_the_url_is_refused(clinic: Clinic) -> None:
    answer: httpx.Response = clinic.http.put("Schedule", json=clinic.schedule())
    assert answer.status_code in (400, 405)
    refusal(answer, answer.status_code)


def test_what_was_read_can_be_written_back_unchanged(clinic: Clinic) -> None:
    of = clinic.schedule(zone="Europe/Berlin", serviceType=[{"coding": [{"system": "http://s", "code": "57"}]}])
    first = clinic.slot(of, "2026-06-02T09:00:00+02:00", comment="x")
    booked = clinic.booked(first, description="y", identifier=[{"system": "http://z", "value": "1"}])
    for made in (of, first, booked):
        current = clinic.read(made)
        again = as_resource(clinic.put(current))
        assert {**again, "meta": 0} == {**current, "meta": 0}


def test_a_schedule_or_slot_does_not_become_an_exception_later(clinic: Clinic) -> None:
    first = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")
    extension = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    refusal(clinic.put({**first, "status": "busy-unavailable", "extension": extension}), 422)


def test_an_exception_keeps_being_one_without_the_extension(clinic: Clinic) -> None:
    extension = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "training"}]
    made = clinic.create(
        slot(clinic.schedule(), "2026-06-02T09:00:00Z", status="busy-unavailable", extension=extension)
    )
    shown = as_resource(clinic.put({key: value for key, value in made.items() if key != "extension"}))
    assert shown["extension"] == [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]


def test_an_appointment_can_not_go_back_to_the_waitlist_under_its_id(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    answer = clinic.put({**made, "status": "waitlist"})
    assert refusal(answer, 422)[0]["expression"] == ["Appointment.status"]


@pytest.mark.parametrize(
    ("status", "stored"), [("fulfilled", "fulfilled"), ("cancelled", "deleted"), ("waitlist", "waiting")]
)
def test_a_waitlist_entry_has_three_statuses(clinic: Clinic, status: str, stored: str) -> None:
    made = clinic.create(appointment(status="waitlist"))
    times = {"start": "2026-06-02T09:00:00Z", "end": "2026-06-02T09:15:00Z"} if status == "fulfilled" else {}
    answer = clinic.put({**made, "status": status, **times})
    assert as_resource(answer)["status"] == status
    assert clinic.sql("select status from waitlist_entries where tenant_id = %s", clinic.tenant) == [(stored,)]


def test_a_waitlist_entry_can_not_be_booked_by_its_own_status(clinic: Clinic) -> None:
    made = clinic.create(appointment(status="waitlist"))
    body = {**made, "status": "booked", "start": "2026-06-02T09:00:00Z", "end": "2026-06-02T09:15:00Z"}
    assert refusal(clinic.put(body), 422)[0]["expression"] == ["Appointment.status"]
