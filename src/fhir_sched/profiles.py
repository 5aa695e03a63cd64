"""What the product itself defines: the definitions of its extensions, search parameters and operations.

Made from their declarations. R4 5.4 (StructureDefinition), 2.4 (Extensibility), 5.5, 6.5.
Knows nothing of HTTP or of tenants: all tenants share them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from fhir_sched import __version__
from fhir_sched.availability import RULE_PARTS, RULE_VALUE_SETS, Availability
from fhir_sched.definition import Param, Resource, TokenParam, UriParam
from fhir_sched.extensions import KEPT_PARTS, Extensions, Part
from fhir_sched.operation import CANONICAL_BASE, Operation, Parameter
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.operations import OPERATIONS
from fhir_sched.resources.topics import TOPICS, Topic

INTERACTIONS: Final = ("read", "search-type")
_R5_TOPIC: Final = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic"
PARAMS: Final[tuple[Param, ...]] = (
    TokenParam(
        "_id",
        "Resource.id",
        "Logical id of this artifact",
        definition="http://hl7.org/fhir/SearchParameter/Resource-id",
    ),
    UriParam("url", "StructureDefinition.url | OperationDefinition.url", "The uri that identifies the definition"),
)
"""The search parameters of these types; each finds the exact value."""


def params(kind: str) -> tuple[Param, ...]:
    """The search parameters of one of these types: a Basic has no URL to search for."""
    return tuple(param for param in PARAMS if kind != "Basic" or param.name != "url")


@cache
def definitions() -> dict[str, dict[str, dict[str, Any]]]:
    """The resources by type and id."""
    found: list[tuple[str, Part]] = [
        (resource.type, part) for resource in RESOURCES.values() for part in _parts(resource.type)
    ]
    found += KEPT_PARTS
    return {
        "StructureDefinition": {part.name: _extension(kind, part) for kind, part in sorted(found, key=_by_name)},
        "SearchParameter": {
            f"{resource.type}-{param.name}": _search_parameter(resource, param)
            for resource in RESOURCES.values()
            for param in resource.params
            if param.definition.startswith(CANONICAL_BASE)
        },
        "OperationDefinition": {each.id: _operation(each) for each in OPERATIONS},
        "ValueSet": {part.name: _value_set(part) for _, part in found if part.codes},
        "CodeSystem": {part.name: _code_system(part) for _, part in found if part.codes},
        "Basic": {topic.name: _topic(topic) for topic in TOPICS.values()},
    }


def _by_name(found: tuple[str, Part]) -> str:
    return found[1].name


def _parts(kind: str) -> list[Part]:
    elements = (element for source in RESOURCES[kind].sources for element in source.elements)
    return [part for element in elements if isinstance(element, Extensions) for part in element.parts]


def _extension(kind: str, part: Part) -> dict[str, Any]:
    """The StructureDefinition of one extension on that resource type."""
    complex_one = isinstance(part, Availability)
    return {
        "resourceType": "StructureDefinition",
        "id": part.name,
        "url": part.url,
        "version": __version__,
        "name": "".join(word.capitalize() for word in part.name.split("-")),
        "title": part.name.replace("-", " ").capitalize(),
        "status": "active",
        "description": f"{part.doc.rstrip('.')}.",
        "fhirVersion": "4.0.1",
        "kind": "complex-type",
        "abstract": False,
        "context": [{"type": "element", "expression": kind}],
        "type": "Extension",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Extension",
        "derivation": "constraint",
        "differential": {
            "element": [
                {
                    "id": "Extension",
                    "path": "Extension",
                    "short": part.doc,
                    "definition": part.doc,
                    "min": 0,
                    "max": "*" if part.repeats else "1",
                },
                *(_rule_elements() if complex_one else [_closed("Extension.extension")]),
                {"id": "Extension.url", "path": "Extension.url", "fixedUri": part.url},
                _closed("Extension.value[x]")
                if complex_one
                else _value("", part.value.removeprefix("value"), part.names, _codes_of(part)),
            ]
        },
    }


def _closed(path: str) -> dict[str, Any]:
    return {"id": path, "path": path, "max": "0"}


def _codes_of(part: Part) -> str:
    """The canonical URL of the value set that a part's value is from; "" where any value will do."""
    return f"{_url('ValueSet', part)}|{__version__}" if part.codes else part.value_set


def _url(kind: str, part: Part) -> str:
    return f"{CANONICAL_BASE}{kind}/{part.name}"


def _named(kind: str, part: Part) -> dict[str, Any]:
    """What a CodeSystem and the ValueSet of all its codes have in common."""
    return {
        "resourceType": kind,
        "id": part.name,
        "url": _url(kind, part),
        "version": __version__,
        "name": "".join(word.capitalize() for word in part.name.split("-")),
        "title": part.name.replace("-", " ").capitalize(),
        "status": "active",
        "description": f"The codes of the extension {part.url}.",
    }


def _value_set(part: Part) -> dict[str, Any]:
    include = {"system": _url("CodeSystem", part), "version": __version__}
    return {**_named("ValueSet", part), "immutable": True, "compose": {"include": [include]}}


def _code_system(part: Part) -> dict[str, Any]:
    return {
        **_named("CodeSystem", part),
        "caseSensitive": True,
        "valueSet": _url("ValueSet", part),
        "content": "complete",
        "count": len(part.codes),
        "concept": [{"code": code, "definition": f"{meaning}."} for code, meaning in part.codes],
    }


def _value(prefix: str, kind: str, names: str = "", value_set: str = "") -> dict[str, Any]:
    """The element that holds the value; R4 names primitive types with a small first letter."""
    code: dict[str, Any] = {"code": kind[0].lower() + kind[1:]}
    if names:
        code = {"code": kind, "targetProfile": [f"http://hl7.org/fhir/StructureDefinition/{names}"]}
    return {
        "id": f"Extension{prefix}.value[x]",
        "path": f"Extension{'.extension' if prefix else ''}.value[x]",
        "min": 1,
        "type": [code],
        **({"binding": {"strength": "required", "valueSet": value_set}} if value_set else {}),
    }


def _search_parameter(resource: Resource, param: Param) -> dict[str, Any]:
    """The SearchParameter of one that R4 does not define."""
    return {
        "resourceType": "SearchParameter",
        "id": f"{resource.type}-{param.name}",
        "url": param.definition,
        "version": __version__,
        "name": param.name,
        "status": "active",
        "description": f"{param.doc.rstrip('.')}.",
        "code": param.name,
        "base": [resource.type],
        "type": param.type,
        "expression": param.expression,
    }


def _operation(operation: Operation) -> dict[str, Any]:
    """The OperationDefinition; `base` is the definition that somebody else gave of the same operation."""
    return {
        "resourceType": "OperationDefinition",
        "id": operation.id,
        "url": operation.url,
        "version": __version__,
        "name": "".join(word.capitalize() for word in operation.id.split("-")),
        "title": operation.title,
        "status": "active",
        "kind": "operation",
        "description": operation.doc,
        "affectsState": operation.affects_state,
        "code": operation.code,
        **({"base": operation.defined} if operation.defined else {}),
        **({"resource": [operation.type]} if operation.type else {}),
        "system": "system" in operation.levels,
        "type": "type" in operation.levels,
        "instance": "instance" in operation.levels,
        **_parameters(operation),
    }


def _topic(topic: Topic) -> dict[str, Any]:
    """A topic of Subscriptions as R4 can hold one: a Basic with the elements of R5's type as extensions."""
    trigger = [
        {"url": "description", "valueMarkdown": topic.doc},
        {"url": "resource", "valueUri": f"http://hl7.org/fhir/StructureDefinition/{topic.resource}"},
        *({"url": "supportedInteraction", "valueCode": code} for code in topic.interactions),
    ]
    return {
        "resourceType": "Basic",
        "id": topic.name,
        "extension": [
            {"url": f"{_R5_TOPIC}.url", "valueUri": topic.url},
            {"url": f"{_R5_TOPIC}.version", "valueString": __version__},
            {"url": f"{_R5_TOPIC}.title", "valueString": topic.title},
            {"url": f"{_R5_TOPIC}.status", "valueCode": "active"},
            {"url": f"{_R5_TOPIC}.description", "valueMarkdown": topic.doc},
            {"url": f"{_R5_TOPIC}.resourceTrigger", "extension": trigger},
        ],
        "code": {"coding": [{"system": "http://hl7.org/fhir/fhir-types", "code": "SubscriptionTopic"}]},
    }


def _parameters(operation: Operation) -> dict[str, Any]:
    listed = [_parameter(each, "in") for each in operation.inputs] + [
        _parameter(each, "out") for each in operation.outputs
    ]
    return {"parameter": listed} if listed else {}


def _parameter(parameter: Parameter, use: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "use": use,
        "min": parameter.min,
        "max": parameter.max,
        "documentation": parameter.doc,
        **({"type": parameter.type} if parameter.type else {}),
        **({"targetProfile": list(parameter.targets)} if parameter.targets else {}),
        **({"searchType": parameter.search_type} if parameter.search_type else {}),
    }


def _rule_elements() -> list[dict[str, Any]]:
    """The slices of a weekly rule."""
    listed: list[dict[str, Any]] = [
        {
            "id": "Extension.extension",
            "path": "Extension.extension",
            "slicing": {"discriminator": [{"type": "value", "path": "url"}], "rules": "open"},
            "min": sum(int(low) for _, _, low, _, _ in RULE_PARTS),
        }
    ]
    for name, kind, low, high, meaning in RULE_PARTS:
        prefix = f".extension:{name}"
        here = {"id": f"Extension{prefix}", "path": "Extension.extension", "sliceName": name, "short": meaning}
        listed.append({**here, "definition": meaning, "min": int(low), "max": high})
        listed.append({"id": f"Extension{prefix}.extension", "path": "Extension.extension.extension", "max": "0"})
        listed.append({"id": f"Extension{prefix}.url", "path": "Extension.extension.url", "fixedUri": name})
        listed.append(_value(prefix, kind, value_set=RULE_VALUE_SETS.get(name, "")))
    return listed
