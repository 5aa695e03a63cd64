"""References: how they are written and whether they lead to a type that the element allows (R4 2.3, rule ref-1).

The type is told by the reference itself (`Patient/1`, an absolute URL that ends so, `#x` by the contained resource) or
by `Reference.type`. Whether the target exists is not known here.
"""

from __future__ import annotations

import re
from typing import Any

from fhir_sched.outcome import Kind
from fhir_sched.r4.finding import Findings, a, one, shown
from fhir_sched.r4.primitives import PATTERNS
from fhir_sched.r4.scope import Check, Scope
from fhir_sched.r4.structure import RESOURCE_TYPES

_is_id = PATTERNS["id"].fullmatch
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20]+")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]{1,63})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_BY_SEARCH = re.compile(r"([A-Z][A-Za-z]{1,63})\?.+")
_CORE = "http://hl7.org/fhir/StructureDefinition/"
_SAYING = ("reference", "_reference", "identifier", "display", "_display", "extension")


def reference_check(plain: Check, targets: tuple[str, ...]) -> Check:
    """The check that a Reference is sound (by `plain`) and leads to one of `targets`; empty stands for any."""
    is_open = not targets or "Resource" in targets
    allowed = RESOURCE_TYPES if is_open else frozenset(targets)

    def check(value: Any, scope: Scope) -> Findings | None:
        found = plain(value, scope)
        if type(value) is not dict:
            return found
        text = value.get("reference")
        if type(text) is str and "type" not in value:
            kind, _, identity = text.partition("/")
            if kind in allowed and _is_id(identity):
                return found
        more = _faults(value, allowed, scope)
        return found + more if found and more else found or more

    return check


def _faults(value: dict[str, Any], allowed: frozenset[str], scope: Scope) -> Findings | None:
    text, declared = value.get("reference"), value.get("type")
    if not any(name in value for name in _SAYING):
        return one(Kind.INVARIANT, "A reference needs at least one of reference, identifier and display.")
    stated = declared.removeprefix(_CORE) if type(declared) is str else None
    if type(text) is not str:
        known = stated if stated in RESOURCE_TYPES else None
        return _disallowed(known, allowed, ".type")
    if (fault := _unreadable(text, scope)) is not None:
        return fault
    actual = _type_of(text, scope)
    if actual and stated in RESOURCE_TYPES and stated != actual:
        return one(Kind.VALUE, f"The type {shown(declared)} is not that of the reference, {actual}.", ".type")
    return _disallowed(actual or (stated if stated in RESOURCE_TYPES else None), allowed, ".reference")


def _disallowed(kind: str | None, allowed: frozenset[str], path: str) -> Findings | None:
    if kind is None or kind in allowed:
        return None
    return one(Kind.VALUE, f"This may not refer to {a(kind)}; allowed: {', '.join(sorted(allowed))}.", path)


def _unreadable(text: str, scope: Scope) -> Findings | None:
    if text.startswith("#"):
        if text[1:] in scope.contained or (text == "#" and scope.inside):
            return None
        return one(Kind.INVARIANT, f"{shown(text)} is not the id of a contained resource. (ref-1)", ".reference")
    if _ABSOLUTE.fullmatch(text):
        return None
    by_search = _BY_SEARCH.fullmatch(text)
    if by_search and not scope.conditional:
        return one(Kind.VALUE, "A reference by search is only allowed in a transaction.", ".reference")
    found = by_search or _RELATIVE.fullmatch(text)
    if found is None:
        right = "Type/id, such as Patient/123, an absolute URL, or # and the id of a contained resource"
        return one(Kind.VALUE, f"{shown(text)} is not a reference: write {right}.", ".reference")
    if found[1] not in RESOURCE_TYPES:
        return one(Kind.VALUE, f"{shown(found[1])} is not a resource type of R4.", ".reference")
    return None


def _type_of(text: str, scope: Scope) -> str | None:
    """The resource type that a readable reference names, None when it names none that R4 knows."""
    if text.startswith("#"):
        return scope.contained.get(text[1:])
    if by_search := _BY_SEARCH.fullmatch(text):
        return by_search[1]
    segments = text.partition("/_history/")[0].rsplit("/", 2)
    candidate = segments[-2] if len(segments) > 1 else None
    return candidate if candidate in RESOURCE_TYPES and _is_id(segments[-1]) else None
