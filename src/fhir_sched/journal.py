"""The events of reads and refusals: gathered in memory, written in batches by a task of their own. R4 6.4, IHE BALP.

Laws: to note an event costs a request a few microseconds and never a wait; memory is bounded, and what finds no room is
counted; a batch that could not be written is written again and stands there once. What `kill -9` takes with it is what
was noted since the last batch, a second or so. Knows neither HTTP messages nor what an interaction does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from fhir_sched import auditing
from fhir_sched.auditing import Trail
from fhir_sched.db.fragment import Fragment
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.search.values import form

if TYPE_CHECKING:
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
_URL: Final = "!#$%&'()*+,/:;=?@[]~"
_MANY: Final = 1000

Note: TypeAlias = (
    "tuple[str, float, str, Sequence[str], str, bytes, bytes, int, Sequence[tuple[bytes, bytes]], set[str], "
    "Caller | None, bytes, str]"
)
"""Tenant, time, method, path, bundle, query, criteria, status, headers, patients, caller, request id, address."""

_TYPES: Final = {
    "id": "uuid", "at": "double precision", "interaction": "text", "action": "text", "status": "integer",
    "type": "text", "entity": "text", "entity_version": "integer", "patient": "text", "query": "text",
    "client": "text", "subject": "text", "issuer": "text", "agent": "text", "address": "text", "request_id": "text",
}  # fmt: skip
_NAMES: Final = ", ".join(_TYPES)
_ARRAYS: Final = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(_TYPES.values(), 3))
_INSERT: Final = f"""
insert into audit_events (tenant_id, server, {_NAMES.replace(" at,", " recorded_at,")})
select $1::uuid, $2, {_NAMES.replace(" at,", " to_timestamp(e.at),")}
from unnest({_ARRAYS}) e ({_NAMES})
on conflict (tenant_id, id) do nothing"""  # noqa: S608 - the names above
"""One row an element; a batch that is sent again because nobody knows what became of it adds nothing."""


class Journal:
    """One for each process. `dropped` counts the events that were lost, `written` those in the database."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._notes: list[Note] = []
        self._batches: deque[tuple[str, Fragment, int]] = deque()
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
        path: Sequence[str],
        query: bytes,
        status: int,
        *,
        headers: Sequence[tuple[bytes, bytes]],
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
        if len(self._notes) + self._waiting >= ROOM:
            self.dropped += 1
            return
        if caller is None:
            self._unknown += 1
            if self._unknown > UNKNOWN_ROOM:
                self.dropped += 1
                return
        patients = auditing.shown_patients(body) if body else set()
        if sent:
            patients |= auditing.written_patients(sent)
        at = time.time()
        self._notes.append(
            (tenant, at, method, path, bundle, query, criteria, status, headers, patients, caller, request_id, address)
        )
        if len(self._notes) >= BATCH:
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
        while self._notes or self._batches:
            self._pack()
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
            self._waiting -= number
        return True

    def _pack(self) -> None:
        """Make statements of the oldest notes, one for each tenant."""
        notes, self._notes = self._notes[:_MANY], self._notes[_MANY:]
        self._unknown = 0
        by_tenant: dict[str, list[Note]] = {}
        for note in notes:
            by_tenant.setdefault(note[0], []).append(note)
        for tenant, listed in by_tenant.items():
            fragment, number = _batch(tenant, self.server, listed)
            self._batches.append((tenant, fragment, number))
            self._waiting += number


def _batch(tenant: str, server: str, notes: Iterable[Note]) -> tuple[Fragment, int]:
    """The insert of these notes, and how many rows it makes."""
    agents: dict[int, tuple[str, ...]] = {}
    rows = [row for note in notes for row in _rows(tenant, note, agents)]
    ids = iter(_ids(len(rows)))
    columns = zip(*((next(ids), *row) for row in rows), strict=True)
    arrays = (("{" + ",".join(column) + "}").encode() for column in columns)
    return Fragment(_INSERT, (tenant.encode(), server.encode(), *arrays)), len(rows)


def _ids(number: int) -> Iterator[str]:
    """UUIDs of version 7 (RFC 9562): what is written together stands together in the index."""
    head = f"{int(time.time() * 1000):012x}7"
    text = os.urandom(9 * number).hex()
    for place in range(0, 18 * number, 18):
        yield f"{head}{text[place : place + 3]}8{text[place + 3 : place + 18]}"


def _rows(tenant: str, note: Note, agents: dict[int, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The elements of the arrays behind the id: one row for each patient, one if there is none."""
    _, at, method, path, bundle, query, criteria, status, headers, shown, caller, request_id, address = note
    sent = dict(headers) if headers else {}
    kind, entity = auditing.named(path, sent.get(b"location", b"").decode("latin-1"))
    code = auditing.interaction(method, path, bundle)
    said = auditing.query_of(path, _text(query), _text(criteria)) if query or criteria else None
    patients = {found for text in shown if (found := auditing.patient(text, tenant))}
    if code.startswith("search") or criteria:
        patients |= _sought(tenant, path, (query, criteria), caller)
    who = agents.get(id(caller))
    if who is None:
        who = agents[id(caller)] = _agent(caller)
    action = auditing.ACTIONS.get(code, "E")
    begin = (repr(at), code, action, str(status), kind or "NULL", entity or "NULL", _version(sent))
    end = (_quoted(said), *who, _quoted(address), request_id.decode("ascii") or "NULL")
    for patient in sorted(patients) or (None,):
        yield (*begin, _quoted(patient), *end)


def _agent(caller: Caller | None) -> tuple[str, ...]:
    given = ("", "", "", "") if caller is None else (caller.client, caller.sub, caller.issuer, caller.user)
    return tuple(map(_quoted, given))


def _sought(tenant: str, path: Sequence[str], encoded: Sequence[bytes], caller: Caller | None) -> set[str]:
    """The patients that were asked about, and the one to whom the caller is limited."""
    try:
        pairs = [pair for part in encoded for pair in form(_text(part))]
    except FhirError:
        pairs = []
    asked = [*auditing.sought_patients(path, pairs), *([caller.patient] if caller is not None else [])]
    return {found for text in asked if (found := auditing.patient(text, tenant))}


def _version(headers: dict[bytes, bytes]) -> str:
    """The version that the ETag names; it can't be a version where it is no number."""
    digits = headers.get(b"etag", b"").removeprefix(b'W/"').removesuffix(b'"')
    return digits.decode("ascii") if digits.isdigit() and len(digits) < 10 else "NULL"


def _text(encoded: bytes) -> str:
    """The query as a URL has it: what may not stand in one is percent-encoded."""
    text = encoded.decode("latin-1")
    return text if text.isascii() and text.isprintable() else quote(encoded, safe=_URL)


def _quoted(text: str | None) -> str:
    """An element of PostgreSQL's array literal; NULL for nothing."""
    if not text:
        return "NULL"
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
