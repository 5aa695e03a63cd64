"""One connection in pipeline mode: order, isolation of errors, prepared statements, loss and return."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from fhir_sched.db.errors import DatabaseError, DatabaseGone
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lane import Lane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fhir_sched.db.rows import Rows

ECHO = "select $1::text"
DIVIDE = "select 1 / $1::int"


@asynccontextmanager
async def opened(url: str, **options: int) -> AsyncIterator[Lane]:
    lane = Lane(url, {"statement_timeout": "5000"}, **options)  # type: ignore[arg-type]
    await lane.open()
    try:
        yield lane
    finally:
        await lane.close()


async def ask(lane: Lane, text: str, *args: bytes | None) -> Rows:
    (rows,) = await lane.submit((Fragment(text, args),), 1)
    return rows


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def backend(lane: Lane) -> int:
    assert lane._pgconn is not None
    return lane._pgconn.backend_pid


def test_many_requests_in_flight_each_get_their_own_answer(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            answers = await asyncio.gather(*(ask(lane, ECHO, b"%d" % number) for number in range(200)))
            assert [rows.get(0, 0) for rows in answers] == [b"%d" % number for number in range(200)]
            assert lane.round_trips == 200
            assert lane.in_flight == 0

    asyncio.run(scene())


def test_rows_come_as_the_bytes_of_text_format(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            rows = await ask(lane, "select n, null, true, $1::text from generate_series(1, 3) n", "grüß".encode())
            word = "grüß".encode()
            assert rows.all() == [(b"%d" % n, None, b"t", word) for n in (1, 2, 3)]
            assert rows.first() == (b"1", None, b"t", word)
            assert (rows.ntuples, rows.command_tuples, rows.get(2, 0)) == (3, 3, b"3")
            nothing = await ask(lane, "select 1 where false")
            assert (nothing.all(), nothing.first(), nothing.ntuples) == ([], None, 0)

    asyncio.run(scene())


def test_an_error_fails_its_own_request_alone(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            answers = await asyncio.gather(
                *(ask(lane, DIVIDE, b"%d" % (number % 5)) for number in range(50)), return_exceptions=True
            )
            for number, answer in enumerate(answers):
                if number % 5:
                    assert not isinstance(answer, BaseException)
                else:
                    assert isinstance(answer, DatabaseError)
                    assert (answer.sqlstate, answer.statement) == ("22012", DIVIDE)

    asyncio.run(scene())


def test_a_request_is_one_transaction_so_a_later_error_undoes_the_earlier_statement(
    url: str, admin: psycopg.Connection
) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            for _ in range(3):
                with pytest.raises(DatabaseError, match="22012"):
                    await lane.submit(
                        (
                            Fragment("select set_config('app.tenant_id', $1, true)", (b"0" * 32,)),
                            Fragment("insert into note (id, tenant_id) values ($1, $2)", (b"1", b"0" * 32)),
                            Fragment(DIVIDE, (b"0",)),
                        ),
                        1,
                    )

    asyncio.run(scene())
    assert admin.execute("select count(*) from note").fetchone() == (0,)


def test_an_argument_of_a_wrong_type_fails_its_own_request_alone(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            before = ask(lane, ECHO, b"before")
            mistake = Fragment(ECHO, (b"x",))
            object.__setattr__(mistake, "args", (7,))
            wrong = lane.submit((mistake,), 1)
            answers = await asyncio.gather(before, wrong, ask(lane, ECHO, b"after"), return_exceptions=True)
            assert isinstance(answers[1], TypeError)
            assert not isinstance(answers[0], BaseException)
            assert not isinstance(answers[2], BaseException)
            assert (answers[0].get(0, 0), answers[2].get(0, 0)) == (b"before", b"after")

    asyncio.run(scene())


def test_the_answer_of_a_cancelled_caller_is_dropped(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            tasks = [asyncio.create_task(ask(lane, ECHO, b"%d" % number)) for number in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in enumerate(answers):
                if number % 2:
                    assert not isinstance(answer, BaseException)
                    assert answer.get(0, 0) == b"%d" % number
                else:
                    assert isinstance(answer, asyncio.CancelledError)
            assert (await ask(lane, ECHO, b"next")).get(0, 0) == b"next"

    asyncio.run(scene())


def test_texts_used_again_are_prepared_and_the_oldest_are_closed(url: str) -> None:
    async def scene() -> None:
        async with opened(url, max_prepared=4) as lane:
            for _ in range(3):
                for number in range(10):
                    for _ in range(2):
                        assert (await ask(lane, f"select {number}, $1::text", b"x")).get(0, 0) == b"%d" % number
            names = (await ask(lane, "select count(*) from pg_prepared_statements")).get(0, 0)
            assert names is not None
            assert int(names) <= 5
            assert len(lane._prepared) == 4

    asyncio.run(scene())


def test_a_text_seen_once_gets_no_name(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            for number in range(10):
                await ask(lane, f"select {number}")
            assert (await ask(lane, "select count(*) from pg_prepared_statements")).get(0, 0) == b"0"

    asyncio.run(scene())


def test_a_table_changed_under_a_prepared_statement_is_read_anew(url: str, admin: psycopg.Connection) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            for _ in range(3):
                await ask(lane, "select * from note")
            admin.execute("alter table note add column more text")
            answers = await asyncio.gather(*(ask(lane, "select * from note") for _ in range(5)))
            assert all(len(rows.all()) == 0 for rows in answers)

    asyncio.run(scene())


def test_a_prepared_statement_that_the_server_lost_is_prepared_again(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            for text in (ECHO, DIVIDE) * 3:
                await ask(lane, text, b"1")
            await ask(lane, "deallocate all")
            assert (await ask(lane, ECHO, b"1")).get(0, 0) == b"1"
            (echo, quotient) = await lane.submit((Fragment(ECHO, (b"1",)), Fragment(DIVIDE, (b"1",))), 2)
            assert (echo.get(0, 0), quotient.get(0, 0)) == (b"1", b"1")

    asyncio.run(scene())


def test_a_statement_that_cannot_be_prepared_says_so_every_time(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            for _ in range(4):
                with pytest.raises(DatabaseError, match="42P01"):
                    await ask(lane, "select * from nowhere")
            assert (await ask(lane, ECHO, b"fine")).get(0, 0) == b"fine"

    asyncio.run(scene())


def test_a_killed_backend_fails_what_is_in_flight_and_the_lane_comes_back(url: str, admin: psycopg.Connection) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            await ask(lane, ECHO, b"warm")
            await ask(lane, ECHO, b"warm")
            waiting = [asyncio.create_task(ask(lane, "select pg_sleep(3)")) for _ in range(3)]
            await asyncio.sleep(0.05)
            admin.execute("select pg_terminate_backend(%s)", (backend(lane),))
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(answer, DatabaseError) for answer in answers)
            assert all(isinstance(answer, DatabaseGone) for answer in answers[1:])
            await until(lambda: lane.connected)
            assert (await ask(lane, ECHO, b"again")).get(0, 0) == b"again"
            assert lane.generation == 2

    asyncio.run(scene())


def test_an_idle_lane_whose_backend_was_killed_notices_by_itself(url: str, admin: psycopg.Connection) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            admin.execute("select pg_terminate_backend(%s)", (backend(lane),))
            await until(lambda: lane.generation == 2)
            assert (await ask(lane, ECHO, b"again")).get(0, 0) == b"again"

    asyncio.run(scene())


def test_a_lane_that_is_not_connected_refuses_at_once(url: str) -> None:
    async def scene() -> None:
        lane = Lane(url.replace("lane_test", "nobody_of_this_name"), {})
        with pytest.raises(DatabaseGone, match="cannot connect"):
            await lane.open()
        with pytest.raises(DatabaseGone):
            await ask(lane, ECHO, b"x")
        await lane.close()

    asyncio.run(scene())


def test_more_in_flight_than_allowed_is_refused_at_once(url: str) -> None:
    async def scene() -> None:
        async with opened(url, max_in_flight=5) as lane:
            answers = await asyncio.gather(*(ask(lane, ECHO, b"x") for _ in range(8)), return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, DatabaseError)]
            assert [answer.sqlstate for answer in refused] == ["53400"] * 3

    asyncio.run(scene())


def test_a_server_that_says_nothing_is_given_up(url: str, admin: psycopg.Connection) -> None:
    async def scene() -> None:
        lane = Lane(url, {}, silence_s=0.2)
        await lane.open()
        try:
            with pytest.raises(DatabaseGone, match="no answer"):
                await ask(lane, "select pg_sleep(5)")
            await until(lambda: lane.connected)
            assert (await ask(lane, ECHO, b"x")).get(0, 0) == b"x"
        finally:
            await lane.close()

    asyncio.run(scene())
    admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like '%%pg_sleep(5)'")


def test_large_arguments_and_answers_pass(url: str) -> None:
    async def scene() -> None:
        async with opened(url) as lane:
            sizes = (1, 70_000, 3_000_000, 9)
            answers = await asyncio.gather(*(ask(lane, ECHO, b"x" * size) for size in sizes))
            assert [len(rows.get(0, 0) or b"") for rows in answers] == list(sizes)

    asyncio.run(scene())
