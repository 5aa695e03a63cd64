"""What every interaction is given, and what it answers.

`Context` is who asks and where; `Answer` is a status with a body and what the headers need. Knows no interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_sched import codec, rendering
from fhir_sched.auditing import Trail
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.work import Work
from fhir_sched.definition import Resource, Source
from fhir_sched.outcome import FhirError, Issue, Kind, operation_outcome
from fhir_sched.record import record
from fhir_sched.resources import RESOURCES
from fhir_sched.search.parse import Parser
from fhir_sched.search.query import Condition as Limit
from fhir_sched.security import view
from fhir_sched.security.caller import Caller
from fhir_sched.security.guard import Guard
from fhir_sched.settings import Settings

_KEPT: Final = 3
"""The place of the kept elements in every row."""


@record
class Context:
    """One request's surroundings: the tenant (UUID), its FHIR base, the database work, who asks, and how we serve.

    `trail` is what changes leave in the audit log; None where nothing is changed, or none is kept.
    """

    tenant: str
    base: str
    work: Work
    caller: Caller
    settings: Settings
    trail: Trail | None = None

    @property
    def subject(self) -> str:
        """The UUID for `created_by`."""
        return self.caller.subject

    @property
    def origin(self) -> str:
        """The word for `source` (staff, portal, hl7)."""
        return self.caller.origin

    @property
    def parser(self) -> Parser:
        """Reads the search parameters of this request."""
        return Parser(RESOURCES, self.base, self.tenant)

    @property
    def guard(self) -> Guard:
        """Puts the caller's limits into queries."""
        return Guard(self.caller, self.parser)

    def limits(self, resource: Resource, letter: str) -> tuple[Limit, ...]:
        """What must hold for a resource of that type, so that the caller may do what the letter of `cruds` says.

        Raises 403 where nothing would do.
        """
        return () if self.caller.everything else self.guard.limits(resource, letter)

    def recorded(self, change: Fragment, resource: Resource, source: Source, code: str, status: int = 200) -> Fragment:
        """The statement of a change that leaves its event as well; `code` is that of the interaction."""
        return change if self.trail is None else self.trail.attached(change, resource.type, source, code, status)

    def shown(self, resource: Resource, source: Source, row: Sequence[bytes | None]) -> bytes:
        """The JSON of a row as the caller may see it."""
        write = self.writer(resource, source)
        return rendering.to_json(resource, source, row) if write is None else write(row)

    def writer(self, resource: Resource, source: Source) -> Callable[[Sequence[bytes | None]], bytes] | None:
        """`shown` for many rows of one source; None where the caller may see each as it is."""
        if self.caller.everything:
            return None
        withheld = view.hidden(self.caller, source.naming)
        if view.unlimited(self.caller, resource.type) and not withheld:
            return None
        shows_all = view.shows_all(element.name for element in source.elements)

        def write(row: Sequence[bytes | None]) -> bytes:
            whole = rendering.to_json(resource, source, row)
            # a free slot as most are; to parse it would take longer than all the rest
            if shows_all and row[_KEPT] is None and b'"extension"' not in whole:
                return whole
            return view.shown(self.caller, resource.type, whole, self.base, withheld)

        return write


@record
class Answer:
    """Status and body (JSON, b"" for none); `version` and `modified` (column texts) go to ETag and Last-Modified.

    `remarks` are for whoever asks for an OperationOutcome, and for the entries of a Bundle.
    """

    status: int
    body: bytes
    version: bytes | None = None
    modified: bytes | None = None
    location: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=())
    remarks: tuple[Issue, ...] = ()

    @property
    def report(self) -> dict[str, Any]:
        """The OperationOutcome of a change that was made (R4 3.1.0.1.8)."""
        said = f"{'created' if self.status == 201 else 'done'}: {self.location}"
        return operation_outcome([Issue(Kind.INFORMATIONAL, said, severity="information"), *self.remarks])


@dataclass(frozen=True, slots=True)
class Condition:
    """`If-Match`: the versions that the caller accepts; empty for `*` (any version that exists).

    `absent`: the resource must not exist, as `If-None-Match: *` of a change says (RFC 9110 13.1.2).
    """

    versions: tuple[str, ...]
    absent: bool = False


def located(resource: Resource, fhir_id: str) -> tuple[Source, str]:
    """The source and UUID of an id. Raises 404 for an id that can't be one of this type."""
    found = resource.parse_id(fhir_id)
    if found is None:
        raise not_found(resource, fhir_id)
    return found


def not_found(resource: Resource, fhir_id: str) -> FhirError:
    """404: there is no such resource (and there never was)."""
    return FhirError(Kind.NOT_FOUND, f"there is no {resource.type}/{fhir_id}")


def version_conflict(resource: Resource, fhir_id: str, current: bytes | None) -> FhirError:
    """412: the version that If-Match names is not the current one, or there is one although If-None-Match is `*`."""
    said = "it does not exist" if current is None else f"its version is {current.decode()}"
    headers = () if current is None else (("ETag", etag(current)),)
    return FhirError(
        Kind.PRECONDITION,
        f"If-Match or If-None-Match does not fit {resource.type}/{fhir_id}: {said}; "
        "read it again and repeat the change on that version",
        headers=headers,
    )


def etag(version: bytes) -> str:
    """The weak ETag of a version (R4 3.1.0.1.4)."""
    return f'W/"{version.decode()}"'


def last_updated(modified: bytes) -> str:
    """An `updated_at` column as FHIR writes it."""
    return (codec.instant(modified) or b"").decode()
