"""The official R4 examples of the three types, and what a pharmacy chain published in 2021: in by POST, back unchanged,
found by searches whose answers are counted from the files themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clinic import Clinic, Resource, as_resource, links, matches, name

SPEC = Path(__file__).parents[3] / "shared/spec"
EXAMPLES = SPEC / "fhir-r4/examples"
RITE_AID = SPEC / "riteaid-ssl-2021"

pytestmark = pytest.mark.skipif(not SPEC.exists(), reason="the published examples are not beside this checkout")


def _example(file: str) -> Resource:
    loaded: Resource = json.loads((EXAMPLES / f"{file}.json").read_text())
    return loaded


def _pointed(document: Resource, to: dict[str, str]) -> Resource:
    """The document with its references to resources of ours pointing at where they are here."""
    text = json.dumps(document)
    for old, new in to.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    pointed: Resource = json.loads(text)
    return pointed


def _back(made: Resource, sent: Resource) -> Resource:
    """What came back, without what the server adds."""
    shown = {key: value for key, value in made.items() if key in sent and key != "id"}
    if "identifier" in sent:
        shown["identifier"] = made["identifier"][:-1]
    if "extension" in sent:
        shown["extension"] = [each for each in made["extension"] if "fhir-sched.org" not in each["url"]]
    if "meta" in sent:
        shown["meta"] = {k: v for k, v in made["meta"].items() if k not in ("versionId", "lastUpdated")}
    return shown


def _posted(clinic: Clinic, sent: Resource) -> Resource:
    made = clinic.create(sent)
    assert _back(made, sent) == {key: value for key, value in sent.items() if key != "id"}
    assert clinic.read(made) == made
    return made


@pytest.mark.parametrize("file", ["Schedule-example", "Schedule-exampleloc1", "Schedule-exampleloc2"])
def test_an_official_schedule_comes_back(clinic: Clinic, file: str) -> None:
    _posted(clinic, _example(file))


@pytest.mark.parametrize("file", ["Slot-1", "Slot-2", "Slot-3", "Slot-example"])
def test_an_official_slot_comes_back(clinic: Clinic, file: str) -> None:
    of = clinic.create(_example("Schedule-example"))
    _posted(clinic, _pointed(_example(file), {"Schedule/example": name(of)}))


@pytest.mark.parametrize("file", ["Appointment-example", "Appointment-2docs", "Appointment-examplereq"])
def test_an_official_appointment_comes_back(clinic: Clinic, file: str) -> None:
    of = clinic.create(_example("Schedule-example"))
    free = clinic.create(_pointed(_example("Slot-example"), {"Schedule/example": name(of)}))
    _posted(clinic, _pointed(_example(file), {"Slot/example": name(free)}))


@pytest.mark.parametrize(
    ("query", "files"),
    [
        ("Appointment?service-category=gp", {"Appointment-example", "Appointment-2docs", "Appointment-examplereq"}),
        (
            "Appointment?specialty=http://snomed.info/sct|394814009&status=booked",
            {"Appointment-example", "Appointment-2docs"},
        ),
        ("Appointment?patient=Patient/example&date=2013-12", {"Appointment-example", "Appointment-2docs"}),
        ("Appointment?practitioner=f202", {"Appointment-2docs"}),
        ("Appointment?location=Location/1", {"Appointment-example", "Appointment-examplereq"}),
        ("Appointment?reason-reference=Condition/example", {"Appointment-example"}),
        ("Appointment?based-on=ServiceRequest/myringotomy", {"Appointment-example"}),
        ("Appointment?supporting-info=DiagnosticReport/ultrasound", {"Appointment-2docs"}),
        ("Appointment?reason-code=413095006", {"Appointment-examplereq"}),
        ("Appointment?part-status=needs-action", {"Appointment-examplereq"}),
        ("Appointment?identifier=http://example.org/sampleappointment-identifier|123", {"Appointment-examplereq"}),
        ("Appointment?slot.schedule.actor=Location/1", {"Appointment-examplereq"}),
        ("Slot?service-category=17&status=busy-tentative", {"Slot-2"}),
        ("Slot?specialty=408480009", {"Slot-example"}),
        ("Slot?appointment-type=WALKIN&start=2013-12-25", {"Slot-example"}),
        ("Slot?identifier=123132", {"Slot-1"}),
        ("Slot?schedule.specialty=408480009&start=ge2013-12-25T09:30:00Z", {"Slot-2", "Slot-3"}),
        ("Schedule?date=2013-12-25", {"Schedule-example"}),
        ("Schedule?date=ge2017", {"Schedule-exampleloc1", "Schedule-exampleloc2"}),
        ("Schedule?actor=Practitioner/1", {"Schedule-exampleloc1", "Schedule-exampleloc2"}),
        ("Schedule?actor=Practitioner/1&actor=Location/3", {"Schedule-exampleloc1"}),
        ("Schedule?identifier=http://example.org/scheduleid|45", {"Schedule-example"}),
        ("Schedule?service-type=221,75", {"Schedule-exampleloc1", "Schedule-exampleloc2"}),
        ("Schedule?active=true", {"Schedule-example", "Schedule-exampleloc1", "Schedule-exampleloc2"}),
    ],
)
def test_the_official_examples_are_found(official: dict[str, str], shared: Clinic, query: str, files: set[str]) -> None:
    assert {official[found] for found in shared.found(query)} == files


@pytest.fixture(scope="module")
def official(shared: Clinic) -> dict[str, str]:
    """Name of the file of each official example by its name here; the rite aid data are in another tenant."""
    made = {
        file: shared.create(_example(file))
        for file in ("Schedule-example", "Schedule-exampleloc1", "Schedule-exampleloc2")
    }
    to = {"Schedule/example": name(made["Schedule-example"])}
    for file in ("Slot-1", "Slot-2", "Slot-3", "Slot-example"):
        made[file] = shared.create(_pointed(_example(file), to))
    to = {"Slot/example": name(made["Slot-example"])}
    for file in ("Appointment-example", "Appointment-2docs", "Appointment-examplereq"):
        made[file] = shared.create(_pointed(_example(file), to))
    return {name(resource): file for file, resource in made.items()}


# the pharmacies


def _lines(file: str) -> list[Resource]:
    return [json.loads(line) for line in (RITE_AID / file).read_text().splitlines()]


Pharmacies = tuple[Clinic, dict[str, str], list[tuple[Resource, Resource]]]


@pytest.fixture(scope="module")
def pharmacies(shared: Clinic) -> Iterator[Pharmacies]:
    """A tenant with all schedules and slots; the schedules' names here by those of the file; slots as sent and made."""
    clinic = Clinic(shared.server, shared.database)
    schedules = {f"Schedule/{each['id']}": name(clinic.create(each)) for each in _lines("Schedule-1.ndjson")}
    slots = [_pointed(each, schedules) for each in _lines("Slot-2.ndjson")]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(clinic.create, slots))
    yield clinic, schedules, list(zip(slots, made, strict=True))
    clinic.close()


def _all(clinic: Clinic, query: str) -> list[Resource]:
    """The matches of all pages."""
    found: list[Resource] = []
    url: str | None = query
    while url:
        bundle = as_resource(clinic.http.get(url))
        found += matches(bundle)
        url = links(bundle).get("next")
    return found


def test_112_schedules_and_1542_slots_come_back(pharmacies: Pharmacies) -> None:
    clinic, schedules, slots = pharmacies
    assert (len(schedules), len(slots)) == (112, 1542)
    for sent, made in slots:
        assert _back(made, sent) == {key: value for key, value in sent.items() if key != "id"}
    stored = {each["id"]: each for each in _all(clinic, "Slot?_count=500")}
    assert stored == {made["id"]: made for _, made in slots}


def test_the_search_by_schedule_status_and_day_is_right_against_the_files(pharmacies: Pharmacies) -> None:
    clinic, schedules, slots = pharmacies
    sent = [each for each, _ in slots]
    by_schedule = Counter(each["schedule"]["reference"] for each in sent)
    for place in [*schedules.values()][::7]:
        assert clinic.bundle(f"Slot?schedule={place}&_summary=count")["total"] == by_schedule[place]
    for status, count in Counter(each["status"] for each in sent).items():
        assert clinic.bundle(f"Slot?status={status}&_summary=count")["total"] == count
    days = Counter(each["start"][:10] for each in _utc(sent))
    for day, count in days.items():
        assert clinic.bundle(f"Slot?start={day}&_summary=count")["total"] == count
    for day in days:
        for status in ("free", "busy"):
            wanted = [each for each in _utc(sent) if each["start"].startswith(day) and each["status"] == status]
            assert len(_all(clinic, f"Slot?start={day}&status={status}&_count=20")) == len(wanted)
            one = sent[0]["schedule"]["reference"]
            here = [each for each in wanted if each["schedule"]["reference"] == one]
            assert len(clinic.found(f"Slot?schedule={one}&start={day}&status={status}")) == len(here)


def _utc(sent: list[Resource]) -> list[Resource]:
    """The slots with their starts in UTC, which is the zone of a schedule that names none."""
    return [{**each, "start": datetime.fromisoformat(each["start"]).astimezone(UTC).isoformat()} for each in sent]


def test_the_search_by_place_is_right_against_the_files(pharmacies: Pharmacies) -> None:
    clinic, schedules, slots = pharmacies
    places: dict[str, Any] = {
        schedules[f"Schedule/{each['id']}"]: each["actor"][0]["reference"] for each in _lines("Schedule-1.ndjson")
    }
    by_place = Counter(places[sent["schedule"]["reference"]] for sent, _ in slots if sent["status"] == "free")
    for place in [*places.values()][::9]:
        found = clinic.bundle(f"Slot?schedule.actor={place}&status=free&_summary=count")
        assert found["total"] == by_place[place], place
    code = "http://fhir-registry.smarthealthit.org/CodeSystem/service-type|covid19-immunization"
    assert clinic.bundle(f"Schedule?service-type={code}&_summary=count")["total"] == 112
    assert clinic.bundle(f"Slot?schedule.service-type={code}&_summary=count")["total"] == 1542
