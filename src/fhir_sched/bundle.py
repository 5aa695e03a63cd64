"""A page of matches -> a searchset Bundle, as bytes. R4 2.36 (Bundle), 3.1.1.5 (search results).

Entries are joined as bytes: a resource is never parsed again to be put into a Bundle. Knows nothing of SQL or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import orjson

from fhir_sched.outcome import Issue, Kind, operation_outcome


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource of a searchset: its type and id, its JSON, and why it is there (match or include)."""

    reference: str
    resource: bytes
    mode: bytes = b"match"


def searchset(
    base: str,
    entries: Iterable[Entry],
    links: Sequence[tuple[str, str]],
    total: int | None,
    warnings: Sequence[str] = (),
) -> bytes:
    """The Bundle; `links` are (relation, URL), `warnings` become one OperationOutcome entry."""
    root = base.encode() + b"/"
    parts = [
        b'{"fullUrl":"%b%b","resource":%b,"search":{"mode":"%b"}}'
        % (root, each.reference.encode(), each.resource, each.mode)
        for each in entries
    ]
    if warnings:
        parts.append(_warning_entry(warnings))
    head = b'{"resourceType":"Bundle","type":"searchset"'
    if total is not None:
        head += b',"total":%d' % total
    linked = orjson.dumps([{"relation": relation, "url": url} for relation, url in links])
    body = head + b',"link":' + linked
    if parts:
        body += b',"entry":[' + b",".join(parts) + b"]"
    return body + b"}"


def _warning_entry(warnings: Sequence[str]) -> bytes:
    issues = [Issue(Kind.NOT_SUPPORTED, warning, severity="warning") for warning in warnings]
    outcome = orjson.dumps(operation_outcome(issues))
    return b'{"resource":' + outcome + b',"search":{"mode":"outcome"}}'


def url(base: str, path: str, parameters: Iterable[tuple[str, str]]) -> str:
    """A URL of ours with its parameters encoded, as it stands in links.

    >>> url("http://x/fhir/t", "Slot", [("start", "ge2026-06-01T00:00:00+02:00")])
    'http://x/fhir/t/Slot?start=ge2026-06-01T00:00:00%2B02:00'
    """
    whole = f"{base}/{path}" if path else base
    encoded = "&".join(f"{quote(name, safe=_SAFE)}={quote(value, safe=_SAFE)}" for name, value in parameters)
    return f"{whole}?{encoded}" if encoded else whole


_SAFE = "/:|,$-._~*"
