"""How long reads may go to a replica, and when a write may be answered, so that who has written reads what he wrote.

Law: a replica that has replayed what the primary had flushed at a moment may be read until `LEASE_S` after it. A write
is answered when the replica has replayed it, or `LEASE_S` after its commit, when no such time goes on any more, in
whichever process of whichever server. Who reads the replica says so by an advisory lock on the primary, `ANNOUNCED_S`
beforehand; when nobody has said so for `QUIET_S` no write waits. Knows no tenant and no statement of others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fhir_sched.db.errors import DatabaseError, DatabaseGone
from fhir_sched.db.fragment import Fragment

if TYPE_CHECKING:
    from collections.abc import Callable

    from fhir_sched.db.lane import Lane

log = logging.getLogger("fhir_sched.replica")

LEASE_S: Final = 0.5
"""How old what the replica shows may be."""
BOUND_S: Final = LEASE_S * 1.2
"""How long a write waits at most. It is longer than the lease since the clocks of two machines differ in speed."""
PERIOD_S: Final = 0.1
ANNOUNCED_S: Final = 1.0
_GAP_S: Final = 0.4
"""Between looks for the lock at most. A look may be as late as the next one begins: two of these are less than the
time of announcement, so that nobody comes between."""
QUIET_S: Final = LEASE_S + _GAP_S + 0.1
_SHORTEST_S: Final = 0.0005
_LONGEST_S: Final = 0.02

_LINEAGE: Final = """concat_ws('/', (select system_identifier from pg_control_system()),
    (select oid from pg_database where datname = current_database()), current_user, {})"""
# What is flushed, not what is inserted: the rest may stay in memory and reach nobody for a while.
_MARK: Final = Fragment(
    f"""select pg_current_wal_flush_lsn() - '0/0'::pg_lsn,
    {_LINEAGE.format("('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::integer")}"""
)
# The timeline: after a failover the positions of one that stayed on the old one mean something else.
_STATE: Final = Fragment(
    f"""select pg_is_in_recovery(), pg_last_wal_replay_lsn() - '0/0'::pg_lsn,
    {_LINEAGE.format("(select timeline_id from pg_control_checkpoint())")}"""  # noqa: S608 - constants
)
# A commit, which is flushed. Until one comes, what is flushed may end within a record, and such a one is not replayed.
_NUDGE: Final = Fragment("select pg_logical_emit_message(true, 'fhir-sched', '')")
_NUDGED_S: Final = (0.2, 5.0)
_ANNOUNCE: Final = Fragment("select pg_advisory_lock_shared(1178944082, 1919250537)")
_WITHDRAW: Final = Fragment("select pg_advisory_unlock_shared(1178944082, 1919250537)")
_ANYBODY: Final = Fragment(
    """select exists (
    select from pg_locks
    where locktype = 'advisory'
      and database = (select oid from pg_database where datname = current_database())
      and (classid, objid, objsubid) = (1178944082, 1919250537, 2)
)"""
)


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far the primary had flushed at `began` (monotonic seconds); `counts` when the lock had long been held."""

    began: float
    position: int
    counts: bool


class Freshness:
    """Watches a replica over a connection to it and one to the primary, which nothing else uses; `lost` is called
    while the replica gives no answer.

    The replica may be read while `time.monotonic() < until`. `lag_s` is how long it took to replay the last mark,
    `waits` and `waited_s` count the writes that waited and for how long.
    """

    def __init__(self, primary: Lane, replica: Lane, lost: Callable[[], None]) -> None:
        self._primary, self._replica, self._lost = primary, replica, lost
        self.until = 0.0
        self.lag_s = 0.0
        self.waits, self.waited_s = 0, 0.0
        self._marks: deque[_Mark] = deque()
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._marked_at = self._nudged_at = float("-inf")
        self._caught_up_at = time.monotonic()
        self._lineage: bytes | None = None
        self._announced_at, self._announced_in = float("-inf"), -1
        self._quiet_since, self._quiet_last = float("inf"), float("-inf")
        self._said: str | None = "nothing is known of it yet"

    @property
    def in_use(self) -> bool:
        """Whether the replica may be read now."""
        return time.monotonic() < self.until

    def forget(self) -> None:
        """Nothing of what was seen holds any more: the replica's connection leads to another server, perhaps."""
        self.until = 0.0
        self._marks.clear()

    async def settled(self) -> None:
        """Come back when everybody reads what has been committed until now, after `BOUND_S` at the latest."""
        committed = time.monotonic()
        if self._quiet_since <= committed - QUIET_S and self._quiet_last >= committed - _GAP_S:
            return
        replayed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((committed, replayed))
        self._wake.set()
        # by our own clock: the loop's may be as old as the loop's turn
        while not replayed.done() and (left_s := committed + BOUND_S - time.monotonic()) > 0:
            await asyncio.wait([replayed], timeout=left_s)
        self.waits += 1
        self.waited_s += time.monotonic() - committed

    async def watch(self) -> None:
        """Keep `until` current, for ever."""
        while True:
            self._wake.clear()
            try:
                reason = await self._look()
            except DatabaseGone:
                reason = "a connection to it or to the primary was lost"
            except DatabaseError as error:
                reason = f"it cannot be watched: {error} {error.message if error.sqlstate[:2] in ('42', '55') else ''}"
            self._conclude(reason)
            await self._pause()

    async def _look(self) -> str | None:
        """Mark where the primary is, see where the replica is; what speaks against the replica, None for nothing."""
        if not self._primary.connected:
            return "the primary cannot be reached"
        now = time.monotonic()
        due = now - self._marked_at >= PERIOD_S
        if due or (self._waiting and self._waiting[-1][0] > self._marked_at):
            await self._mark()
        if self._held and now > max(self.until, self._announced_at + ANNOUNCED_S) + LEASE_S:
            await self._primary.submit((_WITHDRAW,), 0)
            self._announced_in = -1
        if not self._replica.connected:
            self._lost()
            return "it cannot be reached"
        (rows,) = await self._replica.submit((_STATE,), 1)
        in_recovery, position, lineage = rows.all()[0]
        if in_recovery != b"t":
            self.forget()
            return "it is not a standby"
        if lineage != self._lineage:
            self.forget()
            return "it is not a standby of the primary, on its timeline, with the same database and role"
        await self._reached(int(position or 0))
        await self._nudge(now)
        return None

    async def _nudge(self, now: float) -> None:
        """Where nothing has been flushed since a mark that is not reached: let the primary flush whole records."""
        marks = self._marks
        # the longer in vain the less often
        pause_s = min(max((now - self._caught_up_at) / 10, _NUDGED_S[0]), _NUDGED_S[1])
        if len(marks) > 1 and marks[0].position == marks[-1].position and now - self._nudged_at >= pause_s:
            self._nudged_at = now
            await self._primary.submit((_NUDGE,), 0)

    @property
    def _held(self) -> bool:
        """Whether the lock is held: it ends with the session."""
        return self._announced_in == self._primary.generation

    async def _mark(self) -> None:
        began, held = time.monotonic(), self._held
        self._marked_at = began
        try:
            answers = await self._primary.submit((_MARK,) if held else (_MARK, _ANYBODY), 1 if held else 2)
        except DatabaseGone:
            raise
        except DatabaseError:
            # a standby by now, perhaps: connecting again finds the primary when the URL names several hosts
            self._primary.give_up("it does not say where it is, as a primary does")
            raise
        position, lineage = answers[0].all()[0]
        if lineage != self._lineage:
            self.forget()
            self._lineage = lineage
        if not held:
            self._heard(began, somebody=answers[1].get(0, 0) == b"t")
        counts = held and began >= self._announced_at + ANNOUNCED_S
        self._marks.append(_Mark(began, int(position or 0), counts))

    def _heard(self, began: float, *, somebody: bool) -> None:
        """Remember since when nobody has said that he reads the replica, asked more often than one must say so."""
        if somebody:
            self._quiet_since = float("inf")
        elif self._quiet_since > began or began - self._quiet_last > _GAP_S:
            self._quiet_since = began
        self._quiet_last = began

    async def _reached(self, position: int) -> None:
        """The replica has replayed up to `position`: what that allows."""
        reached: _Mark | None = None
        while self._marks and self._marks[0].position <= position:
            reached = self._marks.popleft()
        if reached is None:
            return
        self._caught_up_at = reached.began
        self.lag_s = time.monotonic() - reached.began
        while self._waiting and self._waiting[0][0] <= reached.began:
            _, replayed = self._waiting.popleft()
            if not replayed.done():
                replayed.set_result(None)
        if reached.counts:
            self.until = reached.began + LEASE_S
        elif not self._held:
            generation = self._primary.generation
            await self._primary.submit((_ANNOUNCE,), 0)
            self._announced_at, self._announced_in = time.monotonic(), generation
            self._quiet_since = float("inf")

    def _conclude(self, reason: str | None) -> None:
        """Forget what is too old to matter, and say when the replica begins or ceases to be used."""
        now = time.monotonic()
        while self._marks and self._marks[0].began < now - LEASE_S:
            self._marks.popleft()
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] < now - 2 * BOUND_S):
            self._waiting.popleft()
        if now < self.until:
            if self._said is not None:
                log.info("the replica is used for reads")
            self._said = None
            return
        if reason is None and now - self._caught_up_at > LEASE_S:
            reason = f"it is more than {LEASE_S:g} s behind"
        if reason is not None and reason != self._said:
            log.warning("the replica is not used for reads: %s", reason)
            self._said = reason

    async def _pause(self) -> None:
        if self._marks and self._replica.connected:
            # the longer it takes the less it matters when exactly it ends
            age_s = time.monotonic() - self._marks[0].began
            await asyncio.sleep(min(max(age_s / 4, _SHORTEST_S), _LONGEST_S))
            return
        try:
            async with asyncio.timeout(PERIOD_S):
                await self._wake.wait()
        except TimeoutError:
            pass
