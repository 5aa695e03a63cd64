"""patch: R4 3.1.0.6 (PATCH [type]/[id]), with If-Match. Read, change, write like an update: nothing of others is lost.

What is written is guarded by the version that was read. If another writer came between, it is done again with the row
locked; only a client that named its version is told. Knows no patch format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fhir_sched import rendering, statements
from fhir_sched.db.work import Work
from fhir_sched.definition import Resource
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Condition, Context, located, version_conflict
from fhir_sched.interactions.read import missing

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the changed document of one; leaves that one as it was, since it may be asked again."""


async def patch(
    context: Context, resource: Resource, fhir_id: str, change: Change, condition: Condition | None
) -> Answer:
    """200 with the new version.

    Raises what `change` raises, 404, 410, 412 (another version), and what an update raises for the result.
    """
    answer = await _attempt(context, resource, fhir_id, change, condition, lock=False)
    if answer is not None:
        return answer

    async def locked(work: Work) -> Answer:
        inside = replace(context, work=work)
        found = await _attempt(inside, resource, fhir_id, change, condition, lock=True)
        if found is None:
            raise RuntimeError("a locked row was changed by somebody else")
        return found

    return await context.work.atomically(locked)


async def _attempt(
    context: Context, resource: Resource, fhir_id: str, change: Change, condition: Condition | None, *, lock: bool
) -> Answer | None:
    """The answer; None when the version moved after it had been read."""
    source, row_id = located(resource, fhir_id)
    if lock:
        (rows,) = await context.work.read(statements.read_locked(source, row_id, context.tenant))
    else:
        (rows,) = await context.work.read(statements.read(source, row_id, context.tenant))
    row = rows.first()
    if row is None:
        raise await missing(context, resource, source, fhir_id, row_id)
    version = (row[1] or b"").decode()
    if condition is not None and condition.versions and version not in condition.versions:
        raise version_conflict(resource, fhir_id, row[1])
    document = change(rendering.to_resource(resource, source, row))
    write.checked(resource, document)
    columns = write.columns_of_change(context, resource, source, document)
    return await write.changed(context, resource, source, row_id, columns, (version,), "patch")
