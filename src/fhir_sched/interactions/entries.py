"""Bundle entries -> Calls, Answers -> response entries. R4 2.36.3 (bdl-3, bdl-4), 3.1.0.11 (batch/transaction).

What a batch and a transaction share. Knows nothing of the order in which entries run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Condition, Context, etag, last_updated
from fhir_sched.outcome import FhirError, Issue, Kind, operation_outcome
from fhir_sched.search.values import form
from fhir_sched.validate import resource_issues

MAX_ENTRIES = 500
_STATUS = {
    200: "200 OK", 201: "201 Created", 204: "204 No Content", 304: "304 Not Modified", 400: "400 Bad Request",
    403: "403 Forbidden", 404: "404 Not Found", 405: "405 Method Not Allowed", 409: "409 Conflict", 410: "410 Gone",
    412: "412 Precondition Failed", 422: "422 Unprocessable Entity",
}  # fmt: skip
_ANSWERED = {
    "search": "bdl-2: only an entry of a searchset has a search",
    "response": "bdl-4: a batch or transaction is asked for; its answer alone has a response",
}
METHODS = ("DELETE", "POST", "PUT", "PATCH", "GET", "HEAD")

_BRIEF = ("minimal", "operationoutcome")
Versions = Callable[[str, str], Condition | None]


@dataclass(frozen=True, slots=True)
class Manner:
    """How entries are read and answered: ETags by `versions`, unknown parameters refused, changes told as `wanted`.

    `wanted` is the word of `Prefer: return=` in small letters, or "".
    """

    versions: Versions
    strict: bool
    wanted: str


def checked(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a batch or transaction. Raises 400 for what is not one, 413 for too many entries."""
    issues = resource_issues(bundle, "Bundle", in_transaction=True, nested=False)
    if issues:
        raise FhirError.of(issues)
    if bundle.get("type") not in ("batch", "transaction"):
        raise FhirError(
            Kind.INVALID,
            f"POST here takes a batch or transaction, not a Bundle of type {bundle.get('type')!r}",
            "Bundle.type",
        )
    entries: list[dict[str, Any]] = bundle.get("entry", [])
    if len(entries) > MAX_ENTRIES:
        raise FhirError(Kind.TOO_LONG, f"a Bundle may have {MAX_ENTRIES} entries, not {len(entries)}", "Bundle.entry")
    broken = list(_broken(bundle, entries))
    if broken:
        raise FhirError.of(broken)
    return entries


def _broken(bundle: dict[str, Any], entries: list[dict[str, Any]]) -> Iterator[Issue]:
    """What breaks the invariants of a Bundle (R4 2.36.3.1), and entries without the resource that they write."""
    if "total" in bundle:
        yield Issue(Kind.INVARIANT, "bdl-1: only a searchset or history has a total", "Bundle.total")
    for index, entry in enumerate(entries):
        place = f"Bundle.entry[{index}]"
        if "request" not in entry:
            yield Issue(Kind.INVARIANT, "bdl-3: an entry of a batch or transaction needs a request", f"{place}.request")
        for name, rule in _ANSWERED.items():
            if name in entry:
                yield Issue(Kind.INVARIANT, rule, f"{place}.{name}")
        if "/_history/" in entry.get("fullUrl", ""):
            yield Issue(Kind.INVARIANT, "bdl-8: a fullUrl names no version", f"{place}.fullUrl")
        if _lacks_resource(entry):
            yield Issue(Kind.REQUIRED, "a POST or PUT needs a resource", f"{place}.resource")


def _lacks_resource(entry: dict[str, Any]) -> bool:
    request = entry.get("request", {})
    if request.get("method") not in ("POST", "PUT", "PATCH") or isinstance(entry.get("resource"), dict):
        return False
    path = str(request.get("url", "")).partition("?")[0]
    # The inputs of an operation may all be in its URL.
    return not path.endswith("_search") and not path.rpartition("/")[2].startswith("$")


def call(context: Context, entry: dict[str, Any], manner: Manner) -> Call:
    """The interaction that an entry asks for. Raises 400 for a URL that is none of ours."""
    request = entry["request"]
    url = urlsplit(str(request["url"]).removeprefix(context.base).lstrip("/"))
    if url.scheme or url.netloc:
        raise FhirError(
            Kind.INVALID, f"request.url {request['url']!r} must be relative to the base, such as Slot/slt-<uuid>"
        )
    resource = entry.get("resource")
    return Call(
        request["method"],
        [unquote(part) for part in url.path.rstrip("/").split("/")] if url.path.strip("/") else [],
        form(url.query),
        lambda: resource if isinstance(resource, dict) else {},
        strict=manner.strict,
        match=manner.versions(request.get("ifMatch", ""), "ifMatch"),
        none_match=manner.versions(request.get("ifNoneMatch", ""), "ifNoneMatch"),
        none_exist=request.get("ifNoneExist"),
        bodyless=not isinstance(resource, dict),
    )


def answered(answer: Answer, method: str, wanted: str) -> bytes:
    """The response entry of an answer; `wanted` is what `Prefer: return=` says of changes."""
    response: dict[str, Any] = {"status": _STATUS.get(answer.status, str(answer.status))}
    if answer.location:
        response["location"] = answer.location
    if answer.version is not None:
        response["etag"] = etag(answer.version)
    if answer.modified is not None:
        response["lastModified"] = last_updated(answer.modified)
    if wanted == "operationoutcome" and answer.location:
        response["outcome"] = answer.report
    elif answer.remarks:
        response["outcome"] = operation_outcome(answer.remarks)
    entry: dict[str, Any] = {"response": response}
    if answer.location:
        entry = {"fullUrl": answer.location.partition("/_history/")[0], **entry}
    if answer.body and (method == "GET" or (method != "HEAD" and wanted not in _BRIEF)):
        entry = {"resource": orjson.Fragment(answer.body), **entry}
    return orjson.dumps(entry)


def refused(error: FhirError) -> bytes:
    """The response entry of a refusal (batch)."""
    status = _STATUS.get(error.status, str(error.status))
    return orjson.dumps({"response": {"status": status, "outcome": operation_outcome(error.issues)}})


def response_bundle(kind: str, entries: list[bytes]) -> bytes:
    """The Bundle of the response entries, in request order."""
    body = b'{"resourceType":"Bundle","type":"%b-response"' % kind.encode()
    return body + (b',"entry":[' + b",".join(entries) + b"]}" if entries else b"}")
