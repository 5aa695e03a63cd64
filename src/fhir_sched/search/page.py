"""Page tokens: a place in the order of a search, opaque to clients. R4 3.1.1.5.4 (Paging).

A token is input like any other: it belongs to one tenant, type and set of parameters, and is refused elsewhere (400).
It names the last row seen, not an offset, so rows added or removed in front of it shift nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

import orjson

from fhir_sched.outcome import FhirError, Kind
from fhir_sched.search.query import Position

PARAMETER = "_page"


def digest(tenant: str, resource_type: str, used: tuple[tuple[str, str], ...]) -> str:
    """What ties a token to its search: 12 hexadecimal digits."""
    return hashlib.blake2b(orjson.dumps([tenant, resource_type, used]), digest_size=6).hexdigest()


def encode(position: Position, tie: str) -> str:
    """The token of a position."""
    content = orjson.dumps([tie, int(position.backward), position.source, *position.keys])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decode(token: str, tie: str, sort_keys: int) -> Position:
    """The position of a token. Raises 400 for one that is broken or was made for another search or tenant."""
    try:
        padded = token + "=" * (-len(token) % 4)
        content = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
        found, backward, source, *keys = content
    except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError):
        raise _refused() from None
    fits = (
        found == tie
        and backward in (0, 1)
        and type(source) is int
        and 0 <= source < 8
        and len(keys) == sort_keys + 1
        and all(isinstance(key, str) and len(key) < 300 and "\x00" not in key for key in keys)
    )
    if not fits:
        raise _refused()
    return Position(tuple(keys), source, bool(backward))


def _refused() -> FhirError:
    return FhirError(
        Kind.VALUE, f"{PARAMETER} is not a page of this search; follow the links of a Bundle or search again without it"
    )
