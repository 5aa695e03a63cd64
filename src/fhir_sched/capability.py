"""The declarations -> CapabilityStatement. R4 5.3.

What is said here is read from the tables that the routes and the search parser read too: the interactions and search
parameters of a `Resource`, the modifiers of a parameter, the references that `_include` follows. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fhir_sched import __version__, profiles
from fhir_sched.definition import SYSTEM_METHODS, DateParam, Param, ReferenceParam, Resource, StringParam, TokenParam
from fhir_sched.operation import Operation
from fhir_sched.patch import FORMATS
from fhir_sched.resources import RESOURCES, SERVED, ihe
from fhir_sched.resources.operations import OPERATIONS
from fhir_sched.resources.topics import TOPICS
from fhir_sched.search.parse import modifiers

CHANGED: Final = "2026-11-23"
"""The day on which the declarations last changed (`CapabilityStatement.date`)."""

NEUTRAL_BASE: Final = "http://localhost:8080/fhir/tenant"
"""The base in the published file."""

_SPEC: Final = "http://hl7.org/fhir/"
_OPEN: Final = (
    "Open: every request is served without a token, so the server listens on a loopback address alone. "
    "A tenant's data is reached through that tenant's URL only."
)
_SMART: Final = (
    "SMART App Launch 2.2: bearer tokens of the authorization server, with v1 or v2 scopes; .well-known/"
    "smart-configuration says where to get one. A tenant's data is reached with that tenant's tokens only."
)
_SECURITY_SERVICE: Final = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_OAUTH_URIS: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_INTERACTIONS: Final = {
    "read": "404 for an id that never was, 410 for one that was deleted",
    "create": "The server gives the id; the client's is ignored",
    "update": "With If-Match only that version is changed (412); an id that never was is 405",
    "patch": "Guarded by the version that was read, so that no other change is lost; with If-Match only that version",
    "delete": "204 also where there is nothing; 409 while other resources need it",
    "vread": "Every version that there was, whichever program made it",
    "history-instance": "Newest first, deletions included; takes _count, _since and _at",
    "history-type": "Newest first, deletions included; takes _count, _since and _at",
    "transaction": "All entries or none; references by urn:uuid and by search are resolved",
    "batch": "Each entry by itself",
    "search-system": "GET, or POST to _search, with _type; only parameters that all the types searched have",
    "history-system": "Newest first, deletions included; takes _count, _since and _at",
    "search-type": "GET, or POST to _search; pages follow the next link",
}
_VALIDATE: Final = {
    "name": "validate",
    "definition": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    "documentation": "Says everything that is wrong; with a mode the create, update or delete is tried and undone",
}
_BACKPORT: Final = "http://hl7.org/fhir/uv/subscriptions-backport/"
_PREFIXES: Final = "eq ne gt lt ge le sa eb ap"


def statement(base: str, oauth_uris: Sequence[tuple[str, str]] | None = None) -> dict[str, Any]:
    """The CapabilityStatement of the server at that FHIR base.

    `oauth_uris` are the authorization server's endpoints by their names in the extension oauth-uris, as far as they are
    known; None for a server that takes requests without tokens.
    """
    return {
        "resourceType": "CapabilityStatement",
        "name": "FhirSched",
        "title": "fhir-sched, a FHIR R4 API for scheduling",
        "status": "active",
        "date": CHANGED,
        "kind": "instance",
        "instantiates": [ihe.SERVER, f"{_BACKPORT}CapabilityStatement/backport-subscription-server-r4"],
        "software": {"name": "fhir-sched", "version": __version__},
        "implementation": {"description": "The schedules, slots and appointments of one tenant", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "application/fhir+xml", "json", "xml"],
        "patchFormat": list(FORMATS),
        "rest": [
            {
                "mode": "server",
                "documentation": "Times of a search without an offset are in the zone of the schedule concerned. "
                "Unknown search parameters are refused under Prefer: handling=strict, else named in the Bundle.",
                "security": _security(oauth_uris),
                "interaction": [
                    {"code": code, "documentation": _INTERACTIONS[code]}
                    for code in SYSTEM_METHODS
                    if code in _INTERACTIONS
                ],
                "resource": [*map(_resource, SERVED.values()), *map(_conformance, profiles.definitions())],
                **_invoked("", []),
            }
        ],
    }


def _security(oauth_uris: Sequence[tuple[str, str]] | None) -> dict[str, Any]:
    """How to get in. SMART App Launch 2.2 and, for clients of 1.0, the extension oauth-uris."""
    if oauth_uris is None:
        return {"cors": True, "description": _OPEN}
    security: dict[str, Any] = {
        "cors": True,
        "service": [{"coding": [{"system": _SECURITY_SERVICE, "code": "SMART-on-FHIR"}], "text": "SMART on FHIR"}],
        "description": _SMART,
    }
    if not oauth_uris:
        return security
    uris = [{"url": part, "valueUri": url} for part, url in oauth_uris]
    return {"extension": [{"url": _OAUTH_URIS, "extension": uris}], **security}


def _resource(resource: Resource) -> dict[str, Any]:
    forward = [f"{resource.type}:{param.name}" for param in resource.hosted]
    reverse = [
        f"{other.type}:{param.name}"
        for other in RESOURCES.values()
        for param in other.hosted
        if resource.type in param.targets
    ]
    return {
        **(_topics() if resource.type == "Subscription" else {}),
        "type": resource.type,
        "profile": f"{_SPEC}StructureDefinition/{resource.type}",
        **_supported(resource),
        "documentation": _documentation(resource),
        "interaction": [
            {"code": code, "documentation": _INTERACTIONS[code]}
            for code in resource.interactions
            if code in _INTERACTIONS
        ],
        "versioning": "versioned-update" if "update" in resource.interactions else "no-version",
        "readHistory": "vread" in resource.interactions,
        "updateCreate": False,
        "conditionalCreate": "conditional-create" in resource.interactions,
        "conditionalRead": "full-support" if "conditional-read" in resource.interactions else "not-supported",
        "conditionalUpdate": "conditional-update" in resource.interactions,
        "conditionalDelete": "single" if "conditional-delete" in resource.interactions else "not-supported",
        "referencePolicy": ["literal", "logical"],
        **({"searchInclude": forward} if forward else {}),
        **({"searchRevInclude": reverse} if reverse else {}),
        "searchParam": [_search_param(resource, param) for param in resource.params],
        **_invoked(resource.type, [_VALIDATE] if "validate" in resource.interactions else []),
    }


def _topics() -> dict[str, Any]:
    """The topics that a Subscription may name, as the Backport says them for R4."""
    url = f"{_BACKPORT}StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
    return {"extension": [{"url": url, "valueCanonical": topic} for topic in TOPICS]}


def _supported(resource: Resource) -> dict[str, Any]:
    profile = f"{_BACKPORT}StructureDefinition/backport-subscription"
    return {"supportedProfile": [profile]} if resource.type == "Subscription" else {}


def _invoked(kind: str, further: list[dict[str, str]]) -> dict[str, Any]:
    """The operations of a type ("" for those of the whole system), after `further` ones."""
    listed = [*further, *(_operation(each) for each in OPERATIONS if each.type == kind)]
    return {"operation": listed} if listed else {}


def _operation(operation: Operation) -> dict[str, str]:
    return {"name": operation.code, "definition": operation.definition, "documentation": operation.doc}


def _documentation(resource: Resource) -> str:
    keys = ", ".join(param.name for param in resource.params if param.sortable)
    chains = ", ".join(f"{param.name}.{{{'|'.join(param.targets)} parameter}}" for param in resource.hosted)
    said = f"{resource.doc} _sort takes {keys}; _count, _total, _summary and _elements are served too."
    return f"{said} Chains: {chains}." if chains else said


def _search_param(resource: Resource, param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "definition": resource.definition(param),
        "type": param.type,
        "documentation": f"{param.doc.rstrip('.')}. {_takes(param)}",
    }


def _takes(param: Param) -> str:
    """What a parameter takes beside plain values."""
    taken = [f":{modifier}" for modifier in modifiers(param)]
    match param:
        case DateParam():
            return f"Takes the prefixes {_PREFIXES} and {' '.join(taken)}."
        case ReferenceParam(targets=targets):
            types = " ".join(f":{target}" for target in targets) or ":[type]"
            return f"Takes {' '.join(taken)} {types}."
        case StringParam(codes=codes):
            return f"Texts: {', '.join(sorted(codes))}. Takes {' '.join(taken)}."
        case TokenParam(codes=codes) if codes:
            return f"Codes: {', '.join(sorted(codes))}. Takes {' '.join(taken)}."
        case _:
            return f"Takes {' '.join(taken)}."


def _conformance(kind: str) -> dict[str, Any]:
    """A type of which only what the product itself defines is served."""
    return {
        "type": kind,
        "profile": f"{_SPEC}StructureDefinition/{kind}",
        "documentation": f"Every {kind} that the product itself defines, the same for every tenant",
        "interaction": [{"code": code} for code in profiles.INTERACTIONS],
        "searchParam": [
            {
                "name": param.name,
                "definition": param.definition or f"{_SPEC}SearchParameter/conformance-{param.name}",
                "type": param.type,
                "documentation": param.doc,
            }
            for param in profiles.params(kind)
        ],
    }
