"""What of a resource a patient may see: public Slots and Schedules, and no other patient of a group appointment.

Applied to every resource that leaves, wherever it was found. Knows nothing of searches or HTTP.
"""

from __future__ import annotations

from typing import Any

from fhir_sched.document import dumps, parse
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.reference import of_element
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import Decision, decide

_PUBLIC_ELEMENTS = frozenset(
    {
        "resourceType", "id", "meta", "identifier", "active", "serviceCategory", "serviceType", "specialty",
        "appointmentType", "actor", "planningHorizon", "schedule", "status", "start", "end", "overbooked", "extension",
    }
)  # fmt: skip
_PUBLIC_EXTENSIONS = frozenset({EXTENSION_BASE + "schedule-timezone"})
_PEOPLE = ("Patient", "RelatedPerson")


def shown(caller: Caller, resource_type: str, body: bytes, base: str) -> bytes:
    """The JSON of a resource as this caller may see it; the same bytes for whoever has no limits."""
    decision = _sight(caller, resource_type)
    if decision.public:
        return dumps(_public(parse(body)))
    patients = {limit.patient for limit in decision.limits if limit.patient}
    if decision.unlimited or not patients:
        return body
    document = parse(body)
    kept = [item for item in document.get("participant", ()) if not _is_other_person(item, patients, base)]
    return body if len(kept) == len(document.get("participant", ())) else dumps({**document, "participant": kept})


def unlimited(caller: Caller, resource_type: str) -> bool:
    """Whether `shown` gives every resource of the type back as it is."""
    decision = _sight(caller, resource_type)
    return decision.unlimited and not decision.public


def _sight(caller: Caller, resource_type: str) -> Decision:
    """The widest of what the caller may read, find or write: whoever may only write sees what it wrote."""
    decisions = [decide(caller, letter, resource_type) for letter in "rscud"]
    return next((each for each in decisions if each.allowed), decisions[0])


def others(caller: Caller, document: dict[str, Any], base: str) -> list[dict[str, Any]]:
    """The participants that the caller does not see, which its update must not remove and it may not book."""
    patients = {limit.patient for limit in _sight(caller, "Appointment").limits if limit.patient}
    if not patients:
        return []
    return [item for item in document.get("participant", ()) if _is_other_person(item, patients, base)]


def _is_other_person(participant: dict[str, Any], patients: set[str], base: str) -> bool:
    target = of_element(participant.get("actor"), base)
    return target is not None and target.type in _PEOPLE and f"{target.type}/{target.id}" not in patients


def _public(document: dict[str, Any]) -> dict[str, Any]:
    """Availability and nothing else: no comment, no narrative, no contained resource, no person beside staff."""
    public = {name: value for name, value in document.items() if name in _PUBLIC_ELEMENTS}
    public["meta"] = {name: value for name, value in document.get("meta", {}).items() if name != "source"}
    if "actor" in public:
        public["actor"] = [actor for actor in public["actor"] if not _is_person(actor)]
    if "extension" in public:
        public["extension"] = [item for item in public["extension"] if item.get("url") in _PUBLIC_EXTENSIONS]
        if not public["extension"]:
            del public["extension"]
    return public


def _is_person(actor: dict[str, Any]) -> bool:
    target = of_element(actor, "")
    return target is not None and target.type in _PEOPLE
