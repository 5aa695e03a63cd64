"""The relay itself: what it takes, in which order, with others beside it; how it is woken; what it removes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from clinic import Clinic, name, row_id
from db import Database
from events.conftest import eventually, once, relay, run, while_running
from events.receiver import Receiver
from fhir_sched.events import waking
from fhir_sched.events.event import Event
from fhir_sched.events.relay import Relay
from fhir_sched.events.sending import Sending
from fhir_sched.events.session import Connection, connect
from fhir_sched.events.sink import SinkError
from server import Server


def _insert(clinic: Clinic, connection: psycopg.Connection[Any]) -> UUID:
    schedule = uuid4()
    connection.execute(
        "insert into schedules (id, tenant_id, actor_id, actor_type) values (%s, %s, %s, 'provider')",
        [schedule, clinic.tenant, uuid4()],
    )
    return schedule


def _subjects(lines: Path) -> list[str]:
    return [json.loads(line)["subject"] for line in lines.read_text().splitlines()] if lines.exists() else []


def _versions(path: Path) -> dict[str, list[int]]:
    """Versions of each resource in the order of their lines."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in path.read_text().splitlines():
        event = json.loads(line)
        found[event["subject"]].append(int(event["data"]["meta"]["versionId"]))
    return found


def test_a_commit_that_comes_late_is_not_skipped(clinic: Clinic, database: Database, lines: Path) -> None:
    with psycopg.connect(database.admin_url) as late:
        first = _insert(clinic, late)
        second = clinic.schedule()
        once(database, f"file://{lines}")
        assert _subjects(lines) == [name(second)]
        late.commit()
    once(database, f"file://{lines}")
    assert _subjects(lines) == [name(second), f"Schedule/sch-{first}"]


def test_what_is_rolled_back_is_not_told(clinic: Clinic, database: Database, lines: Path) -> None:
    with psycopg.connect(database.admin_url) as given_up:
        _insert(clinic, given_up)
        given_up.rollback()
    once(database, f"file://{lines}")
    assert _subjects(lines) == []


def test_every_tenant_s_events_go_out_by_the_server_s_role_alone(
    clinic: Clinic, server: Server, database: Database, lines: Path
) -> None:
    others = [Clinic(server, database) for _ in range(3)]
    for each in others:
        each.schedule()
        each.close()
    once(database, f"file://{lines}", public_url="http://x")
    sources = {json.loads(line)["source"] for line in lines.read_text().splitlines()}
    assert sources == {f"http://x/fhir/{each.tenant}" for each in others}


def test_several_relays_share_the_work_and_keep_each_row_s_order(
    clinic: Clinic, database: Database, tmp_path: Path
) -> None:
    """Two relays to sinks of the same receiver; every version of every row arrives, in order."""
    # more rows than the batches of one relay hold
    rows, versions = 200, 2
    insert = """
        insert into schedules (tenant_id, actor_id, actor_type)
        select %s, gen_random_uuid(), 'provider' from generate_series(1, %s)
        returning id
        """
    made = [f"Schedule/sch-{row}" for (row,) in clinic.sql(insert, clinic.tenant, rows)]
    clinic.sql("delete from outbox")
    for _ in range(versions):
        clinic.sql("update schedules set timezone = timezone where tenant_id = %s", clinic.tenant)
    order: list[tuple[str, int]] = []
    by_relay: dict[str, int] = defaultdict(int)
    lock = threading.Lock()

    with Receiver() as receiver:

        def answer(event: dict[str, Any]) -> tuple[int, dict[str, str]]:
            with lock:
                order.append((event["subject"], int(event["data"]["meta"]["versionId"])))
                by_relay[event["source"].partition("/fhir/")[0]] += 1
            return 204, {}

        receiver.answer = answer

        async def both() -> None:
            relays = [relay(database, receiver.url, public_url=f"http://{one}") for one in ("one", "two")]
            async with asyncio.timeout(60):
                await asyncio.gather(*(each.once() for each in relays))

        run(both())
    told = defaultdict(list)
    # at least once: a repeat is no second event
    for subject, version in dict.fromkeys(order):
        told[subject].append(version)
    assert told == {each: list(range(2, 2 + versions)) for each in made}
    assert set(by_relay) == {"http://one", "http://two"}


def test_of_a_row_that_another_relay_is_sending_nothing_is_taken(
    clinic: Clinic, database: Database, lines: Path
) -> None:
    of = clinic.schedule()
    clinic.put({**of, "comment": "second"})
    other = clinic.schedule()
    with database.connect_app(clinic.tenant) as sending:
        sending.autocommit = False
        sending.execute("select from outbox where event_type = 'schedule.created' and aggregate_id = %s for update", [
            row_id(of)
        ])  # fmt: skip

        async def work() -> None:
            await eventually(lambda: _subjects(lines) == [name(other)])
            await asyncio.sleep(0.1)
            assert _subjects(lines) == [name(other)]
            await asyncio.to_thread(sending.rollback)
            await eventually(lambda: len(_subjects(lines)) == 3)

        while_running(database, f"file://{lines}", work=work)
    assert _versions(lines)[name(of)] == [1, 2]


@pytest.mark.parametrize("writer", ["the API", "another program"])
def test_a_relay_that_sleeps_is_woken_by_the_commit(
    clinic: Clinic, database: Database, lines: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    # without the safety net, which would find it too
    monkeypatch.setattr(waking, "_NET_S", 3600.0)
    monkeypatch.setattr(waking, "_UNSURE_S", 3600.0)

    def sleeps() -> bool:
        return bool(
            clinic.sql("select 1 from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted")
        )

    async def work() -> None:
        for number in range(1, 3):
            await eventually(sleeps)
            if writer == "the API":
                await asyncio.to_thread(clinic.schedule)
            else:
                with database.connect_admin() as connection:
                    await asyncio.to_thread(_insert, clinic, connection)
            await eventually(partial(lambda wanted: len(_subjects(lines)) == wanted, number))

    while_running(database, f"file://{lines}", work=work)


def test_a_relay_does_not_fall_asleep_while_a_commit_is_under_way(
    clinic: Clinic, database: Database, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "_NET_S", 3600.0)
    with psycopg.connect(database.admin_url) as slow:
        _insert(clinic, slow)

        async def work() -> None:
            # long enough that it would sleep if it could
            await asyncio.sleep(1.2)
            await asyncio.to_thread(slow.commit)
            await eventually(lambda: len(_subjects(lines)) == 1)

        while_running(database, f"file://{lines}", work=work)


def test_an_event_that_nobody_takes_stays_and_goes_to_the_first_sink_that_comes(
    clinic: Clinic, database: Database, lines: Path
) -> None:
    clinic.schedule()
    assert clinic.sql("select published, queued from outbox") == [(False, False)]
    once(database, f"file://{lines}")
    assert clinic.sql("select published, queued from outbox") == [(True, False)]


def test_the_discard_sink_takes_everything(clinic: Clinic, database: Database) -> None:
    clinic.schedule()
    once(database, "discard:")
    assert clinic.sql("select published from outbox") == [(True,)]


def test_published_events_are_removed_after_their_days_and_others_never(
    clinic: Clinic, database: Database, lines: Path
) -> None:
    insert = """
        insert into outbox (tenant_id, aggregate_id, event_type, payload, published, created_at)
        select %s, gen_random_uuid(), %s, '{}', %s, now() - make_interval(days => %s) from generate_series(1, %s)
        """
    clinic.sql(insert, clinic.tenant, "old", True, 8, 1_500)
    clinic.sql(insert, clinic.tenant, "young", True, 6, 3)
    clinic.sql(insert, clinic.tenant, "parked", False, 900, 1)
    clinic.sql(
        """
        insert into outbox_deliveries (tenant_id, event_id, sink, aggregate_id, created_at, due_at, parked_at)
        select tenant_id, id, 'x', aggregate_id, created_at, created_at, now() from outbox where event_type = 'parked'
        """
    )
    clinic.sql("update outbox set queued = true where event_type = 'parked'")

    def left() -> dict[str, int]:
        return dict(clinic.sql("select event_type, count(*)::int from outbox group by 1"))

    async def work() -> None:
        await eventually(lambda: left() == {"young": 3, "parked": 1})

    while_running(database, f"file://{lines}", work=work, keep_events_days=7)
    with database.connect_app(clinic.tenant) as app:
        app.execute("delete from outbox")
    # the server's role cannot remove what was not sent, whatever it is told
    assert left() == {"parked": 1}


def test_a_full_disk_parks_nothing_and_holds_no_other_sink_up(clinic: Clinic, database: Database, lines: Path) -> None:
    async def work() -> None:
        for _ in range(3):
            await asyncio.to_thread(clinic.schedule)
        await eventually(lambda: lines.exists() and len(lines.read_text().splitlines()) == 3)
        await eventually(lambda: clinic.sql("select count(*) from outbox where queued") == [(3,)])

    while_running(database, "file:///dev/full", f"file://{lines}", work=work, park_after=1)
    assert clinic.sql("select count(*) from outbox where published") == [(0,)]
    assert clinic.sql("select count(*) from outbox_deliveries where parked_at is not null") == [(0,)]


def test_a_file_with_half_a_line_gets_whole_ones(clinic: Clinic, database: Database, lines: Path) -> None:
    lines.write_text('{"half')
    clinic.schedule()
    once(database, f"file://{lines}")
    assert json.loads(lines.read_text().splitlines()[1])["type"] == "schedule.created"


@pytest.mark.parametrize("sink", ["file:///nowhere/at/all", "file://host/x", "ftp://x", "nothing", "mailto:x"])
def test_a_sink_that_cannot_be_used_is_said_at_start(database: Database, sink: str) -> None:
    with pytest.raises(SinkError):
        once(database, sink)


# the seam for Subscriptions


class _Heard:
    """A fan-out that keeps what it is told in a table, and fails where it is told to."""

    def __init__(self, tenants: Mapping[str, datetime]) -> None:
        self.of, self.committed, self.failures = tenants, 0, 1

    async def anybody(self, connection: Connection) -> bool:
        return True

    async def tenants(self, connection: Connection) -> Mapping[str, datetime]:
        return self.of

    async def fan_out(self, connection: Connection, tenant: str, events: Sequence[Event]) -> None:
        for event in events:
            await connection.execute("insert into heard values (%s, %s)", [event.id, event.payload.decode()])
        if self.failures:
            self.failures -= 1
            raise ValueError("once")

    def told(self, tenant: str) -> None:
        self.committed += 1


def test_a_fan_out_is_told_of_each_event_once_and_in_the_transaction_that_marks_it(
    clinic: Clinic, database: Database
) -> None:
    before = clinic.schedule()
    clinic.sql("create table if not exists heard (id uuid primary key, payload jsonb)")
    clinic.sql("grant select, insert on heard to fhir_sched_app")
    since = datetime.now(UTC)
    heard = _Heard({str(clinic.tenant): since})

    def told() -> list[str]:
        return [str(row) for (row,) in clinic.sql("select payload ->> 'id' from heard")]

    async def work() -> None:
        made = Relay(database.app_url, [], Sending(), fanout=heard)
        running = asyncio.create_task(made.run())
        try:
            async with asyncio.timeout(60):
                after = await asyncio.to_thread(clinic.schedule)
                await eventually(lambda: told() == [str(row_id(after))])
                await eventually(lambda: heard.committed == 1)
        finally:
            made.stop()
            await running

    run(work())
    assert heard.failures == 0
    assert clinic.sql("select fanned, published from outbox order by created_at") == [(False, False), (True, False)]
    assert str(row_id(before)) not in told()


def test_a_lost_database_is_waited_for(clinic: Clinic, database: Database, lines: Path) -> None:
    async def work() -> None:
        await asyncio.to_thread(clinic.schedule)
        await eventually(lambda: len(_subjects(lines)) == 1)
        end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fhir-sched relay'"
        assert await asyncio.to_thread(clinic.sql, end)
        await asyncio.to_thread(clinic.schedule)
        await eventually(lambda: len(_subjects(lines)) == 2)

    while_running(database, f"file://{lines}", work=work)


def test_the_relay_s_connections_are_bound_to_a_tenant_like_any_other(database: Database, clinic: Clinic) -> None:
    clinic.schedule()

    async def seen() -> Any:
        async with await connect(database.app_url) as connection:
            return await (await connection.execute("select count(*) from outbox")).fetchone()

    assert run(seen()) == (0,)
