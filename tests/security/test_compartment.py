"""What a patient's token sees and does: its own appointments, public availability, and nothing of anybody else.

Each test asks as a patient what staff can see, by every way that leads to a resource.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from authority import Authority
from clinic import EXTENSION, Clinic, Resource, appointment, as_resource, name, refusal, row_id, schedule, slot
from db import Database
from proposals import only, proposal, reference
from server import Server

ANN, BOB = "Patient/00000000-0000-4000-8000-0000000000a1", "Patient/00000000-0000-4000-8000-0000000000b2"
DOUBLE = {"url": EXTENSION + "allow-double-booking", "valueBoolean": True}
SECRET = "the secret of Bob"


@pytest.fixture(scope="module")
def server(database: Database, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens; their audience is `fhir`."""
    keys: Path = tmp_path_factory.mktemp("keys")
    settings = {"issuer": authority.issuer, "jwks_url": authority.write(keys), "audience": "fhir"}
    with Server(database.app_url, auth="smart", **settings) as running:
        yield running


class Practice:
    """A tenant with staff, Ann and Bob; one schedule, and appointments of Ann, of Bob and of both."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        self.server, self.authority, self.tenant = server, authority, uuid4()
        self.staff = self.client("user/*.cruds", fhirUser="Practitioner/7")
        self.ann = self.client("patient/*.cruds", patient=ANN)
        self.bob = self.client("patient/*.cruds", patient=BOB)
        self.clinic = Clinic(server, database, self.tenant)
        self.clinic.http.close()
        self.clinic.http = self.staff
        self.schedule = self.clinic.create(schedule(comment=SECRET))
        self.slots = [
            self.clinic.create(slot(self.schedule, f"2036-06-01T{9 + hour:02}:00:00Z", comment=SECRET))
            for hour in range(8)
        ]
        self.anns = self.clinic.create(appointment(self.slots[0], patient=ANN, comment="of Ann"))
        self.bobs = self.clinic.create(
            appointment(self.slots[1], patient=BOB, comment=SECRET, identifier=[{"system": "urn:x", "value": "bob"}])
        )
        self.group = self.clinic.create(group(self.slots[2]))

    def client(self, scope: str, **claims: Any) -> httpx.Client:
        token = self.authority.token(self.tenant, "fhir", scope=scope, **claims)
        return self.server.fhir(self.tenant, headers={"Authorization": f"Bearer {token}"})

    def close(self) -> None:
        for each in (self.staff, self.ann, self.bob):
            each.close()


def group(*slots: Resource) -> Resource:
    """Ann and Bob in one room, Bob in every form in which a person can be there."""
    made = appointment(*slots, patient=ANN)
    made["contained"] = [{"resourceType": "Patient", "id": "p", "name": [{"text": SECRET}]}]
    made["text"] = {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{SECRET}</div>'}
    others: list[Resource] = [
        {"reference": BOB, "display": SECRET},
        {"reference": "#p"},
        {"display": SECRET},
        {"reference": "RelatedPerson/5", "display": SECRET},
        {"reference": "https://elsewhere.example/r4/Patient/9", "display": SECRET},
        {"type": "Patient", "identifier": {"system": "urn:mrn", "value": "9"}, "display": SECRET},
    ]
    made["participant"] += [{"actor": actor, "status": "accepted"} for actor in others]
    made["participant"].append({"actor": {"reference": "Practitioner/7"}, "status": "accepted"})
    return made


@pytest.fixture(scope="module")
def shared(server: Server, database: Database, authority: Authority) -> Iterator[Practice]:
    """A practice that nobody changes."""
    made = Practice(server, database, authority)
    yield made
    made.close()


@pytest.fixture
def practice(server: Server, database: Database, authority: Authority) -> Iterator[Practice]:
    """A practice for this test."""
    made = Practice(server, database, authority)
    yield made
    made.close()


def reads(practice: Practice) -> dict[str, str]:
    """Every way in which something is found, as a URL."""
    bob, apt = BOB.partition("/")[2], practice.bobs["id"]
    free = name(practice.slots[1])
    return {
        "search": "Appointment",
        "count": "Appointment?_summary=count",
        "accurate total": "Appointment?_total=accurate&_count=1",
        "by id": f"Appointment?_id={apt}",
        "by not id": "Appointment?_id:not=apt-00000000-0000-4000-8000-000000000000",
        "by patient": f"Appointment?patient={BOB}",
        "by patient's id": f"Appointment?patient={bob}",
        "by actor": f"Appointment?actor={BOB}",
        "by relative": "Appointment?actor=RelatedPerson/5",
        "by actor's identifier": "Appointment?actor:identifier=urn:mrn|9",
        "by chained identifier": "Appointment?patient.identifier=urn:mrn|9",
        "by slot": f"Appointment?slot={free}",
        "by identifier": "Appointment?identifier=urn:x|bob",
        "by schedule": f"Appointment?slot.schedule={name(practice.schedule)}",
        "missing": "Appointment?identifier:missing=false",
        "include": "Appointment?_include=Appointment:slot&_include:iterate=Slot:schedule",
        "revinclude": "Slot?_revinclude=Appointment:slot",
        "revinclude twice": "Schedule?_revinclude=Slot:schedule&_revinclude:iterate=Appointment:slot",
        "all includes": "Appointment?_include=*",
        "has": "Slot?_has:Appointment:slot:_id:not=apt-00000000-0000-4000-8000-000000000000",
        "has patient": f"Slot?_has:Appointment:slot:patient={BOB}",
        "has twice": f"Schedule?_has:Slot:schedule:_has:Appointment:slot:patient={BOB}",
        "system": "?_type=Appointment,Slot,Schedule",
        "compartment": f"{BOB}/Appointment",
        "whole compartment": f"{BOB}/*",
        "practitioner's compartment": "Practitioner/7/Appointment",
        "history": "Appointment/_history",
        "system history": "_history",
        "instance history": f"Appointment/{apt}/_history",
        "read": f"Appointment/{apt}",
        "version": f"Appointment/{apt}/_history/1",
        "validate": f"Appointment/{apt}/$validate",
        "slots": "Slot",
        "slot": free,
        "slot's version": f"{free}/_history/1",
        "slot's history": f"{free}/_history",
        "schedules": "Schedule",
        "schedule": name(practice.schedule),
        "elements": "Appointment?_elements=participant,comment",
        "summary": "Appointment?_summary=data",
        "group": name(practice.group),
        "group's version": f"{name(practice.group)}/_history/1",
        "group's history": f"{name(practice.group)}/_history",
    }


def appointments(document: str) -> set[str]:
    """The ids of all appointments that are named anywhere in an answer."""
    return set(re.findall(r'(?:"id":"|fullUrl":"[^"]*/)(apt-[0-9a-f-]+)"', document))


@pytest.mark.parametrize("how", ["directly", "in a batch", "by POST _search"])
def test_nothing_of_bob_reaches_ann(shared: Practice, how: str) -> None:
    own = {shared.anns["id"], shared.group["id"]}
    for what, url in reads(shared).items():
        text = fetched(shared.ann, how, url)
        if text is None:
            continue
        without_the_question = text.replace(BOB, "") if "self" not in text else re.sub(r'"link":\[.*?\]', "", text)
        assert SECRET not in text, (what, text)
        assert BOB.partition("/")[2] not in without_the_question, (what, text)
        if what not in ("read", "version", "validate", "instance history"):
            assert appointments(text) <= own, (what, text)
        assert fetched(shared.staff, how, url), what


def fetched(client: httpx.Client, how: str, url: str) -> str | None:
    """The answer to a GET, or to the same question asked otherwise; None where it can't be asked so."""
    if how == "in a batch":
        entry = {"request": {"method": "GET", "url": url}}
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
        return client.post("", json=bundle).text
    if how == "by POST _search":
        path, _, query = url.partition("?")
        if ("/" in path and not path.endswith(("/Appointment", "/*"))) or path.startswith("_") or not query:
            return None
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return client.post(f"{path}/_search".lstrip("/"), content=query, headers=headers).text
    return client.get(url).text


def test_staff_sees_all_of_it(shared: Practice) -> None:
    assert SECRET in shared.staff.get(name(shared.group)).text
    assert SECRET in shared.staff.get(name(shared.slots[0])).text
    for what, url in reads(shared).items():
        assert shared.staff.get(url).status_code == 200, (what, shared.staff.get(url).text)


def test_ann_sees_her_own_in_every_way(shared: Practice) -> None:
    own = {shared.anns["id"], shared.group["id"]}
    for what in ("search", "by schedule", "system", "history", "include", "revinclude", "revinclude twice"):
        assert appointments(shared.ann.get(reads(shared)[what]).text) == own, what
    assert shared.ann.get("Appointment?_total=accurate&_count=1").json()["total"] == 2
    assert shared.ann.get(f"{ANN}/Appointment").json()["total"] == 2
    assert shared.ann.get(f"Slot?_has:Appointment:slot:patient={ANN}").json()["total"] == 2
    seen = as_resource(shared.ann.get(name(shared.group)))
    actors = [item["actor"]["reference"] for item in seen["participant"]]
    assert actors == [ANN, "Practitioner/7"]
    assert "contained" not in seen
    assert "text" not in seen
    bobs = shared.bob.get("Appointment").json()
    assert {entry["resource"]["id"] for entry in bobs["entry"]} == {shared.bobs["id"], shared.group["id"]}


def test_slots_and_schedules_are_availability_alone(shared: Practice) -> None:
    seen = as_resource(shared.ann.get(name(shared.slots[0])))
    assert seen["status"] == "busy"
    assert "comment" not in seen
    assert "comment" not in as_resource(shared.ann.get(name(shared.schedule)))
    assert as_resource(shared.ann.get(name(shared.schedule)))["actor"] == shared.schedule["actor"]
    actor = shared.schedule["actor"][0]["reference"]
    for query in (f"Slot?schedule.actor={actor}", f"Slot?schedule.actor={actor.partition('/')[2]}"):
        assert shared.ann.get(query).json()["total"] == len(shared.slots), query


def test_the_answer_of_somebody_withheld_is_not_found_by_its_status(practice: Practice) -> None:
    def found(client: httpx.Client, query: str) -> set[str]:
        answer = client.get(query)
        assert answer.status_code == 200, answer.text
        return appointments(answer.text)

    hidden = group(practice.slots[3])
    hidden["participant"][1]["status"] = "tentative"  # Bob's
    hidden["participant"][-1]["status"] = "needs-action"  # the practitioner's
    made = practice.clinic.create(hidden)["id"]
    of_practitioner = "https://elsewhere.example/r4/Practitioner/8"
    practice.clinic.put({**practice.anns, "participant": [
        {"actor": {"reference": ANN.replace("a1", "A1")}, "status": "declined"},
        {"actor": {"reference": of_practitioner}, "status": "tentative"},
    ]})  # fmt: skip
    anns, group_, bobs = practice.anns["id"], practice.group["id"], practice.bobs["id"]

    assert found(practice.ann, "Appointment?part-status=needs-action") == {made}
    assert found(practice.ann, "Appointment?part-status=declined") == {anns}
    assert found(practice.ann, "Appointment?part-status=accepted") == {made, group_}
    assert found(practice.ann, "Appointment?part-status=tentative") == {anns}
    assert found(practice.ann, "Appointment?part-status:not=tentative") == {made, group_}
    slots = practice.ann.get("Slot?_has:Appointment:slot:part-status=tentative").json()["entry"]
    assert [entry["resource"]["id"] for entry in slots] == [practice.slots[0]["id"]]
    assert found(practice.bob, "Appointment?part-status=tentative") == {made}
    assert found(practice.bob, "Appointment?part-status=accepted") == {group_, bobs}
    assert found(practice.staff, "Appointment?part-status=tentative") == {anns, made}


def test_the_history_of_all_leaves_out_what_a_query_would_have_to_be_asked_of(practice: Practice) -> None:
    some = practice.client("user/Slot.rs user/Schedule.rs user/Appointment.rs?status=booked", fhirUser="Practitioner/7")
    kinds = {entry["fullUrl"].split("/")[-2] for entry in some.get("_history?_count=100").json()["entry"]}
    assert kinds == {"Slot", "Schedule"}
    for path in ("Appointment/_history", f"{name(practice.anns)}/_history"):
        refusal(some.get(path), 403)
    some.close()
    nothing = practice.client("user/Appointment.rs?status=booked", fhirUser="Practitioner/7")
    refusal(nothing.get("_history"), 403)
    nothing.close()


def test_a_patient_among_a_schedules_actors_is_neither_shown_nor_found(practice: Practice) -> None:
    made = practice.clinic.create(schedule(actor=[{"reference": "Practitioner/8"}, {"reference": BOB}]))
    assert as_resource(practice.ann.get(name(made)))["actor"] == [{"reference": "Practitioner/8"}]
    for query in (f"Schedule?actor={BOB}", f"Schedule?actor={BOB.partition('/')[2]}", f"Slot?schedule.actor={BOB}"):
        assert practice.ann.get(query).json()["total"] == 0, query
    assert practice.staff.get(f"Schedule?actor={BOB}").json()["total"] == 1


# what is foreign is like what is not there


def both(practice: Practice) -> tuple[str, str]:
    """Bob's appointment and one that does not exist."""
    return practice.bobs["id"], f"apt-{uuid4()}"


def test_foreign_and_unknown_ids_answer_with_the_same_bytes(practice: Practice) -> None:
    json_patch = {"Content-Type": "application/json-patch+json"}
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", "Appointment/{id}", {}),
        ("HEAD", "Appointment/{id}", {}),
        ("GET", "Appointment/{id}/_history", {}),
        ("GET", "Appointment/{id}/_history?_count=1", {}),
        ("GET", "Appointment/{id}/_history?_since=2020-01-01T00:00:00Z", {}),
        ("GET", "Appointment/{id}/_history/1", {}),
        ("GET", "Appointment/{id}/_history/99", {}),
        ("GET", "Appointment/{id}/$validate", {}),
        ("DELETE", "Appointment/{id}/$validate", {}),
        ("GET", "Appointment?_id={id}", {}),
        ("GET", "Appointment/{id}", {"headers": {"If-None-Match": 'W/"1"'}}),
        ("PUT", "Appointment/{id}", {"json": "update"}),
        ("PUT", "Appointment/{id}", {"json": "update", "headers": {"If-Match": 'W/"1"'}}),
        ("PUT", "Appointment?_id={id}", {"json": "update"}),
        ("POST", "Appointment/{id}/$validate?mode=update", {"json": "update"}),
        ("POST", "Appointment/{id}/$validate?mode=delete", {}),
        ("PATCH", "Appointment/{id}", {"content": "[]", "headers": json_patch}),
        ("PATCH", "Appointment/{id}", {"content": "[]", "headers": {**json_patch, "If-Match": 'W/"1"'}}),
        ("PATCH", "Appointment?_id={id}", {"content": "[]", "headers": json_patch}),
        ("DELETE", "Appointment/{id}", {}),
        ("DELETE", "Appointment/{id}", {"headers": {"If-Match": 'W/"7"'}}),
        ("DELETE", "Appointment?_id={id}", {}),
    )
    for method, path, options in asked:
        answers = []
        for fhir_id in both(practice):
            options_now = dict(options)
            if options_now.get("json") == "update":
                options_now["json"] = {**appointment(patient=ANN), "id": fhir_id}
            answer = practice.ann.request(method, path.format(id=fhir_id), **options_now)
            headers = {key: value for key, value in answer.headers.items() if key in HEADERS}
            answers.append((answer.status_code, headers, answer.text.replace(fhir_id, "ID")))
        assert answers[0] == answers[1], (method, path)
    assert practice.clinic.read(practice.bobs) == practice.bobs


HEADERS = ("etag", "location", "last-modified", "content-location", "allow", "www-authenticate", "content-length")


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("version", ["", 'W/"1"', 'W/"7"'])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "GET"])
def test_a_bundle_does_not_tell_them_apart_either(shared: Practice, kind: str, version: str, method: str) -> None:
    answers = []
    for fhir_id in both(shared):
        request = {"method": method, "url": f"Appointment/{fhir_id}"} | ({"ifMatch": version} if version else {})
        entry: dict[str, Any] = {"request": request}
        if method == "PUT":
            entry["resource"] = {**appointment(patient=ANN), "id": fhir_id}
        elif method == "PATCH":
            parts = [("type", "valueCode", "delete"), ("path", "valueString", "Appointment.comment")]
            operation = [{"name": part, value: text} for part, value, text in parts]
            parameters = [{"name": "operation", "part": operation}]
            entry["resource"] = {"resourceType": "Parameters", "parameter": parameters}
        answer = shared.ann.post("", json={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        answers.append((answer.status_code, answer.text.replace(fhir_id, "ID")))
    assert answers[0] == answers[1]
    assert shared.clinic.read(shared.bobs) == shared.bobs


# what a patient may do


def test_ann_books_reschedules_cancels_and_deletes_her_own(practice: Practice) -> None:
    free, later = practice.slots[3], practice.slots[4]
    answer = practice.ann.post("Appointment", json=appointment(free, patient=ANN))
    assert answer.status_code == 201, answer.text
    booked = as_resource(answer)
    assert {"url": EXTENSION + "appointment-source", "valueCode": "portal"} in booked["extension"]
    moved = {**booked, "slot": [{"reference": name(later)}], "start": later["start"], "end": later["end"]}
    assert practice.ann.put(name(booked), json=moved).status_code == 200
    assert practice.clinic.read(free)["status"] == "free"
    patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
    headers = {"Content-Type": "application/json-patch+json"}
    assert practice.ann.patch(name(booked), json=patch, headers=headers).status_code == 200
    assert practice.clinic.read(later)["status"] == "free"
    assert practice.ann.delete(name(booked)).status_code == 204
    assert practice.ann.get(name(booked)).status_code == 404


def test_whom_staff_adds_while_ann_changes_her_appointment_is_not_lost(practice: Practice) -> None:
    seen = as_resource(practice.ann.get(name(practice.group)))
    late = '{"actor": {"reference": "Patient/late"}, "status": "accepted"}'
    with practice.clinic.database.connect_app(practice.tenant) as staff, ThreadPoolExecutor(1) as pool:
        staff.execute("select set_config('app.writer', 'fhir', false)")
        staff.execute("begin")
        staff.execute(
            "update appointments set fhir = jsonb_insert(fhir, '{participant,0}', %s::jsonb) where id = %s",
            [late, row_id(practice.group)],
        )
        changing = pool.submit(practice.ann.put, name(practice.group), json={**seen, "comment": "I come later"})
        while not practice.clinic.sql(
            "select pid from pg_stat_activity where %s = any(pg_blocking_pids(pid))", staff.info.backend_pid
        ):
            assert not changing.done(), changing.result().text
            time.sleep(0.01)
        staff.execute("commit")
        assert changing.result().status_code == 200, changing.result().text
    after = practice.clinic.read(practice.group)
    actors = [item["actor"].get("reference") for item in after["participant"]]
    assert after["comment"] == "I come later"
    assert {"Patient/late", ANN, BOB, "Practitioner/7"} <= set(actors)
    assert len(actors) == len(practice.group["participant"]) + 1


@pytest.mark.parametrize(
    "changed",
    [
        {"participant": [{"actor": {"reference": BOB}, "status": "accepted"}]},
        {"participant": [{"actor": {"reference": each}, "status": "accepted"} for each in (ANN, BOB)]},
        {"participant": [{"actor": {"reference": each}, "status": "accepted"} for each in (ANN, "RelatedPerson/1")]},
        {
            "participant": [
                {"actor": {"reference": ANN}, "status": "accepted"},
                {"actor": {"type": "Patient", "display": "Bob"}, "status": "accepted"},
            ]
        },
        {"extension": [DOUBLE]},
        {
            "contained": [{"resourceType": "Patient", "id": "p"}],
            "participant": [{"actor": {"reference": each}, "status": "accepted"} for each in (ANN, "#p")],
        },
    ],
    ids=["for Bob", "with Bob", "with a relative", "with somebody named", "double", "with somebody contained"],
)
def test_what_ann_may_not_book_is_403_and_changes_nothing(practice: Practice, changed: dict[str, Any]) -> None:
    free = practice.slots[5]
    wanted = {**appointment(free, patient=ANN), **changed}
    entry = {"request": {"method": "POST", "url": "Appointment"}, "resource": wanted}
    bundle = {"resourceType": "Bundle", "entry": [entry]}
    refusal(practice.ann.post("Appointment", json=wanted), 403)
    refusal(practice.ann.post("Appointment", json=wanted, headers={"If-None-Exist": "identifier=urn:x|new"}), 403)
    refusal(practice.ann.post("", json={**bundle, "type": "transaction"}), 403)
    batch = practice.ann.post("", json={**bundle, "type": "batch"}).json()
    assert batch["entry"][0]["response"]["status"] == "403 Forbidden"
    refusal(practice.ann.put(name(practice.anns), json={**wanted, "id": practice.anns["id"]}), 403)
    said = practice.ann.post("Appointment/$validate?mode=create", json=wanted).json()
    assert said["issue"][0]["code"] == "forbidden"
    assert practice.clinic.read(free)["status"] == "free"
    assert practice.clinic.read(practice.anns) == practice.anns
    assert practice.clinic.bundle("Appointment")["total"] == 3


def test_ann_holds_and_books_by_operation_for_herself_alone(practice: Practice) -> None:
    def asked(client: httpx.Client, operation: str, fhir_id: str, **patient: Any) -> httpx.Response:
        parameters = reference(fhir_id)
        if patient:
            parameters["parameter"].append({"name": "patient-resource", "resource": patient})
        return client.post(f"Appointment/{operation}", json=parameters)

    free, other = practice.slots[5], practice.slots[6]
    for operation in ("$hold", "$book"):
        refusal(asked(practice.ann, operation, proposal(free, BOB)), 403)
        refusal(asked(practice.ann, operation, practice.bobs["id"]), 404)
    refusal(asked(practice.ann, "$book", proposal(free, ""), resourceType="Patient", id=BOB.partition("/")[2]), 403)
    assert practice.clinic.read(free)["status"] == "free"

    held = only(asked(practice.ann, "$hold", proposal(free, ANN)))
    for operation in ("$hold", "$book"):
        refusal(asked(practice.bob, operation, held["id"]), 404)
        assert BOB not in asked(practice.ann, operation, proposal(practice.slots[1], ANN)).text
    booked = only(asked(practice.ann, "$book", held["id"]))
    assert (booked["id"], booked["status"]) == (held["id"], "booked")
    nobodys = only(asked(practice.ann, "$book", proposal(other, "")))
    assert nobodys["participant"][0]["actor"]["reference"] == ANN


def test_ann_can_not_hand_her_appointment_to_nobody(practice: Practice) -> None:
    alone = {**practice.anns, "participant": [{"actor": {"reference": "Practitioner/7"}, "status": "accepted"}]}
    assert practice.ann.put(name(practice.anns), json=alone).status_code in (403, 422)
    assert practice.clinic.read(practice.anns) == practice.anns


def test_what_ann_does_not_see_stays_when_she_changes_the_rest(practice: Practice) -> None:
    seen = as_resource(practice.ann.get(name(practice.group)))
    answer = practice.ann.put(name(practice.group), json={**seen, "comment": "I come by bus"})
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    headers = {"Content-Type": "application/json-patch+json"}
    patch = [{"op": "replace", "path": "/comment", "value": "I walk"}]
    patched = practice.ann.patch(name(practice.group), json=patch, headers=headers)
    assert patched.status_code == 200, patched.text
    assert SECRET not in patched.text
    whole = practice.clinic.read(practice.group)
    assert whole["comment"] == "I walk"
    assert whole["contained"] == practice.group["contained"]
    missing = [item for item in practice.group["participant"] if item not in whole["participant"]]
    assert missing == []
    probe = [{"op": "test", "path": "/participant/1/actor/reference", "value": BOB}]
    refusal(practice.ann.patch(name(practice.group), json=probe, headers=headers), 422)


def test_ann_may_cancel_what_staff_double_booked(practice: Practice) -> None:
    doubled = practice.clinic.create(appointment(practice.slots[1], patient=ANN, extension=[DOUBLE]))
    patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
    headers = {"Content-Type": "application/json-patch+json"}
    assert practice.ann.patch(name(doubled), json=patch, headers=headers).status_code == 200
    assert practice.clinic.read(practice.slots[1])["status"] == "busy"


def test_conditional_forms_find_only_what_is_hers(practice: Practice) -> None:
    free = practice.slots[6]
    criteria = "identifier=urn:x|bob"
    wanted = appointment(free, patient=ANN, identifier=[{"system": "urn:x", "value": "bob"}])
    made = practice.ann.post("Appointment", json=wanted, headers={"If-None-Exist": criteria})
    assert made.status_code == 201, made.text
    again = practice.ann.post("Appointment", json=wanted, headers={"If-None-Exist": criteria})
    assert (again.status_code, as_resource(again)["id"]) == (200, as_resource(made)["id"])
    assert practice.ann.delete(f"Appointment?{criteria}").status_code == 204
    assert practice.clinic.read(practice.bobs) == practice.bobs
    assert practice.clinic.read(free)["status"] == "free"


def test_public_types_are_never_written_by_a_patient(practice: Practice) -> None:
    refusal(practice.ann.post("Slot", json=slot(practice.schedule, "2036-07-01T09:00:00Z")), 403)
    refusal(practice.ann.put(name(practice.slots[3]), json=practice.slots[3]), 403)
    refusal(practice.ann.delete(name(practice.slots[3])), 403)
    refusal(practice.ann.post("Schedule", json=schedule()), 403)
    entries = [
        {"request": {"method": "POST", "url": "Appointment"}, "resource": appointment(practice.slots[3], patient=ANN)},
        {"request": {"method": "PUT", "url": name(practice.slots[3])}, "resource": practice.slots[3]},
    ]
    refusal(practice.ann.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}), 403)
    assert practice.clinic.read(practice.slots[3])["status"] == "free"


# granular scopes


def test_the_query_of_a_scope_limits_every_way(practice: Practice) -> None:
    practice.clinic.put({**practice.bobs, "status": "arrived"})
    with practice.client("user/Appointment.cruds?status=booked user/Slot.rs", fhirUser="Practitioner/7") as limited:
        assert {entry["resource"]["status"] for entry in limited.get("Appointment").json()["entry"]} == {"booked"}
        refusal(limited.get(name(practice.bobs)), 404)
        assert limited.get(name(practice.anns)).status_code == 200
        refusal(limited.get("Appointment/_history"), 403)
        assert practice.bobs["id"] not in limited.get("Slot?_revinclude=Appointment:slot").text
        assert limited.get(f"Slot?_has:Appointment:slot:patient={BOB}").json()["total"] == 1
        refusal(limited.put(name(practice.anns), json={**practice.anns, "status": "arrived"}), 403)
        refusal(limited.post("Appointment", json=appointment(practice.slots[3], status="pending")), 403)
        assert limited.delete(name(practice.bobs)).status_code == 204
        assert limited.post("Appointment", json=appointment(practice.slots[3])).status_code == 201
    assert practice.clinic.read(practice.anns) == practice.anns
    assert practice.clinic.read(practice.bobs)["status"] == "arrived"


def test_to_write_is_not_to_read(practice: Practice) -> None:
    headers = {"Content-Type": "application/json-patch+json"}
    with practice.client("user/Appointment.u", fhirUser="Practitioner/7") as writer:
        refusal(writer.get(name(practice.bobs)), 403)
        patch = [{"op": "replace", "path": "/status", "value": "arrived"}]
        answer = writer.patch(name(practice.bobs), json=patch, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        answer = writer.patch(name(practice.bobs), json=[], headers={**headers, "Prefer": "return=representation"})
        assert SECRET not in answer.text


def test_a_replay_belongs_to_a_token_of_the_same_reach(practice: Practice) -> None:
    key = {"Idempotency-Key": "once"}
    wanted = appointment(practice.slots[3], patient=ANN)
    first = practice.ann.post("Appointment", json=wanted, headers=key)
    assert first.status_code == 201
    assert practice.ann.post("Appointment", json=wanted, headers=key).text == first.text
    refusal(practice.bob.post("Appointment", json=wanted, headers=key), 422)
    with practice.client("patient/Appointment.r", patient=ANN) as reader:
        refusal(reader.post("Appointment", json=wanted, headers=key), 422)
        refusal(reader.post("Appointment", json=wanted, headers={"Idempotency-Key": "another"}), 403)


def test_a_tenants_data_are_nowhere_else(practice: Practice) -> None:
    other = practice.server.fhir(UUID(int=7), headers={"Authorization": practice.staff.headers["Authorization"]})
    with other:
        for path in ("Appointment", name(practice.bobs), "_history", "Slot"):
            answer = other.get(path)
            assert answer.status_code == 403
            assert str(practice.tenant) not in answer.text


def found_times(client: httpx.Client, *given: Resource) -> httpx.Response:
    """The answer to $find over the whole day."""
    window = [{"name": edge, "valueDateTime": f"2036-06-0{day}T00:00:00Z"} for edge, day in (("start", 1), ("end", 2))]
    return client.post("Appointment/$find", json={"resourceType": "Parameters", "parameter": [*window, *given]})


def test_ann_finds_times_for_herself_alone(practice: Practice) -> None:
    mine = found_times(practice.ann)
    proposed = [entry["resource"] for entry in as_resource(mine)["entry"]]
    assert len(proposed) == as_resource(found_times(practice.staff))["total"] == 5
    assert {each["participant"][0]["actor"]["reference"] for each in proposed} == {ANN}
    assert SECRET not in mine.text
    named = {"name": "patient-reference", "valueReference": {"reference": BOB}}
    refusal(found_times(practice.ann, named), 403)
    assert found_times(practice.staff, named).status_code == 200
    assert only(practice.ann.post("Appointment/$hold", json=reference(proposed[0]["id"])))["status"] == "pending"


@pytest.mark.parametrize(
    ("scope", "status", "found"),
    [
        ("patient/Appointment.s patient/Slot.s", 200, 5),
        ("patient/Appointment.s patient/Slot.s?status=busy", 200, 0),
        ("patient/Appointment.s patient/Slot.s?start=ge2036-06-01T14:00:00Z", 200, 3),
        ("patient/Appointment.s", 403, 0),
        ("patient/Slot.s", 403, 0),
        ("patient/Appointment.cu patient/Slot.r", 403, 0),
    ],
)
def test_finding_needs_to_search_both_and_keeps_to_what_a_scope_shows(
    practice: Practice, scope: str, status: int, found: int
) -> None:
    with practice.client(scope, patient=ANN) as client:
        answer = found_times(client)
    assert answer.status_code == status
    if status == 200:
        assert as_resource(answer)["total"] == found
