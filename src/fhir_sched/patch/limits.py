"""How much a patch may ask for, and the measures of it. What is beyond is refused before it is done.

A patch is small and its effect need not be: `copy` doubles, a path selects among thousands, criteria run for each.
Knows no patch format.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from fhir_sched import document
from fhir_sched.outcome import FhirError, Kind

MAX_OPERATIONS = 100
MAX_BYTES = 256 * 1024
"""Bytes of JSON of the patch, of the document after every operation, and of all that `copy` copies."""
MAX_PATH = 500
MAX_PLACES = 100_000
MAX_SEARCH_S = 0.25


class Effort:
    """What one patch has left: places that its paths may pass, and processor time for its criteria (seconds)."""

    def __init__(self) -> None:
        self._places = MAX_PLACES
        self._search_s = MAX_SEARCH_S
        self._search_until = 0.0

    def pass_places(self, count: int) -> None:
        """Raises 413 when the paths of the patch look at too many elements."""
        self._places -= count
        if self._places < 0:
            raise FhirError(Kind.TOO_LONG, f"the paths of a patch may pass {MAX_PLACES} elements; name fewer by index")

    def begin_search(self) -> None:
        """Criteria are tried from now on."""
        self._search_until = time.thread_time() + self._search_s

    def end_search(self) -> None:
        """No longer; what the search took is gone."""
        self._search_s = self._search_until - time.thread_time()

    def tick(self) -> None:
        """Raises 413 when the criteria of the patch have taken too long; to be called at every step of a search."""
        if time.thread_time() > self._search_until:
            raise FhirError(Kind.TOO_LONG, "the criteria of the patch take too long; name elements by index instead")


def count_operations(operations: list[Any]) -> None:
    """Raises 413 for more operations than a patch may have."""
    if len(operations) > MAX_OPERATIONS:
        raise FhirError(Kind.TOO_LONG, f"a patch may have {MAX_OPERATIONS} operations, not {len(operations)}")


def size(value: Any, what: str) -> int:
    """Bytes of the value's JSON. Raises 413 where that is more than MAX_BYTES or it is nested far too deeply."""
    try:
        found = len(document.dumps(value))
    except orjson.JSONEncodeError:  # more than 254 levels
        raise too_deep(what) from None
    if found > MAX_BYTES:
        raise FhirError(Kind.TOO_LONG, f"{what} may have {MAX_BYTES} bytes when patched")
    return found


def check_depth(value: Any, what: str) -> None:
    """Raises 413 for a value that is nested more deeply than a body may be."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > document.MAX_DEPTH + 1:  # the last level is that of the values inside
            raise too_deep(what)
        level = [item for each in level for item in _items(each)]


def _items(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def too_deep(what: str) -> FhirError:
    """413: more levels than a body may have."""
    return FhirError(Kind.TOO_LONG, f"{what} may be nested {document.MAX_DEPTH} levels deep")


def fresh(value: Any) -> Any:
    """A copy that shares nothing that can change."""
    if isinstance(value, dict):
        return {name: fresh(item) for name, item in value.items()}
    return [fresh(item) for item in value] if isinstance(value, list) else value
