"""The pages of an operation that is asked for by POST: a next link that holds its inputs and the place to go on from.

R4 3.1.1.5.4: a link is followed by GET. A token is input like any other: it belongs to one tenant, and what it holds
is read and checked as the inputs of a request are. Knows no operation.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from fhir_sched.interactions.call import Call
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.reference import is_uuid
from fhir_sched.search import result

PARAMETER: Final = "_page"
DEFAULT_COUNT: Final = 20
MAX_COUNT: Final = 200
_MOST_BYTES: Final = 60_000
_MOMENT: Final = re.compile(r"[0-9]{4,6}-[0-9]{2}-[0-9]{2} [0-9:.]{5,18}[+-][0-9:]{2,8}")


@dataclass(frozen=True, slots=True)
class Page:
    """A place in the answer: the last entry seen (start, UUID; None at the beginning), the size, the known total."""

    after: tuple[str, str] | None
    count: int
    total: int | None


def page_of(call: Call, tenant: str) -> Page:
    """The page that a call asks for. Raises 400 for a broken token or one of another tenant, for a wrong _count."""
    asked = dict(reversed(call.pairs))
    if PARAMETER not in asked:
        return Page(None, _count(asked.get("_count", str(DEFAULT_COUNT))), None)
    _, count, total, start, row_id, *_ = _decoded(asked[PARAMETER], tenant)
    return Page((start, row_id), count, total)


def first_call(call: Call, tenant: str) -> Call:
    """The call with the inputs of the first page: the same one, unless it follows a next link. Raises 400."""
    asked = dict(reversed(call.pairs))
    if PARAMETER not in asked:
        return call
    body, pairs = _decoded(asked[PARAMETER], tenant)[5:]
    listed = [(str(name), str(value)) for name, value in pairs]
    return replace(call, method="POST", pairs=listed, body=lambda: body, bodyless=not body)


def token(call: Call, page: Page, tenant: str) -> str:
    """The token of a page that comes after this call's, with all that was asked for."""
    asked = dict(reversed(call.pairs))
    if PARAMETER in asked:
        body, pairs = _decoded(asked[PARAMETER], tenant)[5:]
    else:
        body = {} if call.bodyless or call.method != "POST" else call.body()
        pairs = [pair for pair in call.pairs if not pair[0].startswith("_")]
    start, row_id = page.after or ("", "")
    content = orjson.dumps([tenant, page.count, page.total, start, row_id, body, pairs], default=str)
    return base64.urlsafe_b64encode(zlib.compress(content, 9)).decode().rstrip("=")


def _count(text: str) -> int:
    return min(result.count(text), MAX_COUNT)


def _decoded(text: str, tenant: str) -> list[Any]:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj()
        parts = orjson.loads(unpacker.decompress(packed, _MOST_BYTES))
        own, count, total, start, row_id, body, pairs = parts
        fits = (
            own == tenant
            and all(type(each) is int and 0 <= each <= MAX_COUNT * 10 for each in (count, total))
            and count <= MAX_COUNT
            and _MOMENT.fullmatch(start) is not None
            and is_uuid(row_id)
            and isinstance(body, dict)
            and all(len(pair) == 2 for pair in pairs)
        )
    except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise FhirError(
            Kind.VALUE, f"{PARAMETER} is not a page of this operation: follow the links of a Bundle", PARAMETER
        )
    return list(parts)
