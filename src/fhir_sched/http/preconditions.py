"""Prefer and If-Match: what a client wants of a write. R4 3.1.0.1.8, 3.1.0.6; RFC 9110 13.1."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

from fhir_sched.interactions.context import Condition
from fhir_sched.outcome import FhirError, Kind

_ETAG = re.compile(r'\s*(?:W/)?"([^"]*)"\s*')
_VERSION = re.compile(r"0|[1-9][0-9]{0,8}")
_BARE = re.compile(r"\s*(\d+)\s*")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def versions(header: str, name: str) -> Condition | None:
    """The versions of an If-Match or If-None-Match; None when there is none. Raises 400 for one that is malformed."""
    if not header:
        return None
    if header.strip() == "*":
        return Condition(())
    versions = []
    for part in header.split(","):
        # Some clients ask whether there is something new by the bare version; that a write is not lost must be meant.
        found = _ETAG.fullmatch(part) or (_BARE.fullmatch(part) if name == "If-None-Match" else None)
        if found is None:
            raise FhirError(Kind.VALUE, f'{name} {header!r} is malformed; write W/"3" with the version you have read')
        versions.append(found[1] if _VERSION.fullmatch(found[1]) else "0")
    return Condition(tuple(versions))


def preference(header: str, name: str) -> str:
    """One preference of a Prefer header, such as `return` or `handling`; "" when it is not there."""
    if not header:
        return ""
    for part in re.split(r"[,;]", header):
        key, _, value = part.partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"')
    return ""


def http_date(modified: bytes) -> bytes:
    """An `updated_at` column as Last-Modified writes it."""
    day = _day(modified[:10])
    return b"%b %b GMT" % (day, modified[11:19]) if day and modified[10:11] == b" " else b""


@lru_cache(maxsize=1024)
def _day(text: bytes) -> bytes:
    """`2026-06-02` as `Tue, 02 Jun 2026`; empty for a day that Python does not know."""
    try:
        day = date.fromisoformat(text.decode())
    except ValueError:
        return b""
    return f"{_DAYS[day.weekday()]}, {day.day:02d} {_MONTHS[day.month - 1]} {day.year:04d}".encode()
