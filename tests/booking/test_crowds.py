"""Many at once, and over what is another's: it ends as if one had come after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx

from clinic import EXTENSION, PATIENT, Clinic, Resource, appointment, name, refusal, row_id, said
from fhir_sched.scheduling.proposal import Proposal
from laws import LAWS
from proposals import end, held, hold, proposal, reference

CLIENTS = 32
NEW_YORK = ZoneInfo("America/New_York")
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAYS = "start=2031-06-02&end=2031-06-03"


def at_once(clinic: Clinic, asks: Sequence[Callable[[httpx.Client], httpx.Response]]) -> list[httpx.Response]:
    """The answers to requests that begin at the same moment, each on a connection of its own."""
    start = Barrier(len(asks))

    def ask(each: Callable[[httpx.Client], httpx.Response]) -> httpx.Response:
        with clinic.server.fhir(clinic.tenant) as http:
            http.get("metadata?_summary=true")
            start.wait()
            return each(http)

    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(ask, asks))


def lawful(clinic: Clinic) -> bool:
    with clinic.database.connect_admin() as connection:
        return connection.execute(LAWS, {"t": clinic.tenant}).fetchall() == []


def invoked(operation: str, fhir_id: str) -> Callable[[httpx.Client], httpx.Response]:
    return lambda http: http.post(f"Appointment/${operation}", json=reference(fhir_id))


def posted(body: Resource) -> Callable[[httpx.Client], httpx.Response]:
    return lambda http: http.post(body["resourceType"], json=body)


def rules(*listed: tuple[str, str, int], zone: str = "America/New_York") -> list[Resource]:
    found: list[Resource] = [{"url": EXTENSION + "schedule-timezone", "valueCode": zone}]
    for opens, closes, minutes in listed:
        parts: list[Resource] = [{"url": "daysOfWeek", "valueCode": day} for day in WEEK]
        parts += [{"url": "startTime", "valueTime": opens}, {"url": "endTime", "valueTime": closes}]
        parts.append({"url": "slotMinutes", "valuePositiveInt": minutes})
        found.append({"url": EXTENSION + "schedule-availability", "extension": parts})
    return found


def test_a_patient_who_asks_for_32_holds_at_once_gets_as_many_as_may_be(clinic: Clinic) -> None:
    of = clinic.schedule()
    slots = [clinic.slot(of, f"2031-06-{day:02}T09:00:00Z") for day in range(1, 29)]
    answers = at_once(clinic, [invoked("hold", proposal(each)) for each in slots])
    assert Counter(answer.status_code for answer in answers) == {200: 3, 422: len(slots) - 3}
    assert Counter(clinic.read(each)["status"] for each in slots) == {"busy-tentative": 3, "free": len(slots) - 3}
    assert lawful(clinic)


def test_of_several_slots_of_which_one_is_taken_none_is_held(clinic: Clinic) -> None:
    doctor, room = f"Practitioner/{uuid4()}", f"Location/{uuid4()}"
    first, second = (
        clinic.slot(clinic.schedule(actor=[{"reference": each}]), "2031-06-02T09:00:00Z") for each in (doctor, room)
    )
    both = Proposal(str(row_id(first)), (str(row_id(second)).replace("-", "")[-12:],), PATIENT).id
    clinic.booked(second, patient="Patient/other")
    assert name(second) in said(hold(clinic, both), 409)
    assert clinic.read(first)["status"] == "free"


def test_of_32_who_want_one_of_three_places_three_get_one_and_the_slot_is_free_until_then(clinic: Clinic) -> None:
    three = [{"url": EXTENSION + "slot-capacity", "valueInteger": 3}]
    slot = clinic.slot(clinic.schedule(), "2031-06-02T09:00:00Z", extension=three)
    people = [appointment(slot, patient=f"Patient/{uuid4()}", doctor="Practitioner/teacher") for _ in range(CLIENTS)]
    answers = at_once(clinic, [posted(each) for each in people])
    assert Counter(answer.status_code for answer in answers) == {201: 3, 409: CLIENTS - 3}
    assert all(refusal(answer, 409) for answer in answers if answer.status_code == 409)
    events = "select payload -> 'row' ->> 'status' from outbox where aggregate_id = %s"
    told = clinic.sql(f"{events} order by (payload ->> 'version')::int", row_id(slot))
    assert [status for (status,) in told] == ["free", "busy"]
    assert len(clinic.found(f"Appointment?slot={name(slot)}")) == 3
    assert lawful(clinic)


def test_of_a_hold_and_a_series_that_want_one_slot_one_gets_it(clinic: Clinic) -> None:
    for _ in range(5):
        of = clinic.schedule()
        weeks = [clinic.slot(of, f"2031-06-{day:02}T09:00:00Z") for day in (2, 9, 16)]
        first = {"name": "appointment", "resource": appointment(weeks[0], patient="Patient/weekly")}
        series = {"resourceType": "Parameters", "parameter": [first, {"name": "count", "valuePositiveInt": 3}]}
        asks: list[Callable[[httpx.Client], httpx.Response]] = [
            lambda http: http.post("Appointment/$book-series", json=series),  # noqa: B023 - asked at once
            invoked("hold", proposal(weeks[1], f"Patient/{uuid4()}")),
        ]
        booked, kept = at_once(clinic, asks)
        assert sorted((booked.status_code, kept.status_code)) == [200, 409], (booked.text, kept.text)
        statuses = [clinic.read(each)["status"] for each in weeks]
        assert statuses == (["busy"] * 3 if booked.status_code == 200 else ["free", "busy-tentative", "free"])
        assert lawful(clinic)


def test_a_proposal_of_a_slot_that_changed_rules_took_back_is_not_available(clinic: Clinic) -> None:
    of = clinic.schedule(extension=rules(("09:00:00", "11:00:00", 30)))
    generate = f"{name(of)}/$generate-slots?{DAYS}"
    clinic.http.post(generate).raise_for_status()
    slots = clinic.matches(f"Slot?schedule={name(of)}&status=free&_sort=start")
    kept = held(clinic, slots[0])
    clinic.put({**clinic.read(of), "extension": rules(("10:00:00", "11:00:00", 30))}).raise_for_status()
    still = clinic.http.post("Appointment/$book", json=reference(proposal(slots[-1])))
    assert still.status_code == 200, "the rules give it as before"
    clinic.http.post(generate).raise_for_status()
    gone = slots[1]
    assert clinic.read(gone)["status"] == "entered-in-error"
    for operation in ("hold", "book"):
        refusal(clinic.http.post(f"Appointment/${operation}", json=reference(proposal(gone))), 409)
    assert clinic.read(gone)["status"] == "entered-in-error"
    assert clinic.http.post("Appointment/$book", json=reference(kept["id"])).status_code == 200, "what was held stays"
    assert lawful(clinic)


def test_of_32_who_confirm_renew_and_give_up_one_hold_it_ends_in_one_way(clinic: Clinic) -> None:
    for _ in range(5):
        slot = clinic.slot(clinic.schedule(), "2031-06-02T09:00:00Z")
        kept = held(clinic, slot, f"Patient/{uuid4()}")
        patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
        headers = {"Content-Type": "application/json-patch+json"}
        asks: list[Callable[[httpx.Client], httpx.Response]] = [invoked("book", kept["id"])] * 10
        asks += [invoked("hold", kept["id"])] * 10
        asks += [lambda http: http.patch(name(kept), json=patch, headers=headers)] * 2  # noqa: B023 - asked at once
        answers = at_once(clinic, asks)
        assert {answer.status_code for answer in answers} <= {200, 409, 422}, [answer.text for answer in answers]
        assert sum(answer.status_code == 200 for answer in answers[:10]) <= 1
        status = clinic.read(kept)["status"]
        assert clinic.read(slot)["status"] == {"booked": "busy", "cancelled": "free"}[status]
        assert lawful(clinic)


def test_a_hold_that_is_over_is_not_confirmed_by_any_of_32_while_another_takes_its_slot(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), "2031-06-02T09:00:00Z")
    kept = held(clinic, slot)
    end(clinic, kept)
    taken = appointment(slot, patient="Patient/other")
    asks: list[Callable[[httpx.Client], httpx.Response]] = [invoked("book", kept["id"])] * 16
    asks += [lambda http: http.post("Appointment", json=taken)] * 16
    answers = [answer.status_code for answer in at_once(clinic, asks)]
    assert Counter(answers[:16]) == {409: 16}
    assert Counter(answers[16:]) == {201: 1, 409: 15}
    assert lawful(clinic)


def test_an_offer_is_taken_once_by_however_many(clinic: Clinic) -> None:
    of = clinic.schedule()
    slot = clinic.slot(of, "2031-06-02T09:00:00Z")
    booked = clinic.booked(slot)
    criteria = {"url": EXTENSION + "waitlist-criteria", "valueString": f'{{"schedules": ["{name(of)}"]}}'}
    entry = clinic.create(appointment(status="waitlist", patient="Patient/waits", extension=[criteria]))
    headers = {"Content-Type": "application/json-patch+json"}
    patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
    assert clinic.http.patch(name(booked), json=patch, headers=headers).status_code == 200
    offered: list[Resource] = []
    while not offered:
        offered = clinic.matches("Appointment?status=pending&patient=Patient/waits")
    asks = [invoked("book", offered[0]["id"])] * 8 + [invoked("book", entry["id"])] * 8
    answers = Counter(answer.status_code for answer in at_once(clinic, asks))
    assert answers == {200: 1, 409: 15}
    assert clinic.read(entry)["status"] == "fulfilled"
    assert clinic.read(slot)["status"] == "busy"
    assert lawful(clinic)


def test_slots_generated_while_32_book_and_rules_change_end_lawfully(clinic: Clinic) -> None:
    of = clinic.schedule(extension=rules(("09:00:00", "17:00:00", 30)))
    assert clinic.http.post(f"{name(of)}/$generate-slots?{DAYS}").status_code == 200
    slots = clinic.matches(f"Slot?schedule={name(of)}&status=free&_count=100")
    assert len(slots) == 32
    changed = {**of, "extension": rules(("09:00:00", "12:00:00", 30))}
    assert clinic.http.put(name(of), json=changed).status_code == 200
    bodies = [appointment(each, patient=f"Patient/{n}") for n, each in enumerate(slots[:28])]
    asks: list[Callable[[httpx.Client], httpx.Response]] = [posted(each) for each in bodies]
    asks += [lambda http: http.post(f"{name(of)}/$generate-slots?{DAYS}")] * 4
    answers = at_once(clinic, asks)
    assert {answer.status_code for answer in answers[28:]} == {200}
    for slot, answer in zip(slots, answers[:28], strict=False):
        refused = refusal(answer, 409) if answer.status_code != 201 else []
        assert clinic.read(slot)["status"] == ("entered-in-error" if refused else "busy")
    assert lawful(clinic)


def test_rules_that_make_no_sense_are_refused_with_what_would(clinic: Clinic) -> None:
    for opens, closes in (("22:00:00", "02:00:00"), ("00:00:00", "00:00:00"), ("09:00:00", "09:00:00")):
        wanted: dict[str, Any] = {"resourceType": "Schedule", "actor": [{"reference": "Practitioner/7"}]}
        answer = clinic.http.post("Schedule", json={**wanted, "extension": rules((opens, closes, 30))})
        assert answer.status_code in (400, 422), answer.text
        assert "startTime" in answer.text or "endTime" in answer.text, answer.text


def test_a_minute_long_slot_for_a_year_is_too_much_at_once_and_a_month_of_it_is_not(clinic: Clinic) -> None:
    of = clinic.schedule(extension=rules(("00:00:00", "23:59:00", 1)))
    assert "fewer days" in said(clinic.http.post(f"{name(of)}/$generate-slots?start=2031&end=2031"), 422)
    answer = clinic.http.post(f"{name(of)}/$generate-slots?start=2031-06&end=2031-06")
    assert answer.json()["parameter"][0] == {"name": "added", "valueUnsignedInt": 30 * 1439}


def test_another_zone_moves_what_is_free_and_nothing_else(clinic: Clinic) -> None:
    of = clinic.schedule(extension=rules(("09:00:00", "11:00:00", 60)))
    assert clinic.http.post(f"{name(of)}/$generate-slots?start=2031-06-02&end=2031-06-02").status_code == 200
    first, second = clinic.matches(f"Slot?schedule={name(of)}&_sort=start")
    clinic.booked(first)
    moved = {**of, "extension": rules(("09:00:00", "11:00:00", 60), zone="Europe/Berlin")}
    assert clinic.http.put(name(of), json=moved).status_code == 200
    answer = clinic.http.post(f"{name(of)}/$generate-slots?start=2031-06-02&end=2031-06-02")
    assert [each["valueUnsignedInt"] for each in answer.json()["parameter"]] == [2, 1]
    assert [clinic.read(each)["status"] for each in (first, second)] == ["busy", "entered-in-error"]
    free = clinic.matches(f"Slot?schedule={name(of)}&status=free&_sort=start")
    assert [each["start"] for each in free] == ["2031-06-02T07:00:00Z", "2031-06-02T08:00:00Z"]


def test_a_year_of_weeks_is_booked_whole_or_every_conflict_is_told(clinic: Clinic) -> None:
    of = clinic.schedule("America/New_York")
    begins = datetime(2036, 1, 7, 9, tzinfo=NEW_YORK)
    slots = [clinic.slot(of, (begins + timedelta(weeks=week)).isoformat(), 30) for week in range(52)]
    in_the_way = [clinic.booked(slots[number], patient="Patient/other") for number in (9, 50)]
    given = [{"name": "count", "valuePositiveInt": 52}, {"name": "appointment", "resource": appointment(slots[0])}]
    body = {"resourceType": "Parameters", "parameter": given}
    issues = refusal(clinic.http.post("Appointment/$book-series", json=body), 409)
    assert [issue["diagnostics"].partition(",")[0] for issue in issues] == ["occurrence 10", "occurrence 51"]
    assert Counter(clinic.read(each)["status"] for each in slots) == {"busy": 2, "free": 50}
    for each in in_the_way:
        assert clinic.http.delete(name(each)).status_code == 204
    answer = clinic.http.post("Appointment/$book-series", json=body)
    assert len(answer.json()["entry"]) == 52
    hours = {
        datetime.fromisoformat(each["resource"]["start"]).astimezone(NEW_YORK).hour for each in answer.json()["entry"]
    }
    assert hours == {9}
    assert lawful(clinic)
