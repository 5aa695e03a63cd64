"""`_summary` and `_elements`: a part of a resource, tagged SUBSETTED. R4 3.1.0.1.5, 3.1.1.5.6, 3.1.1.5.7.

Mandatory and modifier elements always stay. Reads the element tables; knows nothing of requests but their parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from fhir_sched.document import dumps, parse
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.r4.structure import TYPES, ElementDef

PARAMETERS: Final = frozenset({"_summary", "_elements"})
SUMMARIES: Final = ("true", "text", "data", "count", "false")
_PARTIAL = frozenset({"true", "text", "data"})

_TAG = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "Resource encoded in summary mode",
}
_ALWAYS = ("resourceType", "id", "meta")


@dataclass(frozen=True, slots=True)
class Part:
    """What is asked for of each resource that is shown: `_summary`, and the names that `_elements` lists."""

    summary: str = ""
    elements: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of a resource is asked for; `_summary=count` asks for fewer resources, not for less of one."""
        return not self.elements and self.summary not in _PARTIAL

    def of(self, resource: bytes) -> bytes:
        """The part of a resource's JSON; the same bytes where the whole is asked for."""
        return resource if self.whole else dumps(subset(parse(resource), self.summary, self.elements))


def part(pairs: Iterable[tuple[str, str]]) -> Part:
    """The part that a read, a vread or a history is asked for. Raises 400 as a search does for the same parameters."""
    summary, elements = "", ""
    for name, text in pairs:
        if name == "_summary" and text.strip():
            if text not in SUMMARIES:
                raise FhirError(Kind.VALUE, f"_summary is one of {', '.join(SUMMARIES)}, not {text!r}")
            summary = text
        elif name == "_elements" and text.strip():
            if elements:
                raise FhirError(Kind.VALUE, "_elements may be given once")
            elements = text
    return Part(summary, named(elements))


def named(elements: str) -> tuple[str, ...]:
    """The names in the value of `_elements`."""
    return tuple(filter(None, (name.strip() for name in elements.split(","))))


def subset(document: dict[str, Any], summary: str, elements: tuple[str, ...]) -> dict[str, Any]:
    """The part that `_summary` (true, text, data) or `_elements` asks for; the whole where neither does."""
    if elements:
        return _tagged(_part(document, lambda element: element.name in elements))
    match summary:
        case "true":
            return _tagged(_part(document, lambda element: element.summary))
        case "text":
            return _tagged(_part(document, lambda element: element.name == "text"))
        case "data":
            return _tagged({name: value for name, value in document.items() if name != "text"})
    return document


def _part(document: dict[str, Any], wanted: Callable[[ElementDef], bool]) -> dict[str, Any]:
    members = TYPES[document["resourceType"]].members

    def stays(name: str) -> bool:
        member = members.get(name.removeprefix("_"))
        if member is None:
            return name in _ALWAYS
        element = member.element
        return name in _ALWAYS or element.min > 0 or element.modifier or wanted(element)

    return {name: value for name, value in document.items() if stays(name)}


def _tagged(document: dict[str, Any]) -> dict[str, Any]:
    meta = document.get("meta", {})
    return {**document, "meta": {**meta, "tag": [*meta.get("tag", []), _TAG]}}
