"""SMART scopes, text -> Scope. SMART App Launch 2.2, "Scopes and Launch Context", v1 and v2 syntax.

A scope that is not understood grants nothing; it is never guessed. Knows no token and no resource.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

MAX_SCOPES = 100
_SCOPE = re.compile(
    r"(?P<context>patient|user|system)/(?P<type>\*|[A-Z][A-Za-z]{1,63})\."
    r"(?:(?P<v1>read|write|\*)|(?P<v2>c?r?u?d?s?)(?:\?(?P<query>[^\s]+))?)"
)
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


@dataclass(frozen=True, slots=True)
class Scope:
    """What one scope grants: the letters (of `cruds`) on a type ("*" all), to whom, and only where a query matches."""

    context: str
    type: str
    letters: str
    query: tuple[tuple[str, str], ...] = ()


def parse(text: str) -> tuple[Scope, ...]:
    """The resource scopes of a `scope` claim; identity and launch scopes, and what is malformed, are left out."""
    found = (_scope(word) for word in text.split()[:MAX_SCOPES])
    return tuple(scope for scope in found if scope is not None)


def _scope(word: str) -> Scope | None:
    match = _SCOPE.fullmatch(word)
    if match is None:
        return None
    letters = _V1[match["v1"]] if match["v1"] else match["v2"]
    if not letters:
        return None
    query: tuple[tuple[str, str], ...] = ()
    if match["query"]:
        try:
            query = tuple(parse_qsl(match["query"], strict_parsing=True, errors="strict", max_num_fields=10))
        except ValueError:
            return None
    return Scope(match["context"], match["type"], letters, query)
