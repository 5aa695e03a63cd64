"""Who takes part: `Appointment.participant` and `Schedule.actor` in the uuid columns of the model.

The columns hold the first actor of a kind; the others and every detail are kept by `mapping`. R4 12.2, 12.4.
Knows nothing of SQL or search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_sched import reference
from fhir_sched.element import Columns, Element, Plain, Reading
from fhir_sched.outcome import FhirError, Kind

ACTOR_KINDS = {
    "Practitioner": "provider",
    "PractitionerRole": "provider",
    "Location": "location",
    "HealthcareService": "location",
    "Device": "device",
}
_SHOWN_AS = {b"provider": "Practitioner", b"location": "Location", b"device": "Device"}


@dataclass(frozen=True)
class Participants(Element):
    """`Appointment.participant`: patient, provider and location; further practitioners in a uuid[] column."""

    further: str = "extra_provider_ids"
    types: tuple[str, ...] = ("Patient", "Practitioner", "Location")

    @property
    def written(self) -> tuple[str, ...]:
        return (*self.shown, self.further) if self.further else self.shown

    def plain(self, *columns: str) -> Plain:
        one = '{{"actor":{{"reference":"{}/%b"}},"status":"accepted"}}'
        first = f',"{self.name}":[{one.format(self.types[0])}'.encode()
        others = [
            f"b'' if {column} is None else {(',' + one.format(kind)).encode()!r} % {column}"
            for kind, column in zip(self.types[1:], columns[1:], strict=True)
        ]
        return Plain(first + b"%b" * len(others) + b"]", (columns[0], *others), (f"{columns[0]} is not None",))

    def render(self, *values: bytes | None) -> bytes:
        shown = [
            f'{{"actor":{{"reference":"{kind}/{value.decode()}"}},"status":"accepted"}}'
            for kind, value in zip(self.types, values, strict=False)
            if value is not None
        ]
        return f',"participant":[{",".join(shown)}]'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        targets = [reference.of_element(item.get("actor"), reading.base) for item in value or ()]
        patient = _first(targets, "Patient")
        if patient is None:
            raise FhirError(
                Kind.BUSINESS_RULE,
                "an Appointment here needs a patient: add a participant whose actor is a reference to a Patient",
                "Appointment.participant",
            )
        columns: Columns = {self.shown[0]: patient.uuid.encode()}
        if not self.further:
            return columns
        providers = provider_uuids(targets)
        location = _first(targets, "Location")
        columns[self.shown[1]] = providers[0].encode() if providers else None
        columns[self.shown[2]] = None if location is None else location.uuid.encode()
        columns[self.further] = ("{" + ",".join(providers[1:]) + "}").encode() if len(providers) > 1 else None
        return columns


def provider_uuids(targets: list[reference.Target | None]) -> list[str]:
    """The UUIDs whose time the appointment takes: Practitioners, then PractitionerRoles, each once.

    A role's UUID is always derived, never its own id, so that it can't be taken for a Practitioner with that id.
    """
    people = [target.uuid for target in targets if target is not None and target.type == "Practitioner"]
    roles = [role_uuid(target) for target in targets if target is not None and target.type == "PractitionerRole"]
    return list(dict.fromkeys(people + roles))


def role_uuid(target: reference.Target) -> str:
    """The stand-in UUID of a PractitionerRole in `provider_id`."""
    return reference.Target("", "", target.url or f"{target.type}/{target.id}").uuid


def _first(targets: list[reference.Target | None], kind: str) -> reference.Target | None:
    return next((target for target in targets if target is not None and target.type == kind), None)


@dataclass(frozen=True)
class Actors(Element):
    """`Schedule.actor` in `actor_id` and `actor_type`: the first one that is a provider, a location or a device."""

    def plain(self, *columns: str) -> Plain:
        shown = {word: kind.encode() for word, kind in _SHOWN_AS.items()}
        format_ = f',"{self.name}":[{{"reference":"%b/%b"}}]'.encode()
        return Plain(
            format_,
            (f"actor_types[{columns[1]}]", columns[0]),
            (f"{columns[0]} is not None", f"{columns[1]} in actor_types"),
            (("actor_types", shown),),
        )

    def render(self, *values: bytes | None) -> bytes:
        kind = _SHOWN_AS.get(values[1] or b"", "Device")
        return f',"actor":[{{"reference":"{kind}/{(values[0] or b"").decode()}"}}]'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        for item in value or ():
            target = reference.of_element(item, reading.base)
            if target is not None and target.type in ACTOR_KINDS:
                return {self.shown[0]: target.uuid.encode(), self.shown[1]: ACTOR_KINDS[target.type].encode()}
        raise FhirError(
            Kind.BUSINESS_RULE,
            f"a Schedule here needs an actor of one of these types: {', '.join(ACTOR_KINDS)}",
            "Schedule.actor",
        )
