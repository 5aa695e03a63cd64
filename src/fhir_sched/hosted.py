"""Elements that refer to resources of our own, and the uuid columns that hold whom they mean. R4 2.3 (Reference).

Knows nothing of SQL statements, HTTP or validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_sched import reference
from fhir_sched.element import Columns, Element, Plain, Reading
from fhir_sched.outcome import FhirError, Kind


@dataclass(frozen=True)
class Hosted(Element):
    """One reference to a resource of our own (`type`, prefix of its ids) in a uuid column."""

    type: str = ""
    prefix: str = ""

    def plain(self, *columns: str) -> Plain:
        format_ = f',"{self.name}":{{"reference":"{self.type}/{self.prefix}-%b"}}'.encode()
        return Plain(format_, columns, (f"{columns[0]} is not None",))

    def render(self, *values: bytes | None) -> bytes:
        if values[0] is None:
            return b""
        return f',"{self.name}":{{"reference":"{self.type}/{self.prefix}-{values[0].decode()}"}}'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        where = f"{reading.resource['resourceType']}.{self.name}"
        return {self.shown[0]: hosted_uuid(value, self.type, self.prefix, reading.base, where).encode()}


@dataclass(frozen=True)
class HostedList(Element):
    """References to our own resources: the first in the uuid column that is shown, the others in a uuid[] column."""

    type: str = ""
    prefix: str = ""
    others: str = ""

    @property
    def written(self) -> tuple[str, ...]:
        return (self.shown[0], self.others)

    def plain(self, *columns: str) -> Plain:
        one = f',"{self.name}":[{{"reference":"{self.type}/{self.prefix}-%b"}}]'.encode()
        return Plain(b"%b", (f"b'' if {columns[0]} is None else {one!r} % {columns[0]}",))

    def render(self, *values: bytes | None) -> bytes:
        if values[0] is None:
            return b""
        return f',"{self.name}":[{{"reference":"{self.type}/{self.prefix}-{values[0].decode()}"}}]'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        kind = reading.resource["resourceType"]
        found: dict[str, None] = {}
        for index, item in enumerate(value or ()):
            where = f"{kind}.{self.name}[{index}]"
            found[hosted_uuid(item, self.type, self.prefix, reading.base, where)] = None
        uuids = [uuid.encode() for uuid in found]
        others = b"{" + b",".join(uuids[1:]) + b"}" if len(uuids) > 1 else None
        return {self.shown[0]: uuids[0] if uuids else None, self.others: others}


def hosted_uuid(value: Any, kind: str, prefix: str, base: str, where: str) -> str:
    """The UUID behind a reference to a resource of our own.

    Raises 422 where it can't be one of ours (an unknown id, another server), 409 for an exception's Slot, which is
    never free.
    """
    identifier = value.get("identifier") if isinstance(value, dict) else None
    if isinstance(identifier, dict) and "reference" not in value and identifier.get("system") == "urn:fhir-sched:id":
        text = str(identifier.get("value", ""))
        found = reference.Target(kind, text.replace("_", "-", 1))
    else:
        found = reference.of_element(value, base) or reference.Target("", "", "#")
    name, _, tail = found.id.partition("-")
    if found.type == kind and not found.url and reference.is_uuid(tail):
        if name == prefix:
            return tail.lower()
        if (kind, name) == ("Slot", "exc"):
            raise FhirError(
                Kind.CONFLICT, f"Slot/{found.id} is a blocked time and can't be booked; choose a free Slot", where
            )
    said = value.get("reference", "this reference") if isinstance(value, dict) else "this reference"
    raise FhirError(
        Kind.BUSINESS_RULE,
        f"{said!r} is no {kind} of this server; a reference here looks like {kind}/{prefix}-<uuid>",
        where + ".reference",
    )
