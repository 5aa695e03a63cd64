"""$bulk-publish: a tenant's published files as streams, and the marks that tell whether they have changed.

SMART Scheduling Links. A file is read in batches by keyset, each a short transaction of its own, so that a million
slots hold neither memory, nor a connection, nor an old snapshot while a client takes its time. What changes meanwhile
may be in a file or not; its mark is another one then, so the next request gets it. A slot that the clinic's rules keep
patients from booking now, too soon or too far ahead, is shown as busy. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from fhir_sched import rendering
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.rows import Rows
from fhir_sched.document import dumps
from fhir_sched.publishing import lines
from fhir_sched.publishing.publication import Publication
from fhir_sched.resources import SCHEDULE
from fhir_sched.search.bookable import occupying, ruled

Read = Callable[[Fragment], Awaitable[Rows]]
"""Runs one statement of the tenant, as a transaction by itself."""

BATCH: Final = 2000
"""Rows of one statement: some milliseconds of the database, some hundred kilobytes of text."""

_SCHEDULES = SCHEDULE.sources[0]
_FIRST: Final = b"00000000-0000-0000-0000-000000000000"
# JSON has no infinity.
_SHOWN: Final = """s.tenant_id = $1::uuid
  and s.fhir_status <> 'entered-in-error'
  and s.start_at < $2::timestamptz
  and s.end_at < '9999-12-31'
"""
_CLOSED: Final = "(s.start_at < r.earliest or s.start_at > r.latest)"
_RULED: Final = "with " + ruled("'portal'") + "\n"
_THEIR_RULES: Final = (
    "left join ruled own on own.schedule_id = s.schedule_id\n"
    "join ruled r on r.schedule_id is not distinct from own.schedule_id\n"
)
# How many may still book a slot. Only a shared one is looked at closer: it is free until it is full.
_OCCUPYING: Final = occupying("a", "clock_timestamp()")
_PLACES: Final = f"""case
    when s.fhir_status <> 'free' or {_CLOSED} then 0
    when s.capacity = 1 then 1
    else greatest(s.capacity - (
        select count(*) from appointments a
        where a.tenant_id = s.tenant_id and a.slot_id = s.id and {_OCCUPYING}
    ) - (
        select count(*) from extra_slots x join appointments a on a.tenant_id = x.tenant_id and a.id = x.appointment_id
        where x.tenant_id = s.tenant_id and x.slot_id = s.id and {_OCCUPYING}
    ), 0)
end"""


def _shown(column: str) -> str:
    if column != "fhir_status":
        return f"s.{column}"
    return f"case when s.fhir_status = 'free' and {_CLOSED} then 'busy' else s.fhir_status end"


_SLOTS: Final = (
    # The rows are counted out before anything is joined: so no plan reads all slots for one batch.
    f"{_RULED}select {', '.join(map(_shown, lines.SLOT_COLUMNS))},\n"
    f"{_PLACES}, c.is_active\n"
    f"from (\nselect *\nfrom slots s\nwhere {_SHOWN}"
    f"  and (s.start_at, s.id) > ($3::timestamptz, $4::uuid)\norder by s.start_at, s.id\nlimit {BATCH}\n) s\n"
    f"join schedules c on c.tenant_id = s.tenant_id and c.id = s.schedule_id\n{_THEIR_RULES}order by s.start_at, s.id"
)
_SLOTS_MARK: Final = (
    f"{_RULED}select count(*), bit_xor(uuid_hash_extended(s.id, s.version * 16384::bigint + {_PLACES})), now(),\n"
    "    greatest(max(s.updated_at), (\n"
    "    select max(h.updated_at) from history h where h.tenant_id = $1::uuid and h.table_name = 'slots'\n"
    f"))\nfrom slots s\njoin schedules c on c.tenant_id = s.tenant_id and c.id = s.schedule_id\n{_THEIR_RULES}"
    f"where {_SHOWN}  and s.start_at >= now()\n  and c.is_active"
)
_SCHEDULES_PAGE: Final = (
    f"select {', '.join(_SCHEDULES.select_list)}\nfrom schedules a\nwhere a.tenant_id = $1::uuid\n  and a.is_active\n"
    f"  and a.id > $2::uuid\norder by a.id\nlimit {BATCH}"
)
_SCHEDULES_MARK: Final = (
    "select count(*), bit_xor(uuid_hash_extended(a.id, a.version)), now(), greatest(max(a.updated_at), (\n"
    "    select max(h.updated_at) from history h where h.tenant_id = $1::uuid and h.table_name = 'schedules'\n"
    "))\nfrom schedules a\nwhere a.tenant_id = $1::uuid\n  and a.is_active"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Which content a file had at the moment `seen` of the database's clock.

    `digest` is another one after every change, whatever the base URL. `modified` is when the last row changed whose
    time tells of a change.
    """

    digest: str
    modified: datetime
    seen: datetime


@dataclass(frozen=True)
class Files:
    """The files of one tenant. `home` is a page of this server, for places of which nothing else is known."""

    read: Read
    tenant: str
    base: str
    home: str
    publication: Publication

    async def mark(self, kind: str) -> Mark:
        """The present content of a file, by one statement."""
        slots = kind == "Slot"
        args = (self.tenant.encode(), b"infinity") if slots else (self.tenant.encode(),)
        rows = await self.read(Fragment(_SLOTS_MARK if slots else _SCHEDULES_MARK, args))
        ((count, content, now, modified),) = rows.all()
        told = b"|".join((kind.encode(), count or b"", content or b"", self.publication.text))
        return Mark(blake2b(told, digest_size=12).hexdigest(), _moment(modified), _moment(now))

    def lines(self, kind: str, since: datetime) -> AsyncGenerator[bytes, None]:
        """The file in pieces of whole lines; slots that begin at `since` or later."""
        if kind == "Slot":
            return self._slots(since)
        return self._locations() if kind == "Location" else self._schedule_lines()

    async def _slots(self, since: datetime) -> AsyncGenerator[bytes, None]:
        line = lines.slot_line(self.publication)
        days = self.publication.days
        until = (since + timedelta(days=days)).isoformat().encode() if days else b"infinity"
        start, row_id = since.isoformat().encode(), _FIRST
        while True:
            args = (self.tenant.encode(), until, start, row_id)
            batch = (await self.read(Fragment(_SLOTS, args))).all()
            yield b"".join([line(row) for row in batch if row[-1] == b"t"])
            if len(batch) < BATCH:
                return
            row_id, start = batch[-1][0] or b"", batch[-1][3] or b""

    async def _schedule_lines(self) -> AsyncGenerator[bytes, None]:
        async for batch in self._schedules():
            yield b"".join(lines.schedule_line(each, self._place(each)[0]) for each in batch)

    async def _locations(self) -> AsyncGenerator[bytes, None]:
        """Those of the publication, then those that schedules name besides, each once."""
        told = set(self.publication.locations)
        yield b"".join(dumps(location) + b"\n" for location in self.publication.locations.values())
        async for batch in self._schedules():
            places = dict(reversed([self._place(each) for each in batch]))
            new = {fhir_id: name for fhir_id, name in places.items() if fhir_id not in told}
            told.update(new)
            yield b"".join(dumps(lines.location(*each, self.home)) + b"\n" for each in new.items())

    def _place(self, schedule: dict[str, Any]) -> tuple[str, str]:
        return lines.place(schedule, self.publication, self.base, self.tenant)

    async def _schedules(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        row_id = _FIRST
        while True:
            batch = (await self.read(Fragment(_SCHEDULES_PAGE, (self.tenant.encode(), row_id)))).all()
            yield [rendering.to_resource(SCHEDULE, _SCHEDULES, row) for row in batch]
            if len(batch) < BATCH:
                return
            row_id = batch[-1][0] or b""


def _moment(text: bytes | None) -> datetime:
    """A timestamptz in UTC; the beginning of 1970 where there is none, or none that Python knows."""
    try:
        return datetime.fromisoformat((text or b"").decode())
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)
