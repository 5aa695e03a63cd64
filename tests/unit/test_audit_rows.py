"""The short way of usual events to their rows leaves what the general way leaves."""

from __future__ import annotations

import pytest

from fhir_sched.audit_rows import Batch, Note
from fhir_sched.security.caller import OPEN, Caller

TENANT = "5eed0000-0000-4000-8000-000000000001"
ANN, OURS = f"Patient/{TENANT}", f"https://clinic.example/fhir/{TENANT}/Patient/ann"
SLOT = ["", "Slot", f"slt-{TENANT}"]
NURSE = Caller(TENANT, user="Practitioner/7", client="desk", sub='dr "7"', issuer="https://issuer.example")
LIMITED = Caller(TENANT, patient="Patient/ann")


def note(
    segments: list[str], query: bytes = b"", *, shown: set[str] | None = None, caller: Caller | None = OPEN
) -> Note:
    headers = [(b"etag", b'W/"3"')] if len(segments) > 2 else [(b"content-type", b"application/fhir+json")]
    return (TENANT, 17, "GET", segments, "", query, b"", 200, headers, shown or set(), caller, b"r-1", "127.0.0.1")


@pytest.mark.parametrize(
    "usual",
    [
        note(SLOT),
        note(SLOT, shown={ANN}, caller=NURSE),
        note(SLOT, shown={ANN, OURS, "Patient/no such id"}),
        note(["", "Slot"], b"status=free&start=ge2026-06-01&schedule=Schedule/sch-1"),
        note(["", "Appointment"], b"date=ge2026&access_token=a.b.c", shown={ANN, OURS}, caller=None),
    ],
)
def test_the_short_way_leaves_what_the_general_way_leaves(usual: Note) -> None:
    short, general = Batch(TENANT, "server"), Batch(TENANT, "server")
    assert short._add_usual(usual) == general._add_any(usual) > 0
    assert short._rows == general._rows
    assert short._alike == general._alike


@pytest.mark.parametrize(
    "other",
    [
        note(["", "metadata"]),
        note(["", "Slot"]),
        note([*SLOT[:2], "_history"]),
        note([*SLOT, "_history", "3"]),
        note(["", "Appointment"], b"patient=ann"),
        note(["", "Appointment"], b"actor=Pa%74ient/ann"),
        note(["", "Appointment"], b"status=booked", caller=LIMITED),
    ],
)
def test_what_says_more_goes_the_general_way(other: Note) -> None:
    assert Batch(TENANT, "server")._add_usual(other) == 0
