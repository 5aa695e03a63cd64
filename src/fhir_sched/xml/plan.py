"""How the elements of each type stand in XML: which are attributes, which hold a value, which hold a resource.

R4 2.6.1 (XML representation), read from the element tables and made once a type. Knows no values.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import NamedTuple

from fhir_sched.r4.narrative import XHTML
from fhir_sched.r4.structure import PRIMITIVE_TYPES, TYPES, Member, TypeDef

FHIR = "http://hl7.org/fhir"


class Shape(Enum):
    """What stands inside an element."""

    VALUE = "an attribute `value` and extensions"
    ELEMENTS = "elements"
    RESOURCE = "one element, named like the resource's type"
    NARRATIVE = "XHTML; the element itself is a part of it"


class Child(NamedTuple):
    """One element of a type: its JSON property, its FHIRPath step, its type, whether JSON has an array."""

    name: str
    step: str
    type: str
    shape: Shape
    repeats: bool


class Plan(NamedTuple):
    """One type: `attributes` and `children` by JSON property, `ranks` in the order of the schema.

    `tags` has the children by namespace and name, with a space between.
    """

    definition: TypeDef
    attributes: Mapping[str, Child]
    children: Mapping[str, Child]
    tags: Mapping[str, Child]
    ranks: Mapping[str, int]


@cache
def plan_of(type_name: str) -> Plan:
    """The plan of a complex, backbone or resource type. Raises KeyError for a type that R4 does not have."""
    definition = TYPES[type_name]
    attributes: dict[str, Child] = {}
    children: dict[str, Child] = {}
    for name, member in definition.members.items():
        child = Child(name, f".{member.element.name}", member.type, _shape(member), member.element.repeats)
        (attributes if member.element.attribute else children)[name] = child
    ranks = {each: rank for rank, name in enumerate([*attributes, *children]) for each in (name, f"_{name}")}
    tags = {f"{namespace_of(child)} {name}": child for name, child in children.items()}
    return Plan(definition, attributes, children, tags, ranks)


def namespace_of(child: Child) -> str:
    """The namespace that an element stands in."""
    return XHTML if child.shape is Shape.NARRATIVE else FHIR


def _shape(member: Member) -> Shape:
    if member.type == "xhtml":
        return Shape.NARRATIVE
    if member.type == "Resource":
        return Shape.RESOURCE
    return Shape.VALUE if member.type in PRIMITIVE_TYPES else Shape.ELEMENTS
