"""An HTTP request and its response -> the event of the interaction. R4 6.4, IHE BALP.

The one place where requests are told to the journal, refused ones too; changes have left their event with themselves.
Knows no resource.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from fhir_sched import auditing
from fhir_sched.http.messages import Request, Response
from fhir_sched.journal import Journal

_BATCH: Final = re.compile(rb'"type"\s*:\s*"batch"')
_READING: Final = ("GET", "HEAD")


def note(journal: Journal, tenant: str, request: Request, response: Response) -> None:
    """Tell the journal; not of OPTIONS, which asks for nothing of the tenant's."""
    method, path = request.method, request.segments[1:]
    if method in _READING:
        journal.note(
            tenant,
            method,
            path,
            request.query_string,
            response.status,
            headers=response.headers,
            body=b"" if response.status >= HTTPStatus.BAD_REQUEST or _names_nobody(request, path) else response.body,
            caller=request.caller,
            request_id=request.request_id,
            address=request.address,
        )
    elif method != "OPTIONS" and not _is_told(request, response, path):
        _note_change(journal, tenant, request, response, path)


def _names_nobody(request: Request, path: list[str]) -> bool:
    """Whether the answer need not be searched for patients.

    Slots alone have none. A page of the log is about whom it was asked about: were each patient on it a new event, to
    read the log would double it.
    """
    if path[:1] == ["Slot"]:
        return b"_revinclude" not in request.query_string
    return path == ["AuditEvent"] or path == ["AuditEvent", "_search"]


def _is_told(request: Request, response: Response, path: list[str]) -> bool:
    """Whether the change that was asked for has been made, and has left its event."""
    if request.trail is None or not request.trail.written or response.status >= HTTPStatus.BAD_REQUEST:
        return False
    return bool(path) and auditing.interaction(request.method, path) in auditing.CHANGES


def _note_change(journal: Journal, tenant: str, request: Request, response: Response, path: list[str]) -> None:
    last = path[-1] if path else ""
    # the entries of a Bundle have told of their patients themselves
    done = response.status < HTTPStatus.BAD_REQUEST
    shows = done and path and not _names_nobody(request, path)
    journal.note(
        tenant,
        request.method,
        path,
        request.query_string,
        response.status,
        headers=response.headers,
        body=response.body if shows else b"",
        sent=request.body if path and (not done or last[:1] == "$") else b"",
        criteria=request.body if last == "_search" else request.headers.get(b"if-none-exist", b"").partition(b"?")[2],
        caller=request.caller,
        request_id=request.request_id,
        address=request.address,
        bundle="" if path else "batch" if _BATCH.search(request.body[:_HEAD]) else "transaction",
    )


_HEAD: Final = 64 * 1024
