"""R4's element tables -> JSON schemas (2020-12), as OpenAPI 3.1 takes them. R4 2.6.2 (JSON), 2.24 (Datatypes).

What a schema can't say (invariants, where a reference may point, that dates exist) is left to validation. Knows no
interaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fhir_sched.r4.primitives import PATTERNS
from fhir_sched.r4.structure import PRIMITIVE_TYPES, TYPES, ElementDef, Member, TypeDef, takes_extensions

Schema = dict[str, Any]

_VISIBLE: Final = "[^\\u0000-\\u0020\\ufffe\\uffff]"
_CHARACTER: Final = "[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\ufffe\\uffff]"
_SPELLED: Final = {
    "code": f"{_VISIBLE}+(?:[ ]{_VISIBLE}+)*",
    "uri": f"{_VISIBLE}+",
    "string": f"{_CHARACTER}+",
    "base64Binary": "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)",
    "xhtml": '<div xmlns="http://www.w3.org/1999/xhtml">(.|\\s)*</div>',
}
"""Patterns that validation writes with characters that JSON can't carry, or has none for."""
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


def components(names: Iterable[str]) -> dict[str, Schema]:
    """The schemas of those types and of all types that they contain, by component name."""
    found: dict[str, Schema] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _anything() if name in ("Resource", "DomainResource") else structure(TYPES[name])
        waiting += [kind for each in TYPES[name].elements.values() for kind in each.types if kind in TYPES]
        waiting.append("Element")
    return {name: schema for name, schema in sorted(found.items()) if name not in PRIMITIVE_TYPES}


def structure(kind: TypeDef) -> Schema:
    """The schema of a complex type or resource."""
    properties: dict[str, Schema] = {}
    if kind.kind == "resource":
        properties["resourceType"] = {"const": kind.name}
    for name, member in kind.members.items():
        properties[name] = _member(member)
        if member.type in PRIMITIVE_TYPES and takes_extensions(member):
            properties["_" + name] = _sibling(member.element)
    required = ["resourceType"] if kind.kind == "resource" else []
    required += [each.name for each in kind.elements.values() if each.min and not each.choice]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return schema


def served(name: str) -> Schema:
    """A resource as the server shows it: with id and meta; a required element may be missing with its reason given."""
    schema = structure(TYPES[name])
    return {**schema, "required": ["resourceType", "id", "meta"]}


def typed(name: str) -> Schema:
    """A resource of that type, whatever it holds."""
    return {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"const": name}}}


def _anything() -> Schema:
    """A resource of any type."""
    return {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"type": "string"}}}


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


def _sibling(element: ElementDef) -> Schema:
    """What stands beside a primitive under its name with an underscore: id and extensions."""
    one: Schema = {"$ref": "#/components/schemas/Element"}
    if not element.repeats:
        return one
    return {"type": "array", "items": {"anyOf": [one, {"type": "null"}]}, "minItems": 1}


def primitive(kind: str) -> Schema:
    """The schema of a primitive type."""
    if kind == "boolean":
        return {"type": "boolean"}
    if kind == "decimal":
        return {"type": "number"}
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return {"type": "integer", "minimum": low, "maximum": high}
    shape = _ALIKE.get(kind, kind)
    pattern = _SPELLED.get(shape) or PATTERNS[shape].pattern
    schema: Schema = {"type": "string", "pattern": f"^(?:{pattern})$"}
    if kind in _EXAMPLES:
        schema["examples"] = [_EXAMPLES[kind]]
    return schema
