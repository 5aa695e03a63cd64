"""An operation as it was asked for: what the work of every operation is given. R4 3.2. Knows no operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.given import Given
from fhir_sched.operation import Operation


@dataclass(frozen=True, slots=True)
class Invocation:
    """An operation that was asked for: with its inputs, on which instance ("" at the other levels), by which call."""

    operation: Operation
    fhir_id: str
    given: Given
    call: Call


Action = Callable[[Context, Invocation], Awaitable[Answer]]
