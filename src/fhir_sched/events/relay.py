"""The relay: finds the tenants that have work, and lets sinks and Subscriptions have their events.

Laws: at least once, in order for each row; nobody waits for a sink that is down, slow or refuses one event; several
relays on one database share the work. A lost database is waited for. What it needs is the role that serves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import psycopg

from fhir_sched.events import housekeeping, outbox
from fhir_sched.events.channel import Channel
from fhir_sched.events.fanout import Fanout
from fhir_sched.events.sending import Sending
from fhir_sched.events.session import Connection, connect, under
from fhir_sched.events.sink import Sink
from fhir_sched.events.tally import Tally
from fhir_sched.events.waking import Waking

log = logging.getLogger("fhir_sched.events")

_AT_ONCE: Final = 2
"""Batches under way: while one waits for a sink, the database works on the other."""
_FAN_OUT: Final = 200
_PACE_S: Final = 0.03
"""After work, so that what comes meanwhile goes together. A round costs the processors the same however few it has:
with 0.01 a relay that followed a hundred bookings a second took a quarter of a core, with this an eighth."""
_GRACE_S: Final = 3.0
_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_STEADY_S: Final = 5.0
_LOOK_S: Final = 1.0
_FIGURES_S: Final = 2.0

Worker = Callable[[Connection], Awaitable[None]]


class Relay:
    """One relay of one process. `run` until `stop`, or `once` until nothing is left to send."""

    def __init__(
        self,
        conninfo: str,
        sinks: Sequence[Sink],
        sending: Sending,
        *,
        fanout: Fanout | None = None,
        keep_days: int = 0,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally or Tally()
        self._conninfo, self._sending, self._fanout, self._keep_days = conninfo, sending, fanout, keep_days
        self._channels = [Channel(sink, self.tally) for sink in sinks]
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """See that every sink can be used. Raises SinkError."""
        for channel in self._channels:
            await channel.sink.open()

    async def run(self) -> None:
        """Work until `stop`; sinks must be open. Whatever the database does, it is waited for."""
        workers: list[Worker] = [self._watch, self._keep_house]
        workers += [self._behind(channel) for channel in self._channels]
        self._tasks = [asyncio.create_task(self._kept(worker)) for worker in workers]
        try:
            await self._stopping.wait()
            # what is under way may arrive and be marked; what cannot is sent again by the next relay
            await asyncio.wait(self._tasks, timeout=_GRACE_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for channel in self._channels:
                await channel.sink.close()

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._stopping.set()
        for channel in self._channels:
            channel.more.set()

    async def once(self) -> None:
        """Work until nothing is left to send: no event that is not published, but for parked ones."""
        running = asyncio.create_task(self.run())
        try:
            while not await self._is_finished():
                if running.done():
                    break
                await asyncio.sleep(0.05)
        finally:
            self.stop()
            await running

    async def _is_finished(self) -> bool:
        with suppress(psycopg.Error):
            async with await connect(self._conninfo) as connection:
                # in this order: what leaves the outbox meanwhile is among the deliveries then
                if await _tenants(connection):
                    return False
                names = {channel.name for channel in self._channels}
                return not any(name in names for _, name, _ in await _deliveries(connection))
        return False

    async def _kept(self, worker: Worker) -> None:
        """Run the worker on a connection of its own, on a new one when it fails."""
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                async with await connect(self._conninfo) as connection:
                    await worker(connection)
            except psycopg.Error as error:
                log.warning("the relay has no database", extra={"fields": {"problem": type(error).__name__}})
            except Exception:
                log.exception("the relay failed and goes on")
            if not self._stopping.is_set():
                failures = 0 if time.monotonic() > began + _STEADY_S else failures
                pause_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)] * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                failures += 1
                await self._rest(pause_s)

    async def _rest(self, seconds: float) -> None:
        """Pause, but not beyond `stop`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    # new events

    async def _watch(self, connection: Connection) -> None:
        waking = Waking(connection)
        await waking.listen()
        async with await connect(self._conninfo) as second:
            while not self._stopping.is_set():
                idle = not self._channels and not await self._told_somebody(connection)
                if idle:
                    await self._rest(_LOOK_S)
                elif await self._round([connection, second]):
                    await waking.worked()
                    # what comes meanwhile goes together: many small rounds cost the database more than few
                    await self._rest(_PACE_S)
                else:
                    await self._unless_stopped(waking.pause())

    async def _unless_stopped(self, pause: Awaitable[None]) -> None:
        pausing = asyncio.ensure_future(pause)
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([pausing, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not pausing.done():
            pausing.cancel()
        with suppress(asyncio.CancelledError):
            await pausing

    async def _told_somebody(self, connection: Connection) -> bool:
        return self._fanout is not None and await self._fanout.anybody(connection)

    async def _round(self, connections: Sequence[Connection]) -> bool:
        """One look at everything; whether there was anything to do."""
        fanned = await self._fan_out(connections[0]) if self._fanout else 0
        sent = 0
        # when no sink takes anything, new events stay where they are
        if not all(channel.rest_s or channel.behind for channel in self._channels):
            pending = deque(await _tenants(connections[0]))
            counts = await asyncio.gather(*(self._drain(each, pending) for each in connections))
            sent = sum(counts)
        return fanned + sent > 0

    async def _drain(self, connection: Connection, pending: deque[str]) -> int:
        """Batches of the pending tenants in turn, until each had an end; how many events."""
        total = 0
        limit = max(channel.sink.batch for channel in self._channels)
        while pending and not self._stopping.is_set():
            tenant = pending[0]
            pending.rotate(-1)
            count = await self._sending.relay(connection, tenant, self._channels, limit)
            total += count
            resting = all(channel.rest_s or channel.behind for channel in self._channels)
            if (count < limit or resting) and tenant in pending:
                pending.remove(tenant)
        return total

    async def _fan_out(self, connection: Connection) -> int:
        fanout = self._fanout
        if fanout is None:
            return 0
        total = 0
        for tenant, since in (await fanout.tenants(connection)).items():
            try:
                total += await self._fan_out_of(fanout, connection, tenant, since)
            except psycopg.OperationalError:
                raise
            except Exception:
                log.exception("a fan-out failed and is tried again", extra={"fields": {"tenant": tenant}})
        return total

    async def _fan_out_of(self, fanout: Fanout, connection: Connection, tenant: str, since: datetime) -> int:
        async with under(connection, tenant):
            events = await outbox.take(connection, tenant, _FAN_OUT, outbox.TO_FAN_OUT, since=since, payloads=True)
            if not events:
                return 0
            await fanout.fan_out(connection, tenant, events)
            await outbox.mark(connection, tenant, [event.id for event in events], "fanned")
        fanout.told(tenant)
        return len(events)

    # what a sink has not taken at once

    def _behind(self, channel: Channel) -> Worker:
        async def work(connection: Connection) -> None:
            while not self._stopping.is_set():
                channel.more.clear()
                waiting = [(t, due) for t, name, due in await _deliveries(connection) if name == channel.name]
                now = datetime.now(UTC)
                looked = 0
                for tenant, due in waiting:
                    if due <= now and not channel.rest_s:
                        looked += await self._sending.catch_up(connection, tenant, channel)
                if looked:
                    continue
                channel.behind = channel.rest_s > 0 and bool(waiting)
                pause_s = min([_LOOK_S, *((due - now).total_seconds() for _, due in waiting if due > now)])
                pause_s = channel.rest_s or pause_s
                with suppress(TimeoutError):
                    await asyncio.wait_for(channel.more.wait(), max(pause_s, 0.01))

        return work

    # old events and figures

    async def _keep_house(self, connection: Connection) -> None:
        while not self._stopping.is_set():
            await housekeeping.count(connection, self.tally)
            if self._keep_days:
                await housekeeping.remove_old(connection, self._keep_days)
            await self._rest(_FIGURES_S)


async def _tenants(connection: Connection) -> list[str]:
    cursor = await connection.execute("select t::text from fhir_sched_tenants_to_relay() t")
    found = [str(row[0]) for row in await cursor.fetchall()]
    random.shuffle(found)
    return found


async def _deliveries(connection: Connection) -> list[tuple[str, str, datetime]]:
    cursor = await connection.execute("select tenant_id::text, sink, due_at from fhir_sched_tenants_with_deliveries()")
    return [(str(t), str(s), due) for t, s, due in await cursor.fetchall() if isinstance(due, datetime)]
