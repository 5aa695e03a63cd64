"""Bundles (R4 3.1.0.11): references among entries in every form, each resource changed once, odd entries of a batch."""

from __future__ import annotations

from itertools import product
from typing import Any

import httpx
import pytest

from clinic import Clinic, Resource, appointment, as_resource, matches, name, refusal, said, schedule, slot

ONE = "4f1c7a90-2b8d-4e35-8c61-d07e9b5a1f24"
OTHER = "9d2e6b18-50a7-4c3f-b1e4-68c0f7a3d952"

START = "2031-01-01T10:00:00Z"
LATER = "2031-01-02T10:00:00Z"
ELSEWHERE = "http://ehr.example.org/fhir"
SYSTEM = "http://clinic.example/keys"


def entry(method: str, url: str, resource: Resource | None = None, **more: Any) -> dict[str, Any]:
    """One entry; `fullUrl` is the entry's, anything else the request's."""
    made: dict[str, Any] = {"request": {"method": method, "url": url}}
    if "fullUrl" in more:
        made["fullUrl"] = more.pop("fullUrl")
    made["request"] |= more
    return made if resource is None else made | {"resource": resource}


def sent(clinic: Clinic, *entries: dict[str, Any], kind: str = "transaction", **headers: str) -> httpx.Response:
    return clinic.http.post("", json={"resourceType": "Bundle", "type": kind, "entry": entries}, headers=headers)


def done(clinic: Clinic, *entries: dict[str, Any], kind: str = "transaction", **headers: str) -> list[dict[str, Any]]:
    """The entries of the answer."""
    answer = sent(clinic, *entries, kind=kind, **headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = as_resource(answer)["entry"]
    return found


def key(value: str) -> list[dict[str, str]]:
    return [{"system": SYSTEM, "value": value}]


def keyed(clinic: Clinic, kind: str, value: str) -> list[Resource]:
    return clinic.matches(f"{kind}?identifier={SYSTEM}|{value}")


# references


@pytest.mark.parametrize(
    ("of_schedule", "of_slot", "reference"),
    [
        (f"urn:uuid:{ONE}", None, None),
        ("urn:oid:1.2.3", None, None),
        (f"{ELSEWHERE}/Schedule/77", None, None),
        (f"{ELSEWHERE}/Schedule/77", f"{ELSEWHERE}/Slot/5", "Schedule/77"),
        (f"{ELSEWHERE}/Schedule/77", None, f"{ELSEWHERE}/Schedule/77/_history/1"),
        ("{base}/Schedule/77", None, "Schedule/77"),
        ("{base}/Schedule/77", f"urn:uuid:{OTHER}", "Schedule/77"),
        ("{base}/Schedule/77", "{base}/Slot/5", "Schedule/77"),
    ],
)
def test_a_reference_to_another_entry_is_found_by_its_full_url(
    clinic: Clinic, of_schedule: str, of_slot: str | None, reference: str | None
) -> None:
    of_schedule = of_schedule.format(base=clinic.base)
    to = {"id": "x", "resourceType": "Schedule"}
    body = slot(to, START) | {"schedule": {"reference": reference or of_schedule}}
    named = {} if of_slot is None else {"fullUrl": of_slot.format(base=clinic.base)}
    answers = done(
        clinic, entry("POST", "Slot", body, **named), entry("POST", "Schedule", schedule(), fullUrl=of_schedule)
    )
    made, of = (each["resource"] for each in answers)
    assert made["schedule"] == {"reference": name(of)}


def test_a_relative_reference_is_not_that_of_another_root(clinic: Clinic) -> None:
    body = slot({"id": "77", "resourceType": "Schedule"}, START)
    full = f"{ELSEWHERE}/Schedule/77"
    answer = sent(clinic, entry("POST", "Slot", body), entry("POST", "Schedule", schedule(), fullUrl=full))
    assert "Schedule/77" in said(answer, 422)
    other = sent(
        clinic,
        entry("POST", "Slot", body, fullUrl="http://other.example.org/fhir/Slot/5"),
        entry("POST", "Schedule", schedule(), fullUrl=full),
    )
    assert "Schedule/77" in said(other, 422)
    assert clinic.bundle("Schedule")["total"] == 0


def test_a_reference_by_search_finds_what_the_transaction_makes(clinic: Clinic) -> None:
    by_search = {"reference": f"Schedule?identifier={SYSTEM}|one"}
    body = slot({"id": "x", "resourceType": "Schedule"}, START, identifier=key("slot")) | {"schedule": by_search}
    booked = appointment(body | {"id": "x"}) | {"slot": [{"reference": f"Slot?identifier={SYSTEM}|slot"}]}
    answers = done(
        clinic,
        entry("POST", "Appointment", booked),
        entry("POST", "Slot", body),
        entry("POST", "Schedule", schedule(identifier=key("one"))),
    )
    held, made, of = (each["resource"] for each in answers)
    assert made["schedule"]["reference"] == name(of)
    assert held["slot"] == [{"reference": name(made)}]
    late = sent(clinic, entry("DELETE", name(held)), entry("POST", "Slot", slot(of, LATER) | {"schedule": {
        "reference": f"Schedule?identifier={SYSTEM}|none"}}))  # fmt: skip
    (issue,) = refusal(late, 412)
    assert issue["expression"] == ["Bundle.entry[1]"]
    assert clinic.read(held)["status"] == "booked"


# each resource once


def test_a_resource_is_changed_by_one_entry_only_however_it_is_named(clinic: Clinic) -> None:
    made = clinic.slot(clinic.schedule(), START, identifier=key("a"))
    by_key = f"Slot?identifier={SYSTEM}|a"
    put, patch = {**made, "comment": "put"}, [{"name": "type", "valueCode": "delete"}]
    patch += [{"name": "path", "valueString": "Slot.comment"}]
    patched = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": patch}]}
    by_id = [entry("PUT", name(made), put), entry("PATCH", name(made), patched)]
    by_search = [entry("PUT", by_key, put), entry("PATCH", by_key, patched)]
    pairs = list(product(by_id + by_search, repeat=2))
    pairs += product([entry("DELETE", name(made)), entry("DELETE", by_key)], by_id)
    for pair in pairs:
        for entries in (pair, pair[::-1]):
            assert f"both change {name(made)}" in said(sent(clinic, *entries), 400), entries
    assert clinic.read(made) == made


def test_what_a_transaction_makes_is_not_changed_by_it(clinic: Clinic) -> None:
    of = clinic.schedule()
    one, two = slot(of, START, identifier=key("b")), slot(of, LATER, identifier=key("b"))
    by_key = f"Slot?identifier={SYSTEM}|b"
    for entries in (
        [entry("PUT", by_key, one), entry("PUT", by_key, two)],
        [entry("POST", "Slot", one), entry("PUT", by_key, two)],
        [entry("POST", "Slot", each, ifNoneExist=by_key.partition("?")[2]) for each in (one, two)],
    ):
        assert "both change Slot/" in said(sent(clinic, *entries), 400)
        assert keyed(clinic, "Slot", "b") == []


def test_two_conditional_creates_may_find_the_same(clinic: Clinic) -> None:
    made = clinic.slot(clinic.schedule(), START, identifier=key("c"))
    again = {**made, "start": LATER}
    answers = done(clinic, *(entry("POST", "Slot", again, ifNoneExist=f"identifier={SYSTEM}|c") for _ in range(2)))
    assert [each["response"]["status"] for each in answers] == ["200 OK", "200 OK"]
    assert keyed(clinic, "Slot", "c") == [made]


# what a Bundle may be


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("more", "place", "rule"),
    [
        ({"total": 1}, "Bundle.total", "bdl-1"),
        ({"search": {"mode": "match"}}, "Bundle.entry[0].search", "bdl-2"),
        ({"response": {"status": "200"}}, "Bundle.entry[0].response", "bdl-4"),
        ({"fullUrl": f"{ELSEWHERE}/Slot/1/_history/2"}, "Bundle.entry[0].fullUrl", "bdl-8"),
    ],
)
def test_what_only_answers_have_is_refused(
    clinic: Clinic, kind: str, more: dict[str, Any], place: str, rule: str
) -> None:
    bundle: Resource = {"resourceType": "Bundle", "type": kind, "entry": [entry("GET", "Slot")]}
    if "total" in more:
        bundle |= more
    else:
        bundle["entry"][0] |= more
    (issue,) = refusal(clinic.http.post("", json=bundle), 400)
    assert (issue["expression"], issue["diagnostics"][:5]) == ([place], rule)


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_every_read_can_be_an_entry(clinic: Clinic, kind: str) -> None:
    made = clinic.slot(clinic.schedule(), START)
    urls = [
        "?_type=Slot", clinic.base + "?_type=Slot", "/?_type=Slot", "StructureDefinition/hold-expires",
        "StructureDefinition?_id=hold-expires", "ValueSet?_summary=count",
    ]  # fmt: skip
    answers = done(clinic, *(entry("GET", url) for url in urls), kind=kind)
    assert [each["response"]["status"] for each in answers] == ["200 OK"] * len(urls)
    system, absolute, slashed, one, several, _ = (each["resource"] for each in answers)
    assert matches(system) == matches(absolute) == matches(slashed) == [made]
    assert matches(several) == [one]
    assert one == as_resource(clinic.http.get("StructureDefinition/hold-expires"))
    (head,) = done(clinic, entry("HEAD", name(made)), kind=kind)
    assert set(head) == {"response"}
    assert head["response"]["etag"] == 'W/"1"'


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_prefer_says_what_comes_of_changes(clinic: Clinic, kind: str) -> None:
    of = clinic.schedule()
    for index, (wanted, shown) in enumerate(
        [("minimal", set()), ("OperationOutcome", {"outcome"}), ("representation", {"resource"})]
    ):
        made = slot(of, f"2031-02-0{index + 1}T10:00:00Z")
        post, get = done(
            clinic, entry("POST", "Slot", made), entry("GET", "Slot"), kind=kind, Prefer=f"return={wanted}"
        )
        assert {"resource", "outcome"} & ({*post, *post["response"]}) == shown
        assert get["resource"]["resourceType"] == "Bundle"
        if "outcome" in shown:
            (issue,) = post["response"]["outcome"]["issue"]
            assert (issue["severity"], issue["diagnostics"]) == (
                "information",
                f"created: {post['response']['location']}",
            )
