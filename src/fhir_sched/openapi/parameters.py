"""Search parameters and headers as OpenAPI parameters: what a client may send, by the types of R4 3.1.1.4.

Only what the server refuses is kept out by a schema; what it takes leniently is only described. Knows no path.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_sched.definition import DateParam, Param, ReferenceParam, Resource, TokenParam
from fhir_sched.resources import RESOURCES
from fhir_sched.search import several
from fhir_sched.search.parse import modifiers
from fhir_sched.search.result import DEFAULT_COUNT, MAX_COUNT
from fhir_sched.subset import SUMMARIES

Parameter = dict[str, Any]

_FIRST: Final = next(iter(RESOURCES.values()))
_YEAR: Final = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LONG: Final = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
_SHORT: Final = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
_DAY: Final = f"(?:{_LONG}|{_SHORT}|02-(?:0[1-9]|1[0-9]|2[0-8]))"
_LEAP: Final = "(?:(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
_DAYS: Final = f"(?:{_YEAR}-{_DAY}|{_LEAP})"
_CLOCK: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)?"
_OFFSET: Final = "(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_DATE: Final = f"(?:eq|ne|gt|lt|ge|le|sa|eb|ap)?(?:{_YEAR}(?:-(?:0[1-9]|1[0-2]))?|{_DAYS}(?:T{_CLOCK}{_OFFSET}?)?)"
_ESCAPED: Final = "\\\\[|,$\\\\]"
"""| , $ and the backslash may be written with a backslash in front."""
_PART: Final = f"(?:[^\\\\|,\\u0000]|{_ESCAPED})"
_TOKEN: Final = f"(?:{_PART}+(?:[|]{_PART}*)?|[|]{_PART}+)"
_LETTER: Final = f"(?:[^\\\\,\\u0000]|{_ESCAPED})"
_REFERENCE: Final = f"(?:[A-Za-z0-9.-]{{1,64}}|[^#\\\\,\\u0000]{_LETTER}*[/:]{_LETTER}*)"


def _listed(one: str) -> dict[str, Any]:
    """Values separated by commas, any of which may match; empty ones do not count."""
    return {"type": "string", "pattern": f"^(?:{one})?(?:,(?:{one})?)*$"}


def search(resource: Resource) -> list[Parameter]:
    """The parameters of a search of that type, result parameters included."""
    return [*criteria(resource), *_result(resource)]


def criteria(resource: Resource) -> list[Parameter]:
    """The parameters that select."""
    return [_query(param.name, _schema(param), _meaning(resource, param)) for param in resource.params]


def _schema(param: Param) -> dict[str, Any]:
    match param:
        case DateParam():
            return {**_listed(_DATE), "examples": ["ge2026-06-01"]}
        case TokenParam(kind="boolean"):
            return {**_listed("true|false"), "examples": ["true"]}
        case TokenParam(kind="id"):
            return {**_listed(f"[|]?{_PART}+"), "examples": ["slt-6f1f4b0e-6a3c-4b9b-8f5e-0d7c3b1a2e4f"]}
        case TokenParam(codes=codes):
            return {**_listed(_TOKEN), "examples": [min(codes) if codes else "http://clinic.example/codes|a"]}
        case ReferenceParam(targets=targets):
            return {**_listed(_REFERENCE), "examples": [f"{targets[0] if targets else 'Patient'}/1"]}
        case _:
            return {**_listed(f"{_LETTER}+"), "examples": ["http://clinic.example/profile"]}


def _meaning(resource: Resource, param: Param) -> str:
    also = " ".join(f":{modifier}" for modifier in modifiers(param))
    said = f"{param.doc.rstrip('.')}. Type {param.type}; values separated by commas are alternatives."
    prefixes = " Prefixes eq ne gt lt ge le sa eb ap." if isinstance(param, DateParam) else ""
    return f"{said}{prefixes} Modifiers {also}. {resource.definition(param)}"


def _result(resource: Resource) -> list[Parameter]:
    keys = sorted(param.name for param in resource.params if param.sortable)
    counts = {"type": "integer", "minimum": 0, "examples": [10]}
    return [
        _query(
            "_sort", {"type": "string", "examples": [keys[-1]]}, f"Of {', '.join(keys)}; a minus sign turns it round"
        ),
        _query("_count", counts, f"Matches on a page: {DEFAULT_COUNT} without it, {MAX_COUNT} at most; 0 only counts"),
        *part(),
        _query("_total", {"enum": ["none", "estimate", "accurate"]}, "Whether the number of all matches is told"),
        _query("_include", {"type": "string"}, "Type:parameter whose targets come along"),
        _query("_revinclude", {"type": "string"}, "Type:parameter of resources that point at the matches"),
    ]


def part() -> list[Parameter]:
    """What of a resource is shown."""
    return [
        _query("_summary", {"enum": [*SUMMARIES]}, "Which part of each resource comes"),
        _query("_elements", {"type": "string", "examples": ["status"]}, "Elements that come, separated by commas"),
    ]


def history() -> list[Parameter]:
    """The parameters of a history."""
    return [
        _query("_count", {"type": "integer", "minimum": 0}, "Versions on a page"),
        # one without a value is not used, as everywhere
        _query("_since", {"anyOf": [_moment(), {"const": ""}]}, "Only versions made at or after this instant"),
        *part(),
    ]


def validation() -> list[Parameter]:
    """The parameters of $validate."""
    modes = {"type": "string", "enum": ["create", "update", "delete", "profile"]}
    return [
        _query("mode", modes, "The interaction to try and undo"),
        _query("profile", {"type": "string"}, "A profile; only R4's own are known"),
    ]


def of_definitions(params: tuple[Param, ...]) -> list[Parameter]:
    """The parameters of a search among the definitions of our own; each finds the exact value."""
    return [_query(param.name, {"type": "string"}, param.doc) for param in params]


COMPARTMENTS: Final = tuple(several.COMPARTMENTS)


def common() -> list[Parameter]:
    """The parameters that every type has."""
    return [
        _query(param.name, _schema(param), _meaning(_FIRST, param))
        for param in _FIRST.params
        if param.name.startswith("_")
    ]


def system() -> list[Parameter]:
    """The parameters of a search over several types: which types, and what all of them have."""
    kinds = {**_listed("|".join(RESOURCES)), "examples": [_FIRST.type]}
    return [_query("_type", kinds, "The types to search; all without it"), *common()]


def members(kind: str) -> Parameter:
    """The last part of the path in a compartment: the type of its members."""
    wanted = {"name": "type", "in": "path", "required": True, "description": "The type of the members, * for all"}
    return {**wanted, "schema": {"type": "string", "enum": [*several.COMPARTMENTS[kind], "*"]}}


def _moment() -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{_DAYS}T{_CLOCK}{_OFFSET})$", "examples": ["2026-06-01T00:00:00Z"]}


def _query(name: str, schema: dict[str, Any], description: str) -> Parameter:
    return {"name": name, "in": "query", "description": description, "schema": schema}


SHARED: Final[dict[str, Parameter]] = {
    "tenant": {
        "name": "tenant",
        "in": "path",
        "required": True,
        "description": "The tenant's UUID",
        "schema": {
            "type": "string",
            "format": "uuid",
            "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
            "examples": ["5eed0000-0000-4000-8000-000000000001"],
        },
    },
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The logical id, such as slt- and a UUID",
        "schema": {"type": "string", "minLength": 1},
    },
    "version": {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "A version's number",
        "schema": {"type": "string", "minLength": 1},
    },
    "format": {
        "name": "_format",
        "in": "query",
        "description": "Overrides Accept",
        "schema": {"type": "string", "enum": ["", "json", "xml", "application/fhir+json", "application/fhir+xml"]},
    },
    "handling": {
        "name": "Prefer",
        "in": "header",
        "description": "handling=strict refuses unknown search parameters, handling=lenient leaves them out",
        "schema": {"type": "string", "examples": ["handling=lenient"]},
    },
    "return": {
        "name": "Prefer",
        "in": "header",
        "description": "return=minimal, return=representation or return=OperationOutcome",
        "schema": {"type": "string", "examples": ["return=representation"]},
    },
    "pretty": {
        "name": "_pretty",
        "in": "query",
        "description": "true indents the answer",
        "schema": {"type": "string", "examples": ["true"]},
    },
    "idempotency-key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same request gets the first answer again for 24 hours",
        "schema": {
            "type": "string",
            "examples": ["6f1f4b0e-6a3c-4b9b-8f5e-0d7c3b1a2e4f"],
        },
    },
    "if-match": {
        "name": "If-Match",
        "in": "header",
        "description": "The version that may be changed; 412 for another one",
        "schema": {"type": "string", "pattern": '^(?:[*]|(?:W/)?"[0-9]{1,9}")$', "examples": ['W/"1"']},
    },
    "if-none-exist": {
        "name": "If-None-Exist",
        "in": "header",
        "description": "Criteria: nothing is created where a resource matches them",
        "schema": {"type": "string", "examples": ["identifier=http://clinic.example/id|1"]},
    },
    "if-none-match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The version that the client has; 304 while it is current",
        "schema": {"type": "string", "pattern": '^(?:[*]|(?:W/)?"[0-9]{1,9}"|[0-9]+)?$', "examples": ['W/"1"']},
    },
}
"""Parameters that several paths have, by the name of the component."""
