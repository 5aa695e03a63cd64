"""Availability rules become slots: in real time, once, and without touching what is taken or was made by hand."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, time, timedelta
from threading import Thread
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from psycopg.types.json import Jsonb

from programs import Clinic, Connection, outcome, race

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONDAY = date(2031, 3, 3)
MINUTE = timedelta(minutes=1)
Span = tuple[datetime, datetime]


def rule(start: str, end: str, minutes: int, days: tuple[str, ...] = DAYS, **more: Any) -> dict[str, Any]:
    return {"days": list(days), "start": start, "end": end, "slotMinutes": minutes, **more}


def pattern(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"rules": list(rules)}


def generate(
    clinic: Clinic, schedule: UUID, first: date, last: date, connection: Connection | None = None, **more: Any
) -> tuple[int, int]:
    """How many slots were added and withdrawn."""
    further = "".join(f", {name} => %({name})s" for name in more)
    row = (
        (connection or clinic.api())
        .execute(
            "select added, withdrawn from fhir_sched_generate_slots("
            f"%(tenant)s, %(schedule)s, %(first)s, %(last)s{further})",
            {"tenant": clinic.tenant, "schedule": schedule, "first": first, "last": last, **more},
        )
        .fetchone()
    )
    assert row is not None
    return row[0], row[1]


def slots(clinic: Clinic, schedule: UUID, status: str = "free") -> list[Span]:
    return clinic.rows(
        "select start_at, end_at from slots where schedule_id = %s and status = %s order by start_at", schedule, status
    )


def ids(clinic: Clinic, schedule: UUID, status: str = "free") -> set[UUID]:
    return {
        row[0] for row in clinic.rows("select id from slots where schedule_id = %s and status = %s", schedule, status)
    }


def change(clinic: Clinic, schedule: UUID, *rules: dict[str, Any]) -> None:
    clinic.staff().execute(
        "update schedules set availability_pattern = %s where id = %s", [Jsonb(pattern(*rules)), schedule]
    )


# the oracle: a clock on the wall, looked at every minute


def watched(zone: str, given: dict[str, Any], first: date, last: date) -> list[Span]:
    """The slots that somebody sees who watches the clock: a new one begins when the last is over and the rule holds."""
    clock, found = ZoneInfo(zone), []
    opens, closes = (_minutes(given[name]) for name in ("start", "end"))
    begun: tuple[datetime, date] | None = None
    now = datetime.combine(first, time(), UTC) - timedelta(hours=20)
    while now < datetime.combine(last, time(), UTC) + timedelta(hours=50):
        shown = now.astimezone(clock)
        stands = shown.hour * 60 + shown.minute
        holds = first <= shown.date() <= last and opens <= stands < closes and DAYS[shown.weekday()] in given["days"]
        if not holds:
            begun = None
        elif begun is None or begun[1] != shown.date():
            begun = now, shown.date()
        now += MINUTE
        if begun is not None and now - begun[0] == given["slotMinutes"] * MINUTE:
            found.append((begun[0], now))
            begun = None
    return found


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")[:2]
    return int(hours) * 60 + int(minutes)


def changes(zone: str, year: int) -> list[date]:
    """The days on which the clock of the zone changes."""
    clock = ZoneInfo(zone)
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(365 * 24)]
    return [
        after.astimezone(clock).date()
        for before, after in itertools.pairwise(hours)
        if before.astimezone(clock).utcoffset() != after.astimezone(clock).utcoffset()
    ]


RULES = (
    rule("00:00", "06:00", 60),
    rule("00:00", "24:00", 45),
    rule("01:30", "04:00", 20),
    rule("02:10", "02:40", 10),
    rule("01:00", "02:00", 15),
    rule("09:00", "17:00", 25, ("sat", "sun", "mon")),
)


@pytest.mark.parametrize(
    ("zone", "times"),
    [
        ("America/New_York", 2),
        ("Europe/Berlin", 2),
        ("Australia/Lord_Howe", 2),
        ("Asia/Kathmandu", 0),
        ("Africa/Casablanca", 2),
    ],
)
def test_slots_fill_real_time_where_the_clock_changes(clinic: Clinic, zone: str, times: int) -> None:
    days = changes(zone, 2025)  # a year that is over: no government changes it any more
    assert len(days) == times
    for day in days or [date(2025, 4, 15)]:
        first, last = day - timedelta(days=2), day + timedelta(days=2)
        for given in RULES:
            made = clinic.rows(
                "select start_at, end_at from fhir_sched_times(%s, %s, %s, %s) order by start_at",
                zone, Jsonb(pattern(given)), first, last,
            )  # fmt: skip
            assert made == watched(zone, given, first, last), (day, given)


@pytest.mark.parametrize(
    ("day", "begin"),
    [
        # Two o'clock is followed by three, and the other way round.
        (date(2027, 3, 14), ["01:00", "01:30", "03:00", "03:30"]),
        (date(2027, 11, 7), ["01:00", "01:30", "01:00", "01:30", "02:00", "02:30", "03:00", "03:30"]),
    ],
)
def test_the_night_of_the_change_in_new_york(clinic: Clinic, day: date, begin: list[str]) -> None:
    zone = "America/New_York"
    schedule = clinic.schedule(timezone=zone, availability_pattern=pattern(rule("01:00", "04:00", 30)))
    assert generate(clinic, schedule, day, day) == (len(begin), 0)
    made = slots(clinic, schedule)
    assert [start.astimezone(ZoneInfo(zone)).strftime("%H:%M") for start, _ in made] == begin
    assert {end - start for start, end in made} == {timedelta(minutes=30)}
    assert all(before[1] == after[0] for before, after in itertools.pairwise(made))


def test_a_rule_holds_on_its_days_and_between_its_dates(clinic: Clinic) -> None:
    given = rule(
        "09:00", "10:00", 30, ("tue", "fri"), validFrom="2031-03-05", validTo="2031-03-11", appointmentType="WALKIN"
    )
    schedule = clinic.schedule(availability_pattern=pattern(given))
    generate(clinic, schedule, MONDAY, MONDAY + timedelta(days=20))
    assert {start.date() for start, _ in slots(clinic, schedule)} == {date(2031, 3, 7), date(2031, 3, 11)}
    assert clinic.rows("select distinct appointment_type from slots where schedule_id = %s", schedule) == [("WALKIN",)]


def test_again_nothing_is_added_and_one_row_has_announced_all(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "12:00", 20), rule("13:00", "17:00", 15)))
    assert generate(clinic, schedule, MONDAY, MONDAY) == (28, 0)
    before = ids(clinic, schedule)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 0)
    assert ids(clinic, schedule) == before
    announced = clinic.rows(
        "select event_type, aggregate_id, payload -> 'slots', payload -> 'row' ->> 'id' from outbox"
        " where tenant_id = %s and event_type like 'slot%%'",
        clinic.tenant,
    )
    said = {"count": 28, "start": "2031-03-03T08:00:00+00:00", "end": "2031-03-03T17:00:00+00:00"}
    assert announced == [("slots.generated", schedule, said, str(schedule))]


def test_the_settings_of_the_caller_are_as_before(clinic: Clinic) -> None:
    schedule, api = clinic.schedule(availability_pattern=pattern(rule("08:00", "09:00", 30))), clinic.api()
    generate(clinic, schedule, MONDAY, MONDAY, api)
    asked = "select current_setting('app.writer'), coalesce(current_setting('app.quiet_slots', true), '')"
    assert api.execute(asked).fetchone() == ("fhir", "")


def test_time_under_an_exception_or_another_slot_is_left_out(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "11:00", 20)))
    clinic.close(schedule, 50, 61)
    clinic.slot(schedule, 5)
    clinic.slot(schedule, 120, status="blocked")
    long_ago = clinic.slot(schedule, -2000, status="blocked", end_at=datetime(2031, 3, 3, 8, 1, tzinfo=UTC))
    mistaken = clinic.slot(schedule, 160, status="entered-in-error")
    assert generate(clinic, schedule, MONDAY, MONDAY)[0] == 4
    begin = [(start.hour - 8) * 60 + start.minute for start, _ in slots(clinic, schedule)]
    assert begin == [5, 80, 100, 140, 160]
    assert {clinic.get("slots", long_ago), clinic.get("slots", mistaken)} == {"blocked", "entered-in-error"}


def test_where_rules_overlap_the_earlier_one_has_the_time(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("09:00", "10:00", 30), rule("08:00", "12:00", 40)))
    assert generate(clinic, schedule, MONDAY, MONDAY) == (6, 0)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 0)
    begin = [f"{start:%H:%M}" for start, _ in slots(clinic, schedule)]
    assert begin == ["08:00", "09:00", "09:30", "10:00", "10:40", "11:20"]


def test_changed_rules_take_back_only_what_is_free_and_was_generated(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "12:00", 30)))
    by_hand = clinic.slot(schedule, -60)
    generate(clinic, schedule, MONDAY, MONDAY)
    booked, held, moved, closed, kept = (
        clinic.rows("select id from slots where schedule_id = %s and start_at = %s", schedule, at)[0][0]
        for at in (datetime(2031, 3, 3, 8, tzinfo=UTC) + timedelta(minutes=30 * n) for n in (0, 1, 2, 3, 6))
    )
    clinic.book(booked)
    clinic.book(held, status="pending")
    clinic.staff().execute("update slots set start_at = start_at + interval '5 minutes' where id = %s", [moved])
    clinic.staff().execute("update slots set status = 'blocked' where id = %s", [closed])
    change(clinic, schedule, rule("11:00", "12:00", 30), rule("14:00", "15:00", 30))

    assert generate(clinic, schedule, MONDAY, MONDAY) == (2, 2)
    states = [clinic.get("slots", slot) for slot in (by_hand, booked, held, moved, closed, kept)]
    assert states == ["free", "busy", "busy", "free", "blocked", "free"]
    assert len(ids(clinic, schedule, "entered-in-error")) == 2
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 0)


def test_what_was_taken_back_comes_back_under_its_id(clinic: Clinic) -> None:
    morning = rule("08:00", "09:00", 30)
    schedule = clinic.schedule(availability_pattern=pattern(morning))
    generate(clinic, schedule, MONDAY, MONDAY)
    before = ids(clinic, schedule)
    change(clinic, schedule, rule("08:00", "09:00", 20))
    assert generate(clinic, schedule, MONDAY, MONDAY) == (3, 2)
    assert ids(clinic, schedule, "entered-in-error") == before
    change(clinic, schedule, morning)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (2, 3)
    assert ids(clinic, schedule) == before
    assert clinic.rows("select distinct version, withdrawn from slots where id = any(%s)", list(before)) == [(3, False)]


def test_a_slot_that_somebody_called_a_mistake_does_not_come_back(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "09:00", 30)))
    generate(clinic, schedule, MONDAY, MONDAY)
    mistaken = min(ids(clinic, schedule))
    clinic.staff().execute("update slots set status = 'entered-in-error' where id = %s", [mistaken])
    assert generate(clinic, schedule, MONDAY, MONDAY + timedelta(days=1)) == (2, 0)
    assert clinic.get("slots", mistaken) == "entered-in-error"


def test_a_withdrawn_slot_that_somebody_opens_again_is_a_slot_like_any_other(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "08:30", 30)))
    generate(clinic, schedule, MONDAY, MONDAY)
    change(clinic, schedule)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 1)
    (slot,) = ids(clinic, schedule, "entered-in-error")
    clinic.staff().execute("update slots set status = 'busy' where id = %s", [slot])
    clinic.staff().execute("update slots set status = 'entered-in-error' where id = %s", [slot])
    change(clinic, schedule, rule("08:00", "08:30", 30))
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 0)


def test_what_rules_took_back_under_an_exception_does_not_come_with_its_end(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "09:00", 30)))
    generate(clinic, schedule, MONDAY, MONDAY)
    closed = clinic.close(schedule, 0, 60)
    change(clinic, schedule)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 2)
    clinic.staff().execute("delete from schedule_exceptions where id = %s", [closed])
    assert slots(clinic, schedule) == []


def test_slots_of_days_gone_by_and_of_other_days_stay(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "09:00", 30)))
    past = date(2020, 6, 1)
    generate(clinic, schedule, past, past)
    generate(clinic, schedule, MONDAY, MONDAY + timedelta(days=1))
    change(clinic, schedule)
    assert generate(clinic, schedule, past, past) == (0, 0)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (0, 2)
    assert [start.date() for start, _ in slots(clinic, schedule)] == [past] * 2 + [MONDAY + timedelta(days=1)] * 2


def test_nothing_is_made_or_taken_back_before_the_moment_that_is_named(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "10:00", 30)))
    since = datetime(2031, 3, 3, 9, tzinfo=UTC)
    assert generate(clinic, schedule, MONDAY, MONDAY, since=since) == (2, 0)
    assert generate(clinic, schedule, MONDAY, MONDAY) == (2, 0)
    change(clinic, schedule)
    assert generate(clinic, schedule, MONDAY, MONDAY, since=since) == (0, 2)


def test_of_many_at_once_one_does_the_work(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "12:00", 5)))
    connections, made = [clinic.api() for _ in range(4)], []
    attempts = [lambda c=c: made.append(generate(clinic, schedule, MONDAY, MONDAY, c)) for c in connections]
    assert set(race(*attempts)) == {"ok"}
    assert sorted(made) == [(0, 0)] * 3 + [(48, 0)]


def test_another_program_that_inserts_meanwhile_wins(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "09:00", 20)))
    staff, api, made = clinic.staff(), clinic.api(), []
    with staff.transaction():
        clinic.slot(schedule, 10, staff)
        waiting = Thread(target=lambda: made.append(generate(clinic, schedule, MONDAY, MONDAY, api)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert made == [(1, 0)]
    announced = "select count(*) from outbox where event_type = 'slots.generated' and aggregate_id = %s"
    assert clinic.rows(announced, schedule) == [(1,)]


def test_a_booking_on_its_way_keeps_its_slot(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "08:20", 20)))
    generate(clinic, schedule, MONDAY, MONDAY)
    (slot,) = ids(clinic, schedule)
    change(clinic, schedule)
    portal, api, made = clinic.api(), clinic.api(), []
    with portal.transaction():
        clinic.book(slot, portal)
        waiting = Thread(target=lambda: made.append(generate(clinic, schedule, MONDAY, MONDAY, api)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert (made, clinic.get("slots", slot)) == ([(0, 0)], "busy")


def test_rules_that_cannot_be_read_make_nothing_and_stop_no_other(clinic: Clinic) -> None:
    good = rule("08:00", "09:00", 30)
    bad: list[Any] = [
        None, 7, "x", [], {}, {**good, "days": "mon"}, {**good, "days": ["noday", 1, None, {}]}, {**good, "start": "8"},
        {**good, "start": None}, {**good, "end": "25:00"}, {**good, "end": "07:00"}, {**good, "slotMinutes": 0},
        {**good, "slotMinutes": -5}, {**good, "slotMinutes": "x"}, {**good, "slotMinutes": 99999},
        {**good, "validTo": "2031-01-01"}, {**good, "slotMinutes": 90},
    ]  # fmt: skip
    schedule = clinic.schedule(availability_pattern={"rules": [*bad, {**good, "validFrom": "2031-02-31"}]})
    assert generate(clinic, schedule, MONDAY, MONDAY) == (2, 0)
    for odd in ({}, {"rules": None}, {"rules": {"a": 1}}):
        other = clinic.schedule(availability_pattern=odd)
        assert generate(clinic, other, MONDAY, MONDAY) == (0, 0)
    unknown_zone = clinic.schedule(availability_pattern=pattern(good), timezone="Mars/Olympus")
    assert generate(clinic, unknown_zone, MONDAY, MONDAY) == (2, 0)


def test_who_is_refused(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=pattern(rule("08:00", "12:00", 5)), is_active=False)
    assert outcome(lambda: generate(clinic, schedule, MONDAY, MONDAY)) == "23514 schedule_inactive"
    clinic.root().execute("update schedules set is_active = true where id = %s", [schedule])
    assert outcome(lambda: generate(clinic, schedule, MONDAY, MONDAY, at_most=47)) == "23514 slots_too_many"
    assert outcome(lambda: generate(clinic, schedule, MONDAY, MONDAY, clinic.staff())).startswith("42501")
    asked = "select from fhir_sched_generate_slots(%s, %s, %s, %s)"
    stranger = clinic.api(uuid4())
    assert stranger.execute(asked, [clinic.tenant, schedule, MONDAY, MONDAY]).fetchall() == []
    assert clinic.api().execute(asked, [clinic.tenant, uuid4(), MONDAY, MONDAY]).fetchall() == []
    assert generate(clinic, schedule, MONDAY, MONDAY, at_most=48) == (48, 0)


def test_the_tenants_to_generate_for_are_those_with_an_active_schedule(clinic: Clinic) -> None:
    asked = "select * from fhir_sched_tenants_with_schedules()"
    clinic.schedule(is_active=False)
    assert (clinic.tenant,) not in clinic.api(uuid4()).execute(asked).fetchall()
    clinic.schedule()
    assert (clinic.tenant,) in clinic.api(uuid4()).execute(asked).fetchall()
    assert outcome(lambda: clinic.staff().execute(asked)).startswith("42501")
