"""Where in a document the steps of a path lead: places, which can be read and changed. R4 fhirpatch, R4 2.6.2 (JSON).

A place is an element of a JSON object: the member, its underscore sibling (a primitive's id and extensions) and, of a
repeating element, the position. Steps go by the element tables, so a path can name only what R4 has, and never leaves
the resource. Knows no operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch.limits import Effort
from fhir_sched.patch.steps import Function, Index, Member, Step
from fhir_sched.r4.finding import a
from fhir_sched.r4.structure import PRIMITIVE_TYPES, RESOURCE_TYPES, TYPES, ElementDef, TypeDef

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """An element that is there: `holder[name]`, or `holder[name][index]` of one that repeats.

    `owner` is the type that has the element, `type` the element's own.
    """

    owner: TypeDef
    holder: Object
    name: str
    type: str
    index: int | None = None

    @property
    def value(self) -> Any:
        """Its JSON value; None of a primitive that has only extensions."""
        return _part(self.holder.get(self.name), self.index)

    @property
    def sibling(self) -> Any:
        """What stands under the name with an underscore."""
        return _part(self.holder.get("_" + self.name), self.index)

    @property
    def is_root(self) -> bool:
        """Whether it is the resource itself."""
        return self.name == ""

    def type_def(self) -> TypeDef:
        """The element table of what is there: of the very resource where any may be."""
        return type_of(self.type, self.value)

    def members(self, *, make: bool = False) -> Object:
        """The object with its elements: of a primitive the sibling, which `make` puts there when there is none."""
        if self.type not in PRIMITIVE_TYPES:
            found = self.value
        else:
            found = self.sibling
            if found is None and make:
                found = {}
                put(self.holder, self.name, self.index, self.value, found)
        return found if isinstance(found, dict) else {}


def type_of(name: str, value: Any) -> TypeDef:
    """The element table for a value of a type; for `Resource` that of the resource it is, for a primitive Element's."""
    if name == "Resource" and isinstance(value, dict) and value.get("resourceType") in RESOURCE_TYPES:
        return TYPES[value["resourceType"]]
    return TYPES["Element" if name in PRIMITIVE_TYPES else name]


def root(document: Object) -> Place:
    """The resource as a place."""
    return Place(TYPES["Resource"], {"": document}, "", "Resource")


def places(document: Object, path: tuple[Step, ...], effort: Effort) -> list[Place]:
    """The elements that a path names. Raises 400 or 422 for a step that R4 does not have, 413 for too many."""
    first = path[0] if path else None
    if isinstance(first, Member) and first.name in RESOURCE_TYPES | {"Resource", "DomainResource"}:
        kind = document.get("resourceType")
        if first.name not in (kind, "Resource", "DomainResource"):
            raise FhirError(Kind.UNPROCESSABLE, f"the path begins with {first.name}, the resource is {a(str(kind))}")
        path = path[1:]
    found = [root(document)]
    for step in path:
        found = _taken(found, step, effort)
        effort.pass_places(len(found))
    return found


def _taken(found: list[Place], step: Step, effort: Effort) -> list[Place]:
    match step:
        case Member(name):
            return [next_place for place in found for next_place in children(place, name, effort)]
        case Index(position):
            return found[position : position + 1]
        case Function("where", criteria):
            # the FHIRPath engine takes a third of a second to import: only a process that is asked for it pays
            from fhir_sched.patch.criteria import fulfils  # noqa: PLC0415

            return [place for place in found if fulfils(place.value, place.type_def().name, criteria, effort)]
        case Function("extension", url):
            wanted = _text(url)
            extensions = (child for place in found for child in children(place, "extension", effort))
            return [place for place in extensions if isinstance(place.value, dict) and place.value.get("url") == wanted]
        case Function("ofType" | "as", name):
            return [place for place in found if name.removeprefix("FHIR.") in (place.type, place.type_def().name)]
        case Function("single", _) if len(found) > 1:
            raise FhirError(Kind.UNPROCESSABLE, f"single() is given {len(found)} elements")
        case Function(name, argument):
            return _SLICES[name](found, argument)


_SLICES: dict[str, Callable[[list[Place], str], list[Place]]] = {
    "first": lambda found, _: found[:1],
    "last": lambda found, _: found[-1:],
    "tail": lambda found, _: found[1:],
    "single": lambda found, _: found,
    "skip": lambda found, argument: found[_number(argument) :],
    "take": lambda found, argument: found[: _number(argument)],
}


def _number(argument: str) -> int:
    if argument.isascii() and argument.isdigit() and len(argument) < 10:
        return int(argument)
    raise FhirError(Kind.VALUE, f"skip and take want a whole number, not {argument[:40]!a}")


def _text(argument: str) -> str:
    inner = argument[1:-1]
    if len(argument) >= 2 and argument[0] == argument[-1] == "'" and "'" not in inner and "\\" not in inner:
        return inner
    raise FhirError(Kind.VALUE, f"extension wants a URL in single quotes, not {argument[:60]!a}")


def children(place: Place, name: str, effort: Effort) -> list[Place]:
    """The elements of that name below a place. Raises 422 where its type has no such element."""
    host = place.members()
    definition = place.type_def()
    json_name, kind = present(definition, host, name)
    if json_name not in host and "_" + json_name not in host:
        return []
    if not element(definition, name).repeats:
        return [Place(definition, host, json_name, kind)]
    count = max(_length(host.get(json_name)), _length(host.get("_" + json_name)))
    effort.pass_places(count)
    return [Place(definition, host, json_name, kind, index) for index in range(count)]


def element(definition: TypeDef, name: str) -> ElementDef:
    """The element of a type that a FHIRPath name means: `value` for value[x], and the JSON name `valueCode` too."""
    found = definition.elements.get(name)
    if found is None and name in definition.members:
        found = definition.members[name].element
    if found is None:
        raise FhirError(Kind.UNPROCESSABLE, f"{definition.name} has no element {name[:60]!r}")
    return found


def present(definition: TypeDef, host: Object, name: str) -> tuple[str, str]:
    """JSON name and type of an element as it is there; of a choice that is absent its first type."""
    if name not in definition.elements and name in definition.members:
        return name, definition.members[name].type
    wanted = element(definition, name)
    for kind in wanted.types:
        json_name = wanted.json_name(kind)
        if json_name in host or "_" + json_name in host:
            return json_name, kind
    return wanted.json_name(wanted.types[0]), wanted.types[0]


def columns(host: Object, json_name: str) -> tuple[list[Any], list[Any]]:
    """The values of a repeating element and their siblings, padded with None to the same length; copies."""
    lists = (host.get(json_name), host.get("_" + json_name))
    values, siblings = (found if isinstance(found, list) else [] for found in lists)
    pairs = list(zip_longest(values, siblings))
    return [value for value, _ in pairs], [sibling for _, sibling in pairs]


def store(host: Object, json_name: str, values: Iterable[Any], siblings: Iterable[Any]) -> None:
    """Write both lists; one of which nothing is left goes."""
    for name, items in ((json_name, list(values)), ("_" + json_name, list(siblings))):
        if any(item is not None for item in items):
            host[name] = items
        else:
            host.pop(name, None)


def put(holder: Object, name: str, index: int | None, value: Any, sibling: Any) -> None:
    """Write an element's value and sibling; None takes them away."""
    if index is not None:
        values, siblings = columns(holder, name)
        values[index], siblings[index] = value, sibling
        store(holder, name, values, siblings)
        return
    for member, item in ((name, value), ("_" + name, sibling)):
        if item is None:
            holder.pop(member, None)
        else:
            holder[member] = item


def remove(place: Place) -> None:
    """Take the element out; those behind it move up."""
    if place.index is None:
        put(place.holder, place.name, None, None, None)
        return
    values, siblings = columns(place.holder, place.name)
    del values[place.index], siblings[place.index]
    store(place.holder, place.name, values, siblings)


def _part(found: Any, index: int | None) -> Any:
    if index is None:
        return found
    return found[index] if isinstance(found, list) and index < len(found) else None


def _length(found: Any) -> int:
    return len(found) if isinstance(found, list) else 0
