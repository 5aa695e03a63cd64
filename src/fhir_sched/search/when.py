"""Dates of a search -> SQL. R4 3.1.1.4.7, read in the zone of the schedule where the date has no offset.

A local date is narrowed by an indexed range that is wide enough for the zones of the tenant's schedules, then decided
exactly on the local time of each row, so that the days on which a clock jumps come out right. Knows nothing of other
parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fhir_sched.binding import InstantColumn, PeriodColumns
from fhir_sched.search.query import DateValue

Add = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Zone:
    """How a statement finds the zone of a row: an SQL expression, and whether it is one value for all rows."""

    expression: str = "'UTC'"
    pinned: bool = False


def predicate(value: DateValue, binding: InstantColumn | PeriodColumns, alias: str, zone: Zone, add: Add) -> str:
    """The SQL of one date value on one column or period."""
    if isinstance(binding, PeriodColumns):
        return _period(value, binding, alias, zone, add)
    column = f"{alias}.{binding.column}"
    present = f" and {column} < 'infinity'" if binding.nullable else ""
    if value.local and binding.zone:
        return _local(value, column, present, zone, add)
    # Each end is bound only where the prefix needs it: a statement must use every argument it is given.
    match value.prefix:
        case "ne":
            return f"({column} < {_bound(value.low, add)} or {column} >= {_bound(value.high, add)}{present})"
        case "gt" | "sa":
            return f"({column} >= {_bound(value.high, add)}{present})"
        case "ge":
            return f"({column} >= {_bound(value.low, add)}{present})"
        case "lt" | "eb":
            return f"({column} < {_bound(value.low, add)})"
        case "le":
            return f"({column} < {_bound(value.high, add)})"
        case _:
            return f"({column} >= {_bound(value.low, add)} and {column} < {_bound(value.high, add)})"


def _bound(moment: datetime, add: Add) -> str:
    """A bound timestamptz; a naive moment is in UTC."""
    return f"{add(_text(moment) + ('' if moment.tzinfo else '+00'))}::timestamptz"


def _text(moment: datetime) -> str:
    return moment.isoformat(sep=" ")


def _local(value: DateValue, column: str, present: str, zone: Zone, add: Add) -> str:
    local = f"timezone({zone.expression}, {column})"
    match value.prefix:
        case "ne":
            low, high = add(_text(value.low)), add(_text(value.high))
            return f"(({local} < {low}::timestamp or {local} >= {high}::timestamp){present})"
        case "gt" | "sa":
            return f"({_from(value.high, column, local, zone, add)}{present})"
        case "ge":
            return f"({_from(value.low, column, local, zone, add)}{present})"
        case "lt" | "eb":
            return f"({_until(value.low, column, local, zone, add)})"
        case "le":
            return f"({_until(value.high, column, local, zone, add)})"
        case _:
            return f"({_from(value.low, column, local, zone, add)} and {_until(value.high, column, local, zone, add)})"


def _from(moment: datetime, column: str, local: str, zone: Zone, add: Add) -> str:
    exact = add(_text(moment))
    return f"{column} >= {_edge(zone, exact, 'least', 'min', '-')} and {local} >= {exact}::timestamp"


def _until(moment: datetime, column: str, local: str, zone: Zone, add: Add) -> str:
    exact = add(_text(moment))
    return f"{column} < {_edge(zone, exact, 'greatest', 'max', '+')} and {local} < {exact}::timestamp"


def _edge(zone: Zone, exact: str, outer: str, inner: str, sign: str) -> str:
    """The first or last instant that may have this local time; no clock jumps by as much as three hours."""
    if zone.pinned:
        return f"timezone({zone.expression}, {exact}::timestamp) {sign} interval '3 hours'"
    zones = f"{inner}(timezone(zone, {exact}::timestamp)), timezone('UTC', {exact}::timestamp)"
    return f"(select {outer}({zones}) {sign} interval '3 hours' from schedules where tenant_id = $1::uuid)"


def _period(value: DateValue, binding: PeriodColumns, alias: str, zone: Zone, add: Add) -> str:
    """R4 3.1.1.4.5 on ranges: the period `[s, e)` against the value `[low, high)`; a missing end is infinite."""
    start = f"coalesce({alias}.{binding.low}, '-infinity')"
    end = f"coalesce({alias}.{binding.high}, 'infinity')"

    def low() -> str:
        return _period_bound(value.low, value.local, zone, add)

    def high() -> str:
        return _period_bound(value.high, value.local, zone, add)

    def inside() -> str:
        return f"({start} >= {low()} and {end} <= {high()})"

    match value.prefix:
        case "ne":
            found = f"not {inside()}"
        case "gt":
            found = f"{end} > {high()}"
        case "ge":
            found = f"({end} > {high()} or {inside()})"
        case "lt":
            found = f"{start} < {low()}"
        case "le":
            found = f"({start} < {low()} or {inside()})"
        case "sa":
            found = f"{start} >= {high()}"
        case "eb":
            found = f"{end} <= {low()}"
        case "ap":
            found = f"({start} < {high()} and {end} > {low()})"
        case _:
            found = inside()
    return f"({alias}.{binding.flag} and {found})"


def _period_bound(moment: datetime, local: bool, zone: Zone, add: Add) -> str:
    return f"timezone({zone.expression}, {add(_text(moment))}::timestamp)" if local else _bound(moment, add)
