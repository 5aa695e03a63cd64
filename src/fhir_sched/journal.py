"""The events of reads and refusals: gathered in memory, written in batches by a task of their own. R4 6.4, IHE BALP.

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
from functools import partial
from typing import TYPE_CHECKING, Final

from fhir_sched import auditing
from fhir_sched.audit_rows import Batch, Note
from fhir_sched.auditing import Trail
from fhir_sched.outcome import FhirError, Kind

if TYPE_CHECKING:
    from fhir_sched.db.fragment import Fragment
    from fhir_sched.db.lanes import Lanes
    from fhir_sched.security.caller import Caller

log = logging.getLogger("fhir_sched.audit")

ROOM: Final = 20_000
"""Events that wait in memory at most, while the database is away."""
BATCH: Final = 500
EVERY_S = 1.0
"""How long an event waits for others at most."""
UNKNOWN_ROOM: Final = 200
"""Events of requests without a valid token between two batches: whoever has none can't push out what others did."""
_LAST_S: Final = 2.0
_MANY: Final = 1000
_AT_ONCE: Final = 50
_CALLER: Final = 10


class Journal:
    """One for each process. `dropped` counts the events that were lost, `written` those in the database."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._notes: list[Note] = []
        self._open: dict[str, Batch] = {}
        self._batches: deque[tuple[str, Fragment, int]] = deque()
        self._waiting, self._room = 0, ROOM
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
            async with asyncio.timeout(_LAST_S):
                await self._write()
        except TimeoutError:
            self.dropped += self._waiting + len(self._notes)
            log.exception("%d audit events could not be written before the end", self._waiting + len(self._notes))

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
        notes = self._notes
        number = len(notes)
        if number >= self._room:
            self.dropped += 1
            return
        if note[_CALLER] is None:
            self._unknown += 1
            if self._unknown > UNKNOWN_ROOM:
                self.dropped += 1
                return
        notes.append(note)
        if number >= BATCH:
            self._wake.set()

    # writing

    async def _write_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not await self._write():
                await asyncio.sleep(EVERY_S)

    async def _write(self) -> bool:
        """Write everything that has been noted; False when the database does not take it now."""
        while self._notes or self._open or self._batches:
            await self._pack()
            tenant, fragment, number = self._batches[0]
            try:
                await self._lanes.write(tenant, fragment)
                self.written += number
            except FhirError as error:
                if error.issues[0].kind in (Kind.UNAVAILABLE, Kind.THROTTLED, Kind.LOCK):
                    return False
                self.dropped += number
                log.exception("%d audit events were refused by the database", number)
            self._batches.popleft()
            self._count(-number)
        return True

    async def _pack(self) -> None:
        """Make statements of the oldest notes, one for each tenant; a few at a time, since requests wait meanwhile."""
        number = 0
        while self._notes and number < _MANY:
            notes, self._notes = self._notes[:_AT_ONCE], self._notes[_AT_ONCE:]
            self._unknown = 0
            for note in notes:
                batch = self._open.get(note[0])
                if batch is None:
                    batch = self._open[note[0]] = Batch(note[0], self.server)
                before = batch.number
                batch.add(note)
                self._count(batch.number - before)
            number += len(notes)
            await asyncio.sleep(0)
        done, self._open = self._open, {}
        self._batches += [(tenant, batch.fragment(), batch.number) for tenant, batch in done.items()]

    def _count(self, number: int) -> None:
        self._waiting += number
        self._room = ROOM - self._waiting
