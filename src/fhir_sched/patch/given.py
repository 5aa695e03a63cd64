"""The value part of a FHIRPath Patch operation -> the JSON of an element. R4 fhirpatch, R4 Parameters.

A value is `value[x]` of the element's type, or, for types that Parameters has no value[x] for (Appointment.participant,
Extension), parts named like their elements; for a contained resource `resource`. A near relative of the type is taken
(valueString for a code or markdown, valueDateTime for an instant): the result is validated against R4 anyhow.
Knows no document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch.places import element
from fhir_sched.r4.structure import PRIMITIVE_TYPES, TYPES, ElementDef, TypeDef

_FAMILIES = (
    frozenset(("string", "code", "id", "markdown", "xhtml")),
    frozenset(("uri", "url", "canonical", "uuid", "oid")),
    frozenset(("integer", "positiveInt", "unsignedInt")),
    frozenset(("date", "dateTime", "instant")),
)
_VALUES = TYPES["Parameters.parameter"].members


@dataclass(frozen=True, slots=True)
class Given:
    """An element to be written: its JSON name, the value (None: only extensions) and the underscore sibling."""

    json_name: str
    value: Any
    sibling: Any = None


def given(definition: TypeDef, name: str, part: dict[str, Any]) -> Given:
    """The element `name` of a type, as the part gives it. Raises 400 for a part without value, 422 for another type."""
    wanted = element(definition, name.removesuffix("[x]"))
    if "part" in part:
        kind = _parts_type(definition, wanted)
        return Given(wanted.json_name(kind), _built(TYPES[kind], part["part"]))
    if "resource" in part:
        if "Resource" not in wanted.types:
            raise _wrong(definition, wanted, "a resource")
        return Given(wanted.name, part["resource"])
    for member, (parameter, kind) in _VALUES.items():
        if parameter.name == "value" and (member in part or "_" + member in part):
            json_name = wanted.json_name(_fitting(definition, wanted, kind))
            return Given(json_name, part.get(member), part.get("_" + member))
    raise FhirError(Kind.REQUIRED, f"the part {part.get('name')!r} has no value")


def _parts_type(definition: TypeDef, wanted: ElementDef) -> str:
    kind = wanted.types[0]
    if len(wanted.types) > 1 or kind in PRIMITIVE_TYPES or kind == "Resource":
        raise _wrong(definition, wanted, "parts")
    return kind


def _fitting(definition: TypeDef, wanted: ElementDef, kind: str) -> str:
    """The type of the element that takes a value[x] of that type."""
    if kind in wanted.types:
        return kind
    for family in _FAMILIES:
        if kind in family and len(wanted.types) == 1 and wanted.types[0] in family:
            return wanted.types[0]
    raise _wrong(definition, wanted, f"value{kind[0].upper()}{kind[1:]}")


def _built(definition: TypeDef, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The object that the parts make; a part of a repeating element may come again."""
    built: dict[str, Any] = {}
    for part in parts:
        wanted = element(definition, part["name"].removesuffix("[x]"))
        one = given(definition, part["name"], part)
        if wanted.repeats:
            values, siblings = built.setdefault(one.json_name, []), built.setdefault("_" + one.json_name, [])
            values.append(one.value)
            siblings.append(one.sibling)
        elif any(wanted.json_name(kind) in built or "_" + wanted.json_name(kind) in built for kind in wanted.types):
            raise FhirError(Kind.UNPROCESSABLE, f"{definition.name}.{wanted.name} may be given once")
        else:
            built |= {one.json_name: one.value, "_" + one.json_name: one.sibling}
    return {name: value for name, value in built.items() if not _is_nothing(value)}


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(item is None for item in value))


def _wrong(definition: TypeDef, wanted: ElementDef, said: str) -> FhirError:
    types = " or ".join(f"value{kind[0].upper()}{kind[1:]}" for kind in wanted.types[:5] if "." not in kind)
    return FhirError(
        Kind.UNPROCESSABLE,
        f"{definition.name}.{wanted.name} takes {types or 'parts named like its elements'}, not {said}",
    )
