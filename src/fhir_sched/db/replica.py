"""Reads that go to a replica while it is fresh enough, and to the primary in any other case.

Law: no request fails for the replica's sake: what it refuses or leaves unanswered, the primary is asked. Only
connections to the server that is watched are used, whatever the URL leads to. Knows no tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from fhir_sched.db.errors import DatabaseError, DatabaseGone
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.freshness import Freshness
from fhir_sched.db.lane import Lane
from fhir_sched.db.lanes import idlest
from fhir_sched.db.limits import with_defaults

if TYPE_CHECKING:
    from fhir_sched.db.lanes import Lanes
    from fhir_sched.db.rows import Rows

_SERVER: Final = Fragment(
    "select concat_ws('/', (select system_identifier from pg_control_system()), current_database(), current_user,"
    " extract(epoch from pg_postmaster_start_time()))"
)
_SILENCE_S: Final = 1.0
"""After how long without an answer to its watcher, which asks for next to nothing, a server is given up."""


@dataclass(frozen=True, slots=True)
class ReplicaMeasured:
    """`connected` lanes, whether it is `in_use`, its `lag_s`; counted since the start: reads that it `answered`, those
    that it `refused` or left unanswered, reads `passed` by it, writes that waited for it (`waits`, `waited_s`)."""

    connected: int
    in_use: bool
    lag_s: float
    answered: int
    refused: int
    passed: int
    waits: int
    waited_s: float


class Replica:
    """`read` is that of `lanes`, from the replica where that can be; `settled` is what a write ends with."""

    def __init__(self, conninfo: str, lanes: Lanes) -> None:
        self._lanes = lanes
        limits, conninfo = lanes.limits, with_defaults(conninfo)

        def reader(*, steady: bool = False, silence_s: float = limits.silence_s) -> Lane:
            session = limits.session(read_only=True, steady=steady)
            return Lane(
                conninfo,
                session,
                on_connect=self._connected,
                max_in_flight=limits.in_flight,
                silence_s=silence_s,
            )

        # three kinds, as the primary has them: one plan for all values, plans as PostgreSQL likes, what takes long
        self._readers = (
            [reader(steady=True) for _ in range(limits.steady)],
            [reader() for _ in range(limits.shared)],
            [reader() for _ in range(limits.slow)],
        )
        self._steady: list[Lane] = []
        self._shared: list[Lane] = []
        self._slow: list[Lane] = []
        self._watched = reader(silence_s=_SILENCE_S)
        self._primary = Lane(lanes.conninfo, limits.session(read_only=True), silence_s=_SILENCE_S)
        self._servers: dict[Lane, bytes | None] = {}
        self.freshness = Freshness(self._primary, self._watched, self._lost)
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = self._refused = self._passed = 0

    def measured(self) -> ReplicaMeasured:
        """How it is at this moment, and what has been counted since the start."""
        fresh = self.freshness
        return ReplicaMeasured(
            connected=sum(lane.connected for lane in self._all),
            in_use=fresh.in_use,
            lag_s=fresh.lag_s,
            answered=self._answered,
            refused=self._refused,
            passed=self._passed,
            waits=fresh.waits,
            waited_s=fresh.waited_s,
        )

    @property
    def _all(self) -> list[Lane]:
        return [self._watched, *(lane for kind in self._readers for lane in kind)]

    def start(self) -> None:
        """Begin to connect and to watch; the start of the server waits for neither."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(_opened(lane)) for lane in (self._primary, *self._all)]
        self._tasks.append(loop.create_task(self.freshness.watch()))

    async def close(self) -> None:
        """Disconnect; what is in flight there is asked of the primary, so this comes before the end of `lanes`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.freshness.forget()
        await asyncio.gather(*(lane.close() for lane in (self._primary, *self._all)))

    async def read(self, tenant: str, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """As `Lanes.read`; writes of others than this server may show up to half a second late."""
        if time.monotonic() < self.freshness.until:
            kind = self._slow if slow else self._steady if fragments[0].steady else self._shared
            lane = idlest(kind)
            # a slow one has a connection for itself, as it would have on the primary
            if lane is not None and not (slow and lane.in_flight):
                try:
                    answer = await lane.submit((self._lanes.session(tenant), *fragments), len(fragments))
                except DatabaseError:
                    # lost, cancelled for the sake of replay, or the request's own fault: the primary says which
                    self._refused += 1
                else:
                    self._answered += 1
                    return answer
        self._passed += 1
        return await self._lanes.read(tenant, *fragments, slow=slow)

    async def settled(self) -> None:
        """Come back when every process that reads the replica sees what has been committed until now."""
        await self.freshness.settled()

    # which connections may be used

    def _connected(self, lane: Lane) -> None:
        """Ask the server at the other end who it is: names and balancers lead to several."""
        self._servers[lane] = None
        if lane is self._watched:
            self.freshness.forget()
        self._choose()
        lane.submit((_SERVER,), 1).add_done_callback(partial(self._named, lane, lane.generation))

    def _named(self, lane: Lane, generation: int, answer: asyncio.Future[tuple[Rows, ...]]) -> None:
        if answer.cancelled():
            return
        if answer.exception() is None and lane.generation == generation:
            self._servers[lane] = answer.result()[0].get(0, 0)
            self._choose()

    def _lost(self) -> None:
        """The watcher gets no answer: whoever waits for one from that server asks the primary instead."""
        for kind in self._readers:
            for lane in kind:
                if lane.in_flight:
                    lane.give_up("the replica says nothing")

    def _choose(self) -> None:
        """Use the connections to the server that is watched, as the same role."""
        watched = self._servers.get(self._watched)
        self._steady, self._shared, self._slow = (
            [lane for lane in kind if watched is not None and self._servers.get(lane) == watched]
            for kind in self._readers
        )


async def _opened(lane: Lane) -> None:
    with contextlib.suppress(DatabaseGone):  # it goes on trying
        await lane.open()
