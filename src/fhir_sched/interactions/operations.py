"""An operation -> what it does, and the scopes without which it does not begin. R4 3.2.

The operations themselves are declared in `resources.operations`; each one's work is a module of its own. Knows nothing
of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping

from fhir_sched.interactions.book import book
from fhir_sched.interactions.book_series import book_series
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.find import find
from fhir_sched.interactions.generate_slots import generate_slots
from fhir_sched.interactions.given import given
from fhir_sched.interactions.hold import hold
from fhir_sched.interactions.invocation import Action, Invocation
from fhir_sched.interactions.paging import first_call
from fhir_sched.interactions.subscription_status import events, status
from fhir_sched.operation import Operation
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.security.decision import decide
from fhir_sched.security.guard import refused

ACTIONS: Mapping[str, Action] = {
    "appointment-find": find,
    "appointment-hold": hold,
    "appointment-book": book,
    "appointment-book-series": book_series,
    "schedule-generate-slots": generate_slots,
    "subscription-events": events,
    "subscription-status": status,
}
"""What each operation does, by the id of its definition."""


async def invoke(context: Context, call: Call, operation: Operation, fhir_id: str) -> Answer:
    """The operation's answer. Raises 403 beyond the scopes, 400 for inputs that it does not take."""
    if operation.public:
        raise FhirError(Kind.NOT_SUPPORTED, f"{operation.word} is asked for by itself, not in a Bundle")
    for kind, letters in operation.needs:
        for letter in letters:
            if not decide(context.caller, letter, kind).allowed:
                raise refused(letter, kind)
    inputs = given(operation, first_call(call, context.tenant) if operation.paged else call)
    return await ACTIONS[operation.id](context, Invocation(operation, fhir_id, inputs, call))
