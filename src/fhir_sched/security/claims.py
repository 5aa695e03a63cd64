"""What a token says -> the Caller. RFC 9068 (JWT access tokens), RFC 7662, SMART App Launch 2.2. Pure.

Every rule that does not need a key or an issuer's word. What is wrong is a `ClaimError` with a sentence that repeats
nothing of the token. Knows neither signatures nor HTTP.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from fhir_sched.reference import is_uuid
from fhir_sched.security import scopes
from fhir_sched.security.caller import Caller

LEEWAY_S: Final = 30
"""How far the clocks of the authorization server and ours may differ."""

_LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999; a time beyond it is a mistake or an attack."""

_MAX_TEXT: Final = 2048
_ID_TOKEN_CLAIMS: Final = ("at_hash", "c_hash", "s_hash", "nonce")
_REFERENCE: Final = re.compile(r"(?:https?://\S+/)?(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})")
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_USERS: Final = frozenset({"Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person", "Device"})
_SUBJECTS: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122's namespace for URLs

Claims = Mapping[str, Any]


class ClaimError(Exception):
    """A sentence about what is wrong with a token, in ASCII."""


def expiry(claims: Claims, now: float, *, required: bool = True) -> float:
    """The moment (Unix seconds) from which the token counts no more. Raises ClaimError outside its time."""
    expires = _moment(claims, "exp")
    if expires is None:
        if required:
            raise ClaimError("the token has no exp")
        expires = float(_LAST_SECOND)
    if expires + LEEWAY_S <= now:
        raise ClaimError("the token has expired")
    for name in ("nbf", "iat"):
        begins = _moment(claims, name)
        if begins is not None and begins - LEEWAY_S > now:
            raise ClaimError("the token is not valid yet")
    return expires + LEEWAY_S


def _moment(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 < value <= _LAST_SECOND:
        raise ClaimError(f"{name} is no time")
    return float(value)


def audiences(claims: Claims) -> frozenset[str]:
    """For whom the token is, without slashes at the end. Raises ClaimError for what is no text or list of texts."""
    given = claims.get("aud", [])
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or len(listed) > 20 or not all(isinstance(each, str) for each in listed):
        raise ClaimError("aud is no audience")
    if len(set(listed)) != len(listed):
        raise ClaimError("aud names an audience twice")
    return frozenset(each.rstrip("/") for each in listed)


def require_access_token(claims: Claims, header: Claims) -> None:
    """Raises ClaimError for a token of another kind: an id token, a logout token, one bound to a key of its client."""
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in ("jwt", "at+jwt"):
        raise ClaimError("the token is no access token")
    is_declared = kind.lower().endswith("at+jwt")
    if any(name in claims for name in _ID_TOKEN_CLAIMS[: 3 if is_declared else 4]) or "events" in claims:
        raise ClaimError("the token is no access token")
    # Words by which Keycloak and Cognito tell their kinds of tokens apart.
    if str(claims.get("typ", "bearer")).lower() not in ("bearer", "at+jwt"):
        raise ClaimError("the token is no access token")
    if claims.get("token_use", "access") != "access":
        raise ClaimError("the token is no access token")
    if "cnf" in claims:
        raise ClaimError("the token is bound to a key of its client and is no bearer token")
    if "scope" not in claims and "scp" not in claims:
        raise ClaimError("the token has no scope")


def caller(claims: Claims, issuer: str, *, needs_user: bool = False) -> Caller:
    """Who the token says that asks. Raises ClaimError for a claim that can't be read: none is passed over.

    `needs_user`: without fhirUser its user/ scopes grant nothing, since nobody knows how far their user may reach.
    """
    client = _text(claims, "client_id") or _text(claims, "azp")
    subject = _text(claims, "sub") or client
    if not subject:
        raise ClaimError("the token names no subject")
    patient = _text(claims, "patient")
    user = _text(claims, "fhirUser")
    granted = scopes.parse(_scope(claims))
    return Caller(
        subject=subject.lower() if is_uuid(subject) else str(uuid.uuid5(_SUBJECTS, f"{issuer}|{subject}")),
        scopes=tuple(scope for scope in granted if user or not needs_user or scope.context != "user"),
        patient=_patient(patient) if patient else "",
        user=_reference(user, "fhirUser") if user else "",
        client=client,
        sub=subject,
        issuer=issuer,
    )


def _scope(claims: Claims) -> str:
    given = claims["scope"] if "scope" in claims else claims.get("scp", "")
    words = given if isinstance(given, list) else [given]
    if not all(isinstance(word, str) for word in words):
        raise ClaimError("scope is neither a text nor a list of texts")
    return " ".join(words)


def _text(claims: Claims, name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ClaimError(f"{name} is no text")
    return value


def _patient(text: str) -> str:
    reference = f"Patient/{text}" if _ID.fullmatch(text) else text
    found = _reference(reference, "patient")
    if not found.startswith("Patient/"):
        raise ClaimError("patient is no patient")
    return found


def _reference(text: str, name: str) -> str:
    """`Type/id`, also of an absolute URL; a UUID in lower case, as the tables have it."""
    match = _REFERENCE.fullmatch(text)
    if match is None or match["type"] not in _USERS:
        raise ClaimError(f"{name} is no reference to a person")
    fhir_id = match["id"].lower() if is_uuid(match["id"]) else match["id"]
    return f"{match['type']}/{fhir_id}"
