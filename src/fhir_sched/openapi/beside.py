"""The operations beside the resources: the whole system, the definitions of our own, the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fhir_sched import profiles
from fhir_sched.definition import SYSTEM_METHODS
from fhir_sched.openapi import answers, examples, parameters
from fhir_sched.openapi.operations import BASE, Operation, Placed, operation, shared
from fhir_sched.publishing.lines import KINDS

_OBJECT: Final = {"type": "object"}


def of_system() -> Iterator[Placed]:
    """metadata, and the interactions on all resources together."""
    about = answers.resource("The CapabilityStatement", "CapabilityStatement", versioned=False)
    yield (
        f"{BASE}/metadata",
        "GET",
        operation("metadata", "What the server can do", "System", {"200": about, **answers.refusals(answers.READING)}),
    )
    endpoints = answers.media("The authorization server's endpoints and what it can do", "application/json", _OBJECT)
    yield (
        f"{BASE}/.well-known/smart-configuration",
        "GET",
        operation(
            "smart-configuration",
            "Where to get a token (SMART App Launch)",
            "System",
            {"200": endpoints, **answers.refusals(answers.READING)},
        ),
    )
    yield f"{BASE}/$bulk-publish/{{file}}", "GET", _published()
    found = {"200": answers.bundle("A page of versions, newest first"), **answers.refusals(answers.READING)}
    if "history-system" in SYSTEM_METHODS:
        yield (
            f"{BASE}/_history",
            "GET",
            operation(
                "history-system",
                "The versions of everything",
                "System",
                found,
                [*parameters.history(), shared("handling")],
            ),
        )
    if "search-system" in SYSTEM_METHODS:
        yield from _searches(BASE, "search-system", "Search several types", [], parameters.system())
    if "transaction" in SYSTEM_METHODS:
        done = {"200": answers.bundle("What each entry was answered, in their order")}
        refused = answers.refusals(answers.WRITING)
        given = [shared("handling"), shared("idempotency-key")]
        made = operation("transaction", "Batch or transaction", "System", {**done, **refused}, given)
        body = answers.body({"$ref": "#/components/schemas/Bundle"}, examples.bundles())
        yield BASE, "POST", {**made, "requestBody": body}
    if "search-compartment" in SYSTEM_METHODS:
        for kind in parameters.COMPARTMENTS:
            path, summary = f"{BASE}/{kind}/{{id}}/{{type}}", f"Search what a {kind} takes part in"
            yield from _searches(path, f"search-{kind}", summary, [parameters.members(kind)], parameters.common())


def _published() -> Operation:
    files = [f"{kind}.ndjson" for kind in KINDS]
    file = {"name": "file", "in": "path", "required": True, "schema": {"type": "string", "enum": files}}
    found = answers.media("Resources, each a line", "application/fhir+ndjson", {"type": "string"})
    refused = answers.refusals((304, *answers.READING))
    return operation("bulk-publish-file", "A file of published slots", "System", {"200": found, **refused}, [file])


def _searches(path: str, name: str, summary: str, placed: list[Operation], fields: list[Operation]) -> Iterator[Placed]:
    """The same search by GET and by POST of a form."""
    found = {"200": answers.bundle("A page of matches")}
    refused = answers.refusals(answers.READING)
    yield path, "GET", operation(name, summary, "System", {**found, **refused}, [*placed, *fields, shared("handling")])
    posted = operation(f"{name}-form", f"{summary} by a form", "System", {**found, **refused}, placed)
    refused = answers.refusals((*answers.READING, 413, 415))
    yield f"{path}/_search", "POST", {**posted, "responses": {**found, **refused}, "requestBody": answers.form(fields)}


def of_definitions() -> Iterator[Placed]:
    """Read and search of what the product itself defines."""
    for kind in profiles.definitions():
        path = f"{BASE}/{kind}"
        one = answers.resource("The definition", kind, versioned=False)
        yield (
            path,
            "GET",
            operation(
                f"search{kind}",
                f"Every {kind} that the product defines",
                "System",
                {"200": answers.bundle("All that match"), **answers.refusals(answers.READING)},
                [*parameters.of_definitions(profiles.params(kind)), shared("handling")],
            ),
        )
        found = {"200": answers.bundle("All that match"), **answers.refusals((*answers.READING, 413, 415))}
        posted = operation(f"search{kind}-form", f"Search {kind} by a form", "System", found)
        form = answers.form(parameters.of_definitions(profiles.params(kind)))
        yield f"{path}/_search", "POST", {**posted, "requestBody": form}
        yield (
            f"{path}/{{id}}",
            "GET",
            operation(f"read{kind}", "Read one", "System", {"200": one, **answers.refusals(answers.READING)}),
        )


def of_pages() -> Iterator[Placed]:
    """The pages beside the FHIR API."""
    status = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    html = {"type": "string"}
    pages = (
        ("/", "start", "The start page", "text/html", html, (405, 500)),
        ("/healthz", "healthz", "Whether the process is up", "application/json", status, (405, 500)),
        ("/readyz", "readyz", "Whether requests should be sent here", "application/json", status, (405, 500, 503)),
        ("/metrics", "metrics", "Figures for Prometheus", "text/plain", {"type": "string"}, (405, 500)),
        ("/openapi.json", "openapi", "This document", "application/json", _OBJECT, (405, 500)),
        ("/docs", "docs", "This document as a page", "text/html", html, (405, 500)),
    )
    for path, name, summary, kind, schema, refused in pages:
        found = {"200": answers.media(summary, kind, schema), **answers.refusals(refused)}
        yield path, "GET", operation(name, summary, "Server", found)
