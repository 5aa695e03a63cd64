"""What stands at an edge: the last year, leap seconds, long fractions, parameters given oddly, headers seldom sent."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from clinic import EXTENSION, Clinic, appointment, as_resource, links, matches, name, refusal, said, schedule, slot

WEEK = [f"2030-01-0{day}T10:00:00Z" for day in range(1, 8)]


def parameters(**values: dict[str, Any]) -> dict[str, Any]:
    listed = [{"name": name.replace("_", "-"), **value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": listed}


def searched(clinic: Clinic, **search: str) -> dict[str, Any]:
    answer = clinic.http.get("Slot", params=search)
    assert answer.status_code == 200, answer.text
    return as_resource(answer)


# dates


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("9999-12-31T23:00:00Z", "9999-12-31T23:59:59Z"),
        ("2030-06-30T23:59:60Z", "2030-07-01T00:10:00Z"),
        ("2030-05-01T10:00:00.123456789123Z", "2030-05-01T10:30:00.99999999999Z"),
        ("2030-05-02T23:59:59.9999999Z", "2030-05-03T00:30:00Z"),
    ],
)
def test_a_time_that_is_stored_is_found_by_the_same_words(clinic: Clinic, start: str, end: str) -> None:
    of = clinic.schedule()
    made = clinic.create(slot(of, WEEK[0]) | {"start": start, "end": end})
    assert (made["start"], made["end"]) == (start, end)
    for search in (start, f"ge{start}", f"le{start}"):
        assert [each["id"] for each in matches(searched(clinic, start=search))] == [made["id"]], search
    window = parameters(start={"valueDateTime": start}, end={"valueDateTime": end})
    proposed = as_resource(clinic.http.post("Appointment/$find", json=window))
    assert proposed["total"] == 1


@pytest.mark.parametrize("date", ["9999", "9999-12", "9999-12-31", "le9999-12-31T23:59:59+14:00", "ap9999", "ne0001"])
def test_the_last_year_can_be_searched(clinic: Clinic, date: str) -> None:
    clinic.slot(clinic.schedule(), "9999-06-01T10:00:00Z")
    total = searched(clinic, start=date)["total"]
    assert total == (0 if date in ("9999-12", "9999-12-31") else 1)


def test_a_time_that_no_year_holds_is_named_as_such(clinic: Clinic) -> None:
    of = clinic.schedule()
    body = slot(of, "9999-12-31T10:00:00Z") | {"end": "9999-12-31T23:59:59-14:00"}
    (issue,) = refusal(clinic.http.post("Slot", json=body), 422)
    assert "years 1 to 9999" in issue["diagnostics"]
    assert issue["expression"] == ["Slot.end"]


def test_slots_are_generated_up_to_the_last_day(clinic: Clinic) -> None:
    of = clinic.schedule()
    days = parameters(start={"valueDate": "9999-12-31"}, end={"valueDate": "9999-12-31"})
    assert clinic.http.post(f"Schedule/{of['id']}/$generate-slots", json=days).status_code == 200


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize(
    ("horizon", "year"),
    [
        ({"start": "0001", "end": "0001-01-01T00:00:00+14:00"}, ""),
        ({"start": "0001-01-01", "end": "0001-01-02"}, "0001"),
        ({"start": "9999-12-30", "end": "9999-12-31"}, "9999-12-31"),
    ],
)
def test_a_horizon_may_lie_at_the_edge_of_all_years(
    clinic: Clinic, zone: str, horizon: dict[str, str], year: str
) -> None:
    made = clinic.schedule(zone, planningHorizon=horizon)
    assert made["planningHorizon"] == horizon
    if year:
        assert [each["id"] for each in clinic.matches(f"Schedule?date=ap{year}")] == [made["id"]]


# parameters of a search


def test_a_sort_that_is_not_used_sorts_nothing_and_its_pages_can_be_followed(clinic: Clinic) -> None:
    of = clinic.schedule()
    for start in WEEK[:3]:
        clinic.slot(of, start)
    bundle = searched(clinic, _sort="status,-start,nonsense", _count="1")
    assert links(bundle)["self"].endswith("/Slot?_count=1")
    seen = []
    while True:
        seen += [each["start"] for each in matches(bundle)]
        if "next" not in links(bundle):
            break
        bundle = as_resource(clinic.http.get(links(bundle)["next"]))
    assert seen == WEEK[:3]


@pytest.mark.parametrize("name", ["_count", "_sort", "_total", "_summary", "_elements", "_include", "status"])
def test_a_parameter_without_a_value_is_not_used(clinic: Clinic, name: str) -> None:
    clinic.slot(clinic.schedule(), WEEK[0])
    bundle = searched(clinic, **{name: ""})
    assert links(bundle)["self"].endswith("/Slot")
    assert len(matches(bundle)) == 1
    assert "has no value" in json.dumps(bundle)


@pytest.mark.parametrize("path", ["Slot/{id}/_history", "Slot/_history", "_history"])
def test_what_history_does_not_know_is_left_out_or_refused_as_in_a_search(clinic: Clinic, path: str) -> None:
    made = clinic.slot(clinic.schedule(), WEEK[0])
    place = path.format(id=made["id"])
    bundle = clinic.bundle(f"{place}?statsu=free&_count=1&_sort=start")
    assert len(bundle["entry"]) == 1
    assert links(bundle)["self"] == f"{clinic.base}/{place}?_count=1"
    strict = {"Prefer": "handling=strict"}
    assert "'statsu'" in said(clinic.http.get(f"{place}?statsu=free&_count=1", headers=strict), 400)
    assert clinic.http.get(f"{place}?_count=1", headers=strict).status_code == 200
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": place + "?a=b"}}],
    }
    statuses = [
        clinic.http.post("", json=batch, headers=headers).json()["entry"][0]["response"]["status"][:3]
        for headers in ({}, strict)
    ]
    assert statuses == ["200", "400"]


@pytest.mark.parametrize("count", ["1000000000", "2147483648", "9" * 5000, "0" * 20 + "7"])
def test_a_count_of_any_size_is_a_count(clinic: Clinic, count: str) -> None:
    clinic.slot(clinic.schedule(), WEEK[0])
    assert len(matches(searched(clinic, _count=count))) == 1
    assert clinic.http.get("Slot/_history", params={"_count": count}).status_code == 200
    window = {"start": "2030", "end": "2031", "_count": count}
    assert as_resource(clinic.http.get("Appointment/$find", params=window))["total"] == 1


def test_of_two_counts_the_self_link_has_the_one_that_counts(clinic: Clinic) -> None:
    of = clinic.schedule()
    for start in WEEK[:3]:
        clinic.slot(of, start)
    bundle = clinic.bundle("Slot?_count=1&_summary=count&_summary=true&_count=2")
    assert links(bundle)["self"].endswith("/Slot?_summary=true&_count=2")
    assert len(matches(bundle)) == 2


@pytest.mark.parametrize("handling", ["lenient", "strict"])
def test_a_query_by_name_is_refused(clinic: Clinic, handling: str) -> None:
    answer = clinic.http.get("Slot?_query=mine", headers={"Prefer": f"handling={handling}"})
    assert "_query" in said(answer, 400)


def test_what_is_refused_is_not_said_to_be_left_out(clinic: Clinic) -> None:
    strict = clinic.http.get("Slot?foo=1", headers={"Prefer": "handling=strict"})
    assert "not used" not in said(strict, 400)
    assert "not used" not in said(clinic.http.put("Slot?foo=1", json=schedule()), 400)


# inputs of operations


def test_the_self_link_of_a_find_by_get_is_what_was_asked(clinic: Clinic) -> None:
    of = clinic.schedule()
    for start in WEEK[:2]:
        clinic.slot(of, start)
    answer = clinic.http.get("Appointment/$find?start=2030-01-01T00:00:00 01:00&end=2031&_count=1&_format=json")
    bundle = as_resource(answer)
    asked = "Appointment/$find?start=2030-01-01T00:00:00%2001:00&end=2031&_count=1"
    assert links(bundle)["self"] == f"{clinic.base}/{asked}"
    again = as_resource(clinic.http.get(links(bundle)["self"]))
    assert [each["id"] for each in matches(again)] == [each["id"] for each in matches(bundle)]
    following = links(bundle)["next"]
    assert links(as_resource(clinic.http.get(following)))["self"] == following


def test_an_input_of_another_type_is_not_called_missing(clinic: Clinic) -> None:
    (issue,) = refusal(
        clinic.http.post("Appointment/$hold", json=parameters(appointment_reference={"valueString": "x"})), 400
    )
    assert "valueReference" in issue["diagnostics"]
    window = {"start": {"valueDateTime": "2030"}, "end": {"valueDateTime": "2031"}}
    patient = parameters(**window, patient_resource={"valueString": "x"})
    (issue,) = refusal(clinic.http.post("Appointment/$find", json=patient), 400)
    assert issue["diagnostics"] == "patient-resource takes a Patient in 'resource'"


@pytest.mark.parametrize("text", ['{"a": "\\u0000"}', '{"a": ["\\ud800"]}', '{"\\udc00": 1}'])
def test_criteria_that_the_database_cannot_hold_are_named(clinic: Clinic, text: str) -> None:
    body = appointment(status="waitlist") | {
        "extension": [{"url": EXTENSION + "waitlist-criteria", "valueString": text}]
    }
    (issue,) = refusal(clinic.http.post("Appointment", json=body), 422)
    assert issue["expression"] == ["Appointment.extension"]


# headers


def test_a_compressed_body_is_not_taken_for_text(clinic: Clinic) -> None:
    body = gzip.compress(json.dumps(schedule()).encode())
    answer = clinic.http.post("Schedule", content=body, headers={"Content-Encoding": "gzip"})
    assert "gzip" in said(answer, 415)
    assert answer.headers["accept-encoding"] == "identity"
    plain = clinic.http.post("Schedule", json=schedule(), headers={"Content-Encoding": "identity"})
    assert plain.status_code == 201


def test_if_none_match_of_a_change_says_that_nothing_may_be_there(clinic: Clinic) -> None:
    made = clinic.create(schedule())
    star = {"If-None-Match": "*"}
    place = f"Schedule/{made['id']}"
    for answer in (
        clinic.http.put(place, json=made, headers=star),
        clinic.http.patch(place, content="[]", headers={**star, "Content-Type": "application/json-patch+json"}),
        clinic.http.delete(place, headers=star),
        clinic.http.put(f"Schedule?_id={made['id']}", json=made, headers=star),
        clinic.http.delete(f"Schedule?_id={made['id']}", headers=star),
    ):
        assert "If-None-Match" in said(answer, 412)
    assert as_resource(clinic.http.get(place))["meta"]["versionId"] == "1"
    assert clinic.http.delete(place).status_code == 204
    assert clinic.http.put(place, json=made, headers=star).status_code == 201


def test_an_empty_if_none_exist_creates_nothing(clinic: Clinic) -> None:
    answer = clinic.http.post("Schedule", json=schedule(), headers={"If-None-Exist": ""})
    assert "needs criteria" in said(answer, 400)
    assert clinic.bundle("Schedule")["total"] == 0


def test_a_method_that_a_search_does_not_take_is_refused_before_its_body(clinic: Clinic) -> None:
    assert clinic.http.put("Slot/_search", json={}).status_code == 405


def test_the_codes_of_our_own_are_defined_and_those_of_an_appointment(clinic: Clinic) -> None:
    (codes,), (values,) = (clinic.matches(kind) for kind in ("CodeSystem", "ValueSet"))
    assert values["compose"] == {"include": [{"system": codes["url"], "version": codes["version"]}]}
    assert (codes["valueSet"], codes["count"]) == (values["url"], 3)
    assert clinic.matches(f"CodeSystem?url={codes['url']}") == [codes]
    assert as_resource(clinic.http.get(f"ValueSet/{values['id']}")) == values
    extension = as_resource(clinic.http.get("StructureDefinition/appointment-source"))
    (bound,) = [each["binding"] for each in extension["differential"]["element"] if "binding" in each]
    assert bound == {"strength": "required", "valueSet": f"{values['url']}|{values['version']}"}
    made = clinic.booked(clinic.slot(clinic.schedule(), WEEK[0]))
    (source,) = [each["valueCode"] for each in made["extension"] if each["url"] == extension["url"]]
    assert source in [each["code"] for each in codes["concept"]]
    assert "CodeSystem" in said(clinic.http.get("CodeSystem/x"), 404)


def test_definitions_are_searched_by_a_form_too(clinic: Clinic) -> None:
    found = clinic.http.post("StructureDefinition/_search?_id=hold-expires,x", data={"url": f"{EXTENSION}hold-expires"})
    assert found.status_code == 415  # the client's default is JSON
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for strict in ({}, {"Prefer": "handling=strict"}):
        answer = clinic.http.post(
            "StructureDefinition/_search?_id=hold-expires,x",
            content=f"url={EXTENSION}hold-expires",
            headers=form | strict,
        )
        assert [each["id"] for each in matches(as_resource(answer))] == ["hold-expires"]
    assert "foo" in said(clinic.http.post("ValueSet/_search", content="foo=1", headers={**form, **strict}), 400)
    refused = clinic.http.get("StructureDefinition/_search")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")
    assert clinic.http.options("StructureDefinition/_search").headers["allow"] == "POST, OPTIONS"
    batch = {"request": {"method": "POST", "url": "StructureDefinition/_search?_id=hold-expires"}}
    entry = clinic.http.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [batch]}).json()["entry"][0]
    assert entry["resource"]["total"] == 1


# headers


def test_a_list_in_several_header_lines_is_one_list(clinic: Clinic) -> None:
    made = clinic.slot(clinic.schedule(), WEEK[0])
    xml = [("Accept", "text/plain"), ("Accept", "application/fhir+xml;q=0.9"), ("Accept", "application/json;q=0.5")]
    assert clinic.http.get(name(made), headers=xml).headers["content-type"].startswith("application/fhir+xml")
    both = [("Prefer", "handling=strict"), ("Prefer", "return=minimal")]
    for lines in (both, both[::-1]):
        assert clinic.http.get("Slot?statsu=free", headers=lines).status_code == 400
        assert clinic.http.post("Schedule", json=schedule(), headers=lines).content == b""
    current = [("If-Match", 'W/"1"'), ("If-Match", 'W/"7"')]
    assert clinic.http.put(name(made), json=made, headers=current).status_code == 200
    known = [("If-None-Match", 'W/"2"'), ("If-None-Match", 'W/"7"')]
    assert clinic.http.get(name(made), headers=known).status_code == 304


@pytest.mark.parametrize(("version", "status"), [("", 400), ('W/"01"', 412), ('W/"1"', 200), ('"1"', 200)])
def test_a_guard_that_was_meant_does_not_get_lost(clinic: Clinic, version: str, status: int) -> None:
    made = clinic.slot(clinic.schedule(), WEEK[0])
    assert clinic.put(made, If_Match=version).status_code == status
