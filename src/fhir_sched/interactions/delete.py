"""delete: R4 3.1.0.7 (DELETE [type]/[id]). 204, also for what is not there; 409 while something stands on it."""

from __future__ import annotations

from fhir_sched import statements
from fhir_sched.definition import Resource
from fhir_sched.interactions.context import Answer, Condition, Context, version_conflict


async def delete(context: Context, resource: Resource, fhir_id: str, condition: Condition | None) -> Answer:
    """204 with the version of the deletion as ETag. Raises 409 for what is referred to, 412 for another version."""
    found = resource.parse_id(fhir_id)
    if found is None:
        return Answer(204, b"")
    source, row_id = found
    versions = condition.versions or None if condition is not None else None
    change = statements.delete(source, row_id, context.tenant, versions)
    (rows,) = await context.work.write(context.recorded(change, resource, source, "delete", 204))
    row = rows.first()
    if row is not None and row[0] is not None:
        return Answer(204, b"", str(int(row[0]) + 1).encode())
    if condition is not None:
        (rows,) = await context.work.read(statements.read(source, row_id, context.tenant))
        current = rows.first()
        if current is not None:
            raise version_conflict(resource, fhir_id, current[1])
    return Answer(204, b"")
