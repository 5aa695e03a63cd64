"""What PostgreSQL refuses, said in FHIR: one table from constraint name or SQLSTATE to status, issue code and sentence.

R4 http.html 3.1.0.1.11 and the rules of booking. The sentences are ours: neither SQL text nor a row's values reach
a client, but for what our own triggers put into DETAIL: slot ids, statuses, names of rules and their limits. It knows
no connection and no statement's purpose.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg.pq import DiagnosticField

from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.scheduling import booking_rules, statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGresult

log = logging.getLogger("fhir_sched.db")

TRANSLATED: Counter[str] = Counter()
"""How often each SQLSTATE and each of our constraints came to `translate`, since the start of the process."""

_LOST = frozenset({
    "40P01",  # deadlock
    "40001",  # serialisation failure, or a conflict with recovery on a standby
    "72000",  # snapshot too old
    "26000",  # a pooler or a reset took the prepared statements away
    "0A000 RevalidateCachedQuery",  # a migration changed what a prepared statement returns
    "XX000 MultiXactIdCreateFromMembers",
})  # fmt: skip
"""What ended transactions that may simply be run again: a SQLSTATE, where needed with PostgreSQL's function behind it.

The last is a race of PostgreSQL's own (seen in 15 and 18). Who updates a row that another transaction had updated, and
a third one has locked for a foreign key, is refused while the other one ends in failure: its end is noted in pg_xact
already, and its transaction still listed as running. A moment later the same statement succeeds.
"""


class DatabaseError(Exception):
    """A statement failed: PostgreSQL's five-character SQLSTATE and the names it gave, "" where it gave none.

    `message` and `detail` may hold a row's values: they are for deciding, never for a log or a client.
    """

    def __init__(
        self,
        sqlstate: str,
        message: str = "",
        *,
        detail: str = "",
        constraint: str = "",
        table: str = "",
        routine: str = "",
        statement: str = "",
    ) -> None:
        super().__init__(f"SQLSTATE {sqlstate}")
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.constraint = constraint
        self.table = table
        self.routine = routine
        self.statement = statement

    @property
    def place(self) -> str:
        """SQLSTATE and the function of PostgreSQL that raised it, for states that several failures share."""
        return f"{self.sqlstate} {self.routine}"


class DatabaseGone(DatabaseError):  # noqa: N818 - a state to be in, not a mistake
    """The connection is not there, or was lost before the answer came: whether a change was committed is unknown."""

    def __init__(self, reason: str) -> None:
        super().__init__("08006", reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def lost(error: BaseException) -> bool:
    """Whether a transaction ended because it lost to another one, whatever has been said about that since."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return any(isinstance(each, DatabaseError) and not _LOST.isdisjoint({each.sqlstate, each.place}) for each in chain)


def from_result(result: PGresult, statement: str) -> DatabaseError:
    """What a failed result says; `statement` is its text, "" for one that the connection sent of itself."""

    def field(code: DiagnosticField) -> str:
        return (result.error_field(code) or b"").decode(errors="replace")

    return DatabaseError(
        # without a state the message is libpq's own: the connection broke
        field(DiagnosticField.SQLSTATE) or "08006",
        field(DiagnosticField.MESSAGE_PRIMARY),
        detail=field(DiagnosticField.MESSAGE_DETAIL),
        constraint=field(DiagnosticField.CONSTRAINT_NAME),
        table=field(DiagnosticField.TABLE_NAME),
        routine=field(DiagnosticField.SOURCE_FUNCTION),
        statement=statement,
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table: `{slots}` in the sentence becomes the slot ids of DETAIL; Retry-After is in seconds.

    `logged`: it is for the operator to mend.
    """

    kind: Kind
    sentence: str
    expression: str | None = None
    retry_after_s: int | None = None
    logged: bool = False


_SLOT_TAKEN = Refusal(
    Kind.CONFLICT, "{slots} is taken: by another appointment, or set busy by hand.", "Appointment.slot"
)
_SLOT_OVERLAP = Refusal(Kind.CONFLICT, "Another slot of this schedule, free or busy, overlaps this time.", "Slot.start")
_SLOT_MISSING = Refusal(Kind.BUSINESS_RULE, "The appointment names a slot that does not exist.", "Appointment.slot")
_SCHEDULE_MISSING = Refusal(Kind.BUSINESS_RULE, "The slot names a schedule that does not exist.", "Slot.schedule")
_SCHEDULE_USED = Refusal(Kind.CONFLICT, "The schedule still has slots; delete those first.")
_SLOT_USED = Refusal(Kind.CONFLICT, "The slot still has an appointment; delete or move that first.")
_EXTENSION = "Appointment.extension"
_UNAVAILABLE = Refusal(Kind.UNAVAILABLE, "The database cannot be reached at the moment.", None, 2)
_BROKEN = replace(_UNAVAILABLE, logged=True)
_CONTENTION = Refusal(Kind.LOCK, "Other requests kept changing the same resources; please try again.", None, 1)
_VALUE = Refusal(Kind.VALUE, "A value is outside of what can be stored or compared.")

REFUSALS: dict[str, Refusal] = {
    # constraints, those of tables and those that triggers name
    "slot_taken": _SLOT_TAKEN,
    "slot_blocked": Refusal(
        Kind.CONFLICT, "Nothing can be booked in {slots}: the time is blocked.", "Appointment.slot"
    ),
    "slot_occupied": Refusal(Kind.CONFLICT, "An appointment occupies {slots}, so it cannot be free.", "Slot.status"),
    "override_reason": Refusal(
        Kind.FORBIDDEN, "override-reason needs a user/ or system/ scope, and a clinic that allows it.", _EXTENSION
    ),
    "booking_rules": Refusal(Kind.BUSINESS_RULE, "The appointment breaks a rule of the clinic."),
    "status_order": Refusal(Kind.BUSINESS_RULE, "The status can't follow the present one.", "Appointment.status"),
    "slot_capacity": Refusal(Kind.CONFLICT, "More appointments than that occupy {slots}.", "Slot.extension"),
    "slots_capacity_check": Refusal(
        Kind.BUSINESS_RULE, "A slot has room for 1 to 10000 appointments.", "Slot.extension"
    ),
    "hold_expired": Refusal(
        Kind.CONFLICT, "The hold is over, and its time may be somebody else's by now: hold it again.", "Appointment"
    ),
    "slots_no_overlap": _SLOT_OVERLAP,
    "ix_slots_schedule_start": _SLOT_OVERLAP,
    "provider_times_no_overlap": Refusal(
        Kind.CONFLICT, "The practitioner has another appointment at this time.", "Appointment.start"
    ),
    "appointment_slot_missing": _SLOT_MISSING,
    "appointments_slot_fk": _SLOT_MISSING,
    "appointments_slot_id_fkey": _SLOT_MISSING,
    "appointments_extra_slots_fk": _SLOT_MISSING,
    "slots_schedule_fk": _SCHEDULE_MISSING,
    "slots_schedule_id_fkey": _SCHEDULE_MISSING,
    "schedule_exceptions_schedule_fk": _SCHEDULE_MISSING,
    "schedule_exceptions_schedule_id_fkey": _SCHEDULE_MISSING,
    "schedule_inactive": Refusal(
        Kind.BUSINESS_RULE, "The schedule is not active, so it gets no slots.", "Schedule.active"
    ),
    "slots_too_many": Refusal(
        Kind.BUSINESS_RULE, "The rules give more slots than can be made at once; ask for fewer days.", "Parameters"
    ),
    # the same foreign keys when the referenced row was to go
    "slots deleted": _SLOT_USED,
    "schedules deleted": _SCHEDULE_USED,
    # SQLSTATEs, with the function where it decides
    "23P01": Refusal(Kind.CONFLICT, "This time is taken."),
    "23505": Refusal(Kind.CONFLICT, "A resource with the same key exists already."),
    "23503": Refusal(Kind.BUSINESS_RULE, "A reference names something that does not exist."),
    "23001": Refusal(Kind.CONFLICT, "Other resources still refer to this one."),
    "23502": Refusal(Kind.UNPROCESSABLE, "An element that cannot be left out is missing."),
    "23514": Refusal(Kind.UNPROCESSABLE, "A value breaks a rule of the schedule's data."),
    "72000": _CONTENTION,
    "26000": _CONTENTION,
    "0A000 RevalidateCachedQuery": _CONTENTION,
    "XX000 MultiXactIdCreateFromMembers": _CONTENTION,
    # transaction numbers have run out: nothing can be written until the operator has vacuumed
    "54000 GetNewTransactionId": _BROKEN,
    "54000 GetNewMultiXactId": _BROKEN,
    "53100": _BROKEN,
    "53200": _BROKEN,
    "55P03": Refusal(Kind.LOCK, "Another request is changing the same resource; please try again.", None, 1),
    "57014": Refusal(Kind.TIMEOUT, "The request took too long; ask for less, or try again.", None, 5),
    "25006": _UNAVAILABLE,
    "25P03": Refusal(Kind.TIMEOUT, "The transaction waited too long and was given up.", None, 1),
    "25P04": Refusal(Kind.TIMEOUT, "The request took too long; ask for less, or try again.", None, 5),
    # classes of SQLSTATEs: connection, value, login, database, rollback, resources, size, operator, files
    "08": _UNAVAILABLE,
    "22": _VALUE,
    "28": _BROKEN,
    "3D": _BROKEN,
    "40": _CONTENTION,
    "53": _UNAVAILABLE,
    "54": Refusal(Kind.VALUE, "A value is too long to be stored or searched."),
    "57": _UNAVAILABLE,
    "58": _BROKEN,
}

# foreign key -> the table that it points to
_FOREIGN_KEYS = {
    "slots_schedule_fk": "schedules",
    "slots_schedule_id_fkey": "schedules",
    "schedule_exceptions_schedule_fk": "schedules",
    "schedule_exceptions_schedule_id_fkey": "schedules",
    "appointments_slot_fk": "slots",
    "appointments_slot_id_fkey": "slots",
    "appointments_extra_slots_fk": "slots",
}


def _status_order(detail: str) -> list[Issue]:
    before, after, *_ = detail.split()
    return [Issue(Kind.BUSINESS_RULE, statuses.refused(before, after), "Appointment.status")]


# Constraints that triggers of ours name, whose DETAIL has words of ours alone: how these are said.
_TOLD: dict[str, Callable[[str], list[Issue]]] = {
    "booking_rules": booking_rules.refusals,
    "status_order": _status_order,
}
_SLOT_ID = re.compile(r"\b(?:slt|exc)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def translate(error: DatabaseError) -> FhirError:
    """The refusal a client may read; a failure that no client can mend is logged without values."""
    TRANSLATED[error.constraint if error.constraint in REFUSALS else error.sqlstate] += 1
    refusal = _lookup(error)
    if refusal is None or refusal.logged:
        # the message of a program error (class 42) is about names in our SQL; others may quote a row
        said = error.message if error.sqlstate.startswith("42") else ""
        log.error(
            "statement failed: sqlstate=%s table=%s constraint=%s routine=%s %s statement=%.400s",
            error.sqlstate,
            error.table,
            error.constraint,
            error.routine,
            said,
            " ".join(error.statement.split()),
        )
    if refusal is None:
        return FhirError(Kind.EXCEPTION, "The server failed; the failure has been logged.")
    if error.constraint in _TOLD and error.detail:
        return FhirError.of(_TOLD[error.constraint](error.detail))
    sentence = refusal.sentence
    if "{slots}" in sentence:
        named = ", ".join(f"Slot/{slot}" for slot in _SLOT_ID.findall(error.detail))
        sentence = sentence.replace("{slots}", named or "the slot")
    wait = refusal.retry_after_s
    headers = () if wait is None else (("Retry-After", str(wait)),)
    return FhirError(refusal.kind, sentence, refusal.expression, headers=headers)


def _lookup(error: DatabaseError) -> Refusal | None:
    if error.constraint and _referenced_row_goes(error):
        return REFUSALS[f"{_FOREIGN_KEYS[error.constraint]} deleted"]
    # the most particular first: a constraint of ours, the place in PostgreSQL, the state, its class
    names = (error.constraint, error.place, error.sqlstate, error.sqlstate[:2])
    return next((REFUSALS[name] for name in names if name in REFUSALS), None)


def _referenced_row_goes(error: DatabaseError) -> bool:
    # PostgreSQL reports both sides of a foreign key with the same state and names. The one about the referenced row
    # names that row's table in its message, whatever language the server speaks; the other one does not.
    referenced = _FOREIGN_KEYS.get(error.constraint)
    return referenced is not None and re.search(rf"\b{referenced}\b", error.message) is not None
