"""Rows -> lines of NDJSON: Location, Schedule and Slot as SMART Scheduling Links shows them to everyone.

Law: only what is listed here gets out. Comments, texts, narratives, contained resources, identifiers, extensions of
others and every reference that is not to a Location stay inside, whatever a client has written. Knows no SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import orjson

from fhir_sched import codec, rendering
from fhir_sched.document import dumps
from fhir_sched.publishing.publication import Publication
from fhir_sched.reference import of_element
from fhir_sched.resources import SLOT
from fhir_sched.settings import PublishExtensions

KINDS: Final = ("Location", "Schedule", "Slot")
"""The types that are published, a file each."""
SMART: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/"
HL7: Final = "http://hl7.org/fhir/uv/smart-scheduling-links/StructureDefinition/"
LINK, PHONE, CAPACITY = "booking-deep-link", "booking-phone", "slot-capacity"
SLOT_COLUMNS: Final = ("id", "schedule_id", "fhir_status", "start_at", "end_at", "appointment_type", "fhir")
"""The columns with which a slot's row begins; behind them comes how many may still book it."""

_BASES: Final = {
    PublishExtensions.BOTH: (SMART, HL7),
    PublishExtensions.SMARTHEALTHIT: (SMART,),
    PublishExtensions.HL7: (HL7,),
}
_CONCEPTS: Final = ("serviceCategory", "serviceType", "specialty")
_OF_SCHEDULES: Final = frozenset({f"{SMART}vaccine-product", f"{SMART}vaccine-dose"})
_ABSENT: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_UNKNOWN: Final = {
    "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason",
    "code": "unknown",
    "display": "Unknown",
}
_TYPE: Final = next(element for element in SLOT.sources[0].elements if element.name == "appointmentType")

Row = Sequence[bytes | None]
Line = Callable[[Row], bytes]
_Template: TypeAlias = tuple[bytes, tuple[int, ...]]


# Location


def location(fhir_id: str, name: str, home: str) -> dict[str, Any]:
    """A Location of which only its id and perhaps its name are known; `home` is the server's own page."""
    return {
        "resourceType": "Location",
        "id": fhir_id,
        "identifier": [{"system": rendering.BUSINESS_IDENTIFIER, "value": fhir_id}],
        "name": name or f"Location {fhir_id}",
        "telecom": [{"system": "url", "value": home}],
        "address": {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]},
    }


def place(schedule: dict[str, Any], publication: Publication, base: str, tenant: str) -> tuple[str, str]:
    """Id and name of the Location of a schedule: the first of its own, else the publication's, else the tenant."""
    for actor in schedule.get("actor", ()):
        found = of_element(actor, base)
        if found is not None and found.type == "Location" and not found.url:
            return found.id, str(actor.get("display", ""))
    return publication.elsewhere or tenant, ""


# Schedule


def schedule_line(schedule: dict[str, Any], place_id: str) -> bytes:
    """The line of a Schedule at that Location; aggregators demand a `serviceType`, known or not."""
    shown: dict[str, Any] = {"resourceType": "Schedule", "id": schedule["id"], **_concepts(schedule)}
    shown.setdefault("serviceType", [{"coding": [_UNKNOWN]}])
    shown["actor"] = [{"reference": f"Location/{place_id}"}]
    extensions = [each for each in schedule.get("extension", ()) if each.get("url") in _OF_SCHEDULES]
    if extensions:
        shown["extension"] = extensions
    return dumps(shown) + b"\n"


def _concepts(resource: dict[str, Any]) -> dict[str, Any]:
    shown = {name: [*filter(None, map(_coded, resource.get(name, ())))] for name in _CONCEPTS}
    return {name: concepts for name, concepts in shown.items() if concepts}


def _coded(concept: dict[str, Any]) -> dict[str, Any] | None:
    """The concept without what people wrote in words of their own; None where nothing is left."""
    codings = [
        {name: coding[name] for name in ("system", "version", "code", "display") if name in coding}
        for coding in concept.get("coding", ())
        if "code" in coding
    ]
    return {"coding": codings} if codings else None


# Slot


def slot_line(publication: Publication) -> Line:
    """The line of a slot's row, which begins with SLOT_COLUMNS and the number of its free places."""
    extended = _Extended(publication)
    # The links of 2021 know two words; the guide of HL7 has those of R4.
    statuses = {} if publication.families is PublishExtensions.HL7 else _TWO_WORDS

    def line(row: Row) -> bytes:
        row_id, schedule_id, status, start, end, kind, fhir = row[:7]
        status = statuses.get(status, status)
        if fhir is not None:
            return _kept_line(row, status, extended)
        return b"%b%b%b}\n" % (
            _HEAD % (row_id, schedule_id, status, codec.instant(start), codec.instant(end)),
            b"" if kind is None else _TYPE.render(kind),
            extended(row, {}),
        )

    return line


_TWO_WORDS: Final[dict[bytes | None, bytes]] = {b"busy-tentative": b"busy", b"busy-unavailable": b"busy"}
_HEAD: Final = (
    b'{"resourceType":"Slot","id":"slt-%b","schedule":{"reference":"Schedule/sch-%b"},"status":"%b",'
    b'"start":"%b","end":"%b"'
)


class _Extended:
    """The extensions of a slot: how to book it while it is free, and how many still may."""

    def __init__(self, publication: Publication) -> None:
        bases = _BASES[publication.families]
        said = {LINK: ("valueUrl", publication.link), PHONE: ("valueString", publication.phone)}
        self._own = {base + name: name for base in bases for name in said}
        self._booking = {
            name: [dumps({"url": base + name, value: text}) for base in bases]
            for name, (value, text) in said.items()
            if text
        }
        counted = f'{{"url":"{SMART}{CAPACITY}","valueInteger":{{places}}}}'.encode()
        self._counted = [counted] if SMART in bases else []
        self._free = _template([*chain.from_iterable(self._booking.values()), *self._counted])
        self._taken = _template(self._counted)

    def __call__(self, row: Row, fhir: dict[str, Any]) -> bytes:
        """`,"extension":[…]` of a row; what the slot's writer says of booking it counts more than the publication."""
        form, places = self._free if row[2] == b"free" else self._taken
        own = [each for each in fhir.get("extension", ()) if each.get("url") in self._own]
        if own and row[2] == b"free":
            form, places = self._with(own)
        return form % tuple([row[place] for place in places])

    def _with(self, own: list[dict[str, Any]]) -> _Template:
        names = {self._own[each["url"]] for each in own}
        others = [text for name, listed in self._booking.items() if name not in names for text in listed]
        # What somebody wrote may look like a placeholder of ours.
        form, places = _template([*others, *self._counted])
        texts = b",".join(dumps(each).replace(b"%", b"%%") for each in own)
        return (form.replace(b"[", b"[%b," % texts, 1) if form else b',"extension":[%b]' % texts), places


def _template(parts: list[bytes]) -> _Template:
    """A list of extensions as a format, and the columns of a row that go into it; an empty format for none."""
    if not parts:
        return b"", ()
    pieces = _PLACEHOLDER.split(b',"extension":[' + b",".join(parts) + b"]")
    texts, names = pieces[::2], pieces[1::2]
    form = texts[0].replace(b"%", b"%%")
    for name, text in zip(names, texts[1:], strict=True):
        form += _COLUMNS[name][0] + text.replace(b"%", b"%%")
    return form, tuple(_COLUMNS[name][1] for name in names)


_PLACEHOLDER: Final = re.compile(rb"\{(slot|schedule|places)\}")
_COLUMNS: Final = {b"slot": (b"slt-%b", 0), b"schedule": (b"sch-%b", 1), b"places": (b"%b", 7)}


def _kept_line(row: Row, status: bytes | None, extended: _Extended) -> bytes:
    """The line of a slot that keeps more than its columns say."""
    fhir = orjson.loads(row[6] or b"{}")
    shown = orjson.loads(_HEAD % (row[0], row[1], status, codec.instant(row[3]), codec.instant(row[4])) + b"}")
    shown.update({name: fhir[name] for name in ("start", "end") if name in fhir})
    shown.update(_concepts(fhir))
    kind = _coded(fhir.get("appointmentType", {}))
    if kind is not None:
        shown["appointmentType"] = kind
    own = _TYPE.render(row[5]) if kind is None else b""
    return dumps(shown)[:-1] + own + extended(row, fhir) + b"}\n"
