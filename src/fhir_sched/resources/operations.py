"""The operations that are served. Whoever adds one gives it its action in `interactions.operations`.

Dispatch, metadata, OpenAPI and capability/ follow from here. Knows nothing of what an operation does.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_sched.operation import Level, Operation, Parameter
from fhir_sched.resources.ihe import BOOK, FIND, HOLD
from fhir_sched.resources.subscription_operations import EVENTS, STATUS

BULK_PUBLISH = Operation(
    code="bulk-publish",
    type="",
    title="Published slots",
    doc="The manifest of SMART Scheduling Links: where the tenant's Locations, Schedules and Slots are as NDJSON files,"
    " for everyone. 404 for a tenant that does not publish.",
    outputs=(Parameter("return", "Binary", "The manifest, a JSON object", 1),),
    levels=("system",),
    methods=("GET",),
    affects_state=False,
    public=True,
)

BOOK_SERIES = Operation(
    "book-series",
    "Appointment",
    "Book a series",
    "Books an appointment that comes again every week, or every few weeks, as a whole: all of its occurrences in "
    "slots of the same schedules at the same local time, or none and every reason why",
    inputs=(
        Parameter("appointment", "Appointment", "The first appointment, with its slots and times", min=1),
        Parameter("count", "positiveInt", "How many appointments in all, from 2 to 104", min=1),
        Parameter("weeks", "positiveInt", "How many weeks from one to the next; 1 when left out"),
    ),
    outputs=(
        Parameter(
            "return",
            "Bundle",
            "The appointments in order; they share an identifier of the system urn:fhir-sched:series",
            min=1,
        ),
    ),
    needs=(("Appointment", "c"),),
)

MOST_DAYS, MOST_SLOTS = 1100, 60_000
"""What one $generate-slots may span, and make: a year of ten minutes around the clock, some seconds of the database."""

GENERATE_SLOTS = Operation(
    code="generate-slots",
    type="Schedule",
    title="Slots by the availability rules",
    doc="Makes the free slots that the schedule's availability rules give on the days from start to end in the schedule's"
    " time zone, and takes back the free ones to come that they do not give any more. Time that is taken, was blocked or"
    f" lies under a schedule exception is left out; again, nothing is added. At most {MOST_DAYS} days and"
    f" {MOST_SLOTS} slots at once.",
    inputs=(
        Parameter("start", "date", "The first day, on the clock of the schedule's zone", 1),
        Parameter("end", "date", "The last day, which is included", 1),
    ),
    outputs=(
        Parameter("added", "unsignedInt", "How many slots there are that were not", 1),
        Parameter("withdrawn", "unsignedInt", "How many free slots are entered-in-error now", 1),
    ),
    levels=("instance",),
    needs=(("Slot", "c"),),
)

OPERATIONS: tuple[Operation, ...] = (
    FIND,
    HOLD,
    BOOK,
    BOOK_SERIES,
    BULK_PUBLISH,
    GENERATE_SLOTS,
    EVENTS,
    STATUS,
)


def at(path: Sequence[str]) -> tuple[Operation, str] | None:
    """The operation at a path below the base, and the id of the instance ("" at the other levels); None: no such."""
    match path:
        case [word]:
            return _found("system", "", word, "")
        case [kind, word]:
            return _found("type", kind, word, "")
        case [kind, fhir_id, word]:
            return _found("instance", kind, word, fhir_id)
    return None


def _found(level: Level, kind: str, word: str, fhir_id: str) -> tuple[Operation, str] | None:
    if not word.startswith("$"):
        return None
    for operation in OPERATIONS:
        of_type = "" if level == "system" else operation.type
        if operation.word == word and kind == of_type and level in operation.levels:
            return operation, fhir_id
    return None
