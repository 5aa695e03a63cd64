"""What of a resource a patient may see: public Slots and Schedules, and no other patient of a group appointment.

Applied to every resource that leaves, wherever it was found. Knows nothing of searches or HTTP.
"""

from __future__ import annotations

from typing import Any

from fhir_sched.document import dumps, parse
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import decide

_PUBLIC_ELEMENTS = frozenset(
    {
        "resourceType", "id", "meta", "identifier", "active", "serviceCategory", "serviceType", "specialty",
        "appointmentType", "actor", "planningHorizon", "schedule", "status", "start", "end", "overbooked", "extension",
    }
)  # fmt: skip
_PUBLIC_EXTENSIONS = frozenset({EXTENSION_BASE + "schedule-timezone"})
_PEOPLE = ("Patient/", "RelatedPerson/")


def shown(caller: Caller, resource_type: str, body: bytes, letter: str = "r") -> bytes:
    """The JSON of a resource as this caller may see it; the same bytes for whoever has no limits."""
    if caller.everything:
        return body
    decision = decide(caller, letter, resource_type)
    if decision.public:
        return dumps(_public(parse(body)))
    patients = {limit.patient for limit in decision.limits if limit.patient}
    if decision.unlimited or not patients or resource_type != "Appointment":
        return body
    document = parse(body)
    kept = [item for item in document.get("participant", ()) if not _is_other_patient(item, patients)]
    return body if len(kept) == len(document.get("participant", ())) else dumps({**document, "participant": kept})


def withheld(caller: Caller, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The participants that the caller does not see, which its update must not remove."""
    patients = {limit.patient for limit in decide(caller, "r", "Appointment").limits if limit.patient}
    if not patients:
        return []
    return [item for item in document.get("participant", ()) if _is_other_patient(item, patients)]


def _is_other_patient(participant: dict[str, Any], patients: set[str]) -> bool:
    actor = participant.get("actor", {})
    reference = str(actor.get("reference", ""))
    person = actor.get("type") in ("Patient", "RelatedPerson") or any(
        f"/{reference}".rfind(f"/{kind}") >= 0 for kind in _PEOPLE
    )
    return person and reference not in patients


def _public(document: dict[str, Any]) -> dict[str, Any]:
    """Availability and nothing else: no comment, no narrative, no contained resource, no person beside staff."""
    public = {name: value for name, value in document.items() if name in _PUBLIC_ELEMENTS}
    public["meta"] = {name: value for name, value in document.get("meta", {}).items() if name != "source"}
    if "actor" in public:
        public["actor"] = [
            actor for actor in public["actor"] if not str(actor.get("reference", "")).startswith(_PEOPLE)
        ]
    if "extension" in public:
        public["extension"] = [item for item in public["extension"] if item.get("url") in _PUBLIC_EXTENSIONS]
        if not public["extension"]:
            del public["extension"]
    return public
