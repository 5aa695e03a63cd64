"""read: R4 3.1.0.1 (GET [type]/[id]). 404 for what never was, 410 for what was deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime

from fhir_sched import statements
from fhir_sched.definition import Resource, Source
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Context, etag, located, not_found
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.search import sql
from fhir_sched.search.query import Condition as Limit
from fhir_sched.search.query import Criterion, Query, Sort, TokenValue


async def read(context: Context, resource: Resource, fhir_id: str) -> Answer:
    """The current version of a resource. Raises FhirError 404 or 410, 403 where the caller may read none of the type.

    What the caller may not see is answered like what is not there.
    """
    limits = context.limits(resource, "r")
    source, row_id = located(resource, fhir_id)
    if limits:
        return await _read_within(context, resource, fhir_id, limits)
    (rows,) = await context.work.read(statements.read(source, row_id, context.tenant))
    row = rows.first()
    if row is None:
        raise await missing(context, resource, source, fhir_id, row_id)
    return Answer(200, context.shown(resource, source, row), row[1], row[2])


async def _read_within(context: Context, resource: Resource, fhir_id: str, limits: tuple[Limit, ...]) -> Answer:
    found = await visible(context, resource, fhir_id, limits)
    if found is None:
        raise not_found(resource, fhir_id)
    source, row = found
    return Answer(200, context.shown(resource, source, row), row[1], row[2])


async def visible(
    context: Context, resource: Resource, fhir_id: str, limits: tuple[Limit, ...]
) -> tuple[Source, Sequence[bytes | None]] | None:
    """The row of a resource that fulfils the limits, None where there is no such row."""
    named = Criterion(resource.param["_id"], (TokenValue(None, fhir_id),))
    order = (Sort(resource.param["_id"], descending=False),)
    plan = sql.search(Query(resource, (named, *limits), order, 1), context.tenant)
    if plan.fragment is None:
        return None
    (rows,) = await context.work.read(plan.fragment)
    row = rows.first()
    if row is None:
        return None
    _, source, columns = plan.read(row)
    return source, columns


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
