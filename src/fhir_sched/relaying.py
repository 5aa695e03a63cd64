"""The command `fhir-sched relay`: a relay in a process of its own, and what an operator does about parked events.

Law: everything that can be wrong is found before the first event. On SIGINT or SIGTERM what is under way is ended,
within 5 s. Knows no sink.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import uvloop
from prometheus_client import CollectorRegistry, start_http_server

from fhir_sched import logs
from fhir_sched.db import doctor
from fhir_sched.events import deliveries, setup
from fhir_sched.events.deliveries import Parked
from fhir_sched.events.metrics import RelayMetrics
from fhir_sched.events.relay import Relay
from fhir_sched.events.session import Connection, connect, under
from fhir_sched.events.sink import SinkError
from fhir_sched.events.tally import Tally
from fhir_sched.settings import PREFIX, Settings
from fhir_sched.subscriptions import setup as subscriptions
from fhir_sched.subscriptions.metrics import SubscriptionMetrics
from fhir_sched.subscriptions.tally import Heard

_SAMPLE_S = 1.0

Answer = TypeVar("Answer")


class RelayError(Exception):
    """Why the relay does not start; `code` is the exit code: 2 for a setting, 1 for anything else."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def run(settings: Settings, url: str, *, once: bool, metrics_port: int | None) -> None:
    """Relay events of the database at `url` until a signal ends it, or until nothing is left. Raises RelayError."""
    if once and not settings.sinks:
        raise RelayError(f"say where events go, by --sink URL or {PREFIX}SINKS; see `fhir-sched relay --help`", 2)
    logs.configure(settings.log_level)
    findings = doctor.check(url, durability=False)
    if findings:
        raise RelayError("\n".join(map(str, findings)))
    uvloop.run(_run(settings.model_copy(update={"database_url": url}), once=once, metrics_port=metrics_port))


async def _run(settings: Settings, *, once: bool, metrics_port: int | None) -> None:
    tally = Tally()
    heard = Heard()
    telling = subscriptions.build(settings, tally=heard)
    try:
        relay = setup.build(settings, fanout=telling.fanout if telling else None, tally=tally)
        if relay is None:
            return
        await relay.open()
    except SinkError as error:
        raise RelayError(str(error), 2) from None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, relay.stop)
    async with _metrics(tally, heard, metrics_port), _told(telling):
        await (relay.once() if once else relay.run())


@asynccontextmanager
async def _told(telling: subscriptions.Telling | None) -> AsyncIterator[None]:
    """Send to subscribers what the relay keeps for them."""
    if telling is None:
        yield
        return
    delivering = asyncio.create_task(telling.delivery.run())
    try:
        yield
    finally:
        telling.delivery.stop()
        await delivering


@asynccontextmanager
async def _metrics(tally: Tally, heard: Heard, port: int | None) -> AsyncIterator[None]:
    """Answer Prometheus on that port of this machine, where one is given."""
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    metrics = (RelayMetrics(tally, registry), SubscriptionMetrics(heard, registry))
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise RelayError(f"cannot listen on port {port}: {error.strerror}") from None

    async def sample() -> None:
        while True:
            for each in metrics:
                each.sample()
            await asyncio.sleep(_SAMPLE_S)

    sampling = asyncio.create_task(sample())
    try:
        yield
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


def parked(url: str) -> list[Parked]:
    """Every parked event."""

    async def listed(connection: Connection) -> list[Parked]:
        found: list[Parked] = []
        for tenant in await _tenants(connection):
            async with under(connection, tenant):
                found += await deliveries.parked(connection, tenant)
        return found

    return _with_connection(url, listed)


def resend(url: str, event: str | None) -> int:
    """Let that parked event, or every one, be sent again; how many deliveries there were."""

    async def change(connection: Connection) -> int:
        changed = 0
        for tenant in await _tenants(connection):
            async with under(connection, tenant):
                changed += await deliveries.resend(connection, tenant, event)
        return changed

    return _with_connection(url, change)


def forget(url: str, sink: str) -> int:
    """Give up what is still to be sent to a sink, by its name; how many deliveries there were."""

    async def change(connection: Connection) -> int:
        changed = 0
        for tenant in await _tenants(connection, waiting=True):
            async with under(connection, tenant):
                changed += await deliveries.forget(connection, tenant, sink)
        return changed

    return _with_connection(url, change)


async def _tenants(connection: Connection, *, waiting: bool = False) -> list[str]:
    """The tenants with parked events; with `waiting` also those with deliveries that are still to be made."""
    text = "select tenant_id::text from fhir_sched_tenants_with_parked()"
    if waiting:
        text += " union select tenant_id::text from fhir_sched_tenants_with_deliveries()"
    cursor = await connection.execute(f"select distinct t from ({text}) as found(t) order by 1".encode())  # noqa: S608
    return [str(row[0]) for row in await cursor.fetchall()]


def _with_connection(url: str, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    async def run() -> Answer:
        async with await connect(url) as connection:
            return await work(connection)

    return asyncio.run(run())


__all__ = ["Relay", "RelayError", "forget", "parked", "resend", "run"]
