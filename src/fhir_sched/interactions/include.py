"""_include and _revinclude: the resources that matches refer to, or that refer to them. R4 3.1.1.5.3.

One round trip for each step and table; types that are not served here resolve to nothing. Nothing appears twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from fhir_sched import bundle
from fhir_sched.binding import References
from fhir_sched.definition import Resource, Source
from fhir_sched.interactions.context import Context
from fhir_sched.reference import of_element
from fhir_sched.resources import RESOURCES
from fhir_sched.search import sql
from fhir_sched.search.query import Condition, Criterion, Include, Query, ReferenceValue, Sort, TokenValue

REVERSE_LIMIT = 1000
MAX_STEPS = 5

Row = Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Found:
    """One resource on the page, as its row."""

    resource: Resource
    source: Source
    row: Row

    @property
    def key(self) -> tuple[str, bytes | None]:
        """What tells it from all others: the prefix of its source and its UUID."""
        return self.source.prefix, self.row[0]

    @property
    def fhir_id(self) -> str:
        """`slt-<uuid>`."""
        return f"{self.source.prefix}-{(self.row[0] or b'').decode()}"


async def included(context: Context, query: Query, matches: Sequence[Found]) -> tuple[list[bytes], list[str]]:
    """The entries that the includes of a query add to its matches, and what to warn of."""
    if not query.includes:
        return [], []
    seen = {each.key for each in matches}
    warnings: list[str] = []
    entries: list[bytes] = []
    fresh = list(matches)
    for step in range(MAX_STEPS):
        steps = [include for include in query.includes if include.iterate or step == 0]
        found = [each for include in steps for each in await _follow(context, include, fresh, warnings)]
        distinct = {each.key: each for each in found}
        fresh = [each for key, each in distinct.items() if key not in seen]
        seen |= distinct.keys()
        entries += _entries(context, fresh)
        if not fresh:
            break
    return entries, warnings


def _entries(context: Context, found: Sequence[Found]) -> list[bytes]:
    """An entry for each; those of one table that follow each other are written together."""
    entries: list[bytes] = []
    for source, group in groupby(found, lambda each: each.source):
        listed = list(group)
        resource = listed[0].resource
        rows = [each.row for each in listed]
        entries += bundle.entries(context.base, resource, source, rows, context.writer(resource, source), b"include")
    return entries


async def _follow(context: Context, include: Include, found: Sequence[Found], warnings: list[str]) -> list[Found]:
    if include.reverse:
        return await _referring(context, include, found, warnings)
    return await _referred(context, include, found)


async def _referred(context: Context, include: Include, found: Sequence[Found]) -> list[Found]:
    wanted: dict[str, list[str]] = {}
    for each in found:
        if each.resource.type == include.source.type:
            for kind, fhir_id in _hosted(include, each, context.base):
                if include.target in ("", kind):
                    wanted.setdefault(kind, []).append(fhir_id)
    results = []
    for kind, ids in wanted.items():
        results += await _by_ids(context, RESOURCES[kind], ids, include.limits)
    return results


async def _by_ids(
    context: Context, resource: Resource, ids: Iterable[str], limits: tuple[Condition, ...]
) -> list[Found]:
    if limits:
        return await _within(context, resource, ids, limits)
    by_source: dict[str, set[str]] = {}
    for source, row_id in filter(None, (resource.parse_id(fhir_id) for fhir_id in ids)):
        by_source.setdefault(source.prefix, set()).add(row_id)
    sources = [resource.source[prefix] for prefix in by_source]
    fragments = [sql.by_ids(source, sorted(by_source[source.prefix]), context.tenant) for source in sources]
    if not fragments:
        return []
    results = await context.work.read(*fragments)
    return [Found(resource, source, row) for source, rows in zip(sources, results, strict=True) for row in rows.all()]


async def _within(
    context: Context, resource: Resource, ids: Iterable[str], limits: tuple[Condition, ...]
) -> list[Found]:
    """Those of the resources that the caller may see."""
    wanted = tuple(TokenValue(None, fhir_id) for fhir_id in dict.fromkeys(ids))
    conditions = (Criterion(resource.param["_id"], wanted), *limits)
    order = (Sort(resource.param["_id"], descending=False),)
    plan = sql.search(Query(resource, conditions, order, len(wanted)), context.tenant)
    if plan.fragment is None:
        return []
    (rows,) = await context.work.read(plan.fragment)
    return [Found(*plan.read(row)) for row in rows.all()]


def _hosted(include: Include, found: Found, base: str) -> Iterable[tuple[str, str]]:
    """Type and id of each reference of the parameter that points at a resource served here."""
    binding = include.param.bindings[found.resource.sources.index(found.source)]
    if not isinstance(binding, References) or not binding.prefix:
        return
    column = binding.columns[0]
    value = found.row[found.source.columns.index(column.column)]
    if value is not None:
        yield column.type, f"{binding.prefix}-{value.decode()}"
    kept = json.loads(found.row[3]) if binding.entry and found.row[3] else {}
    for item in kept.get(include.param.path[0], ()):
        target = of_element(item, base)
        if target is not None and target.type == column.type and not target.url:
            yield column.type, target.id


async def _referring(context: Context, include: Include, found: Sequence[Found], warnings: list[str]) -> list[Found]:
    ids = [each.fhir_id for each in found if each.resource.type in include.param.targets]
    if not ids or include.target not in ("", *(each.resource.type for each in found)):
        return []
    criterion = Criterion(include.param, tuple(ReferenceValue("", fhir_id) for fhir_id in ids))
    order = (Sort(include.source.param[include.source.default_sort], False),)
    plan = sql.search(Query(include.source, (criterion, *include.limits), order, REVERSE_LIMIT), context.tenant)
    if plan.fragment is None:
        return []
    (rows,) = await context.work.read(plan.fragment, slow=True)
    all_rows = rows.all()
    if len(all_rows) > REVERSE_LIMIT:
        warnings.append(
            f"_revinclude={include.source.type}:{include.param.name} shows the first {REVERSE_LIMIT}; "
            f"search {include.source.type} itself for all"
        )
    return [Found(*plan.read(row)) for row in all_rows[:REVERSE_LIMIT]]
