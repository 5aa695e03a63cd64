"""Errors as FHIR says them: a kind (HTTP status + issue code), the issues, the OperationOutcome.

R4 2.28 (OperationOutcome) and http.html 3.1.0.1.11. Knows nothing of HTTP beyond the status number, nothing of SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

# What a FHIR string and XML can't hold; a diagnostic may repeat what a client sent.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Kind(Enum):
    """What went wrong: (HTTP status, code of http://hl7.org/fhir/issue-type)."""

    STRUCTURE = (400, "structure")
    REQUIRED = (400, "required")
    VALUE = (400, "value")
    CODE_INVALID = (400, "code-invalid")
    INVARIANT = (400, "invariant")
    INVALID = (400, "invalid")
    NOT_SUPPORTED = (400, "not-supported")
    LOGIN = (401, "login")
    FORBIDDEN = (403, "forbidden")
    NOT_FOUND = (404, "not-found")
    NO_SUCH_ROUTE = (404, "not-supported")
    METHOD = (405, "not-supported")
    NOT_ACCEPTABLE = (406, "not-supported")
    SLOW = (408, "timeout")
    CONFLICT = (409, "conflict")
    NO_LONGER = (409, "not-found")
    GONE = (410, "deleted")
    PRECONDITION = (412, "conflict")
    MULTIPLE_MATCHES = (412, "multiple-matches")
    TOO_LONG = (413, "too-long")
    URI_TOO_LONG = (414, "too-long")
    MEDIA_TYPE = (415, "not-supported")
    BUSINESS_RULE = (422, "business-rule")
    UNPROCESSABLE = (422, "processing")
    HEADERS_TOO_LONG = (431, "too-long")
    INFORMATIONAL = (200, "informational")
    EXCEPTION = (500, "exception")
    LOCK = (503, "lock-error")
    TIMEOUT = (503, "timeout")
    UNAVAILABLE = (503, "transient")
    THROTTLED = (503, "throttled")

    @property
    def status(self) -> int:
        """HTTP status code."""
        return self.value[0]

    @property
    def code(self) -> str:
        """Code of the issue-type value set."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong, and where: `expression` is a FHIRPath such as `Slot.start`."""

    kind: Kind
    diagnostics: str
    expression: str | None = None
    severity: str = "error"

    def as_fhir(self) -> dict[str, Any]:
        """One `OperationOutcome.issue`."""
        said = _UNPRINTABLE.sub("\ufffd", self.diagnostics)
        issue: dict[str, Any] = {"severity": self.severity, "code": self.kind.code, "diagnostics": said}
        if self.expression:
            issue["expression"] = [_UNPRINTABLE.sub("\ufffd", self.expression)]
        return issue


class FhirError(Exception):
    """A refusal that a client can read: one issue, or all of them at once by `FhirError.of`.

    `headers` go to the answer as they are (name, value), for example an ETag or Retry-After.
    """

    def __init__(
        self,
        kind: Kind,
        diagnostics: str,
        expression: str | None = None,
        *,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(diagnostics)
        self.issues: tuple[Issue, ...] = (Issue(kind, diagnostics, expression),)
        self.headers = headers

    @classmethod
    def of(cls, issues: Iterable[Issue]) -> FhirError:
        """An error that carries several issues; the first decides the status."""
        listed = tuple(issues)
        error = cls(listed[0].kind, listed[0].diagnostics, listed[0].expression)
        error.issues = listed
        return error

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self.issues[0].kind.status


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """The issues as an OperationOutcome resource."""
    return {"resourceType": "OperationOutcome", "issue": [issue.as_fhir() for issue in issues]}
