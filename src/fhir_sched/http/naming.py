"""Where a request goes: the tenant, and the name of a route such as `Slot/{id}`, for admission, logs and metrics.

Law: the names are few, whatever a client asks for, and none holds a part of the URL that it chose. Knows no answer.
"""

from __future__ import annotations

from typing import Final

from fhir_sched.record import record
from fhir_sched.reference import is_uuid
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.operations import BULK_PUBLISH, OPERATIONS
from fhir_sched.search.several import COMPARTMENTS

UNKNOWN: Final = "{unknown}"
PAGES: Final = frozenset({b"/", b"/healthz", b"/readyz", b"/metrics", b"/openapi.json", b"/docs"})
_BASE: Final = len("/fhir/")
_TENANT_END: Final = _BASE + 36
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DEFINITIONS: Final = frozenset(
    {"StructureDefinition", "SearchParameter", "OperationDefinition", "ValueSet", "CodeSystem", "AuditEvent", "Basic"}
)
_OPERATIONS: Final = frozenset({"$validate", *(operation.word for operation in OPERATIONS)})
_SYSTEM: Final = frozenset({"", "metadata", "_search", "_history"})
_TYPES: Final[frozenset[str]] = frozenset(RESOURCES) | _DEFINITIONS | {"Subscription"}


@record
class Place:
    """The tenant's UUID, "" where the path names none, and the route's name."""

    tenant: str
    route: str


_NOWHERE: Final = Place("", UNKNOWN)
_KNOWN: Final[dict[bytes, Place]] = {}
_MOST: Final = 4096


def placed(raw_path: bytes) -> Place:
    """The place of a path as it was sent. Those of types and of all their resources are remembered."""
    found = _KNOWN.get(raw_path)
    if found is not None:
        return found
    head, _, last = raw_path.rpartition(b"/")
    # what begins so is an operation or _history; what is empty, the type itself
    of_id = head + b"/{id}" if last and last[:1] not in b"$_" else b""
    found = _KNOWN.get(of_id)
    if found is None:
        found = _looked_up(raw_path)
        key = raw_path if "{" not in found.route else of_id if found.route.count("/") == 1 else b""
        if found.tenant and key:
            if len(_KNOWN) >= _MOST:
                _KNOWN.clear()
            _KNOWN[key] = found
    return found


def _looked_up(raw_path: bytes) -> Place:
    if raw_path[:_BASE] == b"/fhir/":
        tenant = raw_path[_BASE:_TENANT_END].decode("latin-1").lower()
        if is_uuid(tenant) and raw_path[_TENANT_END : _TENANT_END + 1] in (b"/", b""):
            return Place(tenant, route(raw_path[_TENANT_END + 1 :]))
    elif raw_path in PAGES:
        return Place("", raw_path.decode("ascii"))
    return _NOWHERE


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
