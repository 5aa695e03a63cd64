"""What create, update and patch share: a document becomes columns, a row becomes the answer. R4 3.1.0.8, 3.1.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fhir_sched import mapping, statements
from fhir_sched.definition import Resource, Source
from fhir_sched.document import parse
from fhir_sched.element import Columns
from fhir_sched.interactions import subscribing
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.r4.finding import a
from fhir_sched.scheduling import rules
from fhir_sched.validate import resource_issues


def checked(resource: Resource, document: dict[str, Any]) -> None:
    """Raises FhirError 400 with all that is not valid R4, else 422 with all rules that are broken."""
    issues = resource_issues(document, resource.type) or rules.issues(document)
    if issues:
        raise FhirError.of(issues)


def columns_of(context: Context, resource: Resource, source: Source, document: dict[str, Any]) -> Columns:
    """The columns of a valid resource; 422 where a rule of scheduling forbids it."""
    if resource.type == "Subscription":
        return subscribing.columns(context, source, document)
    return mapping.to_columns(resource, source, document, context.base).columns


def columns_of_change(context: Context, resource: Resource, source: Source, document: dict[str, Any]) -> Columns:
    """The columns of a valid resource that is there already; 422 also where it would belong to another table."""
    belongs = resource.source_of(document)
    if belongs is not source and belongs.mark is not None and belongs.mark[0] == "extension":
        raise FhirError(
            Kind.BUSINESS_RULE,
            f"{a(resource.type)} can't get the extension {belongs.mark[1]} later; POST a new one with it",
            f"{resource.type}.extension",
        )
    return columns_of(context, resource, source, document)


async def changed(
    context: Context,
    resource: Resource,
    source: Source,
    row_id: str,
    columns: Columns,
    versions: tuple[str, ...] | None,
    code: str,
) -> Answer | None:
    """200 with the changed row; None when there is none or its version is not one of `versions` (None: any).

    `code` is that of the interaction, update or patch.
    """
    change = statements.update(source, row_id, columns, context.tenant, versions)
    (rows,) = await context.work.write(context.recorded(change, resource, source, code))
    row = rows.first()
    return None if row is None else answer(context, resource, source, row, 200)


def answer(context: Context, resource: Resource, source: Source, row: Sequence[bytes | None], status: int) -> Answer:
    """The written row as answer, with the URL of its version."""
    row_id, version = (row[0] or b"").decode(), (row[1] or b"").decode()
    location = f"{context.base}/{resource.type}/{source.prefix}-{row_id}/_history/{version}"
    body = context.shown(resource, source, row)
    return Answer(status, body, row[1], row[2], location, remarks=tuple(_remarks(source, body)))


def _remarks(source: Source, body: bytes) -> Iterator[Issue]:
    """A warning for each resource that the written one names as being in its way, of those that the caller sees."""
    urls = {url for url, _ in source.naming if url.encode() in body}
    for extension in parse(body)["extension"] if urls else ():
        if extension["url"] in urls:
            named = extension["valueReference"]["reference"]
            why = f"{named} was booked before in the time that is blocked now; it was left as it is"
            yield Issue(Kind.CONFLICT, why, severity="warning")
