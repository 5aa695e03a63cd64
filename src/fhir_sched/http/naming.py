"""The name of a route, such as `Slot/{id}`, for logs and metrics.

Law: the names are few, whatever a client asks for, and none holds a part of the URL that it chose. Knows no answer.
"""

from __future__ import annotations

from typing import Final

from fhir_sched.resources import RESOURCES
from fhir_sched.resources.operations import BULK_PUBLISH, OPERATIONS
from fhir_sched.search.several import COMPARTMENTS

UNKNOWN: Final = "{unknown}"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DEFINITIONS: Final = frozenset(
    {"StructureDefinition", "SearchParameter", "OperationDefinition", "ValueSet", "CodeSystem", "AuditEvent", "Basic"}
)
_OPERATIONS: Final = frozenset({"$validate", *(operation.word for operation in OPERATIONS)})
_SYSTEM: Final = frozenset({"", "metadata", "_search", "_history"})
_TYPES: Final[frozenset[str]] = frozenset(RESOURCES) | _DEFINITIONS | {"Subscription"}


def route(path: bytes) -> str:
    """The name of the route of a raw path below `/fhir/<tenant>`: "base" for the base itself.

    >>> route(b"Slot/slt-1/_history/3"), route(b"Patient/7/Appointment"), route(b"Slot/a/b/c"), route(b"Jane")
    ('Slot/{id}/_history/{version}', 'Patient/{id}/Appointment', '{unknown}', '{unknown}')
    """
    try:
        parts = path.decode("ascii").rstrip("/").split("/")
    except UnicodeDecodeError:
        return UNKNOWN
    match parts:
        case [one] if one in _TYPES or one in _SYSTEM or one in _OPERATIONS:
            return one or "base"
        case [word, _] if word == BULK_PUBLISH.word:
            return f"{word}/{{file}}"
        case [kind, last] if kind in _TYPES:
            return f"{kind}/{last if last in _OPERATIONS or last in ('_search', '_history') else '{id}'}"
        case [kind, _, last] if kind in _TYPES and (last == "_history" or last in _OPERATIONS):
            return f"{kind}/{{id}}/{last}"
        case [kind, _, "_history", _] if kind in _TYPES:
            return f"{kind}/{{id}}/_history/{{version}}"
        case [kind, _, of] if kind in COMPARTMENTS and of in RESOURCES:
            return f"{kind}/{{id}}/{of}"
        case [kind, _, of, "_search"] if kind in COMPARTMENTS and of in RESOURCES:
            return f"{kind}/{{id}}/{of}/_search"
        case [".well-known", "smart-configuration"]:
            return ".well-known/smart-configuration"
    return UNKNOWN


def method(given: str) -> str:
    """The method, or OTHER."""
    return given if given in METHODS else "OTHER"
