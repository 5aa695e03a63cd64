"""Searches beyond one type: the whole system with `_type`, and compartments. R4 3.1.1.2, 2.42 (CompartmentDefinition).

Made of the same Query as a search of one type. Knows nothing of SQL or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fhir_sched.definition import ReferenceParam, Resource
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.r4.primitives import PATTERNS
from fhir_sched.search.parse import NOT_OURS, Parser
from fhir_sched.search.query import Criterion, Query, ReferenceValue, Sort
from fhir_sched.search.result import READERS

_is_id = PATTERNS["id"].fullmatch
COMPARTMENTS = {
    "Patient": ("Appointment", "Schedule"),
    "Practitioner": ("Appointment", "Schedule"),
    "RelatedPerson": ("Appointment", "Schedule"),
    "Device": ("Appointment", "Schedule"),
}
"""The compartments whose members are served here; membership is by `actor` (Slots belong to none)."""

Pairs = Sequence[tuple[str, str]]


def system(parser: Parser, pairs: Pairs, *, strict: bool) -> Query:
    """The Query of `GET [base]?_type=…`: all types without `_type`; only parameters that each of them has."""
    named = [word for name, text in pairs if name == "_type" for word in text.split(",") if word]
    unknown = [word for word in named if word not in parser.resources]
    if unknown:
        raise FhirError(Kind.NOT_SUPPORTED, f"_type {', '.join(unknown)}: served are {', '.join(parser.resources)}")
    resources = [parser.resources[name] for name in dict.fromkeys(named)] or list(parser.resources.values())
    return _several(parser, resources, pairs, "", (), strict=strict)


def compartment(parser: Parser, kind: str, fhir_id: str, wanted: str, pairs: Pairs, *, strict: bool) -> Query:
    """The Query of `Patient/[id]/Appointment?…` or, for `*`, of all members. Raises 404 for any other type."""
    members = COMPARTMENTS[kind]
    if wanted not in (*members, "*"):
        raise FhirError(Kind.NO_SUCH_ROUTE, f"the {kind} compartment has no {wanted}; it has {', '.join(members)}")
    if not _is_id(fhir_id):
        raise FhirError(Kind.NOT_FOUND, f"{fhir_id[:100]!a} is not an id, so there is no {kind} of it")
    resources = [parser.resources[name] for name in (members if wanted == "*" else (wanted,))]
    return _several(parser, resources, pairs, f"{kind}/{fhir_id}/{wanted}", (kind, fhir_id), strict=strict)


def _several(
    parser: Parser, resources: Sequence[Resource], pairs: Pairs, path: str, member: tuple[str, ...], *, strict: bool
) -> Query:
    shared = [pair for pair in pairs if _shared(pair[0], resources)]
    left_out = [name for name, _ in pairs if not _shared(name, resources)]
    warnings = tuple(f"not every type searched has the parameter {name!r}; it was not used" for name in left_out)
    if strict and warnings:
        raise FhirError(Kind.NOT_SUPPORTED, warnings[0])
    queries = []
    for resource in resources:
        within = (_member(resource, *member),) if member else ()
        query = parser.query(
            resource, [pair for pair in shared if pair[0] != "_type"], strict=strict, path=path, within=within,
            tied=tuple(pair for pair in shared if pair[0] == "_type"),
        )  # fmt: skip
        if len(resources) > 1 and not any(name == "_sort" for name, _ in shared):
            query = replace(query, sort=(Sort(resource.param["_id"], False),))
        queries.append(query)
    if len({tuple((sort.param.name, sort.descending) for sort in query.sort) for query in queries}) > 1:
        raise FhirError(Kind.NOT_SUPPORTED, "several types can be sorted by _id and _lastUpdated only")
    return replace(queries[0], also=tuple(queries[1:]), ignored=(*queries[0].ignored, *warnings))


def _shared(name: str, resources: Sequence[Resource]) -> bool:
    code = name.partition(":")[0].partition(".")[0]
    return code in READERS or code in NOT_OURS or code == "_type" or all(code in each.param for each in resources)


def _member(resource: Resource, kind: str, fhir_id: str) -> Criterion:
    param = resource.param["actor"]
    if not isinstance(param, ReferenceParam):
        raise TypeError(f"{resource.type}.actor is no reference")
    return Criterion(param, (ReferenceValue(kind, fhir_id),))
