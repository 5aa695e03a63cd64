"""PostgreSQL goes away under a load, or holds a lock, and clients vanish: 503 at most, and nothing to mend by hand."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
import uvloop

from clinic import appointment
from faults.checker import violations
from faults.conftest import Scale
from faults.ledger import Attempt
from faults.state import read_state
from faults.wire import NoAnswerError, NotSentError, Wire, request
from faults.world import APPLICATION, HOST, Load, World, eventually, loaded
from fhir_sched.db.errors import DatabaseGone
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lane import Lane
from fhir_sched.db.limits import Limits, with_defaults

CLIENTS = 8
LIMITS = Limits()


def _attempts(world: World, load: Load) -> list[Attempt]:
    """Every request of the load so far, after nothing wrong was found in what it left."""
    load.rest()
    eventually(world.quiet, "no connection is about anything")
    operations = load.operations()
    with world.admin() as connection:
        assert violations(operations, read_state(connection, load.tenant)) == []
    return [attempt for operation in operations for attempt in operation.attempts]


def _failed(attempts: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.status <= 0 or attempt.status >= 500]


def test_connections_that_are_terminated_cost_at_most_the_requests_that_were_on_them(
    world: World, tmp_path: Path
) -> None:
    rounds = 5
    with loaded(world, tmp_path, seed=1, clients=CLIENTS) as load:
        load.work()
        for _ in range(rounds):
            time.sleep(0.3)
            with world.admin() as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", [APPLICATION]
                )
            last = time.monotonic()
        time.sleep(2)
        attempts = _attempts(world, load)
    failed = _failed(attempts)
    assert {attempt.status for attempt in failed} <= {503}
    assert all(attempt.retry_after.isdigit() for attempt in failed)
    assert len(failed) <= rounds * CLIENTS
    assert [attempt for attempt in failed if attempt.began > last + 1] == []
    assert [attempt for attempt in attempts if attempt.began > last + 1 and attempt.status < 300]


@pytest.mark.parametrize("away_s", [0.0, 4.0])
def test_a_postgresql_that_is_restarted_is_found_again_within_a_second(
    world: World, tmp_path: Path, away_s: float
) -> None:
    with loaded(world, tmp_path, seed=2, clients=CLIENTS) as load:
        load.work()
        time.sleep(0.3)
        world.stop_postgres()
        time.sleep(away_s)
        world.start_postgres()
        back = time.monotonic()
        time.sleep(3)
        attempts = _attempts(world, load)
    failed = _failed(attempts)
    assert {attempt.status for attempt in failed} <= {503}
    assert all(attempt.retry_after.isdigit() for attempt in failed)
    assert [attempt for attempt in failed if attempt.began > back + 1] == []
    assert [attempt for attempt in attempts if attempt.began > back + 1 and attempt.status < 300]


def test_a_connection_that_breaks_behind_the_last_words_is_noticed_at_once(world: World) -> None:
    """A backend that leaves a request unread resets the connection; what it said before that is read first."""

    async def scene() -> None:
        lane = Lane(with_defaults(world.postgres.admin_url), LIMITS.session(read_only=True), silence_s=60)
        await lane.open()
        try:
            assert lane._pgconn is not None
            backend = lane._pgconn.backend_pid
            psutil.Process(backend).suspend()
            answer = lane.submit((Fragment("select 1"),), 1)
            await asyncio.sleep(0.05)
            os.kill(backend, signal.SIGQUIT)  # it warns, and goes without a look at what was sent
            psutil.Process(backend).resume()
            with pytest.raises(DatabaseGone):
                await asyncio.wait_for(answer, 20)
        finally:
            await lane.close()

    uvloop.run(scene())
    world.start_postgres()
    eventually(world.ready, "the server is ready again")


def test_a_lock_that_another_program_holds_is_503_in_time_and_leaves_no_transaction(world: World) -> None:
    tenant = uuid4()
    wanted = world.openings(tenant, practitioners=1, slots=4)
    bodies = [_booking(opening.id, opening.start, opening.end) for opening in wanted]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": body, "request": {"method": "POST", "url": "Appointment"}} for body in bodies[:2]
    ]}  # fmt: skip
    with world.server.fhir(tenant) as http, ThreadPoolExecutor() as threads, world.admin() as other:
        with other.transaction():
            other.execute("select from slots where tenant_id = %s for update", [tenant])
            began = time.monotonic()
            waiting = [threads.submit(http.post, "Appointment", json=body) for body in bodies]
            waiting.append(threads.submit(http.post, "", json=bundle))
            waiting.append(
                threads.submit(http.post, "Appointment", json=bodies[0], headers={"Idempotency-Key": "locked"})
            )
            assert http.get(f"Slot/{wanted[0].id}").status_code == 200
            answers = [each.result() for each in waiting]
            assert time.monotonic() - began < LIMITS.lock_timeout_s + 10
            assert {answer.status_code for answer in answers} == {503}
            assert all(answer.headers["retry-after"].isdigit() for answer in answers)
            eventually(world.quiet, "nothing is left in a transaction while the lock is still held")
        assert http.post("Appointment", json=bodies[0]).status_code == 201


def test_clients_that_vanish_at_random_moments_cost_no_connection(world: World, scale: Scale) -> None:
    tenant = uuid4()
    openings = world.openings(tenant)
    chance = random.Random(7)
    before = world.connections()

    def content() -> bytes:
        opening = chance.choice(openings)
        body = _booking(opening.id, opening.start, opening.end)
        bundle = {"resourceType": "Bundle", "type": chance.choice(("transaction", "batch")), "entry": [
            {"resource": body, "request": {"method": "POST", "url": "Appointment"}} for _ in range(2)
        ]}  # fmt: skip
        whole = chance.choice(
            [
                request("POST", f"/fhir/{tenant}/Appointment", body),
                request("POST", f"/fhir/{tenant}/Appointment", body, Idempotency_Key=str(chance.random())),
                request("POST", f"/fhir/{tenant}", bundle),
                request("GET", f"/fhir/{tenant}/Slot?status=free&_count=50"),
                request("GET", f"/fhir/{tenant}/Slot?schedule.actor=Practitioner/1&_total=accurate"),
            ]
        )
        return whole if chance.random() < 0.8 else whole[: chance.randrange(1, len(whole))]

    async def vanish(slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                await Wire(HOST, world.port).leave(content(), chance.random() * 0.03)
            except (NoAnswerError, NotSentError, OSError):
                return

    async def all_of_them() -> None:
        slots = asyncio.Semaphore(40)
        await asyncio.gather(*(vanish(slots) for _ in range(scale.vanishing_clients)))

    asyncio.run(all_of_them())
    eventually(lambda: world.connections() == before, "the connections are those of before, and idle")
    _every_exclusive_lane_is_lent(world)


def _every_exclusive_lane_is_lent(world: World) -> None:
    """As many writers as there are exclusive lanes wait for one lock, and each gets it in the end."""
    tenant = uuid4()
    (opening, *_) = world.openings(tenant, practitioners=1, slots=1)
    bodies = [_booking(opening.id, opening.start, opening.end) for _ in range(LIMITS.exclusive)]
    with world.server.fhir(tenant) as http, ThreadPoolExecutor(LIMITS.exclusive) as threads, world.admin() as other:
        with other.transaction():
            other.execute("select from slots where tenant_id = %s for update", [tenant])
            waiting = [threads.submit(_status, http, body) for body in bodies]
            eventually(
                lambda: (
                    list(world.connections().values()).count("active") >= LIMITS.exclusive
                    or any(each.done() for each in waiting)
                ),
                "every exclusive lane waits for the lock",
            )
            assert list(world.connections().values()).count("active") == LIMITS.exclusive
        assert {each.result() for each in waiting} <= {201, 409, 503}


def _status(http: httpx.Client, body: dict[str, object]) -> int:
    return http.post("Appointment", json=body).status_code


def _booking(slot: str, start: str, end: str) -> dict[str, object]:
    return appointment({"resourceType": "Slot", "id": slot, "start": start, "end": end})
