"""$find (ITI-115): proposals of a pool, the earliest first, that $hold and $book take by their ids."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from clinic import PATIENT, Clinic, Resource, as_resource, links, name, refusal, row_id
from proposals import end, held, hold, only

CODES = "http://clinic.example/codes"
WINDOW = {"start": "2031-06-02T00:00:00Z", "end": "2031-06-03T00:00:00Z"}


def ask(clinic: Clinic, query: str = "", **given: Any) -> httpx.Response:
    """The answer to $find; `given` are the inputs with _ for -, lists for those that repeat, None to leave one out."""
    listed: list[Resource] = []
    for key, values in {**WINDOW, **given}.items():
        for value in values if isinstance(values, list) else [values]:
            listed += [] if value is None else [{"name": key.replace("_", "-"), **content(key, value)}]
    return clinic.http.post(f"Appointment/$find{query}", json={"resourceType": "Parameters", "parameter": listed})


def content(key: str, value: Any) -> Resource:
    if key in ("start", "end"):
        return {"valueDateTime": value}
    if key in ("practitioner", "organization", "location_reference", "patient_reference"):
        return {"valueReference": {"reference": value} if isinstance(value, str) else value}
    return {"resource": value} if key == "patient_resource" else {f"value{kind(value)}": value}


def kind(value: Any) -> str:
    return "String" if isinstance(value, str) else "Timing"


def proposals(answer: httpx.Response) -> list[Resource]:
    assert answer.status_code == 200, answer.text
    bundle = as_resource(answer)
    assert bundle["type"] == "searchset"
    return [each["resource"] for each in bundle["entry"] if each["search"]["mode"] == "match"]


def found(clinic: Clinic, **given: Any) -> list[str]:
    """The slots that are proposed."""
    return [each["slot"][0]["reference"] for each in proposals(ask(clinic, **given))]


def concept(code: str) -> list[Resource]:
    return [{"coding": [{"system": CODES, "code": code}]}]


def practice(clinic: Clinic, *actors: str, hours: tuple[int, ...] = (9, 10), **elements: Any) -> list[Resource]:
    """The free slots of a new schedule of these actors, at those hours."""
    schedule = clinic.schedule(actor=[{"reference": each} for each in actors], **elements)
    return [clinic.slot(schedule, f"2031-06-02T{hour:02}:00:00Z") for hour in hours]


def someone(kind: str = "Practitioner") -> str:
    return f"{kind}/{uuid4()}"


def test_a_proposal_is_an_appointment_that_says_what_is_proposed(clinic: Clinic) -> None:
    doctor = someone()
    (slot,) = practice(clinic, doctor, hours=(9,), specialty=concept("skin"), serviceType=concept("visit"))
    answer = ask(clinic, practitioner=doctor, patient_reference=PATIENT, reason=f"{CODES}|rash")
    (found,) = proposals(answer)
    assert found["status"] == "proposed"
    assert (found["start"], found["end"], found["slot"]) == (slot["start"], slot["end"], [{"reference": name(slot)}])
    assert [each["actor"]["reference"] for each in found["participant"]] == [PATIENT, doctor]
    assert {each["status"] for each in found["participant"]} == {"needs-action"}
    assert found["requestedPeriod"] == [WINDOW]
    assert (found["specialty"], found["serviceType"]) == (concept("skin"), concept("visit"))
    assert found["reasonCode"] == concept("rash")
    assert as_resource(answer)["total"] == 1
    checked = clinic.http.post("Appointment/$validate", json={k: v for k, v in found.items() if k != "id"})
    assert "no issues" in checked.text


def test_what_is_found_is_held_and_booked_by_its_id(clinic: Clinic) -> None:
    practice(clinic, someone())
    first, second = proposals(ask(clinic, patient_reference=PATIENT))
    kept = only(hold(clinic, first["id"]))
    assert [each["actor"] for each in kept["participant"]] == [each["actor"] for each in first["participant"]]
    given = {"name": "appointment-reference", "valueReference": {"reference": name(second)}}
    booked = only(clinic.http.post("Appointment/$book", json={"resourceType": "Parameters", "parameter": [given]}))
    assert (booked["status"], booked["slot"]) == ("booked", second["slot"])
    assert found(clinic) == []


def test_it_speaks_xml(clinic: Clinic) -> None:
    practice(clinic, someone())
    moments = "".join(
        f'<parameter><name value="{k}"/><valueDateTime value="{v}"/></parameter>' for k, v in WINDOW.items()
    )
    answer = clinic.http.post(
        "Appointment/$find",
        content=f'<Parameters xmlns="http://hl7.org/fhir">{moments}</Parameters>',
        headers={"Content-Type": "application/fhir+xml", "Accept": "application/fhir+xml"},
    )
    assert answer.status_code == 200
    assert answer.text.count('<status value="proposed"/>') == 2


def test_without_anybody_named_everything_free_is_found_the_earliest_first(clinic: Clinic) -> None:
    late, early = practice(clinic, someone(), hours=(11,)), practice(clinic, someone(), hours=(8, 12))
    clinic.booked(*practice(clinic, someone(), hours=(7,)))
    practice(clinic, someone(), hours=(6,), active=False)
    assert found(clinic) == [name(early[0]), name(late[0]), name(early[1])]


def test_of_several_of_a_kind_any_will_do(clinic: Clinic) -> None:
    first, second = someone(), someone()
    one, other, _ = practice(clinic, first), practice(clinic, second), practice(clinic, someone())
    assert sorted(found(clinic, practitioner=[first, second])) == sorted(map(name, one + other))
    assert found(clinic, practitioner=someone()) == []


def test_an_actor_may_be_named_by_an_identifier(clinic: Clinic) -> None:
    identifier = {"identifier": {"system": "urn:oid:1.3.6.1.4.1.19376.1.2.999", "value": "PR23143"}}
    schedule = clinic.schedule(actor=[{"type": "Practitioner", **identifier}])
    slot = clinic.slot(schedule, "2031-06-02T09:00:00Z")
    practice(clinic, someone())
    assert found(clinic, practitioner=identifier) == [name(slot)]


def test_kinds_intersect_within_one_schedule(clinic: Clinic) -> None:
    doctor, room = someone(), someone("Location")
    both = practice(clinic, doctor, room, hours=(9,))
    practice(clinic, doctor, hours=(10,))
    practice(clinic, someone(), room, hours=(11,))
    assert found(clinic, practitioner=doctor, location_reference=room) == [name(both[0])]
    assert found(clinic, practitioner=doctor, organization="Organization/1") == []


def test_kinds_intersect_across_schedules_and_all_of_them_are_taken(clinic: Clinic) -> None:
    doctor, room = someone(), someone("Location")
    slots = practice(clinic, doctor, hours=(9, 10, 11))
    rooms = [clinic.slot(clinic.schedule(actor=[{"reference": room}]), "2031-06-02T10:00:00Z", minutes=60)]
    (found,) = proposals(ask(clinic, practitioner=doctor, location_reference=room, patient_reference=PATIENT))
    assert [each["reference"] for each in found["slot"]] == [name(slots[1]), name(rooms[0])]
    kept = only(hold(clinic, found["id"]))
    actors = [each["actor"]["reference"] for each in kept["participant"]]
    assert actors == [PATIENT, doctor, room]
    assert [clinic.read(each)["status"] for each in (slots[1], rooms[0])] == ["busy-tentative"] * 2
    assert proposals(ask(clinic, practitioner=doctor, location_reference=room)) == []


def test_codes_are_fulfilled_by_the_schedule_or_by_the_slot(clinic: Clinic) -> None:
    skin = practice(clinic, someone(), hours=(9,), specialty=concept("skin"))
    schedule = clinic.schedule()
    own = clinic.slot(schedule, "2031-06-02T10:00:00Z", specialty=concept("skin"))
    typed = clinic.slot(schedule, "2031-06-02T11:00:00Z", appointmentType=concept("visit")[0])
    assert found(clinic, specialty=f"{CODES}|skin") == [name(skin[0]), name(own)]
    assert found(clinic, specialty=[f"{CODES}|skin", f"{CODES}|hair"]) == [name(skin[0]), name(own)]
    assert found(clinic, specialty="http://other.example|skin") == []
    assert found(clinic, visit_type=f"{CODES}|visit") == [name(typed)]
    assert found(clinic, visit_type=f"{CODES}|visit", specialty=f"{CODES}|skin") == []
    doctor = schedule["actor"][0]["reference"]
    assert found(clinic, practitioner=doctor, specialty=f"{CODES}|skin") == [name(own)]


def test_a_location_is_found_by_a_part_of_its_name(clinic: Clinic) -> None:
    actor = [{"reference": someone("Location"), "display": "Harbour Clinic, 100% Quay"}]
    slot = clinic.slot(clinic.schedule(actor=actor), "2031-06-02T09:00:00Z")
    practice(clinic, someone())
    assert found(clinic, location_string="harbour") == [name(slot)]
    assert found(clinic, location_string="100%") == [name(slot)]
    assert found(clinic, location_string="1%quay") == []


def test_days_and_times_are_those_of_the_clinic(clinic: Clinic) -> None:
    schedule = clinic.schedule(zone="Asia/Kathmandu")
    early, late = (clinic.slot(schedule, f"2031-06-02T0{hour}:15:00Z") for hour in (3, 4))
    assert found(clinic, timing={"repeat": {"timeOfDay": ["09:00:00"]}}) == [name(early)]
    assert found(clinic, timing={"repeat": {"dayOfWeek": ["mon"]}}) == [name(early), name(late)]
    assert found(clinic, timing={"repeat": {"dayOfWeek": ["tue"]}}) == []
    assert found(clinic, start="2031-06-02", end="2031-06-02") == [name(early), name(late)]
    assert found(clinic, start="2031-06-01", end="2031-06-01") == []


def test_only_what_lies_within_the_window_is_found(clinic: Clinic) -> None:
    slots = practice(clinic, someone(), hours=(8, 9, 10))
    assert found(clinic, start="2031-06-02T08:00:01Z", end="2031-06-02T10:14:59Z") == [name(slots[1])]
    assert found(clinic, start="2031-06-02T10:00:00+02:00", end="2031-06-02T12:00:00+02:00") == list(
        map(name, slots[:2])
    )


def test_pages_follow_each_other_without_gaps_while_others_book(clinic: Clinic) -> None:
    doctor = someone()
    slots = practice(clinic, doctor, hours=tuple(range(6, 18)))
    first = as_resource(ask(clinic, "?_count=5", practitioner=doctor))
    assert (len(first["entry"]), first["total"]) == (5, 12)
    clinic.booked(slots[1])
    second = clinic.bundle(links(first)["next"])
    third = clinic.bundle(links(second)["next"])
    seen = [each["resource"]["slot"][0]["reference"] for page in (first, second, third) for each in page["entry"]]
    assert seen == list(map(name, slots))
    assert "next" not in links(third)
    refusal(clinic.http.get("Appointment/$find?_page=nonsense"), 400)
    other = Clinic(clinic.server, clinic.database)
    token = httpx.URL(links(first)["next"]).params["_page"]
    refusal(other.http.get(f"Appointment/$find?_page={token}"), 400)
    other.close()


def test_a_held_time_is_not_found_until_the_hold_is_over(clinic: Clinic) -> None:
    slots = practice(clinic, someone())
    kept = held(clinic, slots[0])
    assert found(clinic) == [name(slots[1])]
    end(clinic, kept)
    assert found(clinic) == list(map(name, slots))


def test_a_practitioner_who_is_elsewhere_is_not_proposed(clinic: Clinic) -> None:
    doctor = someone()
    slots = practice(clinic, doctor)
    elsewhere = practice(clinic, someone("Location"), hours=(9,))
    booking = {"participant": [{"actor": {"reference": each}, "status": "accepted"} for each in (PATIENT, doctor)]}
    clinic.booked(*elsewhere, **booking)
    assert found(clinic, practitioner=doctor) == [name(slots[1])]


def test_a_slot_with_room_left_is_found_until_it_is_full(clinic: Clinic) -> None:
    (slot,) = practice(clinic, someone(), hours=(9,))
    clinic.sql("update slots set capacity = 2 where id = %s", row_id(slot))
    clinic.booked(slot)
    assert found(clinic) == [name(slot)]
    clinic.booked(slot, patient="Patient/other")
    assert found(clinic) == []


def test_nothing_found_is_said(clinic: Clinic) -> None:
    bundle = as_resource(ask(clinic))
    assert bundle["total"] == 0
    (entry,) = bundle["entry"]
    assert entry["search"] == {"mode": "outcome"}
    assert entry["resource"]["issue"][0]["severity"] == "information"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": None}, "start"),
        ({"start": "2031-06-04T00:00:00Z"}, "before end"),
        ({"start": "soon"}, "date"),
        ({"specialty": "skin"}, "system|code"),
        ({"practitionr": "Practitioner/1"}, "practitionr"),
    ],
)
def test_inputs_that_do_not_fit_are_named(clinic: Clinic, given: Any, said: str) -> None:
    issues = refusal(ask(clinic, **given), 400)
    assert said in str(issues)


def test_nothing_is_stored(clinic: Clinic) -> None:
    practice(clinic, someone())
    (first, *_) = proposals(ask(clinic))
    refusal(clinic.http.get(name(first)), 404)
    assert clinic.bundle("Appointment?_summary=count")["total"] == 0
