"""A replica's connections: which are used, what is asked of the primary instead, what the doctor says of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from fhir_sched import serving
from fhir_sched.cli.commands import main
from fhir_sched.db import embedded, replica_doctor
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.replica import Replica
from fhir_sched.settings import load
from standby import Pair

TENANT = str(uuid4())
RECOVERING = Fragment("select pg_is_in_recovery()")


@asynccontextmanager
async def reading(pair: Pair, replica_url: str = "", *, used: bool = True) -> AsyncIterator[Replica]:
    """The replica as one process reads it, once it is in use (or would long have been)."""
    lanes = Lanes(pair.primary.app_url)
    await lanes.open()
    replica = Replica(replica_url or pair.standby.app_url, lanes)
    replica.start()
    try:
        if used:
            async with asyncio.timeout(15):
                while not (replica.measured().in_use and replica.measured().connected == 7):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
        else:
            await asyncio.sleep(2)
        yield replica
    finally:
        await replica.close()
        await lanes.close()


async def _answers(replica: Replica, fragment: Fragment = RECOVERING, *, slow: bool = False) -> bytes | None:
    (rows,) = await replica.read(TENANT, fragment, slow=slow)
    return rows.get(0, 0)


@pytest.mark.parametrize("slow", [False, True])
def test_reads_of_every_kind_are_the_replicas(pair: Pair, slow: bool) -> None:
    async def work() -> None:
        async with reading(pair) as replica:
            assert await _answers(replica, slow=slow) == b"t"
            assert await _answers(replica, Fragment(RECOVERING.text, steady=True)) == b"t"

    asyncio.run(work())


def test_what_replay_cancels_is_asked_of_the_primary(pair: Pair) -> None:
    # the lock of the table on the primary is replayed, and the read of it on the standby is in the way
    reads = Fragment("select pg_is_in_recovery() from (select count(*), pg_sleep(1) from slots) s")

    async def work() -> None:
        async with reading(pair) as replica:
            asked = asyncio.create_task(_answers(replica, reads))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(pair.on_primary, "begin; lock table slots in access exclusive mode; commit")
            assert await asked == b"f"
            assert replica.measured().refused == 1

    asyncio.run(work())


def test_an_idle_primary_that_has_flushed_half_a_record_is_followed(pair: Pair) -> None:
    pair.on_primary("create table filler (body text); alter table filler alter body set storage plain")

    async def work() -> None:
        with psycopg.connect(pair.primary.admin_url) as other:
            async with reading(pair) as replica:
                for _ in range(6):
                    other.execute("insert into filler select repeat('x', 7000) from generate_series(1, 3)")
                    for _ in range(5):
                        await asyncio.sleep(0.1)
                        assert replica.measured().in_use
            other.rollback()

    asyncio.run(work())


def test_the_tenant_bounds_what_is_read(pair: Pair) -> None:
    pair.on_primary(
        f"insert into schedules (tenant_id, actor_id, actor_type) values ('{TENANT}', '{uuid4()}', 'provider')"
    )
    seen = Fragment("select count(*), pg_is_in_recovery() from schedules")

    async def work() -> None:
        async with reading(pair) as replica:
            await replica.settled()
            (ours,) = await replica.read(TENANT, seen)
            (theirs,) = await replica.read(str(uuid4()), seen)
            assert (ours.all(), theirs.all()) == ([(b"1", b"t")], [(b"0", b"t")])

    asyncio.run(work())


def test_a_role_that_row_level_security_does_not_bind_reads_nothing_there(pair: Pair) -> None:
    async def work() -> None:
        async with reading(pair, pair.standby.admin_url, used=False) as replica:
            assert await _answers(replica) == b"f"
            assert replica.measured().answered == 0

    asyncio.run(work())


def test_connections_that_lead_to_another_server_are_not_used(pair: Pair) -> None:
    async def work() -> None:
        async with reading(pair) as replica:
            for kind in replica._readers:
                for lane in kind:
                    lane._conninfo = pair.primary.app_url
                    lane.give_up("moved")
            await asyncio.sleep(1)
            assert replica.measured().in_use
            assert all(lane.connected for kind in replica._readers for lane in kind)
            assert await _answers(replica) == b"f"
            assert replica.measured().answered == 0

    asyncio.run(work())


def test_a_process_that_cannot_see_the_replica_waits_for_those_that_can(pair: Pair) -> None:
    async def work() -> None:
        async with reading(pair), reading(pair, "postgresql://nobody@/none?host=/nowhere", used=False) as blind:
            began = time.monotonic()
            await blind.settled()
            assert time.monotonic() - began >= 0.5
        async with reading(pair, "postgresql://nobody@/none?host=/nowhere", used=False) as blind:
            began = time.monotonic()
            await blind.settled()
            assert time.monotonic() - began < 0.5

    asyncio.run(work())


def test_the_doctor_finds_nothing_wrong_with_a_good_replica(pair: Pair) -> None:
    assert replica_doctor.check(pair.primary.app_url, pair.standby.app_url) == []


def test_the_doctor_says_what_is_wrong(pair: Pair, tmp_path: Path) -> None:
    def said(replica_url: str) -> str:
        return "\n".join(map(str, replica_doctor.check(pair.primary.app_url, replica_url)))

    assert "cannot be asked" in said("postgresql://nobody@/none?host=/nowhere")
    assert "the replica is no standby" in said(pair.primary.app_url)
    assert "another role, postgres and not fhir_sched_app" in said(pair.standby.admin_url)
    assert "another database" in said(pair.standby.url(database="postgres"))
    with embedded.start(tmp_path / "other") as other, psycopg.connect(other.admin_url, autocommit=True) as connection:
        connection.execute("create role fhir_sched_app login")
        assert "another cluster" in said(other.app_url)
    pair.on_standby("select pg_wal_replay_pause()")
    try:
        assert "replay is paused" in said(pair.standby.app_url)
    finally:
        pair.on_standby("select pg_wal_replay_resume()")


def test_check_looks_at_the_replica_too(pair: Pair) -> None:
    given = ["check", "--database-url", pair.primary.app_url, "--replica-url"]
    done = CliRunner().invoke(main, [*given, pair.standby.app_url])
    assert (done.exit_code, done.output) == (0, "all is well\n")
    done = CliRunner().invoke(main, [*given, pair.standby.admin_url])
    assert (done.exit_code, "another role" in done.output) == (1, True)


def test_the_server_does_not_start_with_another_role_on_the_replica(pair: Pair) -> None:
    given = {"database_url": pair.primary.app_url, "auth": "open", "port": 0, "relay": False}
    with pytest.raises(serving.StartError, match="another role"):
        serving.serve(load(replica_url=pair.standby.admin_url, **given), with_demo=False, say=print)
