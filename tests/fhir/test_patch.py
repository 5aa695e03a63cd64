"""patch (R4 3.1.0.6): JSON Patch and FHIRPath Patch over HTTP, what they do to bookings, who loses a race, refusals."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from clinic import EXTENSION, Clinic, Resource, appointment, as_resource, name, refusal, row_id, said
from fhir_sched.validate import resource_issues

JSON_PATCH = "application/json-patch+json"
FHIR_JSON = "application/fhir+json"
FHIR_XML = "application/fhir+xml"


def patched(clinic: Clinic, resource: Resource | str, body: Any, **headers: str) -> httpx.Response:
    """The answer to a PATCH: a list is a JSON Patch, an object the Parameters of a FHIRPath Patch."""
    kind = JSON_PATCH if isinstance(body, list) else FHIR_JSON
    given = {"Content-Type": kind, **{key.replace("_", "-"): value for key, value in headers.items()}}
    path = resource if isinstance(resource, str) else name(resource)
    return clinic.http.patch(path, json=body, headers=given)


def replace(path: str, value: Any) -> list[Resource]:
    """A JSON Patch that replaces one value."""
    return [{"op": "replace", "path": path, "value": value}]


def operation(kind: str, path: str, **parts: Any) -> Resource:
    """A FHIRPath Patch with one operation; a part is `value[x]` members, a list of parts, a number or a text."""
    listed: list[Resource] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    for part, given in parts.items():
        match given:
            case dict():
                listed.append({"name": part, **given})
            case list():
                listed.append({"name": part, "part": given})
            case int():
                listed.append({"name": part, "valueInteger": given})
            case _:
                listed.append({"name": part, "valueString": given})
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": listed}]}


def cancelled() -> Resource:
    """A FHIRPath Patch that cancels an Appointment."""
    return operation("replace", "Appointment.status", value={"valueCode": "cancelled"})


@pytest.mark.parametrize("body", [replace("/status", "cancelled"), cancelled()], ids=["json", "fhirpath"])
def test_a_patch_that_cancels_makes_a_version_and_frees_the_slot(clinic: Clinic, body: Any) -> None:
    slot = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")
    made = clinic.booked(slot)
    answer = patched(clinic, made, body)
    shown = as_resource(answer)
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == 'W/"2"'
    assert "last-modified" in answer.headers
    assert {**shown, "meta": 0} == {**made, "status": "cancelled", "meta": 0}
    assert clinic.read(made) == shown
    assert clinic.read(slot)["status"] == "free"
    assert clinic.booked(slot)["status"] == "booked"


def test_a_patch_that_moves_to_another_slot_takes_that_and_frees_the_first(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    first, second = (clinic.slot(schedule, f"2026-06-02T{hour}:00:00Z") for hour in ("09", "10"))
    made = clinic.booked(first)
    answer = patched(
        clinic,
        made,
        [
            *replace("/slot/0/reference", name(second)),
            *replace("/start", second["start"]),
            *replace("/end", second["end"]),
        ],
    )
    assert answer.status_code == 200, answer.text
    assert [clinic.read(slot)["status"] for slot in (first, second)] == ["free", "busy"]


def test_a_patch_that_takes_a_held_slot_is_409_and_changes_nothing(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    first, second = (clinic.slot(schedule, f"2026-06-02T{hour}:00:00Z") for hour in ("09", "10"))
    made, _ = clinic.booked(first), clinic.booked(second)
    refusal(patched(clinic, made, replace("/slot/0/reference", name(second))), 409)
    assert clinic.read(made) == made
    assert clinic.read(first)["status"] == "busy"


def test_a_cancelled_appointment_can_not_be_patched_back_into_a_slot_that_another_took(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")
    made = clinic.booked(slot)
    assert patched(clinic, made, cancelled()).status_code == 200
    clinic.booked(slot)
    refusal(patched(clinic, made, replace("/status", "booked")), 409)


def test_every_kind_of_row_is_patched(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, "2026-06-02T09:00:00Z")
    closed = {"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}
    exception = clinic.slot(schedule, "2026-06-03T09:00:00Z", status="busy-unavailable", extension=[closed])
    waiting = clinic.create(appointment(status="waitlist"))
    for made in (schedule, slot, exception, clinic.booked(slot), waiting):
        for comment in ("by JSON", "by FHIRPath"):
            body: Any = [{"op": "add", "path": "/comment", "value": comment}]
            if comment == "by FHIRPath":
                body = operation("replace", f"{made['resourceType']}.comment", value=comment)
            answer = patched(clinic, made, body)
            assert (answer.status_code, as_resource(answer).get("comment")) == (200, comment), answer.text
        shown = clinic.read(made)
        assert shown["comment"] == "by FHIRPath"
        assert resource_issues(shown, shown["resourceType"]) == []


def test_participants_are_added_by_parts_and_named_by_criteria(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    room = {"reference": "Location/00000000-0000-4000-8000-000000000001"}
    parts = [{"name": "actor", "valueReference": room}, {"name": "status", "valueCode": "tentative"}]
    assert patched(clinic, made, operation("add", "Appointment", name="participant", value=parts)).status_code == 200
    path = "Appointment.participant.where(actor.reference.startsWith('Location/')).status"
    answer = patched(clinic, made, operation("replace", path, value={"valueCode": "accepted"}))
    assert as_resource(answer)["participant"][1] == {"actor": room, "status": "accepted"}
    answer = patched(clinic, made, operation("move", "Appointment.participant", source=1, destination=0))
    assert as_resource(answer)["participant"][0]["actor"] == room
    assert (
        len(as_resource(patched(clinic, made, operation("delete", "Appointment.participant[0]")))["participant"]) == 1
    )


def test_exact_decimals_and_long_numbers_survive_a_patch(clinic: Clinic) -> None:
    numbers = ["1.10", "123456789012345678901234567890", "0.000000000000000001"]
    items = ",".join(f'{{"url": "http://example.org/n", "valueDecimal": {number}}}' for number in numbers)
    body = f'{{"resourceType": "Schedule", "actor": [{{"reference": "Practitioner/1"}}], "extension": [{items}]}}'
    made = clinic.http.post("Schedule", content=body)
    assert made.status_code == 201, made.text
    answer = patched(clinic, as_resource(made), [{"op": "add", "path": "/comment", "value": "x"}])
    assert answer.status_code == 200, answer.text
    assert all(f":{number}}}" in answer.text for number in numbers), answer.text


def test_a_generated_narrative_goes_and_an_additional_one_stays(clinic: Clinic) -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml">booked</div>'
    for status, stays in (("generated", False), ("additional", True)):
        made = clinic.create(appointment(text={"status": status, "div": div}))
        assert ("text" in as_resource(patched(clinic, made, replace("/status", "cancelled")))) is stays


# refusals


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([{"op": "test", "path": "/status", "value": "cancelled"}], 422),
        ([{"op": "remove", "path": "/comment"}], 422),
        ([{"op": "remove", "path": "comment"}], 400),
        ([{"op": "merge", "path": "/comment"}], 400),
        (replace("/status", "no-show"), 400),
        (replace("/start", "2026-06-02"), 400),
        (replace("/end", "2020-01-01T00:00:00Z"), 422),
        ([{"op": "remove", "path": "/participant"}], 400),
        ([{"op": "remove", "path": "/status"}], 400),
        ([{"op": "add", "path": "/colour", "value": "red"}], 400),
        (replace("/slot/0/reference", "Slot/slt-00000000-0000-4000-8000-000000000000"), 422),
        (replace("/id", "apt-2"), 422),
        (replace("/resourceType", "Slot"), 422),
        (replace("/meta/versionId", "7"), 422),
        (replace("", {"resourceType": "Appointment"}), 422),
        (operation("replace", "Appointment.comment", value="x"), 422),
        (operation("replace", "Appointment.status", value={"valueCode": "no-show"}), 400),
        (operation("replace", "Appointment.status", value={"valueDate": "2026-01-01"}), 422),
        (operation("add", "Appointment", name="status", value={"valueCode": "arrived"}), 422),
        (operation("delete", "Appointment.id"), 422),
        (operation("delete", "Appointment.status.resolve()"), 400),
        (operation("delete", "Slot.status"), 422),
        ({"resourceType": "Appointment", "status": "cancelled"}, 400),
        ({"status": "cancelled"}, 400),
    ],
)
def test_what_can_not_be_done_changes_nothing(clinic: Clinic, body: Any, status: int) -> None:
    made = clinic.booked(clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z"))
    refusal(patched(clinic, made, body), status)
    assert clinic.read(made) == made


def test_all_operations_are_done_or_none(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    body = [*replace("/status", "cancelled"), {"op": "test", "path": "/status", "value": "booked"}]
    assert "operation 2" in said(patched(clinic, made, body), 422)
    assert clinic.read(made) == made


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[", b"1", b'"x"', b"null", b"[NaN]", b'[{"op":"add","op":"add"}]', b"\xff"]
)
def test_a_body_that_is_no_patch_is_400(clinic: Clinic, content: bytes) -> None:
    made = clinic.schedule()
    for kind in (JSON_PATCH, FHIR_JSON):
        refusal(clinic.http.patch(name(made), content=content, headers={"Content-Type": kind}), 400)


@pytest.mark.parametrize(
    "kind",
    [
        "application/merge-patch+json",
        "text/plain",
        "application/xml-patch+xml",
        "application/fhir+json; fhirVersion=5.0",
    ],
)
def test_another_media_type_is_415_that_says_what_is_taken(clinic: Clinic, kind: str) -> None:
    made = clinic.schedule()
    answer = clinic.http.patch(name(made), json={"comment": "x"}, headers={"Content-Type": kind})
    refusal(answer, 415)
    assert answer.headers["accept-patch"] == f"{JSON_PATCH}, {FHIR_JSON}, {FHIR_XML}"


def test_a_patch_of_what_is_not_there_is_404_and_of_what_was_deleted_410(clinic: Clinic) -> None:
    made = clinic.schedule()
    clinic.http.delete(name(made))
    body = [{"op": "add", "path": "/comment", "value": "x"}]
    answer = patched(clinic, made, body)
    refusal(answer, 410)
    assert answer.headers["etag"] == 'W/"2"'
    refusal(patched(clinic, "Schedule/sch-00000000-0000-4000-8000-000000000000", body), 404)
    refusal(patched(clinic, "Schedule/other", body), 404)


def test_the_row_of_another_tenant_is_404(clinic: Clinic) -> None:
    made = clinic.schedule()
    stranger = Clinic(clinic.server, clinic.database)
    refusal(patched(stranger, made, [{"op": "add", "path": "/comment", "value": "x"}]), 404)
    stranger.close()
    assert clinic.read(made) == made


# preconditions, preferences, formats


@pytest.mark.parametrize(
    ("if_match", "status"), [('W/"1"', 200), ('W/"3", W/"1"', 200), ("*", 200), ('W/"2"', 412), ("1", 400)]
)
def test_if_match_decides(clinic: Clinic, if_match: str, status: int) -> None:
    made = clinic.schedule()
    answer = patched(clinic, made, [{"op": "add", "path": "/comment", "value": "x"}], If_Match=if_match)
    if status != 200:
        refusal(answer, status)
    assert answer.status_code == status
    assert ("comment" in clinic.read(made)) is (status == 200)


def test_prefer_chooses_the_body(clinic: Clinic) -> None:
    made = clinic.schedule()
    body = [{"op": "add", "path": "/comment", "value": "x"}]
    assert patched(clinic, made, body, Prefer="return=minimal").content == b""
    assert (
        as_resource(patched(clinic, made, body, Prefer="return=OperationOutcome"))["resourceType"] == "OperationOutcome"
    )
    assert as_resource(patched(clinic, made, body, Prefer="return=representation"))["id"] == made["id"]


def test_a_fhirpath_patch_may_be_xml(clinic: Clinic) -> None:
    made = clinic.booked(clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z"))
    body = """<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>
        <part><name value="type"/><valueCode value="replace"/></part>
        <part><name value="path"/><valueString value="Appointment.status"/></part>
        <part><name value="value"/><valueCode value="cancelled"/></part></parameter></Parameters>"""
    answer = clinic.http.patch(name(made), content=body, headers={"Content-Type": FHIR_XML})
    assert (answer.status_code, as_resource(answer).get("status")) == (200, "cancelled"), answer.text


def test_a_fhirpath_patch_may_come_without_a_content_type_or_as_plain_json(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    for kind in ("application/json", ""):
        body = operation("replace", "Appointment.status", value={"valueCode": "arrived"})
        assert patched(clinic, made, body, Content_Type=kind).status_code == 200


def test_a_conditional_patch_changes_the_one_match(clinic: Clinic) -> None:
    made = clinic.create(appointment(identifier=[{"system": "http://example.org", "value": "7"}]))
    answer = patched(clinic, "Appointment?identifier=http://example.org|7", cancelled())
    assert (answer.status_code, as_resource(answer)["id"]) == (200, made["id"]), answer.text
    refusal(patched(clinic, "Appointment?identifier=http://example.org|8", cancelled()), 404)
    clinic.create(appointment(identifier=[{"system": "http://example.org", "value": "7"}]))
    refusal(patched(clinic, "Appointment?identifier=http://example.org|7", cancelled()), 412)
    refusal(patched(clinic, "Appointment", cancelled()), 400)


def test_a_transaction_takes_a_fhirpath_patch(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")
    made = clinic.booked(slot)
    entries = [
        {"resource": cancelled(), "request": {"method": "PATCH", "url": name(made)}},
        {"request": {"method": "GET", "url": name(slot)}},
    ]
    answer = clinic.http.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status_code == 200, answer.text
    first, second = as_resource(answer)["entry"]
    assert first["response"]["status"].startswith("200")
    assert second["resource"]["status"] == "free"
    assert clinic.read(made)["status"] == "cancelled"


def test_metadata_tells_the_formats_and_the_interaction(clinic: Clinic) -> None:
    statement = as_resource(clinic.http.get("metadata"))
    assert statement["patchFormat"] == [JSON_PATCH, FHIR_JSON, FHIR_XML]
    for resource in statement["rest"][0]["resource"][:3]:
        assert "patch" in [each["code"] for each in resource["interaction"]]


# races


def test_of_many_concurrent_patches_none_is_lost(clinic: Clinic) -> None:
    made = clinic.schedule(comment="0")
    start = threading.Barrier(16)

    def write(number: int) -> int:
        with clinic.server.fhir(clinic.tenant) as http:
            entry = {
                "op": "add",
                "path": "/identifier/0",
                "value": {"system": "http://example.org", "value": str(number)},
            }
            start.wait()
            return http.patch(name(made), json=[entry], headers={"Content-Type": JSON_PATCH}).status_code

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(write, range(16))) == [200] * 16
    shown = clinic.read(made)
    written = {each["value"] for each in shown["identifier"] if each["system"] == "http://example.org"}
    assert written == {str(number) for number in range(16)}
    assert shown["meta"]["versionId"] == "17"


def test_of_concurrent_patches_of_one_version_one_wins(clinic: Clinic) -> None:
    made = clinic.schedule()

    def write(number: int) -> int:
        with clinic.server.fhir(clinic.tenant) as http:
            body = [{"op": "add", "path": "/comment", "value": str(number)}]
            headers = {"Content-Type": JSON_PATCH, "If-Match": 'W/"1"'}
            return http.patch(name(made), json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == [200] + [412] * 7


def test_patches_and_bookings_that_race_for_a_slot_leave_one_appointment_in_it(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    for hour in range(8, 14):
        wanted = clinic.slot(schedule, f"2026-06-02T{hour:02}:00:00Z")
        waiting = [clinic.create(appointment()) for _ in range(3)]
        start = threading.Barrier(6)
        slot_body = [{"op": "add", "path": "/slot", "value": [{"reference": name(wanted)}]}]
        new = appointment(wanted)

        def move(
            made: Resource | None,
            start: threading.Barrier = start,
            new: Resource = new,
            slot_body: list[Resource] = slot_body,
        ) -> int:
            with clinic.server.fhir(clinic.tenant) as http:
                start.wait()
                if made is None:
                    return http.post("Appointment", json=new).status_code
                headers = {"Content-Type": JSON_PATCH}
                return http.patch(name(made), json=slot_body, headers=headers).status_code

        with ThreadPoolExecutor(6) as pool:
            codes = sorted(pool.map(move, [*waiting, None, None, None]))
        assert codes[1:] == [409] * 5, codes
        assert codes[0] in (200, 201)
        assert len(clinic.found(f"Appointment?slot={name(wanted)}")) == 1


def test_a_patch_beside_another_program_loses_neither_change(clinic: Clinic) -> None:
    made = clinic.create(appointment())
    stop = threading.Event()
    counts = [0]

    def program() -> None:
        with clinic.database.connect_admin() as connection:
            while not stop.is_set():
                counts[0] += 1
                connection.execute(
                    "update appointments set reason = (coalesce(reason, '0')::integer + 1)::text where id = %s",
                    (row_id(made),),
                )

    thread = threading.Thread(target=program)
    thread.start()
    try:
        for number in range(20):
            body = [{"op": "add", "path": "/comment", "value": f"c{number}"}]
            answer = patched(clinic, made, body)
            assert answer.status_code == 200, answer.text
    finally:
        stop.set()
        thread.join()
    shown = clinic.read(made)
    assert shown["comment"] == "c19"
    assert shown["reasonCode"][0]["text"] == str(counts[0])
    assert int(shown["meta"]["versionId"]) == 1 + 20 + counts[0]


# attacks


@pytest.mark.parametrize(
    "body",
    [
        [{"op": "copy", "from": "", "path": f"/copy{number}"} for number in range(24)],
        [{"op": "add", "path": "/comment", "value": "x"}] * 10_000,
        [{"op": "copy", "from": "/participant", "path": "/participant/-"}] * 40,
    ],
    ids=["copies", "operations", "participants"],
)
def test_a_patch_that_grows_is_413_at_once(clinic: Clinic, body: Any) -> None:
    made = clinic.create(appointment())
    answer = patched(clinic, made, body)
    refusal(answer, 413)
    assert answer.elapsed.total_seconds() < 3
    assert clinic.read(made) == made


def test_a_regular_expression_in_a_path_is_not_run(clinic: Clinic) -> None:
    made = clinic.create(appointment(comment="a" * 40 + "!"))
    answer = patched(clinic, made, operation("delete", "Appointment.where(comment.matches('(a+)+$')).comment"))
    refusal(answer, 400)
    assert answer.elapsed.total_seconds() < 1
