"""What events go to in these tests: a real web server, a real nats-server; and the relay, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic import Clinic
from db import Cluster, Database
from events.broker import Broker, started
from events.receiver import Receiver
from fhir_sched.events import setup
from fhir_sched.events.relay import Relay
from fhir_sched.settings import load
from server import Server

Run = Callable[..., None]


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A nats-server with JetStream; skips, with the reason, where there is none."""
    with started(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="package")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """A database for all tests of this folder, each of which has a tenant of its own."""
    with cluster.fresh(template) as fresh:
        yield fresh


@pytest.fixture(scope="package")
def server(database: Database) -> Iterator[Server]:
    """The server on it, which sends no events itself."""
    with Server(database.app_url, relay="off") as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server that takes events."""
    with Receiver() as running:
        yield running


@pytest.fixture
def clinic(server: Server, database: Database) -> Iterator[Clinic]:
    """A tenant, and an outbox in which nothing waits."""
    made = Clinic(server, database)
    made.sql("truncate outbox, outbox_deliveries")
    yield made
    made.close()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The file of a file sink."""
    return tmp_path / "events.jsonl"


def relay(database: Database, *sinks: str, **settings: Any) -> Relay:
    """A relay of the database, made from settings as `fhir-sched relay` does; inside a running loop."""
    settings = {"allow_private_endpoints": True, "park_after": 3, **settings}
    made = setup.build(load(database_url=database.app_url, sinks=",".join(sinks), **settings))
    assert made is not None
    return made


def once(database: Database, *sinks: str, **settings: Any) -> None:
    """Relay until nothing is left."""

    async def work() -> None:
        made = relay(database, *sinks, **settings)
        await made.open()
        async with asyncio.timeout(60):
            await made.once()

    asyncio.run(work())


def while_running(database: Database, *sinks: str, work: Callable[[], Awaitable[None]], **settings: Any) -> None:
    """Do `work` while a relay runs."""

    async def both() -> None:
        made = relay(database, *sinks, **settings)
        await made.open()
        running = asyncio.create_task(made.run())
        try:
            async with asyncio.timeout(60):
                await work()
        finally:
            made.stop()
            await running

    asyncio.run(both())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns."""
    return asyncio.run(work)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; the test's own time-out ends it."""
    while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - nobody tells when it holds
        await asyncio.sleep(0.01)
