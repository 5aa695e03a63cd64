"""Pages of a search: every match once while rows come and go, forward and back, and only for the search they are of."""

from __future__ import annotations

from itertools import chain

import pytest

from clinic import Clinic, Resource, links, matches, name

START = "2026-06-02T09:{:02}:00Z"


def _slots(clinic: Clinic, schedule: Resource, minutes: range) -> list[str]:
    return [name(clinic.slot(schedule, START.format(minute), 1)) for minute in minutes]


def _follow(clinic: Clinic, url: str) -> Resource:
    assert url.startswith(clinic.base)
    return clinic.bundle(url)


def _pages(clinic: Clinic, query: str, relation: str = "next") -> list[list[str]]:
    """The names on each page, by the links."""
    bundle = clinic.bundle(query)
    pages = [[name(each) for each in matches(bundle)]]
    while relation in links(bundle):
        bundle = _follow(clinic, links(bundle)[relation])
        pages.append([name(each) for each in matches(bundle)])
    return pages


@pytest.mark.parametrize(
    ("sort", "backward"), [("start", False), ("-start", True), ("status,start", False), ("-status,-start", True)]
)
def test_the_links_lead_over_all_matches_in_order(clinic: Clinic, sort: str, backward: bool) -> None:
    schedule = clinic.schedule()
    made = _slots(clinic, schedule, range(10, 17))
    pages = _pages(clinic, f"Slot?schedule={name(schedule)}&_sort={sort}&_count=3")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert list(chain(*pages)) == (made[::-1] if backward else made)


def test_keys_of_both_directions_and_two_tables_are_one_order(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    made = _slots(clinic, schedule, range(10, 15))
    window = {"start": "2026-06-02T12:00:00Z", "end": "2026-06-02T13:00:00Z", "status": "busy-unavailable"}
    kind = {"url": "http://fhir-sched.org/fhir/StructureDefinition/schedule-exception-type", "valueCode": "meeting"}
    exception = name(clinic.slot(schedule, window["start"], 60, status="busy-unavailable", extension=[kind]))
    pages = _pages(clinic, f"Slot?schedule={name(schedule)}&_sort=-status,start&_count=2")
    assert list(chain(*pages)) == [*made, exception]
    pages = _pages(clinic, f"Slot?schedule={name(schedule)}&_sort=status,-start&_count=2")
    assert list(chain(*pages)) == [exception, *made[::-1]]


def test_rows_that_come_and_go_in_front_shift_nothing(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    made = _slots(clinic, schedule, range(10, 20))
    first = clinic.bundle(f"Slot?schedule={name(schedule)}&_sort=start&_count=4")
    assert clinic.http.delete(made[0]).status_code == 204
    assert clinic.http.delete(made[3]).status_code == 204
    _slots(clinic, schedule, range(3))
    second = _follow(clinic, links(first)["next"])
    assert [name(each) for each in matches(second)] == made[4:8]


def test_previous_leads_back_to_what_is_there_now(clinic: Clinic) -> None:
    schedule = clinic.schedule()
    made = _slots(clinic, schedule, range(10, 16))
    second = _follow(clinic, links(clinic.bundle(f"Slot?schedule={name(schedule)}&_sort=start&_count=2"))["next"])
    third = _follow(clinic, links(second)["next"])
    assert "next" not in links(third)
    back = _follow(clinic, links(third)["previous"])
    assert [name(each) for each in matches(back)] == made[2:4]
    assert [name(each) for each in matches(_follow(clinic, links(back)["previous"]))] == made[:2]
    assert links(back)["first"].endswith("_count=2")


def test_appointments_without_a_time_come_last_and_on_a_page_of_their_own(clinic: Clinic) -> None:
    waiting = [name(clinic.booked(status="waitlist", start=None, end=None)) for _ in range(3)]
    booked = name(clinic.booked())
    pages = _pages(clinic, "Appointment?_sort=date&_count=1")
    assert pages[0] == [booked]
    assert sorted(chain(*pages[1:])) == sorted(waiting)


def test_a_page_belongs_to_its_search_and_its_tenant(clinic: Clinic, shared: Clinic) -> None:
    schedule = clinic.schedule()
    _slots(clinic, schedule, range(10, 13))
    token = links(clinic.bundle("Slot?_sort=start&_count=1"))["next"].partition("_page=")[2]
    assert clinic.http.get(f"Slot?_sort=start&_count=1&_page={token}").status_code == 200
    for query in (f"Slot?_sort=-start&_count=1&_page={token}", f"Slot?_page={token}", f"Schedule?_page={token}"):
        assert clinic.http.get(query).status_code == 400
    assert shared.http.get(f"Slot?_sort=start&_count=1&_page={token}").status_code == 400
    for broken in ("2", token[:-3], "A" * 400, "%00"):
        assert clinic.http.get(f"Slot?_sort=start&_count=1&_page={broken}").status_code == 400
