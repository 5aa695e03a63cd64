"""`_summary` and `_elements` on every interaction that shows resources (R4 3.1.0.1.5): a part, tagged SUBSETTED."""

from __future__ import annotations

import pytest

from clinic import Clinic, Resource, as_resource, links, matches, name, said

WHOLE = {"comment", "end", "id", "identifier", "meta", "overbooked", "resourceType", "schedule", "start", "status"}
MANDATORY = {"id", "meta", "resourceType", "schedule", "start", "status", "end"}
TAG = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "Resource encoded in summary mode",
}
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">a slot</div>'
PARTS = [
    ("_summary=true", MANDATORY | {"identifier"}),
    ("_summary=text", MANDATORY | {"text"}),
    ("_summary=data", WHOLE),
    ("_elements=comment", MANDATORY | {"comment"}),
    ("_elements=comment,overbooked", MANDATORY | {"comment", "overbooked"}),
]
WHOLES = ["_summary=false", "_summary=count", "_summary=", "_elements=", ""]


@pytest.fixture
def made(clinic: Clinic) -> Resource:
    """A Slot with a narrative and more than it must have."""
    text = {"status": "generated", "div": DIV}
    return clinic.slot(clinic.schedule(), "2030-01-01T10:00:00Z", comment="c", overbooked=False, text=text)


def placed(made: Resource) -> list[str]:
    """The URLs that show the Slot, each with a `?`."""
    paths = ["", "/_history/1", "/_history"]
    return [*(f"{name(made)}{path}?" for path in paths), f"Slot?_id={made['id']}&", "Slot/_history?", "_history?"]


def resources(shown: Resource) -> list[Resource]:
    """The Slots of an answer."""
    if shown["resourceType"] != "Bundle":
        return [shown]
    return [entry["resource"] for entry in shown["entry"] if entry["resource"]["resourceType"] == "Slot"]


@pytest.mark.parametrize(("query", "names"), PARTS)
def test_a_part_is_shown_wherever_a_resource_is(clinic: Clinic, made: Resource, query: str, names: set[str]) -> None:
    for url in placed(made):
        (shown,) = resources(clinic.bundle(url + query))
        assert set(shown) == names, url
        assert shown["meta"]["tag"] == [TAG]
        assert shown["meta"]["versionId"] == "1"
        assert all(made[each] == shown[each] for each in names - {"meta"})


@pytest.mark.parametrize("query", WHOLES)
def test_the_whole_is_shown_otherwise(clinic: Clinic, made: Resource, query: str) -> None:
    for url in placed(made)[:3]:
        assert resources(clinic.bundle(url + query)) == [made]


@pytest.mark.parametrize("query", ["_summary=some", "_summary=TRUE", "_elements=status&_elements=start"])
def test_what_a_search_refuses_is_refused_everywhere(clinic: Clinic, made: Resource, query: str) -> None:
    for url in placed(made):
        assert query.partition("=")[0] in said(clinic.http.get(url + query), 400)


def test_a_history_keeps_the_part_over_its_pages(clinic: Clinic, made: Resource) -> None:
    clinic.put({**made, "comment": "d"})
    url, seen = f"{clinic.base}/{name(made)}/_history?_elements=comment&_count=1", []
    while url:
        page = clinic.bundle(url)
        seen += resources(page)
        url = links(page).get("next", "")
    assert [(each["comment"], set(each)) for each in seen] == [(c, MANDATORY | {"comment"}) for c in "dc"]


def test_parts_come_in_bundles_and_in_xml(clinic: Clinic, made: Resource) -> None:
    entries = [{"request": {"method": "GET", "url": f"{name(made)}?_elements=comment"}}]
    for kind in ("batch", "transaction"):
        answer = clinic.http.post("", json={"resourceType": "Bundle", "type": kind, "entry": entries})
        assert set(as_resource(answer)["entry"][0]["resource"]) == MANDATORY | {"comment"}
    text = clinic.http.get(f"{name(made)}?_summary=true&_format=xml").text
    assert "<overbooked" not in text
    assert "SUBSETTED" in text


def test_metadata_has_parts_too(clinic: Clinic) -> None:
    part = as_resource(clinic.http.get("metadata?_elements=name"))
    assert part["meta"]["tag"] == [TAG]
    assert set(part) == {"resourceType", "meta", "name", "status", "date", "kind", "fhirVersion", "format"}
    assert "rest" not in as_resource(clinic.http.get("metadata?_summary=text"))
    assert "_summary" in said(clinic.http.get("metadata?_summary=some"), 400)


def test_definitions_are_shown_whole_and_counted(clinic: Clinic) -> None:
    strict = {"Prefer": "handling=strict"}
    whole = clinic.bundle("StructureDefinition")
    for query in ("_elements=url", "_summary=true"):
        bundle = as_resource(clinic.http.get(f"StructureDefinition?{query}", headers=strict))
        assert bundle["entry"] == whole["entry"]
        assert links(bundle)["self"].endswith(f"StructureDefinition?{query}")
    counted = clinic.bundle("StructureDefinition?_summary=count")
    assert counted["total"] == len(matches(whole))
    assert "entry" not in counted
    assert "_summary" in said(clinic.http.get("StructureDefinition/hold-expires?_summary=some"), 400)


def test_a_part_has_the_etag_of_the_whole_and_is_304_to_whom_has_it(clinic: Clinic, made: Resource) -> None:
    for path in ("", "/_history/1"):
        url = f"{name(made)}{path}?_summary=true"
        assert clinic.http.get(url).headers["etag"] == 'W/"1"'
        answer = clinic.http.get(url, headers={"If-None-Match": 'W/"1"'})
        assert (answer.status_code, answer.content) == (304, b"")
        assert clinic.http.get(url, headers={"If-None-Match": 'W/"2"'}).status_code == 200
