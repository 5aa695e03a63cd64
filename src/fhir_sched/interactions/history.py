"""vread and history: R4 3.1.0.2, 3.1.0.11. Versions of one resource, of a type, of the whole tenant; newest first.

Every version that any program made is there, deletions included; each entry has request and response (bdl-3, bdl-4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from fhir_sched import reference
from fhir_sched.bundle import url
from fhir_sched.definition import Resource, Source
from fhir_sched.interactions.context import Answer, Context, etag, last_updated, located, not_found
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.search import page, values, versions
from fhir_sched.search.parse import NOT_OURS, presented
from fhir_sched.search.query import Position
from fhir_sched.search.result import DEFAULT_COUNT, MAX_COUNT, count
from fhir_sched.security.decision import Decision, decide
from fhir_sched.security.guard import refused
from fhir_sched.subset import PARAMETERS, Part, part

Row = Sequence[bytes | None]
_KNOWN = frozenset({"_count", "_since", "_at", page.PARAMETER, *PARAMETERS})


async def vread(context: Context, resource: Resource, fhir_id: str, version: str) -> Answer:
    """One version. Raises 404 where there is none, 410 where that version is the deletion."""
    limits = context.limits(resource, "r")
    source, row_id = located(resource, fhir_id)
    if limits:
        return await _own_version(context, resource, source, fhir_id, row_id, version)
    found = None
    if version.isascii() and version.isdigit() and len(version) < 10 and version == str(int(version)):
        (rows,) = await context.work.read(versions.one(source, row_id, version, context.tenant))
        found = rows.first()
    if found is None:
        raise FhirError(Kind.NOT_FOUND, f"{resource.type}/{fhir_id} has no version {version!r}")
    if found[0] == b"t":
        raise FhirError(Kind.GONE, f"{resource.type}/{fhir_id} was deleted by version {version}")
    row = found[1:]
    return Answer(200, context.shown(resource, source, row), row[1], row[2])


async def _own_version(
    context: Context, resource: Resource, source: Source, fhir_id: str, row_id: str, version: str
) -> Answer:
    """One version among those that the caller may see; anything else is not there."""
    span = versions.Span(row_id, count=MAX_COUNT, patients=_patients(context, [resource], "r"))
    (rows,) = await context.work.read(versions.listing([(resource, source)], span, context.tenant))
    for row in rows.all():
        if (row[3] or b"").decode() == version:
            columns = row[versions.LEAD :]
            return Answer(200, context.shown(resource, source, columns), columns[1], columns[2])
    raise FhirError(Kind.NOT_FOUND, f"{resource.type}/{fhir_id} has no version {version!r}")


def _patients(context: Context, resources: Sequence[Resource], letter: str) -> tuple[tuple[str, str], ...]:
    """Whose versions the caller may see, () for everybody's. Raises 403 where a scope's query would have to be asked
    of versions that are no more."""
    found: dict[tuple[str, str], None] = {}
    for resource in resources:
        decision = decide(context.caller, letter, resource.type)
        if not _reaches_the_past(decision):
            raise refused(letter, resource.type)
        for limit in decision.limits:
            target = reference.target(limit.patient, context.base)
            if target is not None:
                found[limit.patient, target.uuid] = None
    return tuple(found)


def _reaches_the_past(decision: Decision) -> bool:
    """Whether no version has to be asked what only a resource that is there can be asked: a scope's query."""
    whole = {limit.patient for limit in decision.limits if not limit.query}
    return decision.allowed and all(limit.patient in whole for limit in decision.limits)


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters of a history request: the span, the part of each version, what the self link repeats, and its tie
    to page tokens."""

    span: versions.Span
    part: Part
    used: tuple[tuple[str, str], ...]
    presented: tuple[tuple[str, str], ...]
    tie: str


def asked(
    context: Context,
    path: str,
    pairs: Sequence[tuple[str, str]],
    row_id: str | None,
    patients: tuple[tuple[str, str], ...] = (),
    *,
    strict: bool,
) -> Asked:
    """Reads _count, _since, _at and the page. Raises 400 for what is wrong or given twice, and by `strict` for what
    history does not know; otherwise that is not used, and the self link does not show it."""
    given: dict[str, str] = {}
    for name, text in pairs:
        if name in NOT_OURS or not text.strip():
            continue
        if name not in _KNOWN:
            if not strict:
                continue
            raise FhirError(Kind.NOT_SUPPORTED, f"history has no parameter {name!r}; it takes _count, _since, _at")
        if name in given and name != "_summary":  # of which the last one counts, as in a search
            raise FhirError(Kind.VALUE, f"{name} may be given once")
        given[name] = text
    used = tuple((name, text) for name, text in given.items() if name != page.PARAMETER)
    tie = page.digest(context.tenant, path, used)
    token = given.get(page.PARAMETER)
    span = versions.Span(
        row_id,
        _since(given["_since"]) if "_since" in given else None,
        values.date("_at", given["_at"]) if "_at" in given else None,
        _count(given.get("_count")),
        page.decode(token, tie, 2) if token else None,
        patients,
    )
    if span.position is not None and span.position.backward:
        raise FhirError(Kind.VALUE, f"{page.PARAMETER} is not a page of this history")
    return Asked(span, part(given.items()), used, presented(pairs), tie)


def _since(text: str) -> str:
    found = values.date("_since", text)
    if found.prefix != "eq" or found.local:
        raise FhirError(Kind.VALUE, f"_since is an instant such as 2026-06-01T00:00:00Z, not {text!r}")
    return found.low.isoformat()


def _count(text: str | None) -> int:
    if text is None:
        return DEFAULT_COUNT
    return count(text)


async def history(
    context: Context,
    resources: Sequence[Resource],
    pairs: Sequence[tuple[str, str]],
    fhir_id: str | None = None,
    *,
    strict: bool,
) -> Answer:
    """The history of one resource (`fhir_id`), of a type (one resource), or of all that the caller may see that of.

    Raises 404 for an unknown id, 403 where nothing is left.
    """
    letter = "s" if fhir_id is None else "r"
    if fhir_id is None:
        decisions = {each.type: decide(context.caller, letter, each.type) for each in resources}
        resources = [each for each in resources if _reaches_the_past(decisions[each.type])] or resources
    patients = _patients(context, resources, letter)
    path = "/".join(
        [*([resources[0].type] if len(resources) == 1 else []), *([fhir_id] if fhir_id else []), "_history"]
    )
    row_id = None
    sources = [(resource, source) for resource in resources for source in resource.sources]
    if fhir_id is not None:
        source, row_id = located(resources[0], fhir_id)
        sources = [(resources[0], source)]
    wanted = asked(context, path, pairs, row_id, patients, strict=strict)
    fragment = versions.listing(sources, wanted.span, context.tenant)
    (rows,) = await context.work.read(fragment, slow=fhir_id is None)
    found = rows.all()
    plain = versions.Span(row_id, count=wanted.span.count, patients=patients)
    if fhir_id is not None and not found and (wanted.span == plain or patients):
        raise not_found(resources[0], fhir_id)
    return Answer(200, _bundle(context, path, sources, wanted, found))


def _bundle(
    context: Context,
    path: str,
    sources: Sequence[tuple[Resource, Source]],
    wanted: Asked,
    found: Sequence[Row],
) -> bytes:
    shown = found[: wanted.span.count]
    position = wanted.span.position
    repeated = (*wanted.used, *wanted.presented)

    def link(place: Position) -> str:
        return url(context.base, path, [*repeated, (page.PARAMETER, page.encode(place, wanted.tie))])

    first = url(context.base, path, repeated)
    links = [{"relation": "self", "url": first if position is None else link(position)}]
    if position is not None:
        links.append({"relation": "first", "url": first})
    if len(found) > len(shown) and shown:
        keys = tuple((shown[-1][index] or b"").decode() for index in (4, 2, 3))
        links.append({"relation": "next", "url": link(Position(keys, 0, backward=False))})
    head = b'{"resourceType":"Bundle","type":"history"'
    if position is None and len(found) == len(shown):
        head += b',"total":%d' % len(shown)
    entries = b",".join(_entry(context, *sources[int(row[0] or b"0")], row, wanted.part) for row in shown)
    return head + b',"link":' + orjson.dumps(links) + (b',"entry":[' + entries + b"]}" if entries else b"}")


def _entry(context: Context, resource: Resource, source: Source, row: Row, shown_part: Part) -> bytes:
    """One version as an entry with request and response."""
    deleted, row_id, version, changed = row[1] == b"t", (row[2] or b"").decode(), row[3] or b"0", row[4] or b""
    name = f"{resource.type}/{source.prefix}-{row_id}"
    method, status = ("DELETE", "204 No Content") if deleted else ("PUT", "200 OK")
    if version == b"1" and not deleted:
        method, status = "POST", "201 Created"
    envelope = {
        "fullUrl": f"{context.base}/{name}",
        "request": {"method": method, "url": resource.type if method == "POST" else name},
        "response": {
            "status": status,
            "location": f"{context.base}/{name}/_history/{version.decode()}",
            "etag": etag(version),
            "lastModified": last_updated(changed),
        },
    }
    if deleted:
        return orjson.dumps(envelope)
    shown = orjson.Fragment(shown_part.of(context.shown(resource, source, row[versions.LEAD :])))
    return orjson.dumps({"fullUrl": envelope.pop("fullUrl"), "resource": shown, **envelope})
