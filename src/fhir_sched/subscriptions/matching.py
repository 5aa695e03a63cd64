"""Which of some foci fulfil conditions, asked of the database: as few statements as there can be.

Law: a focus is judged by the version that its event is about. Knows neither topics nor subscribers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fhir_sched.db.fragment import Fragment
from fhir_sched.resources import SLOT
from fhir_sched.search import branches
from fhir_sched.search.among import among
from fhir_sched.search.predicate import Arguments
from fhir_sched.search.query import Condition
from fhir_sched.subscriptions.changes import Focus
from fhir_sched.subscriptions.database import Ask, array, statement, text

_SLOTS: Final = SLOT.sources[0]


async def fulfilling(ask: Ask, tenant: str, conditions: Sequence[Condition], foci: Sequence[Focus]) -> list[bool]:
    """For each focus whether it fulfils all conditions."""
    if not conditions:
        return [True] * len(foci)
    found = [False] * len(foci)
    for wave in _waves(foci):
        first = foci[wave[0]]
        fragment = among(first.resource, first.source, conditions, [foci[place].seen for place in wave], tenant)
        ids = await _ids(ask, fragment)
        for place in wave:
            found[place] = foci[place].row_id in ids
    for place, focus in enumerate(foci):
        if focus.within is not None:
            found[place] = bool(await _ids(ask, _made(focus, focus.within, conditions, tenant)))
    return found


def _waves(foci: Sequence[Focus]) -> list[list[int]]:
    """The places of the foci in groups of one table, in which no row occurs twice."""
    waves: dict[tuple[str, int], list[int]] = defaultdict(list)
    met: dict[tuple[str, str], int] = defaultdict(int)
    for place, focus in enumerate(foci):
        if focus.within is None:
            row = (focus.source.table, focus.row_id)
            waves[focus.source.table, met[row]].append(place)
            met[row] += 1
    return list(waves.values())


async def with_versions(ask: Ask, tenant: str, foci: Sequence[Focus]) -> list[Focus | None]:
    """The foci, those without a version with the current one; None for what is gone."""
    unknown: dict[str, set[str]] = defaultdict(set)
    for focus in foci:
        if focus.version is None:
            unknown[focus.source.table].add(focus.row_id)
    current: dict[tuple[str, str], int] = {}
    for table, ids in unknown.items():
        wanted = f"select id, version\nfrom {table}\nwhere tenant_id = $1::uuid and id = any($2::uuid[])"
        for row in await ask(statement(wanted, tenant, array(ids))):
            current[table, text(row[0])] = int(row[1] or b"0")
    return [_at(focus, current.get((focus.source.table, focus.row_id))) for focus in foci]


def _at(focus: Focus, version: int | None) -> Focus | None:
    if focus.version is not None:
        return focus
    return None if version is None else replace(focus, version=version)


async def _ids(ask: Ask, fragment: Fragment | None) -> set[str]:
    if fragment is None:
        return set()
    return {text(row[0]) for row in await ask(fragment)}


def _made(focus: Focus, between: tuple[str, str], conditions: Sequence[Condition], tenant: str) -> Fragment | None:
    """One of the slots between two times of a schedule that fulfils the conditions."""
    args = Arguments(tenant)
    own = (
        f"a.schedule_id = {args.add(focus.row_id)}::uuid and a.start_at >= {args.add(between[0])}::timestamptz "
        f"and a.end_at <= {args.add(between[1])}::timestamptz"
    )
    found = branches.selects(SLOT, _SLOTS, conditions, args)
    selects = "\nunion all\n".join(
        f"(select a.id\nfrom {tables}\nwhere {where}\nand {own}\nlimit 1)" for tables, where in found
    )
    return Fragment(selects, tuple(args.values)) if found else None
