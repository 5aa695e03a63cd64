"""Query -> Plan, as `sql.search`, whose statement is put together once for all searches of one shape.

Portals ask the same few questions with other schedules and days in them. Two searches have one shape when they differ
only in dates (not in their prefixes), in the UUIDs of references and in the page: such values reach a statement as
bound arguments alone. That is not taken on trust: a shape's statement is made twice, of stand-ins, and is remembered
only where both texts are the same and each argument that differs holds the stand-in as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import ReferenceParam, TokenParam
from fhir_sched.search import sql
from fhir_sched.search.query import Chain, Condition, Criterion, DateValue, Query, ReferenceValue, TokenValue

_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_FREE_ID: Final = re.compile(rf"((?:[a-z]{{2,4}}-)?)({_UUID})").fullmatch
_MOST: Final = 1024
# naive, as a local date is; a zone is added where the search's own date has one
_STAND_INS: Final = (
    (datetime.fromisoformat("2001-02-03T04:05:06.078901"), 0xA1),
    (datetime.fromisoformat("2032-11-10T09:08:07.065432"), 0xB2),
)

_Key = tuple[object, ...]
_Free = list[str]


class _Statement:
    """A plan with the arguments that a search of the shape fills in: each of `places` is (argument, before, value,
    behind), both numbers from 0."""

    __slots__ = ("arguments", "places", "plan", "steady", "text")

    def __init__(self, plan: sql.Plan, fragment: Fragment, places: Sequence[tuple[int, str, int, str]]) -> None:
        self.plan = plan
        self.text, self.arguments, self.steady = fragment.text, fragment.args, fragment.steady
        self.places = tuple(places)

    def of(self, tenant: str, free: _Free) -> sql.Plan:
        """The plan of one search."""
        arguments = list(self.arguments)
        arguments[0] = tenant.encode()
        for index, before, place, behind in self.places:
            arguments[index] = f"{before}{free[place]}{behind}".encode()
        plan = self.plan
        filled = Fragment(self.text, tuple(arguments), self.steady)
        return sql.Plan(filled, plan.sources, plan.only, plan.keys, plan.slow)


_REMEMBERED: Final[dict[_Key, _Statement | None]] = {}
_CONDITIONS: Final[dict[int, tuple[Condition, _Key | None, _Free]]] = {}
_MOST_CONDITIONS: Final = 4096


def search(query: Query, tenant: str) -> sql.Plan:
    """What `sql.search` answers."""
    free: _Free = []
    key = _shape(query, free)
    if key is None:
        return sql.search(query, tenant)
    if key not in _REMEMBERED:
        if len(_REMEMBERED) >= _MOST:
            _REMEMBERED.clear()
        _REMEMBERED[key] = _made(query, len(free))
    statement = _REMEMBERED[key]
    return sql.search(query, tenant) if statement is None else statement.of(tenant, free)


# the shape of a search, and the texts of its free values in order


def _shape(query: Query, free: _Free) -> _Key | None:
    """None where a search has values whose place in the statement is not known beforehand."""
    if query.also:
        return None
    parts: list[object] = [query.resource.type, query.count]
    place = query.position
    if place is not None:
        free += place.keys
        parts += (place.source, place.backward, len(place.keys))
    for sort in query.sort:
        parts += (sort.param.name, sort.descending)
    for condition in query.conditions:
        # the parser remembers conditions, so the same ones come again
        known = _CONDITIONS.get(id(condition))
        if known is None or known[0] is not condition:
            known = _remember(condition)
        _, found, values = known
        if found is None:
            return None
        parts.append(found)
        free += values
    return tuple(parts)


def _remember(condition: Condition) -> tuple[Condition, _Key | None, _Free]:
    """The condition with its shape and its free values; as long as it is kept, no other one has its `id`."""
    values: _Free = []
    known = (condition, _condition(condition, values), values)
    if len(_CONDITIONS) >= _MOST_CONDITIONS:
        _CONDITIONS.clear()
    _CONDITIONS[id(condition)] = known
    return known


def _condition(condition: Condition, free: _Free) -> _Key | None:
    if isinstance(condition, Criterion):
        return _criterion(condition, free)
    if isinstance(condition, Chain) and not condition.limits:
        inner = _condition(condition.criterion, free)
        return None if inner is None else (condition.param.name, condition.target.type, inner)
    return None


def _criterion(criterion: Criterion, free: _Free) -> _Key | None:
    if criterion.modifier or criterion.seen_by or len(criterion.values) != 1:
        return None
    param, (value,) = criterion.param, criterion.values
    match value:
        case DateValue(prefix, low, high, local):
            free += (low.isoformat(sep=" "), high.isoformat(sep=" "))
            return (param.name, prefix, local)
        case ReferenceValue(kind, name, "") if isinstance(param, ReferenceParam):
            found = _FREE_ID(name)
            if found is None:
                return None
            free.append(found[2])
            return (param.name, param.targets, kind, found[1])
        case TokenValue(system, code) if isinstance(param, TokenParam) and code in param.codes:
            return (param.name, system, code)
    return None


# a statement of stand-ins


def _made(query: Query, number: int) -> _Statement | None:
    """The statement for all searches of the shape; None where it is not the same for all."""
    plans, cores = [], []
    for moment, digit in _STAND_INS:
        free: _Free = []
        place = query.position
        if place is not None:
            free += (f"stand-in {digit} {index}" for index in range(len(place.keys)))
            place = replace(place, keys=tuple(free))
        conditions = tuple(_replaced(each, moment, digit, free) for each in query.conditions)
        stand_in = replace(query, conditions=conditions, position=place)
        plans.append(sql.search(stand_in, ""))
        cores.append(free)
    first, second = (plan.fragment for plan in plans)
    if first is None or second is None or first.text != second.text or len(first.args) != len(second.args):
        return None
    places = []
    for index, (one, other) in enumerate(zip(first.args, second.args, strict=True)):
        if one != other:
            held = _held(one, cores[0], number)
            if held is None or held != _held(other, cores[1], number):
                return None
            places.append((index, *held))
    return _Statement(plans[0], first, places)


def _held(argument: bytes | None, free: _Free, number: int) -> tuple[str, int, str] | None:
    """Which free value an argument holds, between what."""
    text = (argument or b"").decode()
    found = [place for place in range(number) if free[place] in text]
    if len(found) != 1:
        return None
    before, _, behind = text.partition(free[found[0]])
    return before, found[0], behind


def _replaced(condition: Condition, moment: datetime, digit: int, free: _Free) -> Condition:
    """The condition with stand-ins for its free values, each another one; their texts are added to `free`."""
    if isinstance(condition, Chain):
        return replace(condition, criterion=_replaced(condition.criterion, moment, digit, free))
    if not isinstance(condition, Criterion):
        return condition
    (value,) = condition.values
    number = len(free) + 1
    if isinstance(value, DateValue):
        low = moment + timedelta(days=31 * number)
        high = low + timedelta(days=1)
        low, high = (each if value.low.tzinfo is None else each.replace(tzinfo=UTC) for each in (low, high))
        free += (low.isoformat(sep=" "), high.isoformat(sep=" "))
        return replace(condition, values=(replace(value, low=low, high=high),))
    if isinstance(value, ReferenceValue):
        found = _FREE_ID(value.id)
        before = found[1] if found else ""
        free.append(f"{digit:02x}000000-0000-4000-8000-{number:012x}")
        return replace(condition, values=(replace(value, id=before + free[-1]),))
    return condition
