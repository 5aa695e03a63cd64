"""The connections of one server process: a few shared pipelined lanes for reads, exclusive ones for the rest.

A request is one round trip: the tenant's settings and its statements travel together as one implicit transaction, so
the tenant cannot outlive it. Whatever waits here is bounded, in number and in time; beyond that the answer is 503.
It knows no tables.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from fhir_sched.db.errors import DatabaseError, DatabaseGone, lost, translate
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lane import Lane
from fhir_sched.db.limits import Limits, with_defaults
from fhir_sched.db.measured import Measured
from fhir_sched.db.transaction import Transaction
from fhir_sched.outcome import FhirError, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fhir_sched.db.rows import Rows

SESSION_SQL = "select set_config('app.tenant_id', $1, true), set_config('app.writer', 'fhir', true)"
"""What every transaction of ours begins with; both values end with the transaction."""

WRITING_SQL = f"{SESSION_SQL}, set_config('app.caller', $2, true)"
"""The same for one that may change something: it also says who asks, for the clinic's rules of booking."""

_ATTEMPTS = 4

Answer = TypeVar("Answer")


class Lanes:
    """Every way to the database: `read`, `write`, `transaction`. Each raises FhirError and nothing else."""

    def __init__(self, conninfo: str, limits: Limits | None = None) -> None:
        self.limits = limits = limits or Limits()
        self.conninfo = conninfo = with_defaults(conninfo)
        readers = [
            Lane(
                conninfo,
                limits.session(read_only=True, steady=number < limits.steady),
                on_connect=self._returned,
                max_in_flight=limits.in_flight,
                silence_s=limits.silence_s,
            )
            for number in range(limits.steady + limits.shared)
        ]
        self._steady, self._shared = readers[: limits.steady], readers[limits.steady :]
        self._exclusive = [
            Lane(conninfo, limits.session(read_only=False), on_connect=self._arrived, silence_s=limits.silence_s)
            for _ in range(limits.exclusive)
        ]
        self._free: deque[Lane] = deque()
        self._borrowed: set[Lane] = set()
        self._queue: deque[asyncio.Future[Lane]] = deque()
        self._back: asyncio.Future[None] | None = None
        self._sessions: dict[tuple[str, str | None], Fragment] = {}
        self._closing = False
        self._waits, self._waited_s = 0, 0.0

    @property
    def round_trips(self) -> int:
        """How many requests were sent to the database since the start, each one round trip."""
        return sum(lane.round_trips for lane in self._all)

    @property
    def _readers(self) -> tuple[Lane, ...]:
        return (*self._steady, *self._shared)

    @property
    def _all(self) -> tuple[Lane, ...]:
        return (*self._steady, *self._shared, *self._exclusive)

    def measured(self) -> Measured:
        """How the connections are at this moment, and what has been counted since the start."""
        return Measured(
            shared=sum(lane.connected for lane in self._readers),
            exclusive=sum(lane.connected for lane in self._exclusive),
            in_flight=sum(lane.in_flight for lane in self._readers),
            in_use=len(self._borrowed),
            queued=len(self._queue),
            waits=self._waits,
            waited_s=self._waited_s,
            round_trips=self.round_trips,
            lost=sum(lane.lost for lane in self._all),
        )

    @property
    def ready(self) -> bool:
        """Whether reads and writes both find a connection."""
        return any(lane.connected for lane in self._readers) and any(lane.connected for lane in self._exclusive)

    async def open(self) -> None:
        """Connect every lane. DatabaseGone, with the reason, when not a single one of a kind can; nothing stays then.

        Lanes that fail while others succeed go on trying by themselves.
        """
        lanes = self._all
        outcomes = await asyncio.gather(*(lane.open() for lane in lanes), return_exceptions=True)
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        if failure is not None and not (self.ready and isinstance(failure, DatabaseGone)):
            await self.close()
            raise failure

    async def close(self) -> None:
        """Refuse what comes, wait for what is in flight (bounded by `drain_s`), disconnect."""
        self._closing = True
        lanes = self._all
        deadline = asyncio.get_running_loop().time() + self.limits.drain_s
        while self._borrowed or self._queue or any(lane.in_flight for lane in lanes):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        await asyncio.gather(*(lane.close() for lane in lanes))

    # the three ways

    async def read(self, tenant: str, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """The rows of each statement, all seen in one transaction; `tenant` is a UUID.

        `slow` statements go over an exclusive lane, so that no cheap one waits behind them.
        """
        if slow:
            return await self.write(tenant, *fragments)
        statements = (self.session(tenant), *fragments)
        lanes = self._steady if fragments[0].steady else self._shared
        try:
            lane = (None if self._closing else idlest(lanes)) or await self._reader(lanes)
            try:
                return await lane.submit(statements, len(fragments))
            except DatabaseGone:
                # it changes nothing, so it may be asked again; unless the connection has been silent for long
                if self._patience_s(lane) <= 0:
                    raise
            return await (await self._reader(lanes)).submit(statements, len(fragments))
        except DatabaseError as error:
            raise translate(error) from error

    async def write(self, tenant: str, *fragments: Fragment, caller: str = "") -> tuple[Rows, ...]:
        """The same over an exclusive lane, where waiting for a lock holds nobody up; all or nothing is committed.

        `caller` (portal, staff, hl7) is who asks, "" for the server itself, which no rule of booking binds. A cancelled
        call may still have been committed. A deadlock is run again up to three times, then it is 503.
        """

        async def attempt() -> tuple[Rows, ...]:
            lane = await self._borrow()
            try:
                answer = lane.submit((self.session(tenant, caller), *fragments), len(fragments))
            finally:
                lane.when_idle(self._give_back)
            try:
                return await answer
            except DatabaseError as error:
                raise translate(error) from error

        return await self.retry(attempt)

    @asynccontextmanager
    async def transaction(self, tenant: str, caller: str = "") -> AsyncIterator[Transaction]:
        """An explicit transaction on an exclusive lane: committed at the end of the block, rolled back on any error.

        What is raised inside goes out as it is; wrap the whole in `retry` to run it again after a deadlock.
        """
        lane = await self._borrow()
        transaction = Transaction(lane, self.session(tenant, caller))
        try:
            try:
                yield transaction
            except BaseException:
                transaction.abandon()
                raise
            await transaction.commit()
        finally:
            # the last statement may still be on its way: only its answer makes the lane idle
            lane.when_idle(self._give_back)

    async def retry(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `work` answers, which is run again (4 times in all) when it lost to another transaction."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return await work()
            except FhirError as error:
                if not lost(error):
                    raise
            await asyncio.sleep(0.01 * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        return await work()

    def session(self, tenant: str, caller: str | None = None) -> Fragment:
        """What a transaction of the tenant begins with; `caller` as `write` takes it, None for one that only reads."""
        session = self._sessions.get((tenant, caller))
        if session is None:
            if len(self._sessions) >= 1024:
                self._sessions.clear()
            if caller is None:
                session = Fragment(SESSION_SQL, (tenant.encode(),))
            else:
                session = Fragment(WRITING_SQL, (tenant.encode(), caller.encode()))
            self._sessions[tenant, caller] = session
        return session

    # a connection that was lost: what comes meanwhile waits for the next one, for a moment

    def _patience_s(self, *lanes: Lane) -> float:
        """How much longer a request waits for one of these lanes, all of them lost, to be connected again."""
        return max(lane.lost_at for lane in lanes) + self.limits.patience_s - asyncio.get_running_loop().time()

    async def _reader(self, lanes: list[Lane]) -> Lane:
        """The one of these lanes with the least to do, another reader when they are lost.

        DatabaseGone when there is none, nor soon will be.
        """
        while not self._closing:
            for wanted in (lanes, self._readers):
                lane = idlest(wanted)
                if lane is not None:
                    return lane
            patience_s = self._patience_s(*self._readers)
            if patience_s <= 0:
                raise DatabaseGone("no connection to PostgreSQL")
            self._back = self._back or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._back], timeout=patience_s)
        raise DatabaseGone("the server is shutting down")

    def _returned(self, lane: Lane) -> None:
        back, self._back = self._back, None
        if back is not None:
            back.set_result(None)

    # exclusive lanes: one borrower at a time, the others in a queue

    async def _borrow(self) -> Lane:
        """An exclusive lane that nobody else uses until it is given back; FhirError 503 when none comes in time."""
        while True:
            if self._closing:
                raise translate(DatabaseGone("the server is shutting down"))
            while self._free:
                # the one given back last: its plans and its backend's caches are warm
                lane = self._free.pop()
                if lane.connected:
                    self._borrowed.add(lane)
                    return lane
            patience_s = self.limits.queue_timeout_s
            if not any(lane.connected for lane in self._exclusive):
                patience_s = min(patience_s, self._patience_s(*self._exclusive))
            if patience_s <= 0:
                raise translate(DatabaseGone("no connection to PostgreSQL"))
            if len(self._queue) >= self.limits.queue:
                raise _overloaded()
            lane = await self._turn(patience_s)
            if lane.connected:
                return lane
            # lost between the promise and now
            self._borrowed.discard(lane)

    async def _turn(self, patience_s: float) -> Lane:
        """The next lane that is given back, borrowed for the caller."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Lane] = loop.create_future()
        self._queue.append(turn)
        timer = loop.call_later(patience_s, self._expire, turn)
        started = loop.time()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._queue.remove(turn)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())
            raise
        finally:
            timer.cancel()
            self._waits += 1
            self._waited_s += loop.time() - started

    def _expire(self, turn: asyncio.Future[Lane]) -> None:
        if not turn.done():
            self._queue.remove(turn)
            turn.set_exception(_overloaded())

    def _give_back(self, lane: Lane) -> None:
        self._borrowed.discard(lane)
        if lane.connected:
            self._hand_out(lane)

    def _arrived(self, lane: Lane) -> None:
        # a lane that lost its connection while somebody holds it is handed out when that one gives it back
        if lane not in self._borrowed:
            self._hand_out(lane)

    def _hand_out(self, lane: Lane) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                self._borrowed.add(lane)
                turn.set_result(lane)
                return
        if lane not in self._free:
            self._free.append(lane)


def idlest(lanes: Sequence[Lane]) -> Lane | None:
    """The connected one with the fewest requests in flight; None when there is none."""
    found, least = None, 0
    for lane in lanes:
        in_flight = lane.in_flight
        if (found is None or in_flight < least) and lane.connected:
            found, least = lane, in_flight
    return found


def _overloaded() -> FhirError:
    return FhirError(Kind.THROTTLED, "The server is busy; please try again.", headers=(("Retry-After", "1"),))
