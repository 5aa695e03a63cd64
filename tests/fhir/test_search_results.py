"""What comes beside the matches (R4 3.1.1.5): totals, includes, the self link, handling, POST, sorting."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from clinic import Clinic, Resource, appointment, as_resource, links, matches, name, refusal, row_id
from fhir_sched.validate import resource_issues

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def filled(shared: Clinic) -> dict[str, Resource]:
    """One schedule with three slots, one of them booked together with one of another schedule."""
    of = shared.schedule(zone="Europe/Berlin", actor=[{"reference": "Practitioner/1"}])
    other = shared.schedule()
    one, two, three = (shared.slot(of, f"2026-06-02T{hour}:00:00Z") for hour in ("09", "10", "11"))
    four = shared.slot(other, "2026-06-02T09:00:00Z")
    (row,) = shared.sql(
        """insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at)
           values (%s, %s, '2026-06-03T09:00Z', '2026-06-03T10:00Z') returning id""",
        shared.tenant,
        row_id(of),
    )
    return {
        "of": of,
        "other": other,
        "one": one,
        "two": two,
        "three": three,
        "four": four,
        "pair": shared.booked(one, four, start=one["start"], end=one["end"]),
        "single": shared.booked(two, patient="Patient/2"),
        "waiting": shared.create(appointment(status="waitlist")),
        "exception": {"resourceType": "Slot", "id": f"exc-{row[0]}"},
    }


def _modes(bundle: Resource, filled: dict[str, Resource]) -> dict[str, list[str]]:
    """Labels of the entries by search mode."""
    labels = {name(each): label for label, each in filled.items()}
    found: dict[str, list[str]] = {}
    for entry in bundle.get("entry", []):
        if entry["search"]["mode"] != "outcome":
            found.setdefault(entry["search"]["mode"], []).append(labels[name(entry["resource"])])
    return found


def test_a_searchset_is_a_valid_bundle_with_full_urls(shared: Clinic, filled: dict[str, Resource]) -> None:
    bundle = shared.bundle("Slot?_include=Slot:schedule&nonsense=1&_count=2")
    assert resource_issues(bundle, "Bundle") == []
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
    for entry in bundle["entry"]:
        if entry["search"]["mode"] == "outcome":
            assert entry["resource"]["resourceType"] == "OperationOutcome"
            assert {issue["severity"] for issue in entry["resource"]["issue"]} <= {"warning", "information"}
        else:
            assert entry["fullUrl"] == f"{shared.base}/{name(entry['resource'])}"
            assert shared.read(entry["resource"]) == entry["resource"]


def test_an_empty_searchset_has_no_entry_and_total_0(shared: Clinic) -> None:
    bundle = shared.bundle("Slot?status=entered-in-error")
    assert bundle["total"] == 0
    assert "entry" not in bundle
    assert resource_issues(bundle, "Bundle") == []


@pytest.mark.parametrize(
    ("query", "included"),
    [
        ("Slot?_include=Slot:schedule", {"of", "other"}),
        ("Slot?_include=Slot:schedule:Schedule", {"of", "other"}),
        ("Slot?_include=Slot:*", {"of", "other"}),
        ("Slot?status=free&_include=Slot:schedule", {"of"}),
        ("Slot?status=busy-unavailable&_include=Slot:schedule", {"of"}),
        ("Appointment?_include=Appointment:slot", {"one", "two", "four"}),
        ("Appointment?patient=Patient/2&_include=Appointment:slot", {"two"}),
        ("Appointment?status=waitlist&_include=Appointment:slot", set()),
        ("Appointment?_include=Appointment:slot&_include:iterate=Slot:schedule", {"one", "two", "four", "of", "other"}),
        ("Appointment?_include=Appointment:slot&_include:recurse=Slot:schedule", {"one", "two", "four", "of", "other"}),
        ("Appointment?_include=Appointment:slot&_include=Slot:schedule", {"one", "two", "four"}),
        ("Appointment?_include=Appointment:patient", set()),
        ("Appointment?_include=Appointment:actor:Practitioner&_include=Appointment:slot", {"one", "two", "four"}),
        ("Schedule?actor=Practitioner/1&_revinclude=Slot:schedule", {"one", "two", "three", "exception"}),
        (
            "Schedule?actor=Practitioner/1&_revinclude=Slot:schedule&_revinclude:iterate=Appointment:slot",
            {"one", "two", "three", "exception", "pair", "single"},
        ),
        ("Slot?schedule={other}&_revinclude=Appointment:slot", {"pair"}),
        ("Slot?schedule={of}&_revinclude=Appointment:slot", {"pair", "single"}),
        ("Slot?status=free&_revinclude=Appointment:slot", set()),
        ("Slot?schedule={other}&_revinclude=Appointment:slot&_include:iterate=Appointment:slot", {"pair", "one"}),
        ("Slot?schedule={other}&_include=Slot:schedule&_revinclude=Appointment:slot", {"other", "pair"}),
    ],
)
def test_an_include_adds(shared: Clinic, filled: dict[str, Resource], query: str, included: set[str]) -> None:
    url = query.format(of=filled["of"]["id"], other=filled["other"]["id"])
    bundle = shared.bundle(url)
    found = _modes(bundle, filled)
    assert set(found.get("include", [])) == included
    names = [name(entry["resource"]) for entry in bundle.get("entry", []) if entry["search"]["mode"] != "outcome"]
    assert len(names) == len(set(names))
    assert bundle["total"] == len(found.get("match", []))


def test_a_match_is_no_include_as_well(shared: Clinic, filled: dict[str, Resource]) -> None:
    bundle = shared.bundle("Slot?_revinclude=Appointment:slot&_include:iterate=Appointment:slot&status=busy")
    found = _modes(bundle, filled)
    assert sorted(found["match"]) == ["four", "one", "two"]
    assert sorted(found["include"]) == ["pair", "single"]


def test_an_include_does_not_cross_tenants(clinic: Clinic, shared: Clinic, filled: dict[str, Resource]) -> None:
    clinic.sql(
        "insert into appointments (tenant_id, patient_id, schedule_id, created_by) values (%s, %s, %s, %s)",
        clinic.tenant,
        clinic.tenant,
        row_id(filled["of"]),
        clinic.tenant,
    )
    bundle = clinic.bundle("Appointment?_include=Appointment:slot&_include:iterate=Slot:schedule")
    assert len(bundle["entry"]) == 1


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("Slot?", 5),
        ("Slot?_total=accurate&_count=2", 5),
        ("Slot?_total=estimate&_count=2", 5),
        ("Slot?_total=none", None),
        ("Slot?_total=none&_count=2", None),
        ("Slot?_count=0", 5),
        ("Slot?_summary=count", 5),
        ("Slot?status=free&_summary=count", 1),
        ("Slot?status:not=free&_total=accurate&_count=1", 4),
        ("Appointment?_total=accurate&_count=1", 3),
        ("Appointment?slot={four}&_summary=count", 1),
        ("Schedule?_has:Slot:schedule:status=busy&_summary=count", 2),
        ("Slot?schedule.actor=Practitioner/1&_count=1&_total=accurate", 4),
        ("Slot?start=2026-06-02&_total=accurate&_count=1", 4),
        ("Appointment?practitioner=nobody&_summary=count", 0),
    ],
)
def test_the_total_counts_matches_over_all_pages(
    shared: Clinic, filled: dict[str, Resource], query: str, total: int | None
) -> None:
    bundle = shared.bundle(query.format(four=filled["four"]["id"]))
    assert bundle.get("total") == total
    if "_count=0" in query or "_summary=count" in query:
        assert "entry" not in bundle
        assert set(links(bundle)) == {"self"}


@pytest.mark.parametrize(
    ("query", "used"),
    [
        ("Slot?status=free", [("status", "free")]),
        ("Slot?status=free&nonsense=1", [("status", "free")]),
        ("Slot?Status=free", []),
        ("Slot?status=", []),
        ("Slot?status=free&_sort=start&_count=10", [("status", "free"), ("_sort", "start"), ("_count", "10")]),
        ("Slot?_sort=comment", []),
        ("Slot?_include=Slot:schedule", [("_include", "Slot:schedule")]),
        ("Slot?_include=Slot:nonsense", []),
        ("Slot?_include=Patient:organization&_include=Slot:schedule", [("_include", "Slot:schedule")]),
        ("Slot?status=free&status=busy", [("status", "free"), ("status", "busy")]),
        ("Slot?status=busy,free", [("status", "busy,free")]),
        ("Slot?service-type=a%5C%2Cb", [("service-type", "a\\,b")]),
        ("Slot?start=ge2026-06-02T09:00:00%2B02:00", [("start", "ge2026-06-02T09:00:00+02:00")]),
        ("Slot?identifier=a%26b%3Dc%23d%25", [("identifier", "a&b=c#d%")]),
        ("Slot?identifier=%E2%82%AC%20x", [("identifier", "€ x")]),
        ("Slot?_format=json&_pretty=true&status=free", [("status", "free")]),
        ("Slot?schedule.actor=Practitioner/1", [("schedule.actor", "Practitioner/1")]),
        ("Slot?_has:Appointment:slot:status=booked", [("_has:Appointment:slot:status", "booked")]),
        ("Slot?_text=x&_content=y&_filter=z", []),
    ],
)
def test_the_self_link_says_what_was_used(shared: Clinic, query: str, used: list[tuple[str, str]]) -> None:
    bundle = shared.bundle(query)
    itself = links(bundle)["self"]
    assert itself.startswith(f"{shared.base}/Slot")
    assert [pair for pair in parse_qsl(urlsplit(itself).query) if pair[0] not in ("_format", "_pretty")] == used
    assert matches(as_resource(shared.http.get(itself))) == matches(bundle)
    outcomes = [each["resource"] for each in bundle.get("entry", []) if each["search"]["mode"] == "outcome"]
    asked = [pair for pair in parse_qsl(urlsplit(query).query) if pair[0] not in ("_format", "_pretty")]
    assert bool(outcomes) == (len(asked) > len(used)) or query == "Slot?status="


@pytest.mark.parametrize(
    "query",
    [
        "nonsense=1",
        "Status=free",
        "_sort=comment",
        "_include=Slot:nonsense",
        "_text=x",
        "patient=1",
        "_list=1",
        "date=2026",
        "_type=Slot",
    ],
)
def test_an_unknown_parameter_is_left_out_and_said_or_400_under_strict(shared: Clinic, query: str) -> None:
    lenient = shared.http.get(f"Slot?{query}", headers={"Prefer": "handling=lenient"})
    (outcome,) = [e["resource"] for e in as_resource(lenient)["entry"] if e["search"]["mode"] == "outcome"]
    word = query.partition("=")[2] if query.startswith(("_sort", "_include")) else query.partition("=")[0]
    assert word in outcome["issue"][0]["diagnostics"]
    strict = refusal(shared.http.get(f"Slot?{query}", headers={"Prefer": "return=minimal; handling=strict"}), 400)
    assert word in strict[0]["diagnostics"]


def test_all_unknown_parameters_are_said_at_once(shared: Clinic) -> None:
    answer = shared.http.get("Slot?a=1&b=2&start=x", headers={"Prefer": "handling=strict"})
    assert len(refusal(answer, 400)) == 3


@pytest.mark.parametrize(
    "query",
    [
        "status=free&_sort=-start",
        "start=ge2026-06-02T09:00:00%2B02:00&_count=2",
        "schedule.actor=Practitioner/1&_include=Slot:schedule&_total=accurate",
        "status=busy&status:not=free&nonsense=1",
        "identifier=%E2%82%AC%26",
        "",
    ],
)
def test_post_search_is_the_same_search(shared: Clinic, filled: dict[str, Resource], query: str) -> None:
    got = as_resource(shared.http.get(f"Slot?{query}"))
    pairs = query.split("&")
    for url, body in (
        ("Slot/_search", query),
        (f"Slot/_search?{pairs[0]}", "&".join(pairs[1:])),
        (f"Slot/_search?{query}", ""),
    ):
        posted = as_resource(shared.http.post(url, content=body, headers={"Content-Type": FORM}))
        assert posted == got, url


@pytest.mark.parametrize(
    ("content_type", "status"),
    [(FORM, 200), (f"{FORM}; charset=utf-8", 200), ("application/fhir+json", 415), ("text/plain", 415)],
)
def test_a_posted_search_is_a_form(shared: Clinic, content_type: str, status: int) -> None:
    answer = shared.http.post("Slot/_search", content="status=free", headers={"Content-Type": content_type})
    assert answer.status_code == status
    if status == 415:
        refusal(answer, 415)


@pytest.mark.parametrize("sort", ["start", "status", "_id", "_lastUpdated", "schedule"])
def test_sorting_up_is_the_reverse_of_sorting_down(shared: Clinic, filled: dict[str, Resource], sort: str) -> None:
    up, down = (shared.found(f"Slot?_sort={sign}{sort}") for sign in ("", "-"))
    assert up == down[::-1]
    assert len(up) == 5


def test_several_sort_keys_count_in_their_order(shared: Clinic, filled: dict[str, Resource]) -> None:
    shown: list[Any] = [(each["status"], each["start"]) for each in shared.matches("Slot?_sort=status,-start")]
    assert [status for status, _ in shown] == sorted(status for status, _ in shown)
    busy = [start for status, start in shown if status == "busy"]
    assert busy == sorted(busy, reverse=True)


def test_the_count_is_a_limit_and_has_one(shared: Clinic, filled: dict[str, Resource]) -> None:
    assert len(shared.matches("Slot?_count=3")) == 3
    assert len(shared.matches("Slot?_count=100000000")) == 5
    assert len(shared.matches("Slot?_count=3&_count=2")) in (2, 3)


def test_links_have_the_host_that_was_asked(shared: Clinic) -> None:
    answer = shared.http.get("Slot?status=free", headers={"Host": "clinic.example:8443"})
    assert links(as_resource(answer))["self"] == f"http://clinic.example:8443/fhir/{shared.tenant}/Slot?status=free"
