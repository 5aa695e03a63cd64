"""What create and update share: a body becomes columns, a row becomes the answer. R4 3.1.0.8, 3.1.0.4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fhir_sched import mapping
from fhir_sched.definition import Resource, Source
from fhir_sched.element import Columns
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.outcome import FhirError
from fhir_sched.scheduling import rules
from fhir_sched.validate import resource_issues


def checked(resource: Resource, document: dict[str, Any]) -> None:
    """Raises FhirError 400 with all that is not valid R4, else 422 with all rules that are broken."""
    issues = resource_issues(document, resource.type) or rules.issues(document)
    if issues:
        raise FhirError.of(issues)


def columns_of(context: Context, resource: Resource, source: Source, document: dict[str, Any]) -> Columns:
    """The columns of a valid resource; 422 where a rule of scheduling forbids it."""
    return mapping.to_columns(resource, source, document, context.base).columns


def answer(context: Context, resource: Resource, source: Source, row: Sequence[bytes | None], status: int) -> Answer:
    """The written row as answer, with the URL of its version."""
    row_id, version = (row[0] or b"").decode(), (row[1] or b"").decode()
    location = f"{context.base}/{resource.type}/{source.prefix}-{row_id}/_history/{version}"
    return Answer(status, mapping.to_json(resource, source, row), row[1], row[2], location)
