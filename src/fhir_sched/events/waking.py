"""When the relay looks again: at once after work, soon while there may be more, woken by NOTIFY when it sleeps.

Law: no event is overlooked between the last look and sleep. Who adds to the outbox shares a lock; a relay sleeps only
while it has that lock to itself, and looks once more when it has got it; who cannot share it notifies (sql/023).
Looking every second is the safety net. Knows no event.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fhir_sched.events.session import Connection

_LOCK: Final = 7378697629483821640
_CHANNEL: Final = "fhir_sched_outbox"
_SOON_S: Final = (0.005, 0.01, 0.02, 0.04)
_AWAKE_S: Final = 0.5
_UNSURE_S: Final = 0.1
_NET_S: Final = 1.0


class Waking:
    """The pauses of one loop; `connection` is its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._idle_s = 0.0
        self._looks = 0
        self._alone = False

    async def listen(self) -> None:
        """Begin to hear of new events."""
        await self._connection.execute(f"listen {_CHANNEL}".encode())

    async def worked(self) -> None:
        """There was something to do: look again at once."""
        self._idle_s, self._looks = 0.0, 0
        await self._wake_up()

    async def pause(self) -> None:
        """There was nothing to do: come back when there may be something."""
        if self._idle_s < _AWAKE_S:
            pause_s = _SOON_S[min(self._looks, len(_SOON_S) - 1)]
            self._looks += 1
            self._idle_s += pause_s
            await asyncio.sleep(pause_s)
            return
        if not self._alone:
            self._alone = await self._ask("select pg_try_advisory_lock(%s)")
            if self._alone:
                # one more look before it sleeps: what came without a NOTIFY has been committed by now
                return
            if await self._notified(_UNSURE_S):
                await self.worked()
        elif await self._notified(_NET_S):
            await self.worked()

    async def _wake_up(self) -> None:
        if self._alone:
            self._alone = False
            await self._ask("select pg_advisory_unlock(%s)")

    async def _notified(self, within_s: float) -> bool:
        async for _ in self._connection.notifies(timeout=within_s, stop_after=1):
            return True
        return False

    async def _ask(self, text: str) -> bool:
        cursor = await self._connection.execute(text.encode(), [_LOCK])
        row = await cursor.fetchone()
        return row is not None and row[0] is True
