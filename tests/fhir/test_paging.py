"""Paging (R4 3.1.1.5.4): every match once, forward and back, whatever happens in front of the page meanwhile."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from clinic import Clinic, Resource, appointment, as_resource, later, links, matches, name, refusal, row_id
from fhir_sched.xml import from_xml

COUNT = 47


def _page(clinic: Clinic, url: str) -> Resource:
    answer = clinic.http.get(url)
    assert answer.status_code == 200, answer.text
    return as_resource(answer)


def _walk(clinic: Clinic, url: str, between: Callable[[int], None] | None = None) -> list[list[str]]:
    """The names on each page, following `next`."""
    pages = []
    following: str | None = url
    while following:
        bundle = _page(clinic, following)
        pages.append([name(each) for each in matches(bundle)])
        following = links(bundle).get("next")
        if between:
            between(len(pages))
        assert len(pages) < 100
    return pages


@pytest.fixture(scope="module")
def filled(shared: Clinic) -> list[Resource]:
    """Slots of a schedule, some at the same time in another, and exceptions between them."""
    of, other = shared.schedule(), shared.schedule()
    made = []
    for index in range(COUNT):
        start = later("2026-06-02T00:00:00Z", 15 * (index // 2))
        status = "busy" if index % 3 else "free"
        made.append(shared.slot(other if index % 2 else of, start, status=status))
    for index in range(5):
        shared.sql(
            "insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at) values (%s, %s, %s, %s)",
            shared.tenant,
            row_id(shared.schedule()),
            later("2026-06-02T00:00:00Z", 60 * index),
            later("2026-06-02T00:30:00Z", 60 * index),
        )
    return made


SORTS = [
    "",
    "start",
    "-start",
    "status",
    "-status",
    "status,-start",
    "-status,start",
    "_id",
    "-_id",
    "_lastUpdated",
    "-_lastUpdated",
    "schedule",
    "-schedule,status,start",
    "status,_lastUpdated",
]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("query", ["Slot?", "Slot?status=busy,free&", "Slot?schedule.active=true&"])
def test_all_pages_forward_and_back_are_one_search(
    shared: Clinic, filled: list[Resource], query: str, sort: str
) -> None:
    whole = [name(each) for each in matches(_page(shared, f"{query}_sort={sort}&_count=1000"))]
    assert len(whole) == len(set(whole)) == len(filled) + (0 if "status=busy" in query else 5)
    url = f"{query}_sort={sort}&_count=7"
    pages = _walk(shared, url)
    assert [each for page in pages for each in page] == whole
    assert all(len(page) == 7 for page in pages[:-1])
    assert 0 < len(pages[-1]) <= 7

    bundle = _page(shared, url)
    while "next" in links(bundle):
        bundle = _page(shared, links(bundle)["next"])
    back = [[name(each) for each in matches(bundle)]]
    while "previous" in links(bundle):
        bundle = _page(shared, links(bundle)["previous"])
        back.insert(0, [name(each) for each in matches(bundle)])
    assert [each for page in back for each in page] == whole


@pytest.mark.parametrize("sort", ["date", "-date", "status", "patient", "-patient,date", "_lastUpdated"])
def test_appointments_without_a_time_are_paged_too(clinic: Clinic, sort: str) -> None:
    for number in range(12):
        start = later("2026-06-02T09:00:00Z", 15 * (number // 3))
        clinic.create(appointment(patient=f"Patient/{number % 4}", start=start, end=later(start, 15)))
        if number % 3 == 0:
            clinic.create(appointment(status="proposed", start=None, end=None))
            clinic.create(appointment(status="waitlist"))
    whole = clinic.found(f"Appointment?_sort={sort}&_count=100")
    assert len(whole) == 20
    assert [each for page in _walk(clinic, f"Appointment?_sort={sort}&_count=3") for each in page] == whole
    if sort == "date":
        assert all("start" in each for each in clinic.matches(f"Appointment?_sort={sort}&_count=100")[:12])


def test_rows_added_and_removed_in_front_repeat_and_miss_nothing(clinic: Clinic) -> None:
    of = clinic.schedule()
    made = [clinic.slot(of, later("2026-06-02T00:00:00Z", 15 * index)) for index in range(20)]

    def between(number: int) -> None:
        clinic.slot(of, later("2026-06-01T00:00:00Z", 15 * number))
        if number <= 4:
            clinic.http.delete(name(made[number - 1]))

    pages = _walk(clinic, "Slot?_count=4", between)
    assert [each for page in pages for each in page] == [name(each) for each in made]


def test_what_comes_behind_the_page_is_seen(clinic: Clinic) -> None:
    of = clinic.schedule()
    for index in range(4):
        clinic.slot(of, later("2026-06-02T00:00:00Z", 15 * index))
    first = _page(clinic, "Slot?_count=2")
    late = clinic.slot(of, "2026-06-03T00:00:00Z")
    gone = matches(_page(clinic, links(first)["next"]))[0]
    clinic.http.delete(name(gone))
    following = [each for page in _walk(clinic, links(first)["next"]) for each in page]
    assert following[-1] == name(late)
    assert name(gone) not in following


def test_back_from_a_page_whose_rows_have_gone(clinic: Clinic) -> None:
    of = clinic.schedule()
    made = [clinic.slot(of, later("2026-06-02T00:00:00Z", 15 * index)) for index in range(9)]
    second = links(_page(clinic, "Slot?_count=3"))["next"]
    previous = links(_page(clinic, second))["previous"]
    for each in made[3:6]:
        clinic.http.delete(name(each))
    assert [name(each) for each in matches(_page(clinic, previous))] == [name(each) for each in made[:3]]
    for each in made[:3]:
        clinic.http.delete(name(each))
    assert matches(_page(clinic, previous)) == []
    assert [name(each) for each in matches(_page(clinic, second))] == [name(each) for each in made[6:]]


def test_the_first_page_has_no_previous_and_the_last_no_next(clinic: Clinic) -> None:
    of = clinic.schedule()
    for index in range(4):
        clinic.slot(of, later("2026-06-02T00:00:00Z", 15 * index))
    first = _page(clinic, "Slot?_count=2")
    assert set(links(first)) == {"self", "next"}
    second = _page(clinic, links(first)["next"])
    assert set(links(second)) == {"self", "first", "previous"}
    again = _page(clinic, links(second)["previous"])
    assert matches(again) == matches(first)
    assert "previous" not in links(again)
    assert matches(_page(clinic, links(again)["next"])) == matches(second)
    assert matches(_page(clinic, links(second)["first"])) == matches(first)
    assert matches(_page(clinic, links(second)["self"])) == matches(second)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_page_is_full_exactly_when_there_is_more(clinic: Clinic, count: int) -> None:
    of = clinic.schedule()
    for index in range(4):
        clinic.slot(of, later("2026-06-02T00:00:00Z", 15 * index))
    assert [len(page) for page in _walk(clinic, f"Slot?_count={count}")] == {
        1: [1, 1, 1, 1],
        2: [2, 2],
        3: [3, 1],
        4: [4],
        5: [4],
    }[count]


def test_every_page_keeps_the_search_and_its_includes(clinic: Clinic) -> None:
    of = clinic.schedule()
    for index in range(4):
        clinic.slot(of, later("2026-06-02T00:00:00Z", 15 * index))
    bundle = _page(clinic, "Slot?status=free&_include=Slot:schedule&_count=2&nonsense=1&_total=accurate")
    for _ in range(2):
        modes = [entry["search"]["mode"] for entry in bundle["entry"] if entry["search"]["mode"] != "outcome"]
        assert modes == ["match", "match", "include"]
        assert bundle["total"] == 4
        for url in links(bundle).values():
            given = parse_qs(urlsplit(url).query)
            assert given["status"] == ["free"]
            assert given["_include"] == ["Slot:schedule"]
            assert "nonsense" not in given
        if "next" in links(bundle):
            bundle = _page(clinic, links(bundle)["next"])


def _token(bundle: Resource) -> str:
    return parse_qs(urlsplit(links(bundle)["next"]).query)["_page"][0]


def _forged(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_a_token_is_for_its_own_search_tenant_and_type(clinic: Clinic, shared: Clinic, filled: list[Resource]) -> None:
    token = _token(_page(shared, "Slot?_count=2"))
    assert shared.http.get(f"Slot?_count=2&_page={token}").status_code == 200
    for url in (
        f"Slot?_page={token}",
        f"Slot?_count=3&_page={token}",
        f"Slot?_count=2&status=free&_page={token}",
        f"Slot?_count=2&_sort=-start&_page={token}",
        f"Appointment?_count=2&_page={token}",
        f"Schedule?_count=2&_page={token}",
        f"Slot?_count=2&_page={token}&_page={token}",
    ):
        assert "_page" in refusal(shared.http.get(url), 400)[0]["diagnostics"], url
    refusal(clinic.http.get(f"Slot?_count=2&_page={token}"), 400)


def test_a_broken_token_is_400(shared: Clinic, filled: list[Resource]) -> None:
    token = _token(_page(shared, "Slot?_count=2"))
    tie, backward, source, *keys = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    broken = [
        "x",
        "=",
        "null",
        "%00",
        "é",
        "a" * 10000,
        token[:-3],
        token + "AAAA",
        token[::-1],
        _forged(None),
        _forged([]),
        _forged({}),
        _forged(1),
        _forged([tie]),
        _forged([tie, backward, source]),
        _forged([tie, backward, source, *keys, "x"]),
        _forged([tie, backward, source, keys[0]]),
        _forged([tie, 7, source, *keys]),
        _forged([tie, backward, 99, *keys]),
        _forged([tie, backward, -1, *keys]),
        _forged([tie, backward, "0", *keys]),
        _forged([tie, backward, source, 1, 2]),
        _forged([tie, backward, source, None, keys[1]]),
        _forged([tie, backward, source, "now\u0000", keys[1]]),
        _forged([tie, backward, source, keys[0], "not-a-uuid"]),
        _forged([tie, backward, source, "not a time", keys[1]]),
        _forged([tie, backward, source, "'; drop table slots", keys[1]]),
        _forged([[[]] * 500]),
        "W1tb" * 3000,
    ]
    for text in broken:
        answer = shared.http.get(f"Slot?_count=2&_page={quote(text)}")
        assert refusal(answer, 400), text


def test_depth_is_no_reason_to_be_refused(shared: Clinic, filled: list[Resource]) -> None:
    assert len(_walk(shared, "Slot?_count=1")) == COUNT + 5


@pytest.mark.parametrize("path", ["Slot", "Slot/_history", "_history"])
def test_the_next_page_has_the_form_of_the_first(clinic: Clinic, path: str) -> None:
    of = clinic.schedule()
    for hour in (9, 10, 11):
        clinic.slot(of, f"2030-01-01T{hour:02d}:00:00Z")
    seen, url = 0, f"{clinic.base}/{path}?_format=xml&_pretty=true&_count=1"
    while url:
        answer = clinic.http.get(url)
        assert answer.headers["content-type"].startswith("application/fhir+xml")
        bundle = from_xml(answer.content)
        assert "_format=xml&_pretty=true" in links(bundle)["self"]
        url = links(bundle).get("next", "")
        seen += len(bundle["entry"])
    assert seen == (4 if path == "_history" else 3)
    plain = links(clinic.bundle(f"{path}?_count=1"))["next"]
    assert "_format" not in plain
    assert clinic.http.get(f"{plain}&_format=xml").status_code == 200
