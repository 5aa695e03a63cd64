"""What every request relies on: its own tenant, transactions whole or not at all, an answer in bounded time."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fhir_sched.db.errors import DatabaseError, DatabaseGone, translate
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.limits import Limits
from fhir_sched.outcome import FhirError, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fhir_sched.db.rows import Rows

TENANT_A = "aaaaaaaa-0000-4000-8000-000000000001"
TENANT_B = "bbbbbbbb-0000-4000-8000-000000000002"
NOTES = Fragment("select id, body from note order by id")
SLEEP = Fragment("select pg_sleep(0.3)")


def insert(number: int, tenant: str, body: str = "x") -> Fragment:
    return Fragment(
        "insert into note (id, tenant_id, body) values ($1, $2, $3)",
        (str(number).encode(), tenant.encode(), body.encode()),
    )


def change(number: int, body: str) -> Fragment:
    return Fragment("update note set body = $1 where id = $2", (body.encode(), str(number).encode()))


@asynccontextmanager
async def opened(url: str, **limits: Any) -> AsyncIterator[Lanes]:
    lanes = Lanes(url, Limits(**{"shared": 2, "exclusive": 2, "drain_s": 2.0} | limits))
    await lanes.open()
    try:
        yield lanes
    finally:
        await lanes.close()


async def refused(answer: Awaitable[object]) -> FhirError:
    with pytest.raises(FhirError) as caught:
        await answer
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def ids(rows: Rows) -> list[bytes | None]:
    return [row[0] for row in rows.all()]


def test_a_read_and_a_write_are_one_round_trip_each(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lanes:
            for number in range(3):
                await lanes.write(TENANT_A, insert(number, TENANT_A))
            assert lanes.round_trips == 3
            (rows, again) = await lanes.read(TENANT_A, NOTES, NOTES)
            assert lanes.round_trips == 4
            assert ids(rows) == ids(again) == [b"0", b"1", b"2"]

    asyncio.run(scene())


def test_a_tenant_never_sees_the_rows_of_another_however_requests_are_mixed(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lanes:
            await lanes.write(TENANT_A, insert(1, TENANT_A))
            await lanes.write(TENANT_B, insert(2, TENANT_B))
            tenants = [TENANT_A, TENANT_B] * 50
            answers = await asyncio.gather(*(lanes.read(tenant, NOTES) for tenant in tenants))
            assert [ids(rows) for (rows,) in answers] == [[b"1"], [b"2"]] * 50

    asyncio.run(scene())


@pytest.mark.parametrize(("steady", "mode"), [(True, b"force_generic_plan"), (False, b"auto")])
def test_a_statement_that_needs_one_plan_goes_where_it_is_made_once(url: str, steady: bool, mode: bytes) -> None:
    asked = Fragment("select current_setting('plan_cache_mode')", steady=steady)

    async def scene() -> None:
        async with opened(url) as lanes:
            answers = await asyncio.gather(*(lanes.read(TENANT_A, asked) for _ in range(20)))
            assert {rows.first() for (rows,) in answers} == {(mode,)}

    asyncio.run(scene())


def test_steady_statements_go_over_the_other_lanes_while_theirs_are_lost(url: str) -> None:
    asked = Fragment("select current_setting('plan_cache_mode')", steady=True)

    async def scene() -> None:
        async with opened(url) as lanes:
            for lane in lanes._steady:
                lane.give_up("a test")
            (rows,) = await lanes.read(TENANT_A, asked)
            assert rows.first() == (b"auto",)

    asyncio.run(scene())


def test_the_tenant_does_not_outlive_its_request(url: str) -> None:
    settings = Fragment("select current_setting('app.tenant_id', true), current_setting('app.writer', true)")

    async def scene() -> None:
        async with opened(url) as lanes:
            await lanes.read(TENANT_A, NOTES)
            await lanes.write(TENANT_A, insert(1, TENANT_A))
            async with lanes.transaction(TENANT_A) as transaction:
                (inside,) = await transaction.run(settings)
                assert inside.all() == [(TENANT_A.encode(), b"fhir")]
            for lane in lanes._all:
                (rows, notes) = await lane.submit((settings, NOTES), 2)
                assert rows.all() in ([(b"", b"")], [(None, None)])
                assert notes.all() == []

    asyncio.run(scene())


def test_nothing_can_be_written_for_another_tenant(url: str, admin: psycopg.Connection) -> None:
    async def scene() -> None:
        async with opened(url) as lanes:
            error = await refused(lanes.write(TENANT_A, insert(1, TENANT_B)))
            assert error.status == 500
            assert "note" not in str(error)

    asyncio.run(scene())
    assert admin.execute("select count(*) from note").fetchone() == (0,)


def test_a_read_cannot_write(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lanes:
            assert (await refused(lanes.read(TENANT_A, insert(1, TENANT_A)))).status == 503
            assert ids((await lanes.read(TENANT_A, NOTES))[0]) == []

    asyncio.run(scene())


def test_a_transaction_is_committed_whole_or_not_at_all(url: str) -> None:
    async def failing_in_python(lanes: Lanes) -> None:
        async with lanes.transaction(TENANT_A) as transaction:
            await transaction.run(insert(4, TENANT_A))
            raise KeyError

    async def failing_in_sql(lanes: Lanes) -> None:
        async with lanes.transaction(TENANT_A) as transaction:
            await transaction.run(insert(5, TENANT_A))
            await transaction.run(insert(5, TENANT_A))

    async def scene() -> None:
        async with opened(url) as lanes:
            async with lanes.transaction(TENANT_A) as transaction:
                await transaction.run(insert(1, TENANT_A))
                await transaction.run(insert(2, TENANT_A), insert(3, TENANT_A))
            with pytest.raises(KeyError):
                await failing_in_python(lanes)
            assert (await refused(failing_in_sql(lanes))).status == 409
            async with lanes.transaction(TENANT_A):
                pass
            assert ids((await lanes.read(TENANT_A, NOTES))[0]) == [b"1", b"2", b"3"]

    asyncio.run(scene())


def test_an_error_that_was_swallowed_is_not_taken_for_a_commit(url: str) -> None:
    async def swallowing(lanes: Lanes) -> None:
        async with lanes.transaction(TENANT_A) as transaction:
            await transaction.run(insert(1, TENANT_A))
            await refused(transaction.run(insert(1, TENANT_A)))

    async def scene() -> None:
        async with opened(url) as lanes:
            with pytest.raises(RuntimeError, match="cannot be committed"):
                await swallowing(lanes)
            assert ids((await lanes.read(TENANT_A, NOTES))[0]) == []

    asyncio.run(scene())


def test_a_transaction_whose_connection_was_lost_does_not_go_on_without_its_tenant(
    url: str, admin: psycopg.Connection
) -> None:
    async def interrupted(lanes: Lanes) -> None:
        async with lanes.transaction(TENANT_A) as transaction:
            await transaction.run(insert(1, TENANT_A))
            (lane,) = lanes._exclusive
            assert lane._pgconn is not None
            admin.execute("select pg_terminate_backend(%s)", (lane._pgconn.backend_pid,))
            await until(lambda: lane.generation == 2 and lane.connected)
            await transaction.run(insert(2, TENANT_A))

    async def scene() -> None:
        async with opened(url, exclusive=1) as lanes:
            error = await refused(interrupted(lanes))
            assert error.status == 503
            assert dict(error.headers)["Retry-After"]
            # the lane is lent out again, to one borrower at a time
            await asyncio.gather(*(lanes.write(TENANT_A, insert(number, TENANT_A)) for number in (3, 4)))
            assert ids((await lanes.read(TENANT_A, NOTES))[0]) == [b"3", b"4"]
            assert (len(lanes._free), len(lanes._borrowed)) == (1, 0)

    asyncio.run(scene())


def test_a_cancelled_transaction_is_rolled_back_and_its_lane_lent_again(url: str) -> None:
    async def scene() -> None:
        async with opened(url, exclusive=1) as lanes:

            async def stuck() -> None:
                async with lanes.transaction(TENANT_A) as transaction:
                    await transaction.run(insert(1, TENANT_A), SLEEP)

            task = asyncio.create_task(stuck())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await lanes.write(TENANT_A, insert(2, TENANT_A))
            assert ids((await lanes.read(TENANT_A, NOTES))[0]) == [b"2"]

    asyncio.run(scene())


def test_a_cancelled_write_keeps_its_lane_until_it_has_ended(url: str) -> None:
    async def scene() -> None:
        async with opened(url, exclusive=1) as lanes:
            task = asyncio.create_task(lanes.write(TENANT_A, SLEEP))
            await asyncio.sleep(0.05)
            task.cancel()
            started = time.monotonic()
            await lanes.write(TENANT_A, NOTES)
            assert time.monotonic() - started > 0.2
            assert (len(lanes._free), len(lanes._borrowed)) == (1, 0)

    asyncio.run(scene())


def test_writes_beyond_the_lanes_wait_their_turn_in_order(url: str) -> None:
    async def scene() -> None:
        async with opened(url, exclusive=1) as lanes:
            await asyncio.gather(*(lanes.write(TENANT_A, insert(number, TENANT_A)) for number in range(40)))
            (rows,) = await lanes.read(TENANT_A, Fragment("select id from note order by xmin::text::bigint"))
            assert ids(rows) == [b"%d" % number for number in range(40)]

    asyncio.run(scene())


def test_a_queue_that_is_full_and_a_turn_that_does_not_come_are_503(url: str) -> None:
    async def scene() -> None:
        async with opened(url, exclusive=1, queue=2, queue_timeout_s=0.1) as lanes:
            running = asyncio.create_task(lanes.write(TENANT_A, SLEEP))
            await asyncio.sleep(0.02)
            started = time.monotonic()
            errors = await asyncio.gather(*(refused(lanes.write(TENANT_A, NOTES)) for _ in range(5)))
            assert 0.08 < time.monotonic() - started < 0.25
            assert [error.issues[0].kind for error in errors] == [Kind.THROTTLED] * 5
            assert all(dict(error.headers)["Retry-After"] == "1" for error in errors)
            await running
            await lanes.write(TENANT_A, NOTES)
            assert (len(lanes._queue), len(lanes._free), len(lanes._borrowed)) == (0, 1, 0)

    asyncio.run(scene())


def test_callers_cancelled_in_the_queue_lose_no_lane(url: str) -> None:
    async def scene() -> None:
        async with opened(url, exclusive=2) as lanes:
            for pause in (0, 0.001, 0.002, 0.004):
                tasks = [asyncio.create_task(lanes.write(TENANT_A, NOTES)) for _ in range(30)]
                await asyncio.sleep(pause)
                for task in tasks[::3]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await until(lambda: not lanes._borrowed)
                assert (len(lanes._free), len(lanes._queue)) == (2, 0)

    asyncio.run(scene())


def test_reads_do_not_wait_behind_a_write_that_waits_for_a_lock(url: str, admin: psycopg.Connection) -> None:
    async def scene() -> None:
        async with opened(url, lock_timeout_s=0.5) as lanes:
            await lanes.write(TENANT_A, insert(1, TENANT_A))
            with admin.transaction():
                admin.execute("update note set body = 'mine'")
                blocked = asyncio.create_task(refused(lanes.write(TENANT_A, change(1, "theirs"))))
                await asyncio.sleep(0.05)
                assert ids((await lanes.read(TENANT_A, NOTES))[0]) == [b"1"]
                assert not blocked.done()
                error = await blocked
            assert error.issues[0].kind is Kind.LOCK
            assert dict(error.headers)["Retry-After"]

    asyncio.run(scene())


def test_a_statement_that_runs_too_long_is_503_timeout(url: str) -> None:
    async def scene() -> None:
        async with opened(url, statement_timeout_s=0.1) as lanes:
            assert (await refused(lanes.read(TENANT_A, SLEEP, slow=True))).issues[0].kind is Kind.TIMEOUT

    asyncio.run(scene())


def test_transactions_that_lock_in_crossing_order_both_succeed(url: str, admin: psycopg.Connection) -> None:
    def crossing(lanes: Lanes, first: int, second: int, body: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            async with lanes.transaction(TENANT_A) as transaction:
                await transaction.run(change(first, body))
                await asyncio.sleep(0.05)
                await transaction.run(change(second, body))

        return work

    async def scene() -> None:
        async with opened(url, lock_timeout_s=5) as lanes:
            await lanes.write(TENANT_A, insert(1, TENANT_A), insert(2, TENANT_A))
            await asyncio.gather(lanes.retry(crossing(lanes, 1, 2, "a")), lanes.retry(crossing(lanes, 2, 1, "b")))

    asyncio.run(scene())
    bodies = admin.execute("select distinct body from note").fetchall()
    assert len(bodies) == 1


def test_a_deadlock_that_does_not_end_is_503_with_retry_after(url: str) -> None:
    deadlock = Fragment("do $$ begin raise exception 'again' using errcode = '40P01'; end $$")

    async def scene() -> None:
        async with opened(url) as lanes:
            error = await refused(lanes.write(TENANT_A, deadlock))
            assert (error.status, dict(error.headers)["Retry-After"]) == (503, "1")
            assert lanes.round_trips == 4

    asyncio.run(scene())


def test_a_write_that_postgresqls_own_race_refused_is_run_again_as_often_as_a_deadlock_and_then_503(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lanes:
            failures = 0

            async def work(most: int) -> str:
                nonlocal failures
                if failures < most:
                    failures += 1
                    cause = DatabaseError("XX000", routine="MultiXactIdCreateFromMembers")
                    raise translate(cause) from cause
                return "done"

            assert await lanes.retry(lambda: work(3)) == "done"
            failures = 0
            error = await refused(lanes.retry(lambda: work(9)))
            assert (error.status, dict(error.headers)["Retry-After"], failures) == (503, "1", 4)

    asyncio.run(scene())


def test_a_transaction_whose_statement_a_migration_has_changed_is_run_again(
    url: str, admin: psycopg.Connection
) -> None:
    everything = Fragment("select * from changing")
    runs = 0

    async def scene() -> None:
        async with opened(url, exclusive=1) as lanes:

            async def work() -> bytes:
                nonlocal runs
                runs += 1
                async with lanes.transaction(TENANT_A) as transaction:
                    (rows,) = await transaction.run(everything)
                    return rows.command

            for _ in range(2):  # a statement is prepared at its second use
                assert await lanes.retry(work) == b"SELECT 1"
            admin.execute("alter table changing add column more integer")
            assert await lanes.retry(work) == b"SELECT 1"

    admin.execute("create table changing as select 1 as one; grant select on changing to public")
    asyncio.run(scene())
    assert runs == 4


def test_a_load_of_reads_and_writes_survives_killed_backends(url: str, admin: psycopg.Connection) -> None:
    written: set[int] = set()

    async def scene() -> None:
        async with opened(url, exclusive=3) as lanes:
            stop = False
            unknown: set[int] = set()
            statuses: set[int] = set()

            async def writer(offset: int) -> None:
                number = offset
                while not stop:
                    number += 10
                    try:
                        await lanes.write(TENANT_A, insert(number, TENANT_A))
                        written.add(number)
                    except FhirError as error:
                        statuses.add(error.status)
                        unknown.add(number)
                        await asyncio.sleep(0.005)

            async def reader() -> None:
                while not stop:
                    try:
                        (rows,) = await lanes.read(TENANT_B, NOTES)
                        assert rows.all() == []
                    except FhirError as error:
                        statuses.add(error.status)
                        await asyncio.sleep(0.005)

            clients = [asyncio.create_task(work) for work in (*map(writer, range(6)), *(reader() for _ in range(6)))]
            for _ in range(6):
                await asyncio.sleep(0.15)
                admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'lane_test'")
            # nobody may have noticed the last kill yet
            await asyncio.sleep(0.1)
            seen = len(written)
            await until(lambda: len(written) > seen + 50)
            stop = True
            await asyncio.gather(*clients)
            assert statuses == {503}
            await until(lambda: all(lane.connected for lane in lanes._readers) and len(lanes._free) == 3)
            (rows,) = await lanes.read(TENANT_A, NOTES)
            stored = {int(number or b"") for number in ids(rows)}
            assert written <= stored <= written | unknown

    asyncio.run(scene())


def test_lanes_come_back_after_the_server_was_restarted(tmp_path_factory: pytest.TempPathFactory) -> None:
    from fhir_sched.db import embedded

    data_dir = tmp_path_factory.mktemp("restart")
    one = Fragment("select 1")

    async def scene() -> None:
        cluster = embedded.start(data_dir, server_settings={"fsync": "off"})
        try:
            async with opened(cluster.admin_url) as lanes:
                await lanes.read(TENANT_A, one)
                cluster.stop()
                assert (await refused(lanes.read(TENANT_A, one))).status == 503
                assert (await refused(lanes.write(TENANT_A, one))).status == 503
                assert not lanes.ready
                cluster = embedded.start(data_dir, server_settings={"fsync": "off"})
                await until(lambda: lanes.ready)
                assert (await lanes.read(TENANT_A, one))[0].all() == [(b"1",)]
                assert (await lanes.write(TENANT_A, one))[0].all() == [(b"1",)]
        finally:
            cluster.stop()

    asyncio.run(scene())


def test_lanes_that_cannot_connect_say_why(url: str) -> None:
    async def scene() -> None:
        with pytest.raises(DatabaseGone, match="nobody_of_this_name"):
            await Lanes(url.replace("lane_test", "nobody_of_this_name")).open()

    asyncio.run(scene())


def test_closing_answers_what_is_in_flight_and_refuses_what_comes(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lanes:
            running = [asyncio.create_task(lanes.write(TENANT_A, SLEEP, insert(n, TENANT_A))) for n in range(4)]
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(lanes.close())
            await asyncio.sleep(0.01)
            assert (await refused(lanes.write(TENANT_A, NOTES))).status == 503
            assert (await refused(lanes.read(TENANT_A, NOTES))).status == 503
            await asyncio.gather(*running)
            await closing
            assert not lanes.ready

    asyncio.run(scene())


def test_a_nul_is_refused_before_it_reaches_the_database() -> None:
    with pytest.raises(FhirError) as caught:
        Fragment("select $1", (b"a\0b",))
    assert caught.value.status == 400
