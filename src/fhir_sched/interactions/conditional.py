"""Conditional create, update, patch, delete: R4 3.1.0.8.1, 3.1.0.4.3, 3.1.0.7.1. One transaction each.

The search and the change happen under a lock on the criteria, so that of many clients with the same If-None-Exist one
creates and the others find. Unknown parameters are refused here whatever the handling: leaving one out would match
more than was meant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from urllib.parse import urlencode

from fhir_sched.db.fragment import Fragment
from fhir_sched.db.work import Work
from fhir_sched.definition import Resource
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.resources import RESOURCES
from fhir_sched.search import sql
from fhir_sched.search.parse import Parser
from fhir_sched.search.query import Query
from fhir_sched.search.result import READERS

Pairs = Sequence[tuple[str, str]]
_LOCK = "select pg_advisory_xact_lock(hashtextextended($1, 0))"


async def under_lock(
    context: Context, resource: Resource, pairs: Pairs, step: Callable[[Context, str | None], Awaitable[Answer]]
) -> Answer:
    """What `step` answers, given the id of the one match or None for no match; all in one transaction.

    Raises 400 for criteria that are none or not understood, 412 when several match.
    """
    query = _criteria(context, resource, pairs)

    async def locked(work: Work) -> Answer:
        inside = replace(context, work=work)
        return await step(inside, await _only_match(inside, resource, query))

    return await context.work.atomically(locked)


async def only_match(context: Context, resource: Resource, pairs: Pairs) -> str | None:
    """The id of the one match or None; the criteria stay locked to the end of the transaction that this is in."""
    return await _only_match(context, resource, _criteria(context, resource, pairs))


def _criteria(context: Context, resource: Resource, pairs: Pairs) -> Query:
    for name, _ in pairs:
        if name.partition(":")[0] in READERS:
            raise FhirError(Kind.INVALID, f"{name} has no place in the criteria of a conditional interaction")
    query = Parser(RESOURCES, context.base, context.tenant).query(resource, pairs, strict=True)
    if not query.conditions:
        raise FhirError(Kind.INVALID, "a conditional interaction needs criteria, such as identifier=system|value")
    return replace(context.guard.query(query), count=1)


async def _only_match(context: Context, resource: Resource, query: Query) -> str | None:
    key = f"{context.tenant} {resource.type} {urlencode(sorted(query.used))}"
    await context.work.read(Fragment(_LOCK, (key.encode(),)))
    plan = sql.search(query, context.tenant)
    if plan.fragment is None:
        return None
    (rows,) = await context.work.read(plan.fragment)
    found = rows.all()
    if len(found) > 1:
        raise FhirError(
            Kind.MULTIPLE_MATCHES, f"several {resource.type} resources match; use criteria that only one fulfils"
        )
    if not found:
        return None
    _, source, row = plan.read(found[0])
    return f"{source.prefix}-{(row[0] or b'').decode()}"
