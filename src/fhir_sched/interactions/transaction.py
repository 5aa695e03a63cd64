"""transaction: R4 3.1.0.11.2. All entries in one database transaction, or none.

Ids of new resources are chosen before anything is written, so that entries may refer to each other in any direction;
DELETE, POST, PUT and PATCH, GET run in that order, and of the POSTs first what others stand on. `ifMatch` compares
with the version before the transaction; a reference by search finds what the entries before it have made.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fhir_sched.db.fragment import Fragment
from fhir_sched.db.work import Work
from fhir_sched.definition import Resource
from fhir_sched.interactions import entries
from fhir_sched.interactions.audited import tell
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.changes import Changes
from fhir_sched.interactions.conditional import only_match
from fhir_sched.interactions.context import Answer, Context, version_conflict
from fhir_sched.interactions.dispatch import criteria, perform
from fhir_sched.interactions.read import visible
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.resources import RESOURCES

_RELATIVE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}")
_RESTFUL = re.compile(rf"(https?://.+)/{_RELATIVE.pattern}")
_FIRST = {"Schedule": 0, "Slot": 1, "Appointment": 2}
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}


async def transaction(context: Context, listed: list[dict[str, Any]], manner: entries.Manner) -> Answer:
    """200 with a transaction-response in the order of the entries.

    Raises the FhirError of the first entry that is refused, its issues placed at that entry; nothing is changed then.
    """
    calls = [_placed_call(context, index, entry, manner) for index, entry in enumerate(listed)]
    _refuse_overlap(calls)
    told: list[tuple[Call, Answer]] = []

    async def all_of_them(work: Work) -> Answer:
        told.clear()
        inside = replace(context, work=work)
        prepared, resolver = await _prepared(inside, listed, calls)
        changes = Changes(inside, calls)
        answers: dict[int, bytes] = {}
        for index in sorted(range(len(prepared)), key=lambda i: _turn(prepared[i])):
            call = await resolver.ready(index, prepared[index])
            own = replace(inside, trail=None if inside.trail is None else inside.trail.entry())
            try:
                await changes.claim(index, call)
                answer = await perform(own, call)
                changes.made(index, call, answer)
            except FhirError as error:
                raise _at(index, error) from error
            if own.trail is not None and not (own.trail.written or own.trail.operated):
                told.append((call, answer))
            answers[index] = entries.answered(answer, call.method, manner.wanted)
        return Answer(200, entries.response_bundle("transaction", [answers[index] for index in range(len(prepared))]))

    try:
        whole = await context.work.atomically(all_of_them)
    except FhirError as error:
        # none of it was done, so each entry failed with the one that was refused
        for call in calls:
            tell(context, call, error.status)
        raise
    for call, answer in told:
        tell(context, call, answer.status, answer)
    return whole


def _placed_call(context: Context, index: int, entry: dict[str, Any], manner: entries.Manner) -> Call:
    try:
        return entries.call(context, entry, manner)
    except FhirError as error:
        raise _at(index, error) from error


def _at(index: int, error: FhirError) -> FhirError:
    """The refusal with its place: `Bundle.entry[3].resource` in front of an element's own expression."""
    issues = []
    for issue in error.issues:
        _, _, rest = (issue.expression or "").partition(".")
        inner = f".resource.{rest}" if rest else ""
        issues.append(Issue(issue.kind, issue.diagnostics, f"Bundle.entry[{index}]{inner}", issue.severity))
    placed = FhirError.of(issues)
    placed.headers = tuple(header for header in error.headers if header[0] != "ETag")
    return placed


def _turn(call: Call) -> tuple[int, int]:
    rank = _FIRST.get(call.path[0], 3) if call.path else 3
    return _ORDER.get(call.method, 4), -rank if call.method == "DELETE" else rank


def _refuse_overlap(calls: list[Call]) -> None:
    """One resource may be changed by one entry only (R4 3.1.0.11.2)."""
    seen: dict[tuple[str, ...], int] = {}
    for index, call in enumerate(calls):
        if call.method in ("PUT", "PATCH", "DELETE") and len(call.path) == 2:
            first = seen.setdefault(tuple(call.path), index)
            if first != index:
                raise FhirError(
                    Kind.INVALID,
                    f"entries {first} and {index} both change {'/'.join(call.path)}",
                    f"Bundle.entry[{index}]",
                )


async def _prepared(context: Context, listed: list[dict[str, Any]], calls: list[Call]) -> tuple[list[Call], _Resolver]:
    """The calls with ids chosen, preconditions checked and conditional creates decided; and who puts references in."""
    await _check_versions(context, calls)
    named: dict[str, str] = {}
    prepared = list(calls)
    for index, (entry, call) in enumerate(zip(listed, calls, strict=True)):
        full_url = entry.get("fullUrl", "")
        if full_url in named:
            raise FhirError(
                Kind.INVARIANT, f"bdl-7: fullUrl {full_url!r} is given twice", f"Bundle.entry[{index}].fullUrl"
            )
        if call.method == "POST" and len(call.path) == 1 and call.path[0] in RESOURCES:
            prepared[index], reference = await _created(context, call, index)
            if full_url:
                named[full_url] = reference
        elif full_url and len(call.path) == 2 and not full_url.startswith(context.base):
            named[full_url] = "/".join(call.path)
    without = [call if call.method in ("GET", "HEAD") else replace(call, match=None) for call in prepared]
    return without, _Resolver(context, named, [entry.get("fullUrl", "") for entry in listed])


async def _created(context: Context, call: Call, index: int) -> tuple[Call, str]:
    """A create with its id, or the read of the one that If-None-Exist found."""
    resource = RESOURCES[call.path[0]]
    if call.none_exist is not None:
        try:
            found = await only_match(context, resource, criteria(call.none_exist))
        except FhirError as error:
            raise _at(index, error) from error
        if found is not None:
            return replace(call, method="GET", path=[resource.type, found], pairs=[]), f"{resource.type}/{found}"
    row_id = str(uuid.uuid4())
    prefix = resource.source_of(call.body()).prefix
    return replace(call, row_id=row_id, none_exist=None), f"{resource.type}/{prefix}-{row_id}"


async def _check_versions(context: Context, calls: list[Call]) -> None:
    """Locks what `ifMatch` speaks of, in one order for all, and compares with the versions before the transaction."""
    wanted = []
    for index, call in enumerate(calls):
        resource = RESOURCES.get(call.path[0]) if call.path else None
        found = resource.parse_id(call.path[1]) if resource is not None and len(call.path) == 2 else None
        if resource is not None and found is not None and call.match is not None and call.method != "GET":
            wanted.append((found[0].table, found[1], index, call.match, resource))
    for table, row_id, index, match, resource in sorted(wanted, key=lambda each: each[:2]):
        text = f"select version\nfrom {table}\nwhere tenant_id = $1::uuid\n  and id = $2::uuid\nfor update"
        (rows,) = await context.work.read(Fragment(text, (context.tenant.encode(), row_id.encode())))
        row = rows.first()
        current = row[0] if row is not None and await _may_change(context, resource, calls[index]) else None
        if current is None or (match.versions and current.decode() not in match.versions):
            raise _at(index, version_conflict(resource, calls[index].path[1], current))


async def _may_change(context: Context, resource: Resource, call: Call) -> bool:
    """Whether the caller may tell what this entry changes from what is not there."""
    limits = context.limits(resource, "d" if call.method == "DELETE" else "u")
    return not limits or await visible(context, resource, call.path[1], limits) is not None


def _given(body: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: body


class _Resolver:
    """Puts the ids of this transaction where entries refer to each other, and finds conditional references."""

    def __init__(self, context: Context, named: dict[str, str], full_urls: list[str]) -> None:
        self.context, self.named, self.full_urls = context, named, full_urls
        self.found: dict[str, str] = {}

    async def ready(self, index: int, call: Call) -> Call:
        """The call with its references put in."""
        if call.method not in ("POST", "PUT", "PATCH"):
            return call
        return replace(call, body=_given(await self.resolved(index, call.body())))

    async def resolved(self, index: int, value: Any) -> Any:
        """The same document with every reference, uri and narrative link to a `fullUrl` replaced."""
        if isinstance(value, dict):
            return {key: await self._member(index, key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [await self.resolved(index, item) for item in value]
        return value

    async def _member(self, index: int, key: str, item: Any) -> Any:
        if not isinstance(item, str):
            return await self.resolved(index, item)
        if key == "reference" and "?" in item and not item.startswith(("#", "urn:")):
            return await self._conditional(index, item)
        if key == "div":
            return self._linked(item)
        if key == "reference":
            return self._referred(index, item)
        if key.startswith(("valueUri", "valueUrl", "valueOid", "valueUuid")) or item.startswith("urn:"):
            return self.named.get(item, item)
        return item

    def _referred(self, index: int, text: str) -> str:
        """The new id where the text is another entry's fullUrl, or relative to the same root (R4 2.36.4.1)."""
        whole, _, _ = text.partition("/_history/")
        if _RELATIVE.fullmatch(whole):
            rest = _RESTFUL.fullmatch(self.full_urls[index])
            whole = f"{rest[1] if rest else self.context.base}/{whole}"
        return self.named.get(text) or self.named.get(whole, text)

    def _linked(self, narrative: str) -> str:
        for full_url, reference in self.named.items():
            narrative = narrative.replace(f'"{full_url}"', f'"{reference}"')
        return narrative

    async def _conditional(self, index: int, text: str) -> str:
        """`Slot?identifier=…`: the one resource that matches (R4 3.1.0.11.2.1)."""
        if text in self.found:
            return self.found[text]
        kind, _, query = text.removeprefix(self.context.base + "/").partition("?")
        resource = RESOURCES.get(kind)
        if resource is None:
            raise FhirError(
                Kind.PRECONDITION, f"{text!r} can't be looked up: {kind} is not served here", f"Bundle.entry[{index}]"
            )
        try:
            found = await only_match(self.context, resource, criteria(query))
        except FhirError as error:
            raise _at(index, error) from error
        if found is None:
            raise FhirError(Kind.PRECONDITION, f"nothing matches {text!r}", f"Bundle.entry[{index}]")
        self.found[text] = f"{kind}/{found}"
        return self.found[text]
