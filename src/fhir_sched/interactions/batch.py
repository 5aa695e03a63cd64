"""batch: R4 3.1.0.11.1. Each entry stands alone: one that is refused leaves the others as they are. Always 200."""

from __future__ import annotations

import logging
from typing import Any

from fhir_sched.interactions import entries
from fhir_sched.interactions.audited import audited
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.dispatch import perform
from fhir_sched.interactions.idempotent import once
from fhir_sched.outcome import FhirError, Kind

log = logging.getLogger("fhir_sched.batch")


async def batch(
    context: Context, listed: list[dict[str, Any]], manner: entries.Manner, mark: tuple[str, str] | None
) -> Answer:
    """200 with a batch-response, one entry for each entry, in their order.

    `mark` is the Idempotency-Key and fingerprint of the whole: each entry is done once under it.
    """
    answers = [
        await _one(context, entry, manner, None if mark is None else (f"{mark[0]} entry {index}", mark[1]))
        for index, entry in enumerate(listed)
    ]
    return Answer(200, entries.response_bundle("batch", answers))


async def _one(context: Context, entry: dict[str, Any], manner: entries.Manner, mark: tuple[str, str] | None) -> bytes:
    try:
        call = entries.call(context, entry, manner)

        async def work(own: Context) -> Answer:
            if mark is None or call.method == "GET":
                return await perform(own, call)
            return await once(own, *mark, lambda inside: perform(inside, call))

        answer = await audited(context, call, work)
        return entries.answered(answer, call.method, manner.wanted)
    except FhirError as error:
        return entries.refused(error)
    except Exception:
        log.exception("entry failed: %s", entry["request"].get("method"))
        return entries.refused(FhirError(Kind.EXCEPTION, "The server failed; the failure has been logged."))
