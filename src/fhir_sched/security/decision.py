"""May this caller do that? One pure function, asked by every interaction. SMART App Launch 2.2, scopes.

The answer is no, yes, or yes within limits: a patient's own appointments, what a scope's query matches. Whoever gets
limits applies them, by the same search that everybody uses. Knows nothing of SQL, HTTP or rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fhir_sched.security.caller import Caller
from fhir_sched.security.scopes import Scope

PUBLIC = frozenset({"Slot", "Schedule"})
"""Types that are no patient's: with a patient/ scope they show the public view and are never written."""

STAFF_ONLY = frozenset({"AuditEvent"})
"""Types that no patient's token reaches, whatever its scopes say: they tell who else has asked."""

LETTERS = {
    "read": "r", "vread": "r", "conditional-read": "r", "history-instance": "r",
    "search-type": "s", "search-form": "s", "search-system": "s", "search-system-form": "s",
    "search-compartment": "s", "search-compartment-form": "s", "history-type": "s", "history-system": "s",
    "create": "c", "conditional-create": "cs", "update": "u", "conditional-update": "us", "patch": "u",
    "conditional-patch": "us", "delete": "d", "conditional-delete": "ds", "validate": "c",
    "validate-instance": "r", "validate-stored": "r",
}  # fmt: skip
"""What each interaction needs, in letters of `cruds`; all of them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One way to be allowed: only what is this patient's ("" any), and only what the query matches (() anything)."""

    patient: str
    query: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """`limits` are alternatives, none of them needed when `unlimited`; no limit at all is a refusal.

    `public` says that only the public view of a Slot or Schedule may be shown.
    """

    unlimited: bool
    limits: tuple[Limit, ...] = ()
    public: bool = False

    @property
    def allowed(self) -> bool:
        """Whether it may be done at all."""
        return self.unlimited or bool(self.limits)


ALLOW = Decision(unlimited=True)
DENY = Decision(unlimited=False)


_DECIDED: dict[tuple[int, str, str], tuple[Caller, Decision]] = {}
_MOST: Final = 4096


def decide(caller: Caller, letter: str, resource_type: str) -> Decision:
    """Whether the caller may do what one letter of `cruds` stands for on a type.

    Remembered: one request asks up to ten times, and the Caller of a token stays the same object.
    """
    if caller.everything:
        return ALLOW
    key = (id(caller), letter, resource_type)
    known = _DECIDED.get(key)
    # as long as it is kept here, no other caller has its `id`
    if known is None or known[0] is not caller:
        if len(_DECIDED) >= _MOST:
            _DECIDED.clear()
        known = _DECIDED[key] = (caller, _decided(caller, letter, resource_type))
    return known[1]


def _decided(caller: Caller, letter: str, resource_type: str) -> Decision:
    grants = [scope for scope in caller.scopes if letter in scope.letters and scope.type in ("*", resource_type)]
    limits = tuple(dict.fromkeys(limit for scope in grants for limit in _limits(caller, scope, letter, resource_type)))
    if not limits:
        return DENY
    public = resource_type in PUBLIC and _shows_public_view(caller, grants)
    if Limit("", ()) in limits:
        return Decision(unlimited=True, public=public)
    return Decision(unlimited=False, limits=limits, public=public)


def _shows_public_view(caller: Caller, grants: list[Scope]) -> bool:
    """A patient's scope shows availability; staff's queries beside it can't tell which of the two found a resource."""
    of_staff = [scope for scope in grants if scope.context != "patient" and not _is_patient(caller)]
    return len(of_staff) < len(grants) and all(scope.query for scope in of_staff)


def _is_patient(caller: Caller) -> bool:
    """A user/ scope reaches no further than its user: a patient who signs in is a patient."""
    return caller.user.startswith(("Patient/", "RelatedPerson/", "Person/"))


def _limits(caller: Caller, scope: Scope, letter: str, resource_type: str) -> Iterator[Limit]:
    """The limit that one scope sets, none where it does not apply after all."""
    as_patient = scope.context == "patient" or (scope.context == "user" and _is_patient(caller))
    if not as_patient:
        yield Limit("", scope.query)
        return
    patient = caller.patient or (caller.user if caller.user.startswith("Patient/") else "")
    if not patient or resource_type in STAFF_ONLY:
        return
    if resource_type in PUBLIC:
        if letter in "rs":
            yield Limit("", scope.query)
        return
    yield Limit(patient, scope.query)


def needs(interaction: str) -> str:
    """The letters that an interaction needs; KeyError for one that nobody has thought about."""
    return LETTERS[interaction]
