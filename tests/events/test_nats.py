"""The JetStream sink, against a real nats-server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clinic import Clinic, name
from db import Database
from events.broker import Broker
from events.conftest import eventually, once, while_running
from fhir_sched.events.sink import SinkError


def _again(clinic: Clinic) -> None:
    """As if the relay had been killed between publishing and marking."""
    clinic.sql("update outbox set published = false")


def test_events_are_published_under_tenant_and_type_in_a_stream_that_is_made(
    clinic: Clinic, database: Database, broker: Broker
) -> None:
    of = clinic.schedule()
    clinic.put({**of, "comment": "x"})
    once(database, f"{broker.url}/one.clinic")
    first, second = broker.stored("one.clinic.>")
    assert first.subject == f"one.clinic.{clinic.tenant}.schedule.created"
    assert second.subject == f"one.clinic.{clinic.tenant}.schedule.updated"
    assert [each.event["subject"] for each in (first, second)] == [name(of)] * 2
    assert [each.id for each in (first, second)] == [each.event["id"] for each in (first, second)]
    assert broker.streams()["ONE_CLINIC"] == ["one.clinic.>"]


def test_what_the_stream_has_already_it_keeps_once(clinic: Clinic, database: Database, broker: Broker) -> None:
    clinic.schedule()
    once(database, f"{broker.url}/repeated")
    _again(clinic)
    once(database, f"{broker.url}/repeated")
    assert len(broker.stored("repeated.>")) == 1


def test_a_stream_that_takes_the_subjects_is_used(clinic: Clinic, database: Database, broker: Broker) -> None:
    broker.make("OPERATORS", "hospital.>")
    clinic.schedule()
    once(database, f"{broker.url}/hospital")
    assert len(broker.stored("hospital.>")) == 1
    assert "HOSPITAL" not in broker.streams()


def test_a_type_that_is_no_subject_is_made_one(clinic: Clinic, database: Database, broker: Broker) -> None:
    clinic.sql(
        "insert into outbox (tenant_id, aggregate_id, event_type, payload)"
        " values (%s, gen_random_uuid(), 'a *.b>c..d', '{}')",
        clinic.tenant,
    )
    once(database, f"{broker.url}/odd")
    (stored,) = broker.stored("odd.>")
    assert stored.subject == f"odd.{clinic.tenant}.a_.b_c._.d"
    assert stored.event["type"] == "a *.b>c..d"


def test_an_event_larger_than_the_broker_takes_is_parked_and_the_others_flow(
    clinic: Clinic, database: Database, broker: Broker
) -> None:
    clinic.sql(
        "insert into outbox (tenant_id, aggregate_id, event_type, payload)"
        " values (%s, gen_random_uuid(), 'large', to_jsonb(repeat('x', 2000000)))",
        clinic.tenant,
    )
    clinic.schedule()
    once(database, f"{broker.url}/sizes")
    assert [stored.event["type"] for stored in broker.stored("sizes.>")] == ["schedule.created"]
    assert clinic.sql("select problem from outbox_deliveries where parked_at is not null") == [
        ("larger than the broker takes",)
    ]


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(
    clinic: Clinic, database: Database, broker: Broker, tmp_path: Path
) -> None:
    url = f"{broker.url}/later"
    broker.stop()

    async def work() -> None:
        await asyncio.to_thread(clinic.schedule)
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(_published, clinic) == 0
        await asyncio.to_thread(broker.start)
        await eventually(lambda: _published(clinic) == 1)

    while_running(database, url, work=work)
    assert len(broker.stored("later.>")) == 1


def test_a_broker_that_ends_is_waited_for(clinic: Clinic, database: Database, broker: Broker, tmp_path: Path) -> None:
    async def work() -> None:
        await asyncio.to_thread(clinic.schedule)
        await eventually(lambda: _published(clinic) == 1)
        await asyncio.to_thread(broker.stop)
        for _ in range(3):
            await asyncio.to_thread(clinic.schedule)
        await asyncio.to_thread(broker.start)
        await eventually(lambda: _published(clinic) == 4)

    while_running(database, f"{broker.url}/restarted", work=work)
    assert len(broker.stored("restarted.>")) == 4


def _published(clinic: Clinic) -> int:
    ((count,),) = clinic.sql("select count(*) from outbox where published")
    return int(count)


@pytest.mark.parametrize("url", ["nats:///prefix", "nats://host/a b", "nats://host/a.>", "nats://host/a..b"])
def test_a_url_without_host_or_with_an_impossible_prefix_is_refused(database: Database, url: str) -> None:
    with pytest.raises(SinkError):
        once(database, url)
