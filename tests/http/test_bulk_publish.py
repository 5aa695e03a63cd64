"""$bulk-publish: what everyone may see of a tenant that publishes, how it is kept up to date, and what stays inside.

`FHIR_SCHED_TEST_SLOTS` says how many slots the large file has (12,000 in a normal run).
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import pytest

from clinic import EXTENSION, Clinic, Resource, later, name, refusal, row_id
from db import Database
from fhir_sched.http.publishing import STREAMS
from fhir_sched.publishing.lines import slot_line
from fhir_sched.publishing.publication import Publication, problem
from fhir_sched.settings import PublishExtensions, load
from server import Server

# Somebody of whom nothing is known: no token, no Accept.
WEB = httpx.Client(timeout=60)
WEB.headers.clear()
MANY = int(os.environ.get("FHIR_SCHED_TEST_SLOTS", "12000"))

SMART = "http://fhir-registry.smarthealthit.org/StructureDefinition/"
HL7 = "http://hl7.org/fhir/uv/smart-scheduling-links/StructureDefinition/"
PUBLISHED, PLAIN, LARGE = (UUID(f"b01c0000-0000-4000-8000-00000000000{number}") for number in (1, 2, 3))
PLACE: Resource = {
    "resourceType": "Location",
    "id": "main-street",
    "identifier": [{"system": "https://clinic.example/places", "value": "1"}],
    "name": "Clinic in Main Street",
    "telecom": [{"system": "phone", "value": "+1 617 555 0100"}],
    "address": {"line": ["1 Main Street"], "city": "Boston", "state": "MA", "postalCode": "02114"},
}
BRANCH = {**PLACE, "id": "branch", "name": "Branch", "address": {**PLACE["address"], "state": "NH"}}
CONFIGURATION = {
    "locations": [PLACE, BRANCH],
    "defaultLocation": "main-street",
    "bookingLink": "https://portal.example/book/{schedule}?at=%20now&slot={slot}",
    "bookingPhone": "+1 617 555 0100",
    "days": 100,
    "maxAgeSeconds": 300,
}


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that publishes two tenants, and asks everyone else for a token."""
    file = tmp_path_factory.mktemp("publish") / "publish.json"
    file.write_text(json.dumps({str(PUBLISHED): CONFIGURATION}))
    tenants = f"{PUBLISHED},{PLAIN},{LARGE}"
    with Server(database.app_url, publish_tenants=tenants, publish_file=str(file)) as running:
        yield running
        WEB.close()


@pytest.fixture(scope="module")
def clinic(server: Server, database: Database) -> Iterator[Clinic]:
    """The tenant that says what it publishes."""
    made = Clinic(server, database, PUBLISHED)
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(server: Server, database: Database) -> Iterator[Clinic]:
    """A tenant that is only switched on."""
    made = Clinic(server, database, PLAIN)
    yield made
    made.close()


def soon(days: int = 1, hour: int = 9) -> str:
    """An instant in some days, UTC."""
    day = (datetime.now(UTC) + timedelta(days=days)).replace(hour=hour, minute=0, second=0, microsecond=0)
    return day.isoformat().replace("+00:00", "Z")


def manifest(clinic: Clinic) -> dict[str, Any]:
    """The manifest, asked for by anybody."""
    answer = WEB.get(f"{clinic.base}/$bulk-publish")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def published(clinic: Clinic, kind: str) -> list[Resource]:
    """The resources of a file, found by way of the manifest."""
    (url,) = [each["url"] for each in manifest(clinic)["output"] if each["type"] == kind]
    answer = WEB.get(url, headers={"Accept": "application/fhir+ndjson"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+ndjson"
    assert not answer.text or answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def line(clinic: Clinic, kind: str, fhir_id: str) -> Resource:
    """The one line about a resource."""
    (found,) = [each for each in published(clinic, kind) if each["id"] == fhir_id]
    return found


# The manifest


def test_the_manifest_names_a_file_for_each_type(clinic: Clinic) -> None:
    found = manifest(clinic)
    assert datetime.fromisoformat(found["transactionTime"]).tzinfo is not None
    assert found["request"] == f"{clinic.base}/$bulk-publish"
    assert [each["type"] for each in found["output"]] == ["Location", "Schedule", "Slot"]
    assert all(each["extension"] == {"state": ["MA", "NH"]} for each in found["output"])
    assert found["error"] == []


def test_it_is_plain_json_whatever_the_client_accepts(clinic: Clinic) -> None:
    for accept in ("*/*", "application/json", "application/fhir+json", "application/fhir+xml", "text/turtle"):
        for word in ("$bulk-publish", "%24bulk-publish"):
            answer = WEB.get(f"{clinic.base}/{word}", headers={"Accept": accept})
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/json"


def test_a_tenant_that_does_not_publish_is_not_there(server: Server) -> None:
    for path in ("$bulk-publish", "$bulk-publish/Slot.ndjson"):
        refusal(WEB.get(f"{server.base(uuid4())}/{path}"), 404)


@pytest.mark.parametrize("name", ["Slot", "slot.ndjson", "Appointment.ndjson", "Slot.ndjson/x", "..%2fSlot.ndjson"])
def test_other_files_are_not_there(clinic: Clinic, name: str) -> None:
    refusal(WEB.get(f"{clinic.base}/$bulk-publish/{name}"), 404)


@pytest.mark.parametrize("path", ["$bulk-publish", "$bulk-publish/Slot.ndjson"])
def test_it_is_only_read(clinic: Clinic, path: str) -> None:
    refusal(clinic.http.post(path, json={}), 405)
    assert clinic.http.options(path).headers["allow"] == "GET, HEAD, OPTIONS"
    head = clinic.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == clinic.http.get(path).headers["etag"]


def test_in_a_bundle_it_is_refused(clinic: Clinic) -> None:
    entry = {"request": {"method": "GET", "url": "$bulk-publish"}}
    answer = clinic.http.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert answer.json()["entry"][0]["response"]["status"].startswith("400")


def test_everyone_may_read_it_where_all_else_takes_a_token(database: Database, tmp_path: Path) -> None:
    settings = {"auth": "smart", "dev_key": "on", "data_dir": str(tmp_path), "publish_tenants": str(PLAIN)}
    with Server(database.app_url, **settings) as server:
        base = server.base(PLAIN)
        assert WEB.get(f"{base}/$bulk-publish").status_code == 200
        assert WEB.get(f"{base}/$bulk-publish/Slot.ndjson").status_code == 200
        refusal(WEB.get(f"{base}/Slot"), 401)
        refusal(WEB.get(f"{server.base(PUBLISHED)}/$bulk-publish"), 404)


# Locations and schedules


def test_a_schedule_is_at_the_location_that_it_names_or_at_the_one_for_all_others(clinic: Clinic) -> None:
    named = clinic.schedule(actor=[{"reference": "Practitioner/7"}, {"reference": "Location/branch"}])
    unnamed = clinic.schedule(actor=[{"reference": "Practitioner/8"}])
    elsewhere = clinic.schedule(actor=[{"reference": "https://other.example/fhir/Location/9"}])
    new = clinic.schedule(actor=[{"reference": "Location/new", "display": "New wing"}])
    shown = {each["id"]: each["actor"] for each in published(clinic, "Schedule")}
    assert shown[named["id"]] == [{"reference": "Location/branch"}]
    assert shown[unnamed["id"]] == shown[elsewhere["id"]] == [{"reference": "Location/main-street"}]
    assert shown[new["id"]] == [{"reference": "Location/new"}]
    locations = {each["id"]: each for each in published(clinic, "Location")}
    assert locations["main-street"] == PLACE
    assert locations["branch"] == BRANCH
    assert (locations["new"]["name"], len(locations["new"]["telecom"])) == ("New wing", 1)
    assert set(locations) == {"main-street", "branch", "new"}


def test_a_tenant_that_is_only_switched_on_has_all_that_is_needed(plain: Clinic) -> None:
    of = plain.schedule()
    free = plain.slot(of, soon())
    (place,) = published(plain, "Location")
    assert line(plain, "Schedule", of["id"])["actor"] == [{"reference": f"Location/{place['id']}"}]
    assert line(plain, "Slot", free["id"])["extension"] == [{"url": SMART + "slot-capacity", "valueInteger": 1}]
    assert all(place[name] for name in ("name", "telecom", "identifier", "address"))


def test_the_services_of_a_schedule_are_shown_by_their_codes(clinic: Clinic) -> None:
    dose = {"url": SMART + "vaccine-dose", "valueInteger": 1}
    coded = {"coding": [{"system": "http://codes.example", "code": "57", "display": "Immunization"}], "text": "secret"}
    of = clinic.schedule(serviceType=[coded, {"text": "secret"}], extension=[dose])
    shown = line(clinic, "Schedule", of["id"])
    assert shown["serviceType"] == [{"coding": coded["coding"]}]
    assert shown["extension"] == [dose]
    bare = line(clinic, "Schedule", clinic.schedule()["id"])
    assert bare["serviceType"][0]["coding"][0]["code"] == "unknown"


def test_a_schedule_that_is_not_active_is_out_with_its_slots(clinic: Clinic) -> None:
    of = clinic.schedule()
    free = clinic.slot(of, soon())
    assert line(clinic, "Slot", free["id"])
    clinic.sql("update schedules set is_active = false where id = %s", row_id(of))
    assert of["id"] not in [each["id"] for each in published(clinic, "Schedule")]
    assert free["id"] not in [each["id"] for each in published(clinic, "Slot")]


# Slots


def test_a_slot_is_shown_with_its_schedule_time_type_and_ways_to_book(clinic: Clinic) -> None:
    of = clinic.schedule()
    kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "FOLLOWUP"}]}
    free = clinic.slot(of, soon(), appointmentType=kind)
    link = f"https://portal.example/book/{of['id']}?at=%20now&slot={free['id']}"
    assert line(clinic, "Slot", free["id"]) == {
        "resourceType": "Slot",
        "id": free["id"],
        "schedule": {"reference": name(of)},
        "status": "free",
        "start": free["start"],
        "end": free["end"],
        "appointmentType": kind,
        "extension": [
            {"url": SMART + "booking-deep-link", "valueUrl": link},
            {"url": HL7 + "booking-deep-link", "valueUrl": link},
            {"url": SMART + "booking-phone", "valueString": "+1 617 555 0100"},
            {"url": HL7 + "booking-phone", "valueString": "+1 617 555 0100"},
            {"url": SMART + "slot-capacity", "valueInteger": 1},
        ],
    }


def test_a_booked_slot_is_busy_with_no_way_to_book_it(clinic: Clinic) -> None:
    of = clinic.schedule()
    taken = clinic.slot(of, soon())
    clinic.booked(taken)
    shown = line(clinic, "Slot", taken["id"])
    assert shown["status"] == "busy"
    assert shown["extension"] == [{"url": SMART + "slot-capacity", "valueInteger": 0}]


def test_a_shared_slot_says_how_many_places_are_left(clinic: Clinic) -> None:
    course = clinic.slot(clinic.schedule(), soon(), extension=[{"url": EXTENSION + "slot-capacity", "valueInteger": 3}])
    other = clinic.slot(clinic.schedule(), soon())
    told, etags = [], set()
    for book in (lambda: None, lambda: clinic.booked(course), lambda: clinic.booked(other, course)):
        book()
        shown = line(clinic, "Slot", course["id"])
        told.append((shown["status"], shown["extension"][-1]["valueInteger"]))
        etags.add(_asked(clinic, "/Slot.ndjson").headers["etag"])
    assert told == [("free", 3), ("free", 2), ("free", 1)]
    assert len(etags) == 3
    clinic.booked(course)
    full = line(clinic, "Slot", course["id"])
    assert (full["status"], full["extension"]) == ("busy", [{"url": SMART + "slot-capacity", "valueInteger": 0}])


def test_what_is_kept_or_blocked_is_busy_in_the_two_words_of_the_links(clinic: Clinic) -> None:
    of = clinic.schedule()
    tentative = clinic.slot(of, soon(hour=9), status="busy-tentative")
    blocked = clinic.slot(of, soon(hour=10), status="busy-unavailable")
    wrong = clinic.slot(of, soon(hour=11), status="entered-in-error")
    shown = {each["id"]: each["status"] for each in published(clinic, "Slot")}
    assert (shown[tentative["id"]], shown[blocked["id"]]) == ("busy", "busy")
    assert wrong["id"] not in shown


def test_only_slots_that_are_to_begin_within_the_days_are_shown(clinic: Clinic) -> None:
    of = clinic.schedule()
    begun = clinic.slot(of, later(datetime.now(UTC).isoformat(), -1))
    soonest = clinic.slot(of, soon(99))
    too_late = clinic.slot(of, soon(102))
    shown = {each["id"] for each in published(clinic, "Slot")}
    assert soonest["id"] in shown
    assert not shown & {begun["id"], too_late["id"]}


def test_a_writer_may_say_himself_how_a_slot_is_booked(clinic: Clinic) -> None:
    own = {"url": SMART + "booking-deep-link", "valueUrl": "https://portal.example/own?a=%41{slot}"}
    said = line(clinic, "Slot", clinic.slot(clinic.schedule(), soon(), extension=[own])["id"])["extension"]
    assert [each for each in said if each["url"].endswith("booking-deep-link")] == [own]
    assert [each["url"] for each in said[1:]] == [
        SMART + "booking-phone",
        HL7 + "booking-phone",
        SMART + "slot-capacity",
    ]


def test_nothing_of_patients_and_no_comment_gets_out(clinic: Clinic) -> None:
    secret = f"secret-{uuid4()}"
    narrative = {"status": "additional", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{secret}</div>'}
    elements: dict[str, Any] = {
        "comment": secret,
        "text": narrative,
        "identifier": [{"value": secret}],
        "extension": [{"url": "http://clinic.example/note", "valueString": secret}],
        "meta": {"tag": [{"code": secret}]},
        "specialty": [{"text": secret}],
    }
    patient = {"reference": f"Patient/{secret}", "display": secret}
    practitioner = {"reference": f"Practitioner/{secret}", "display": secret}
    of = clinic.schedule(actor=[practitioner, patient], **elements)
    free = clinic.slot(of, soon(hour=9), **elements)
    taken = clinic.slot(of, soon(hour=10), **elements)
    clinic.booked(taken, patient=f"Patient/{secret}", comment=secret, description=secret)
    blocking = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    clinic.slot(of, soon(hour=12), status="busy-unavailable", comment=secret, extension=blocking)
    for kind in ("Location", "Schedule", "Slot"):
        text = WEB.get(f"{clinic.base}/$bulk-publish/{kind}.ndjson").text
        assert secret not in text
    assert [each["id"] for each in published(clinic, "Slot") if each["schedule"]["reference"] == name(of)] == [
        free["id"],
        taken["id"],
    ]


def test_a_tenant_shows_its_own_slots_only(clinic: Clinic, plain: Clinic) -> None:
    own, other = (each.slot(each.schedule(), soon(3)) for each in (clinic, plain))
    assert other["id"] not in WEB.get(f"{clinic.base}/$bulk-publish/Slot.ndjson").text
    assert own["id"] not in WEB.get(f"{plain.base}/$bulk-publish/Slot.ndjson").text


# Unchanged


def _asked(clinic: Clinic, kind: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return WEB.get(f"{clinic.base}/$bulk-publish{kind}", headers=named)


@pytest.mark.parametrize("kind", ["", "/Location.ndjson", "/Schedule.ndjson", "/Slot.ndjson"])
def test_who_has_it_already_is_told_so(clinic: Clinic, kind: str) -> None:
    clinic.slot(clinic.schedule(), soon())
    first = _asked(clinic, kind)
    assert first.headers["cache-control"] == "public, max-age=300"
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for given in (etag, f'"x", {etag}', etag.removeprefix("W/"), "*"):
        again = _asked(clinic, kind, If_None_Match=given)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    # A date has whole seconds: in the one of the last change it can't tell.
    while _asked(clinic, kind, If_Modified_Since=modified).status_code != 304:
        first = _asked(clinic, kind)
        assert (first.status_code, first.headers["etag"]) == (200, etag)
        modified = first.headers["last-modified"]
        time.sleep(0.05)
    assert _asked(clinic, kind, If_None_Match='W/"x"', If_Modified_Since=modified).status_code == 200
    for date in ("Thu, 01 Jan 1970 00:00:00 GMT", "yesterday"):
        assert _asked(clinic, kind, If_Modified_Since=date).status_code == 200


def _book(clinic: Clinic, free: Resource) -> None:
    clinic.booked(free)


def _delete(clinic: Clinic, free: Resource) -> None:
    clinic.sql("delete from slots where id = %s", row_id(free))


def _commit_late(clinic: Clinic, free: Resource) -> None:
    """A change whose time is long ago, as that of a transaction is which was open for long."""
    insert = "insert into slots (tenant_id, schedule_id, start_at, end_at, updated_at) select tenant_id, schedule_id,"
    times = "start_at + interval '1 hour', end_at + interval '1 hour', '2020-01-01'"
    clinic.sql(f"{insert} {times} from slots where id = %s", row_id(free))


@pytest.mark.parametrize("change", [_book, _delete, _commit_late])
def test_after_a_change_nobody_is_told_that_there_was_none(clinic: Clinic, change: Any) -> None:
    free = clinic.slot(clinic.schedule(), soon())
    before = {kind: _asked(clinic, kind) for kind in ("", "/Slot.ndjson")}
    change(clinic, free)
    for kind, old in before.items():
        assert _asked(clinic, kind, If_None_Match=old.headers["etag"]).status_code == 200
        assert _asked(clinic, kind, If_Modified_Since=old.headers["last-modified"]).status_code == 200
        assert _asked(clinic, kind).headers["etag"] != old.headers["etag"]


def test_a_slot_whose_time_has_come_changes_the_file(clinic: Clinic) -> None:
    of = clinic.schedule()
    clinic.sql(
        "insert into slots (tenant_id, schedule_id, start_at, end_at)"
        " values (%s, %s, clock_timestamp() + interval '1 second', clock_timestamp() + interval '10 minutes')",
        clinic.tenant,
        row_id(of),
    )
    first = _asked(clinic, "/Slot.ndjson")
    assert name(of) in first.text
    clinic.sql("select pg_sleep_until(clock_timestamp() + interval '1 second')")
    again = _asked(clinic, "/Slot.ndjson", If_None_Match=first.headers["etag"])
    assert again.status_code == 200
    assert name(of) not in again.text


# Large


def test_gzip_is_for_those_who_take_it(clinic: Clinic) -> None:
    clinic.slot(clinic.schedule(), soon())
    for accepted, packed in (("gzip", True), ("br;q=1, *", True), ("identity", False), ("gzip;q=0, *", False)):
        with WEB.stream(
            "GET", f"{clinic.base}/$bulk-publish/Slot.ndjson", headers={"Accept-Encoding": accepted}
        ) as answer:
            raw = b"".join(answer.iter_raw())
        assert (answer.headers.get("content-encoding") == "gzip") is packed
        assert "Accept-Encoding" in answer.headers["vary"]
        assert all(map(json.loads, (gzip.decompress(raw) if packed else raw).splitlines()))


def _filled(server: Server, database: Database, count: int) -> Clinic:
    """A tenant with that many slots, one behind the other, half of them busy."""
    large = Clinic(server, database, LARGE)
    of = large.schedule()
    large.sql(
        "insert into slots (tenant_id, schedule_id, status, start_at, end_at)"
        " select %s, %s, (array['free', 'busy'])[1 + n %% 2], start_at, start_at + interval '1 minute'"
        " from generate_series(1, %s) n, lateral (select now() + (1440 + n) * interval '1 minute') t (start_at)",
        large.tenant,
        row_id(of),
        count,
    )
    large.sql("analyze slots, schedules")
    return large


def _memory(server: Server) -> int:
    return psutil.Process(server.pid).memory_info().rss


def test_every_slot_of_many_is_there_once_and_memory_does_not_grow_with_them(
    server: Server, database: Database
) -> None:
    large = _filled(server, database, MANY)
    url = f"{large.base}/$bulk-publish/Slot.ndjson"
    WEB.get(f"{large.base}/$bulk-publish")
    before, most, seen, starts = _memory(server), 0, 0, b""
    for coding in ("identity", "gzip"):
        ids = set()
        with WEB.stream("GET", url, headers={"Accept-Encoding": coding}) as answer:
            for text in answer.iter_lines():
                slot = json.loads(text)
                assert slot["start"] > starts if starts else True
                starts = slot["start"]
                ids.add(slot["id"])
                seen += 1
                if seen % 5000 == 0:
                    most = max(most, _memory(server))
        assert len(ids) == MANY
        starts = b""
    assert seen == 2 * MANY
    assert most - before < 30 * 1024 * 1024
    large.close()


def test_a_client_that_goes_leaves_nothing_behind(server: Server, database: Database) -> None:
    large = Clinic(server, database, LARGE)
    for _ in range(STREAMS + 1):
        with WEB.stream("GET", f"{large.base}/$bulk-publish/Slot.ndjson") as answer:
            assert answer.status_code == 200
            next(answer.iter_raw())
    assert _asked(large, "/Location.ndjson").status_code == 200
    large.close()


# Configuration


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "JSON object whose members are tenants"),
        ({"clinic": {}}, "'clinic' is not the UUID of a tenant"),
        ({str(PLAIN): {"location": []}}, "takes the members bookingLink"),
        ({str(PLAIN): {"locations": {}}}, "must be a list of Location resources"),
        ({str(PLAIN): {"locations": [{**PLACE, "nmae": "x"}]}}, "locations[0]: Location.nmae"),
        ({str(PLAIN): {"locations": [{**PLACE, "address": {"city": "x"}}]}}, "lacks address.line"),
        ({str(PLAIN): {"locations": [PLACE, PLACE]}}, "an id of its own"),
        ({str(PLAIN): {"locations": [PLACE], "defaultLocation": "x"}}, "defaultLocation must be the id"),
        ({str(PLAIN): {"bookingLink": "portal/{slot}"}}, "bookingLink must be an http(s) URL"),
        ({str(PLAIN): {"bookingLink": "https://portal/{patient}"}}, "bookingLink must be an http(s) URL"),
        ({str(PLAIN): {"bookingPhone": 7}}, "bookingPhone must be a text"),
        ({str(PLAIN): {"days": -1}}, "days must be a whole number from 0 to 3660"),
        ({str(PLAIN): {"maxAgeSeconds": True}}, "maxAgeSeconds must be a whole number"),
    ],
)
def test_a_wrong_file_is_told_in_one_line_before_the_start(tmp_path: Path, given: Any, said: str) -> None:
    file = tmp_path / "publish.json"
    file.write_text(json.dumps(given))
    found = problem(load(publish_file=file, publish_tenants=str(PLAIN)))
    assert found.startswith(f"FHIR_SCHED_PUBLISH_FILE: {file}: ")
    assert said in found
    assert "\n" not in found


def test_a_file_that_is_not_there_or_not_json_is_told(tmp_path: Path) -> None:
    assert "can't be read" in problem(load(publish_file=tmp_path / "none"))
    (tmp_path / "text").write_text("{")
    assert "is not JSON" in problem(load(publish_file=tmp_path / "text"))


def test_the_urls_of_the_extensions_are_a_setting() -> None:
    row = [b"1", b"2", b"busy-tentative", b"2030-01-01 09:00:00+00", b"2030-01-01 09:15:00+00", None, None, b"0"]
    free = [*row[:2], b"free", *row[3:7], b"1"]
    shown = {}
    for families in PublishExtensions:
        write = slot_line(Publication(phone="7", families=families))
        shown[families.value] = [json.loads(write(each)) for each in (row, free)]
    assert [kept["status"] for kept, _ in shown.values()] == ["busy", "busy", "busy-tentative"]
    assert "extension" not in shown["hl7"][0]
    urls = {family: [each["url"] for each in both[1]["extension"]] for family, both in shown.items()}
    assert urls["smarthealthit"] == [SMART + "booking-phone", SMART + "slot-capacity"]
    assert urls["hl7"] == [HL7 + "booking-phone"]
    assert urls["both"] == [SMART + "booking-phone", HL7 + "booking-phone", SMART + "slot-capacity"]


def test_what_patients_may_not_book_yet_or_any_more_is_not_free(plain: Clinic) -> None:
    of, other = plain.schedule(), plain.schedule()
    near, right, far = (plain.slot(of, soon(days)) for days in (1, 5, 30))
    elsewhere = plain.slot(other, soon(1))
    before = WEB.get(f"{plain.base}/$bulk-publish/Slot.ndjson").headers["etag"]
    values = [("book-notice", 3 * 1440, None), ("book-horizon", 10, None), ("book-notice", None, row_id(other))]
    for rule, value, schedule in values:
        insert = (
            "insert into booking_rules (tenant_id, caller, schedule_id, rule, value) values (%s, 'portal', %s, %s, %s)"
        )
        plain.sql(insert, plain.tenant, schedule, rule, value)
    try:
        shown = {each["id"]: each for each in published(plain, "Slot")}
        assert [shown[each["id"]]["status"] for each in (near, right, far, elsewhere)] == [
            "busy",
            "free",
            "busy",
            "free",
        ]
        (places,) = [each["valueInteger"] for each in shown[near["id"]]["extension"]]
        assert places == 0
        assert WEB.get(f"{plain.base}/$bulk-publish/Slot.ndjson").headers["etag"] != before
    finally:
        plain.sql("delete from booking_rules where tenant_id = %s", plain.tenant)
