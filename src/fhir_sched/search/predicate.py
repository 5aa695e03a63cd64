"""What statements are put together from: predicates, the two that never and always hold, and bound arguments.

A condition is met by a column or by an entry in the side table (`Either`), so that each can run on its own index.
Beneath row-level security only leakproof operators become index conditions: `=`, `<` and the like on plain types.
Knows no search parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fhir_sched.codec import text_array
from fhir_sched.definition import Resource, Source
from fhir_sched.search.when import Zone

EMPTY = "false"
ALL = "true"


@dataclass(frozen=True, slots=True)
class Either:
    """Two ways to fulfil a condition; either may be EMPTY."""

    column: str
    side: str = EMPTY

    def joined(self) -> str:
        """Both as one predicate."""
        parts = [part for part in (self.column, self.side) if part != EMPTY]
        return f"({' or '.join(parts)})" if parts else EMPTY


class Arguments:
    """The bound arguments of a statement, in order; `$1` is the tenant."""

    def __init__(self, tenant: str) -> None:
        self.values: list[bytes | None] = [tenant.encode()]

    def add(self, value: str) -> str:
        """The placeholder of a new argument."""
        self.values.append(value.encode())
        return f"${len(self.values)}"

    def one_of(self, expression: str, values: Iterable[str], cast: str) -> str:
        """`expression = $n` or `expression = any($n)`; false for no values."""
        listed = sorted(set(values))
        if not listed:
            return EMPTY
        if len(listed) == 1:
            return f"{expression} = {self.add(listed[0])}::{cast}"
        return f"{expression} = any({self.add(text_array(listed).decode())}::{cast}[])"


@dataclass(frozen=True, slots=True)
class Row:
    """Whose rows a clause is about: a resource, one of its sources, its alias in the statement, its zone."""

    resource: Resource
    source: Source
    alias: str
    zone: Zone

    @property
    def position(self) -> int:
        """Which of the resource's sources it is."""
        return self.resource.sources.index(self.source)


def any_of(predicates: Iterable[str]) -> str:
    """One of the predicates holds; EMPTY for none."""
    parts = [part for part in predicates if part != EMPTY]
    if len(parts) < 2:
        return parts[0] if parts else EMPTY
    return f"({' or '.join(parts)})"


def all_of(predicates: Sequence[str]) -> str:
    """All of the predicates hold, a line each."""
    return "\n  and ".join(predicates)


def negated(predicate: str) -> str:
    """The predicate does not hold, or is unknown."""
    if predicate in (EMPTY, ALL):
        return ALL if predicate == EMPTY else EMPTY
    return f"({predicate}) is not true"
