"""search: R4 3.1.1 (GET [type]?…, POST [type]/_search) -> a searchset Bundle with keyset links.

One round trip for a page, one more for each kind of include. Knows nothing of HTTP: it is given a Query.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_sched import bundle
from fhir_sched.bundle import searchset, url
from fhir_sched.definition import Resource, Source
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.include import Found, included
from fhir_sched.search import page, shapes, sql
from fhir_sched.search.query import Position, Query
from fhir_sched.subset import Part

Row = tuple[bytes | None, ...]


async def search(context: Context, query: Query) -> Answer:
    """200 with the page that the query asks for, of what the caller may see. Raises 403 where that is nothing."""
    if not context.caller.everything:
        query = context.guard.query(query)
    if query.count_only:
        number = await _counted(context, query, None)
        return Answer(200, searchset([], [("self", _self(context, query))], number, query.ignored))
    plan = shapes.search(query, context.tenant)
    rows = await _page(context, plan)
    more = len(rows) > query.count
    shown = rows[: query.count]
    if query.backward:
        shown.reverse()
    further: list[bytes] = []
    warnings: list[str] = []
    if query.includes:
        further, warnings = await included(context, query, [Found(*plan.read(row)) for row in shown])
    total = await _total(context, query, len(shown), more=more)
    links = _links(context, query, plan, shown, more=more)
    entries = _entries(context, query, plan, shown) + further
    return Answer(200, searchset(entries, links, total, (*query.ignored, *warnings)))


def _entries(context: Context, query: Query, plan: sql.Plan, rows: Sequence[Row]) -> list[bytes]:
    """The matches, each as an entry."""
    if plan.only is not None:
        resource, source = plan.sources[plan.only]
        return bundle.entries(context.base, resource, source, rows, _writer(context, query, resource, source))
    found = []
    for row in rows:
        resource, source, columns = plan.read(row)
        write = _writer(context, query, resource, source)
        found += bundle.entries(context.base, resource, source, [columns], write)
    return found


def _writer(context: Context, query: Query, resource: Resource, source: Source) -> bundle.Writer | None:
    """Writes a match, or the part of it that the search asks for; None where it is shown as it is."""
    if not query.summary and not query.elements:
        return context.writer(resource, source)
    part = Part(query.summary, query.elements)
    return lambda row: part.of(context.shown(resource, source, row))


async def _page(context: Context, plan: sql.Plan) -> list[Row]:
    if plan.fragment is None:
        return []
    (rows,) = await context.work.read(plan.fragment, slow=plan.slow)
    return rows.all()


async def _total(context: Context, query: Query, shown: int, *, more: bool) -> int | None:
    """The number of matches over all pages: when asked for, and when it costs nothing because this is all."""
    if query.total == "none":
        return None
    if query.position is None and not more:
        return shown
    if not query.total:
        return None
    return await _counted(context, query, sql.ESTIMATE_LIMIT if query.total == "estimate" else None)


async def _counted(context: Context, query: Query, limit: int | None) -> int:
    fragment = sql.count(query, context.tenant, limit)
    if fragment is None:
        return 0
    (rows,) = await context.work.read(fragment, slow=True)
    return int(rows.get(0, 0) or b"0")


def _self(context: Context, query: Query) -> str:
    return url(context.base, _path(query), (*query.used, *query.presented))


def _path(query: Query) -> str:
    return query.resource.type if query.path is None else query.path


def _links(
    context: Context, query: Query, plan: sql.Plan, shown: Sequence[Row], *, more: bool
) -> list[tuple[str, str]]:
    """self, and where there are other pages first, next and previous."""
    here = _self(context, query)
    joint = "&" if query.used or query.presented else "?"

    def link(position: Position) -> str:
        tie = page.digest(context.tenant, _path(query), query.used)
        return f"{here}{joint}{page.PARAMETER}={page.encode(position, tie)}"

    place = query.position
    links = [("self", here)] if place is None else [("self", link(place)), ("first", here)]
    if not shown:
        return links
    backward = place is not None and place.backward
    if more or backward:
        links.append(("next", link(plan.position(shown[-1], backward=False))))
    if place is not None and (more or not backward):
        links.append(("previous", link(plan.position(shown[0], backward=True))))
    return links
