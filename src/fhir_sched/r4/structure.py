"""The element tables of R4: every resource and data type, its elements in order, their types, cardinality and codes.

Read from `types.json`, the digest that `tools/r4_types.py` makes of the published StructureDefinitions. Types that are
only met inside `contained` come from the JSON schema and lack summary, modifier and reference targets. Knows no values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import orjson


class ElementDef(NamedTuple):
    """One element of a type, named without `[x]`.

    `types` has several entries only for a choice; a type such as `Appointment.participant` is the nested structure of
    that path. `max` is "1" or "*". `codes` are those of a required binding, in published order. `targets` are the
    resource types that a Reference may point to, `Resource` for any, empty where unknown. `attribute`: so in XML.
    """

    name: str
    types: tuple[str, ...]
    min: int
    max: str
    codes: tuple[str, ...] | None
    targets: tuple[str, ...]
    summary: bool
    modifier: bool
    attribute: bool
    choice: bool
    order: int

    @property
    def repeats(self) -> bool:
        """Whether JSON writes it as an array."""
        return self.max == "*"

    def json_name(self, type_name: str) -> str:
        """The property that carries the element in that type: `valueQuantity` for the choice `value`."""
        return self.name + type_name[0].upper() + type_name[1:] if self.choice else self.name


class Member(NamedTuple):
    """What one JSON property of a type stands for: an element, and which of its types."""

    element: ElementDef
    type: str


class TypeDef:
    """One type: `kind` is primitive, complex, backbone or resource; `elements` are in published order."""

    def __init__(self, name: str, kind: str, base: str, elements: Mapping[str, ElementDef]) -> None:
        self.name = name
        self.kind = kind
        self.base = base
        self.elements = elements

    @cached_property
    def members(self) -> Mapping[str, Member]:
        """JSON property name to element and type; properties with an underscore and `resourceType` are not listed."""
        return {e.json_name(kind): Member(e, kind) for e in self.elements.values() for kind in e.types}

    def __repr__(self) -> str:
        return f"TypeDef({self.name})"


class _Types(Mapping[str, TypeDef]):
    """All types by name, each built when it is first asked for: a server uses few of the several hundred."""

    def __init__(self, digest: dict[str, Any]) -> None:
        self._codes: dict[str, list[str]] = digest["codes"]
        self._rows: dict[str, Any] = digest["types"]
        self._built: dict[str, TypeDef] = {}

    def __getitem__(self, name: str) -> TypeDef:
        found = self._built.get(name)
        return found if found is not None else self._built.setdefault(name, self._build(name))

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of_kind(self, kind: str) -> frozenset[str]:
        """The names of all types of that kind, without building them."""
        return frozenset(name for name, row in self._rows.items() if row[0] == kind)

    def _build(self, name: str) -> TypeDef:
        kind, base, rows = self._rows[name]
        elements = (self._element(local, row, order) for order, (local, row) in enumerate(rows.items()))
        return TypeDef(name, kind, base, {element.name: element for element in elements})

    def _element(self, local: str, row: list[str], order: int) -> ElementDef:
        types, cardinality, flags, codes, targets = row + [""] * (5 - len(row))
        low, _, high = cardinality.partition("..")
        return ElementDef(
            name=local.removesuffix("[x]"),
            types=tuple(types.split("|")),
            min=int(low),
            max=high,
            codes=tuple(self._codes[codes]) if codes else None,
            targets=tuple(targets.split("|")) if targets else (),
            summary="s" in flags,
            modifier="m" in flags,
            attribute="a" in flags,
            choice=local.endswith("[x]"),
            order=order,
        )


_LOADED = _Types(orjson.loads(Path(__file__).with_name("types.json").read_bytes()))
TYPES: Mapping[str, TypeDef] = _LOADED
PRIMITIVE_TYPES = _LOADED.of_kind("primitive")
RESOURCE_TYPES = _LOADED.of_kind("resource") - {"Resource", "DomainResource"}


def takes_extensions(member: Member) -> bool:
    """Whether a primitive property may have an underscore sibling: all but ids, an extension's url and narrative."""
    return not member.element.attribute and member.type != "xhtml" and not _is_resource_id(member)


def _is_resource_id(member: Member) -> bool:
    return member.element.name == "id" and member.type == "id" and member.element.order == 0
