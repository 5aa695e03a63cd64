"""The events of reads and refusals: gathered as rows, written in batches by a task of their own. R4 6.4, IHE BALP.

Laws: to note an event costs a request a few microseconds and never a wait; memory is bounded, and what finds no room is
counted; a batch that could not be written is written again and stands there once. What `kill -9` takes with it is what
was noted since the last batch, a second or so. Knows neither HTTP messages nor what an interaction does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from fhir_sched import auditing
from fhir_sched.audit_rows import Batch, Note
from fhir_sched.auditing import Trail
from fhir_sched.outcome import FhirError, Kind

if TYPE_CHECKING:
    from fhir_sched.db.lanes import Lanes
    from fhir_sched.security.caller import Caller

log = logging.getLogger("fhir_sched.audit")

ROOM: Final = 20_000
"""Events that wait in memory at most, while the database is away."""
BATCH: Final = 500
"""Events of one tenant that are written together at most, but for the patients that the last of them names."""
EVERY_S = 1.0
"""How long an event waits for others at most."""
UNKNOWN_ROOM: Final = 200
"""Events of requests without a valid token between two batches: whoever has none can't push out what others did."""
_LAST_S: Final = 2.0
_PASSING: Final = frozenset({Kind.UNAVAILABLE, Kind.THROTTLED, Kind.LOCK})
_CALLER: Final = 10


class Journal:
    """One for each process. `dropped` counts the events that were lost, `written` those in the database."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._open: dict[str, Batch] = {}
        self._full: deque[Batch] = deque()
        self._waiting = 0
        self._unknown = 0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.server = socket.gethostname()[:255]
        self.dropped = 0
        self.written = 0

    def start(self) -> None:
        """Begin to write what is noted."""
        self._task = asyncio.get_running_loop().create_task(self._write_for_ever())

    async def close(self) -> None:
        """Write what is there, for two seconds at most, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            self._gather()
            async with asyncio.timeout(_LAST_S):
                await self._write()
        except TimeoutError:
            self.dropped += self._waiting
            log.exception("%d audit events could not be written before the end", self._waiting)

    def trail(self, tenant: str, caller: Caller, address: str, request_id: bytes) -> Trail:
        """What a request takes along to the changes that it makes."""
        tell = partial(self.note, tenant, caller=caller, request_id=request_id, address=address)
        return Trail(caller, address, self.server, request_id.decode("ascii"), tell)

    def note(
        self,
        tenant: str,
        method: str,
        segments: Sequence[str],
        query: bytes,
        status: int,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        sent: bytes = b"",
        criteria: bytes = b"",
        caller: Caller | None,
        request_id: bytes,
        address: str,
        bundle: str = "",
    ) -> None:
        """Remember one interaction; `body` is what was answered, `sent` what the client sent, as far as they count.

        Of bodies only the patients that they refer to are kept. `criteria` are those that stood elsewhere than in the
        URL (a form, If-None-Exist). `headers` tell the version and what was made, `bundle` what was posted to the base.
        """
        patients = auditing.shown_patients(body) if body else set()
        if sent:
            patients |= auditing.written_patients(sent)
        at = time.time_ns()
        self.add(
            (
                tenant,
                at,
                method,
                segments,
                bundle,
                query,
                criteria,
                status,
                headers,
                patients,
                caller,
                request_id,
                address,
            )
        )

    def add(self, note: Note) -> None:
        """Remember one interaction, if there is room."""
        if self._waiting >= ROOM:
            self.dropped += 1
            return
        if note[_CALLER] is None:
            self._unknown += 1
            if self._unknown > UNKNOWN_ROOM:
                self.dropped += 1
                return
        tenant = note[0]
        batch = self._open.get(tenant)
        if batch is None:
            batch = self._open[tenant] = Batch(tenant, self.server)
        self._waiting += batch.add(note)
        if batch.number >= BATCH:
            self._full.append(self._open.pop(tenant))
            self._wake.set()

    # writing

    async def _write_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + EVERY_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            self._wake.clear()
            if loop.time() >= due:
                self._gather()
                due = loop.time() + EVERY_S
            if not await self._write():
                await asyncio.sleep(EVERY_S)

    def _gather(self) -> None:
        """Let what waits be written, however little it is."""
        self._unknown = 0
        self._full.extend(self._open.values())
        self._open = {}

    async def _write(self) -> bool:
        """Write the batches that are full; False when the database does not take them now."""
        while self._full:
            batch = self._full[0]
            try:
                await self._lanes.write(batch.tenant, batch.fragment())
                self.written += batch.number
            except Exception as error:
                # whatever is wrong with a batch, those behind it must not be lost with it
                if isinstance(error, FhirError) and error.issues[0].kind in _PASSING:
                    return False
                self.dropped += batch.number
                log.exception("%d audit events were refused by the database", batch.number)
            self._full.popleft()
            self._waiting -= batch.number
        return True
