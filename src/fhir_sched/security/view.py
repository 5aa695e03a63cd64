"""What of a resource a patient may see: public Slots and Schedules, and no other patient of a group appointment.

Applied to every resource that leaves, wherever it was found. Knows nothing of searches or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_sched.document import dumps, parse
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.reference import Target, is_uuid, of_element
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import Decision, decide

_PUBLIC_ELEMENTS = frozenset(
    {
        "resourceType", "id", "meta", "identifier", "active", "serviceCategory", "serviceType", "specialty",
        "appointmentType", "actor", "planningHorizon", "schedule", "status", "start", "end", "overbooked", "extension",
    }
)  # fmt: skip
_ALL_OF_PUBLIC = _PUBLIC_ELEMENTS - {"actor"}
_PUBLIC_EXTENSIONS = frozenset({EXTENSION_BASE + "schedule-timezone"})
_PEOPLE = ("Patient", "RelatedPerson", "Person")


def hidden(caller: Caller, naming: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Of extensions that name resources (URL and type of those), the URLs of what the caller may not read all of."""
    return frozenset(url for url, kind in naming if not any(decide(caller, one, kind).unlimited for one in "rs"))


def shown(caller: Caller, resource_type: str, body: bytes, base: str, withheld_urls: Iterable[str] = ()) -> bytes:
    """The JSON of a resource as this caller may see it; the same bytes for whoever has no limits.

    `withheld_urls` are those of the extensions that are `hidden` from the caller.
    """
    if any(url.encode() in body for url in withheld_urls):
        body = dumps(_without_extensions(parse(body), withheld_urls))
    decision = _sight(caller, resource_type)
    if decision.public:
        return dumps(_public(parse(body)))
    patients = {limit.patient for limit in decision.limits if limit.patient}
    if decision.unlimited or not patients:
        return body
    document = parse(body)
    seen, withheld = parted(document, patients, base)
    return dumps(seen) if withheld else body


def _without_extensions(document: dict[str, Any], urls: Iterable[str]) -> dict[str, Any]:
    kept = [item for item in document.get("extension", ()) if item.get("url") not in urls]
    rest = {name: value for name, value in document.items() if name != "extension"}
    return {**rest, "extension": kept} if kept else rest


def unlimited(caller: Caller, resource_type: str) -> bool:
    """Whether `shown` gives every resource of the type back as it is."""
    decision = _sight(caller, resource_type)
    return decision.unlimited and not decision.public


def _sight(caller: Caller, resource_type: str) -> Decision:
    """The widest of what the caller may read, find or write: whoever may only write sees what it wrote."""
    decisions = [decide(caller, letter, resource_type) for letter in "rscud"]
    return next((each for each in decisions if each.allowed), decisions[0])


def shows_all(elements: Iterable[str]) -> bool:
    """Whether nothing is withheld of a resource that has just these elements, as long as it shows no extension."""
    return _ALL_OF_PUBLIC.issuperset(elements)


def patients_of(caller: Caller) -> set[str]:
    """The patients whose appointments alone the caller sees; empty for whoever sees others' too."""
    return {limit.patient for limit in _sight(caller, "Appointment").limits if limit.patient}


def parted(document: dict[str, Any], patients: set[str], base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a patient sees of an appointment, and what is withheld: other people, and the narrative that names them.

    Whoever can't be told from a person is one: a contained or nameless actor, a URL that says no type.
    """
    people = {f"#{each.get('id')}" for each in _contained(document) if each.get("resourceType") in _PEOPLE}
    listed = document.get("participant", [])
    unseen = [item for item in listed if not _may_be_seen(item, patients, people, base)]
    withheld: dict[str, Any] = {}
    if unseen:
        withheld["participant"] = unseen
    if people:
        withheld["contained"] = [each for each in _contained(document) if each.get("resourceType") in _PEOPLE]
    if withheld and "text" in document:
        withheld["text"] = document["text"]
    if not withheld:
        return document, {}
    seen = {name: value for name, value in document.items() if name != "text"}
    for name in ("participant", "contained"):
        if name in withheld:
            seen[name] = [item for item in document[name] if item not in withheld[name]]
    return {name: value for name, value in seen.items() if value != []}, withheld


def rejoined(document: dict[str, Any], withheld: dict[str, Any]) -> dict[str, Any]:
    """A document that the caller changed, with what it did not see; a narrative only where it is no mere summary."""
    whole = dict(document)
    for name in ("participant", "contained"):
        if name in withheld:
            whole[name] = [*whole.get(name, ()), *withheld[name]]
    if "text" not in whole and withheld.get("text", {}).get("status") == "additional":
        whole["text"] = withheld["text"]
    return whole


def books_others(document: dict[str, Any], patients: set[str], base: str) -> bool:
    """Whether somebody takes part who is known to be another patient or a relative."""
    people = {f"#{each.get('id')}" for each in _contained(document) if each.get("resourceType") in _PEOPLE}
    for item in document.get("participant", ()):
        actor = item.get("actor") or {}
        target = of_element(actor, base)
        if target is None and (actor.get("reference") in people or actor.get("type") in _PEOPLE):
            return True
        if target is not None and target.type in _PEOPLE and _name(target) not in patients:
            return True
    return False


def _contained(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in document.get("contained", ()) if isinstance(each, dict)]


def _may_be_seen(participant: dict[str, Any], patients: set[str], people: set[str], base: str) -> bool:
    actor = participant.get("actor")
    if not actor:
        return True
    target = of_element(actor, base)
    if target is None:
        reference = str(actor.get("reference", ""))
        kind = str(actor.get("type", ""))
        return (reference.startswith("#") and reference not in people) or (kind != "" and kind not in _PEOPLE)
    return target.type not in ("", *_PEOPLE) or _name(target) in patients


def _name(target: Target) -> str:
    """`Patient/<id>` as a token names it; nothing for somebody elsewhere."""
    fhir_id = target.id.lower() if is_uuid(target.id) else target.id
    return "" if target.url else f"{target.type}/{fhir_id}"


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
