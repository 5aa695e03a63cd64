"""R4's element tables -> JSON schemas (2020-12), as OpenAPI 3.1 takes them. R4 2.6.2 (JSON), 2.24 (Datatypes).

What a schema can't say (invariants, where a reference may point, that dates exist) is left to validation. Knows no
interaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from fhir_sched.r4.primitives import PATTERNS
from fhir_sched.r4.structure import PRIMITIVE_TYPES, TYPES, ElementDef, Member, TypeDef

Schema = dict[str, Any]

_VISIBLE: Final = "[^\\u0000-\\u0020\\ufffe\\uffff]"
_CHARACTER: Final = "[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\ufffe\\uffff]"
_SPELLED: Final = {
    "code": f"{_VISIBLE}+(?:[ ]{_VISIBLE}+)*",
    "uri": f"{_VISIBLE}+",
    "string": f"{_CHARACTER}+",
    "base64Binary": "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)",
}
"""Patterns that validation writes with characters that JSON can't carry, or has none for."""
_PLAIN_DIV: Final = '^<div xmlns="http://www[.]w3[.]org/1999/xhtml">[A-Za-z0-9 .,]+</div>$'
_ALIKE: Final = {"markdown": "string", "url": "uri", "canonical": "uri"}
_EXAMPLES: Final = {
    "date": "2026-06-02",
    "dateTime": "2026-06-02T09:00:00+02:00",
    "instant": "2026-06-02T09:00:00Z",
    "time": "09:00:00",
}
_RANGES: Final = {
    "integer": (-2147483648, 2147483647),
    "positiveInt": (1, 2147483647),
    "unsignedInt": (0, 2147483647),
}


_ANYTHING: Final[Schema] = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string"}},
}
_EVERYWHERE: Final = {
    "resource": "^(?:id|extension|modifierExtension|contained|_[a-z][A-Za-z]*)$",
    "backbone": "^(?:id|extension|modifierExtension|_[a-z][A-Za-z]*)$",
    "complex": "^(?:id|extension|_[a-z][A-Za-z]*)$",
}
"""What R4 allows in every object or beside every primitive: schemas that spell it out would say nothing else."""


def components(names: Iterable[str]) -> dict[str, Schema]:
    """The schemas of those types and of all types that they contain, by component name."""
    found: dict[str, Schema] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _LOOSE[name] if name in _LOOSE else structure(TYPES[name])
        waiting += re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(found[name]))
    return dict(sorted(found.items()))


def structure(kind: TypeDef) -> Schema:
    """The schema of a complex type or resource."""
    is_resource, everywhere = kind.kind == "resource", _EVERYWHERE[kind.kind]
    properties: dict[str, Schema] = {"resourceType": {"const": kind.name}} if is_resource else {}
    for name, member in kind.members.items():
        if name == "extension" and is_resource:
            properties[name] = {"type": "array", "items": _EXTENSION, "minItems": 1}
        elif not re.fullmatch(everywhere, name) or (is_resource and name == "id"):
            properties[name] = _member(member)
    properties |= _CLOSER.get(kind.name, {})
    required = ["resourceType"] if is_resource else []
    required += [each.name for each in kind.elements.values() if each.min and not each.choice]
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {everywhere: {}},
        "additionalProperties": False,
        "minProperties": 1,
        **({"required": required} if required else {}),
        **_INVARIANTS.get(kind.name, {}),
    }


def served(name: str) -> Schema:
    """A resource as the server shows it: with id and meta; a required element may be missing with its reason given."""
    free = {key: value for key, value in structure(TYPES[name]).items() if key not in _INVARIANTS.get(name, {})}
    return {**free, "required": ["resourceType", "id", "meta"]}


def typed(name: str) -> Schema:
    """A resource of that type, whatever it holds."""
    return {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"const": name}}}


def _member(member: Member) -> Schema:
    element = member.element
    one = _reference(element) if member.type == "Reference" and element.targets else _typed(member.type, element)
    return {"type": "array", "items": one, "minItems": 1} if element.repeats else one


def _typed(kind: str, element: ElementDef) -> Schema:
    if kind not in PRIMITIVE_TYPES:
        return {"$ref": f"#/components/schemas/{kind}"}
    if element.codes:
        return {"type": "string", "enum": list(element.codes)}
    return primitive(kind)


def _reference(element: ElementDef) -> Schema:
    """A Reference, with what it usually looks like among the things it may be."""
    kinds = "|".join(name for name in element.targets if name != "Resource") or "[A-Z][A-Za-z]+"
    return {
        "anyOf": [
            {
                "type": "object",
                "required": ["reference"],
                "properties": {"reference": {"type": "string", "pattern": f"^({kinds})/[A-Za-z0-9\\-.]{{1,64}}$"}},
                "additionalProperties": False,
            },
            {"$ref": "#/components/schemas/Reference"},
        ]
    }


def primitive(kind: str) -> Schema:
    """The schema of a primitive type."""
    if kind == "boolean":
        return {"type": "boolean"}
    if kind == "decimal":
        return {"type": "number"}
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return {"type": "integer", "minimum": low, "maximum": high}
    if kind == "xhtml":
        return {"type": "string", "anyOf": [{"pattern": _PLAIN_DIV}, {"pattern": "^\\s*<div[\\s>]"}]}
    shape = _ALIKE.get(kind, kind)
    pattern = _SPELLED.get(shape) or PATTERNS[shape].pattern
    schema: Schema = {"type": "string", "pattern": f"^(?:{pattern})$"}
    if kind in _EXAMPLES:
        schema["examples"] = [_EXAMPLES[kind]]
    return schema


_EXTENSION: Final[Schema] = {
    "type": "object",
    "description": "url, and either value[x] or further extensions",
    "required": ["url"],
    "properties": {
        "url": primitive("uri"),
        "valueBoolean": {"type": "boolean"},
        "valueCode": primitive("code"),
        "valueString": primitive("string"),
    },
    "patternProperties": {"^(?:id|extension|_?value[A-Z][A-Za-z0-9]*)$": {}},
    "additionalProperties": False,
    "minProperties": 2,
    "maxProperties": 3,
}
_CLOSER: Final[dict[str, dict[str, Schema]]] = {
    "Reference": {
        "reference": {
            "type": "string",
            "pattern": "^(?:#[A-Za-z0-9.-]{1,64}|[A-Za-z][A-Za-z0-9+.-]*:[^\\u0000-\\u0020\\ufffe\\uffff]+"
            "|[A-Z][A-Za-z]{1,63}/[A-Za-z0-9.-]{1,64}(?:/_history/[A-Za-z0-9.-]{1,64})?)$",
        }
    },
}
"""Elements of which more is known than their type says."""
_LOOSE: Final[dict[str, Schema]] = {"Resource": _ANYTHING, "DomainResource": _ANYTHING}
_INVARIANTS: Final[dict[str, Schema]] = {
    "Appointment": {
        "dependentRequired": {"start": ["end"], "end": ["start"]},
        "anyOf": [
            {"required": ["start", "end"]},
            {"properties": {"status": {"enum": ["proposed", "cancelled", "waitlist"]}}},
        ],
    },
    "Appointment.participant": {"anyOf": [{"required": ["actor"]}, {"required": ["type"]}]},
    "Reference": {
        "anyOf": [{"required": ["reference"]}, {"required": ["identifier"]}, {"required": ["display"]}],
    },
}
"""Those invariants that a schema can say: app-1 to app-3, ref-2 as far as it goes."""

_POINTER: Final[Schema] = {"type": "string", "pattern": "^(?:/[A-Za-z0-9_-]+)*$"}


def _patch_operation(op: tuple[str, ...], *further: str) -> Schema:
    properties: dict[str, Schema] = {"op": {"enum": list(op)}, "path": _POINTER}
    properties |= {name: _POINTER if name == "from" else {} for name in further}
    return {"type": "object", "required": ["op", "path", *further], "properties": properties}


JSON_PATCH: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 100,
    "items": {
        "anyOf": [
            _patch_operation(("add", "replace", "test"), "value"),
            _patch_operation(("remove",)),
            _patch_operation(("move", "copy"), "from"),
        ]
    },
}
"""RFC 6902."""
