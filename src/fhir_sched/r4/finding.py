"""What a check finds wrong: where (a FHIRPath suffix such as `.participant[0].status`), of what kind, and a sentence.

Findings travel upwards and get their path on the way, so that a sound resource costs no paths at all.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from fhir_sched.outcome import Kind

Finding: TypeAlias = tuple[str, Kind, str]
Findings: TypeAlias = list[Finding]

CAP = 50
_SHOWN = 60


def one(kind: Kind, sentence: str, path: str = "") -> Findings:
    """A single finding, at the place itself unless `path` leads further down."""
    return [(path, kind, sentence)]


def below(path: str, findings: Findings) -> Findings:
    """The findings as their parent sees them, no more than the cap."""
    return [(path + inner, kind, sentence) for inner, kind, sentence in findings[:CAP]]


def a(kind: str) -> str:
    """The name of a type with its article.

    >>> a("Appointment"), a("Slot")
    ('an Appointment', 'a Slot')
    """
    return f"{'an' if kind.startswith(tuple('AEIO')) else 'a'} {kind}"


def shown(value: Any) -> str:
    """A value as a short printable text for a sentence."""
    if isinstance(value, str):
        return ascii(value) if len(value) <= _SHOWN else ascii(value[: _SHOWN - 3]) + "..."
    if isinstance(value, bool):
        return "true" if value else "false"
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value)) or str(value)[:_SHOWN]
