"""metadata (R4 3.1.0.14, 5.3): it is what the declarations say, and all that it advertises is done over HTTP."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema_rs
import pytest

from clinic import DOCTOR, EXTENSION, PATIENT, Clinic, Resource, appointment, as_resource, links, matches, name, refusal
from db import Database
from fhir_sched import capability, profiles
from fhir_sched.definition import METHODS, SYSTEM_METHODS
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.operations import OPERATIONS
from fhir_sched.validate import resource_issues
from server import Server

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = ROOT.parent / "shared/spec/fhir-r4/json-schema/fhir.schema.json"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CODES = "http://clinic.example/codes"
PERIOD = {"start": "2026-06-01", "end": "2026-06-30"}
STATEMENT = capability.statement(capability.NEUTRAL_BASE)
ADVERTISED: dict[str, Resource] = {each["type"]: each for each in STATEMENT["rest"][0]["resource"]}


def concept(code: str) -> Resource:
    return {"coding": [{"system": CODES, "code": code}]}


def meta(word: str) -> Resource:
    return {
        "tag": [{"system": CODES, "code": f"tag-{word}"}],
        "security": [{"system": CODES, "code": f"label-{word}"}],
        "profile": [f"http://clinic.example/profile-{word}"],
        "source": f"http://clinic.example/source-{word}",
    }


def kept(word: str) -> Resource:
    """Elements that all three types have, with `word` in each value."""
    return {
        "meta": meta(word),
        "identifier": [{"system": "http://clinic.example/id", "value": word}],
        "serviceCategory": [concept(f"category-{word}")],
        "serviceType": [concept(f"type-{word}")],
        "specialty": [concept(f"specialty-{word}")],
    }


@pytest.fixture(scope="module")
def pairs(shared: Clinic) -> dict[str, tuple[Resource, Resource]]:
    """Of each type one resource with every element that can be searched, and another with other values in them."""
    schedules = (
        shared.schedule(actor=[{"reference": DOCTOR}], planningHorizon=PERIOD, **kept("one")),
        shared.schedule(active=False, planningHorizon={"start": "2027-01-01", "end": "2027-02-01"}, **kept("other")),
    )
    slots = (
        shared.slot(schedules[0], "2026-06-02T09:00:00Z", **kept("one"), appointmentType=concept("ROUTINE")),
        shared.slot(schedules[1], "2026-06-03T09:00:00Z", status="busy-unavailable", **kept("other")),
    )
    full = appointment(
        slots[0],
        basedOn=[{"reference": "ServiceRequest/1"}],
        appointmentType=concept("ROUTINE"),
        reasonCode=[concept("reason-one")],
        reasonReference=[{"reference": "Condition/1"}],
        supportingInformation=[{"reference": "DocumentReference/1"}],
        **kept("one"),
    )
    full["participant"] += [
        {"actor": {"reference": DOCTOR}, "status": "tentative"},
        {"actor": {"reference": "Location/1"}, "status": "accepted"},
    ]
    other = appointment(patient="Patient/2", status="proposed", start=None, end=None, **kept("other"))
    return {
        "Schedule": schedules,
        "Slot": slots,
        "Appointment": (shared.create(full), shared.create(other)),
    }


# What the statement is


def test_metadata_is_what_the_declarations_say(clinic: Clinic) -> None:
    assert as_resource(clinic.http.get("metadata")) == json.loads(json.dumps(capability.statement(clinic.base)))


def test_the_published_files_are_current() -> None:
    assert runpy.run_path(str(ROOT / "tools/generated.py"))["behind"]() == []


def test_it_is_valid(clinic: Clinic) -> None:
    served = as_resource(clinic.http.get("metadata"))
    assert resource_issues(served, "CapabilityStatement") == []
    for kind in profiles.definitions():
        for definition in matches(clinic.bundle(kind)):
            assert resource_issues(definition, kind) == []


@pytest.mark.skipif(not SCHEMA.exists(), reason="the published JSON schema is not here")
def test_it_is_valid_by_the_published_schema(clinic: Clinic) -> None:
    published = json.loads(SCHEMA.read_text())
    # It refers to a definition that it calls by another name, and to a type that R4 does not have.
    published["definitions"] |= {"Resource": {"$ref": "#/definitions/ResourceList"}, "integer64": False}
    schema = jsonschema_rs.validator_for(published)
    schema.validate(as_resource(clinic.http.get("metadata")))
    for kind in profiles.definitions():
        for definition in matches(clinic.bundle(kind)):
            schema.validate(definition)


def test_its_etag_says_whether_there_is_anything_new(clinic: Clinic) -> None:
    etag = clinic.http.get("metadata").headers["etag"]
    unchanged = clinic.http.get("metadata", headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert clinic.http.get("metadata", headers={"If-None-Match": 'W/"0"'}).status_code == 200


def test_head_and_mode_are_taken_and_nothing_else(clinic: Clinic) -> None:
    whole = clinic.http.get("metadata")
    assert clinic.http.get("metadata?mode=terminology").content == whole.content
    head = clinic.http.head("metadata")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    refusal(clinic.http.post("metadata"), 405)


# Every search parameter: (a value that finds the one, a value that finds neither it nor everything)

PARAMETERS: dict[str, dict[str, tuple[str, str]]] = {
    "Schedule": {
        "active": ("true", "false"),
        "actor": (DOCTOR, "Practitioner/nobody"),
        "date": ("2026-06", "2031"),
    },
    "Slot": {
        "appointment-type": (f"{CODES}|ROUTINE", "WALKIN"),
        "schedule": ("{schedule}", "Schedule/sch-00000000-0000-4000-8000-000000000000"),
        "start": ("2026-06-02T09:00:00Z", "lt2026"),
        "status": ("busy", "free"),
    },
    "Appointment": {
        "actor": (DOCTOR, "Practitioner/nobody"),
        "appointment-type": ("ROUTINE", "WALKIN"),
        "based-on": ("ServiceRequest/1", "ServiceRequest/2"),
        "date": ("ge2026-06-02", "lt2026-06-02"),
        "location": ("Location/1", "Location/2"),
        "part-status": ("tentative", "declined"),
        "patient": (PATIENT, "Patient/3"),
        "practitioner": (DOCTOR, "Practitioner/nobody"),
        "reason-code": (f"{CODES}|reason-one", f"{CODES}|reason-two"),
        "reason-reference": ("Condition/1", "Condition/2"),
        "slot": ("{slot}", "Slot/slt-00000000-0000-4000-8000-000000000000"),
        "status": ("booked", "cancelled"),
        "supporting-info": ("DocumentReference/1", "DocumentReference/2"),
    },
}
COMMON = {
    "_id": ("{id}", "slt-00000000-0000-4000-8000-000000000000"),
    "_lastUpdated": ("ge2020", "lt2020"),
    "_tag": (f"{CODES}|tag-one", f"{CODES}|tag-two"),
    "_security": (f"{CODES}|label-one", "label-two"),
    "_profile": ("http://clinic.example/profile-one", "http://clinic.example/profile"),
    "_source": ("http://clinic.example/source-one", "http://clinic.example/source"),
    "identifier": ("http://clinic.example/id|one", "http://clinic.example/other|one"),
    "service-category": ("category-one", "category-two"),
    "service-type": (f"{CODES}|type-one", "|type-one"),
    "specialty": ("specialty-one", "specialty-two"),
}
OURS = [("Appointment", "hold-expires")]
"""Those of our own; tests of what they are about search by them."""
SEARCHES = [
    (kind, param["name"])
    for kind in RESOURCES
    for param in ADVERTISED[kind]["searchParam"]
    if (kind, param["name"]) not in OURS
]


def test_every_advertised_parameter_is_driven() -> None:
    assert set(SEARCHES) == {(kind, word) for kind, own in PARAMETERS.items() for word in {**COMMON, **own}}


@pytest.mark.parametrize(("kind", "param"), SEARCHES)
def test_a_parameter_finds_what_it_should_and_stays_in_the_self_link(
    shared: Clinic, pairs: dict[str, tuple[Resource, Resource]], kind: str, param: str
) -> None:
    one = pairs[kind][0]
    ids = {"id": one["id"], "schedule": name(pairs["Schedule"][0]), "slot": name(pairs["Slot"][0])}
    matching, other = (value.format(**ids) for value in {**COMMON, **PARAMETERS[kind]}[param])
    found = searched(shared, kind, param, matching)
    assert name(one) in [name(each) for each in matches(found)]
    assert httpx.URL(links(found)["self"]).params.get(param) == matching
    assert name(one) not in [name(each) for each in matches(searched(shared, kind, param, other))]


def searched(clinic: Clinic, kind: str, param: str, value: str) -> Resource:
    """The searchset, with unknown parameters refused; POST _search must find the same."""
    headers = {"Prefer": "handling=strict"}
    answer = clinic.http.get(f"{kind}?{param}={quote(value)}", headers=headers)
    assert answer.status_code == 200, answer.text
    posted = clinic.http.post(f"{kind}/_search", data={param: value}, headers={**headers, **FORM})
    assert [name(each) for each in matches(as_resource(posted))] == [name(each) for each in matches(answer.json())]
    return as_resource(answer)


@pytest.mark.parametrize(("kind", "param"), SEARCHES + OURS)
def test_a_parameter_is_the_one_that_r4_defines_or_one_that_is_published_here(kind: str, param: str) -> None:
    (said,) = [each for each in ADVERTISED[kind]["searchParam"] if each["name"] == param]
    if (kind, param) in OURS:
        (own,) = [each for each in profiles.definitions()["SearchParameter"].values() if each["code"] == param]
        assert (said["definition"], said["type"]) == (own["url"], own["type"])
        return
    files = ROOT.parent / "shared/spec/fhir-r4/searchparameters"
    code = f"Resource-{param.removeprefix('_')}" if param.startswith("_") else f"{kind}-{param}"
    assert said["definition"] == f"http://hl7.org/fhir/SearchParameter/{code}"
    if files.exists():
        published = json.loads((files / f"SearchParameter-{code}.json").read_text())
        assert (said["definition"], said["type"]) == (published["url"], published["type"])
        assert published["code"] == param


@pytest.mark.parametrize("kind", RESOURCES)
def test_the_advertised_includes_bring_something(
    shared: Clinic, pairs: dict[str, tuple[Resource, Resource]], kind: str
) -> None:
    said = [("_include", word) for word in ADVERTISED[kind].get("searchInclude", [])]
    said += [("_revinclude", word) for word in ADVERTISED[kind].get("searchRevInclude", [])]
    assert said
    for word, include in said:
        found = shared.bundle(f"{kind}?_id={pairs[kind][0]['id']}&{word}={include}")
        assert [entry["search"]["mode"] for entry in found["entry"]] == ["match", "include"], include


# Every interaction


def _read(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(name(made))


def _vread(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(f"{name(made)}/_history/1")


def _create(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.post(made["resourceType"], json=fresh(clinic, made))


def fresh(clinic: Clinic, made: Resource) -> Resource:
    """Another resource like it that takes nobody's place."""
    if made["resourceType"] == "Slot":
        return {**made, "schedule": {"reference": name(clinic.schedule())}}
    return made


def _update(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.put({**made, "comment": "changed"}, If_Match=f'W/"{made["meta"]["versionId"]}"')


def _patch(clinic: Clinic, made: Resource) -> httpx.Response:
    patch = [{"op": "add", "path": "/comment", "value": "changed"}]
    return clinic.http.patch(name(made), json=patch, headers={"Content-Type": "application/json-patch+json"})


def _delete(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.delete(name(made))


def _instance_history(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(f"{name(made)}/_history")


def _type_history(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(f"{made['resourceType']}/_history")


def _search(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(f"{made['resourceType']}?_id={made['id']}")


def _search_form(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.post(f"{made['resourceType']}/_search", data={"_id": made["id"]}, headers=FORM)


def _conditional_read(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(name(made), headers={"If-None-Match": f'W/"{made["meta"]["versionId"]}"'})


def _conditional_create(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.post(made["resourceType"], json=made, headers={"If-None-Exist": f"_id={made['id']}"})


def _conditional_update(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.put(f"{made['resourceType']}?_id={made['id']}", json={**made, "comment": "changed"})


def _conditional_patch(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.patch(
        f"{made['resourceType']}?_id={made['id']}",
        json=[{"op": "add", "path": "/comment", "value": "changed"}],
        headers={"Content-Type": "application/json-patch+json"},
    )


def _conditional_delete(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.delete(f"{made['resourceType']}?_id={made['id']}")


def _validate(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.post(f"{made['resourceType']}/$validate", json=made)


def _validate_instance(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.post(f"{made['resourceType']}/{made['id']}/$validate", json=made)


def _validate_stored(clinic: Clinic, made: Resource) -> httpx.Response:
    return clinic.http.get(f"{made['resourceType']}/{made['id']}/$validate")


DEEDS: dict[str, tuple[Callable[[Clinic, Resource], httpx.Response], int]] = {
    "read": (_read, 200),
    "vread": (_vread, 200),
    "create": (_create, 201),
    "update": (_update, 200),
    "patch": (_patch, 200),
    "delete": (_delete, 204),
    "history-instance": (_instance_history, 200),
    "history-type": (_type_history, 200),
    "search-type": (_search, 200),
    "search-form": (_search_form, 200),
    "conditional-read": (_conditional_read, 304),
    "conditional-create": (_conditional_create, 200),
    "conditional-update": (_conditional_update, 200),
    "conditional-patch": (_conditional_patch, 200),
    "conditional-delete": (_conditional_delete, 204),
    "validate": (_validate, 200),
    "validate-instance": (_validate_instance, 200),
    "validate-stored": (_validate_stored, 200),
}
SPOKEN = {"conditionalCreate": True, "conditionalRead": "full-support", "conditionalUpdate": True}


def test_every_interaction_there_is_is_advertised_and_driven() -> None:
    assert set(DEEDS) == set(METHODS)
    for kind in RESOURCES:
        advertised = {each["code"] for each in ADVERTISED[kind]["interaction"]}
        without_code = {"search-form", *(code for code in METHODS if code.startswith(("conditional-", "validate")))}
        assert advertised == set(METHODS) - without_code
        own = [each.code for each in OPERATIONS if each.type == kind]
        assert [each["name"] for each in ADVERTISED[kind]["operation"]] == ["validate", *own]
        assert ADVERTISED[kind] | SPOKEN | {"conditionalDelete": "single", "readHistory": True} == ADVERTISED[kind]


@pytest.mark.parametrize("code", DEEDS)
@pytest.mark.parametrize("kind", RESOURCES)
def test_an_interaction_is_done(clinic: Clinic, kind: str, code: str) -> None:
    made = clinic.booked() if kind == "Appointment" else clinic.schedule()
    if kind == "Slot":
        made = clinic.slot(made, "2026-06-02T09:00:00Z")
    deed, status = DEEDS[code]
    answer = deed(clinic, made)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("path", ["{kind}", "{kind}/{id}", "{kind}/_search", "{kind}/{id}/_history", "{kind}/_history"])
@pytest.mark.parametrize("kind", RESOURCES)
def test_a_url_takes_what_it_says_and_nothing_else(clinic: Clinic, kind: str, path: str) -> None:
    url = path.format(kind=kind, id="x-00000000-0000-4000-8000-000000000000")
    allowed = set(clinic.http.options(url).headers["allow"].split(", "))
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
        answer = clinic.http.request(method, url)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == allowed


# The system


def _bundle_of(kind: str) -> Callable[[Clinic], httpx.Response]:
    entry = {"request": {"method": "GET", "url": "Slot"}}
    return lambda clinic: clinic.http.post("", json={"resourceType": "Bundle", "type": kind, "entry": [entry]})


SYSTEM_DEEDS: dict[str, Callable[[Clinic], httpx.Response]] = {
    "transaction": _bundle_of("transaction"),
    "batch": _bundle_of("batch"),
    "search-system": lambda clinic: clinic.http.get("?_type=Slot"),
    "search-system-form": lambda clinic: clinic.http.post("_search", data={"_type": "Slot"}, headers=FORM),
    "search-compartment": lambda clinic: clinic.http.get("Patient/1/Appointment"),
    "search-compartment-form": lambda clinic: clinic.http.post("Patient/1/Appointment/_search", headers=FORM),
    "history-system": lambda clinic: clinic.http.get("_history"),
}


def test_every_interaction_on_the_system_is_done(clinic: Clinic) -> None:
    assert set(SYSTEM_DEEDS) == set(SYSTEM_METHODS)
    advertised = {each["code"] for each in STATEMENT["rest"][0]["interaction"]}
    assert advertised == {"transaction", "batch", "search-system", "history-system"}
    for code, deed in SYSTEM_DEEDS.items():
        answer = deed(clinic)
        assert (code, answer.status_code) == (code, 200), answer.text


# The definitions of our own


def test_only_advertised_types_are_there(clinic: Clinic) -> None:
    for kind in ("Patient", "Practitioner", "Location", "AppointmentResponse", "ConceptMap", "Nonsense"):
        assert kind not in ADVERTISED
        refusal(clinic.http.get(kind), 404)


def test_the_extensions_are_defined_as_they_are_used(clinic: Clinic) -> None:
    url = EXTENSION + "schedule-timezone"
    (found,) = matches(clinic.bundle(f"StructureDefinition?url={quote(url)}"))
    assert as_resource(clinic.http.get("StructureDefinition/schedule-timezone")) == found
    assert (found["url"], found["type"], found["context"][0]["expression"]) == (url, "Extension", "Schedule")
    (value,) = [each for each in found["differential"]["element"] if each["id"] == "Extension.value[x]"]
    assert value["type"] == [{"code": "code"}]


def test_definitions_are_found_by_what_is_advertised_and_by_nothing_else(clinic: Clinic) -> None:
    params = [each["name"] for each in ADVERTISED["StructureDefinition"]["searchParam"]]
    assert params == ["_id", "url"]
    assert [each["code"] for each in ADVERTISED["StructureDefinition"]["interaction"]] == ["read", "search-type"]
    everything = clinic.bundle("StructureDefinition")
    assert everything["total"] == len(profiles.definitions()["StructureDefinition"])
    found = clinic.bundle("StructureDefinition?_id=hold,schedule-timezone")
    assert [each["id"] for each in matches(found)] == ["schedule-timezone"]
    assert links(found)["self"].endswith("/StructureDefinition?_id=hold,schedule-timezone")
    assert clinic.matches("StructureDefinition?url=http://elsewhere.example") == []
    ignored = clinic.bundle("StructureDefinition?status=active")
    assert "status" in ignored["entry"][-1]["resource"]["issue"][0]["diagnostics"]
    assert links(ignored)["self"].endswith("/StructureDefinition")
    refusal(clinic.http.get("StructureDefinition?status=active", headers={"Prefer": "handling=strict"}), 400)
    refusal(clinic.http.get("StructureDefinition/nobody"), 404)
    refusal(clinic.http.delete("StructureDefinition/schedule-timezone"), 405)


# Formats


@pytest.mark.parametrize("kind", STATEMENT["format"])
def test_every_format_is_served(clinic: Clinic, kind: str) -> None:
    answer = clinic.http.get(f"metadata?_format={quote(kind, safe='')}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0].endswith("xml" if "xml" in kind else "json")


FHIRPATH_PATCH: dict[str, Any] = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "add"},
                {"name": "path", "valueString": "Schedule"},
                {"name": "name", "valueString": "comment"},
                {"name": "value", "valueString": "changed"},
            ],
        }
    ],
}
PATCHES = {
    "application/json-patch+json": json.dumps([{"op": "add", "path": "/comment", "value": "changed"}]),
    "application/fhir+json": json.dumps(FHIRPATH_PATCH),
    "application/fhir+xml": '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
    '<part><name value="type"/><valueCode value="add"/></part>'
    '<part><name value="path"/><valueString value="Schedule"/></part>'
    '<part><name value="name"/><valueString value="comment"/></part>'
    '<part><name value="value"/><valueString value="changed"/></part></parameter></Parameters>',
}


def test_every_patch_format_is_taken(clinic: Clinic) -> None:
    assert set(PATCHES) == set(STATEMENT["patchFormat"])
    for kind, content in PATCHES.items():
        made = clinic.schedule()
        answer = clinic.http.patch(name(made), content=content, headers={"Content-Type": kind})
        assert (kind, answer.status_code) == (kind, 200), answer.text
        assert clinic.read(made)["comment"] == "changed"


def test_the_base_of_a_server_with_a_public_url_is_in_it(database: Database) -> None:
    with Server(database.app_url, public_url="https://fhir.clinic.example/api") as server:
        tenant = "5eed0000-0000-4000-8000-000000000001"
        said = server.client.get(f"/fhir/{tenant}/metadata").json()
    assert said["implementation"]["url"] == f"https://fhir.clinic.example/api/fhir/{tenant}"
