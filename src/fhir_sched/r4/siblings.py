"""Primitive values and their extensions, in JSON two properties such as `birthDate` and `_birthDate` (R4 2.6.2.3).

In arrays both have the same length and null stands for what one of them lacks at that place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fhir_sched.outcome import Kind
from fhir_sched.r4.finding import CAP, Findings, below, one, shown
from fhir_sched.r4.primitives import CHECKS
from fhir_sched.r4.scope import Check, Scope


class Sibling(NamedTuple):
    """What an underscore property belongs to: the property, its path, and whether that is an array."""

    property: str
    path: str
    repeats: bool


def repeated_primitive(values: Any, extensions: Any, check: Check, scope: Scope) -> Findings | None:
    """What is wrong with the array of a repeating primitive, given its underscore sibling (None: there is none)."""
    if type(values) is not list:
        return one(Kind.STRUCTURE, f"{shown(values)} is not allowed here: the element repeats, so it is an array.")
    if not values:
        return one(Kind.STRUCTURE, "An array may not be empty: leave the element out.")
    partners = extensions if type(extensions) is list else []
    if partners and len(partners) != len(values):
        return one(Kind.STRUCTURE, f"The array has {len(values)} items but its underscore sibling {len(partners)}.")
    found: Findings = []
    for index, value in enumerate(values):
        if value is None and partners and partners[index] is not None:
            continue
        bad = check(value, scope)
        if bad is not None:
            found += below(f"[{index}]", bad)
            if len(found) >= CAP:
                break
    return found or None


def extended_primitive(owner: dict[str, Any], sibling: Sibling, check: Check, scope: Scope) -> Findings | None:
    """What is wrong with an underscore property; `check` is that of Element."""
    extensions = owner[f"_{sibling.property}"]
    values = owner.get(sibling.property)
    if not sibling.repeats:
        return _single(extensions, check, scope, has_value=values is not None)
    if type(extensions) is not list:
        return one(Kind.STRUCTURE, "The underscore sibling of an array is an array, with null where there is nothing.")
    if not extensions or (values is None and None in extensions) or all(item is None for item in extensions):
        return one(Kind.STRUCTURE, "An array may not be empty or have places without value and extension.")
    partners = values if type(values) is list and len(values) == len(extensions) else [None] * len(extensions)
    found: Findings = []
    for index, (item, value) in enumerate(zip(extensions, partners, strict=True)):
        bad = None if item is None else _single(item, check, scope, has_value=value is not None)
        if bad is not None:
            found += below(f"[{index}]", bad)
            if len(found) >= CAP:
                break
    return found or None


def _single(item: Any, check: Check, scope: Scope, *, has_value: bool) -> Findings | None:
    """An id alone says something only beside a value (ele-1)."""
    if has_value and type(item) is dict and item.keys() == {"id"}:
        bad = CHECKS["string"](item["id"], scope)
        return None if bad is None else below(".id", bad)
    return check(item, scope)
