"""Dates in searches (R4 3.1.1.4.7): every prefix and precision, days in the schedule's zone, days when clocks jump."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from clinic import Clinic, appointment, name, refusal, row_id, slot

VECTORS = Path(__file__).parents[3] / "shared/spec/own-examples/test-vectors/date-prefix-vectors.json"

# (search value, what the resource says, whether it is found), by R4 3.1.1.4.5 and 3.1.1.4.7
ROWS: list[tuple[str, Any, bool]] = [
    ("eq2013-01-14", "2013-01-14T00:00:00Z", True),
    ("eq2013-01-14", "2013-01-14T23:59:59.999999Z", True),
    ("eq2013-01-14", "2013-01-15T00:00:00Z", False),
    ("ne2013-01-14", "2013-01-15T00:00:00Z", True),
    ("ne2013-01-14", "2013-01-13T23:59:59Z", True),
    ("ne2013-01-14", "2013-01-14T10:00:00Z", False),
    ("gt2013-01-14", "2013-01-14T10:00:00Z", False),
    ("gt2013-01-14", "2013-01-15T00:00:00Z", True),
    ("ge2013-01-14", "2013-01-14T00:00:00Z", True),
    ("ge2013-01-14", "2013-01-13T23:59:59Z", False),
    ("lt2013-01-14", "2013-01-14T00:00:00Z", False),
    ("lt2013-01-14", "2013-01-13T23:59:59Z", True),
    ("le2013-01-14", "2013-01-14T23:59:59Z", True),
    ("le2013-01-14", "2013-01-15T00:00:00Z", False),
    ("sa2013-01-14", "2013-01-14T23:59:59Z", False),
    ("sa2013-01-14", "2013-01-15T00:00:00Z", True),
    ("eb2013-01-14", "2013-01-13T23:59:59Z", True),
    ("eb2013-01-14", "2013-01-14T00:00:00Z", False),
    ("ap2013-01-14", "2013-02-14T00:00:00Z", True),
    ("ap2013-01-14", "2012-01-14T00:00:00Z", True),
    ("ap2013-01-14", "2023-01-14T00:00:00Z", False),
    ("2013", "2013-12-31T23:59:59.999Z", True),
    ("2013", "2014-01-01T00:00:00Z", False),
    ("2013-12", "2013-12-31T23:59:59.999Z", True),
    ("2013-12", "2014-01-01T00:00:00Z", False),
    ("2013-01-14T10:00", "2013-01-14T10:00:59Z", True),
    ("2013-01-14T10:00", "2013-01-14T10:01:00Z", False),
    ("2013-01-14T10:00:00", "2013-01-14T10:00:00.5Z", True),
    ("2013-01-14T10:00:00Z", "2013-01-14T10:00:01Z", False),
    ("2013-01-14T10:00:00.5Z", "2013-01-14T10:00:00.55Z", True),
    ("2013-01-14T10:00:00.50Z", "2013-01-14T10:00:00.51Z", False),
    ("2013-01-14T10:00:00.123456Z", "2013-01-14T10:00:00.123456Z", True),
    ("2013-01-14T11:00:00%2B01:00", "2013-01-14T10:00:00Z", True),
    ("2013-01-14T11:00:00+01:00", "2013-01-14T10:00:00Z", True),
    ("2013-01-14T11:00+01:00", "2013-01-14T10:00:59Z", True),
    ("2013-01-14T05:00:00-05:00", "2013-01-14T10:00:00Z", True),
    ("gt2013-01-14T11%3A00%3A00%2B01%3A00", "2013-01-14T10:00:00.999Z", False),
    ("gt2013-01-14T11:00:00%2B01:00", "2013-01-14T10:00:01Z", True),
    ("eq2016-02-29", "2016-02-29T12:00:00Z", True),
    ("lt2013-01-14T10:00", {"start": "2013-01-14", "end": "2013-01-14"}, True),
    ("gt2013-01-14T10:00", {"start": "2013-01-14", "end": "2013-01-14"}, True),
    ("eq2013-01-14", {"start": "2013-01-14", "end": "2013-01-14"}, True),
    ("ge2013-03-14", {"start": "2013-01-21"}, True),
    ("le2013-03-14", {"start": "2013-01-21"}, True),
    ("sa2013-03-14", {"start": "2013-03-15"}, True),
    ("sa2013-03-14", {"start": "2013-01-21"}, False),
    ("sa2013-03-14", {"end": "2013-01-21"}, False),
    ("eb2013-03-14", {"start": "2013-03-15"}, False),
    ("eb2013-03-14", {"start": "2013-01-21"}, False),
    ("eb2013-03-14", {"end": "2013-01-21"}, True),
    ("eq2013-12-25", {"start": "2013-12-25T09:15:00Z", "end": "2013-12-25T09:30:00Z"}, True),
    ("eq2013-12-25", {"start": "2013-12-25T09:15:00Z"}, False),
    ("ne2013-12-25", {"start": "2013-12-25T09:15:00Z"}, True),
    ("eq2013-12-25", {"start": "2013-12-24", "end": "2013-12-26"}, False),
    ("ge2013-12-20", {"start": "2013-12-01", "end": "2013-12-10"}, False),
    ("ge2013-12-05", {"start": "2013-12-01", "end": "2013-12-10"}, True),
    ("ap2013-03-14", {"start": "2013-03-14", "end": "2013-03-14"}, True),
    ("ap2013-03-14", {"start": "2031-03-14", "end": "2031-03-14"}, False),
    ("eq2013", {"start": "2013", "end": "2013"}, True),
    ("eq2013-01", {"start": "2013", "end": "2013"}, False),
    ("lt2013", None, False),
    ("ne2013", None, False),
]


def _published() -> list[tuple[str, Any, bool]]:
    if not VECTORS.exists():
        return []
    rows = json.loads(VECTORS.read_text())["rows"]
    return [(row["q"], row["target"], row["match"]) for row in rows]


@pytest.mark.parametrize(("wanted", "said", "found"), [*ROWS, *_published()])
def test_a_date_finds_what_its_interval_says(shared: Clinic, wanted: str, said: Any, found: bool) -> None:
    if isinstance(said, str) and "T" not in said:  # a day, which an instant can't say
        said = {"start": said, "end": said}
    if isinstance(said, str):
        of = shared.schedule()
        start = shared.slot(of, said, 10)
        timed = shared.create(appointment(start=said, end=start["end"], comment=start["id"]))
        queries = {
            f"Slot?schedule={of['id']}&start={wanted}": start,
            f"Slot?_id={start['id']}&start={wanted}": start,
            f"Appointment?_id={timed['id']}&date={wanted}": timed,
        }
    else:
        made = shared.schedule(**({} if said is None else {"planningHorizon": said}))
        queries = {f"Schedule?_id={made['id']}&date={wanted}": made}
    for query, resource in queries.items():
        assert shared.found(query) == ([name(resource)] if found else []), query


INVALID = [
    "2013-13-01",
    "2013-02-30",
    "20130114",
    "2013-1-4",
    "14-01-2013",
    "xx2013-01-01",
    "2013-01-14T10",
    "T10:00",
    "2013-01-14T25:00:00Z",
    "2013-01-14T10:00:00%2B15:00",
    "2013-01-14T10:60",
    "2013-01-14T24:00",
    "2013-01-14Z",
    "eq",
    "ge",
    "now",
    "2013-00-01",
    "0000",
    "2013-01-14T10:00:00.",
    "eqeq2013",
    "EQ2013",
    "2013-01-14 10:00",
    "2013-01-14T10:00:00 Z",
    "%D9%A2%D9%A0%D9%A1%D9%A3",
    "-2013",
    "12013-01-01",
    "2013-01-01%0A",
    "2015-02-29",
]


@pytest.mark.parametrize("text", INVALID)
@pytest.mark.parametrize("parameter", ["Slot?start", "Appointment?date", "Schedule?date", "Slot?_lastUpdated"])
def test_what_is_no_date_is_400(shared: Clinic, parameter: str, text: str) -> None:
    for handling in ("strict", "lenient"):
        answer = shared.http.get(f"{parameter}={text}", headers={"Prefer": f"handling={handling}"})
        assert parameter.partition("?")[2] in refusal(answer, 400)[0]["diagnostics"]


@pytest.mark.parametrize(
    "text",
    [
        "9999",
        "9999-12-31",
        "0001",
        "0001-01-01",
        "ap0001",
        "ap9999",
        "lt0001",
        "gt9999",
        "ne9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59-12:00",
    ],
)
@pytest.mark.parametrize("parameter", ["Slot?start", "Appointment?date", "Schedule?date", "Slot?_lastUpdated"])
def test_the_ends_of_time_are_dates_or_refused_never_an_error(shared: Clinic, parameter: str, text: str) -> None:
    of = shared.schedule()
    for query in (f"{parameter}={text}", f"Slot?schedule={of['id']}&start={text}"):
        assert shared.http.get(query).status_code in (200, 400), query


def test_several_dates_in_one_parameter_are_or_and_several_parameters_and(clinic: Clinic) -> None:
    of = clinic.schedule()
    days = {day: name(clinic.slot(of, f"2026-06-{day:02}T09:00:00Z")) for day in range(1, 8)}
    assert clinic.found("Slot?start=2026-06-01,2026-06-03") == [days[1], days[3]]
    assert clinic.found("Slot?start=ge2026-06-03&start=lt2026-06-05") == [days[3], days[4]]
    assert clinic.found("Slot?start=lt2026-06-02,gt2026-06-05&start=ne2026-06-07") == [days[1], days[6]]


def test_missing_finds_appointments_without_a_time(clinic: Clinic) -> None:
    with_time = clinic.create(appointment())
    without = clinic.create(appointment(status="cancelled", start=None, end=None))
    waiting = clinic.create(appointment(status="waitlist"))
    assert clinic.found("Appointment?date:missing=false") == [name(with_time)]
    assert set(clinic.found("Appointment?date:missing=true")) == {name(without), name(waiting)}
    for prefix in ("gt", "ge", "sa", "ne", "le", "lt", "eb", "eq", "ap"):
        assert not {name(without), name(waiting)} & set(clinic.found(f"Appointment?date={prefix}2020"))
    assert clinic.found("Appointment?date=gt2020") == [name(with_time)]


def test_last_updated_is_when_the_row_was_written(clinic: Clinic) -> None:
    made = clinic.schedule()
    stamp = made["meta"]["lastUpdated"]
    assert clinic.found(f"Schedule?_lastUpdated={stamp}") == [name(made)]
    assert clinic.found(f"Schedule?_lastUpdated=gt{stamp}") == []
    assert clinic.found(f"Schedule?_lastUpdated={datetime.now(UTC).date()}") == [name(made)]
    clinic.put(made)
    assert clinic.found(f"Schedule?_lastUpdated=gt{stamp}") == [name(made)]


# Days in the schedule's zone

DAYS = [
    ("America/New_York", "2026-03-08"),  # 23 hours
    ("America/New_York", "2026-11-01"),  # 25 hours
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),  # 24.5 hours
    ("Australia/Lord_Howe", "2026-10-04"),  # 23.5 hours
    ("Asia/Kathmandu", "2026-06-02"),  # UTC+05:45
    ("Africa/Casablanca", "2026-02-15"),  # Ramadan: the clock goes back
    ("Africa/Casablanca", "2026-03-22"),  # and forward again
    ("Pacific/Kiritimati", "2026-06-02"),  # UTC+14
    ("Pacific/Pago_Pago", "2026-06-02"),  # UTC-11
    ("America/Santiago", "2026-09-06"),  # no midnight on that day
    ("UTC", "2026-06-02"),
]
STEP = timedelta(minutes=30)


def _half_hours(day: str) -> list[datetime]:
    noon = datetime.combine(date.fromisoformat(day), time(12), UTC)
    return [noon - timedelta(hours=40) + STEP * index for index in range(160)]


def _filled(clinic: Clinic, zone: str, day: str) -> tuple[dict[str, Any], dict[str, datetime]]:
    """A schedule in the zone with a slot every half hour around the day, written by another program."""
    of = clinic.schedule(zone=zone)
    rows = clinic.sql(
        """insert into slots (tenant_id, schedule_id, start_at, end_at)
           select %s, %s, s, s + interval '30 minutes' from unnest(%s::timestamptz[]) as s returning id, start_at""",
        clinic.tenant,
        row_id(of),
        _half_hours(day),
    )
    return of, {f"Slot/slt-{row}": start for row, start in rows}


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_a_day_is_the_schedules_own_day(clinic: Clinic, zone: str, day: str) -> None:
    of, slots = _filled(clinic, zone, day)
    clinic.slot(clinic.schedule(), "2020-01-01T00:00:00Z")
    local = {key: start.astimezone(ZoneInfo(zone)).date() for key, start in slots.items()}
    wanted = date.fromisoformat(day)
    rules: list[tuple[str, Callable[[date, date], bool]]] = [
        ("", operator.eq),
        ("ne", operator.ne),
        ("ge", operator.ge),
        ("gt", operator.gt),
        ("sa", operator.gt),
        ("le", operator.le),
        ("lt", operator.lt),
        ("eb", operator.lt),
    ]
    for prefix, holds in rules:
        expected = sorted((key for key, d in local.items() if holds(d, wanted)), key=lambda key: slots[key])
        for narrowed in (f"&schedule={of['id']}", f"&schedule.actor={of['actor'][0]['reference']}"):
            assert clinic.found(f"Slot?start={prefix}{day}{narrowed}&_count=1000") == expected, prefix + narrowed
    assert set(clinic.found(f"Slot?start={day}&_count=1000")) == {k for k, d in local.items() if d == wanted}


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_a_range_without_offset_is_on_the_schedules_clock(clinic: Clinic, zone: str, day: str) -> None:
    of, slots = _filled(clinic, zone, day)
    inside = {
        key
        for key, start in slots.items()
        if f"{day}T08:30" <= start.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M") < f"{day}T17:00"
    }
    query = f"start=ge{day}T08:30&start=lt{day}T17:00&_count=1000"
    assert set(clinic.found(f"Slot?schedule={of['id']}&{query}")) == inside
    assert set(clinic.found(f"Slot?{query}")) == inside


def test_one_search_reads_a_day_in_the_zone_of_each_schedule(clinic: Clinic) -> None:
    """2026-06-02T02:00Z is still June 1 in New York, June 2 in Berlin and Kathmandu."""
    zones = ("America/New_York", "Europe/Berlin", "Asia/Kathmandu", "")
    made = {zone: name(clinic.slot(clinic.schedule(zone=zone), "2026-06-02T02:00:00Z")) for zone in zones}
    assert set(clinic.found("Slot?start=2026-06-02")) == {made[zone] for zone in zones[1:]}
    assert clinic.found("Slot?start=2026-06-01") == [made["America/New_York"]]
    assert set(clinic.found("Slot?start=ge2026-06-02T00:00:00Z&start=lt2026-06-03T00:00:00Z")) == set(made.values())


def test_an_appointments_day_is_that_of_its_slots_schedule_and_utc_without_one(clinic: Clinic) -> None:
    of = clinic.schedule(zone="America/New_York")
    late = clinic.booked(clinic.slot(of, "2026-06-02T02:00:00Z"))
    free = clinic.create(appointment(start="2026-06-02T02:00:00Z", end="2026-06-02T02:15:00Z"))
    assert clinic.found("Appointment?date=2026-06-01") == [name(late)]
    assert clinic.found("Appointment?date=2026-06-02") == [name(free)]


def test_an_exceptions_day_is_that_of_its_schedule(clinic: Clinic) -> None:
    of = clinic.schedule(zone="America/New_York")
    (row,) = clinic.sql(
        """insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at)
           values (%s, %s, '2026-06-02T02:00Z', '2026-06-02T03:00Z') returning id""",
        clinic.tenant,
        row_id(of),
    )
    assert clinic.found("Slot?start=2026-06-01") == [f"Slot/exc-{row[0]}"]
    assert clinic.found(f"Slot?start=2026-06-01&schedule={of['id']}") == [f"Slot/exc-{row[0]}"]
    assert clinic.found("Slot?start=2026-06-02") == []


def test_the_horizon_of_a_schedule_is_in_its_own_days(clinic: Clinic) -> None:
    """December 25 in Kathmandu ends at 18:15 UTC."""
    made = clinic.schedule(zone="Asia/Kathmandu", planningHorizon={"start": "2026-12-25", "end": "2026-12-25"})
    assert clinic.found("Schedule?date=2026-12-25") == [name(made)]
    assert clinic.found("Schedule?date=gt2026-12-25T18:15:00Z") == []
    assert clinic.found("Schedule?date=gt2026-12-25T18:14:00Z") == [name(made)]


def test_a_zone_that_no_program_knows_counts_as_utc(clinic: Clinic) -> None:
    of = clinic.schedule()
    clinic.sql("update schedules set timezone = 'Nowhere/Land' where id = %s", row_id(of))
    first = clinic.create(slot(of, "2026-06-02T02:00:00Z"))
    assert clinic.found("Slot?start=2026-06-02") == [name(first)]
    assert clinic.found(f"Slot?start=2026-06-02&schedule={of['id']}") == [name(first)]


def test_a_schedule_that_moves_to_another_zone_takes_its_days_along(clinic: Clinic) -> None:
    of = clinic.schedule()
    first = clinic.slot(of, "2026-06-02T02:00:00Z")
    clinic.sql("update schedules set timezone = 'America/New_York' where id = %s", row_id(of))
    assert clinic.found("Slot?start=2026-06-01") == [name(first)]
    assert clinic.found("Slot?start=2026-06-02") == []
