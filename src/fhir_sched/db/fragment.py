"""One SQL statement with its arguments: what every planner hands to the connections.

Pure data. Identifiers stand in `text`, which only our own code writes; values travel as bound arguments alone.
It knows no table and opens nothing.
"""

from __future__ import annotations

from fhir_sched.outcome import FhirError, Kind
from fhir_sched.record import record


@record
class Fragment:
    """A statement with `$1`.. placeholders and one argument for each, in PostgreSQL's text format (None is NULL).

    An argument that holds NUL is refused (400): libpq would end it there, and store or compare it cut short.
    `steady` says that one plan is good for all arguments, so that PostgreSQL need not plan again for each.
    """

    text: str
    args: tuple[bytes | None, ...] = ()
    steady: bool = False

    def __post_init__(self) -> None:
        for arg in self.args:
            if arg is not None and b"\0" in arg:
                raise FhirError(Kind.VALUE, "A value holds the character NUL, which no FHIR string may hold.")


def text_args(*values: str | None) -> tuple[bytes | None, ...]:
    """The values as arguments: UTF-8 text, None as NULL."""
    return tuple(None if value is None else value.encode() for value in values)
