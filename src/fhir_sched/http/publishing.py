"""GET $bulk-publish and its files: manifest, NDJSON, validators, gzip. SMART Scheduling Links; RFC 9110 8.8, 12.5, 13.

Laws: no token is asked for, and only the tenants of PUBLISH_TENANTS are there; a file is never in memory as a whole;
what everyone may ask for as often as he likes takes a bounded part of the connections. Knows no column.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import blake2b
from typing import Final

from fhir_sched import document
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.replica import Replica
from fhir_sched.db.rows import Rows
from fhir_sched.http.admission import overloaded
from fhir_sched.http.messages import Pieces, Request, Response, only_get
from fhir_sched.interactions.bulk_publish import Files, Mark, Read
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.publishing.lines import KINDS
from fhir_sched.publishing.publication import Publication, publications
from fhir_sched.resources.operations import BULK_PUBLISH
from fhir_sched.settings import Settings

WORD: Final = BULK_PUBLISH.word
STREAMS: Final = 64
"""Files that one process sends at the same time; each holds a batch of lines."""
_READS: Final = 2
"""Connections that they use at the same time, of the eight for what takes long."""
_COSTLY_S: Final = 0.05
_SHARE: Final = 10
"""A mark that took longer than that is taken for the present one ten times as long."""
_SECOND: Final = timedelta(seconds=1)
_GZIP: Final = 31
_LEVEL: Final = 5


@dataclass(slots=True)
class _Known:
    """The last mark of a file, and until when (by the loop's clock) it is taken for the present one."""

    lock: asyncio.Lock
    mark: Mark | None = None
    until: float = 0.0


class Publishing:
    """What this process publishes, and what it remembers of it."""

    def __init__(self, settings: Settings, lanes: Lanes | Replica) -> None:
        self._publications = publications(settings)
        self._lanes = lanes
        self._reads = asyncio.Semaphore(_READS)
        self._known: dict[tuple[str, str], _Known] = {}
        self._streams = 0

    async def respond(self, base: str, tenant: str, request: Request, path: Sequence[str]) -> Response:
        """The manifest, or the file that the path names. Raises 404 for what is not published, 503 for want of room."""
        found = only_get(request)
        if found is not None:
            return found
        publication, kinds = self._publications.get(tenant), _kinds(path)
        if publication is None or not kinds:
            raise FhirError(Kind.NOT_FOUND, f"nothing is published at /{'/'.join(path)[:200]}")
        files = Files(self._reader(tenant), tenant, base, f"{request.root}/", publication)
        marks = [await self._mark(files, kind) for kind in kinds]
        seen, modified = max(mark.seen for mark in marks), max(mark.modified for mark in marks)
        etag = _etag(base, marks)
        headers = [
            (b"etag", etag),
            (b"last-modified", format_datetime(min(modified, seen), usegmt=True).encode()),
            (b"cache-control", b"public, max-age=%d" % publication.max_age_s),
            (b"vary", b"Accept-Encoding"),
        ]
        if _unchanged(request, etag, modified):
            return Response(304, b"", headers)
        if len(kinds) > 1:
            return Response(200, _manifest(base, publication, seen), headers, b"application/json")
        response = Response(200, b"", headers, b"application/fhir+ndjson")
        response.pieces = self._file(files.lines(kinds[0], seen), response, request)
        return response

    def _reader(self, tenant: str) -> Read:
        async def read(fragment: Fragment) -> Rows:
            async with self._reads:
                (rows,) = await self._lanes.read(tenant, fragment, slow=True)
                return rows

        return read

    # marks

    async def _mark(self, files: Files, kind: str) -> Mark:
        """The present mark of a file. One that was costly to find is kept for a while; one request at a time looks."""
        known = self._known.setdefault((files.tenant, kind), _Known(asyncio.Lock()))
        async with known.lock:
            loop = asyncio.get_running_loop()
            started = loop.time()
            if known.mark is None or started >= known.until:
                known.mark = _following(known.mark, await files.mark(kind))
                took_s = loop.time() - started
                known.until = loop.time() + took_s * _SHARE if took_s > _COSTLY_S else 0.0
            return known.mark

    # files

    def _file(self, pieces: Pieces, response: Response, request: Request) -> Pieces:
        if self._streams >= STREAMS:
            raise overloaded()
        if _takes_gzip(request.header(b"accept-encoding")):
            response.headers.append((b"content-encoding", b"gzip"))
            pieces = _gzipped(pieces)
        return self._counted(pieces)

    async def _counted(self, pieces: Pieces) -> Pieces:
        self._streams += 1
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        finally:
            self._streams -= 1


def _following(before: Mark | None, now: Mark) -> Mark:
    """The mark with a time in a later second than the one before whenever the content is another.

    A row may have been committed after later ones, or its hour may have come: then no row's time tells of the change.
    """
    if before is None:
        return now
    if before.digest == now.digest:
        return replace(now, modified=before.modified)
    next_one, coming = (moment.replace(microsecond=0) + _SECOND for moment in (before.modified, now.seen))
    return replace(now, modified=max(now.modified, min(next_one, coming)))


def _kinds(path: Sequence[str]) -> tuple[str, ...]:
    """The types that a path is about: all for the manifest, one for its file, none where there is nothing."""
    match path:
        case [word] if word == WORD:
            return KINDS
        case [word, name] if word == WORD:
            return tuple(kind for kind in KINDS if name == f"{kind}.ndjson")
    return ()


def _manifest(base: str, publication: Publication, seen: datetime) -> bytes:
    states = sorted({location["address"]["state"] for location in publication.locations.values()})
    extension = {"extension": {"state": states}} if states else {}
    output = [{"type": kind, "url": f"{base}/{WORD}/{kind}.ndjson", **extension} for kind in KINDS]
    time = seen.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return document.dumps({"transactionTime": time, "request": f"{base}/{WORD}", "output": output, "error": []})


def _etag(base: str, marks: Sequence[Mark]) -> bytes:
    """A weak one: the same for each coding, and for each manifest that names the same files."""
    told = "|".join((base, *(mark.digest for mark in marks)))
    return b'W/"%b"' % blake2b(told.encode(), digest_size=12).hexdigest().encode()


def _unchanged(request: Request, etag: bytes, modified: datetime) -> bool:
    """Whether the client has what is there. If-None-Match outranks the date (RFC 9110 13.2.2)."""
    given = request.headers.get(b"if-none-match")
    if given is not None:
        known = {each.strip().removeprefix(b"W/") for each in given.split(b",")}
        return bool(known & {etag.removeprefix(b"W/"), b"*"})
    try:
        return modified.replace(microsecond=0) <= parsedate_to_datetime(request.header(b"if-modified-since"))
    except (ValueError, TypeError):
        return False


def _takes_gzip(header: str) -> bool:
    """Whether Accept-Encoding allows gzip; the word itself outranks the star.

    >>> _takes_gzip("gzip;q=0, *"), _takes_gzip("br, gzip;q=0.5"), _takes_gzip("")
    (False, True, False)
    """
    allowed: dict[str, bool] = {}
    for part in header.lower().split(","):
        coding, _, weight = part.partition(";")
        quality = weight.strip().removeprefix("q=")
        allowed.setdefault(coding.strip(), not weight or quality.strip("0.") != "")
    return allowed.get("gzip", allowed.get("x-gzip", allowed.get("*", False)))


async def _gzipped(pieces: Pieces) -> Pieces:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    async with aclosing(pieces):
        async for piece in pieces:
            # Beside the loop, which has others to serve meanwhile.
            packed = await asyncio.to_thread(packer.compress, piece)
            if packed:
                yield packed
    yield packer.flush()
