"""What a search asks for, as a tree of values. R4 3.1.1. Made by `parse`, read by `sql`; nothing is left to parse."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from fhir_sched.definition import Param, ReferenceParam, Resource
from fhir_sched.record import record


@dataclass(frozen=True, slots=True)
class DateValue:
    """A date with its prefix (eq ne gt lt ge le sa eb ap): the interval `[low, high)`, naive when `local`."""

    prefix: str
    low: datetime
    high: datetime
    local: bool


@dataclass(frozen=True, slots=True)
class TokenValue:
    """`system|code`: system None means any, "" means none; code None means any code of the system."""

    system: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """A reference: the type ("" any), the id, or the URL of something on another server."""

    type: str
    id: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class UriValue:
    """An exact URI, or the text of a string parameter."""

    uri: str


Value = DateValue | TokenValue | ReferenceValue | UriValue


@dataclass(frozen=True, slots=True)
class Criterion:
    """One parameter of the request: any of the values.

    `modifier` is "", "not", "missing", "text", "identifier" or "exact". For `missing`, `missing` is the answer wanted
    and there are no values. `seen_by` are references of patients who may not know of others: of a list of people then
    only those of them and of staff count; () for whoever sees all.
    """

    param: Param
    values: tuple[Value, ...]
    modifier: str = ""
    missing: bool = False
    seen_by: tuple[str, ...] = ()

    @property
    def tokens(self) -> list[TokenValue]:
        """Those of the values that are tokens."""
        return [value for value in self.values if isinstance(value, TokenValue)]


@dataclass(frozen=True, slots=True)
class Chain:
    """`schedule.actor=…`: the resource that the reference points at fulfils the criterion, and all `limits`."""

    param: ReferenceParam
    target: Resource
    criterion: Condition
    limits: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Has:
    """`_has:Slot:schedule:status=free`: some resource that points here fulfils the criterion, and all `limits`."""

    resource: Resource
    param: ReferenceParam
    criterion: Condition
    limits: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the groups holds, each with all of its conditions. No group: nothing matches."""

    groups: tuple[tuple[Condition, ...], ...]


Condition = Criterion | Chain | Has | AnyOf


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort key."""

    param: Param
    descending: bool


@record
class Position:
    """A place between two rows in the order of the search: the last row's key as text, and which way to go on."""

    keys: tuple[str, ...]
    source: int
    backward: bool


@dataclass(frozen=True, slots=True)
class Include:
    """`_include=Slot:schedule[:Schedule]`; `reverse` for `_revinclude`, `iterate` to follow what was included.

    `limits` must hold for what is included.
    """

    source: Resource
    param: ReferenceParam
    target: str
    reverse: bool = False
    iterate: bool = False
    limits: tuple[Condition, ...] = ()


@record
class Query:
    """A whole search of one type.

    `used` are the parameters that counted, as written, for the self link; `ignored` are sentences about the others.
    `total` is "none", "estimate", "accurate" or "" (only when it costs nothing). `path` is that of the links: "" the
    base itself, None the type. A search of several types has one Query for each: the others are in `also`.
    """

    resource: Resource
    conditions: tuple[Condition, ...]
    sort: tuple[Sort, ...]
    count: int
    count_only: bool = False
    total: str = ""
    includes: tuple[Include, ...] = ()
    position: Position | None = None
    used: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = field(default=())
    summary: str = ""
    elements: tuple[str, ...] = ()
    path: str | None = None
    presented: tuple[tuple[str, str], ...] = ()
    also: tuple[Query, ...] = ()

    @property
    def backward(self) -> bool:
        """Whether the page ends at its position instead of beginning there."""
        return self.position is not None and self.position.backward
