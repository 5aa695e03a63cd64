"""What holds between a resource and those it contains (R4 2.3.4 and 2.8, rules dom-2 to dom-5).

Their own elements are checked like those of any resource, elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fhir_sched.outcome import Kind
from fhir_sched.r4.finding import CAP, Findings, one
from fhir_sched.r4.structure import RESOURCE_TYPES


def types_by_id(resource: dict[str, Any]) -> dict[str, str]:
    """The resource type of each contained resource that has an id; "" where it is none of R4."""
    return {item["id"]: _type_of(item) for item in _contained(resource) if type(item.get("id")) is str}


def containment_findings(resource: dict[str, Any]) -> Findings:
    """What is wrong with the contained resources as such, at paths such as `.contained[0].meta`."""
    used = set(_local_references(resource))
    seen: set[str] = set()
    found: Findings = []
    for index, item in enumerate(resource["contained"] if type(resource["contained"]) is list else ()):
        if type(item) is dict:
            found += _item_findings(item, f".contained[{index}]", used, seen)
        if len(found) >= CAP:
            break
    return found


def _type_of(item: dict[str, Any]) -> str:
    name = item.get("resourceType")
    return name if type(name) is str and name in RESOURCE_TYPES else ""


def _contained(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    items = resource.get("contained")
    return (item for item in (items if type(items) is list else ()) if type(item) is dict)


def _item_findings(item: dict[str, Any], path: str, used: set[str], seen: set[str]) -> Findings:
    found: Findings = []
    if "contained" in item:
        found += one(Kind.INVARIANT, "A contained resource may not contain others. (dom-2)", f"{path}.contained")
    meta = item.get("meta")
    if type(meta) is dict:
        for key, name in (("dom-4", "versionId"), ("dom-4", "lastUpdated"), ("dom-5", "security")):
            if name in meta:
                found += one(Kind.INVARIANT, f"A contained resource has no {name}. ({key})", f"{path}.meta.{name}")
    return found + _identity_findings(item, path, used, seen)


def _identity_findings(item: dict[str, Any], path: str, used: set[str], seen: set[str]) -> Findings:
    identity = item.get("id")
    if type(identity) is not str:
        return one(Kind.REQUIRED, "A contained resource needs an id.", f"{path}.id") if identity is None else []
    if identity in seen:
        return one(Kind.VALUE, "Another contained resource has this id.", f"{path}.id")
    seen.add(identity)
    if f"#{identity}" in used or "#" in _local_references(item):
        return []
    return one(Kind.INVARIANT, f"Nothing refers to this contained resource by #{identity}. (dom-3)", path)


def _local_references(root: dict[str, Any]) -> Iterator[str]:
    """Every text below that could be a local reference, in a Reference or a canonical, uri or url."""
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            if value.startswith("#"):
                yield value
        elif type(value) is dict:
            waiting.extend(value.values())
        elif type(value) is list:
            waiting.extend(value)
