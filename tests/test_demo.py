"""The demo data: in their zones, loaded once, extended with time."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from db import Database
from fhir_sched import demo


@pytest.fixture
def loaded(database: Database) -> UUID:
    tenant = uuid4()
    assert demo.load(database.app_url, tenant) > 300
    return tenant


def test_slots_lie_between_nine_and_five_on_the_local_clock_of_weekdays(database: Database, loaded: UUID) -> None:
    with database.connect_app(loaded) as connection:
        rows = connection.execute(
            """
            select timezone, min(local_at::time)::text, max(local_at::time)::text,
                   max(extract(isodow from local_at))::int
            from slots join schedules on schedules.id = schedule_id
            cross join lateral (select start_at at time zone timezone as local_at) as clock
            group by 1 order by 1
            """
        ).fetchall()
    assert rows == [
        (zone, "09:00:00", "16:30:00", 5) for zone in ("America/New_York", "Asia/Kathmandu", "Europe/Berlin")
    ]


def test_there_is_something_of_every_kind(database: Database, loaded: UUID) -> None:
    with database.connect_app(loaded) as connection:
        for query in (
            "select from slots where status = 'free'",
            "select from slots where status = 'busy'",
            "select from slots where status = 'blocked'",
            "select from appointments where status = 'booked'",
            "select from schedule_exceptions",
            "select from waitlist_entries",
        ):
            assert connection.execute(query).fetchone() is not None, query


def test_loading_again_adds_nothing(database: Database, loaded: UUID) -> None:
    with database.connect_app(loaded) as connection:
        before = connection.execute("select count(*) from outbox").fetchone()
        assert demo.load(database.app_url, loaded) == 0
        assert connection.execute("select count(*) from outbox").fetchone() == before


def test_loading_again_brings_back_the_days_that_are_missing(database: Database, loaded: UUID) -> None:
    with database.connect_app(loaded) as connection:
        gone = connection.execute(
            "delete from slots where status = 'free' and start_at > now() + interval '9 days'"
        ).rowcount
    assert gone > 0
    assert demo.load(database.app_url, loaded) == gone


def test_two_tenants_have_their_own(database: Database, loaded: UUID) -> None:
    other = uuid4()
    demo.load(database.app_url, other)
    ours, theirs = demo.offer(database.app_url, loaded), demo.offer(database.app_url, other)
    assert ours is not None
    assert theirs is not None
    assert ours.slot != theirs.slot


def test_the_offer_is_the_next_free_slot_and_moves_on_when_it_is_taken(database: Database, loaded: UUID) -> None:
    first = demo.offer(database.app_url, loaded)
    assert first is not None
    with database.connect_app(loaded) as connection:
        connection.execute(
            "insert into appointments (tenant_id, patient_id, slot_id, start_at, end_at, provider_id, created_by) "
            "values (%s, %s, %s, %s, %s, %s, %s)",
            [loaded, first.patient, first.slot, first.start, first.end, first.practitioner, uuid4()],
        )
    second = demo.offer(database.app_url, loaded)
    assert second is not None
    assert second.start > first.start
