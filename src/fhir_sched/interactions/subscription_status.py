"""$status and $events of Subscription: how they stand, and what they were told. Backport 1.1.0.

Law: both show what the caller may see of subscriptions, $events no more of the events than the caller may read. Events
come from history, as the resources were. Knows nothing of delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fhir_sched.bundle import url
from fhir_sched.db.fragment import Fragment
from fhir_sched.interactions.context import Answer, Context, located, not_found
from fhir_sched.interactions.invocation import Invocation
from fhir_sched.interactions.read import missing, visible
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.rendering import to_resource
from fhir_sched.resources import SUBSCRIPTION
from fhir_sched.resources.subscription import STATUSES
from fhir_sched.search import sql
from fhir_sched.search.query import Condition, Criterion, Query, Sort, TokenValue
from fhir_sched.search.result import MAX_COUNT
from fhir_sched.subscriptions import told
from fhir_sched.subscriptions.channel import CONTENTS, channel
from fhir_sched.subscriptions.database import Row, array, statement, text
from fhir_sched.subscriptions.notification import Standing, notification, statuses

_LAST = 2**63 - 1
_STANDINGS = (
    "select s.id, s.criteria, s.status, s.events, s.error\nfrom subscriptions s\n"
    "where s.tenant_id = $1::uuid and s.id = any($2::uuid[])\norder by s.id"
)


async def status(context: Context, asked: Invocation) -> Answer:
    """How one Subscription stands, or all that the caller may see (`id` and `status` choose among them)."""
    if asked.fhir_id:
        await _seen(context, asked.fhir_id)
        ids: Sequence[str] = [asked.fhir_id]
    else:
        ids = await _chosen(context, asked.given.every("id"), asked.given.every("status"))
    path = f"Subscription/{asked.fhir_id}/$status" if asked.fhir_id else "Subscription/$status"
    found = [each.removeprefix("sub-") for each in ids]
    return Answer(200, statuses(await _standings(context, found), url(context.base, path, asked.call.pairs)))


async def events(context: Context, asked: Invocation) -> Answer:
    """The events with numbers from eventsSinceNumber to eventsUntilNumber, up to 1,000 of them."""
    row_id = asked.fhir_id.removeprefix("sub-")
    document = await _seen(context, asked.fhir_id)
    content = asked.given.one("content") or channel(document).content
    if content not in CONTENTS:
        raise FhirError(Kind.VALUE, f"content is one of {', '.join(CONTENTS)}, not {content!r}", "content")
    between = _number(asked, "eventsSinceNumber", 1), _number(asked, "eventsUntilNumber", _LAST)
    (standing,) = await _standings(context, [row_id])
    reader = told.Reader(context.caller, context.tenant, context.base)

    async def ask(fragment: Fragment) -> Sequence[Row]:
        (rows,) = await context.work.read(fragment)
        return rows.all()

    found = await told.events(ask, reader, row_id, between, MAX_COUNT, whole=content == "full-resource")
    return Answer(200, notification(standing, "query-event", content, found))


def _number(asked: Invocation, name: str, default: int) -> int:
    written = asked.given.one(name)
    if written is None:
        return default
    if not (written.isascii() and written.isdigit() and int(written[:20]) <= _LAST):
        raise FhirError(Kind.VALUE, f"{name} is the number of an event, not {written[:50]!r}", name)
    return int(written)


async def _seen(context: Context, fhir_id: str) -> dict[str, Any]:
    """The Subscription, if the caller may read it. Raises 404 or 410."""
    limits = context.limits(SUBSCRIPTION, "r")
    source, row_id = located(SUBSCRIPTION, fhir_id)
    found = await visible(context, SUBSCRIPTION, fhir_id, limits)
    if found is not None:
        return to_resource(SUBSCRIPTION, *found)
    raise not_found(SUBSCRIPTION, fhir_id) if limits else await missing(context, SUBSCRIPTION, source, fhir_id, row_id)


async def _chosen(context: Context, ids: Sequence[str], words: Sequence[str]) -> list[str]:
    """The ids of those that the caller may see, among those with one of the ids and one of the statuses."""
    unknown = [word for word in words if word not in STATUSES]
    if unknown:
        raise FhirError(Kind.VALUE, f"status is one of {', '.join(STATUSES)}, not {unknown[0]!r}", "status")
    conditions: list[Condition] = list(context.limits(SUBSCRIPTION, "r"))
    for name, values in (("_id", ids), ("status", words)):
        if values:
            conditions.append(Criterion(SUBSCRIPTION.param[name], tuple(TokenValue(None, value) for value in values)))
    order = (Sort(SUBSCRIPTION.param["_id"], descending=False),)
    plan = sql.search(Query(SUBSCRIPTION, tuple(conditions), order, MAX_COUNT), context.tenant)
    if plan.fragment is None:
        return []
    (rows,) = await context.work.read(plan.fragment)
    return [f"sub-{text(plan.read(row)[2][0])}" for row in rows.all()[:MAX_COUNT]]


async def _standings(context: Context, row_ids: Sequence[str]) -> list[Standing]:
    (rows,) = await context.work.read(statement(_STANDINGS, context.tenant, array(row_ids)))
    return [
        Standing(f"sub-{text(row[0])}", context.base, text(row[1]), text(row[2]), int(text(row[3])), text(row[4]))
        for row in rows.all()
    ]
