"""The setting ISSUERS -> which authorization servers are trusted, each for which tenants.

Two forms: `https://a.example=<tenant>|<tenant>, https://b.example=<tenant>`, or a JSON list of objects with `issuer`,
`tenants` and, where it is not discovered, `jwks_url`. Knows no token and fetches nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

_MEMBERS = {"issuer", "tenants", "jwks_url"}


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An authorization server: the `iss` of its tokens, the tenants it speaks for (None: all that no other one is
    named for), and where its keys are ("" to discover)."""

    url: str
    tenants: frozenset[str] | None
    jwks_url: str = ""


def parse(text: str) -> tuple[TrustedIssuer, ...]:
    """The issuers that the setting names. Raises ValueError with a sentence about the first thing that is wrong.

    >>> parse("https://a.example=5eed0000-0000-4000-8000-000000000001")[0].url
    'https://a.example'
    """
    found = _of_json(text) if text.lstrip().startswith("[") else [_of_pair(part) for part in text.split(",") if part]
    names = [each.url for each in found]
    if len(set(names)) != len(names):
        raise ValueError("an issuer may be named once")
    return tuple(found)


def web_url(text: object, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """The URL without a slash at its end. Raises ValueError unless it is absolute, without query and fragment."""
    value = text if isinstance(text, str) else ""
    parts = urlsplit(value)
    if parts.scheme not in schemes or not parts.netloc or parts.query or parts.fragment or " " in value:
        raise ValueError(f"must be an absolute URL ({' or '.join(schemes)}) without query and fragment")
    return value.rstrip("/")


def _of_pair(part: str) -> TrustedIssuer:
    url, _, tenants = part.strip().rpartition("=")
    return _trusted(url, tenants.split("|"), "")


def _of_json(text: str) -> list[TrustedIssuer]:
    try:
        listed: Any = json.loads(text)
    except ValueError:
        raise ValueError("is neither JSON nor a list such as https://auth.example=<tenant>|<tenant>") from None
    if not all(isinstance(each, dict) and set(each) <= _MEMBERS for each in listed):
        raise ValueError(f"must hold objects with {', '.join(sorted(_MEMBERS))}")
    return [_trusted(each.get("issuer"), each.get("tenants"), each.get("jwks_url", "")) for each in listed]


def _trusted(url: object, tenants: object, jwks_url: object) -> TrustedIssuer:
    if not isinstance(tenants, list) or not tenants:
        raise ValueError("each issuer needs its tenants, as in https://auth.example=<tenant>|<tenant>")
    try:
        named = frozenset(str(UUID(str(tenant).strip())) for tenant in tenants)
    except ValueError:
        raise ValueError("a tenant is a UUID") from None
    keys = str(jwks_url)
    return TrustedIssuer(web_url(url), named, keys if keys == "" or keys.startswith("file:") else web_url(keys))
