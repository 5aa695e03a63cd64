"""read: R4 3.1.0.1 (GET [type]/[id]). 404 for what never was, 410 for what was deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime

from fhir_sched import mapping, statements
from fhir_sched.definition import Resource, Source
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Context, etag, located, not_found
from fhir_sched.outcome import FhirError, Kind


async def read(context: Context, resource: Resource, fhir_id: str) -> Answer:
    """The current version of a resource. Raises FhirError 404 or 410."""
    source, row_id = located(resource, fhir_id)
    (rows,) = await context.work.read(statements.read(source, row_id, context.tenant))
    row = rows.first()
    if row is None:
        raise await missing(context, resource, source, fhir_id, row_id)
    return Answer(200, mapping.to_json(resource, source, row), row[1], row[2])


def unchanged(answer: Answer, call: Call) -> Answer:
    """304 when the client has this version already (R4 3.1.0.1.3), else the answer. If-None-Match outranks the date."""
    same = False
    if call.none_match is not None:
        same = not call.none_match.versions or (answer.version or b"").decode() in call.none_match.versions
    elif call.modified_since:
        same = _not_after(answer.modified or b"", call.modified_since)
    return replace(answer, status=304, body=b"") if same else answer


def _not_after(modified: bytes, since: str) -> bool:
    """Whether the row changed no later than an HTTP date, which has whole seconds; False for a date that is none."""
    try:
        moment = parsedate_to_datetime(since)
        return datetime.fromisoformat(f"{modified[:19].decode()}+00:00") <= moment
    except (ValueError, TypeError):
        return False


async def missing(context: Context, resource: Resource, source: Source, fhir_id: str, row_id: str) -> FhirError:
    """Why there is no row: 410 with the version of the deletion, or 404."""
    version = await deleted_version(context, source, row_id)
    if version is None:
        return not_found(resource, fhir_id)
    return FhirError(Kind.GONE, f"{resource.type}/{fhir_id} was deleted", headers=(("ETag", etag(version)),))


async def deleted_version(context: Context, source: Source, row_id: str) -> bytes | None:
    """The version that deleted the row; None when no such row was ever deleted."""
    (rows,) = await context.work.read(statements.last_version(source, row_id, context.tenant))
    last = rows.first()
    return last[0] if last is not None and last[1] == b"t" else None
