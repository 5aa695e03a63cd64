"""The order of a search, and the place in it where a page begins. R4 3.1.1.5.1 (Sorting). Pure: no connection, no I/O.

A page begins behind a row (keyset), not at an offset: docs/adr/0014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_sched.binding import BooleanColumn, CodeColumn, Fixed, IdColumn, InstantColumn, References
from fhir_sched.definition import Source
from fhir_sched.search.branches import Branch
from fhir_sched.search.predicate import Arguments, all_of
from fhir_sched.search.query import Query, Sort


@dataclass(frozen=True, slots=True)
class Part:
    """One branch of a page: the query it comes from and the place of its source among all sources of the search."""

    query: Query
    branch: Branch
    place: int


def sort_keys(part: Part) -> list[tuple[str, str, bool]]:
    """Sort keys with type and direction, the id last; the id follows the first key's direction."""
    branch, sort = part.branch, part.query.sort
    keys = [(*_key(each, branch.source, branch.position, "a"), each.descending) for each in sort]
    return [*keys, ("a.id", "uuid", sort[0].descending)]


def _key(sort: Sort, source: Source, position: int, alias: str) -> tuple[str, str]:
    """The expression of a sort key on a source, and its SQL type."""
    match sort.param.bindings[position]:
        case InstantColumn(column):
            return f"{alias}.{column}", "timestamptz"
        case IdColumn():
            return f"{alias}.id", "uuid"
        case CodeColumn(column):
            return f"{alias}.{column}", "text"
        case Fixed(code):
            return f"'{code}'::text", "text"
        case BooleanColumn(column):
            return f"{alias}.{column}", "boolean"
        case References(columns):
            return f"{alias}.{columns[0].column}", "uuid"
    raise TypeError(f"{source.table} has no order by {sort.param.name}")


def order_by(names: Sequence[str], keys: Sequence[tuple[str, str, bool]], backward: bool) -> str:
    """What follows `order by`, of the keys under these names."""
    return ", ".join(f"{name}{' desc' if key[2] != backward else ''}" for name, key in zip(names, keys, strict=True))


def where(part: Part, keys: Sequence[tuple[str, str, bool]], args: Arguments) -> str:
    """What follows `where`: the branch's conditions, and behind the position."""
    after = _after(part, keys, args)
    return all_of([*part.branch.where, after] if after else part.branch.where)


def _after(part: Part, keys: Sequence[tuple[str, str, bool]], args: Arguments) -> str | None:
    """The predicate `behind the position`: a row comparison where all keys run the same way."""
    place = part.query.position
    if place is None:
        return None
    bound = [f"{args.add(text)}::{kind}" for text, (_, kind, _) in zip(place.keys, keys, strict=True)]
    down = [key[2] != place.backward for key in keys]
    reach = "=" if (part.place > place.source) != down[-1] and part.place != place.source else ""
    if len(set(down)) == 1:
        left, right = ", ".join(key[0] for key in keys), ", ".join(bound)
        return f"({left}) {'<' if down[0] else '>'}{reach} ({right})"
    return _mixed([key[0] for key in keys], bound, down, reach)


def _mixed(names: Sequence[str], bound: Sequence[str], down: Sequence[bool], reach: str) -> str:
    """The same for keys of both directions: equal so far and then behind, key by key."""
    parts = []
    for index, name in enumerate(names):
        equal = [f"{names[i]} = {bound[i]}" for i in range(index)]
        last = reach if index == len(names) - 1 else ""
        parts.append(" and ".join([*equal, f"{name} {'<' if down[index] else '>'}{last} {bound[index]}"]))
    return f"({' or '.join(f'({part})' for part in parts)})"
