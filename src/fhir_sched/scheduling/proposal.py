"""A proposed appointment and the id that says it all, so that nothing is stored until it is held or booked.

IHE ITI Scheduling (ITI-115 to 117) hands an Appointment from `$find` to `$hold` and `$book` by its id, which R4 2.1.5
limits to 64 letters, digits, `-` and `.`. The id holds the slot's UUID, the last bytes of the UUIDs of slots that are
needed beside it (rooms, devices: among those of that time these tell them apart), and the patient where there is room.
Knows neither SQL nor resources.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

PREFIX: Final = "prp-"
SUFFIX_DIGITS: Final = 12
"""How many hexadecimal digits of a further slot's UUID the id holds."""

_UUID_BYTES: Final = 16
_SUFFIX_BYTES: Final = SUFFIX_DIGITS // 2
_MOST_BYTES: Final = (64 - len(PREFIX)) * 6 // 8
_MOST_FURTHER: Final = 3
_PATIENT: Final = re.compile(r"Patient/([A-Za-z0-9\-.]{1,64})")
_NOBODY, _BY_UUID, _BY_TEXT = 0, 4, 8
_FURTHER_MASK: Final = 3


@dataclass(frozen=True, slots=True)
class Proposal:
    """The UUID of the slot, the last digits of those beside it, and a reference `Patient/…` ("" for none)."""

    slot: str
    further: tuple[str, ...] = ()
    patient: str = ""

    @property
    def id(self) -> str:
        """The logical id; a patient whose reference does not fit into it is left out."""
        further = self.further[:_MOST_FURTHER]
        head = UUID(self.slot).bytes + b"".join(bytes.fromhex(digits) for digits in further)
        kind, patient = _packed(self.patient)
        if 1 + len(head) + len(patient) > _MOST_BYTES:
            kind, patient = _NOBODY, b""
        packed = bytes([kind | len(further)]) + head + patient
        return PREFIX + base64.b64encode(packed, altchars=b"-.").decode().rstrip("=")


def _packed(patient: str) -> tuple[int, bytes]:
    found = _PATIENT.fullmatch(patient)
    if found is None:
        return _NOBODY, b""
    try:
        known = UUID(found[1])
    except ValueError:
        return _BY_TEXT, found[1].encode()
    return (_BY_UUID, known.bytes) if str(known) == found[1] else (_BY_TEXT, found[1].encode())


def parse(fhir_id: str) -> Proposal | None:
    """The proposal that an id stands for; None for an id that is none of ours.

    >>> parse(Proposal("205c52cc-d9f6-6058-6f6f-b644f497fb09", ("0123456789ab",), "Patient/1").id)
    Proposal(slot='205c52cc-d9f6-6058-6f6f-b644f497fb09', further=('0123456789ab',), patient='Patient/1')
    """
    if not fhir_id.startswith(PREFIX):
        return None
    text = fhir_id.removeprefix(PREFIX)
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-.", validate=True)
    except (binascii.Error, ValueError):
        return None
    if not packed or packed[0] > _BY_TEXT | _FURTHER_MASK:
        return None
    end = 1 + _UUID_BYTES + (packed[0] & _FURTHER_MASK) * _SUFFIX_BYTES
    patient = _unpacked(packed[0] & ~_FURTHER_MASK, packed[end:])
    if len(packed) < end or patient is None:
        return None
    starts = range(1 + _UUID_BYTES, end, _SUFFIX_BYTES)
    further = tuple(packed[start : start + _SUFFIX_BYTES].hex() for start in starts)
    found = Proposal(str(UUID(bytes=packed[1 : 1 + _UUID_BYTES])), further, patient)
    return found if found.id == fhir_id else None


def _unpacked(kind: int, packed: bytes) -> str | None:
    """The patient's reference, "" for none; None where the bytes can't be one."""
    match kind:
        case 0:
            return "" if not packed else None
        case 4:
            return f"Patient/{UUID(bytes=packed)}" if len(packed) == _UUID_BYTES else None
        case 8:
            reference = f"Patient/{packed.decode('latin-1')}"
            return reference if _PATIENT.fullmatch(reference) else None
    return None
