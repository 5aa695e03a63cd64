"""create: R4 3.1.0.8 (POST [type]). The client's id is ignored; the same statement takes an Appointment's slots."""

from __future__ import annotations

from typing import Any

from fhir_sched import statements
from fhir_sched.definition import Resource
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Context


async def create(
    context: Context,
    resource: Resource,
    document: dict[str, Any],
    row_id: str | None = None,
    hold_seconds: int | None = None,
) -> Answer:
    """201 with the new resource, `row_id` its UUID if that is chosen already, `hold_seconds` how long it is held.

    Raises 400 (not valid R4), 422 (a rule), 409 (a slot or time that is taken).
    """
    write.checked(resource, document)
    source = resource.source_of(document)
    columns = write.columns_of(context, resource, source, document)
    if resource.type == "Appointment":
        columns["created_by"] = context.subject.encode()
        if source.prefix == "apt":
            columns["source"] = context.origin.encode()
    made = statements.insert(source, columns, context.tenant, row_id, hold_seconds)
    (rows,) = await context.work.write(context.recorded(made, resource, source, "create", 201))
    (row,) = rows.all()
    return write.answer(context, resource, source, row, 201)
