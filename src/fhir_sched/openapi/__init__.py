"""The OpenAPI 3.1 document of the whole server, made from the declarations that the routes read too.

One path for each URL, one operation for each interaction that a resource declares, one parameter for each search
parameter, R4's element tables as schemas. Knows nothing of how a request is answered.
"""

from __future__ import annotations

from typing import Any

from fhir_sched import __version__, profiles
from fhir_sched.openapi import answers, parameters, schemas
from fhir_sched.openapi.beside import of_definitions, of_pages, of_system
from fhir_sched.openapi.hosted import of_resources
from fhir_sched.openapi.invoked import of_operations
from fhir_sched.openapi.operations import shared
from fhir_sched.resources import SERVED


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fhir-sched",
            "version": __version__,
            "summary": "A FHIR R4 API for scheduling",
            "description": "Schedule, Slot and Appointment of FHIR R4 (4.0.1). Every refusal is an OperationOutcome. "
            "The CapabilityStatement at metadata says the same in FHIR's own words.",
        },
        "servers": [{"url": "/"}],
        "tags": [
            *({"name": each.type, "description": each.doc} for each in SERVED.values()),
            {"name": "System", "description": "All resources of a tenant, and what the server can do"},
            {"name": "Server", "description": "Pages beside the FHIR API"},
        ],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": parameters.SHARED,
            "responses": answers.components(),
        },
    }


def _schemas() -> dict[str, Any]:
    found = schemas.components([*SERVED, "OperationOutcome", "Bundle"])
    served = {f"Served{name}": schemas.served(name) for name in SERVED}
    others = {kind: schemas.typed(kind) for kind in ("CapabilityStatement", "Parameters", *profiles.definitions())}
    return {**found, **served, **others}


def _paths() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, method, operation in (*of_resources(), *of_operations(), *of_system(), *of_definitions(), *of_pages()):
        item = found.setdefault(path, _shared_parameters(path))
        item[method.lower()] = operation
    return found


def _shared_parameters(path: str) -> dict[str, Any]:
    names = [name for name in ("tenant", "id", "version") if f"{{{name}}}" in path]
    names += ["format", "pretty"] if names else []
    return {"parameters": [shared(name) for name in names]} if names else {}
