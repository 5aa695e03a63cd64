"""update: R4 3.1.0.4 (PUT [type]/[id]), with If-Match (3.1.0.6). Brings a deleted resource back with 201."""

from __future__ import annotations

from typing import Any

from fhir_sched import statements
from fhir_sched.definition import Resource, Source
from fhir_sched.element import Columns
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Condition, Context, version_conflict
from fhir_sched.interactions.read import deleted_version
from fhir_sched.outcome import FhirError, Kind


async def update(
    context: Context, resource: Resource, fhir_id: str, document: dict[str, Any], condition: Condition | None
) -> Answer:
    """200 with the new version, 201 for one that was deleted before.

    Raises 400 (not valid R4, or another id in the body), 405 (never existed: clients don't choose ids), 409, 412, 422.
    """
    if document.get("resourceType") == resource.type and document.get("id") != fhir_id:
        raise FhirError(
            Kind.INVALID,
            f"the body must have the id of the URL, {fhir_id!r}, not {document.get('id')!r}",
            f"{resource.type}.id",
        )
    write.checked(resource, document)
    found = resource.parse_id(fhir_id)
    if found is None:
        raise unknown(resource, fhir_id)
    source, row_id = found
    columns = write.columns_of_change(context, resource, source, document)
    versions = condition.versions or None if condition is not None else None
    answer = await write.changed(context, resource, source, row_id, columns, versions, "update")
    if answer is not None:
        return answer
    return await _not_updated(context, resource, source, fhir_id, row_id, columns, condition)


async def _not_updated(
    context: Context,
    resource: Resource,
    source: Source,
    fhir_id: str,
    row_id: str,
    columns: Columns,
    condition: Condition | None,
) -> Answer:
    """No row fitted: another version, a deleted resource (which comes back), or none at all."""
    (rows,) = await context.work.read(statements.read(source, row_id, context.tenant))
    current = rows.first()
    if current is not None:
        raise version_conflict(resource, fhir_id, current[1])
    if await deleted_version(context, source, row_id) is None:
        raise unknown(resource, fhir_id)
    if condition is not None and not condition.absent:
        raise version_conflict(resource, fhir_id, None)
    if resource.type == "Appointment":
        columns = {**columns, "created_by": context.subject.encode()}
    made = statements.insert(source, columns, context.tenant, row_id)
    (rows,) = await context.work.write(context.recorded(made, resource, source, "update", 201))
    (row,) = rows.all()
    return write.answer(context, resource, source, row, 201)


def unknown(resource: Resource, fhir_id: str) -> FhirError:
    """405: there never was such a resource, and an update can't make one."""
    return FhirError(
        Kind.METHOD,
        f"there is no {resource.type}/{fhir_id}, and ids are given by the server: create it with POST {resource.type}",
        headers=(("Allow", "GET, HEAD, DELETE"),),
    )
