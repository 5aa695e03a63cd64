"""Validation of a resource against R4 4.0.1: everything that is wrong with it, each with its place and what is right.

Covers structure, JSON rules, primitives, cardinality, required codes, reference targets, contained resources and
invariants. Knows neither this server's rules of booking nor what is stored.
"""

from __future__ import annotations

from typing import Any

from fhir_sched.outcome import Issue, Kind
from fhir_sched.r4.finding import CAP, Findings, a, one, shown
from fhir_sched.r4.scope import Scope
from fhir_sched.r4.shape import resource_findings, type_check, wrong_resource_type


def resource_issues(
    resource: Any, expected_type: str, *, in_transaction: bool = False, nested: bool = True
) -> list[Issue]:
    """All issues (at most 50) of a resource that has to be an `expected_type`; an empty list when it is sound R4.

    `in_transaction` allows references by search (`Patient?identifier=1`). Without `nested` the resources that are
    entries of a Bundle or values of Parameters are not looked into. Raises nothing, whatever JSON value it is given.
    """
    try:
        found = _findings(resource, expected_type, Scope({}, conditional=in_transaction, nested=nested))
    except RecursionError:
        found = one(Kind.STRUCTURE, "The resource is nested too deeply.")
    return [Issue(kind, sentence, expected_type + path) for path, kind, sentence in (found or [])[:CAP]]


def _findings(resource: Any, expected_type: str, scope: Scope) -> Findings | None:
    wrong = wrong_resource_type(resource)
    if wrong is not None:
        return wrong
    actual = resource["resourceType"]
    if actual != expected_type:
        return one(Kind.STRUCTURE, f"This has to be {a(expected_type)}, not {shown(actual)}.", ".resourceType")
    return resource_findings(expected_type, resource, scope)


# Compiled now rather than in the first request.
for _name in ("Appointment", "Slot", "Schedule"):
    type_check(_name)
