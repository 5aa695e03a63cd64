"""The invariants of R4 that hold for one element whatever surrounds it, keyed by type.

Written by hand from the constraints of the StructureDefinitions. Two are read as they are meant rather than as printed:
app-3 allows `waitlist` without times (the expression does, the prose forgets it), and app-4 allows a reason on `noshow`
(printed `no-show`, which is no code). A rule may be given any object and complains only about what it understands; what
concerns the whole resource (contained resources, local references) is in `validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from fhir_sched.outcome import Kind
from fhir_sched.r4.finding import Findings, one
from fhir_sched.r4.moments import is_after

Rule: TypeAlias = Callable[[dict[str, Any]], Findings | None]

_UCUM = "http://unitsofmeasure.org"
_TIMELESS = ("proposed", "cancelled", "waitlist")  # no set: a wrong status may be unhashable


def _broken(key: str, sentence: str, path: str = "") -> Findings:
    return one(Kind.INVARIANT, f"{sentence} ({key})", path)


def _has(value: dict[str, Any], name: str) -> bool:
    """Whether the element is there, with a value or with extensions only."""
    return name in value or "_" + name in value


def _number(value: Any) -> int | float | Decimal | None:
    return value if type(value) in (int, float, Decimal) else None


def _appointment(value: dict[str, Any]) -> Findings | None:
    found: Findings = []
    start, end = _has(value, "start"), _has(value, "end")
    status = value.get("status")
    if start != end:
        found += _broken("app-2", "Give both start and end, or neither.")
    elif not start and status not in _TIMELESS and status is not None:
        found += _broken("app-3", "start and end may only be missing when status is proposed, cancelled or waitlist.")
    if "cancelationReason" in value and status not in ("cancelled", "noshow"):
        found += _broken("app-4", "A cancelationReason needs the status cancelled or noshow.", ".cancelationReason")
    return found or None


def _actor_or_type(value: dict[str, Any]) -> Findings | None:
    if "actor" in value or "type" in value:
        return None
    return _broken("app-1", "A participant needs an actor or a type.")


def _response(value: dict[str, Any]) -> Findings | None:
    if "actor" in value or "participantType" in value:
        return None
    return _broken("apr-1", "Give an actor or a participantType.")


def _period(value: dict[str, Any]) -> Findings | None:
    start, end = value.get("start"), value.get("end")
    if type(start) is str and type(end) is str and is_after(start, end):
        return _broken("per-1", "The start of a period must not lie after its end.")
    return None


def _quantity(value: dict[str, Any]) -> Findings | None:
    if _has(value, "code") and not _has(value, "system"):
        return _broken("qty-3", "A quantity with a code needs the system of that code.")
    return None


def _ucum_quantity(key: str) -> Rule:
    """Age, Count and Distance: the value goes with a code, and that code is one of UCUM."""

    def rule(value: dict[str, Any]) -> Findings | None:
        if _has(value, "value") and not _has(value, "code"):
            return _broken(key, "The value needs the code of its unit.")
        if _has(value, "system") and value.get("system") != _UCUM:
            return _broken(key, f"The system of the unit must be {_UCUM}.")
        return None

    return rule


def _positive(value: dict[str, Any]) -> Findings | None:
    number = _number(value.get("value"))
    return _broken("age-1", "An age must be more than 0.") if number is not None and number <= 0 else None


def _count(value: dict[str, Any]) -> Findings | None:
    if _has(value, "code") and value.get("code") != "1":
        return _broken("cnt-3", "The code of a count must be 1.")
    number = _number(value.get("value"))
    return _broken("cnt-3", "A count must be a whole number.") if number is not None and number % 1 else None


def _duration(value: dict[str, Any]) -> Findings | None:
    if _has(value, "code") and not (value.get("system") == _UCUM and _has(value, "value")):
        return _broken("drt-1", f"A duration with a code needs a value and the system {_UCUM}.")
    return None


def _range(value: dict[str, Any]) -> Findings | None:
    low, high = value.get("low"), value.get("high")
    found = _simple(value, "low", "high") or []
    if isinstance(low, dict) and isinstance(high, dict) and _same_unit(low, high):
        least, most = _number(low.get("value")), _number(high.get("value"))
        if least is not None and most is not None and least > most:
            found += _broken("rng-2", "The low end of a range must not be more than its high end.")
    return found or None


def _same_unit(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(left.get(name) == right.get(name) for name in ("system", "code", "unit"))


def _simple(value: dict[str, Any], *names: str) -> Findings | None:
    """Elements that R4 restricts to SimpleQuantity: a Quantity without comparator."""
    for name in names:
        quantity = value.get(name)
        if isinstance(quantity, dict) and _has(quantity, "comparator"):
            return _broken("sqty-1", "A comparator is not allowed here.", f".{name}.comparator")
    return None


def _ratio(value: dict[str, Any]) -> Findings | None:
    if ("numerator" in value) != ("denominator" in value):
        return _broken("rat-1", "Give both numerator and denominator, or neither.")
    return None if "numerator" in value or "extension" in value else _broken("rat-1", "A ratio needs its two numbers.")


def _needs(key: str, name: str, other: str) -> Rule:
    def rule(value: dict[str, Any]) -> Findings | None:
        return (
            _broken(key, f"{name} needs {other} beside it.") if _has(value, name) and not _has(value, other) else None
        )

    return rule


def _either(key: str, *names: str) -> Rule:
    def rule(value: dict[str, Any]) -> Findings | None:
        return None if any(_has(value, name) for name in names) else _broken(key, f"Give one of {', '.join(names)}.")

    return rule


def _exactly_one(key: str, *names: str) -> Rule:
    def rule(value: dict[str, Any]) -> Findings | None:
        given = sum(_has(value, name) for name in names)
        return None if given == 1 else _broken(key, f"Give exactly one of {', '.join(names)}.")

    return rule


def _not_both(key: str, name: str, other: str) -> Rule:
    def rule(value: dict[str, Any]) -> Findings | None:
        return _broken(key, f"Give {name} or {other}, not both.") if _has(value, name) and _has(value, other) else None

    return rule


def _not_negative(key: str, name: str) -> Rule:
    def rule(value: dict[str, Any]) -> Findings | None:
        number = _number(value.get(name))
        return _broken(key, f"{name} must not be negative.", f".{name}") if number is not None and number < 0 else None

    return rule


def _offset(value: dict[str, Any]) -> Findings | None:
    if not _has(value, "offset"):
        return None
    when = value.get("when")
    meals = {"C", "CM", "CD", "CV"}
    if not _has(value, "when") or (isinstance(when, list) and any(type(w) is str and w in meals for w in when)):
        return _broken("tim-9", "An offset needs a when, other than C, CM, CD and CV.", ".offset")
    return None


def _extension(value: dict[str, Any]) -> Findings | None:
    values = sum(name.startswith(("value", "_value")) for name in value)
    if ("extension" in value) == (values > 0):
        return _broken("ext-1", "An extension has either a value or extensions of its own, not both and not neither.")
    return None


def _parameter(value: dict[str, Any]) -> Findings | None:
    given = ("part" in value) + ("resource" in value) + any(name.startswith(("value", "_value")) for name in value)
    return None if given == 1 else _broken("inv-1", "A parameter has exactly one of value, resource and part.")


def _trigger(value: dict[str, Any]) -> Findings | None:
    timing = any(name.lstrip("_").startswith("timing") for name in value)
    kind = value.get("type")
    if "data" in value and timing:
        return _broken("trd-1", "Give data or timing, not both.")
    if kind == "named-event" and not _has(value, "name"):
        return _broken("trd-3", "A named-event needs a name.")
    if kind == "periodic" and not timing:
        return _broken("trd-3", "A periodic trigger needs a timing.")
    if type(kind) is str and kind.startswith("data-") and "data" not in value:
        return _broken("trd-3", "A data event needs data.")
    return None


def _organization_home(key: str, name: str) -> Rule:
    def rule(value: dict[str, Any]) -> Findings | None:
        items = value.get(name)
        if isinstance(items, list) and any(isinstance(item, dict) and item.get("use") == "home" for item in items):
            return _broken(key, f"An organization has no {name} for home use.", f".{name}")
        return None

    return rule


_QUANTITY_RULES = (_quantity,)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "Age": (*_QUANTITY_RULES, _ucum_quantity("age-1"), _positive),
    "Appointment": (_appointment,),
    "Appointment.participant": (_actor_or_type,),
    "AppointmentResponse": (_response,),
    "Attachment": (_needs("att-1", "data", "contentType"),),
    "AuditEvent.entity": (_not_both("sev-1", "name", "query"),),
    "ContactPoint": (_needs("cpt-2", "value", "system"),),
    "Count": (*_QUANTITY_RULES, _ucum_quantity("cnt-3"), _count),
    "DataRequirement.codeFilter": (_exactly_one("drq-1", "path", "searchParam"),),
    "DataRequirement.dateFilter": (_exactly_one("drq-2", "path", "searchParam"),),
    "Distance": (*_QUANTITY_RULES, _ucum_quantity("dis-1")),
    "Dosage": (lambda value: _simple(value, "maxDosePerAdministration", "maxDosePerLifetime"),),
    "Dosage.doseAndRate": (lambda value: _simple(value, "doseQuantity", "rateQuantity"),),
    "Duration": (*_QUANTITY_RULES, _duration),
    "Expression": (_either("exp-1", "expression", "reference"),),
    "Extension": (_extension,),
    "Organization": (
        _either("org-1", "identifier", "name"),
        _organization_home("org-2", "address"),
        _organization_home("org-3", "telecom"),
    ),
    "Parameters.parameter": (_parameter,),
    "Patient.contact": (_either("pat-1", "name", "telecom", "address", "organization"),),
    "Period": (_period,),
    "Quantity": _QUANTITY_RULES,
    "Range": (_range,),
    "Ratio": (_ratio,),
    "SampledData": (lambda value: _simple(value, "origin"),),
    "Timing.repeat": (
        _needs("tim-1", "duration", "durationUnit"),
        _needs("tim-2", "period", "periodUnit"),
        _not_negative("tim-4", "duration"),
        _not_negative("tim-5", "period"),
        _needs("tim-6", "periodMax", "period"),
        _needs("tim-7", "durationMax", "duration"),
        _needs("tim-8", "countMax", "count"),
        _offset,
        _not_both("tim-10", "timeOfDay", "when"),
    ),
    "TriggerDefinition": (_trigger, _needs("trd-2", "condition", "data")),
}
