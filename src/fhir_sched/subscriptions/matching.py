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
from fhir_sched.search.among import among, together
from fhir_sched.search.predicate import Arguments
from fhir_sched.search.query import Condition
from fhir_sched.subscriptions.changes import Focus
from fhir_sched.subscriptions.database import Ask, array, statement, text

_SLOTS: Final = SLOT.sources[0]


async def fulfilling(ask: Ask, tenant: str, conditions: Sequence[Condition], foci: Sequence[Focus]) -> list[bool]:
    """For each focus whether it fulfils all conditions."""
    (found,) = await fulfilling_each(ask, tenant, [conditions], foci)
    return found


async def fulfilling_each(
    ask: Ask, tenant: str, wanted: Sequence[Sequence[Condition]], foci: Sequence[Focus]
) -> list[list[bool]]:
    """The same for several lists of conditions; those that differ in values alone are asked for together."""
    found = [[not conditions] * len(foci) for conditions in wanted]
    asked = [place for place, conditions in enumerate(wanted) if conditions]
    lists = [wanted[place] for place in asked]
    if not lists:
        return found
    for wave in _waves(foci):
        first = foci[wave[0]]
        fragments = among(first.resource, first.source, lists, [foci[place].seen for place in wave], tenant)
        matched = await _matched(ask, fragments)
        for number, place in enumerate(asked):
            for at in wave:
                found[place][at] = (number, foci[at].row_id) in matched
    for at, focus in enumerate(foci):
        if focus.within is not None:
            matched = await _matched(ask, _made(focus, focus.within, lists, tenant))
            fits = {number for number, _ in matched}
            for number, place in enumerate(asked):
                found[place][at] = number in fits
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


async def _matched(ask: Ask, fragments: Sequence[Fragment]) -> set[tuple[int, str]]:
    """Place and id of what the statements find."""
    return {(int(text(row[0])), text(row[1])) for fragment in fragments for row in await ask(fragment)}


def _made(focus: Focus, between: tuple[str, str], wanted: Sequence[Sequence[Condition]], tenant: str) -> list[Fragment]:
    """One of the slots between two times of a schedule that fulfils the conditions, for each list of them."""
    args = Arguments(tenant)
    own = (
        f"a.schedule_id = {args.add(focus.row_id)}::uuid and a.start_at >= {args.add(between[0])}::timestamptz "
        f"and a.end_at <= {args.add(between[1])}::timestamptz"
    )

    def body(conditions: Sequence[Condition], more: Arguments) -> str:
        found = branches.selects(SLOT, _SLOTS, conditions, more)
        return "\nunion all\n".join(
            f"(select a.id\nfrom {tables}\nwhere {where}\nand {own}\nlimit 1)" for tables, where in found
        )

    return together("", args, wanted, body)
