"""An HTTP request and its response -> the event of the interaction. R4 6.4, IHE BALP.

The one place where requests are told to the journal, refused ones too; changes have left their event with themselves.
Knows no resource.
"""

from __future__ import annotations

import re
import time
from http import HTTPStatus
from typing import Final

from fhir_sched import auditing
from fhir_sched.http.messages import Request, Response
from fhir_sched.journal import Journal

_BATCH: Final = re.compile(rb'"type"\s*:\s*"batch"')
_OK: Final = 200  # a member of an enumeration compares several times slower
_NOBODY: Final[set[str]] = set()
_READING: Final = ("GET", "HEAD")


def note(journal: Journal, tenant: str, request: Request, response: Response) -> None:
    """Tell the journal; not of OPTIONS, which asks for nothing of the tenant's."""
    method, segments = request.method, request.segments
    if method in _READING:
        shows = response.status == _OK and not _names_nobody(segments)
        patients = auditing.shown_patients(response.body) if shows else _NOBODY
        journal.add(
            (
                tenant, time.time_ns(), method, segments, "", request.query_string, b"", response.status,
                response.headers, patients, request.caller, request.request_id, request.address,
            )
        )  # fmt: skip
    elif method != "OPTIONS" and not _is_told(request, response, segments[1:]):
        _note_change(journal, tenant, request, response, segments[1:])


def _names_nobody(segments: list[str]) -> bool:
    """Whether the patients in the answer don't count.

    A page of the log is about whom it was asked about: were each patient on it a new event, to read the log would
    double it.
    """
    return segments[1:2] == ["AuditEvent"] and segments[2:] in ([], ["_search"])


def _is_told(request: Request, response: Response, path: list[str]) -> bool:
    """Whether the change that was asked for has been made, and has left its event."""
    trail = request.trail
    if trail is None or response.status >= HTTPStatus.BAD_REQUEST:
        return False
    if trail.operated or not trail.written:
        return trail.operated
    return bool(path) and auditing.interaction(request.method, path) in auditing.CHANGES


def _note_change(journal: Journal, tenant: str, request: Request, response: Response, path: list[str]) -> None:
    last = path[-1] if path else ""
    exists = request.headers.get(b"if-none-exist", b"")
    # the entries of a Bundle have told of their patients themselves
    done = response.status < HTTPStatus.BAD_REQUEST
    shows = done and path and not _names_nobody(request.segments)
    journal.note(
        tenant,
        request.method,
        request.segments,
        request.query_string,
        response.status,
        headers=response.headers,
        body=response.body if shows else b"",
        sent=request.body if path and (not done or last[:1] == "$") else b"",
        criteria=request.body if last == "_search" else exists.partition(b"?")[2] or exists,
        caller=request.caller,
        request_id=request.request_id,
        address=request.address,
        bundle="" if path else "batch" if _BATCH.search(request.body[:_HEAD]) else "transaction",
    )


_HEAD: Final = 64 * 1024
