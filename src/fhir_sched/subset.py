"""`_summary` and `_elements`: a part of a resource, tagged SUBSETTED. R4 3.1.1.5.6, 3.1.1.5.7.

Mandatory and modifier elements always stay. Reads the element tables; knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fhir_sched.r4.structure import TYPES, ElementDef

_TAG = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "Resource encoded in summary mode",
}
_ALWAYS = ("resourceType", "id", "meta")


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
