"""The Caller: who makes a request, as a verified token says. Knows nothing of tokens' bytes or of HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field

from fhir_sched.security.scopes import Scope

ANONYMOUS = "00000000-0000-0000-0000-000000000000"
"""The subject of a change that nobody signed (AUTH=open)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`subject` is the UUID for `created_by`; `patient` and `user` are references such as `Patient/123`, "" for none.

    `client`, `sub` and `issuer` are the token's own words, for the audit log. `everything` is true without tokens
    (AUTH=open): nothing is asked of the scopes then.
    """

    subject: str
    scopes: tuple[Scope, ...] = ()
    patient: str = ""
    user: str = ""
    client: str = ""
    sub: str = field(default="", compare=False)
    issuer: str = field(default="", compare=False)
    everything: bool = False

    @property
    def origin(self) -> str:
        """The word for `appointments.source`: portal for a patient's token, staff for a user's, hl7 for a system's."""
        contexts = {scope.context for scope in self.scopes}
        if self.everything or "user" in contexts:
            return "portal" if self.user.startswith("Patient/") else "staff"
        return "portal" if "patient" in contexts else "hl7"


OPEN = Caller(ANONYMOUS, everything=True)
"""Whoever asks when the server runs without tokens."""
