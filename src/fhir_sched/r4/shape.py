"""The element tables made into checks, one a type: unknown elements, JSON types, cardinality, nulls, choices, codes.

R4 2.6.2 (JSON representation) and ele-1. A check is compiled when its type is first met, together with all types that
it can lead to, and costs a dictionary lookup and a call for each property of a sound value.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from fhir_sched.outcome import Kind
from fhir_sched.r4.containment import containment_findings, types_by_id
from fhir_sched.r4.finding import CAP, Findings, below, one, shown
from fhir_sched.r4.invariants import RULES, Rule
from fhir_sched.r4.primitives import CHECKS, required_code
from fhir_sched.r4.scope import Check, Scope
from fhir_sched.r4.siblings import Sibling, extended_primitive, repeated_primitive
from fhir_sched.r4.structure import (
    PRIMITIVE_TYPES,
    RESOURCE_TYPES,
    TYPES,
    ElementDef,
    Member,
    TypeDef,
    takes_extensions,
)
from fhir_sched.r4.targets import reference_check

_compiled: dict[str, Check] = {}
_LONGEST_NAME = 64


def type_check(name: str) -> Check:
    """The check of a complex, backbone or resource type; of a resource it expects that `resourceType` is right."""
    found = _compiled.get(name)
    if found is None:

        def later(value: Any, scope: Scope) -> Findings | None:
            return _compiled[name](value, scope)

        _compiled[name] = later  # types are recursive: an Extension has extensions
        found = _compiled[name] = _object_check(TYPES[name])
    return found


def resource_findings(name: str, resource: dict[str, Any], scope: Scope) -> Findings | None:
    """What is wrong with a resource of that type that stands by itself, with all it contains."""
    if "contained" not in resource:
        return type_check(name)(resource, scope)
    found = type_check(name)(resource, scope._replace(contained=types_by_id(resource))) or []
    return found + containment_findings(resource) or None


def _object_check(definition: TypeDef) -> Check:
    properties = _properties_check(definition)
    required = tuple(e.name for e in definition.elements.values() if e.min and not e.choice)
    rules = (*_choice_rules(definition), *RULES.get(definition.name, ()))
    is_resource = definition.kind == "resource"

    def check(value: Any, scope: Scope) -> Findings | None:
        if type(value) is not dict:
            return _not_an_object(value)
        # An element with nothing but an id says nothing; a resource may be as bare as it likes.
        if len(value) <= 1 and not is_resource and (not value or "id" in value):
            return one(Kind.STRUCTURE, "An element needs a value or elements of its own. (ele-1)")
        found = properties(value, scope)
        for name in required:
            if name not in value and f"_{name}" not in value:
                found = (found or []) + one(Kind.REQUIRED, f"{name} is required.", f".{name}")
        for rule in rules:
            broken = rule(value)
            if broken is not None:
                found = broken if found is None else found + broken
        return found

    return check


def _properties_check(definition: TypeDef) -> Check:
    checks, unusual = _property_checks(definition)
    path_of = {name: f".{member.element.name}" for name, member in definition.members.items()}
    check_of = checks.get

    def check(value: Any, scope: Scope) -> Findings | None:
        found: Findings | None = None
        for key, item in value.items():
            member = check_of(key)
            bad = unusual(key, value, scope) if member is None else member(item, scope)
            if bad is None:
                continue
            if member is not None:
                bad = below(path_of[key], bad)
            found = bad if found is None else found + bad
            if len(found) >= CAP:
                break
        return found

    return check


def _property_checks(definition: TypeDef) -> tuple[dict[str, Check], Any]:
    """The checks by property, and one for properties that cannot be judged alone or are not known."""
    checks: dict[str, Check] = {"resourceType": _sound} if definition.kind == "resource" else {}
    repeated: dict[str, Check] = {}
    siblings: dict[str, Sibling] = {}
    for name, member in definition.members.items():
        check = _single_check(member)
        is_primitive = member.type in PRIMITIVE_TYPES
        if not member.element.repeats:
            checks[name] = check
        elif is_primitive:
            repeated[name] = check
        else:
            checks[name] = _array_check(check)
        if is_primitive and takes_extensions(member):
            siblings[f"_{name}"] = Sibling(name, f".{member.element.name}", member.element.repeats)
    extension_check = type_check("Element")

    def unusual(key: str, value: dict[str, Any], scope: Scope) -> Findings | None:
        if key in repeated:
            found = repeated_primitive(value[key], value.get(f"_{key}"), repeated[key], scope)
            return None if found is None else below(f".{key}", found)
        if key in siblings:
            found = extended_primitive(value, siblings[key], extension_check, scope)
            return None if found is None else below(siblings[key].path, found)
        return unknown_element(key, definition)

    return checks, unusual


def _single_check(member: Member) -> Check:
    element, kind = member
    if kind == "Resource":
        return _contained_resource if element.name == "contained" else _nested_resource
    if kind == "Reference":
        return reference_check(type_check(kind), element.targets)
    if kind in PRIMITIVE_TYPES:
        return required_code(element.codes) if element.codes else CHECKS[kind]
    return type_check(kind)


def _array_check(check: Check) -> Check:
    def check_all(value: Any, scope: Scope) -> Findings | None:
        if type(value) is not list:
            return one(Kind.STRUCTURE, f"{shown(value)} is not allowed here: the element repeats, so it is an array.")
        if not value:
            return one(Kind.STRUCTURE, "An array may not be empty: leave the element out.")
        found: Findings | None = None
        for index, item in enumerate(value):
            bad = check(item, scope)
            if bad is not None:
                found = (found or []) + below(f"[{index}]", bad)
                if len(found) >= CAP:
                    break
        return found

    return check_all


def _choice_rules(definition: TypeDef) -> list[Rule]:
    return [_choice_rule(element) for element in definition.elements.values() if element.choice]


def _choice_rule(element: ElementDef) -> Rule:
    names = frozenset(prefix + element.json_name(kind) for kind in element.types for prefix in ("", "_"))

    def rule(value: dict[str, Any]) -> Findings | None:
        given = {name.removeprefix("_") for name in names.intersection(value)}
        if len(given) > 1:
            listed = ", ".join(sorted(given))
            return one(Kind.STRUCTURE, f"Only one {element.name}[x] is allowed, not {listed}.", f".{element.name}")
        if element.min and not given:
            return one(Kind.REQUIRED, f"{element.name}[x] is required.", f".{element.name}")
        return None

    return rule


def _contained_resource(value: Any, scope: Scope) -> Findings | None:
    wrong = wrong_resource_type(value)
    return wrong if wrong is not None else type_check(value["resourceType"])(value, scope._replace(inside=True))


def _nested_resource(value: Any, scope: Scope) -> Findings | None:
    """A resource in a Bundle or in Parameters, which stands by itself."""
    wrong = wrong_resource_type(value)
    if wrong is not None or not scope.nested:
        return wrong
    return resource_findings(value["resourceType"], value, Scope({}, conditional=True))


def wrong_resource_type(value: Any) -> Findings | None:
    """What is wrong with something as a resource, before its elements are looked at."""
    if type(value) is not dict:
        return _not_an_object(value)
    name = value.get("resourceType")
    if type(name) is str and name in RESOURCE_TYPES:
        return None
    if name is None:
        return one(Kind.REQUIRED, "resourceType is required.", ".resourceType")
    return one(Kind.STRUCTURE, f"{shown(name)} is not a resource type of R4.", ".resourceType")


def _not_an_object(value: Any) -> Findings:
    if value is None:
        return one(Kind.STRUCTURE, "null is not allowed here: leave an element out that has no value.")
    if type(value) is list:
        return one(Kind.STRUCTURE, "An array is not allowed here: the element occurs once, as an object.")
    return one(Kind.STRUCTURE, f"{shown(value)} has the wrong JSON type: it must be an object.")


def unknown_element(key: str, definition: TypeDef) -> Findings:
    """The finding for a name that the type has no element of, at its own place where it can be one."""
    sentence = f"{definition.name} has no element {shown(key)} in R4."
    if len(key) > _LONGEST_NAME or not key.isidentifier():
        return one(Kind.STRUCTURE, sentence)
    for near in get_close_matches(key, definition.members, n=1, cutoff=0.75):
        sentence += f" Is {near} meant?"
    return one(Kind.STRUCTURE, sentence, f".{key}")


def _sound(_value: Any, _scope: Scope) -> None:
    return None
