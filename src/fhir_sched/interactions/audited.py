"""The events of a Bundle's entries: each entry is an interaction and leaves its own, as if it had come alone.

A change that was made has left its event with itself; this tells of the others, and of changes that were undone.
Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlencode

from fhir_sched.document import dumps
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.outcome import FhirError


async def audited(context: Context, call: Call, work: Callable[[Context], Awaitable[Answer]]) -> Answer:
    """What `work` answers for an entry of a batch; its event is left whatever becomes of it."""
    if context.trail is None:
        return await work(context)
    inside = replace(context, trail=context.trail.entry())
    try:
        answer = await work(inside)
    except FhirError as error:
        tell(context, call, error.status)
        raise
    if inside.trail is not None and not (inside.trail.written or inside.trail.operated):
        tell(context, call, answer.status, answer)
    return answer


def tell(context: Context, call: Call, status: int, answer: Answer | None = None) -> None:
    """Leave the event of an entry that no statement has left; without answer it was not done."""
    if context.trail is None:
        return
    context.trail.tell(
        call.method,
        [context.tenant, *call.path],
        urlencode(call.pairs).encode(),
        status,
        headers=_headers(answer),
        body=b"" if answer is None else answer.body,
        sent=dumps(call.body()) if answer is None else b"",
        criteria=(call.none_exist or "").encode(),
    )


def _headers(answer: Answer | None) -> list[tuple[bytes, bytes]]:
    if answer is None:
        return []
    location = [(b"location", answer.location.encode("latin-1"))] if answer.location else []
    return [*location, (b"etag", answer.version)] if answer.version else location
