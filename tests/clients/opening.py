"""The schedule that a client of another maker books from."""

from __future__ import annotations

from dataclasses import dataclass

PATIENT = "00000000-0000-4000-8000-0000000000aa"
VISITS = "http://clinic.example/visits"
SLOTS = 25
"""More than two pages of ten."""


@dataclass(frozen=True)
class Opening:
    """Free slots to book: the FHIR base URL and `Schedule/id`."""

    base: str
    schedule: str
