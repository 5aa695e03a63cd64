"""A page of matches -> a searchset Bundle, as bytes. R4 2.36 (Bundle), 3.1.1.5 (search results).

Entries are joined as bytes: a resource is never parsed again to be put into a Bundle. Knows nothing of SQL or HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote
from uuid import NAMESPACE_OID, uuid5

import orjson

from fhir_sched import rendering
from fhir_sched.definition import Resource, Source
from fhir_sched.outcome import Issue, Kind, operation_outcome

Row = Sequence[bytes | None]
Writer = Callable[[Row], bytes]


def entries(
    base: str, resource: Resource, source: Source, rows: Sequence[Row], write: Writer | None, mode: bytes = b"match"
) -> list[bytes]:
    """The pieces of an entry for each row of one source, `mode` match or include; whole, or what `write` makes of a
    row. Each entry begins with a comma."""
    head = f',{{"fullUrl":"{base}/{resource.type}/{source.prefix}-'.encode()
    tail = b',"search":{"mode":"' + mode + b'"}}'
    if write is None:
        return rendering.entries(resource, source, rows, head, tail)
    return [b'%b%b","resource":%b%b' % (head, row[0] or b"", write(row), tail) for row in rows]


def entry(url: str, resource: bytes) -> bytes:
    """An entry for one resource of another kind, a match; it begins with a comma."""
    return b',{"fullUrl":"%b","resource":%b,"search":{"mode":"match"}}' % (url.encode(), resource)


def searchset(
    parts: list[bytes], links: Sequence[tuple[str, str]], total: int | None, warnings: Sequence[str] = ()
) -> bytes:
    """The Bundle of the pieces of its entries; `links` are (relation, URL), `warnings` become one OperationOutcome
    entry."""
    if warnings:
        parts.append(outcome_entry([Issue(Kind.NOT_SUPPORTED, each, severity="warning") for each in warnings]))
    counted = b"" if total is None else b',"total":%d' % total
    linked = orjson.dumps([{"relation": relation, "url": url} for relation, url in links])
    head = b'{"resourceType":"Bundle","type":"searchset"%b,"link":%b' % (counted, linked)
    if not parts:
        return head + b"}"
    return b"".join([head, b',"entry":[', parts[0][1:], *parts[1:], b"]}"])


def outcome_entry(issues: Sequence[Issue]) -> bytes:
    """An entry for an OperationOutcome with these issues; it begins with a comma."""
    outcome = orjson.dumps(operation_outcome(issues))
    # Only what a client creates may lack a fullUrl (R4, Bundle.entry.fullUrl); this one is named by its content.
    name = uuid5(NAMESPACE_OID, outcome.decode())
    return b',{"fullUrl":"%b","resource":%b,"search":{"mode":"outcome"}}' % (name.urn.encode(), outcome)


def url(base: str, path: str, parameters: Iterable[tuple[str, str]]) -> str:
    """A URL of ours with its parameters encoded, as it stands in links.

    >>> url("http://x/fhir/t", "Slot", [("start", "ge2026-06-01T00:00:00+02:00")])
    'http://x/fhir/t/Slot?start=ge2026-06-01T00:00:00%2B02:00'
    """
    whole = f"{base}/{path}" if path else base
    listed = [*parameters]
    if not _NEEDS_NO_QUOTES("".join([part for pair in listed for part in pair])):
        listed = [(_quoted(name), _quoted(value)) for name, value in listed]
    encoded = "&".join([f"{name}={value}" for name, value in listed])
    return f"{whole}?{encoded}" if encoded else whole


_SAFE = "/:|,$-._~*"
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9/:|,$\-._~*]*").fullmatch


def _quoted(text: str) -> str:
    return text if _NEEDS_NO_QUOTES(text) else quote(text, safe=_SAFE)
