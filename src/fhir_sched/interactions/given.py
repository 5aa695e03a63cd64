"""What an operation was given: its inputs, checked against their declaration. R4 3.2.0.3 (request).

Inputs come as a Parameters resource in the body and, where they are primitive, in the URL as well; parameters of the
URL that begin with `_` (such as `_count`) belong to the request and not to the operation. Knows no operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_sched.interactions.call import Call
from fhir_sched.operation import Operation, Parameter
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.r4.finding import a
from fhir_sched.r4.primitives import CHECKS
from fhir_sched.r4.structure import RESOURCE_TYPES
from fhir_sched.search.values import with_plus
from fhir_sched.validate import resource_issues

Sent = dict[str, Any] | str
"""A parameter of the body, or the text of one in the URL."""

_NUMBERS = frozenset({"integer", "positiveInt", "unsignedInt"})
_LONGEST = 12
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Given:
    """The values of the inputs by name, in the order in which they came: str, int, bool, or a dict for other types."""

    values: Mapping[str, tuple[Any, ...]]

    def every(self, name: str) -> tuple[Any, ...]:
        """All values of an input; empty for none."""
        return self.values.get(name, ())

    def one(self, name: str) -> Any:
        """The value of an input that occurs once, or None."""
        return next(iter(self.every(name)), None)


def given(operation: Operation, call: Call) -> Given:
    """The inputs of that call. Raises 400 with every input that is unknown, missing, repeated or of another type."""
    known = {parameter.name: parameter for parameter in operation.inputs}
    values: dict[str, tuple[Any, ...]] = {}
    issues: list[Issue] = []
    wrong: set[str] = set()
    sent: list[tuple[str, str, Sent]] = [*_of_body(call), *_of_url(call)]
    for name, where, found in sent:
        parameter = known.get(name)
        if parameter is None:
            listed = ", ".join(known) or "none"
            issues.append(
                Issue(Kind.NOT_SUPPORTED, f"{operation.word} has no parameter {name!r}; it has {listed}", where)
            )
            continue
        value = _value(parameter, found, where)
        if isinstance(value, Issue):
            issues.append(value)
            wrong.add(name)
        else:
            values[name] = (*values.get(name, ()), value)
    issues += [
        issue
        for parameter in operation.inputs
        if parameter.name not in wrong
        for issue in _counted(parameter, len(values.get(parameter.name, ())))
    ]
    if issues:
        raise FhirError.of(issues)
    return Given(values)


def _of_body(call: Call) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, place and content of each parameter in the body."""
    body = {} if call.method in ("GET", "HEAD") or call.bodyless else call.body()
    if not body:
        return
    issues = resource_issues(body, "Parameters")
    if issues:
        raise FhirError.of(issues)
    for index, parameter in enumerate(body.get("parameter", ())):
        yield parameter["name"], f"Parameters.parameter[{index}]", parameter


def _of_url(call: Call) -> Iterator[tuple[str, str, str]]:
    for name, text in call.pairs:
        if not name.startswith("_"):
            yield name, name, text


def _value(parameter: Parameter, found: Sent, where: str) -> Any:
    """The value as its declared type has it, or the Issue that says what would be right."""
    if parameter.type in CHECKS:
        value = _of_text(parameter, found) if isinstance(found, str) else _primitive(found)
        findings = CHECKS[parameter.type](value, None)
        return Issue(findings[0][1], f"{parameter.name}: {findings[0][2]}", where) if findings else value
    if isinstance(found, str):
        return Issue(
            Kind.INVALID, f"{parameter.name} is {a(parameter.type)}: it is sent in a Parameters resource", where
        )
    resource = found.get("resource")
    value = resource if resource is not None else found.get(f"value{parameter.type}")
    if value is None or (resource is not None and resource["resourceType"] != parameter.type):
        member = "resource" if resource is not None or parameter.type in RESOURCE_TYPES else f"value{parameter.type}"
        return Issue(Kind.VALUE, f"{parameter.name} takes {a(parameter.type)} in {member!r}", where)
    return value


def _of_text(parameter: Parameter, text: str) -> Any:
    if parameter.type in _NUMBERS:
        return int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < _LONGEST else text
    if parameter.type == "dateTime":
        return with_plus(text)
    return _TRUTH.get(text, text) if parameter.type == "boolean" else text


def _primitive(found: dict[str, Any]) -> Any:
    """The value whichever primitive type it was sent as: a code or uri is as good a string as valueString."""
    return next((value for name, value in found.items() if name.startswith("value")), None)


def _counted(parameter: Parameter, count: int) -> Iterator[Issue]:
    if count < parameter.min:
        yield Issue(
            Kind.REQUIRED, f"the parameter {parameter.name!r} is needed: {parameter.doc}", "Parameters.parameter"
        )
    elif parameter.max != "*" and count > int(parameter.max):
        yield Issue(Kind.INVALID, f"{parameter.name!r} may be given once, not {count} times", "Parameters.parameter")
